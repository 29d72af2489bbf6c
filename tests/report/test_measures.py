"""Measures: what the table says, the rule for outliers, and the limits at their home."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from brainlm_bids.bids.outputs import output_table
from brainlm_bids.bids.quality import REGISTRATION_COLUMNS
from brainlm_bids.parcels.scaling import UKB_SD_DEMEANED, far_off
from brainlm_bids.preproc.registration import quality
from brainlm_bids.report import measured
from brainlm_bids.report.measures import (
    FENCE,
    LEAST_RECORDINGS,
    fences,
    fixed_limit,
    in_order,
    measure,
    outliers,
    reconstruction_key,
    rule,
    static_measures,
)


@dataclass
class One:
    values: dict[str, float]
    task: str = "rest"
    finished: bool = True
    normalised: str = "T1w"


def test_every_measure_can_be_found_and_read() -> None:
    computed = set()
    for one in static_measures():
        assert one.bad in {"high", "low", "both", "none"}, one.key
        assert one.output in output_table(), one.key
        assert all(text.strip() for text in (one.section, one.label, one.short)), one.key
        assert one.about.endswith(".") and one.margin >= 0 and one.digits > 0, one.key
        assert not (one.field and one.column), one.key
        if not one.field and not one.column:
            computed.add(one.key)
    assert computed == set(measured._COMPUTED)


def test_limits_are_those_that_are_applied_elsewhere() -> None:
    """A number just within and just beyond each limit is judged as by the code that warns."""
    for normalised in ("T1w", "boldref"):
        found = {one.name: one for one in quality.limits(normalised)}
        for key in REGISTRATION_COLUMNS:
            name = key.removeprefix("registration_").removeprefix("template_")
            name = {"brain_overlap": "overlap", "brain_at_image_edge": "edge"}.get(name, name)
            limit = fixed_limit(measure(key), normalised)
            assert limit is not None
            for value in found[name].value * np.array([0.5, 0.999, 1.0, 1.001, 2.0]):
                assert (value in limit) == found[name].holds(value), (key, value)
    limit = fixed_limit(measure("sd_demeaned"))
    for value in UKB_SD_DEMEANED * np.array([0.49, 0.5, 1.0, 2.0, 2.01]):
        assert limit is not None and (value in limit) != far_off(value, UKB_SD_DEMEANED)


def test_the_fences_are_tukeys_on_the_side_that_is_bad() -> None:
    values = np.random.default_rng(1).exponential(0.2, 200)
    first, third = pd.Series(values).quantile([0.25, 0.75])
    high, low = third + 1.5 * (third - first), first - 1.5 * (third - first)
    marked = outliers([One({"mean_fd": v}) for v in values], [measure("mean_fd")])
    assert [bool(one) for one in marked] == list(values > high)
    assert any(values > high)
    both = fences(measure("sd_robust"), list(values))
    assert both is not None and both.low == pytest.approx(low) and both.high == pytest.approx(high)
    r2 = fences(measure("r2_m_masked20"), list(values))
    assert r2 is not None and r2.high is None and r2.low == pytest.approx(low)
    assert fences(measure("r2_m_masked20_ridge"), list(values)) is None, "baselines are not judged"
    assert f"{FENCE:g} interquartile ranges" in rule() and f"{LEAST_RECORDINGS} of them" in rule()


def test_few_recordings_have_no_fence_and_their_fixed_limits() -> None:
    few = [One({"mean_fd": 0.1, "registration_cost": 0.5}) for _ in range(LEAST_RECORDINGS - 2)]
    odd = One({"mean_fd": 9.0, "registration_cost": 0.95})
    shown = [measure("mean_fd"), measure("registration_cost")]
    assert list(outliers([*few, odd], shown)[-1]) == ["registration_cost"]
    assert "below 0.8" in outliers([*few, odd], shown)[-1]["registration_cost"]
    more = [*few, One({"mean_fd": 0.1}), odd]
    assert list(outliers(more, shown)[-1]) == ["mean_fd", "registration_cost"]
    # without a T1w image, another limit
    alone = One({"registration_cost": 0.83}, normalised="boldref")
    assert outliers([alone], shown) == [{}]


def test_recordings_are_compared_with_those_of_their_task_that_are_finished() -> None:
    rest = [One({"repetition_time": 0.8}) for _ in range(30)]
    task = [One({"repetition_time": 2.0}, task="nback") for _ in range(12)]
    other = One({"repetition_time": 2.0})
    shown = [measure("repetition_time")]
    marked = outliers([*rest, *task, other], shown)
    assert [bool(one) for one in marked] == [False] * 42 + [True]
    unfinished = [One({"repetition_time": 2.0}, finished=False) for _ in range(30)]
    marked = outliers([*rest, *unfinished], shown)
    assert [bool(one) for one in marked] == [False] * 30 + [True] * 30


def test_equal_numbers_and_small_differences_are_no_outliers() -> None:
    """Most recordings cover everything: the interquartile range is 0."""
    values = [1.0] * 40 + [0.995, 0.7]
    marked = outliers([One({"coverage": v}) for v in values], [measure("coverage")])
    assert [place for place, one in enumerate(marked) if one] == [41]
    third = [0.1] * 40  # not a binary fraction
    assert not any(outliers([One({"mean_fd": v}) for v in third], [measure("mean_fd")]))


def test_models_and_mask_ratios_are_measures_of_their_own() -> None:
    keys = [
        reconstruction_key("m", 0.2, predictor) for predictor in ("ridge_time", "model", "time")
    ]
    keys += [reconstruction_key("m", 0.125), reconstruction_key("a", 0.75), "coverage", "mean_fd"]
    assert [one.key for one in in_order(keys)] == [
        *("mean_fd", "coverage", "r2_a_masked75", "r2_m_masked12p5"),
        *("r2_m_masked20", "r2_m_masked20_time", "r2_m_masked20_ridge_time"),
    ]
    assert measure("r2_m_masked12p5").label == "R² of m, 12.5 % masked"
    with pytest.raises(KeyError):
        measure("unknown")
