"""Decoding: a target (U,) is predicted of U units from their features, or by a trained probe.

Nested, repeated cross-validation by subject: all units of a person are on one side of a split, also
where the penalty is chosen or the training of a probe is stopped. What a unit is, a subject or a
recording, is decided before (`units`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.cohort.folds import OUTER_FOLDS, Folds, Split, n_repeats
from brainlm_bids.cohort.permutations import permutation_p, permuted_targets, within_fold_p
from brainlm_bids.cohort.readouts import (
    Fit,
    Rotated,
    fit_ridge,
    logistic_fit,
    rotated_features,
)
from brainlm_bids.cohort.scores import (
    Score,
    classification_scores,
    regression_scores,
    with_intervals,
    within_sites,
)
from brainlm_bids.cohort.sites import NO_SITES, Sites

Array = NDArray[np.float64]
# target (U,), subjects (U,), split, number of classes, seed -> predictions of the test rows
Predictor = Callable[[Array, NDArray[np.str_], Split, int, int], Array]


class Target(NamedTuple):
    """What is decoded: (U,) numbers, or indices of `n_classes` classes."""

    values: ArrayLike
    n_classes: int = 0

    @property
    def array(self) -> Array:
        """(U,) as floating-point numbers."""
        return np.asarray(self.values, dtype=np.float64)


class Decoded(NamedTuple):
    """The result of decoding one target from one source.

    Attributes
    ----------
    predictions
        (U,) for a regression, (U, C) probabilities for C classes: each unit's while its subject was
        left out, averaged over repeats. NaN for units that no split tests.
    scores
        Name of a metric to its score.
    p
        One-sided p value of the first repeat's r² or AUC, by permuting the target between subjects;
        NaN without permutations.
    n_folds
        Number of splits of the first repeat.
    n_repeats
        Number of repeats of the cross-validation.
    reference
        (U,) what r² is relative to: the mean of the training rows of each unit, or of the truth at
        its site where sites are left out; empty for classes.
    """

    predictions: Array
    scores: dict[str, Score]
    p: float
    n_folds: int
    n_repeats: int
    reference: Array


def decode(
    features: ArrayLike,
    target: ArrayLike,
    subjects: Sequence[str],
    *,
    n_classes: int = 0,
    confounds: Array | None = None,
    n_permutations: int = 0,
    seed: int = 0,
    folds: Folds | None = None,
    sites: Sites = NO_SITES,
) -> Decoded:
    """Decode a target from features by a penalised linear model.

    Parameters
    ----------
    features
        (U, F), NaN where unknown (the training rows' mean is used); may be memory-mapped.
    target
        (U,) numbers (`n_classes` 0: ridge regression), or class indices (logistic regression with
        classes of equal weight).
    subjects
        (U,) the subject of each unit. Folds hold whole subjects.
    n_classes
        0 for a regression.
    confounds
        (U, K) regressed out of the features inside the training folds.
    n_permutations
        How many shuffled targets the true one is compared with, with everything refitted; 0 for no
        test.
    seed
        Seed of folds, permutations and bootstraps. Use the same seed for sources that are to be
        compared.
    folds
        Splits of each repeat; by default `repeated_folds`, `n_repeats` times.
    sites
        The sites of the units: those that are left out in turn (unless `folds` are given), and
        those whose effects on features are removed in each split before anything else. Targets are
        then permuted, and subjects drawn for intervals, within sites; where sites are left out,
        scores are those within sites.

    Returns
    -------
    Decoded
        Predictions of held-out units, their scores, and a p value.

    Raises
    ------
    UserError
        If there are too many confounds for the units.

    Examples
    --------
    >>> signal = np.random.default_rng(0).normal(size=(40, 3))
    >>> people = [f"sub-{k:02d}" for k in range(40)]
    >>> decode(signal, signal[:, 0], people, seed=0).scores["r2"].value > 0.9
    True
    """
    return decode_together(
        features,
        [Target(target, n_classes)],
        subjects,
        confounds=confounds,
        n_permutations=n_permutations,
        seed=seed,
        folds=folds,
        sites=sites,
    )[0]


def decode_together(
    features: ArrayLike,
    targets: Sequence[Target],
    subjects: Sequence[str],
    *,
    confounds: Array | None = None,
    n_permutations: int = 0,
    seed: int = 0,
    folds: Folds | None = None,
    sites: Sites = NO_SITES,
) -> list[Decoded]:
    """Decode several targets of the same units: what `decode` returns for each of them.

    They share the folds, and what is done to the features in each, which takes most of the time
    where features are wide.

    Parameters
    ----------
    features, subjects, confounds, n_permutations, seed, folds, sites
        As in `decode`.
    targets
        Of the same units.

    Returns
    -------
    list of Decoded
        In the order of the targets.

    Raises
    ------
    UserError
        If there are too many confounds for the units.
    """
    people = np.asarray(subjects)
    given = folds or sites.folds(subjects, OUTER_FOLDS, n_repeats(len(people)), seed)
    permuted = [
        permuted_targets(one.array, people, n_permutations, seed, sites=sites.strata or None)
        for one in targets
    ]
    model = _Linear(features, confounds, sites)
    everything = []
    for repeat, outer in enumerate(given):
        tasks = [
            _Task(np.vstack([one.array, others]) if repeat == 0 else one.array[None], one.n_classes)
            for one, others in zip(targets, permuted, strict=True)
        ]
        everything.append(_cross_validated(model, tasks, people, outer, seed + repeat))
    rows = _tested(given[0])
    where = _sites_of(rows, sites)
    found = []
    for k, (one, others) in enumerate(zip(targets, permuted, strict=True)):
        first = everything[0][k][:, rows]
        p = permutation_p(first, one.array[rows], others[:, rows], one.n_classes, where)
        total = np.sum([of_repeat[k][0] for of_repeat in everything], axis=0)
        mean = total / len(given)
        found.append(_decoded(mean, one.array, people, p, given, one.n_classes, seed, sites))
    return found


def decode_by(
    predictor: Predictor,
    target: ArrayLike,
    subjects: Sequence[str],
    *,
    n_classes: int = 0,
    n_permutations: int = 0,
    seed: int = 0,
    folds: Folds | None = None,
    sites: Sites = NO_SITES,
) -> Decoded:
    """Decode a target by a predictor that is trained in each split, such as a probe of tokens.

    Parameters
    ----------
    predictor
        Trains on the training rows of a split and predicts its test rows: (n_test, 2) with the mean
        of the training rows for a regression, (n_test, C) probabilities for C classes.
    target
        (U,) numbers, or class indices.
    subjects
        (U,) the subject of each unit. Folds hold whole subjects.
    n_classes
        0 for a regression.
    n_permutations
        How many shuffled targets the true one is compared with, predictions kept: targets are
        shuffled within the test folds of the first repeat. 0 for no test.
    seed
        Seed of folds, training, permutations and bootstraps.
    folds
        Splits of each repeat; by default one repeat of `repeated_folds`, that of `decode` with the
        same seed.
    sites
        As in `decode`; nothing is harmonised.

    Returns
    -------
    Decoded
        Predictions of held-out units, their scores, and a p value.

    Examples
    --------
    >>> truth, people = np.arange(20.0), [f"sub-{k:02d}" for k in range(20)]
    >>> def oracle(target, people, split, n_classes, seed):
    ...     train, test = split
    ...     return np.stack([target[test], np.full(len(test), target[train].mean())], axis=1)
    >>> float(decode_by(oracle, truth, people).scores["r2"].value)
    1.0
    """
    values = np.asarray(target, dtype=np.float64)
    people = np.asarray(subjects)
    given = folds or sites.folds(subjects, OUTER_FOLDS, 1, seed)
    everything = []
    for repeat, outer in enumerate(given):
        predictions = np.full((len(values), n_classes or 2), np.nan)
        for split in outer:
            predictions[split[1]] = predictor(values, people, split, n_classes, seed + repeat)
        everything.append(predictions)
    rows = _tested(given[0])
    p = within_fold_p(
        values[rows],
        everything[0][rows],
        people[rows].tolist(),
        [np.searchsorted(rows, test) for _, test in given[0]],
        n_classes=n_classes,
        n_permutations=n_permutations,
        seed=seed,
        sites=_sites_of(rows, sites),
    )
    predictions = np.mean(everything, axis=0)
    return _decoded(predictions, values, people, p, given, n_classes, seed, sites)


def _decoded(
    predictions: Array,
    values: Array,
    people: NDArray[np.str_],
    p: float,
    folds: Folds,
    n_classes: int,
    seed: int,
    sites: Sites,
) -> Decoded:
    """Scores of predictions (U, C) that were averaged over repeats."""
    measure = regression_scores if n_classes == 0 else classification_scores
    where, rows = None, _tested(folds[0])
    if sites.held_out:
        where = np.unique(np.asarray(sites.held_out), return_inverse=True)[1]
        if n_classes == 0:
            predictions[:, 1] = values - within_sites(values, where)
    return Decoded(
        predictions[:, 0] if n_classes == 0 else predictions,
        with_intervals(
            measure,
            values[rows],
            predictions[rows],
            people[rows],
            seed,
            None if where is None else where[rows],
        ),
        p,
        len(folds[0]),
        len(folds),
        predictions[:, 1] if n_classes == 0 else np.empty(0),
    )


def _tested(outer: Sequence[Split]) -> NDArray[np.int64]:
    """The units that are in a test set, in their order."""
    return np.sort(np.concatenate([test for _, test in outer]))


def _sites_of(rows: NDArray[np.int64], sites: Sites) -> list[str] | None:
    """The sites within which units are judged; None without."""
    return [sites.held_out[row] for row in rows] if sites.held_out else None


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
    rotated = rotated_features(features, split[0], None)
    return fit(rotated, columns, split, people, seed)[0]


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


class _Linear(NamedTuple):
    """What is done to features (U, F) in each split."""

    features: ArrayLike
    confounds: Array | None
    sites: Sites

    def prepare(self, split: Split) -> Rotated:
        """The features of all units, from which the training rows' are known."""
        features = self.sites.prepare(np.asarray(self.features), split)
        return rotated_features(features, split[0], self.confounds)


class _Task(NamedTuple):
    """M targets (M, U) of one kind."""

    columns: Array
    n_classes: int

    @property
    def fit(self) -> Fit:
        return logistic_fit(self.n_classes) if self.n_classes else fit_ridge


def _cross_validated(
    model: _Linear,
    tasks: Sequence[_Task],
    people: NDArray[np.str_],
    outer: Sequence[Split],
    seed: int,
) -> list[Array]:
    """For each task (M, U, C) predictions of its targets, each unit's with its subject left out."""
    predictions = [
        np.full((len(one.columns), len(people), one.n_classes or 2), np.nan) for one in tasks
    ]
    for split in outer:
        rotated = model.prepare(split)
        for one, guesses in zip(tasks, predictions, strict=True):
            guesses[:, split[1]] = one.fit(rotated, one.columns, split, people, seed)
    return predictions
