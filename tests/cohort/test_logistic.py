"""Logistic regressions of many targets at once are those of scikit-learn, one after the other."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from brainlm_bids.cohort.logistic import probabilities


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize(("penalty", "width"), [(0.01, 5), (1.0, 60), (10.0, 12)])
def test_probabilities_are_those_of_scikit_learn(
    n_classes: int, penalty: float, width: int
) -> None:
    rng = np.random.default_rng(width)
    train, test = rng.normal(size=(40, width)), rng.normal(size=(9, width))
    train /= np.sqrt(width)
    labels = np.stack([rng.permutation(np.arange(40) % (n_classes + 1)) for _ in range(6)])
    labels = np.minimum(labels, n_classes - 1)  # the last class has more rows than the others
    labels[0] = np.minimum(np.argsort(np.argsort(train[:, 0])) // 8, n_classes - 1)  # separable
    found = probabilities(train, test, labels, penalty, n_classes)
    for one, guess in zip(labels, found, strict=True):
        model = LogisticRegression(C=penalty, class_weight="balanced", tol=1e-10, max_iter=10_000)
        expected = model.fit(train, one).predict_proba(test)
        np.testing.assert_allclose(guess, expected, atol=2e-4)


def test_a_feature_that_does_not_vary_leaves_the_classes_at_equal_odds() -> None:
    labels = np.array([[0, 0, 0, 1], [0, 1, 1, 1]])
    found = probabilities(np.zeros((4, 1)), np.zeros((2, 1)), labels, 10.0, 2)
    np.testing.assert_allclose(found, 0.5, atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("penalty", [0.01, 10.0])
def test_more_features_than_rows_with_the_same_products_are_the_same(
    n_classes: int, penalty: float
) -> None:
    rng = np.random.default_rng(n_classes)
    rows = rng.normal(size=(49, 10))
    turned = rows @ np.linalg.qr(rng.normal(size=(60, 10)))[0].T
    labels = np.stack([rng.permutation(np.arange(40) % n_classes) for _ in range(20)])
    few, many = (probabilities(x[:40], x[40:], labels, penalty, n_classes) for x in (rows, turned))
    assert np.ptp(few) > 0.01
    np.testing.assert_allclose(many, few, atol=1e-9)
