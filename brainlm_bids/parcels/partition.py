"""Partitions of the parcels: clusters that are named after the networks they share most with."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

N_NETWORKS = 7  # AA-7 (Akiki and Abdallah 2019)


def matching(clusters: ArrayLike, reference: ArrayLike) -> NDArray[np.int64]:
    """Find the network with which each cluster shares most parcels (Hungarian method).

    Parameters
    ----------
    clusters, reference
        (P,) 1 … 7 each.

    Returns
    -------
    ndarray
        (7,) entry k − 1 is the network of cluster k; every cluster has one of its own.

    Examples
    --------
    >>> matching([1, 1, 2, 2], [5, 5, 3, 5])[:2].tolist()
    [5, 3]
    """
    overlap = np.zeros((N_NETWORKS, N_NETWORKS), dtype=np.int64)
    own, other = np.asarray(clusters, dtype=np.int64), np.asarray(reference, dtype=np.int64)
    np.add.at(overlap, (own - 1, other - 1), 1)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    names = np.zeros(N_NETWORKS, dtype=np.int64)
    names[rows] = columns + 1
    return names


def named_after(clusters: ArrayLike, reference: ArrayLike) -> NDArray[np.int64]:
    """Give clusters the numbers of the networks that `matching` finds for them.

    Parameters
    ----------
    clusters, reference
        (P,) 1 … 7 each.

    Returns
    -------
    ndarray
        (P,) 1 … 7, the same clusters under other numbers.

    Examples
    --------
    >>> named_after([1, 1, 2, 2], [5, 5, 3, 5]).tolist()
    [5, 5, 3, 3]
    """
    return matching(clusters, reference)[np.asarray(clusters, dtype=np.int64) - 1]
