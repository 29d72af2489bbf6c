"""Whether one kind of features predicts a target better than another, with its uncertainty."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.cohort.scores import (
    Indices,
    Score,
    classification_scores,
    regression_scores,
    with_intervals,
)

Array = NDArray[np.float64]


def metric_of(n_classes: int) -> str:
    """The metric by which predictions are compared: that of the permutation test.

    Examples
    --------
    >>> metric_of(0), metric_of(2)
    ('r2', 'auc')
    """
    return "auc" if n_classes else "r2"


def difference(
    truth: ArrayLike,
    one: Array,
    other: Array,
    subjects: Sequence[str],
    *,
    n_classes: int = 0,
    seed: int = 0,
    sites: Sequence[str] | None = None,
) -> Score:
    """How much better one prediction of a target is than another.

    Both predictions are scored on the same resamples of subjects: their errors are alike, so that
    the interval of the difference is narrower than the overlap of two intervals suggests.

    Parameters
    ----------
    truth
        (N,) target values, or class indices.
    one, other
        (N, 2) prediction and mean of the training rows, or (N, C) probabilities for C classes.
    subjects
        (N,) the subject of each recording.
    n_classes
        0 for a regression.
    seed
        Seed of the bootstrap.
    sites
        (N,) the site of each row, if predictions are scored within sites.

    Returns
    -------
    Score
        The metric (`metric_of`) of `one` less that of `other`, with its 95 % interval.

    Examples
    --------
    >>> truth = np.arange(20.0)
    >>> mean = np.full(20, truth.mean())
    >>> good, poor = np.stack([truth, mean], 1), np.stack([mean, mean], 1)
    >>> difference(truth, good, poor, [str(k) for k in range(20)]).value
    1.0
    """
    metric, width = metric_of(n_classes), one.shape[1]
    measure = classification_scores if n_classes else regression_scores

    def gain(values: Array, both: Array, where: Indices | None) -> dict[str, float]:
        first, second = (measure(values, part, where) for part in np.split(both, [width], axis=1))
        return {metric: first[metric] - second[metric]}

    values = np.asarray(truth, dtype=np.float64)
    both = np.hstack([one, other])
    where = None if sites is None else np.unique(np.asarray(sites), return_inverse=True)[1]
    return with_intervals(gain, values, both, np.asarray(subjects), seed, where)[metric]
