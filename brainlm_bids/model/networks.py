"""Network maps: a label for each parcel from its features, and the agreement with a reference.

Features (P, F) are the tokens or the attention of a network with a token per parcel, or the
connectivity of a reconstruction; and, as controls, those of the raw series and of untrained
weights. `model/spatial_null.py` has what smoothness over space alone reaches.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist
from torch import Tensor

from brainlm_bids.model.attention import AttentionLayer
from brainlm_bids.parcels.partition import N_NETWORKS, named_after

N_NEIGHBOURS = 10
N_FOLDS = 10
NEAR_MM = 30.0


def parcel_tokens(latent: Tensor, keep: Tensor, n_parcels: int, n_patches: int) -> Tensor:
    """Average the tokens of each parcel over time patches.

    Parameters
    ----------
    latent
        (B, 1 + K, D) latents, CLS first.
    keep
        (B, K) tokens that the encoder saw, in that order.
    n_parcels, n_patches
        Rows and columns of the tokens.

    Returns
    -------
    Tensor
        (B, P, D); only tokens that the encoder saw count (no padded patches). A parcel without any
        is NaN.
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
    """Correlations between parcels.

    Parameters
    ----------
    series
        (T, P).

    Returns
    -------
    ndarray
        (P, P); 0 where a parcel is constant or not finite.

    Examples
    --------
    >>> correlation_profile([[0.0, 0.0], [1.0, -1.0], [2.0, -2.0]]).round(6).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    values = np.asarray(series, dtype=np.float64)
    centred = values - values.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    # The remainder of a constant after removal of its mean is rounding error, not signal.
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
        Accuracy of a cross-validated k-nearest-neighbour classifier.
    knn_accuracy_distant
        The same without training parcels within 30 mm of the parcel or of its mirror image in the
        other hemisphere.
    """

    labels: NDArray[np.int64]
    accuracy: float
    adjusted_rand: float
    knn_accuracy: float
    knn_accuracy_distant: float

    def scores(self) -> dict[str, float]:
        """Return the agreements by name, as tables and sidecars list them.

        Returns
        -------
        dict
            accuracy, adjusted_rand, knn_accuracy and knn_accuracy_distant.
        """
        return {name: float(value) for name, value in self._asdict().items() if name != "labels"}


MEASURES = tuple(name for name in Networks._fields if name != "labels")


def parcel_networks(
    features: ArrayLike, reference: ArrayLike, xyz: ArrayLike, seed: int
) -> Networks:
    """Cluster parcels by their features and compare the clusters with reference networks.

    Features are centred over parcels and scaled to unit length, so that distances are those of a
    correlation. There are as many clusters (Ward 1963) as networks, and they are named so that most
    parcels agree (Hungarian method). The k-nearest-neighbour classifier uses the reference only in
    training folds (10 folds, 10 neighbours), as in Ortega Caro et al. 2024 for attention.

    Neighbouring parcels, and those at mirrored places of the two hemispheres, tend to belong to the
    same network. Any features that are smooth over space therefore agree with the reference: what
    such features reach (`spatial_null.null_scores`) is the level to compare with, not the share of
    the largest network. The classifier is also applied without the neighbours and their mirror
    images, where smoothness helps less.

    Parameters
    ----------
    features
        (P, F). Values that are not finite count as the mean over parcels; parcels without
        information are at the origin.
    reference
        (P,) networks 1 … 7.
    xyz
        (P, 3) centres of the parcels in mm, x = 0 between the hemispheres.
    seed
        Seed of the folds.

    Returns
    -------
    Networks
        Labels and agreements.

    Raises
    ------
    ValueError
        If the numbers of parcels differ, or a label is out of range.

    References
    ----------
    Ward JH (1963). Hierarchical grouping to optimize an objective function. Journal of the American
    Statistical Association 58:236-244.

    Hubert L, Arabie P (1985). Comparing partitions. Journal of Classification 2:193-218.

    Ortega Caro J et al. (2024). BrainLM: a foundation model for brain activity recordings. ICLR.

    Examples
    --------
    >>> reference = np.repeat(np.arange(1, 8), 30)
    >>> xyz = np.random.default_rng(0).uniform(-70, 70, (210, 3))
    >>> found = parcel_networks(np.eye(7)[reference - 1], reference, xyz, seed=0)
    >>> found.accuracy, found.knn_accuracy_distant
    (1.0, 1.0)
    """
    # Imported here: loading a model should not cost every process another second and 100 MB.
    from sklearn.metrics import adjusted_rand_score

    truth, places = np.asarray(reference, dtype=np.int64), np.asarray(xyz, dtype=np.float64)
    points = _unit_rows(np.asarray(features, dtype=np.float64))
    if len(points) != len(truth):
        raise ValueError(f"features of {len(points)} parcels, reference of {len(truth)}")
    if places.shape != (len(truth), 3):
        raise ValueError(f"coordinates of shape {places.shape} for {len(truth)} parcels")
    if truth.min() < 1 or truth.max() > N_NETWORKS:
        raise ValueError(f"reference labels must lie in 1 … {N_NETWORKS}")
    clusters = _clusters(points)
    labels = named_after(clusters, truth)
    distance = _between_folds(points, truth, seed)
    return Networks(
        labels=labels,
        accuracy=float((labels == truth).mean()),
        adjusted_rand=float(adjusted_rand_score(truth, clusters)),
        knn_accuracy=_knn_accuracy(distance, truth),
        knn_accuracy_distant=_knn_accuracy(np.where(_near(places), np.inf, distance), truth),
    )


