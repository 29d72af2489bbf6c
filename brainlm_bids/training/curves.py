"""Learning curves, written as TSV, PNG, SVG and TensorBoard files."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from brainlm_bids.bids.calls import tool_calls
from brainlm_bids.bids.names import GROUP
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.files import read_rows, write_tsv

Row = Mapping[str, float]
START_FILE = "start.tsv"  # scores of the weights that a training begins with


def write_curves(file: Path, history: Sequence[Row]) -> Path:
    """Write the learning curves as a table.

    Parameters
    ----------
    file
        The TSV file.
    history
        A row per epoch, all with the same columns.

    Returns
    -------
    Path
        The file.
    """
    names = list(history[0])
    return write_tsv(file, names, [[row[name] for row in history] for name in names])


def draw_curves(folder: Path, history: Sequence[Row]) -> list[Path]:
    """Draw the learning curves beside the baselines, the first weights and the resumptions.

    Parameters
    ----------
    folder
        The run folder.
    history
        A row per epoch.

    Returns
    -------
    list of Path
        A PNG and an SVG file.
    """
    from brainlm_bids.figures.experiments import plot_pretraining

    steps_per_epoch = history[-1]["step"] / history[-1]["epoch"]
    resumed = [int(call.facts.get("FromStep") or 0) for call in tool_calls(folder)]
    first = read_rows(folder / START_FILE) if (folder / START_FILE).is_file() else []
    paths = [folder / "curves.png", Naming(str(folder), GROUP, "", "").figure("pretrain_curves")]
    for path in paths:
        plot_pretraining(
            path,
            history,
            {row["weights"]: row for row in first},
            # a call that found the training complete resumed nothing
            [step / steps_per_epoch for step in resumed if 0 < step < history[-1]["step"]],
        )
    return paths


class Board:
    """TensorBoard's event files of a run: scalars over training steps.

    Parameters
    ----------
    folder
        Folder of the event files.
    first
        Events that an interrupted run wrote from this step on are discarded.
    """

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboardX import SummaryWriter

        # TensorBoard names files by the second, and reads them in the order of their names: within
        # one second nanoseconds keep the file of a resumed run after those of the run before it.
        self._writer = SummaryWriter(
            str(folder), purge_step=first, filename_suffix=f".{time.time_ns():020d}.step{first}"
        )

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def write(self, group: str, values: Row, step: int) -> None:
        """Write numbers as `group/name`; NaN are left out.

        Parameters
        ----------
        group
            First part of the names.
        values
            Name to number.
        step
            Training step.
        """
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"{group}/{name}", value, step)
