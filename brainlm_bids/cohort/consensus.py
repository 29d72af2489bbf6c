"""Consensus networks: the partition of the parcels on which many recordings agree.

labels (N, P) int 1 … 7 are the clusters that each recording gives its parcels; subjects (N,) are
their subjects. Each subject has the same weight, whatever the number of recordings.

The reference names the consensus once, at the end. A vote over recordings whose clusters were each
named after the reference would carry the reference into the result: 100 partitions of white noise
would agree with it in 56 % of the parcels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score

from brainlm_bids.parcels.partition import N_NETWORKS, matching, named_after


class Consensus(NamedTuple):
    """Networks of a cohort.

    Attributes
    ----------
    labels
        (P,) 1 … 7: the most frequent network.
    probability
        (7, P) the share of subjects with each network.
    """

    labels: NDArray[np.int64]
    probability: NDArray[np.float64]


def consensus(labels: ArrayLike, subjects: Sequence[str], reference: ArrayLike) -> Consensus:
    """Find the networks on which recordings agree, each subject with the same weight.

    The share of subjects in whom two parcels are in the same cluster is clustered in turn (average
    linkage; evidence accumulation, Fred and Jain 2005). The clusters of every recording are matched
    to that consensus, and each parcel gets the most frequent one. The names of the clusters in
    `labels` do not matter.

    Parameters
    ----------
    labels
        (N, P) 1 … 7.
    subjects
        (N,) the subject of each recording.
    reference
        (P,) networks 1 … 7, after which the consensus is named; it has no other influence.

    Returns
    -------
    Consensus
        Networks and shares of subjects. A tie goes to the network with the lower number.

    Raises
    ------
    ValueError
        If the shapes disagree or a label is out of range.

    References
    ----------
    Fred ALN, Jain AK (2005). Combining multiple clusterings using evidence accumulation. IEEE
    Transactions on Pattern Analysis and Machine Intelligence 27:835-850.

    Examples
    --------
    >>> consensus([[1, 1, 2], [5, 5, 3], [4, 4, 1]], ["a", "b", "c"], [6, 6, 7]).labels
    array([6, 6, 7])
    """
    votes = np.asarray(labels, dtype=np.int64)
    if votes.ndim != 2 or len(votes) != len(subjects) or not len(votes):
        raise ValueError(f"labels of shape {votes.shape} for {len(subjects)} recordings")
    if votes.min() < 1 or votes.max() > N_NETWORKS:
        raise ValueError(f"labels must lie in 1 … {N_NETWORKS}")
    _, index, count = np.unique(list(subjects), return_inverse=True, return_counts=True)
    weight = 1.0 / (count[index] * len(count))
    common = _agreed(votes, weight)
    aligned = np.stack([named_after(row, common) for row in votes])
    shares = [(weight[:, None] * (aligned == k)).sum(axis=0) for k in range(1, N_NETWORKS + 1)]
    # sums of weights in another order differ in their last bits: ties would be decided by those
    found = np.round(np.stack(shares), 12)
    probability = np.empty_like(found)
    probability[matching(found.argmax(axis=0) + 1, reference) - 1] = found
    return Consensus(probability.argmax(axis=0) + 1, probability)


def _agreed(votes: NDArray[np.int64], weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cluster parcels (P,) by the share of subjects in whom they are in the same cluster."""
    together = np.zeros((votes.shape[1], votes.shape[1]))
    for k in range(1, N_NETWORKS + 1):
        member = np.where(votes == k, np.sqrt(weight)[:, None], 0)
        together += member.T @ member
    apart = np.round(1 - together, 12)
    np.fill_diagonal(apart, 0)
    tree = linkage(squareform(apart, checks=False), method="average")
    return np.asarray(fcluster(tree, N_NETWORKS, criterion="maxclust"), dtype=np.int64)


def agreement(labels: ArrayLike, reference: ArrayLike) -> dict[str, float]:
    """Agreement of labels with a reference.

    Parameters
    ----------
    labels, reference
        (P,) each.

    Returns
    -------
    dict
        "accuracy": share of parcels with the reference's label; "adjusted_rand": adjusted Rand
        index.

    Examples
    --------
    >>> agreement([1, 1, 2, 2], [1, 1, 2, 3])["accuracy"]
    0.75
    """
    assigned, truth = np.asarray(labels), np.asarray(reference)
    return {
        "accuracy": float((assigned == truth).mean()),
        "adjusted_rand": float(adjusted_rand_score(truth, assigned)),
    }
