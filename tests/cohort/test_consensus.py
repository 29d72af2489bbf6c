"""Consensus networks of a cohort, with votes counted by hand."""

import numpy as np
import pytest

from brainlm_bids.cohort.consensus import agreement, consensus


def test_every_subject_has_one_vote() -> None:
    """Subject a has three recordings with network 1, b and c one each with network 2."""
    labels = [[1, 5], [1, 5], [1, 5], [2, 5], [2, 6]]
    found = consensus(labels, ["a", "a", "a", "b", "c"])
    assert found.labels.tolist() == [2, 5]
    np.testing.assert_allclose(found.probability[:2, 0], [1 / 3, 2 / 3])
    np.testing.assert_allclose(found.probability.sum(axis=0), 1)


def test_agreement_of_equal_maps_and_of_shifted_names() -> None:
    truth = np.repeat(np.arange(1, 8), 6)
    assert agreement(truth, truth)["accuracy"] == 1
    renamed = agreement(truth % 7 + 1, truth)
    assert renamed["accuracy"] == 0
    assert renamed["adjusted_rand"] == 1  # blind to names
    assert renamed["majority"] == pytest.approx(1 / 7)
