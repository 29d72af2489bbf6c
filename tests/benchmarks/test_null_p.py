"""p values of the group level's functions are uniform where there is nothing to find."""

import numpy as np
import pytest

from benchmarks import null_p
from brainlm_bids.phantom.cohort import CohortOptions

SMALL = CohortOptions(subjects=60, sessions=2, seconds=80.0, trs=(2.0,), sites=3, seed=2)


@pytest.fixture(scope="module")
def pool() -> null_p.Pool:
    return null_p.make_pool(SMALL)


@pytest.mark.parametrize("case", ["regression", "site_left_out"])
def test_p_is_uniform_under_the_null(pool: null_p.Pool, case: str) -> None:
    p = null_p.p_values(case, 30, pool)
    made = null_p.uniformity(p, null_p.CASES[case].n_permutations)
    # a p that is uniform fails this once in a thousand seeds
    assert made.p > 0.001
    assert made.below[0] <= 6 / 30


def test_what_is_not_uniform_is_told() -> None:
    wrong = np.random.default_rng(0).uniform(size=60) ** 2
    assert null_p.uniformity(np.ceil(wrong * 100) / 100, 99).p < 0.001


def test_the_pool_has_features_of_people_of_all_sites(pool: null_p.Pool) -> None:
    assert pool.features.shape == (60, 2, 28) and np.isfinite(pool.features).all()
    assert np.bincount(pool.site).tolist() == [20, 20, 20]
