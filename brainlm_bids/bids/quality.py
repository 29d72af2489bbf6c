"""Measures of the quality of recordings, as the tables of a cohort have them."""

from collections.abc import Mapping, Sequence
from typing import Any

from brainlm_bids.bids.context import REGISTRATION_FIELDS
from brainlm_bids.bids.derivatives import Recording
from brainlm_bids.bids.participants import Columns

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


def quality(recording: Recording) -> dict[str, Any]:
    """A recording's name and measures of quality, as the tables of the cohort have them."""
    entities, sidecar = recording.entities, recording.sidecar
    volumes, dummies = sidecar.get("NumberOfVolumes"), sidecar.get("DummyVolumes", 0)
    bad = sum(volume >= dummies for volume in sidecar.get("BadVolumes") or [])
    return {
        "stem": recording.stem,
        "participant_id": recording.participant,
        "session_id": recording.session_id,
        "task": entities.get("task"),
        "run": entities.get("run"),
        "mean_fd": recording.mean_fd,
        "coverage": recording.coverage,
        "n_volumes": None if volumes is None else volumes - dummies - bad,
        "repetition_time": sidecar.get("RepetitionTime"),
        "sd_demeaned": sidecar.get("StandardDeviationDemeaned"),
        **{name: sidecar.get(field) for name, field in REGISTRATION_COLUMNS.items()},
    }


def quality_columns(recordings: Sequence[Recording], names: Sequence[str]) -> Columns:
    """Some of the values of `quality` as columns of text, as variables are."""
    rows: list[Mapping[str, Any]] = [quality(recording) for recording in recordings]
    return {name: [None if row[name] is None else str(row[name]) for row in rows] for name in names}
