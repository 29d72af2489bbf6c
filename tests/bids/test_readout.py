"""Total read-out time by every way of BIDS, against numbers of the scanners' own formulas."""

from typing import Any

import pytest

from brainlm_bids.bids.readout import phase_encoding_direction, total_readout_time

SHAPE = (90, 100, 60, 200)


@pytest.mark.parametrize(
    ("metadata", "seconds", "source"),
    [
        ({"TotalReadoutTime": 0.05}, 0.05, "TotalReadoutTime"),
        ({"EffectiveEchoSpacing": 0.0005}, 0.0005 * 99, "EffectiveEchoSpacing"),
        # an image that was cropped has fewer voxels than its reconstruction
        ({"EffectiveEchoSpacing": 0.0005, "ReconMatrixPE": 111}, 0.055, "EffectiveEchoSpacing"),
        (
            {"EchoSpacing": 0.001, "ParallelReductionFactorInPlane": 2},
            0.0005 * 99,
            "EchoSpacing with ParallelReductionFactorInPlane",
        ),
        # 3 T: water and fat are 434.2 Hz apart
        (
            {"WaterFatShift": 10.0, "EPIFactor": 39, "MagneticFieldStrength": 3},
            10 / (434.215 * 40) * 99,
            "WaterFatShift with EPIFactor",
        ),
        (
            {"WaterFatShift": 10.0, "EPIFactor": 39, "ImagingFrequency": 127.7325},
            10 / (127.7325 * 3.39941 * 40) * 99,
            "WaterFatShift with EPIFactor",
        ),
    ],
)
def test_ways(metadata: dict[str, Any], seconds: float, source: str) -> None:
    found = total_readout_time(metadata, SHAPE, "j-")
    assert found.seconds == pytest.approx(seconds, rel=1e-6)
    assert (found.source, found.problem, found.doubts) == (source, "", ())


def test_the_axis_of_phase_encoding_counts() -> None:
    spacing = {"EffectiveEchoSpacing": 0.0005}
    assert total_readout_time(spacing, SHAPE, "i").seconds == pytest.approx(0.0005 * 89)
    assert total_readout_time(spacing, SHAPE, "k-").seconds == pytest.approx(0.0005 * 59)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"TotalReadoutTime": 50}, r"TotalReadoutTime 50 is not a time .*\(50 ms are 0.05 s\)"),
        ({"TotalReadoutTime": 0}, "TotalReadoutTime 0 is not a time"),
        ({"TotalReadoutTime": -0.05}, "TotalReadoutTime -0.05 is not a time"),
        ({"TotalReadoutTime": float("nan")}, "TotalReadoutTime nan is not a time"),
        ({"TotalReadoutTime": "0.05"}, "TotalReadoutTime '0.05' is not a number"),
        ({"TotalReadoutTime": [0.05]}, "is not a number"),
        ({"TotalReadoutTime": True}, "is not a number"),
        ({"EffectiveEchoSpacing": 0.5}, r"EffectiveEchoSpacing gives .* 49.5 s.* 0.0495 s\)"),
        ({"EffectiveEchoSpacing": 500}, "µs"),
        ({"EchoSpacing": 0.001}, "EchoSpacing needs ParallelReductionFactorInPlane"),
        ({"WaterFatShift": 10.0, "MagneticFieldStrength": 3}, "needs EPIFactor"),
        ({"WaterFatShift": 10.0, "EPIFactor": 39}, "needs MagneticFieldStrength"),
        ({"EstimatedTotalReadoutTime": 0.05}, "--fallback-total-readout-time estimated"),
        ({}, "no TotalReadoutTime and no EffectiveEchoSpacing"),
    ],
)
def test_what_is_no_readout_time_is_said(metadata: dict[str, Any], said: str) -> None:
    found = total_readout_time(metadata, SHAPE, "j")
    assert found.seconds is None
    with pytest.raises(ValueError, match=said):
        raise ValueError(found.problem)


def test_an_impossible_value_is_replaced_by_another_way_and_said() -> None:
    metadata = {"TotalReadoutTime": 49.5, "EffectiveEchoSpacing": 0.0005}
    found = total_readout_time(metadata, SHAPE, "j")
    assert found.seconds == pytest.approx(0.0495)
    assert found.source == "EffectiveEchoSpacing"
    assert "49.5 is not a time" in found.doubts[0]


def test_acceleration_that_was_counted_once_only_is_said() -> None:
    """Half the time: a spacing that was not divided by the acceleration factor, or twice."""
    metadata = {"TotalReadoutTime": 0.0495 / 2, "EffectiveEchoSpacing": 0.0005}
    found = total_readout_time(metadata, SHAPE, "j")
    assert found.seconds == pytest.approx(0.0495 / 2)
    (doubt,) = found.doubts
    assert "0.02475 s" in doubt and "0.0495 s" in doubt and "acceleration" in doubt
    # FSL's definition and that of the scanner differ by a step or two
    close = {"TotalReadoutTime": 0.0500, "EffectiveEchoSpacing": 0.0005}
    assert total_readout_time(close, SHAPE, "j").doubts == ()


def test_fallbacks() -> None:
    estimates = {"EstimatedTotalReadoutTime": 0.05}
    spacing = {"EstimatedEffectiveEchoSpacing": 0.0005}
    assert total_readout_time(estimates, SHAPE, "j", "estimated").seconds == 0.05
    assert total_readout_time(spacing, SHAPE, "j", "estimated").seconds == pytest.approx(0.0495)
    assert total_readout_time({}, SHAPE, "j", "estimated").seconds is None
    assert total_readout_time({}, SHAPE, "j", 0.03).seconds == 0.03
    # what the scanner recorded precedes
    recorded = {"TotalReadoutTime": 0.05}
    assert total_readout_time(recorded, SHAPE, "j", 0.03).seconds == 0.05
    assert total_readout_time(recorded | spacing, SHAPE, "j", "estimated").source == (
        "TotalReadoutTime"
    )
    doubtful = total_readout_time({"TotalReadoutTime": 50}, SHAPE, "j", 0.03)
    assert doubtful.seconds == 0.03 and "50 is not a time" in doubtful.doubts[0]


@pytest.mark.parametrize("value", ["J", "y-", "AP", "-j", "j--", "", 1, None, ["j"]])
def test_no_direction(value: object) -> None:
    direction, problem = phase_encoding_direction({"PhaseEncodingDirection": value})
    assert direction is None and "PhaseEncodingDirection" in problem


@pytest.mark.parametrize("value", ["i", "i-", "j", "j-", "k", "k-"])
def test_directions(value: str) -> None:
    assert phase_encoding_direction({"PhaseEncodingDirection": value}) == (value, "")
