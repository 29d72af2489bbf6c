"""Thresholds of z maps, against mixtures whose densities are known."""

import numpy as np
import pytest
from scipy import stats

from brainlm_bids.preproc.denoising import mixture


def test_mixture_separates_activation_from_background() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0.3, 1.7, 30000).astype(np.float32)
    z[:1500] = 0.3 + rng.gamma(16.0, 0.6, 1500)
    z[1500:2500] = 0.3 - rng.gamma(16.0, 0.7, 1000)
    kept = mixture.threshold_maps(z[None])[0]
    up, down = kept > 0, kept < 0
    np.testing.assert_array_equal(kept[kept != 0], z[kept != 0])
    # Bayes' rule with the true densities gives the limits
    x = np.linspace(-20, 20, 40001)
    background = 27500 * stats.norm.pdf(x, 0.3, 1.7)
    active = 1500 * stats.gamma.pdf(x - 0.3, 16, scale=0.6)
    active += 1000 * stats.gamma.pdf(0.3 - x, 16, scale=0.7)
    wrong = active > background
    assert z[up].min() == pytest.approx(x[wrong & (x > 0)].min(), abs=0.25)
    assert z[down].max() == pytest.approx(x[wrong & (x < 0)].max(), abs=0.25)


def test_pure_background_keeps_next_to_nothing() -> None:
    rng = np.random.default_rng(1)
    kept = mixture.threshold_maps(rng.standard_normal((5, 20000)))
    # the fall-back (|z| > 2.3: 2.1 % of a normal distribution) is the most that can remain
    assert ((kept != 0).mean(axis=1) < 0.03).all()


def test_maps_without_a_mixture_fall_back_to_2_3() -> None:
    few = np.array([[0.0, 2.2, 2.4, -2.2, -2.4, 5.0]])
    np.testing.assert_allclose(mixture.threshold_maps(few), [[0, 0, 2.4, 0, -2.4, 5.0]], rtol=1e-6)
    np.testing.assert_array_equal(mixture.threshold_maps(np.zeros((2, 500))), 0)
    assert not mixture.threshold_maps(np.full((1, 500), 1.5)).any()


def test_limits_that_were_kept_give_the_same_map_again() -> None:
    rng = np.random.default_rng(5)
    maps = rng.standard_normal((3, 20000)).astype(np.float32)
    maps[0, :500] += 6
    maps[2] = 0
    limits = mixture.threshold_limits(maps)
    kept = mixture.threshold_maps(maps, limits)
    np.testing.assert_array_equal(kept, mixture.threshold_maps(maps))
    assert (kept[0, :500] != 0).mean() > 0.95
    assert mixture.threshold_maps(maps[:0], limits[:0]).shape == (0, 20000)
