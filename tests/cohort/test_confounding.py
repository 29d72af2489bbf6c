"""Whether site and target are confounded."""

import numpy as np
import pytest
from scipy.stats.contingency import association as cramer
from sklearn.linear_model import LinearRegression

from brainlm_bids.cohort.confounding import association

RNG = np.random.default_rng(0)
PEOPLE = [f"s{k:03d}" for k in range(150)]
SITE = RNG.integers(0, 5, 150)
NAMES = [f"site{k}" for k in SITE]


def test_the_share_of_numbers_is_an_adjusted_r_squared() -> None:
    target = SITE * 0.5 + RNG.normal(size=150)
    indicators = np.eye(5)[SITE][:, 1:]
    r2 = LinearRegression().fit(indicators, target).score(indicators, target)
    found = association(target, NAMES, PEOPLE)
    assert found.share == pytest.approx(1 - (1 - r2) * 149 / 145)
    assert found.confounded and found.p < 0.01


def test_the_share_of_classes_is_cramers_v_squared() -> None:
    labels = np.where(RNG.random(150) < 0.5, SITE % 3, RNG.integers(0, 3, 150))
    table = np.zeros((3, 5), int)
    np.add.at(table, (labels, SITE), 1)
    found = association(labels, NAMES, PEOPLE, n_classes=3)
    uncorrected = cramer(table, method="cramer") ** 2
    assert found.confounded
    assert 0.8 * uncorrected < found.share < uncorrected


def test_independence_has_no_share_and_a_uniform_p() -> None:
    rng = np.random.default_rng(3)
    found = [association(rng.normal(size=150), NAMES, PEOPLE, seed=k) for k in range(20)]
    classes = [
        association(rng.integers(0, 2, 150), NAMES, PEOPLE, n_classes=2, seed=k) for k in range(30)
    ]
    for several in (found, classes):
        assert np.mean([one.share for one in several]) < 0.02
        assert 0.3 < np.mean([one.p for one in several]) < 0.7
        assert not any(one.confounded for one in several)


def test_the_recordings_of_a_subject_count_once() -> None:
    """Ten recordings of each of four subjects are no evidence that their sites differ."""
    people = np.repeat(["a", "b", "c", "d"], 10)
    ages = np.repeat([20.0, 30.0, 40.0, 60.0], 10)
    found = association(ages, np.repeat(["x", "x", "y", "y"], 10).tolist(), people.tolist())
    assert found.p > 0.05 and not found.confounded


def test_one_site_or_one_value_confounds_nothing() -> None:
    assert association(SITE, ["a"] * 150, PEOPLE) == (0, 1)
    assert association(np.ones(150), NAMES, PEOPLE) == (0, 1)
    assert association(np.zeros(150), NAMES, PEOPLE, n_classes=2) == (0, 1)
