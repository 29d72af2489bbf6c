"""The recordings of an output folder: the series of each, and whether it can be used."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.derivatives import (
    Derivative,
    Selection,
    find_derivatives,
    identify,
    selected,
)
from brainlm_bids.bids.names import parse, session_id
from brainlm_bids.bids.outputs import (
    COHORT_SERIES_STAGE,
    SERIES_STAGE,
    Naming,
    changed,
    is_a424,
    output_table,
    parcellation_stage,
    read_recently,
    read_record,
    record_path,
    recorded_sidecar,
)
from brainlm_bids.bids.ratings import Rating
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_tsv
from brainlm_bids.notices import Notice, from_json

INCLUDED, EXCLUDED, FAILED = "included", "excluded", "failed"
# The stage whose record says that a series is complete.
_STAGES = {
    "denoised": SERIES_STAGE,
    "robust": SERIES_STAGE,
    "cohort_robust": COHORT_SERIES_STAGE,
}
_FORMER_STAGES = {"cohort_robust": "robustcohort"}


@dataclass(frozen=True)
class Recording:
    """The series of one run, and whether it can be used.

    Attributes
    ----------
    naming
        Of the recording's files.
    path
        The series: a table with a row per volume and a column per parcel.
    configuration
        Hash of the configuration under which the series was made.
    sidecar, coverage
        Of the denoised series; mean covered fraction of the parcels. Known at group level.
    status, reason
        `included`, `excluded` by a criterion, or `failed`; why, in one line.
    rating
        What people said of it, if anybody did. Known at group level.
    """

    naming: Naming
    path: Path
    configuration: str = ""
    sidecar: dict[str, Any] = field(default_factory=dict, hash=False)
    coverage: float | None = None
    status: str = INCLUDED
    reason: str = ""
    rating: Rating | None = None

    @property
    def stem(self) -> str:
        """File name without description, suffix and extension."""
        return self.naming.stem

    @property
    def entities(self) -> dict[str, str]:
        """BIDS entities of the recording, as spelled in its file names."""
        return parse(self.stem).entities

    @property
    def participant(self) -> str:
        """Participant as in the file names, such as `sub-01`."""
        return self.naming.subject

    @property
    def session_id(self) -> str | None:
        """As BIDS' tables write it: `ses-1`."""
        return session_id(self.entities)

    @property
    def warnings(self) -> list[str]:
        """Kinds of the warnings in the sidecar, without repetitions."""
        return list(dict.fromkeys(one.kind for one in self.notices))

    @property
    def notices(self) -> list[Notice]:
        """The warnings in the sidecar."""
        return from_json(self.sidecar.get("Warnings"))

    @property
    def mean_fd(self) -> float | None:
        """Mean framewise displacement in mm, None if the sidecar does not report it."""
        return self.sidecar.get("MeanFramewiseDisplacement")

    def left_out(self, status: str, reason: str) -> "Recording":
        """Return the same recording, marked as excluded for a reason."""
        return dataclasses.replace(self, status=status, reason=reason)

    def read(self, parcels: Sequence[str]) -> NDArray[np.float64]:
        """The series (volumes, parcels).

        Raises
        ------
        UserError
            If the recording cannot be used, or its columns are not `parcels` in their order.
        """
        if self.status != INCLUDED:
            raise UserError(self.reason)
        names, values = read_tsv(self.path)
        if names != list(parcels):
            raise UserError(f"{self.path}: its columns are not the parcels of A424 in their order")
        return values


def warnings_of_series(output_dir: Path, stem: str, stage: str = SERIES_STAGE) -> list[Notice]:
    """The warnings in the sidecars of a recording's series, each once; none where there are none.

    Parameters
    ----------
    output_dir
        The folder.
    stem
        Of the recording.
    stage
        That made the series, as its record names it.
    """
    return _warnings(output_dir, stem, stage, _STAGES)


def warnings_of_embeddings(output_dir: Path, stem: str, stage: str) -> list[Notice]:
    """The warnings in the sidecar of a recording's embeddings by a model; see `warnings_of_series`.

    Parameters
    ----------
    output_dir
        The folder.
    stem
        Of the recording.
    stage
        Of the model, as its record names it.
    """
    return _warnings(output_dir, stem, stage, ("embeddings",))


def distortion_of_series(output_dir: Path, stem: str) -> dict[str, Any]:
    """What was done about a recording's distortion, as its series record it; empty if nothing."""
    for sidecar in _sidecars(output_dir, stem, SERIES_STAGE, ("denoised",)):
        correction = sidecar.get("DistortionCorrection")
        return correction if isinstance(correction, dict) else {}
    return {}


