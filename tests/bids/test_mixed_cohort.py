"""What recordings of a cohort differ in is a warning that names one of the others."""

from pathlib import Path
from typing import Any

import pytest

from brainlm_bids.bids.cohort import mixed_settings
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.quality import QUALITY, quality, quality_columns
from brainlm_bids.bids.recordings import INCLUDED, Recording

ALIKE = {
    "Denoising": "nonaggr",
    "RepetitionTime": 0.735,
    "Registration": "BOLD reference to T1w (rigid), T1w to template (affine and diffeomorphic)",
    "Coregistration": "boundary",
    "NumberOfVolumes": 40,
    "DummyVolumes": 2,
    "DistortionCorrection": {"Method": "phase difference", "FieldMap": ["one"]},
}


def _recordings(**changes: Any) -> list[Recording]:
    recordings = []
    for number in range(5):
        naming = Naming("out", f"sub-{number}_task-rest", "MNI152NLin6Asym", "A424")
        sidecar = ALIKE | (changes if number == 3 else {})
        recordings.append(Recording(naming, Path("x"), INCLUDED, sidecar=sidecar))
    return recordings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("RepetitionTime", 2.0),
        ("Registration", "BOLD reference to template (affine and non-linear), no T1w"),
        ("Coregistration", "mutual information"),
        ("Coregistration", None),
        ("Denoising", "none"),
        ("RegressedConfounds", ["global_signal", "a_comp_cor_00"]),
        ("GrandMean", 10000),
        ("DistortionCorrection", {"Method": "none", "Reason": "--ignore fieldmaps"}),
    ],
)
def test_a_difference_is_warned_about(key: str, value: Any) -> None:
    (warning,) = mixed_settings(_recordings(**{key: value}))
    assert warning.kind == "mixed_settings"
    assert f"differ in {key}: 1 of 5, for example sub-3_task-rest" in warning.text
    assert ("--regress-out repetition_time" in warning.text) == (key == "RepetitionTime")


def test_recordings_that_are_alike_but_for_rounding() -> None:
    assert mixed_settings(_recordings()) == []
    assert mixed_settings(_recordings(RepetitionTime=0.73500001)) == []
    some, more = (
        [Recording(one.naming, one.path, INCLUDED, sidecar={"RegressedConfounds": names})]
        for one, names in zip(
            _recordings(), (["a_comp_cor_00"], ["a_comp_cor_00", "a_comp_cor_01"]), strict=False
        )
    )
    assert mixed_settings([*some, *more]) == []
    other = {"Method": "phase difference", "FieldMap": ["another"]}
    assert mixed_settings(_recordings(DistortionCorrection=other)) == []


def test_repetition_time_can_be_regressed_out() -> None:
    assert "repetition_time" in QUALITY
    assert quality(_recordings()[0])["repetition_time"] == 0.735
    columns = quality_columns(_recordings(RepetitionTime=2.0), QUALITY)
    assert columns["repetition_time"] == ["0.735"] * 3 + ["2.0", "0.735"]
