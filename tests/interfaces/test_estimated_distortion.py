"""What sidecars say of a distortion that was estimated without a field map, or refused."""

from pathlib import Path
from types import SimpleNamespace

from brainlm_bids.bids.distortion import BY_T1W, DistortionInfo, in_one_line
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.derivatives.distortion import (
    distortion_fields,
    distortion_warnings,
)
from brainlm_bids.preproc.distortion.boundary_field import Evidence
from brainlm_bids.preproc.distortion.contrast import Contrasts

PLANNED = DistortionInfo(BY_T1W, direction="j-")


def _inputs(folder: Path, **values: str) -> SimpleNamespace:
    evidence = payloads.save(Evidence(0.02, 0.001, 0.05, 7.5, 0.0), folder / "evidence")
    nothing = {"distortion": "", "fit": "", "contrasts": "", "refused": ""}
    return SimpleNamespace(**{**nothing, "evidence": evidence, **values})


def test_what_was_found_is_recorded_with_its_evidence(tmp_path: Path) -> None:
    contrasts = payloads.save(Contrasts(600, -0.05, 0.11, -0.22), tmp_path / "contrasts")
    inputs = _inputs(tmp_path, distortion="there.npz", contrasts=contrasts)
    fields = distortion_fields(PLANNED, inputs)
    assert in_one_line(fields) == "estimated from the T1w image"
    assert fields["BoundaryGain"] == 0.02 and fields["LargestDisplacement"] == 7.5
    assert fields["BoundarySharpness"] == 0.11 and fields["PhaseEncodingDirection"] == "j-"
    assert distortion_warnings(PLANNED, inputs) == []


def test_what_was_refused_is_recorded_with_the_reason(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, refused="no distortion of more than 2 mm was found")
    fields = distortion_fields(PLANNED, inputs)
    assert in_one_line(fields) == "none: no distortion of more than 2 mm was found"
    assert fields["BoundaryGainControl"] == 0.001
    (warning,) = distortion_warnings(PLANNED, inputs)
    assert warning.kind == "distortion_not_estimated" and "2 mm" in warning.text
