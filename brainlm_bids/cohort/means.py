"""Means over subjects, with confidence intervals, of values of N recordings.

A subject counts once, whatever the number of recordings.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.cohort.scores import BOOTSTRAPS, COVERAGE

Array = NDArray[np.float64]


class Mean(NamedTuple):
    """A mean over subjects with its confidence interval.

    Attributes
    ----------
    value
        The mean, of the shape of one recording's values.
    low, high
        Bounds of the interval, of the same shape; NaN with fewer than two subjects.
    """

    value: Array
    low: Array
    high: Array


def subject_means(values: ArrayLike, subjects: Sequence[str]) -> Array:
    """Average the recordings of each subject.

    Parameters
    ----------
    values
        (N, …) of recordings; NaN are ignored.
    subjects
        (N,) the subject of each recording.

    Returns
    -------
    ndarray
        (S, …) of subjects, in the order of their names.

    Examples
    --------
    >>> subject_means([1.0, 3.0, 8.0], ["a", "a", "b"])
    array([2., 8.])
    """
    table, owners = np.asarray(values, dtype=np.float64), np.asarray(subjects)
    return np.stack([mean_over(table[owners == subject]) for subject in np.unique(owners)])


def mean_over_subjects(values: ArrayLike, subjects: Sequence[str], seed: int) -> Mean:
    """Mean over subjects, with a percentile interval of 1000 bootstraps.

    Parameters
    ----------
    values
        (N, …) of recordings; NaN are ignored.
    subjects
        (N,) the subject of each recording.
    seed
        Seed of the bootstrap.

    Returns
    -------
    Mean
        The mean and the bounds of its 95 % interval, (…) each.

    Examples
    --------
    >>> mean_over_subjects([[1.0], [3.0], [8.0]], ["a", "a", "b"], seed=0).value
    array([5.])
    """
    means = subject_means(values, subjects)
    nothing = np.full(means.shape[1:], np.nan)
    if len(means) < 2:
        return Mean(mean_over(means), nothing, nothing.copy())
    rng = np.random.default_rng(seed)
    drawn = [mean_over(means[rng.integers(len(means), size=len(means))]) for _ in range(BOOTSTRAPS)]
    known = np.isfinite(means).any(axis=0)
    filled = np.where(known, np.stack(drawn), 0)
    low, high = np.nanpercentile(filled, [(100 - COVERAGE) / 2, (100 + COVERAGE) / 2], axis=0)
    return Mean(mean_over(means), np.where(known, low, nothing), np.where(known, high, nothing))


def mean_over(values: Array) -> Array:
    """Mean over the first axis of the values that are not NaN.

    Parameters
    ----------
    values
        (N, …).

    Returns
    -------
    ndarray
        (…), NaN where all values are.

    Examples
    --------
    >>> mean_over(np.array([[1.0, np.nan], [3.0, np.nan]]))
    array([ 2., nan])
    """
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
