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

from typing import Protocol

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
    if train.shape[1] > len(train):
        # the products of rows are the smaller matrix where there are fewer rows
        return probabilities_of_products(
            train @ train.T, test @ train.T, labels, penalty, n_classes
        )
    loss = _Loss.of(labels, n_classes, penalty)
    return _predicted(test, _minimum(_Features(train, loss.curvature), loss))


def probabilities_of_products(
    train: Array, test: Array, labels: Labels, penalty: float, n_classes: int
) -> Array:
    """The same as `probabilities`, from the scalar products of rows alone.

    Parameters
    ----------
    train
        (n, n) the products of the training rows with one another.
    test
        (t, n) those of the test rows with the training rows.
    labels, penalty, n_classes
        As in `probabilities`.

    Returns
    -------
    ndarray
        (M, t, K).

    Examples
    --------
    >>> rows = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> products, labels = rows @ rows.T, np.array([[0, 0, 1, 1]])
    >>> found = probabilities_of_products(products, products, labels, 1.0, 2)
    >>> bool(np.allclose(found, probabilities(rows, rows, labels, 1.0, 2), atol=1e-5))
    True
    """
    loss = _Loss.of(labels, n_classes, penalty)
    return _predicted(test, _minimum(_Rows(train, loss.curvature), loss))


def _predicted(known: Array, weights: Array) -> Array:
    """(M, t, K) of rows (t, S - 1) and weights (S, M, K), whose last is the intercept."""
    logits = np.einsum("tr,rmk->mtk", known, weights[:-1], optimize=True)
    logits += weights[-1][:, None]
    if logits.shape[2] > 1:
        return np.asarray(np.exp(log_softmax(logits, axis=2)))
    second = expit(logits[:, :, 0])
    return np.stack([1 - second, second], axis=2)


class _Loss:
    """The weighted logistic loss of M targets (n, M, K), times C; its slope and its curvature."""

    def __init__(self, wanted: Array, weight: Array, penalty: float) -> None:
        self.shape = wanted.shape
        self._wanted, self._weight = wanted, penalty * weight[:, :, None]
        self.curvature = float((0.25 if wanted.shape[2] == 1 else 0.5) * self._weight.max())

    @classmethod
    def of(cls, labels: Labels, n_classes: int, penalty: float) -> "_Loss":
        """The loss of class indices (M, n), the classes of equal weight."""
        n_rows, n_outputs = labels.shape[1], 1 if n_classes == 2 else n_classes
        counts = np.stack([(labels == k).sum(axis=1) for k in range(n_classes)], axis=1)
        # (n, M)
        weight = (n_rows / (n_classes * np.take_along_axis(counts, labels, axis=1))).T
        wanted = np.moveaxis(labels[:, :, None] == np.arange(n_classes)[-n_outputs:], 0, 1)
        return cls(wanted.astype(np.float64), weight, penalty)

    def slope(self, logits: Array, active: Labels) -> Array:
        """(n, A, K) the slope by the logits (n, A, K) of the targets that are active (A,)."""
        guess = expit(logits) if self.shape[2] == 1 else np.exp(log_softmax(logits, axis=2))
        return np.asarray(self._weight[:, active] * (guess - self._wanted[:, active]))


class _Space(Protocol):
    """Where weights are sought: S numbers for each target and class, the last the intercept."""

    size: int

    def step(self, slope: Array, here: Array) -> tuple[Array, Array]:
        """Newton's step (S, A, K) of the bound, and what it does to the logits (n, A, K)."""
        ...

    def penalised(self, here: Array, moved: Array, of_logits: Array) -> Array:
        """(A,) slope of the penalty along a move of the weights, which moves the logits so."""
        ...


class _Features:
    """Weights of the features (n, R) themselves."""

    def __init__(self, train: Array, curvature: float) -> None:
        self._rows = np.hstack([train, np.ones((len(train), 1))])
        self.size = self._rows.shape[1]
        bound = curvature * self._rows.T @ self._rows
        diagonal = np.diag_indices(self.size - 1)
        bound[diagonal] += 1
        bound[np.diag_indices(self.size)] += 1e-10 * np.trace(bound) / self.size
        self._factor = cho_factor(bound, overwrite_a=True)

    def step(self, slope: Array, here: Array) -> tuple[Array, Array]:
        down = self._rows.T @ slope.reshape(len(slope), -1)
        down[:-1] += here[:-1].reshape(self.size - 1, -1)
        step = cho_solve(self._factor, down)
        return step.reshape(here.shape), (self._rows @ step).reshape(slope.shape)

    def penalised(self, here: Array, moved: Array, of_logits: Array) -> Array:
        return np.asarray((here[:-1] * moved[:-1]).sum(axis=(0, 2)))


class _Rows:
    """Weights of the training rows, w = X' a: the same steps at a fraction of the products.

    With the curvature c and the products of the rows G = X X', a step solves (c G + 1) s = e + a,
    and G s, which the logits need, is (e + a - s) / c.
    """

    def __init__(self, products: Array, curvature: float) -> None:
        self._curvature = curvature
        self.size = len(products) + 1
        bound = curvature * products
        bound[np.diag_indices(len(products))] += 1
        # transposed, the symmetric matrix lies in memory as LAPACK takes it, without a copy
        self._factor = cho_factor(bound.T, overwrite_a=True)
        self._of_ones = cho_solve(self._factor, np.ones(len(products)))

    def step(self, slope: Array, here: Array) -> tuple[Array, Array]:
        down = (slope + here[:-1]).reshape(len(slope), -1)
        solved = cho_solve(self._factor, down)
        level = solved.sum(axis=0) - here[:-1].reshape(len(slope), -1).sum(axis=0)
        level /= self._curvature * self._of_ones.sum()
        solved -= self._curvature * np.outer(self._of_ones, level)
        down -= solved
        down /= self._curvature
        step = np.vstack([solved, level])
        return step.reshape(here.shape), down.reshape(slope.shape)

    def penalised(self, here: Array, moved: Array, of_logits: Array) -> Array:
        return np.asarray((here[:-1] * (of_logits - moved[-1:])).sum(axis=(0, 2)))


def _minimum(space: _Space, loss: _Loss) -> Array:
    """(S, M, K) the weights of the smallest loss and penalty of each of M targets."""
    n_rows, n_targets, n_outputs = loss.shape
    size = space.size
    found = np.zeros((size, n_targets, n_outputs))
    active = np.arange(n_targets)
    # weights above, and below the logits, which follow from them
    here = before = np.zeros((size + n_rows, n_targets, n_outputs))
    momentum = np.ones(n_targets)
    for _ in range(MAXIMUM_STEPS):
        slope = loss.slope(here[size:], active)
        step, of_logits = space.step(slope, here[:size])
        after = here - np.concatenate([step, of_logits])
        going = np.abs(of_logits).max(axis=(0, 2)) > TOLERANCE
        found[:, active] = after[:size]
        if not going.any():
            break
        # the momentum starts again where it leads uphill
        change = after - before
        climbed = (slope * change[size:]).sum(axis=(0, 2))
        uphill = climbed + space.penalised(here[:size], change[:size], change[size:]) > 0
        speed = np.where(uphill, 1.0, momentum)
        momentum = (1 + np.sqrt(1 + 4 * speed**2)) / 2
        push = np.where(uphill, 0.0, (speed - 1) / momentum)[:, None]
        here = (after + push * change)[:, going]
        before, momentum, active = after[:, going], momentum[going], active[going]
    return found
