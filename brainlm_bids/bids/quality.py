"""Measures of the quality of recordings, as the tables of a cohort have them."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainlm_bids.bids.context import REGISTRATION_FIELDS
from brainlm_bids.bids.participants import Columns
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_tsv

# Measures of quality that --regress-out accepts besides the columns of the tables.
QUALITY = ("mean_fd", "coverage", "n_volumes", "repetition_time")
# How well a recording was registered: columns of the table of recordings, fields of sidecars.
REGISTRATION_COLUMNS = {
    "registration_contrast": REGISTRATION_FIELDS["contrast"],
    "registration_cost": REGISTRATION_FIELDS["cost"],
    "brain_overlap": REGISTRATION_FIELDS["overlap"],
    "template_dice": REGISTRATION_FIELDS["dice"],
    "brain_at_image_edge": REGISTRATION_FIELDS["edge"],
    "template_correlation": REGISTRATION_FIELDS["correlation"],
}

# Of a run's image quality, what the cohort's table of recordings has.
IMAGE_QUALITY_COLUMNS = (
    *("tsnr", "snr", "fwhm_avg", "gsr_x", "gsr_y", "efc", "fber", "gcor", "aor", "aqi"),
    *("dvars_std", "fd_perc", "fd_p95"),
)


def quality(recording: Recording) -> dict[str, Any]:
    """A recording's name and measures of quality, as the tables of the cohort have them."""
    entities, sidecar = recording.entities, recording.sidecar
    return {
        "stem": recording.stem,
        "participant_id": recording.participant,
        "session_id": recording.session_id,
        "task": entities.get("task"),
        "run": entities.get("run"),
        "mean_fd": recording.mean_fd,
        "coverage": recording.coverage,
        "n_volumes": n_volumes(sidecar),
        "repetition_time": sidecar.get("RepetitionTime"),
        "sd_demeaned": sidecar.get("StandardDeviationDemeaned"),
        **{name: sidecar.get(field) for name, field in REGISTRATION_COLUMNS.items()},
    }


def image_quality(recording: Recording) -> dict[str, float | None]:
    """A recording's image quality; None where it was not measured or cannot be read."""
    known: dict[str, float] = {}
    with contextlib.suppress(UserError):
        path = recording.naming.existing("image_quality")
        names, values = read_tsv(path) if path.is_file() else ([], np.zeros((1, 0)))
        known = dict(zip(names, values[0].tolist(), strict=True)) if len(values) == 1 else {}
    found = {name: known.get(name, np.nan) for name in IMAGE_QUALITY_COLUMNS}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def bad_volumes(sidecar: Mapping[str, Any]) -> int | None:
    """Number of whole bad volumes of the steady state; None where they were not looked for.

    >>> bad_volumes({"DummyVolumes": 2, "BadVolumes": [0, 7]}), bad_volumes({})
    (1, None)
    """
    listed, dummies = sidecar.get("BadVolumes"), _count(sidecar.get("DummyVolumes")) or 0
    if not isinstance(listed, list):
        return None
    return sum((_count(volume) or 0) >= dummies for volume in listed)


def n_volumes(sidecar: Mapping[str, Any]) -> int | None:
    """Number of volumes in the series, without non-steady and bad ones; None if it is not known.

    >>> n_volumes({"NumberOfVolumes": 60, "DummyVolumes": 2, "BadVolumes": [0, 7]})
    57
    """
    volumes = _count(sidecar.get("NumberOfVolumes"))
    if volumes is None:
        return None
    return volumes - (_count(sidecar.get("DummyVolumes")) or 0) - (bad_volumes(sidecar) or 0)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None


def quality_columns(recordings: Sequence[Recording], names: Sequence[str]) -> Columns:
    """Some of the values of `quality` as columns of text, as variables are."""
    rows: list[Mapping[str, Any]] = [quality(recording) for recording in recordings]
    return {name: [None if row[name] is None else str(row[name]) for row in rows] for name in names}
