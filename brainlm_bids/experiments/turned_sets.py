"""Random sets of parcels that lie to one another as those of a given set do.

A compact set of parcels, such as a network, has neighbours and correlates with them; scattered
parcels do not. Sets that are as compact are the control for that.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist
from scipy.stats import special_ortho_group

from brainlm_bids.errors import UserError


def turned_sets(
    parcels: Sequence[int],
    pool: ArrayLike,
    n_sets: int,
    seed: int,
    xyz: ArrayLike,
    groups: Sequence[str],
) -> NDArray[np.int64]:
    """Draw random sets whose parcels lie to one another as those of a set do.

    As in spin tests, the set is turned about the centre of each hemisphere, in the left one as in
    a mirror, and every turned parcel becomes the nearest one that is not taken (as an assignment
    with the smallest sum of squared distances). Axes are scaled to the extent of the pool before,
    so that what is turned stays in the brain.

    Parameters
    ----------
    parcels
        (K,) indices of the parcels to match.
    pool
        Indices of the parcels to draw from.
    n_sets
        Number of sets.
    seed
        Seed of the rotations.
    xyz
        (P, 3) centres of all parcels in mm, x = 0 between the hemispheres.
    groups
        (P,) hemisphere of each parcel: "L", "R" or another for both.

    Returns
    -------
    ndarray
        (n_sets, K) indices.

    Raises
    ------
    UserError
        If the pool is too small.

    References
    ----------
    Alexander-Bloch et al. (2018). On testing for spatial correspondence between maps of human brain
    structure and function. NeuroImage 178, 540-551.

    Examples
    --------
    >>> xyz = np.stack([np.arange(10.0), np.zeros(10), np.zeros(10)], axis=1)
    >>> turned_sets([0, 1], range(10), 3, seed=0, xyz=xyz, groups=["R"] * 10).shape
    (3, 2)
    """
    chosen, drawable = np.asarray(parcels), np.asarray(pool)
    places, sides = np.asarray(xyz, dtype=np.float64), np.asarray(groups)
    rng = np.random.default_rng(seed)
    turns = special_ortho_group.rvs(3, size=n_sets, random_state=rng).reshape(n_sets, 3, 3)
    columns = []
    for side in np.unique(sides[chosen]):
        own, candidates = chosen[sides[chosen] == side], drawable[sides[drawable] == side]
        if len(candidates) <= len(own):
            raise UserError(
                f"{len(own)} parcels to change: only {len(candidates)} have data to draw random "
                "sets from"
            )
        centre = places[candidates].mean(axis=0)
        extent = np.maximum(places[candidates].std(axis=0), 1e-6)
        mirror = np.array([-1.0 if side == "L" else 1.0, 1.0, 1.0])
        at = (places[own] - centre) / extent * mirror
        targets = (places[candidates] - centre) / extent * mirror
        drawn = [
            candidates[linear_sum_assignment(cdist(at @ turn.T, targets, "sqeuclidean"))[1]]
            for turn in turns
        ]
        columns.append(np.array(drawn, dtype=np.int64).reshape(n_sets, len(own)))
    return np.sort(np.hstack(columns), axis=1)


def mean_distance(parcels: ArrayLike, xyz: ArrayLike) -> float:
    """Mean distance between the parcels of a set.

    Parameters
    ----------
    parcels
        (K,) indices.
    xyz
        (P, 3) centres of all parcels, mm.

    Returns
    -------
    float
        In mm; NaN for one parcel.

    Examples
    --------
    >>> mean_distance([0, 1], [[0, 0, 0], [3, 4, 0]])
    5.0
    """
    distances = pdist(np.asarray(xyz, dtype=np.float64)[np.asarray(parcels)])
    return float(distances.mean()) if len(distances) else float("nan")
