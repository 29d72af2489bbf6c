"""Statistics of a cohort are those of numpy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm_bids.cohort.statistics import demeaned, pooled_statistics


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    first=st.one_of(st.none(), st.integers(1, 30)),
    block=st.integers(1, 9),
)
def test_statistics_are_numpys_on_the_stacked_array(
    seed: int, lengths: list[int], first: int | None, block: int
) -> None:
    rng = np.random.default_rng(seed)
    n_parcels = 7
    series = [rng.standard_normal((n, n_parcels)) ** 3 * 40 + rng.normal(1e4, 300) for n in lengths]
    for one in series:
        one[:, rng.random(n_parcels) < 0.2] = np.nan  # no data
    series[0][:, 0] = 10000.1  # constant
    stacked = []
    for one in series:
        kept = one - one.mean(axis=0)
        kept[:, ~(np.ptp(one, axis=0) > 0)] = np.nan
        stacked.append(kept[:first].astype(np.float32))
    table = np.concatenate(stacked).astype(np.float64)
    known = np.isfinite(table).any(axis=0)
    expected = np.full((3, n_parcels), np.nan)
    expected[:, known] = np.nanpercentile(table[:, known], [25, 50, 75], axis=0)

    order = rng.permutation(len(series))
    stores = [demeaned(series[k], first) for k in order]
    if len(stores) > 2:
        stores = [np.concatenate(stores[:2], axis=1), *stores[2:]]
    found = pooled_statistics(stores, parcels_at_a_time=block)
    np.testing.assert_array_equal(found.median, expected[1])
    np.testing.assert_array_equal(found.iqr, expected[2] - expected[0])
    np.testing.assert_array_equal(found.n_values, np.isfinite(table).sum(axis=0))


def test_first_volumes_keep_the_mean_of_the_whole_recording() -> None:
    series = np.array([[0.0], [0.0], [30.0]])
    np.testing.assert_array_equal(demeaned(series, 2), [[-10.0, -10.0]])
