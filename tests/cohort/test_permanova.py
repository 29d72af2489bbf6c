"""Shares of variance agree with scikit-bio, with ANOVA, and with what was planted."""

import numpy as np
import pytest
from scipy.stats import f_oneway, kstest, linregress

from brainlm_bids.cohort import permanova
from brainlm_bids.cohort.permanova import coordinates, variance_share


def test_scikit_bio_finds_the_same_f_and_p() -> None:
    """Numbers of skbio.stats.distance.permanova 0.7.4, from the distances of z-scored features."""
    rng = np.random.default_rng(20)
    features = rng.standard_normal((24, 7))
    site = np.arange(24) % 3
    features[site == 1] += [0.8, 0, 0, 0.5, 0, 0, 0]
    people = [f"s{k}" for k in range(24)]
    share = variance_share(coordinates(features), site, people, n_levels=3, n_permutations=20000)
    f = (share.r2 / 2) / ((1 - share.r2) / 21)
    assert f == pytest.approx(0.8736830779764845, rel=1e-12)
    assert share.p == pytest.approx(0.59331, abs=0.012)  # 3.5 standard errors


def test_one_feature_gives_anova_and_regression() -> None:
    rng = np.random.default_rng(1)
    values, site, age = rng.normal(size=40), np.arange(40) % 4, rng.normal(size=40)
    people = [f"s{k}" for k in range(40)]
    points = coordinates(values[:, None])
    share = variance_share(points, site, people, n_levels=4, n_permutations=0)
    expected = f_oneway(*(values[site == k] for k in range(4))).statistic
    assert (share.r2 / 3) / ((1 - share.r2) / 36) == pytest.approx(expected, rel=1e-10)
    line = variance_share(points, age, people, n_permutations=0)
    assert line.r2 == pytest.approx(linregress(age, values).rvalue ** 2, rel=1e-10)


def test_adjusted_share_is_the_planted_one_and_chance_is_that_of_theory() -> None:
    """Site explains 1/4 of the variance of every feature; chance is (levels − 1) / (N − 1)."""
    rng = np.random.default_rng(2)
    n, n_sites, n_features = 300, 6, 200
    site = np.arange(n) % n_sites
    centre = rng.standard_normal((n_sites, n_features)) / np.sqrt(3)
    centre *= np.sqrt((1 / 3) / centre.var(axis=0))
    features = rng.standard_normal((n, n_features)) + centre[site]
    people = [f"s{k}" for k in range(n)]
    share = variance_share(coordinates(features), site, people, n_levels=n_sites)
    assert share.chance == pytest.approx((n_sites - 1) / (n - 1), rel=0.03)
    assert share.adjusted == pytest.approx(0.25, abs=0.01)
    assert share.p == pytest.approx(1 / 1001)
    shuffled = variance_share(coordinates(features), rng.permutation(site), people, n_levels=6)
    assert abs(shuffled.adjusted) < 0.005
    assert shuffled.p > 0.02


def test_wide_features_are_rotated_or_projected_without_another_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    n = 120
    fd = rng.gamma(2, 0.1, n)
    features = rng.standard_normal((n, 3000)).astype(np.float32)
    features[:, :900] += 8 * fd[:, None].astype(np.float32)
    features[5, :50] = np.nan  # a parcel without data: the mean of the others
    people = [f"s{k}" for k in range(n)]
    expected = variance_share(
        np.hstack([*permanova.standardised_blocks(features)]), fd, people, n_permutations=99
    )
    rotated = variance_share(coordinates(features), fd, people, n_permutations=99)
    assert coordinates(features).shape[1] < n
    np.testing.assert_allclose(rotated, expected, rtol=1e-8)
    monkeypatch.setattr(permanova, "DIMENSIONS", 100)
    projected = variance_share(coordinates(features), fd, people, n_permutations=99)
    assert projected.r2 == pytest.approx(expected.r2, rel=0.25)  # 100 directions instead of 2,000
    assert projected.p == expected.p


@pytest.mark.parametrize("repeats", [1, 3])
def test_p_is_uniform_without_an_effect(repeats: int) -> None:
    """Also if three recordings of a subject are alike and share its site."""
    rng = np.random.default_rng(4)
    people = np.repeat([f"s{k:02d}" for k in range(18)], repeats)
    found = []
    for seed in range(200):
        features = np.repeat(rng.standard_normal((18, 4)), repeats, axis=0)
        features += 0.2 * rng.standard_normal(features.shape)
        site = np.repeat(rng.permutation(np.arange(18) % 3), repeats)
        share = variance_share(
            coordinates(features), site, people, n_levels=3, n_permutations=99, seed=seed
        )
        found.append(share.p)
    assert kstest(found, "uniform").pvalue > 0.001
    assert np.mean(np.array(found) <= 0.05) < 0.11


def test_what_does_not_differ_or_cannot_be_permuted_has_no_number() -> None:
    people = ["a", "b", "c"]
    points = coordinates(np.arange(3.0)[:, None])
    assert np.isnan(variance_share(points, [1, 1, 1], people)).all()
    assert np.isnan(variance_share(coordinates(np.ones((3, 2))), [1, 2, 3], people)).all()
    # the same two tasks in everybody: no exchange of subjects changes anything
    points = coordinates(np.arange(6.0)[:, None])
    share = variance_share(points, [0, 1, 0, 1, 0, 1], np.repeat(people, 2), n_levels=2)
    assert np.isfinite(share.r2)
    assert np.isnan(share.p)
