"""The methods text of what was done about the distortion of BOLD runs."""

from __future__ import annotations

from collections.abc import Sequence

from brainlm_bids.report.clauses import said
from brainlm_bids.report.run_records import RunRecord, mapping

# How the field was known, by the method in the sidecar (`brainlm_bids.bids.distortion`).
_FIELD = {
    "field map": "a field map [@jezzard]",
    "phase difference": "a phase difference of two gradient echoes [@jezzard], unwrapped "
    "[@abdulrahman] within the brain",
    "two phases": "the phase difference of two gradient echoes [@jezzard], unwrapped [@abdulrahman] "
    "within the brain",
    "pair of opposite polarity": "two echo-planar images of opposite phase-encoding polarity, "
    "between which the field was found by a regularised Gauss–Newton method that conserves "
    "intensity [@andersson;@ruthotto]",
}
_MOVED = (
    "The distortion moves the points at which a run is sampled, so that no image was interpolated "
    "once more for it."
)


def distortion(runs: Sequence[RunRecord]) -> str:
    """How runs were corrected for susceptibility distortion, or that they were not."""
    text = said([_correction(run) for run in runs])
    corrected = any(_method(run) in _FIELD for run in runs)
    return f"{text} {_MOVED}" if corrected else text


def _method(run: RunRecord) -> str:
    return str(mapping(run.series.get("DistortionCorrection")).get("Method", ""))


def _correction(run: RunRecord) -> str | None:
    method = _method(run)
    if method in _FIELD:
        return (
            "susceptibility distortion along the phase-encoding axis was corrected with "
            f"{_FIELD[method]}, registered rigidly to the BOLD reference"
        )
    if method == "by fMRIPrep":
        return "susceptibility distortion had been corrected by fMRIPrep"
    if method == "none":
        return "susceptibility distortion was not corrected"
    return None
