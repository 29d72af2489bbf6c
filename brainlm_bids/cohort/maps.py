"""A cohort in the plane: two coordinates for each recording, from features (N, F)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.cohort.permanova import Share, coordinates, variance_share
from brainlm_bids.cohort.properties import Property

Array = NDArray[np.float64]
PCA, UMAP = "pca", "umap"
NEIGHBOURS = 15  # UMAP's default
DISTANCE = 0.1  # UMAP's default
MINIMUM_FOR_UMAP = 2 * NEIGHBOURS
# Coordinates have so many significant digits: the last ones differ between machines
DIGITS = 6


class PlaneMap(NamedTuple):
    """Recordings in the plane.

    Attributes
    ----------
    method
        "pca" or "umap".
    points
        (N, 2).
    shares
        Share of the variance of the features along each axis; empty for UMAP, whose axes have none.
    """

    method: str
    points: Array
    shares: tuple[float, ...] = ()

    @property
    def axes(self) -> tuple[str, str]:
        """Names of the axes.

        >>> PlaneMap("pca", np.zeros((1, 2)), (0.5, 0.25)).axes[0]
        'PC 1 (50 % of the variance)'
        """
        if self.method == UMAP:
            return "UMAP 1", "UMAP 2"
        first, second = (
            f"PC {k + 1} ({100 * s:.0f} % of the variance)" for k, s in enumerate(self.shares)
        )
        return first, second


def plane_maps(features: ArrayLike, *, seed: int) -> list[PlaneMap]:
    """Map recordings by PCA, and by UMAP if it is installed and there are at least 30 of them.

    Features are standardised over the recordings, and unknown values (NaN) are the mean, as where
    shares of their variance are computed: both are about the same distances.

    Parameters
    ----------
    features
        (N, F), may be memory-mapped.
    seed
        Seed of UMAP, and of random directions if there are more than 2,000 features and recordings.

    Returns
    -------
    list of PlaneMap
        One or two.
    """
    points = coordinates(features, seed=seed)
    found = [principal_map(points), neighbour_map(points, seed)]
    return [plane for plane in found if plane is not None]


def principal_map(features: ArrayLike) -> PlaneMap:
    """Project recordings onto the first two principal components.

    The recording farthest along each component is on its positive side. A single recording, or
    equal ones, are at the origin.

    Parameters
    ----------
    features
        (N, D), as they are.

    Returns
    -------
    PlaneMap
        Coordinates, and the shares of the variance.

    Examples
    --------
    >>> principal_map([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0]]).points.round(6).tolist()
    [[-1.0, 0.0], [-1.0, 0.0], [2.0, 0.0]]
    """
    values = np.asarray(features, dtype=np.float64)
    centred = values - values.mean(axis=0)
    n_rows, n_columns = centred.shape
    points, shares = np.zeros((n_rows, 2)), np.zeros(2)
    total = float((centred**2).sum())
    if total <= 1e-18 * max(float((values**2).sum()), 1e-300):
        return PlaneMap(PCA, points, (0.0, 0.0))
    # the smaller of the two matrices that have the same eigenvalues
    wide = n_columns > n_rows
    size, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    for k in range(min(2, len(size))):
        largest, vector = size[-1 - k], vectors[:, -1 - k]
        if largest <= 1e-12 * total:
            continue
        along = vector * np.sqrt(largest) if wide else centred @ vector
        points[:, k] = along * np.sign(along[np.abs(along).argmax()])
        shares[k] = largest / total
    return PlaneMap(PCA, rounded(points), (float(shares[0]), float(shares[1])))


def neighbour_map(features: ArrayLike, seed: int) -> PlaneMap | None:
    """Map recordings by UMAP, if umap-learn is installed and there are at least 30.

    On one thread, so that equal features give equal maps.

    Parameters
    ----------
    features
        (N, D), as they are.
    seed
        Seed of UMAP.

    Returns
    -------
    PlaneMap or None
        Coordinates.

    References
    ----------
    McInnes L, Healy J, Melville J (2018). UMAP: uniform manifold approximation and projection for
    dimension reduction. arXiv 1802.03426.
    """
    values = np.asarray(features, dtype=np.float32)
    if not can_map_neighbours(len(values)) or values.shape[1] == 0:
        return None
    import umap

    mapped = umap.UMAP(n_neighbors=NEIGHBOURS, min_dist=DISTANCE, random_state=seed, n_jobs=1)
    points = np.asarray(mapped.fit_transform(values), dtype=np.float64)
    return PlaneMap(UMAP, rounded(points - points.mean(axis=0)))


def can_map_neighbours(n_recordings: int) -> bool:
    """Whether `neighbour_map` makes a map of so many recordings here."""
    return n_recordings >= MINIMUM_FOR_UMAP and find_spec("umap") is not None


def about_method(method: str, seed: int) -> dict[str, object]:
    """What a sidecar records of how a map was made.

    Parameters
    ----------
    method
        "pca" or "umap".
    seed
        Seed of UMAP.

    Examples
    --------
    >>> about_method("pca", 1)
    {'Method': 'PCA'}
    """
    if method == PCA:
        return {"Method": "PCA"}
    return {
        "Method": "UMAP",
        "Neighbours": NEIGHBOURS,
        "MinimumDistance": DISTANCE,
        "Seed": seed,
        "SoftwareVersion": version("umap-learn"),
    }


def map_shares(
    points: Array, properties: Sequence[Property], subjects: Sequence[str], *, seed: int
) -> dict[str, Share]:
    """How much of what a map shows goes with each property of the recordings.

    Parameters
    ----------
    points
        (N, 2) of the map.
    properties
        With N values each.
    subjects
        (N,) the subject of each recording: values are permuted between subjects.
    seed
        Seed of the permutations.

    Returns
    -------
    dict of str to Share
        By the names of the properties.
    """
    found = {}
    for one in properties:
        known = one.rows
        chosen = points[known] - points[known].mean(axis=0)
        people = [subjects[row] for row in known]
        found[one.name] = variance_share(
            chosen, one.values[known], people, n_levels=len(one.levels), seed=seed
        )
    return found


def rounded(points: Array) -> Array:
    """Coordinates with as many digits as are the same on other machines.

    >>> rounded(np.array([[1234.56789, 0.000123456789]])).tolist()
    [[1234.57, 0.0]]
    """
    largest = float(np.abs(points).max(initial=0.0))
    if not largest:
        return points
    decimals = DIGITS - 1 - int(np.floor(np.log10(largest)))
    return np.asarray(np.round(points, decimals)) + 0.0
