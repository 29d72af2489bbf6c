"""Consensus networks of a cohort, with votes counted by hand."""

from collections.abc import Callable

import numpy as np
import pytest

from brainlm_bids import resources
from brainlm_bids.cohort.consensus import agreement, consensus
from brainlm_bids.model.networks import parcel_networks
from brainlm_bids.model.spatial_null import Smoothness, smooth_features
from brainlm_bids.parcels.partition import named_after

PARCELS = resources.parcels()
TRUTH = PARCELS.network_index


def test_every_subject_has_one_vote() -> None:
    """Subject a has three recordings with parcel 0 in network 1, b and c one each with it in 2."""
    truth = np.repeat(np.arange(1, 8), 6)
    first, other = truth.copy(), truth.copy()
    other[0] = 2
    found = consensus([first, first, first, other, other], ["a", "a", "a", "b", "c"], truth)
    assert found.labels.tolist() == other.tolist()
    np.testing.assert_allclose(found.probability[:2, 0], [1 / 3, 2 / 3])
    np.testing.assert_allclose(found.probability.sum(axis=0), 1)


def _noisy(rng: np.random.Generator) -> np.ndarray:
    """Partitions of 12 recordings in which four of ten parcels are in a random network."""
    labels = np.tile(TRUTH, (12, 1))
    wrong = rng.random(labels.shape) < 0.4
    labels[wrong] = rng.integers(1, 8, wrong.sum())
    return labels


def test_the_vote_finds_what_recordings_share() -> None:
    labels = _noisy(np.random.default_rng(0))
    found = consensus(labels, [str(k) for k in range(12)], TRUTH)
    assert (labels == TRUTH).mean() < 0.7
    assert agreement(found.labels, TRUTH)["accuracy"] > 0.97
    assert found.probability[TRUTH - 1, np.arange(424)].mean() == pytest.approx(0.657, abs=0.03)


def test_names_of_clusters_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    labels = _noisy(rng)
    renamed = np.stack([(rng.permutation(7) + 1)[row - 1] for row in labels])
    subjects = [str(k) for k in range(12)]
    one, two = consensus(labels, subjects, TRUTH), consensus(renamed, subjects, TRUTH)
    assert np.array_equal(one.labels, two.labels)
    assert np.array_equal(one.probability, two.probability)


def _white(rng: np.random.Generator) -> np.ndarray:
    return named_after(rng.integers(1, 8, 424), TRUTH)


def _smooth(rng: np.random.Generator) -> np.ndarray:
    fields = smooth_features(PARCELS.xyz, Smoothness(25, 20, True), rng)
    return parcel_networks(fields, TRUTH, PARCELS.xyz, seed=0).labels


@pytest.mark.parametrize("noise, n", [(_white, 200), (_smooth, 30)])
def test_a_vote_over_noise_agrees_with_the_reference_no_more_than_noise(
    noise: Callable[[np.random.Generator], np.ndarray], n: int
) -> None:
    """Each partition is named after AA-7; a vote over these names reaches 0.7 in white noise."""
    rng = np.random.default_rng(2)
    labels = [noise(rng) for _ in range(n)]
    found = agreement(consensus(labels, [str(k) for k in range(n)], TRUTH).labels, TRUTH)
    limit = resources.spatial_null()["spatial_null_95"]
    assert (
        found["accuracy"] <= limit["accuracy"] and found["adjusted_rand"] <= limit["adjusted_rand"]
    )
    if noise is _white:
        votes = np.stack([(np.stack(labels) == k).sum(axis=0) for k in range(1, 8)])
        assert (votes.argmax(axis=0) + 1 == TRUTH).mean() > 0.6
        assert found["accuracy"] < 0.3 and found["adjusted_rand"] < 0.02


def test_agreement_of_equal_maps_and_of_shifted_names() -> None:
    truth = np.repeat(np.arange(1, 8), 6)
    assert agreement(truth, truth)["accuracy"] == 1
    renamed = agreement(truth % 7 + 1, truth)
    assert renamed["accuracy"] == 0
    assert renamed["adjusted_rand"] == 1  # blind to names