def parcel_labels(features: ArrayLike, reference: ArrayLike) -> NDArray[np.int64]:
    """Cluster parcels by their features, without judging the clusters.

    Parameters
    ----------
    features, reference
        As of `parcel_networks`.

    Returns
    -------
    ndarray
        (P,) 1 … 7, the labels that `parcel_networks` finds; without its classifiers, which take
        most of its time.

    Examples
    --------
    >>> reference = np.repeat(np.arange(1, 8), 30)
    >>> (parcel_labels(np.eye(7)[reference - 1], reference) == reference).all()
    np.True_
    """
    points = _unit_rows(np.asarray(features, dtype=np.float64))
    return named_after(_clusters(points), np.asarray(reference, dtype=np.int64))


def _clusters(points: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.asarray(fcluster(linkage(points, method="ward"), N_NETWORKS, criterion="maxclust"))


def _unit_rows(features: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(features)
    count = known.sum(axis=0)
    mean = np.where(known, features, 0).sum(axis=0) / np.maximum(count, 1)
    centred = np.where(known, features - mean, 0)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    # Below this share of the features' size, the remainder after centring is rounding error.
    floor = 1e-9 * (1 + np.abs(mean).max(initial=0)) * np.sqrt(features.shape[1])
    return np.where(norm > floor, centred / np.maximum(norm, floor), 0)


def _between_folds(
    points: NDArray[np.float64], truth: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Distances of the features (P, P); infinite where both parcels are in the same fold."""
    order = np.random.default_rng(seed).permutation(len(truth))
    fold = np.empty(len(truth), dtype=np.int64)
    # Stratified: every fold has its share of each network.
    fold[order[np.argsort(truth[order], kind="stable")]] = np.arange(len(truth)) % N_FOLDS
    return np.where(fold[:, None] == fold[None, :], np.inf, cdist(points, points))


def _near(xyz: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pairs of parcels (P, P) that are neighbours, or would be if one were mirrored at x = 0."""
    near: NDArray[np.bool_] = (cdist(xyz, xyz) < NEAR_MM) | (cdist(xyz, xyz * [-1, 1, 1]) < NEAR_MM)
    return near


def _knn_accuracy(distance: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Accuracy of the vote of the nearest parcels; those at an infinite distance have no vote."""
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :N_NEIGHBOURS]
    voter = np.isfinite(np.take_along_axis(distance, nearest, axis=1))
    votes = [((truth[nearest] == n + 1) & voter).sum(axis=1) for n in range(N_NETWORKS)]
    return float((np.stack(votes, axis=1).argmax(axis=1) + 1 == truth).mean())
