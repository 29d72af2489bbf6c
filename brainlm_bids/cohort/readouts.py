"""Linear readouts of one split: penalised models of features (N, F), fitted to the training rows.

The penalty is chosen in inner folds of whole subjects. Features are standardised, and confounds
regressed out of them, by the training rows alone (Snoek et al. 2019). Penalised linear models do
not change when features are rotated, so of wide features (89,676 correlations) only the scalar
products of the rows are kept: the same predictions at a fraction of the time.

References
----------
Snoek L, Miletić S, Scholte HS (2019). How to control for confounds in decoding analyses of
neuroimaging data. NeuroImage 184:741-760.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from brainlm_bids.cohort.folds import Indices, Split, splits
from brainlm_bids.cohort.logistic import probabilities, probabilities_of_products
from brainlm_bids.errors import UserError

Array = NDArray[np.float64]
INNER_FOLDS = 3
# Rows have a mean square of 1, so a penalty is the noise-to-signal ratio of a random-effects model.
ALPHAS = tuple(10.0 ** np.arange(-2, 4.0))
INVERSE_PENALTIES = tuple(10.0 ** np.arange(-2, 2.0))
BLOCK = 8192  # features at a time …
VALUES = 1 << 24  # … and fewer where there are many rows: values in memory


@dataclass(frozen=True)
class Rotated:
    """Standardised features of N rows, up to a rotation.

    Parameters
    ----------
    narrow
        (N, F) the features, if F ≤ N.
    products
        (N, N) the scalar products of the rows of wider features, of which no others are needed.
    """

    narrow: Array | None = None
    products: Array | None = None


# features, targets (M, N), split, subjects (N,), seed -> predictions of the test rows
Fit = Callable[[Rotated, Array, Split, NDArray[np.str_], int], Array]


def rotated_features(features: ArrayLike, train: Indices, confounds: Array | None) -> Rotated:
    """Standardise features, and rotate them into at most N dimensions.

    The scalar products of the rows are those of the features, divided by their number. Mean,
    confounds and scale are fitted to the training rows alone. Features that do not vary there
    are left out.

    Parameters
    ----------
    features
        (N, F), NaN where unknown; may be memory-mapped. Some are in memory at a time, and once the
        matrix of scalar products (N, N).
    train
        Indices of the training rows.
    confounds
        (N, K), or None.

    Returns
    -------
    Rotated
        Of N rows.

    Raises
    ------
    UserError
        If there are too many confounds for the training rows.
    """
    wide = np.asarray(features) if not isinstance(features, np.ndarray) else features
    n_rows, n_features = wide.shape
    model = np.ones((n_rows, 1))
    if confounds is not None and confounds.shape[1]:
        model = np.hstack([model, confounds])
    if 2 * model.shape[1] > len(train):
        raise UserError(
            f"--regress-out: {model.shape[1] - 1} columns of confounds are too many for "
            f"{len(train)} recordings in a training fold"
        )
    inverse: Array = np.linalg.pinv(model[train]).astype(np.float64)
    narrow = n_features <= n_rows
    kept: list[Array] = []
    gram, n_used = np.zeros((0 if narrow else n_rows,) * 2), 0
    size = max(1, min(BLOCK, VALUES // n_rows))
    for start in range(0, n_features, size):
        block = _standardised(wide[:, start : start + size], train, model, inverse)
        n_used += block.shape[1]
        if narrow:
            kept.append(block)
        else:
            gram += block @ block.T
    if n_used == 0:
        return Rotated(np.zeros((n_rows, 1)))
    if narrow:
        return Rotated(np.hstack(kept) / math.sqrt(n_used))
    gram /= n_used
    return Rotated(products=gram)


def _standardised(block: NDArray, train: Indices, model: Array, inverse: Array) -> Array:
    values = np.array(block, dtype=np.float64)
    known = np.isfinite(values)
    if not known.all():
        count = known[train].sum(axis=0)
        mean = np.where(known, values, 0)[train].sum(axis=0) / np.maximum(count, 1)
        values = np.where(known, values, mean)
    size = np.abs(values[train]).max(axis=0)
    values -= model @ (inverse @ values[train])
    scale = values[train].std(axis=0)
    varies = scale > 1e-9 * size
    return values[:, varies] / scale[varies]


def fit_ridge(
    features: Rotated, columns: Array, split: Split, people: NDArray[np.str_], seed: int
) -> Array:
    """Ridge regression of all columns at once, each with the penalty that its inner folds select.

    Parameters
    ----------
    features
        See `rotated_features`.
    columns
        (M, N) targets.
    split
        Training rows and test rows.
    people
        (N,) the subject of each row.
    seed
        Seed of the inner folds.

    Returns
    -------
    ndarray
        (M, n_test, 2): predictions, and the mean of the training rows, which is the baseline.
    """
    train, test = split
    targets = columns.T
    errors = np.zeros((len(ALPHAS), len(columns)))
    for fitted, held in splits(people[train], INNER_FOLDS, seed):
        solved = _Ridge.of(features, train[fitted], train[held])
        for k, alpha in enumerate(ALPHAS):
            guesses = solved.predict(targets[train[fitted]], alpha)
            errors[k] += ((guesses - targets[train[held]]) ** 2).sum(axis=0)
    # of penalties that are equally good, the larger
    best = len(ALPHAS) - 1 - errors[::-1].argmin(axis=0)
    predicted = np.empty((len(columns), len(test), 2))
    predicted[:, :, 1] = targets[train].mean(axis=0)[:, None]
    solved = _Ridge.of(features, train, test)
    for k in np.unique(best):
        chosen = best == k
        predicted[chosen, :, 0] = solved.predict(targets[train][:, chosen], ALPHAS[k]).T
    return predicted


@dataclass(frozen=True)
class _Ridge:
    """Ridge regressions on the same rows, of which all share one matrix of products.

    It is that of the features, or of the rows if these are fewer, as in scikit-learn's Ridge, whose
    predictions these are: its checks of every fit take nearly all of the time of a small cohort.

    Parameters
    ----------
    left, products
        (n_test, n) and (n, n): n features, or n training rows.
    known
        (n_train, n) the features of the training rows, where n is their number.
    """

    left: Array
    products: Array
    known: Array | None = None

    @classmethod
    def of(cls, features: Rotated, train: Indices, test: Indices) -> "_Ridge":
        """Centre the features at the mean of the training rows."""
        if features.products is not None:
            return cls._of_products(features.products, train, test)
        assert features.narrow is not None
        known, new = features.narrow[train], features.narrow[test]
        middle = known.mean(axis=0)
        known -= middle
        new -= middle
        if known.shape[1] > len(known):
            return cls(new @ known.T, known @ known.T)
        return cls(new, known.T @ known, known)

    @classmethod
    def _of_products(cls, products: Array, train: Indices, test: Indices) -> "_Ridge":
        """The same from scalar products alone: a matrix product less for each set of rows."""
        inner, left = products[np.ix_(train, train)], products[np.ix_(test, train)]
        mean = inner.mean(axis=0)
        left -= left.mean(axis=1, keepdims=True) + (mean - mean.mean())
        inner -= mean[:, None] + (mean - mean.mean())
        return cls(left, inner)

    def predict(self, targets: Array, alpha: float) -> Array:
        """(n_test, M) predictions for targets (n_train, M) of the training rows."""
        level = targets.mean(axis=0)
        wanted = targets - level
        right = wanted if self.known is None else self.known.T @ wanted
        penalised = self.products.copy()
        penalised[np.diag_indices_from(penalised)] += alpha
        return np.asarray(
            level + self.left @ cho_solve(cho_factor(penalised, overwrite_a=True), right)
        )


def logistic_fit(n_classes: int) -> Fit:
    """Make the fit of a logistic regression with an L2 penalty and classes of equal weight.

    Parameters
    ----------
    n_classes
        Number of classes C.

    Returns
    -------
    callable
        Takes what `fit_ridge` takes, the targets being class indices; returns probabilities
        (M, n_test, C).
    """

    def fit(
        features: Rotated, columns: Array, split: Split, people: NDArray[np.str_], seed: int
    ) -> Array:
        train, test = split
        labels = columns.astype(np.int64)
        losses = np.zeros((len(INVERSE_PENALTIES), len(labels)))
        for fitted, held in splits(people[train], INNER_FOLDS, seed):
            inner = train[fitted], train[held]
            truth = labels[:, inner[1]]
            for k, penalty in enumerate(INVERSE_PENALTIES):
                chance = _probabilities(features, labels, inner, penalty, n_classes)
                right = np.take_along_axis(chance, truth[:, :, None], axis=2)[:, :, 0]
                losses[k] -= np.log(np.maximum(right, 1e-12)).sum(axis=1)
        best = losses.argmin(axis=0)
        predicted = np.empty((len(labels), len(test), n_classes))
        for k in np.unique(best):
            chosen, penalty = best == k, INVERSE_PENALTIES[k]
            predicted[chosen] = _probabilities(features, labels[chosen], split, penalty, n_classes)
        return predicted

    return fit


def _probabilities(
    features: Rotated, labels: NDArray[np.int64], split: Split, penalty: float, n_classes: int
) -> Array:
    """(M, n_test, C); a class that the training rows of a target lack has probability 0."""
    train, test = split
    known = labels[:, train]
    present = np.stack([(known == k).any(axis=1) for k in range(n_classes)], axis=1)
    chance = np.zeros((len(labels), len(test), n_classes))
    everywhere = np.arange(len(test))
    for classes in np.unique(present, axis=0):
        chosen, kinds = (present == classes).all(axis=1), np.flatnonzero(classes)
        if len(kinds) == 1:
            chance[np.ix_(chosen, everywhere, kinds)] = 1.0
            continue
        places = np.searchsorted(kinds, known[chosen])
        found = _of_classes(features, places, split, penalty, len(kinds))
        chance[np.ix_(chosen, everywhere, kinds)] = found
    return chance


def _of_classes(
    features: Rotated, labels: NDArray[np.int64], split: Split, penalty: float, n_classes: int
) -> Array:
    """(M, n_test, C) where every class is among the training rows' labels (M, n_train)."""
    train, test = split
    if features.narrow is not None:
        rows = features.narrow
        return probabilities(rows[train], rows[test], labels, penalty, n_classes)
    assert features.products is not None
    inner, left = features.products[np.ix_(train, train)], features.products[np.ix_(test, train)]
    return probabilities_of_products(inner, left, labels, penalty, n_classes)
