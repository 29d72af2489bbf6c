"""A cohort in the plane: two coordinates for each recording, from embeddings (N, D)."""

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
NEIGHBOURS = 15  # UMAP's default
MINIMUM_FOR_UMAP = 2 * NEIGHBOURS


class PlaneMap(NamedTuple):
    """Recordings in the plane.

    Attributes
    ----------
    method
        "PCA" or "UMAP".
    points
        (N, 2).
    axes
        Names of the axes.
    """

    method: str
    points: Array
    axes: tuple[str, str]


def principal_map(features: ArrayLike) -> PlaneMap:
    """Project recordings onto the first two principal components.

    The largest loading of each component is positive. A single recording, or equal ones, are at the
    origin.

    Parameters
    ----------
    features
        (N, D).

    Returns
    -------
    PlaneMap
        Coordinates, and the share of the variance in the names of the axes.

    Examples
    --------
    >>> principal_map([[0.0, 0.0], [2.0, 0.0]]).points.round(6).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    values = np.asarray(features, dtype=np.float64)
    centred = values - values.mean(axis=0)
    left, size, right = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(values), 2))
    share = np.zeros(2)
    total = float((size**2).sum())
    for k in range(min(2, len(size))):
        if size[k] <= 1e-9 * (1 + np.abs(values).max()):
            continue
        sign = np.sign(right[k, np.abs(right[k]).argmax()])
        points[:, k] = sign * left[:, k] * size[k]
        share[k] = size[k] ** 2 / total
    names = tuple(f"PC {k + 1} ({100 * share[k]:.0f} % of the variance)" for k in range(2))
    return PlaneMap("PCA", points, (names[0], names[1]))


def neighbour_map(features: ArrayLike, seed: int) -> PlaneMap | None:
    """Map recordings by UMAP, if umap-learn is installed and there are at least 30.

    Parameters
    ----------
    features
        (N, D).
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
    if find_spec("umap") is None or len(values) < MINIMUM_FOR_UMAP:
        return None
    from umap import UMAP

    points = UMAP(n_neighbors=NEIGHBOURS, random_state=seed, n_jobs=1).fit_transform(values)
    return PlaneMap("UMAP", np.asarray(points, dtype=np.float64), ("UMAP 1", "UMAP 2"))
