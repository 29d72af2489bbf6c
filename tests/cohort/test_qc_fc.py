"""Coupling with motion is found where it was planted, and nowhere else."""

import numpy as np
import pytest
from scipy.stats import kstest, pearsonr, spearmanr

from brainlm_bids.cohort.qc_fc import coupling


def test_correlations_are_those_of_scipy_also_where_values_are_unknown() -> None:
    rng = np.random.default_rng(0)
    motion, features = rng.gamma(2, 0.1, 30), rng.normal(3, 1, (30, 6))
    features[:7, 1] = np.nan
    features[:, 4] = 2.5
    distances = np.array([10.0, 80, 20, 50, 40, 30])
    found = coupling(features, motion, distances=distances, n_permutations=9)
    expected = np.full(6, np.nan)
    for k in (0, 2, 3, 5):
        expected[k] = pearsonr(motion, features[:, k])[0]
    expected[1] = pearsonr(motion[7:], features[7:, 1])[0]
    np.testing.assert_allclose(found.correlations, expected, rtol=1e-5)
    kept = [0, 1, 2, 3, 5]
    rho = spearmanr(expected[kept], distances[kept]).statistic
    assert found.distance == pytest.approx(rho)


def test_planted_coupling_and_its_distance_dependence_are_found() -> None:
    """Motion raises short connections and lowers long ones (Power et al. 2012)."""
    rng = np.random.default_rng(1)
    n, n_edges = 80, 6000
    fd, distance = rng.gamma(2, 0.1, n), rng.uniform(10, 150, n_edges)
    z = (fd - fd.mean()) / fd.std()
    edges = rng.standard_normal((n, n_edges)) + 0.5 * z[:, None] * (80 - distance) / 70
    found = coupling(edges, fd, distances=distance, n_permutations=199)
    assert found.distance < -0.8
    assert found.distance_p == pytest.approx(1 / 200)
    assert found.median > 1.5 * found.median_chance
    assert found.median_p == pytest.approx(1 / 200)
    assert found.significant > 0.1


def test_without_coupling_all_is_at_chance() -> None:
    """Edges that are correlated with one another, and a distance that they depend on."""
    rng = np.random.default_rng(2)
    n, n_edges, ps = 40, 400, []
    distance = np.linspace(10, 150, n_edges)
    shape = np.cos(np.outer(np.arange(1, 6), distance / 40))
    for seed in range(150):
        edges = rng.standard_normal((n, 5)) @ shape + rng.standard_normal((n, n_edges))
        found = coupling(
            edges, rng.gamma(2, 0.1, n), distances=distance, n_permutations=49, seed=seed
        )
        ps.append((found.median_p, found.largest_p, found.distance_p))
        assert found.median_chance == pytest.approx(0.6745 / np.sqrt(n - 1), rel=0.25)
    # p of an asymptotic Spearman test would be far below .05 in most of these
    for p in np.array(ps).T:
        assert kstest(p, "uniform").pvalue > 0.001
        assert 0.42 < p.mean() < 0.6


def test_the_largest_of_many_correlations_is_no_evidence_by_itself() -> None:
    rng = np.random.default_rng(4)
    fd, embedding = rng.gamma(2, 0.1, 25), rng.standard_normal((25, 500))
    noise = coupling(embedding, fd, n_permutations=99)
    assert noise.largest > 0.5
    assert noise.largest_p > 0.02
    assert noise.significant == 0
    embedding[:, 77] = fd + 0.02 * rng.standard_normal(25)
    one = coupling(embedding, fd, n_permutations=99)
    assert np.nanargmax(np.abs(one.correlations)) == 77
    assert one.largest_p == pytest.approx(0.01)
    assert one.significant == pytest.approx(1 / 500)


def test_nothing_that_varies_gives_nothing() -> None:
    found = coupling(np.ones((5, 3)), np.arange(5.0))
    assert np.isnan(found.correlations).all()
    assert np.isnan(found[1:]).all()
