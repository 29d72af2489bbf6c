"""Consensus networks: the most frequent network of each parcel, over many recordings.

labels (N, P) int 1 … 7 are the networks that each recording gives its parcels; subjects (N,) are
their subjects. Each subject has the same weight, whatever the number of recordings.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import adjusted_rand_score

N_NETWORKS = 7  # AA-7 (Akiki and Abdallah 2019)


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


def consensus(labels: ArrayLike, subjects: Sequence[str]) -> Consensus:
    """Vote over recordings, each subject with the same weight (winner takes all).

    Parameters
    ----------
    labels
        (N, P) 1 … 7.
    subjects
        (N,) the subject of each recording.

    Returns
    -------
    Consensus
        Networks and shares of subjects. A tie goes to the network with the lower number.

    Raises
    ------
    ValueError
        If the shapes disagree or a label is out of range.

    Examples
    --------
    >>> consensus([[1, 2], [1, 3], [4, 3]], ["a", "b", "c"]).labels
    array([1, 3])
    """
    votes = np.asarray(labels, dtype=np.int64)
    if votes.ndim != 2 or len(votes) != len(subjects) or not len(votes):
        raise ValueError(f"labels of shape {votes.shape} for {len(subjects)} recordings")
    if votes.min() < 1 or votes.max() > N_NETWORKS:
        raise ValueError(f"labels must lie in 1 … {N_NETWORKS}")
    _, index, count = np.unique(list(subjects), return_inverse=True, return_counts=True)
    weight = 1.0 / (count[index] * len(count))
    shares = [(weight[:, None] * (votes == k)).sum(axis=0) for k in range(1, N_NETWORKS + 1)]
    # sums of weights in another order differ in their last bits: ties would be decided by those
    probability = np.round(np.stack(shares), 12)
    return Consensus(probability.argmax(axis=0) + 1, probability)


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
        index; "majority": share of the reference's largest network, which is the chance level.

    Examples
    --------
    >>> agreement([1, 1, 2, 2], [1, 1, 2, 3])["accuracy"]
    0.75
    """
    assigned, truth = np.asarray(labels), np.asarray(reference)
    return {
        "accuracy": float((assigned == truth).mean()),
        "adjusted_rand": float(adjusted_rand_score(truth, assigned)),
        "majority": float(np.bincount(truth).max() / len(truth)),
    }
