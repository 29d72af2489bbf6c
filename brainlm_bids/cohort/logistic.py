"""Logistic regression of many targets at once, for permutation tests.

Thousands of small fits, one after the other, take minutes; here all targets share their matrix
products. Newton's steps are replaced by those of a matrix that bounds the Hessian and is the same
for all targets (Böhning 1992), with Nesterov's acceleration.

References
----------
Böhning D (1992). Multinomial logistic regression algorithm. Annals of the Institute of Statistical
Mathematics 44:197-200.
O'Donoghue B, Candès E (2015). Adaptive restart for accelerated gradient schemes. Foundations of
Computational Mathematics 15:715-732.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, log_softmax

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
TOLERANCE = 1e-5  # of a step, in logits
MAXIMUM_STEPS = 1000


def probabilities(
    train: Array, test: Array, labels: Labels, penalty: float, n_classes: int
) -> Array:
    """Fit a logistic regression to each of M targets and predict the probabilities of test rows.

    What is minimised is that of scikit-learn's LogisticRegression with classes of equal weight:
    half the squared weights, without the intercept, plus C times the weighted logistic loss. Two
    classes have one vector of weights, more classes one each.

    Parameters
    ----------
    train
        (n, R) features of the training rows.
    test
        (t, R) features of the test rows.
    labels
        (M, n) class indices; every class is present in every target.
    penalty
        C, the inverse of the penalty.
    n_classes
        Number of classes K.

    Returns
    -------
    ndarray
        (M, t, K).

    Examples
    --------
    >>> rows = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> probabilities(rows, rows, np.array([[0, 0, 1, 1]]), 1.0, 2)[0, :, 1].round(1).tolist()
    [0.1, 0.3, 0.7, 0.9]
    """
    n_rows, n_outputs = len(train), 1 if n_classes == 2 else n_classes
    counts = np.stack([(labels == k).sum(axis=1) for k in range(n_classes)], axis=1)
    # (n, M)
    weight = (n_rows / (n_classes * np.take_along_axis(counts, labels, axis=1))).T
    wanted = np.moveaxis(labels[:, :, None] == np.arange(n_classes)[-n_outputs:], 0, 1)
    ones = np.ones((n_rows, 1))
    weights = _minimum(np.hstack([train, ones]), wanted.astype(np.float64), weight, penalty)
    logits = np.einsum("tr,rmk->mtk", np.hstack([test, np.ones((len(test), 1))]), weights)
    if n_outputs > 1:
        return np.asarray(np.exp(log_softmax(logits, axis=2)))
    second = expit(logits[:, :, 0])
    return np.stack([1 - second, second], axis=2)


def _minimum(rows: Array, wanted: Array, weight: Array, penalty: float) -> Array:
    """(R + 1, M, K) weights for rows (n, R + 1), what is wanted (n, M, K), row weights (n, M)."""
    n_features, (_, n_targets, n_outputs) = rows.shape[1], wanted.shape
    shrunk = np.ones((n_features, 1, 1))
    shrunk[-1] = 0.0
    curvature = (0.25 if n_outputs == 1 else 0.5) * penalty * weight.max()
    bound = curvature * rows.T @ rows
    diagonal = np.diag_indices(n_features)
    bound[diagonal] += shrunk.ravel()
    bound[diagonal] += 1e-10 * np.trace(bound) / n_features
    factor = cho_factor(bound, overwrite_a=True)
    found = np.zeros((n_features, n_targets, n_outputs))
    active = np.arange(n_targets)
    here = before = found
    momentum = np.ones(n_targets)
    for _ in range(MAXIMUM_STEPS):
        logits = (rows @ here.reshape(n_features, -1)).reshape(len(rows), len(active), -1)
        guess = expit(logits) if n_outputs == 1 else np.exp(log_softmax(logits, axis=2))
        error = penalty * weight[:, active, None] * (guess - wanted[:, active])
        slope = (rows.T @ error.reshape(len(rows), -1)).reshape(here.shape) + shrunk * here
        step = cho_solve(factor, slope.reshape(n_features, -1)).reshape(here.shape)
        after = here - step
        moved = np.abs(rows @ step.reshape(n_features, -1)).reshape(len(rows), len(active), -1)
        going = moved.max(axis=(0, 2)) > TOLERANCE
        found[:, active] = after
        if not going.any():
            break
        # the momentum starts again where it leads uphill
        uphill = (slope * (after - before)).sum(axis=(0, 2)) > 0
        speed = np.where(uphill, 1.0, momentum)
        momentum = (1 + np.sqrt(1 + 4 * speed**2)) / 2
        push = np.where(uphill, 0.0, (speed - 1) / momentum)[:, None]
        here = (after + push * (after - before))[:, going]
        before, momentum, active = after[:, going], momentum[going], active[going]
    return found
