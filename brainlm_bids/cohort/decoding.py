"""Decoding: a target (N,) is predicted from features (N, F) of N recordings.

Nested, repeated cross-validation by subject: all recordings of a person are on one side of a split,
also where the penalty is chosen. Features are standardised, and confounds regressed out of them, by
the training recordings alone (Snoek 2019, NeuroImage 184:741). Penalised linear models do not
change when features are rotated, so wide features (89,676 correlations) are replaced by their N
principal scores: the same predictions at a fraction of the time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold

from brainlm_bids.errors import UserError

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Split = tuple[Indices, Indices]

OUTER_FOLDS, INNER_FOLDS = 5, 3
MAXIMUM_REPEATS = 10
RECORDINGS_FITTED = 10_000  # repeats × recordings stays below this, for time
BOOTSTRAPS = 1000
COVERAGE = 95.0  # of the confidence intervals, per cent
# Rows have a mean square of 1, so a penalty is the noise-to-signal ratio of a random-effects model.
ALPHAS = tuple(10.0 ** np.arange(-2, 4.0))
INVERSE_PENALTIES = tuple(10.0 ** np.arange(-2, 2.0))
REGRESSION_METRICS = ("mse", "mae", "r2", "pearson_r")
CLASSIFICATION_METRICS = ("accuracy", "balanced_accuracy", "auc")
BLOCK = 8192  # features at a time


class Score(NamedTuple):
    """A metric with its confidence interval (bootstrap over subjects).

    Attributes
    ----------
    value
        The metric.
    low, high
        Bounds of the 95 % interval.
    """

    value: float
    low: float
    high: float


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
    """

    predictions: Array
    scores: dict[str, Score]
    p: float
    n_repeats: int


def n_repeats(n_recordings: int) -> int:
    """Number of repeats: ten for up to 1000 recordings, fewer beyond, at least one.

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
    fit = _fit_ridge if n_classes == 0 else _logistic(n_classes)
    total, first = None, None
    for repeat in range(repeats):
        columns = np.vstack([values, shuffled]) if repeat == 0 else values[None]
        of_repeat = _cross_validated(features, columns, people, confounds, fit, seed + repeat)
        if repeat == 0:
            first = of_repeat
        total = of_repeat[0] if total is None else total + of_repeat[0]
    assert total is not None and first is not None
    predictions = total / repeats
    measure = _regression_scores if n_classes == 0 else _classification_scores
    return Decoded(
        predictions[:, 0] if n_classes == 0 else predictions,
        _intervals(measure, values, predictions, people, seed),
        _permutation_p(first, values, shuffled, n_classes),
        repeats,
    )


# --- one split at a time, for what is compared with models that were fitted elsewhere ---------


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
    fit = _fit_ridge if n_classes == 0 else _logistic(n_classes)
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
    measure = _regression_scores if n_classes == 0 else _classification_scores
    values = np.asarray(truth, dtype=np.float64)
    return _intervals(measure, values, predictions, np.asarray(subjects), seed)


def within_fold_p(
    truth: ArrayLike,
    predictions: Array,
    subjects: Sequence[str],
    folds: Sequence[Indices],
    *,
    n_classes: int,
    n_permutations: int,
    seed: int,
) -> float:
    """One-sided p value of given held-out predictions, by permuting targets within folds.

    The predictions are kept, and the targets are shuffled between the subjects of each test fold.
    The test is exact for a single test set, because its targets had no part in the training. The
    quality of a prediction is the mean squared error for a regression, the AUC for classes.

    Parameters
    ----------
    truth
        (N,) target values, or class indices.
    predictions
        (N, 2) for a regression, (N, C) probabilities for C classes; see `linear_predictions`.
    subjects
        (N,) the subject of each recording.
    folds
        Rows of each test fold.
    n_classes
        0 for a regression.
    n_permutations
        How many shuffled targets the true one is compared with.
    seed
        Seed of the permutations.

    Returns
    -------
    float
        The p value, NaN without permutations.
    """
    values, people = np.asarray(truth, dtype=np.float64), np.asarray(subjects)
    if not n_permutations:
        return math.nan
    shuffled = np.repeat(values[None], n_permutations, axis=0)
    for number, rows in enumerate(folds):
        permuted = permuted_targets(values[rows], people[rows], n_permutations, seed + number)
        shuffled[:, rows] = permuted
    everyone = np.repeat(predictions[None], 1 + n_permutations, axis=0)
    return _permutation_p(everyone, values, shuffled, n_classes)


# --- cross-validation ------------------------------------------------------------------------

Fit = Callable[[Array, Array, Split, NDArray[np.str_], int], Array]


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


def splits(people: NDArray[np.str_], n_folds: int, seed: int) -> Iterator[Split]:
    """Split rows for cross-validation, whole subjects on either side, without regard to the target.

    Parameters
    ----------
    people
        (N,) the subject of each row.
    n_folds
        Number of folds; as many as subjects if there are fewer.
    seed
        Seed of the folds.

    Yields
    ------
    train, test
        Indices of rows.

    Examples
    --------
    >>> people = np.array(["a", "a", "b"])
    >>> [(train.tolist(), test.tolist()) for train, test in splits(people, 5, seed=0)]
    [([0, 1], [2]), ([2], [0, 1])]
    """
    names = np.unique(people)
    folds = KFold(min(n_folds, len(names)), shuffle=True, random_state=seed)
    for _, out in folds.split(names):
        test = np.isin(people, names[out])
        yield np.flatnonzero(~test), np.flatnonzero(test)


def principal_scores(features: ArrayLike, train: Indices, confounds: Array | None) -> Array:
    """Rows with the scalar products of the standardised features, over the number of features.

    Mean, confounds and scale are fitted to the training rows alone. Features that do not vary there
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


