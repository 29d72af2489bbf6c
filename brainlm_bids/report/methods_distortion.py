"""The methods text of what was done about the distortion of BOLD runs."""

from __future__ import annotations

from collections.abc import Sequence

from brainlm_bids.bids.distortion import BY_FMRIPREP, BY_T1W, METHODS, NONE
from brainlm_bids.bids.fieldmaps import FIELD, PAIR, PHASEDIFF, PHASES
from brainlm_bids.report.clauses import said
from brainlm_bids.report.run_records import RunRecord, mapping

# How the field was known, by the method in the sidecar.
_FIELD = {
    METHODS[FIELD]: "a field map [@jezzard]",
    METHODS[PHASEDIFF]: "a phase difference of two gradient echoes [@jezzard], unwrapped "
    "[@abdulrahman] within the brain",
    METHODS[PHASES]: "the phase difference of two gradient echoes [@jezzard], unwrapped "
    "[@abdulrahman] within the brain",
    METHODS[PAIR]: "two echo-planar images of opposite phase-encoding polarity, "
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
    corrected = any(_method(run) in (*_FIELD, BY_T1W) for run in runs)
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
    if method == BY_T1W:
        return (
            "there was no field map, and susceptibility distortion was estimated from the T1w "
            "image: near the air of the skull’s base, by a smooth shift along the phase-encoding "
            "axis that makes the BOLD reference locally most like what is expected of the T1w "
            "image, and the boundary of the white matter [@bbr] sharpest"
        )
    if method == BY_FMRIPREP:
        return "susceptibility distortion had been corrected by fMRIPrep"
    if method == NONE:
        return "susceptibility distortion was not corrected"
    return None
