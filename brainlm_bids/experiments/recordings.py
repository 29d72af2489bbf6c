"""What an experiment starts from: recordings of an output folder, or one series that others made.

In: a folder or a file, and a selection. Out: `Item` values in the order of their names, each named
for the folder of results, with its scaled series (T, 424) at the model's sampling when read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.bids.derivatives import selected
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.timeseries import read_timeseries, stem_of
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json
from brainlm_bids.parcels import scaling
from brainlm_bids.parcels.sampling import at_rate
from brainlm_bids.settings import Settings
from brainlm_bids.training.recordings import Source, find_sources

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What experiments are asked for alike; field names are those of the command line."""

    input: Path
    results: Path
    participant_label: tuple[str, ...] = Settings.participant_label
    session_label: tuple[str, ...] = Settings.session_label
    task_id: tuple[str, ...] = Settings.task_id
    run_id: tuple[str, ...] = Settings.run_id
    series: str = "robust"
    space: str | None = None
    atlas: str | None = None
    tr: float | None = None
    model: tuple[str, ...] = Settings.model
    input_gain: float = Settings.input_gain
    device: str = Settings.device
    precision: str = Settings.precision
    seed: int = Settings.random_seed
    offline: bool = Settings.offline


class Scaled(NamedTuple):
    """A robustly scaled series and its timing.

    Attributes
    ----------
    series
        (T, 424) in interquartile ranges, 0 in parcels without data.
    tr
        Repetition time, s.
    start
        Time of the first volume, in s from the first volume of the source.
    """

    series: Array
    tr: float
    start: float


@dataclass(frozen=True)
class Item:
    """A recording: its names in the results, its file, and why it cannot be used, or ""."""

    naming: Naming
    path: Path
    source: Source | None  # None: a series that others made
    given_tr: float | None
    reason: str = ""

    @property
    def stem(self) -> str:
        """File name of the recording in the results, without description and suffix."""
        return self.naming.stem

    def read(self) -> Scaled:
        """The series. Raises UserError, in one line, for what no number should be made from."""
        if self.reason:
            raise UserError(self.reason)
        if self.source is None:
            return _others_series(self.path, self.given_tr)
        series = self.source.read()
        sidecar = self.path.with_suffix(".json")
        try:
            said = read_json(sidecar)
            return Scaled(series, float(said["RepetitionTime"]), float(said["StartTime"]))
        except (ValueError, KeyError, TypeError) as error:
            kind = type(error).__name__
            raise UserError(f"{sidecar}: cannot be read ({kind}: {error})") from None


def find_items(asked: Asked) -> list[Item]:
    """The recordings that an experiment is about. Raises UserError if there is none."""
    if asked.input.is_file():
        return [_one_series(asked)]
    if not asked.input.is_dir():
        raise UserError(f"{asked.input}: no such folder or file")
    if asked.results.resolve() == asked.input.resolve():
        raise UserError(f"{asked.results}: the results need a folder of their own")
    found = find_sources(asked.input, series=asked.series, space=asked.space, atlas=asked.atlas)
    chosen = [one for one in found if selected(one.path, asked)]
    if not chosen:
        names = ", ".join(one.name for one in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise UserError(f"{asked.input}: no recording of the selection; there are {names}{more}")
    return [_item(asked, one) for one in chosen]


def _item(asked: Asked, source: Source) -> Item:
    name = parse(source.path.name)
    naming = Naming(str(asked.results), source.name, name.get("space"), name.get("atlas"))
    return Item(naming, source.path, source, None, source.reason)


def _one_series(asked: Asked) -> Item:
    given = {
        "--participant-label": asked.participant_label,
        "--session-label": asked.session_label,
        "--task-id": asked.task_id,
        "--run-id": asked.run_id,
        "--space": asked.space,
        "--atlas": asked.atlas,
    }
    flag = next((flag for flag, value in given.items() if value), None)
    if flag:
        raise UserError(f"{flag}: chooses in an output folder; {asked.input} is one series")
    # the atlas that maps are drawn with; the series does not depend on it
    atlas = resources.find_atlas(None, offline=True)
    naming = Naming(str(asked.results), stem_of(asked.input), atlas.space, atlas.label)
    return Item(naming, asked.input, None, asked.tr)


def atlas_image(item: Item, folder: Path) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Labels 1 … 424 (X, Y, Z) and affine of the atlas that the series were made with.

    folder: the output folder, which holds it. Raises UserError where it does not.
    """
    if item.source is None:
        return resources.find_atlas(None, offline=True).load()
    import nibabel as nb

    space, label = item.naming.space, item.naming.atlas
    path = folder / f"tpl-{space}" / f"tpl-{space}_atlas-{label}_res-2_dseg.nii.gz"
    try:
        image: Any = nb.load(path)
        return np.asarray(image.dataobj).astype(np.int16), np.asarray(image.affine, np.float64)
    except (OSError, EOFError, ValueError, nb.filebasedimages.ImageFileError) as error:
        raise UserError(f"{path}: the atlas cannot be read ({error})") from None


def _others_series(path: Path, given_tr: float | None) -> Scaled:
    names = resources.parcels().names
    try:
        found = read_timeseries(path, names)
    except UserError as error:
        raise UserError(str(error).removeprefix("--timeseries ")) from None
    tr = given_tr or found.tr
    if tr is None:
        raise UserError(f"{path}: no sidecar says its repetition time; give --tr")
    with_data = np.flatnonzero(np.isfinite(found.values).any(axis=1))
    n_dummy = int(with_data[0]) if with_data.size else len(found.values)
    values = found.values[n_dummy:]
    if len(values) < 2:
        raise UserError(f"{path}: has {len(values)} volumes with data")
    start = n_dummy * tr
    values, tr = at_rate(values, tr, Settings.model_tr)
    # what is scaled already does not change: its median is 0 and its interquartile range 1
    scaled, _ = scaling.scale(values, scaling.recording_stats(values))
    return Scaled(scaled.astype(np.float32), tr, start)
