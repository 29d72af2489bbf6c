"""Decoding: a target (N,) is predicted from features (N, F) of N recordings.

Nested, repeated cross-validation by subject: all recordings of a person are on one side of a split,
also where the penalty is chosen.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.cohort.folds import Split, splits
from brainlm_bids.cohort.permutations import permutation_p, permuted_targets
from brainlm_bids.cohort.readouts import Fit, fit_ridge, logistic_fit, principal_scores
from brainlm_bids.cohort.scores import (
    Score,
    classification_scores,
    regression_scores,
    with_intervals,
)

Array = NDArray[np.float64]
OUTER_FOLDS = 5
MAXIMUM_REPEATS = 10
RECORDINGS_FITTED = 10_000  # repeats × recordings stays below this, for time


class Decoded(NamedTuple):
    """The result of decoding one target from one kind of features.

    Attributes
    ----------
    predictions
        (N,) for a regression, (N, C) probabilities for C classes: each recording's while its
        subject was left out, averaged over repeats.
    scores
        Name of a metric to its score.
    p
        One-sided p value of the first repeat's r² or AUC, by permuting the target between subjects;
        NaN without permutations.
    n_repeats
        Number of repeats of the cross-validation.
    reference
        (N,) the mean of the training rows of each recording, which r² is relative to; empty for
        classes.
    """

    predictions: Array
    scores: dict[str, Score]
    p: float
    n_repeats: int
    reference: Array


def n_repeats(n_recordings: int) -> int:
    """Number of repeats of the cross-validation: ten for up to 1000 recordings, fewer for more.

    Parameters
    ----------
    n_recordings
        Number of recordings.

    Returns
    -------
    int
        At least one.

    Examples
    --------
    >>> n_repeats(200), n_repeats(2500), n_repeats(40_000)
    (10, 4, 1)
    """
    return max(1, min(MAXIMUM_REPEATS, RECORDINGS_FITTED // n_recordings))


def fisher_z(matrix: NDArray) -> NDArray:
    """Fisher z of the correlations above the diagonal.

    Parameters
    ----------
    matrix
        (P, P).

    Returns
    -------
    ndarray
        (P·(P − 1) / 2,) row by row.

    Examples
    --------
    >>> fisher_z(np.array([[1.0, 0.5], [0.5, 1.0]])).round(4)
    array([0.5493])
    """
    pairs = matrix[np.triu_indices(len(matrix), k=1)]
    # a correlation that is 1 after rounding would be infinite
    return np.asarray(np.arctanh(np.clip(pairs, -0.999999, 0.999999)))


def decode(
    features: ArrayLike,
    target: ArrayLike,
    subjects: Sequence[str],
    *,
    n_classes: int = 0,
    confounds: Array | None = None,
    n_permutations: int = 0,
    seed: int = 0,
) -> Decoded:
    """Decode a target from features, with confidence intervals and a permutation test.

    Parameters
    ----------
    features
        (N, F), NaN where unknown (the training recordings' mean is used); may be memory-mapped.
    target
        (N,) numbers (`n_classes` 0: ridge regression), or class indices (logistic regression with
        classes of equal weight).
    subjects
        (N,) the subject of each recording. Folds hold whole subjects.
    n_classes
        0 for a regression.
    confounds
        (N, K) regressed out of the features inside the training folds.
    n_permutations
        How many shuffled targets the true one is compared with; 0 for no test.
    seed
        Seed of folds, permutations and bootstraps. Use the same seed for features that are to be
        compared.

    Returns
    -------
    Decoded
        Predictions of held-out recordings, their scores, and a p value.

    Raises
    ------
    UserError
        If there are too many confounds for the recordings.

    Examples
    --------
    >>> signal = np.random.default_rng(0).normal(size=(40, 3))
    >>> people = [f"sub-{k:02d}" for k in range(40)]
    >>> decode(signal, signal[:, 0], people, seed=0).scores["r2"].value > 0.9
    True
    """
    values = np.asarray(target, dtype=np.float64)
    people = np.asarray(subjects)
    repeats = n_repeats(len(values))
    shuffled = permuted_targets(values, people, n_permutations, seed)
    fit = fit_ridge if n_classes == 0 else logistic_fit(n_classes)
    total, first = None, None
    for repeat in range(repeats):
        columns = np.vstack([values, shuffled]) if repeat == 0 else values[None]
        of_repeat = _cross_validated(features, columns, people, confounds, fit, seed + repeat)
        if repeat == 0:
            first = of_repeat
        total = of_repeat[0] if total is None else total + of_repeat[0]
    assert total is not None and first is not None
    predictions = total / repeats
    measure = regression_scores if n_classes == 0 else classification_scores
    return Decoded(
        predictions[:, 0] if n_classes == 0 else predictions,
        with_intervals(measure, values, predictions, people, seed),
        permutation_p(first, values, shuffled, n_classes),
        repeats,
        predictions[:, 1] if n_classes == 0 else np.empty(0),
    )


def linear_predictions(
    features: ArrayLike,
    target: ArrayLike,
    subjects: Sequence[str],
    split: Split,
    *,
    n_classes: int = 0,
    seed: int = 0,
) -> Array:
    """Predict the test rows of one split by the linear model of `decode`.

    Parameters
    ----------
    features
        (N, F), NaN where unknown.
    target
        (N,) numbers, or class indices.
    subjects
        (N,) the subject of each recording.
    split
        Training rows and test rows.
    n_classes
        0 for a regression.
    seed
        Seed of the inner folds.

    Returns
    -------
    ndarray
        (n_test, 2) for a regression: the prediction, and the mean of the training rows; (n_test, C)
        probabilities for C classes.
    """
    people = np.asarray(subjects)
    columns = np.asarray(target, dtype=np.float64)[None]
    fit = fit_ridge if n_classes == 0 else logistic_fit(n_classes)
    scores = principal_scores(features, split[0], None)
    return fit(scores, columns, split, people, seed)[0]


def score(
    truth: ArrayLike, predictions: Array, subjects: Sequence[str], *, n_classes: int, seed: int
) -> dict[str, Score]:
    """Metrics of held-out predictions, with bootstrap intervals over subjects.

    Parameters
    ----------
    truth
        (N,) target values, or class indices.
    predictions
        (N, 2) or (N, C), see `linear_predictions`.
    subjects
        (N,) the subject of each recording.
    n_classes
        0 for a regression.
    seed
        Seed of the bootstrap.

    Returns
    -------
    dict
        Name of a metric to its score.
    """
    measure = regression_scores if n_classes == 0 else classification_scores
    values = np.asarray(truth, dtype=np.float64)
    return with_intervals(measure, values, predictions, np.asarray(subjects), seed)


def _cross_validated(
    features: ArrayLike,
    columns: Array,
    people: NDArray[np.str_],
    confounds: Array | None,
    fit: Fit,
    seed: int,
) -> Array:
    """(M, N, C) predictions of the M rows of `columns` (M, N), each with its subject left out."""
    predictions: Array | None = None
    for train, test in splits(people, OUTER_FOLDS, seed):
        scores = principal_scores(features, train, confounds)
        fitted = fit(scores, columns, (train, test), people, seed)
        if predictions is None:
            predictions = np.empty((len(columns), len(people), fitted.shape[2]))
        predictions[:, test] = fitted
    assert predictions is not None
    return predictions
