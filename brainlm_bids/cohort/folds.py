"""Folds of a cross-validation: whole subjects are on either side of every split."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold

Indices = NDArray[np.int64]
Split = tuple[Indices, Indices]


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
