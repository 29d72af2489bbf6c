"""How much there is of a run: volumes, values, and its length, from its header."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from brainlm_bids.bids.runs import Run
from brainlm_bids.image_files import open_image
from brainlm_bids.workflows.costs import Size


@dataclass(frozen=True)
class RunSize:
    """Size of a run; values of 0 where its file does not tell.

    Parameters
    ----------
    n_volumes : int
        Number of volumes.
    millions : float
        Millions of values, which are voxels × volumes of all echoes.
    seconds : float
        Its length.
    """

    n_volumes: int
    millions: float
    seconds: float

    @property
    def cost(self) -> Size:
        """What the time of its steps depends on."""
        return Size(self.millions, self.seconds)


def size_of(run: Run) -> RunSize | None:
    """The size of a run; None where its file cannot be read."""
    try:
        n_volumes, values = _extent(run)
    except Exception:  # libraries raise errors of any kind; the run itself will tell
        return None
    millions = values * max(1, len(run.echoes)) / 1e6
    return RunSize(n_volumes, millions, n_volumes * run.tr)


def sizes_of(runs: Iterable[Run]) -> dict[str, Size]:
    """Sizes of runs by their names, of those that can be read."""
    sizes = {run.stem: size_of(run) for run in runs}
    return {stem: size.cost for stem, size in sizes.items() if size is not None}


def _extent(run: Run) -> tuple[int, int]:
    """Number of volumes, and of values, of an image, or of a table or array of series."""
    source = run.source
    if run.shape is not None:
        return int(run.shape[-1]), math.prod(run.shape)
    if source.suffix == ".npy":
        return len(np.load(source, mmap_mode="r", allow_pickle=False)), 0
    if ".nii" not in source.name:
        with source.open("rb") as table:
            n_volumes = max(0, sum(1 for _ in table) - 1)
        return n_volumes, 0
    shape = open_image(source).shape
    place = 0 if source.name.endswith((".dtseries.nii", ".ptseries.nii")) else -1
    return int(shape[place]), math.prod(shape)
