"""Permutation tests of held-out predictions: targets are shuffled between subjects."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.cohort.folds import Indices, rows_of_each
from brainlm_bids.cohort.scores import auc, within_sites

Array = NDArray[np.float64]


def permuted_targets(
    values: Array,
    people: NDArray[np.str_],
    n: int,
    seed: int,
    *,
    sites: Sequence[str] | None = None,
) -> Array:
    """Shuffle a target between subjects.

    A target that is the same in all recordings of a person moves from person to person; one that
    differs between them moves as a whole block, between persons with as many recordings. If sites
    are given, it moves between persons of the same site alone: what site and target have in common
    stays, and the null hypothesis is that the features know nothing beyond it.

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
    sites
        (N,) the site of each recording. Someone who was measured at several is exchanged with
        those who were measured at the same ones.

    Returns
    -------
    ndarray
        (n, N).

    References
    ----------
    Winkler AM, Webster MA, Vidaurre D, Nichols TE, Smith SM (2015). Multi-level block permutation.
    NeuroImage 123:253-268.
    """
    rng = np.random.default_rng([seed, 2])
    rows = rows_of_each(people)
    constant = all(np.ptp(values[subject_rows]) == 0 for subject_rows in rows)
    places = (
        np.zeros(len(values), np.int64)
        if sites is None
        else np.unique(sites, return_inverse=True)[1]
    )
    kinds = [
        tuple(sorted({*places[subject_rows].tolist()}) if constant else places[subject_rows])
        for subject_rows in rows
    ]
    of_kind: dict[tuple[int, ...], list[int]] = {}
    for k, kind in enumerate(kinds):
        of_kind.setdefault(kind, []).append(k)
    groups = [np.array(of_kind[kind]) for kind in sorted(of_kind)]
    owners = np.unique(people, return_inverse=True)[1]
    of_person = np.array([values[subject_rows[0]] for subject_rows in rows])
    blocks = [] if constant else [np.stack([rows[k] for k in alike]) for alike in groups]
    shuffled = np.empty((n, len(values)))
    for k in range(n):
        source = np.arange(len(rows))
        for alike in groups:
            source[alike] = rng.permutation(alike)
        if constant:
            shuffled[k] = of_person[source][owners]
            continue
        for alike, block in zip(groups, blocks, strict=True):
            shuffled[k, block] = values[block[np.searchsorted(alike, source[alike])]]
    return shuffled


def permutation_p(
    predictions: Array,
    values: Array,
    shuffled: Array,
    n_classes: int,
    sites: Sequence[str] | None = None,
) -> float:
    """Share of targets, the true one among them, that are predicted as well as the true one.

    Parameters
    ----------
    predictions
        (1 + M, N, C) predictions of the true target and of the shuffled ones.
    values
        (N,) the true target.
    shuffled
        (M, N) shuffled targets.
    n_classes
        0 for a regression, which is judged by its mean squared error; classes by the AUC.
    sites
        (N,) the site of each row: errors are those of deviations from the mean of a site, and areas
        those within sites.

    Returns
    -------
    float
        NaN without shuffled targets.
    """
    if not len(shuffled):
        return math.nan

    where = None if sites is None else np.unique(np.asarray(sites), return_inverse=True)[1]

    def quality(truth: Array, predicted: Array) -> float:
        if n_classes == 0:
            error = truth - predicted[:, 0]
            return -float(((error if where is None else within_sites(error, where)) ** 2).mean())
        return auc(truth.astype(np.int64), predicted, where)

    true = quality(values, predictions[0])
    if math.isnan(true):
        return math.nan
    chance = np.array([quality(t, p) for t, p in zip(shuffled, predictions[1:], strict=True)])
    return float((1 + (chance >= true - 1e-12 * abs(true)).sum()) / (1 + len(shuffled)))


def within_fold_p(
    truth: ArrayLike,
    predictions: Array,
    subjects: Sequence[str],
    folds: Sequence[Indices],
    *,
    n_classes: int,
    n_permutations: int,
    seed: int,
    sites: Sequence[str] | None = None,
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
    sites
        (N,) the site of each row, if each fold tests one and predictions are judged within them.

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
    return permutation_p(everyone, values, shuffled, n_classes, sites)


def within_group_p(
    truth: ArrayLike,
    predictions: Array,
    groups: Sequence[str],
    *,
    n_classes: int,
    n_permutations: int,
    seed: int,
) -> float:
    """One-sided p value of held-out predictions, by permuting targets within groups.

    The predictions are kept, and targets change places within a group, such as the states of the
    blocks of a run. Differences between groups, of which a target says nothing, cannot make the
    value small.

    Parameters
    ----------
    truth
        (N,) target values, or class indices.
    predictions
        (N,) or (N, 2) for a regression, (N, C) probabilities for C classes.
    groups
        (N,) the group of each.
    n_classes
        0 for a regression, judged by its mean squared error; classes by the AUC.
    n_permutations
        How many shuffled targets the true one is compared with.
    seed
        Seed of the permutations.

    Returns
    -------
    float
        The p value, NaN without permutations.

    Examples
    --------
    >>> certain = np.eye(2)[[0, 1] * 8]
    >>> runs = ["a"] * 8 + ["b"] * 8
    >>> within_group_p([0, 1] * 8, certain, runs, n_classes=2, n_permutations=99, seed=0)
    0.01
    """
    values, members = np.asarray(truth, dtype=np.float64), np.asarray(groups)
    rng = np.random.default_rng([seed, 3])
    shuffled = np.repeat(values[None], n_permutations, axis=0)
    for rows in rows_of_each(members):
        for one in shuffled:
            one[rows] = values[rng.permutation(rows)]
    columns = np.asarray(predictions)
    columns = columns[:, None] if columns.ndim == 1 else columns
    everyone = np.broadcast_to(columns, (1 + n_permutations, *columns.shape))
    return permutation_p(everyone, values, shuffled, n_classes)