def _fit_ridge(
    scores: Array, columns: Array, split: Split, people: NDArray[np.str_], seed: int
) -> Array:
    """Ridge regression of all columns at once, each with the penalty that its inner folds select.

    (M, n_test, 2): predictions, and the mean of the training recordings, which is the baseline.
    """
    train, test = split
    targets = columns.T
    errors = np.zeros((len(ALPHAS), len(columns)))
    for fitted, held in splits(people[train], INNER_FOLDS, seed):
        for k, alpha in enumerate(ALPHAS):
            guess = _ridge(scores, targets, train[fitted], train[held], alpha)
            errors[k] += ((guess - targets[train[held]]) ** 2).sum(axis=0)
    # of penalties that are equally good, the larger
    best = len(ALPHAS) - 1 - errors[::-1].argmin(axis=0)
    predicted = np.empty((len(columns), len(test), 2))
    predicted[:, :, 1] = targets[train].mean(axis=0)[:, None]
    for k in np.unique(best):
        chosen = best == k
        predicted[chosen, :, 0] = _ridge(scores, targets[:, chosen], train, test, ALPHAS[k]).T
    return predicted


def _ridge(scores: Array, targets: Array, train: Indices, test: Indices, alpha: float) -> Array:
    model = Ridge(alpha=alpha).fit(scores[train], targets[train])
    return np.asarray(model.predict(scores[test])).reshape(len(test), -1)


def _logistic(n_classes: int) -> Fit:
    """Logistic regression with an L2 penalty, column by column."""

    def fit(
        scores: Array, columns: Array, split: Split, people: NDArray[np.str_], seed: int
    ) -> Array:
        train, test = split
        inner = list(splits(people[train], INNER_FOLDS, seed))
        predicted = np.empty((len(columns), len(test), n_classes))
        for row, values in enumerate(columns.astype(np.int64)):
            losses = []
            for penalty in INVERSE_PENALTIES:
                loss = 0.0
                for fitted, held in inner:
                    chance = _chances(
                        scores, values, train[fitted], train[held], penalty, n_classes
                    )
                    right = chance[np.arange(len(held)), values[train[held]]]
                    loss -= float(np.log(np.maximum(right, 1e-12)).sum())
                losses.append(loss)
            best = INVERSE_PENALTIES[int(np.argmin(losses))]
            predicted[row] = _chances(scores, values, train, test, best, n_classes)
        return predicted

    return fit


def _chances(
    scores: Array,
    values: NDArray[np.int64],
    train: Indices,
    test: Indices,
    penalty: float,
    n_classes: int,
) -> Array:
    """(n_test, C); a class that the training rows lack has probability 0."""
    classes = np.unique(values[train])
    chance = np.zeros((len(test), n_classes))
    if len(classes) == 1:
        chance[:, classes[0]] = 1.0
        return chance
    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000)
    chance[:, classes] = model.fit(scores[train], values[train]).predict_proba(scores[test])
    return chance


# --- scores ----------------------------------------------------------------------------------


def _regression_scores(truth: Array, predictions: Array) -> dict[str, float]:
    """Scores of a regression; r2 and pearson_r are relative to the training mean of each fold.

    Relative to the mean of all recordings, predictions without information would correlate
    negatively with the targets, because each test fold is missing from its training mean.
    """
    guess, known = predictions[:, 0], predictions[:, 1]
    error, true_gain, predicted_gain = truth - guess, truth - known, guess - known
    spread = np.ptp(predicted_gain) > 1e-9 * np.abs(guess).max() and np.ptp(true_gain) > 0
    return {
        "mse": float((error**2).mean()),
        "mae": float(np.abs(error).mean()),
        "r2": float(1 - (error**2).sum() / (true_gain**2).sum()) if true_gain.any() else math.nan,
        "pearson_r": float(np.corrcoef(true_gain, predicted_gain)[0, 1]) if spread else math.nan,
    }


