"""Folds of a cross-validation: whole subjects are on either side of every split."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold

Indices = NDArray[np.int64]
Split = tuple[Indices, Indices]
# For each repeat of a cross-validation its splits; what no split tests is not scored
Folds = Sequence[Sequence[Split]]
OUTER_FOLDS = 5
MAXIMUM_REPEATS = 10
UNITS_FITTED = 10_000  # repeats × units stays below this, for time


def rows_of_each(people: NDArray[np.str_]) -> list[Indices]:
    """Find the rows of each subject.

    Parameters
    ----------
    people
        (N,) the subject of each row.

    Returns
    -------
    list of ndarray
        The rows of each subject, in the order of their names.

    Examples
    --------
    >>> [rows.tolist() for rows in rows_of_each(np.array(["b", "a", "b"]))]
    [[1], [0, 2]]
    """
    # one sort: to compare everyone with each name takes the square of their number
    _, owners, counts = np.unique(people, return_inverse=True, return_counts=True)
    order = np.argsort(owners, kind="stable").astype(np.int64)
    return np.split(order, np.cumsum(counts)[:-1])


def splits(
    people: NDArray[np.str_], n_folds: int, seed: int, *, sites: Sequence[str] | None = None
) -> Iterator[Split]:
    """Split rows for cross-validation, whole subjects on either side, without regard to the target.

    Parameters
    ----------
    people
        (N,) the subject of each row.
    n_folds
        Number of folds; as many as subjects if there are fewer.
    seed
        Seed of the folds.
    sites
        (N,) the site of each row: the subjects of each are spread over the folds, so that all
        training rows together know every site that has as many subjects as there are folds.

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
    names, first = np.unique(people, return_index=True)
    folds = min(n_folds, len(names))
    if sites is None:
        shuffled = KFold(folds, shuffle=True, random_state=seed)
        held_out = [names[out] for _, out in shuffled.split(names)]
    else:
        order = np.random.default_rng([seed, 4]).permutation(len(names))
        order = order[np.argsort(np.asarray(sites)[first[order]], kind="stable")]
        held_out = [names[order[fold::folds]] for fold in range(folds)]
    for out in held_out:
        test = np.isin(people, out)
        yield np.flatnonzero(~test), np.flatnonzero(test)


def leave_one_site_out(people: NDArray[np.str_], sites: Sequence[str]) -> Iterator[Split]:
    """Split rows so that each site is tested by a model that knows neither it nor its subjects.

    Parameters
    ----------
    people
        (N,) the subject of each row.
    sites
        (N,) the site of each row, or whatever else is to be left out as a whole.

    Yields
    ------
    train, test
        Indices of rows: the test rows are those of one site, in the order of names; the training
        rows are those of all subjects who have no row there.

    Examples
    --------
    >>> people, sites = np.array(["a", "b", "b", "c"]), ["x", "x", "y", "z"]
    >>> [(train.tolist(), test.tolist()) for train, test in leave_one_site_out(people, sites)]
    [([3], [0, 1]), ([0, 3], [2]), ([0, 1, 2], [3])]
    """
    of_row = np.asarray(sites)
    for site in np.unique(of_row):
        test = of_row == site
        known = np.isin(people, people[test])
        yield np.flatnonzero(~known), np.flatnonzero(test)


def n_repeats(n_units: int) -> int:
    """Number of repeats of the cross-validation: ten for up to 1000 units, fewer for more.

    Parameters
    ----------
    n_units
        Number of units.

    Returns
    -------
    int
        At least one.

    Examples
    --------
    >>> n_repeats(200), n_repeats(2500), n_repeats(40_000)
    (10, 4, 1)
    """
    return max(1, min(MAXIMUM_REPEATS, UNITS_FITTED // n_units))


def repeated_folds(subjects: Sequence[str], repeats: int, seed: int) -> list[list[Split]]:
    """Five folds of whole subjects, several times with different ones.

    Parameters
    ----------
    subjects
        (U,) the subject of each unit.
    repeats
        How many times.
    seed
        Seed of the folds.

    Returns
    -------
    list of list of (train, test)
        For each repeat its splits.

    Examples
    --------
    >>> [len(splits) for splits in repeated_folds([f"s{k}" for k in range(12)], 2, seed=0)]
    [5, 5]
    """
    people = np.asarray(subjects)
    return [list(splits(people, OUTER_FOLDS, seed + repeat)) for repeat in range(repeats)]
