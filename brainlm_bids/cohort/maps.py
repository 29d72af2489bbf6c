"""A cohort in the plane: embeddings (N, D) in; two coordinates per recording out."""

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
NEIGHBOURS = 15  # UMAP's default
MINIMUM_FOR_UMAP = 2 * NEIGHBOURS


class PlaneMap(NamedTuple):
    """points (N, 2), and what the axes are called."""

    method: str
    points: Array
    axes: tuple[str, str]


def principal_map(features: ArrayLike) -> PlaneMap:
    """The first two principal components; signs are fixed by the largest loading.

    One recording, or equal ones, lie at the origin.
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
    """UMAP (McInnes 2018) where umap-learn is installed and there are enough recordings."""
    values = np.asarray(features, dtype=np.float32)
    if find_spec("umap") is None or len(values) < MINIMUM_FOR_UMAP:
        return None
    from umap import UMAP

    points = UMAP(n_neighbors=NEIGHBOURS, random_state=seed, n_jobs=1).fit_transform(values)
    return PlaneMap("UMAP", np.asarray(points, dtype=np.float64), ("UMAP 1", "UMAP 2"))
