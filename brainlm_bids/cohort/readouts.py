"""Linear readouts of one split: penalised models of features (N, F), fitted to the training rows.

The penalty is chosen in inner folds of whole subjects. Features are standardised, and confounds
regressed out of them, by the training rows alone (Snoek et al. 2019). Penalised linear models do
not change when features are rotated, so wide features (89,676 correlations) are replaced by their N
principal scores: the same predictions at a fraction of the time.

References
----------
Snoek L, Miletić S, Scholte HS (2019). How to control for confounds in decoding analyses of
neuroimaging data. NeuroImage 184:741-760.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from brainlm_bids.cohort.folds import Indices, Split, splits
from brainlm_bids.cohort.logistic import probabilities
from brainlm_bids.errors import UserError

Array = NDArray[np.float64]
# scores (N, R), targets (M, N), split, subjects (N,), seed -> predictions of the test rows
Fit = Callable[[Array, Array, Split, NDArray[np.str_], int], Array]
INNER_FOLDS = 3
# Rows have a mean square of 1, so a penalty is the noise-to-signal ratio of a random-effects model.
ALPHAS = tuple(10.0 ** np.arange(-2, 4.0))
INVERSE_PENALTIES = tuple(10.0 ** np.arange(-2, 2.0))
BLOCK = 8192  # features at a time


def principal_scores(features: ArrayLike, train: Indices, confounds: Array | None) -> Array:
    """Rotate the standardised features into at most N principal scores.

    The scalar products of the rows are those of the features, divided by their number. Mean,
    confounds and scale are fitted to the training rows alone. Features that do not vary there
    are left out.

    Parameters
    ----------
    features
        (N, F), NaN where unknown.
    train
        Indices of the training rows.
    confounds
        (N, K), or None.

    Returns
    -------
    ndarray
        (N, R) with R ≤ N, or R ≤ F for narrow features.

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
    gram, n_used = np.zeros((n_rows, n_rows)), 0
    for start in range(0, n_features, BLOCK):
        block = _standardised(wide[:, start : start + BLOCK], train, model, inverse)
        n_used += block.shape[1]
        if narrow:
            kept.append(block)
        else:
            gram += block @ block.T
    if n_used == 0:
        return np.zeros((n_rows, 1))
    if narrow:
        return np.hstack(kept) / math.sqrt(n_used)
    size, vectors = np.linalg.eigh(gram / n_used)
    large = size > 1e-10 * size[-1]
    return np.asarray(vectors[:, large] * np.sqrt(size[large]))


def _standardised(block: NDArray, train: Indices, model: Array, inverse: Array) -> Array:
    values = np.array(block, dtype=np.float64)
    known = np.isfinite(values)
    count = known[train].sum(axis=0)
    mean = np.where(known, values, 0)[train].sum(axis=0) / np.maximum(count, 1)
    values = np.where(known, values, mean)
    size = np.abs(values[train]).max(axis=0)
    values -= model @ (inverse @ values[train])
    scale = values[train].std(axis=0)
    varies = scale > 1e-9 * size
    return values[:, varies] / scale[varies]


def fit_ridge(
    scores: Array, columns: Array, split: Split, people: NDArray[np.str_], seed: int
) -> Array:
    """Ridge regression of all columns at once, each with the penalty that its inner folds select.

    Parameters
    ----------
    scores
        (N, R), see `principal_scores`.
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
        guesses = _ridge(scores, targets, train[fitted], train[held], ALPHAS)
        errors += ((guesses - targets[train[held]]) ** 2).sum(axis=1)
    # of penalties that are equally good, the larger
    best = len(ALPHAS) - 1 - errors[::-1].argmin(axis=0)
    predicted = np.empty((len(columns), len(test), 2))
    predicted[:, :, 1] = targets[train].mean(axis=0)[:, None]
    for k in np.unique(best):
        chosen = best == k
        predicted[chosen, :, 0] = _ridge(
            scores, targets[:, chosen], train, test, ALPHAS[k : k + 1]
        )[0].T
    return predicted


def _ridge(
    scores: Array, targets: Array, train: Indices, test: Indices, alphas: Sequence[float]
) -> Array:
    """(A, n_test, M) predictions with each penalty, of which all share one matrix of products.

    It is that of the features, or of the rows if these are fewer, as in scikit-learn's Ridge, whose
    predictions these are: its checks of every fit take nearly all of the time of a small cohort.
    """
    known, new = scores[train], scores[test]
    middle, level = known.mean(axis=0), targets[train].mean(axis=0)
    known, new, wanted = known - middle, new - middle, targets[train] - level
    by_row = known.shape[1] > len(known)
    left = new @ known.T if by_row else new
    right = wanted if by_row else known.T @ wanted
    products = known @ known.T if by_row else known.T @ known
    identity = np.eye(len(products))
    return np.stack(
        [
            level + left @ cho_solve(cho_factor(products + alpha * identity), right)
            for alpha in alphas
        ]
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
        scores: Array, columns: Array, split: Split, people: NDArray[np.str_], seed: int
    ) -> Array:
        train, test = split
        labels = columns.astype(np.int64)
        losses = np.zeros((len(INVERSE_PENALTIES), len(labels)))
        for fitted, held in splits(people[train], INNER_FOLDS, seed):
            truth = labels[:, train[held]]
            for k, penalty in enumerate(INVERSE_PENALTIES):
                chance = _probabilities(
                    scores, labels, train[fitted], train[held], penalty, n_classes
                )
                right = np.take_along_axis(chance, truth[:, :, None], axis=2)[:, :, 0]
                losses[k] -= np.log(np.maximum(right, 1e-12)).sum(axis=1)
        best = losses.argmin(axis=0)
        predicted = np.empty((len(labels), len(test), n_classes))
        for k in np.unique(best):
            chosen, penalty = best == k, INVERSE_PENALTIES[k]
            predicted[chosen] = _probabilities(
                scores, labels[chosen], train, test, penalty, n_classes
            )
        return predicted

    return fit


def _probabilities(
    scores: Array,
    labels: NDArray[np.int64],
    train: Indices,
    test: Indices,
    penalty: float,
    n_classes: int,
) -> Array:
    """(M, n_test, C); a class that the training rows of a target lack has probability 0."""
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
        found = probabilities(scores[train], scores[test], places, penalty, len(kinds))
        chance[np.ix_(chosen, everywhere, kinds)] = found
    return chance
