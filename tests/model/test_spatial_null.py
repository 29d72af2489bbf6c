"""Smooth noise stays within the spatial null at its nominal rate; true networks exceed it."""

from collections.abc import Callable

import numpy as np
import pytest

from brainlm_bids import resources
from brainlm_bids.files import read_rows
from brainlm_bids.model.networks import MEASURES, Networks, correlation_profile, parcel_networks
from brainlm_bids.model.spatial_null import KINDS, Smoothness, null_scores, smooth_features, summary

PARCELS = resources.parcels()
LIMIT = resources.spatial_null()["spatial_null_95"]
MEAN = resources.spatial_null()["spatial_null_mean"]
N = 40


def _found(features: np.ndarray, seed: int) -> Networks:
    return parcel_networks(features, PARCELS.network_index, PARCELS.xyz, seed)


def test_fields_have_the_covariance_of_smoothed_noise() -> None:
    """White noise smoothed with a Gaussian of sd σ is correlated exp(-d²/4σ²) at a distance d."""
    xyz = np.column_stack([np.full(4, 60.0), [0.0, 10, 20, 40], np.zeros(4)])
    kind = Smoothness(width_mm=15, n_fields=40_000, mirrored=False)
    fields = smooth_features(xyz, kind, np.random.default_rng(0))
    expected = np.exp(-np.square([0.0, 10, 20, 40]) / (4 * 15**2))
    assert np.corrcoef(fields)[0] == pytest.approx(expected, abs=0.02)
    assert fields.std(axis=1) == pytest.approx(np.ones(4), abs=0.02)


@pytest.mark.parametrize("index", [1, 20])
def test_the_packaged_table_is_what_the_function_gives(index: int) -> None:
    kind = KINDS[index]
    row = read_rows(resources.SPATIAL_NULL)[index]
    assert (float(row["width_mm"]), int(row["n_fields"])) == (kind.width_mm, kind.n_fields)
    assert row["mirrored"] == str(kind.mirrored).lower()
    found = summary(null_scores(PARCELS.xyz, PARCELS.network_index, kind, n_draws=100))
    for measure, values in found.items():
        for name, value in values.items():
            # ties between distances may fall otherwise with another linear algebra library
            assert float(row[f"{measure}_{name}"]) == pytest.approx(value, abs=0.005)


def test_the_null_is_that_of_smoothness_and_not_of_the_largest_network() -> None:
    """Independent numbers: mirrored smooth fields reach a kNN accuracy of 0.64, at most 0.68."""
    assert 0.62 < MEAN["knn_accuracy"] < LIMIT["knn_accuracy"] < 0.70
    assert 0.28 < MEAN["accuracy"] < LIMIT["accuracy"] < 0.45
    assert 0.05 < MEAN["adjusted_rand"] < LIMIT["adjusted_rand"] < 0.20
    assert 0.30 < MEAN["knn_accuracy_distant"] < LIMIT["knn_accuracy_distant"] < 0.45


def _mirrored(rng: np.random.Generator) -> np.ndarray:
    return smooth_features(PARCELS.xyz, Smoothness(rng.uniform(15, 30), 100, True), rng)


def _of_one_side(rng: np.random.Generator) -> np.ndarray:
    return smooth_features(PARCELS.xyz, Smoothness(rng.uniform(15, 30), 300, False), rng)


def _connectivity(rng: np.random.Generator) -> np.ndarray:
    series = smooth_features(PARCELS.xyz, Smoothness(rng.uniform(15, 30), 200, True), rng)
    return correlation_profile(series.T)


def _rough(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(424, 50))


@pytest.mark.parametrize("noise", [_mirrored, _of_one_side, _connectivity, _rough])
def test_smooth_noise_exceeds_the_95th_percentile_at_most_at_the_nominal_rate(
    noise: Callable[[np.random.Generator], np.ndarray],
) -> None:
    rng = np.random.default_rng(7)
    found = [_found(noise(rng), seed).scores() for seed in range(N)]
    for measure in MEASURES:
        above = sum(scores[measure] > LIMIT[measure] for scores in found)
        # With a true rate of 5 %, more than 6 of 40 happen with a probability of 0.3 %.
        assert above <= 6, measure


def test_features_of_the_true_networks_exceed_it_in_every_measure() -> None:
    rng = np.random.default_rng(3)
    courses = rng.normal(size=(7, 50))[PARCELS.network_index - 1]
    found = _found(courses + 2 * rng.normal(size=(424, 50)), 0).scores()
    smooth = smooth_features(PARCELS.xyz, Smoothness(20, 50, True), rng)
    mixed = _found(courses + smooth, 0).scores()
    for measure in MEASURES:
        assert found[measure] > LIMIT[measure] + 0.1
        assert mixed[measure] > LIMIT[measure] + 0.1


def test_coordinates_alone_are_within_the_null() -> None:
    found = _found(PARCELS.xyz, 42)
    assert found.knn_accuracy == pytest.approx(0.53, abs=0.02)
    assert found.accuracy == pytest.approx(0.29, abs=0.02)
    assert all(value <= LIMIT[name] for name, value in found.scores().items())
