"""Network maps: a label per parcel from its features, and the agreement with a reference.

Features (P, F) are the tokens or the attention of a network with a token per parcel, or the
connectivity of a reconstruction; and, as controls, of the raw series and of untrained weights.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from brainlm_bids.model.attention import AttentionLayer

N_NETWORKS = 7  # AA-7 (Akiki and Abdallah 2019)
N_NEIGHBOURS = 10
N_FOLDS = 10


def parcel_tokens(latent: Tensor, keep: Tensor, n_parcels: int, n_patches: int) -> Tensor:
    """Latents (B, 1 + K, D) of the tokens `keep` (B, K) -> mean over time patches (B, P, D).

    Tokens are brought back from the order in which the encoder saw them; only those that it saw
    (padded patches are not among them) count. A parcel without any is NaN.
    """
    parcel = keep // n_patches
    return _mean_by_parcel(latent[:, 1:], parcel, n_parcels)


def parcel_attention(
    layer: AttentionLayer, x: Tensor, keep: Tensor, n_parcels: int, n_patches: int, chunk: int = 256
) -> Tensor:
    """Attention between parcels: the mean over heads, and over time patches of query and key.

    CLS is left out. Queries are processed in chunks, because the whole (h, L, L) matrix of the 13M
    would take 288 MB.

    Parameters
    ----------
    layer
        A layer of the encoder.
    x
        (B, 1 + K, D) its input, CLS first.
    keep
        (B, K) the visible tokens.
    n_parcels, n_patches
        Rows and columns of the tokens.
    chunk
        Number of queries at a time.

    Returns
    -------
    Tensor
        (B, P, P), rows are queries.
    """
    parcel = keep // n_patches  # (B, K)
    one_hot = torch.nn.functional.one_hot(parcel, n_parcels).to(x.dtype)  # (B, K, P)
    total = x.new_zeros(len(x), n_parcels, n_parcels)
    for start in range(1, x.shape[1], chunk):
        stop = min(start + chunk, x.shape[1])
        rows = layer.probabilities(x, start, stop).mean(1)[..., 1:]
        keys = rows @ one_hot  # (B, chunk, P)
        total += one_hot[:, start - 1 : stop - 1].transpose(1, 2) @ keys
    count = one_hot.sum(1)  # (B, P)
    return total / (count.unsqueeze(2) * count.unsqueeze(1))


def correlation_profile(series: ArrayLike) -> NDArray[np.float64]:
    """Correlations (P, P) between the columns of (T, P); 0 where one is constant or not finite."""
    values = np.asarray(series, dtype=np.float64)
    centred = values - values.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    # What is left of a constant after its mean is removed is rounding, not a signal.
    usable = norm > 1e-10 * np.linalg.norm(values, axis=0)
    unit = np.where(usable, centred / np.where(usable, norm, 1), 0)
    return np.asarray(unit.T @ unit)


def _mean_by_parcel(tokens: Tensor, parcel: Tensor, n_parcels: int) -> Tensor:
    index = parcel.unsqueeze(-1).expand_as(tokens)
    total = tokens.new_zeros(len(tokens), n_parcels, tokens.shape[-1])
    total.scatter_add_(1, index, tokens)
    count = torch.nn.functional.one_hot(parcel, n_parcels).sum(1).unsqueeze(-1)
    return total / count


class Networks(NamedTuple):
    """Clusters of parcels, and how well they agree with reference networks.

    Attributes
    ----------
    labels
        (P,) 1 … 7: clusters, each named after a reference network.
    accuracy
        Share of parcels whose label is that of the reference.
    adjusted_rand
        Adjusted Rand index of the clusters.
    knn_accuracy
        Of a cross-validated k-nearest-neighbour classifier.
    majority
        Share of the largest network, which is chance.
    """

    labels: NDArray[np.int64]
    accuracy: float
    adjusted_rand: float
    knn_accuracy: float
    majority: float

    def scores(self) -> dict[str, float]:
        """Return every agreement by its name, as tables and sidecars list them."""
        return {name: float(value) for name, value in self._asdict().items() if name != "labels"}


def parcel_networks(features: ArrayLike, reference: ArrayLike, seed: int) -> Networks:
    """Cluster parcels by their features and compare the clusters with reference networks.

    Features are centred over parcels and brought to unit length, so that distances are those of a
    correlation. There are as many clusters as networks, and they are named so that most parcels
    agree (Hungarian method). The k-nearest-neighbour classifier uses the reference only in training
    folds (10 folds, 10 neighbours), as in the paper on attention.

    Parameters
    ----------
    features
        (P, F). Values that are not finite count as the mean over parcels; parcels without
        information lie at the origin.
    reference
        (P,) networks 1 … 7.
    seed
        Of the folds.

    Returns
    -------
    Networks

    References
    ----------
    Ward JH (1963). Hierarchical grouping to optimize an objective function. JASA 58:236.
    Hubert L, Arabie P (1985). Comparing partitions. Journal of Classification 2:193.
    Ortega Caro J et al. (2024). BrainLM: a foundation model for brain activity recordings. ICLR.
    """
    # Imported here: it would cost every process that loads a model a second and 100 MB.
    from sklearn.metrics import adjusted_rand_score

    truth = np.asarray(reference, dtype=np.int64)
    points = _unit_rows(np.asarray(features, dtype=np.float64))
    if len(points) != len(truth):
        raise ValueError(f"features of {len(points)} parcels, reference of {len(truth)}")
    if truth.min() < 1 or truth.max() > N_NETWORKS:
        raise ValueError(f"reference labels must lie in 1 … {N_NETWORKS}")
    clusters = fcluster(linkage(points, method="ward"), N_NETWORKS, criterion="maxclust")
    labels = _named_after(clusters, truth)
    return Networks(
        labels=labels,
        accuracy=float((labels == truth).mean()),
        adjusted_rand=float(adjusted_rand_score(truth, clusters)),
        knn_accuracy=_knn_accuracy(points, truth, seed),
        majority=float(np.bincount(truth).max() / len(truth)),
    )


def _unit_rows(features: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(features)
    count = known.sum(axis=0)
    mean = np.where(known, features, 0).sum(axis=0) / np.maximum(count, 1)
    centred = np.where(known, features - mean, 0)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    # Below this share of the features' size, what is left after centring is rounding.
    floor = 1e-9 * (1 + np.abs(mean).max(initial=0)) * np.sqrt(features.shape[1])
    return np.where(norm > floor, centred / np.maximum(norm, floor), 0)


def _named_after(clusters: NDArray[np.int32], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    overlap = np.zeros((N_NETWORKS, N_NETWORKS), dtype=np.int64)
    np.add.at(overlap, (clusters - 1, truth - 1), 1)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    names = np.zeros(N_NETWORKS, dtype=np.int64)
    names[rows] = columns + 1
    return names[clusters - 1]


def _knn_accuracy(points: NDArray[np.float64], truth: NDArray[np.int64], seed: int) -> float:
    order = np.random.default_rng(seed).permutation(len(truth))
    fold = np.empty(len(truth), dtype=np.int64)
    # Dealt out network by network, so that every fold has its share of each.
    fold[order[np.argsort(truth[order], kind="stable")]] = np.arange(len(truth)) % N_FOLDS
    distance = cdist(points, points)
    distance[fold[:, None] == fold[None, :]] = np.inf
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :N_NEIGHBOURS]
    votes = np.stack([(truth[nearest] == n + 1).sum(axis=1) for n in range(N_NETWORKS)], axis=1)
    return float((votes.argmax(axis=1) + 1 == truth).mean())