def _warnings(output_dir: Path, stem: str, stage: str, keys: Collection[str]) -> list[Notice]:
    found: list[Notice] = []
    for sidecar in _sidecars(output_dir, stem, stage, keys):
        found += from_json(sidecar.get("Warnings"))
    return list(dict.fromkeys(found))


def _sidecars(
    output_dir: Path, stem: str, stage: str, keys: Collection[str]
) -> Iterator[Mapping[str, Any]]:
    ends = tuple(end for key in keys for end in _ends_of_sidecar(key))
    try:
        record = read_recently(record_path(output_dir, stem, stage))
    except UserError:  # there is none, or it is damaged
        return
    listed = record.get("Outputs")
    for name in listed if isinstance(listed, dict) else ():
        if not name.endswith(ends):
            continue
        one = identify(Path(name), output_dir)
        if one is not None and one.key in keys:
            with contextlib.suppress(UserError):  # a damaged sidecar is reported elsewhere
                yield recorded_sidecar(output_dir, record, name)


@cache
def _ends_of_sidecar(key: str) -> tuple[str, ...]:
    """How the names of the sidecars of an output end, which tells most other files apart.

    >>> _ends_of_sidecar("denoised")
    ('desc-denoised_timeseries.json',)
    """
    row = output_table()[key]
    last = [patterns[-1] for patterns in (row.entities, row.formerly) if patterns]
    fixed = all(pattern.startswith("desc-") and "{" not in pattern for pattern in last)
    found = [f"{pattern}_{row.suffix}.json" for pattern in last] if fixed and last else []
    return tuple(found) or (f"_{row.suffix}.json",)


def find_recordings(
    output_dir: Path,
    key: str = "denoised",
    *,
    space: str | None = None,
    atlas: str | None = None,
    selection: Selection | None = None,
) -> list[Recording]:
    """The recordings of an output folder that have a series, in the order of their names.

    Parameters
    ----------
    output_dir
        The folder.
    key
        Of the series: `denoised`, `robust` or `cohort_robust`.
    space, atlas
        Needed where the folder has series in several. Without `atlas` they are those of A424, if
        there are any.
    selection
        Subjects, sessions, tasks and runs; None: all.

    Returns
    -------
    list of Recording
        Also those that were not finished, or whose series has changed: they are `failed`.

    Raises
    ------
    UserError
        If there is none, or there are several kinds.
    """
    every = find_derivatives(output_dir, [key])
    found = [
        one
        for one in every
        if space in (None, one.naming.space) and atlas in (None, one.naming.atlas)
    ]
    # other parcellations are taken where they are asked for, or are all that there is
    if atlas is None and any(is_a424(one.naming.atlas) for one in found):
        found = [one for one in found if is_a424(one.naming.atlas)]
    if not found:
        raise UserError(_none_of(output_dir, key, every))
    kinds = sorted({(one.naming.space, one.naming.atlas) for one in found})
    if len(kinds) > 1:
        listed = ", ".join(f"--space {space} --atlas {atlas}" for space, atlas in kinds)
        raise UserError(f"{output_dir}: has series of several kinds; choose one: {listed}")
    chosen = [one for one in found if selection is None or selected(one.naming.stem, selection)]
    if not chosen:
        names = ", ".join(one.naming.stem for one in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise UserError(f"{output_dir}: no recording of the selection; there are {names}{more}")
    return [recording_of(one) for one in sorted(chosen, key=lambda one: one.naming.stem)]


def _none_of(output_dir: Path, key: str, others: Sequence[Derivative]) -> str:
    name = Naming("", "", "", "").path(key).name
    level = next(iter(output_table()[key].levels))
    if not others:
        return (
            f"{output_dir}: holds no series (*_{name}); give an output folder of brainlm-bids "
            f"after the level {level}"
        )
    example = others[0].naming
    return (
        f"{output_dir}: no series of this space and atlas; the folder has, for example, "
        f"space-{example.space} and atlas-{example.atlas}"
    )


def recording_of(series: Derivative) -> Recording:
    """A recording, `failed` where its record does not vouch for the series."""
    naming = series.naming
    out = Path(naming.output_dir)
    stage = (_FORMER_STAGES if series.formerly else _STAGES)[series.key]
    if not is_a424(naming.atlas):
        stage = parcellation_stage(naming.atlas)
    record = read_record(out, naming.stem, stage)
    listed = series.path.relative_to(out).as_posix()
    recording = Recording(naming, series.path, "" if record is None else record[0])
    if record is None or listed not in record[1]:
        reason = f"{naming.stem}: its series were not finished; run brainlm-bids again"
        return recording.left_out(FAILED, reason)
    if changed(out, {listed: record[1][listed]}):
        reason = f"{listed}: is missing or not as it was written; run brainlm-bids again"
        return recording.left_out(FAILED, reason)
    return recording
