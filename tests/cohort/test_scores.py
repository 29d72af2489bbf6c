"""Scores of predictions, computed by hand and by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from brainlm_bids.cohort.scores import auc, classification_scores, regression_scores


def test_scores_by_hand() -> None:
    truth = np.array([1.0, 2, 3, 4])
    predictions = np.column_stack([[1, 2, 3, 5], [2.5] * 4])
    found = regression_scores(truth, predictions)
    assert found["mse"] == pytest.approx(0.25)
    assert found["mae"] == pytest.approx(0.25)
    assert found["r2"] == pytest.approx(1 - 1 / 5)
    chances = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    found = classification_scores(np.array([0.0, 0, 1, 1]), chances)
    assert found["accuracy"] == found["balanced_accuracy"] == 0.5
    assert found["auc"] == pytest.approx(3 / 4)
    rng = np.random.default_rng(0)
    labels, tied = rng.integers(0, 3, 50), rng.integers(0, 5, (50, 3)) / 5
    expected = np.mean([roc_auc_score(labels == k, tied[:, k]) for k in range(3)])
    assert auc(labels, tied) == pytest.approx(expected)


def test_scores_within_sites_ignore_what_differs_between_them() -> None:
    """Predictions that only tell sites apart have no score; what they know within sites has."""
    rng = np.random.default_rng(1)
    site = np.repeat([0, 1, 2], 40)
    between = np.array([0.0, 5, 10])[site]
    truth, signal = rng.normal(size=120), rng.normal(size=120)
    only_site = np.column_stack([between, np.full(120, between.mean())])
    found = regression_scores(truth + between, only_site, site)
    assert regression_scores(truth + between, only_site)["pearson_r"] > 0.9
    assert np.isnan(found["pearson_r"]) and found["r2"] == pytest.approx(
        1 - (truth**2).sum() / sum(40 * truth[site == k].var() for k in range(3))
    )
    # another offset at each site is an error, but changes no correlation
    offset = np.column_stack([signal - 2 * between, np.zeros(120)])
    r = regression_scores(truth + signal + between, offset, site)["pearson_r"]
    centred = [(truth + signal)[site == k] - (truth + signal)[site == k].mean() for k in range(3)]
    known = [signal[site == k] - signal[site == k].mean() for k in range(3)]
    assert r == pytest.approx(np.corrcoef(np.concatenate(centred), np.concatenate(known))[0, 1])
    labels = np.concatenate([rng.integers(0, 2, 40), rng.integers(0, 2, 40), np.ones(40, int)])
    chance = rng.random((120, 1)) + np.array([0, 1, 2])[site][:, None]
    chances = np.hstack([3 - chance, chance]) / 3
    areas = [roc_auc_score(labels[site == k], chances[site == k, 1]) for k in (0, 1)]
    assert auc(labels, chances, site) == pytest.approx(np.mean(areas))
    scores = classification_scores(labels.astype(float), chances, site)
    assert scores["balanced_accuracy"] == pytest.approx(0.5, abs=0.1)
    assert np.isnan(auc(labels[80:], chances[80:], site[80:]))
