"""What is done about the distortion of a run, for sidecars, status table, log and reports.

A record of the method, or of the reason why there is none, comes in. The field of a sidecar goes
out, and the same in one line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from brainlm_bids.bids.fieldmaps import FIELD, PAIR, PHASEDIFF, PHASES
from brainlm_bids.bids.names import parse

# Methods that do not tell how the field was measured.
NONE, BY_FMRIPREP, UNKNOWN = "none", "by fMRIPrep", "unknown"
# Without a field map.
BY_T1W = "estimated from the T1w image"
METHODS = {
    FIELD: "field map",
    PHASEDIFF: "phase difference",
    PHASES: "two phases",
    PAIR: "pair of opposite polarity",
}
# How well a field map fits the run, by the names of `Fit` (preproc/distortion/placement.py).
FIT_FIELDS = {
    "agreement": "FieldMapAgreement",
    "overlap": "FieldMapOverlap",
    "measured": "FieldMapCoverage",
    "moved_mm": "FieldMapHeadMotion",
    "largest_mm": "LargestDisplacement",
    "folded": "FoldedVoxels",
    "corrected": "DisplacedAgreement",
    "uncorrected": "DisplacedAgreementUncorrected",
    "reversed": "DisplacedAgreementReversed",
    "pair_before": "PairDifferenceBefore",
    "pair_after": "PairDifferenceAfter",
}
# How sharp the boundary of white matter is where it is displaced, by the names of `Contrasts`.
CONTRAST_FIELDS = {
    "corrected": "BoundarySharpness",
    "uncorrected": "BoundarySharpnessUncorrected",
    "reversed": "BoundarySharpnessReversed",
}
# What speaks for a distortion that was estimated without a field map, by the names of `Evidence`
# (preproc/distortion/boundary_field.py).
EVIDENCE_FIELDS = {
    "gain": "BoundaryGain",
    "control_gain": "BoundaryGainControl",
    "moved": "DisplacedShare",
    "largest": "LargestDisplacement",
    "folded": "FoldedShare",
}


@dataclass(frozen=True)
class DistortionInfo:
    """How a run is corrected for susceptibility distortion.

    Attributes
    ----------
    method
        One of `METHODS`, `BY_T1W`, or `none`, `by fMRIPrep`, `unknown`.
    fieldmap
        BIDS URIs of the field map's images.
    direction, readout
        Of the run's phase encoding, and its total read-out time, s; None where not known.
    reason
        Why there is no correction, or none that is known, in one line.
    """

    method: str = UNKNOWN
    fieldmap: tuple[str, ...] = ()
    direction: str | None = None
    readout: float | None = None
    reason: str = ""

    @property
    def corrects(self) -> bool:
        """Whether the run is to be corrected, by a field map or without one."""
        return self.estimated or self.method in METHODS.values()

    @property
    def estimated(self) -> bool:
        """Whether its distortion is to be found without a field map."""
        return self.method == BY_T1W

    def refused(self, reason: str) -> "DistortionInfo":
        """The same where the correction was not made after all."""
        return replace(self, method=NONE, reason=reason)

    def sidecar(self, numbers: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The content of the field DistortionCorrection; numbers: of how well it went."""
        values = {
            "Method": self.method,
            "FieldMap": list(self.fieldmap),
            "PhaseEncodingDirection": self.direction,
            "TotalReadoutTime": self.readout,
            "Reason": self.reason,
            **(numbers or {}),
        }
        return {key: value for key, value in values.items() if value not in (None, "", [])}

    def __str__(self) -> str:
        return in_one_line(self.sidecar())


def in_one_line(correction: Mapping[str, Any]) -> str:
    """The field DistortionCorrection of a sidecar in one line; empty where there is none.

    >>> in_one_line({"Method": "none", "Reason": "--ignore fieldmaps"})
    'none: --ignore fieldmaps'
    >>> image = "bids:raw:sub-01/fmap/sub-01_phasediff.nii.gz"
    >>> in_one_line({"Method": "phase difference", "FieldMap": [image]})
    'phase difference: sub-01_phasediff.nii.gz'
    """
    method, reason = correction.get("Method"), correction.get("Reason")
    if not isinstance(method, str):
        return ""
    names = [PurePosixPath(str(uri)).name for uri in correction.get("FieldMap") or []]
    shown = [name for name in names if not parse(name).suffix.startswith("magnitude")]
    return ": ".join(filter(None, (method, str(reason or ""), ", ".join(shown))))
