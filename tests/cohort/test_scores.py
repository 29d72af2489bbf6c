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
