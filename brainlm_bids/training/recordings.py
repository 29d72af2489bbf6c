"""What training starts from: the scaled series in an output folder of brainlm-bids.

In: a folder that the level participant (or group) has filled. Out: `Source` values in the order of
their names, each with its series (T, 424), or the reason in one line why it does not count.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.names import build, parse
from brainlm_bids.bids.outputs import changed, output_table, read_record
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_tsv
from brainlm_bids.resources import parcels

Array = NDArray[np.float32]
# --series -> (key in the table of outputs, stage whose record says that the file is complete)
SERIES = {"robust": ("robust", "series"), "robustcohort": ("cohort_robust", "robustcohort")}


class Recording(NamedTuple):
    """A recording to learn from: its name, its subject, and its scaled series (T, P)."""

    name: str
    subject: str
    series: Array


class LeftOut(NamedTuple):
    """A recording that cannot be used, and why, in one line."""

    name: str
    subject: str
    reason: str


@dataclass(frozen=True)
class Source:
    """The scaled series of one run in an output folder; `reason`: why it cannot be used, or ""."""

    name: str  # the run's entities: sub-01_ses-1_task-rest
    subject: str  # sub-01
    path: Path
    configuration: str = ""
    reason: str = ""

    def read(self) -> Array:
        """(T, 424) float32. Raises UserError for a file that is no whole scaled series."""
        names, values = read_tsv(self.path)
        if tuple(names) != parcels().names:
            raise UserError(f"{self.path}: its columns are not the parcels of A424 in their order")
        check_series(values, str(self.path))
        return values.astype(np.float32)


def check_series(values: NDArray[np.floating], name: str) -> None:
    """Raise UserError, with `name`, for values (T, P) that no network should learn from."""
    if values.ndim != 2 or not values.size:
        raise UserError(f"{name}: has the shape {values.shape}; expected volumes × parcels")
    n_bad = int((~np.isfinite(values)).any(axis=0).sum())
    if n_bad:
        raise UserError(f"{name}: holds missing or infinite values in {n_bad} parcels")
    if not values.any():
        raise UserError(f"{name}: is zero throughout: no parcel has data")


def find_sources(
    output_dir: Path, *, series: str = "robust", space: str | None = None, atlas: str | None = None
) -> list[Source]:
    """All scaled series of an output folder, also those that were not finished or have changed.

    series: "robust" (scaled by the recording's own statistics) or "robustcohort" (by the cohort's,
    which the level group writes). space, atlas: needed where the folder has several. Raises
    UserError if there is none.
    """
    key, _ = SERIES[series]
    row = output_table()[key]
    ending = f"_{build('', {'desc': row['desc']}, row['suffix'], row['extension'])}"
    found = [
        (path, *_space_and_atlas(path))
        for path in sorted(output_dir.glob(f"sub-*/**/{row['datatype']}/*{ending}"))
    ]
    found = [one for one in found if space in (None, one[1]) and atlas in (None, one[2])]
    if not found:
        level = "participant" if series == "robust" else "group"
        raise UserError(
            f"{output_dir}: holds no scaled series (*{ending}); give an output folder of "
            f"brainlm-bids after the level {level}, or a store"
        )
    kinds = sorted({(one[1], one[2]) for one in found})
    if len(kinds) > 1:
        said = ", ".join(f"--space {a} --atlas {b}" for a, b in kinds)
        raise UserError(f"{output_dir}: has series of several kinds; choose one: {said}")
    return [_source(output_dir, path, series) for path, _, _ in found]


def _space_and_atlas(path: Path) -> tuple[str, str]:
    name = parse(path.name)
    return name.get("space"), name.get("atlas")


def _source(output_dir: Path, path: Path, series: str) -> Source:
    _, stage = SERIES[series]
    name = parse(path.name)
    stem = name.source
    source = Source(stem, name.subject, path)
    record = read_record(output_dir, stem, stage)
    listed = path.relative_to(output_dir).as_posix()
    if record is None or listed not in record[1]:
        reason = f"{stem}: its series were not finished; run brainlm-bids again"
    elif changed(output_dir, {listed: record[1][listed]}):
        reason = f"{listed}: is missing or not as it was written; run brainlm-bids again"
    else:
        reason = ""
    configuration = record[0] if record else ""
    return Source(source.name, source.subject, path, configuration, reason)


def read_all(sources: Sequence[Source]) -> Iterator[Recording | LeftOut]:
    """Each source's recording in turn, or why there is none."""
    for source in sources:
        if source.reason:
            yield LeftOut(source.name, source.subject, source.reason)
            continue
        try:
            yield Recording(source.name, source.subject, source.read())
        except UserError as error:
            yield LeftOut(source.name, source.subject, str(error))
