"""Networks of parcels, with planted networks."""

import numpy as np
import pytest

from brainlm_bids.model.networks import correlation_profile, parcel_networks

COUNTS = [65, 40, 109, 68, 100, 23, 19]  # parcels of AA-7 in A424
REFERENCE = np.repeat(np.arange(1, 8), COUNTS)


def _features(noise: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, 50))[REFERENCE - 1] + noise * rng.normal(size=(424, 50))


def test_planted_networks_are_found() -> None:
    found = parcel_networks(_features(0.1), REFERENCE, seed=0)
    assert np.array_equal(found.labels, REFERENCE)
    assert found.accuracy == found.knn_accuracy == 1
    assert found.adjusted_rand == pytest.approx(1)
    assert found.majority == pytest.approx(109 / 424)


def test_noise_is_at_chance() -> None:
    found = parcel_networks(np.random.default_rng(1).normal(size=(424, 50)), REFERENCE, seed=0)
    assert abs(found.adjusted_rand) < 0.05
    assert found.knn_accuracy < 0.35
    assert set(found.labels.tolist()) <= set(range(1, 8))


def test_profiles_of_a_series_with_networks() -> None:
    rng = np.random.default_rng(2)
    series = rng.normal(size=(200, 7))[:, REFERENCE - 1] + 0.5 * rng.normal(size=(200, 424))
    found = parcel_networks(correlation_profile(series), REFERENCE, seed=0)
    assert found.accuracy > 0.99 and found.knn_accuracy > 0.99


def test_constant_and_missing_features_do_no_harm() -> None:
    features = _features(0.1)
    features[3] = np.nan
    features[7, 4] = np.inf
    features[:, 9] = 5.0
    found = parcel_networks(features, REFERENCE, seed=0)
    assert found.accuracy > 0.98
    for value in (0.0, 0.1, np.nan):
        empty = parcel_networks(np.full((424, 5), value), REFERENCE, seed=0)
        assert np.isfinite([empty.accuracy, empty.adjusted_rand, empty.knn_accuracy]).all()
        assert empty.adjusted_rand == 0


def test_the_same_seed_gives_the_same() -> None:
    features = _features(3.0)
    one, two = (parcel_networks(features, REFERENCE, seed=4) for _ in range(2))
    assert np.array_equal(one.labels, two.labels) and one[1:] == two[1:]


def test_a_constant_series_has_no_profile() -> None:
    profile = correlation_profile(np.column_stack([np.arange(5.0), np.full(5, 0.1)]))
    assert profile == pytest.approx(np.array([[1, 0], [0, 0]]))
