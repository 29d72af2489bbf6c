"""What a report tells of a run's distortion, from its sidecar."""

import pytest

from brainlm_bids.report import run_facts

CORRECTED = {
    "Method": "phase difference",
    "PhaseEncodingDirection": "j-",
    "TotalReadoutTime": 0.04,
    "LargestDisplacement": 8.2,
    "DisplacedAgreement": 0.5,
    "DisplacedAgreementUncorrected": 0.3,
    "DisplacedAgreementReversed": 0.2,
}


def test_method_and_numbers_are_facts() -> None:
    facts = {fact.label: fact for fact in run_facts.distortion({"DistortionCorrection": CORRECTED})}
    assert facts["Distortion correction"].value == "phase difference"
    assert facts["Phase encoding"].value == "j-" and "40 ms" in facts["Phase encoding"].note
    assert facts["Largest displacement"].value == "8.2 mm"
    agreement = facts["Agreement with the field map where displaced"]
    assert (agreement.value, agreement.odd) == ("0.5", False)
    assert agreement.note == "0.3 without the correction, 0.2 with its reverse"


@pytest.mark.parametrize("better", ["Uncorrected", "Reversed"])
def test_a_correction_that_does_not_help_looks_odd(better: str) -> None:
    correction = CORRECTED | {f"DisplacedAgreement{better}": 0.6}
    facts = run_facts.distortion({"DistortionCorrection": correction})
    assert [fact.label for fact in facts if fact.odd] == [
        "Agreement with the field map where displaced"
    ]


def test_parcels_at_risk_are_named_where_nothing_was_corrected_and_the_direction_is_known() -> None:
    uncorrected = {"Method": "none", "Reason": "no field map", "PhaseEncodingDirection": "j"}
    names = run_facts.parcels_at_risk({"DistortionCorrection": uncorrected})
    assert 11 <= len(names) <= 30
    assert run_facts.distortion({"DistortionCorrection": uncorrected})[0].note == "no field map"
    for other in (CORRECTED, {"Method": "none"}, {"Method": "by fMRIPrep"}):
        assert run_facts.parcels_at_risk({"DistortionCorrection": other}) == []
    assert run_facts.distortion({}) == [] and run_facts.parcels_at_risk({}) == []