def _classification_scores(truth: Array, predictions: Array) -> dict[str, float]:
    labels = truth.astype(np.int64)
    guess = predictions.argmax(axis=1)
    present = np.unique(labels)
    recalls = [float((guess[labels == k] == k).mean()) for k in present]
    return {
        "accuracy": float((guess == labels).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "auc": _auc(labels, predictions),
    }


def _auc(labels: NDArray[np.int64], predictions: Array) -> float:
    """Area under the curve; of each class against the others, averaged, for more than two."""
    present = range(predictions.shape[1]) if predictions.shape[1] > 2 else (1,)
    areas = []
    for k in present:
        in_class = labels == k
        n_in_class, n_other = int(in_class.sum()), int((~in_class).sum())
        if n_in_class and n_other:
            # Mann and Whitney's U; a tenth of the time of scikit-learn's curve
            above = rankdata(predictions[:, k])[in_class].sum() - n_in_class * (n_in_class + 1) / 2
            areas.append(above / (n_in_class * n_other))
    return float(np.mean(areas)) if areas else math.nan


def _intervals(
    measure: Callable[[Array, Array], dict[str, float]],
    truth: Array,
    predictions: Array,
    people: NDArray[np.str_],
    seed: int,
) -> dict[str, Score]:
    """Scores with percentile intervals over subjects drawn with replacement."""
    rng = np.random.default_rng([seed, 1])
    names = np.unique(people)
    rows = [np.flatnonzero(people == name) for name in names]
    drawn = []
    for _ in range(BOOTSTRAPS):
        chosen = np.concatenate([rows[k] for k in rng.integers(len(names), size=len(names))])
        drawn.append(measure(truth[chosen], predictions[chosen]))
    intervals = {}
    tails = [(100 - COVERAGE) / 2, (100 + COVERAGE) / 2]
    for name, value in measure(truth, predictions).items():
        sample = np.array([scores[name] for scores in drawn])
        sample = sample[np.isfinite(sample)]
        low, high = np.percentile(sample, tails) if sample.size else (math.nan, math.nan)
        intervals[name] = Score(value, float(low), float(high))
    return intervals


# --- permutations ----------------------------------------------------------------------------


def permuted_targets(values: Array, people: NDArray[np.str_], n: int, seed: int) -> Array:
    """Shuffle a target between subjects.

    A target that is the same in all recordings of a person moves from person to person; one that
    differs between them moves as a whole block, between persons with as many recordings.

    Parameters
    ----------
    values
        (N,) the target.
    people
        (N,) the subject of each recording.
    n
        Number of permutations.
    seed
        Seed of the permutations.

    Returns
    -------
    ndarray
        (n, N).

    References
    ----------
    Winkler AM, Webster MA, Vidaurre D, Nichols TE, Smith SM (2015). Multi-level block permutation.
    NeuroImage 123:253.
    """
    rng = np.random.default_rng([seed, 2])
    rows = [np.flatnonzero(people == name) for name in np.unique(people)]
    constant = all(np.ptp(values[subject_rows]) == 0 for subject_rows in rows)
    sizes = np.array([1 if constant else len(subject_rows) for subject_rows in rows])
    shuffled = np.empty((n, len(values)))
    for k in range(n):
        source = np.arange(len(rows))
        for size in np.unique(sizes):
            alike = np.flatnonzero(sizes == size)
            source[alike] = rng.permutation(alike)
        for here, there in enumerate(source):
            shuffled[k, rows[here]] = values[rows[there][0]] if constant else values[rows[there]]
    return shuffled


def _permutation_p(first: Array, values: Array, shuffled: Array, n_classes: int) -> float:
    """Share of targets, the true one among them, that are predicted as well as the true one."""
    if not len(shuffled):
        return math.nan

    def quality(truth: Array, predictions: Array) -> float:
        if n_classes == 0:
            return -float(((truth - predictions[:, 0]) ** 2).mean())
        return _auc(truth.astype(np.int64), predictions)

    true = quality(values, first[0])
    chance = np.array([quality(t, p) for t, p in zip(shuffled, first[1:], strict=True)])
    return float((1 + (chance >= true - 1e-12 * abs(true)).sum()) / (1 + len(shuffled)))
