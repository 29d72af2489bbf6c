"""Networks of parcels, with planted networks."""

import numpy as np
import pytest

from brainlm_bids.model.networks import correlation_profile, parcel_labels, parcel_networks

COUNTS = [65, 40, 109, 68, 100, 23, 19]  # parcels of AA-7 in A424
REFERENCE = np.repeat(np.arange(1, 8), COUNTS)
XYZ = np.random.default_rng(0).uniform(-70, 70, (424, 3))


def _features(noise: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, 50))[REFERENCE - 1] + noise * rng.normal(size=(424, 50))


def test_planted_networks_are_found() -> None:
    found = parcel_networks(_features(0.1), REFERENCE, XYZ, seed=0)
    assert np.array_equal(found.labels, REFERENCE)
    assert found.accuracy == found.knn_accuracy == found.knn_accuracy_distant == 1
    assert found.adjusted_rand == pytest.approx(1)


def test_white_noise_has_no_networks() -> None:
    found = parcel_networks(np.random.default_rng(1).normal(size=(424, 50)), REFERENCE, XYZ, seed=0)
    assert abs(found.adjusted_rand) < 0.05
    assert found.knn_accuracy < 0.35
    assert set(found.labels.tolist()) <= set(range(1, 8))


def test_neighbours_and_their_mirror_images_have_no_vote() -> None:
    """Features that tell pairs of neighbours, or mirrored pairs, are of use through those only."""
    rng = np.random.default_rng(4)
    places = rng.uniform([20, -90, -40], [70, 70, 80], (212, 3))
    networks = rng.integers(1, 8, 212)
    pairs = rng.normal(size=(212, 50))
    for partner in (places + 5, places * [-1, 1, 1]):
        found = parcel_networks(
            np.concatenate([pairs, pairs]),
            np.concatenate([networks, networks]),
            np.concatenate([places, partner]),
            seed=0,
        )
        assert found.knn_accuracy > found.knn_accuracy_distant + 0.05
        assert found.knn_accuracy_distant < 0.25


def test_coordinates_must_be_those_of_the_parcels() -> None:
    with pytest.raises(ValueError, match=r"coordinates of shape \(10, 3\) for 424 parcels"):
        parcel_networks(_features(0.1), REFERENCE, XYZ[:10], seed=0)


def test_profiles_of_a_series_with_networks() -> None:
    rng = np.random.default_rng(2)
    series = rng.normal(size=(200, 7))[:, REFERENCE - 1] + 0.5 * rng.normal(size=(200, 424))
    found = parcel_networks(correlation_profile(series), REFERENCE, XYZ, seed=0)
    assert found.accuracy > 0.99 and found.knn_accuracy > 0.99


def test_constant_and_missing_features_do_no_harm() -> None:
    features = _features(0.1)
    features[3] = np.nan
    features[7, 4] = np.inf
    features[:, 9] = 5.0
    found = parcel_networks(features, REFERENCE, XYZ, seed=0)
    assert found.accuracy > 0.98
    for value in (0.0, 0.1, np.nan):
        empty = parcel_networks(np.full((424, 5), value), REFERENCE, XYZ, seed=0)
        assert np.isfinite([empty.accuracy, empty.adjusted_rand, empty.knn_accuracy]).all()
        assert empty.adjusted_rand == 0


def test_the_same_seed_gives_the_same() -> None:
    features = _features(3.0)
    one, two = (parcel_networks(features, REFERENCE, XYZ, seed=4) for _ in range(2))
    assert np.array_equal(one.labels, two.labels) and one[1:] == two[1:]


def test_a_constant_series_has_no_profile() -> None:
    profile = correlation_profile(np.column_stack([np.arange(5.0), np.full(5, 0.1)]))
    assert profile == pytest.approx(np.array([[1, 0], [0, 0]]))


def test_labels_alone_are_those_of_the_networks() -> None:
    rng = np.random.default_rng(2)
    reference, xyz = np.arange(70) % 7 + 1, rng.uniform(-70, 70, (70, 3))
    features = rng.standard_normal((70, 20)) + np.eye(7, 20)[reference - 1]
    found = parcel_networks(features, reference, xyz, seed=0).labels
    assert parcel_labels(features, reference).tolist() == found.tolist()
