"""From an atlas's labels (X, Y, Z) and a run (X, Y, Z, T) to parcel series (T, n_parcels).

The atlas's voxel centres are carried into the run's own voxels (coordinates (P, 3)); a sparse
operator W (n_parcels, X·Y·Z) interpolates and averages there, so that the run is read once and no
resampled copy of it is made. Every parcel keeps its column: one without data is NaN.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

N_PARCELS = 424  # of the A424 atlas
# Volumes gathered at a time: about 40 MB for the 150 000 voxels of a 2 mm brain.
CHUNK = 32


@dataclass(frozen=True)
class Coverage:
    """How much of each parcel (n_parcels,) lies in the run's mask, in atlas voxels."""

    n_voxels: NDArray[np.int64]
    n_covered: NDArray[np.int64]
    fraction: NDArray[np.float64]


def atlas_points(
    labels: NDArray[Any], affine: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (P,) and world coordinates (P, 3), mm, of the voxels that carry a label above 0.

    >>> names, points = atlas_points(np.array([[[0, 7]]]), np.diag([2.0, 2.0, 3.0, 1.0]))
    >>> names.tolist(), points.tolist()
    ([7], [[0.0, 0.0, 3.0]])
    """
    index = np.argwhere(labels > 0)
    names = np.asarray(labels[tuple(index.T)], dtype=np.int64)
    return names, index @ affine[:3, :3].T + affine[:3, 3]


def build_operator(
    labels: NDArray[np.int64],
    points_vox: NDArray[np.float64],
    shape: tuple[int, ...],
    mask: NDArray[np.bool_],
    n_parcels: int = N_PARCELS,
) -> tuple[sparse.csr_matrix, Coverage]:
    """W (n_parcels, X·Y·Z) float32: each row the mean of a parcel's covered points.

    A point is covered if its nearest voxel is in the mask. Its value is interpolated linearly from
    those of its eight neighbours that are in the mask, with weights that sum to 1, so that no
    voxel beyond the mask enters. Rows of parcels without a covered point are empty; any other
    row sums to 1. Columns are in C order of `shape`.

    Parameters
    ----------
    labels
        (P,), 1 to `n_parcels`.
    points_vox
        (P, 3) voxel coordinates in the run's grid; points beyond it or not finite are uncovered.
    shape, mask
        (X, Y, Z) of the run and its mask.

    Raises
    ------
    ValueError
        If the shapes disagree or a label is out of range.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if mask.shape != tuple(shape) or points_vox.shape != (len(labels), 3):
        raise ValueError(f"shapes disagree: {mask.shape}, {shape}, {points_vox.shape}")
    if len(labels) and not 1 <= labels.min() <= labels.max() <= n_parcels:
        raise ValueError(f"labels must lie in 1..{n_parcels}")
    rows = labels - 1
    covered = _covered(points_vox, mask)
    n_voxels = np.bincount(rows, minlength=n_parcels)
    n_covered = np.bincount(rows[covered], minlength=n_parcels)
    fraction = n_covered / np.maximum(n_voxels, 1)
    columns, weights = _trilinear(points_vox[covered], mask)
    weights /= n_covered[rows[covered]]
    kept = weights > 0
    entries = (weights[kept], (np.broadcast_to(rows[covered], weights.shape)[kept], columns[kept]))
    # the entries of a voxel are summed in float64 before they are rounded
    operator = sparse.coo_matrix(entries, shape=(n_parcels, mask.size)).tocsr()
    operator.sum_duplicates()
    return operator.astype(np.float32), Coverage(n_voxels, n_covered, fraction)


def _covered(points: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the voxel nearest to each point (P, 3) is in the mask."""
    finite = np.asarray(np.isfinite(points)).all(axis=1, keepdims=True)
    # beyond the volume by a voxel stands for any distance, and fits an integer
    safe = np.where(finite, points, -1.0).clip(-1, mask.shape)
    nearest = np.floor(safe + 0.5).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < mask.shape)).all(axis=1)
    covered = np.zeros(len(points), dtype=bool)
    covered[inside] = mask[tuple(nearest[inside].T)]
    return covered


def _trilinear(
    points: NDArray[np.float64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Columns and weights (8, P) of the neighbours; 0 beyond the mask, sum 1 over axis 0."""
    base = np.floor(points).astype(np.int64)
    part = points - base
    upper = np.array(mask.shape) - 1
    columns = np.empty((8, len(points)), dtype=np.int64)
    weights = np.empty((8, len(points)))
    for number, corner in enumerate(product((0, 1), repeat=3)):
        neighbour = base + corner
        inside = ((neighbour >= 0) & (neighbour <= upper)).all(axis=1)
        neighbour = neighbour.clip(0, upper)
        weight = np.where(corner, part, 1 - part).prod(axis=1)
        weights[number] = weight * (inside & mask[tuple(neighbour.T)])
        columns[number] = np.ravel_multi_index(tuple(neighbour.T), mask.shape)
    # the nearest voxel is in the mask and has at least 1/8, so that the sum is not 0
    return columns, weights / weights.sum(axis=0)


def parcellate(operator: sparse.spmatrix, bold: ArrayLike) -> NDArray[np.float64]:
    """Parcel series (T, n_parcels) of a run (X, Y, Z, T), NaN for parcels without data.

    Reads only the voxels that the operator uses, `CHUNK` volumes at a time; `bold` may be in C
    or Fortran order (as nibabel loads it) and is not copied.

    Raises
    ------
    ValueError
        If the run is not 4-D or has another grid than the operator.
    """
    bold = np.asarray(bold)
    operator = sparse.csr_matrix(operator)
    if bold.ndim != 4 or int(np.prod(bold.shape[:3])) != operator.shape[1]:
        raise ValueError(f"a run of shape {bold.shape} does not fit an operator {operator.shape}")
    used = np.unique(operator.indices)
    compact = operator[:, used].astype(np.float64)
    index, order = used, "C"
    if bold.flags.f_contiguous:
        grid = np.unravel_index(used, bold.shape[:3])
        index, order = np.ravel_multi_index(grid, bold.shape[:3], order="F"), "F"
    series = np.empty((bold.shape[3], operator.shape[0]))
    for start in range(0, len(series), CHUNK):
        block = bold[..., start : start + CHUNK]
        flat = block.reshape(-1, block.shape[3], order=order)  # type: ignore[call-overload]
        values = np.take(flat.T, index, axis=1) if order == "F" else np.take(flat, index, axis=0).T
        series[start : start + CHUNK] = (compact @ values.astype(np.float64).T).T
    series[:, np.diff(operator.indptr) == 0] = np.nan
    return series
