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
# Voxels around a parcel's box, and share of the largest weight, beyond which W's entries are 0.
HALO = 8
SMALLEST_WEIGHT = 1e-4
# Of the weight of a parcel (1) that must lie in the mask for its spline to be used.
LEAST_WEIGHT = 0.5


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

    A point is covered if its nearest voxel is in the mask. Its value is that of the cubic spline
    through all voxels (Unser 1999, IEEE Signal Proc. Mag. 16:22): the spline's weights and the
    filter from values to coefficients are both linear, and W is their product. Columns of voxels
    beyond the mask are then set to 0 and the row is scaled to a sum of 1, so that none of them
    enters. Where little of a row is left, its points are interpolated linearly among voxels of the
    mask. Rows of parcels without a covered point are empty. Columns are in C order of `shape`.

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
    points, rows = points_vox[covered], rows[covered]
    splines = _averaged(*_spline_weights(points, mask.shape), rows, n_covered, mask.size)
    linear = _averaged(*_trilinear(points, mask), rows, n_covered, mask.size)
    operator = _either(_without_filter(splines, mask), linear)
    return operator, Coverage(n_voxels, n_covered, fraction)


def _either(splines: sparse.csr_matrix, linear: sparse.csr_matrix) -> sparse.csr_matrix:
    """The rows of the first that keep enough weight, the second's else; sum 1, float32."""
    kept = np.asarray(splines.sum(axis=1)).ravel() >= LEAST_WEIGHT
    operator = sparse.diags(kept * 1.0) @ splines + sparse.diags(~kept * 1.0) @ linear
    total = np.asarray(operator.sum(axis=1)).ravel()
    operator = sparse.diags(1 / np.where(total > 0, total, 1)) @ operator
    operator.eliminate_zeros()
    return sparse.csr_matrix(operator).astype(np.float32)


def _averaged(
    columns: NDArray[np.int64],
    weights: NDArray[np.float64],
    rows: NDArray[np.int64],
    n_points: NDArray[np.int64],
    n_columns: int,
) -> sparse.csr_matrix:
    """Means by row (n_parcels, n_columns) of the points' columns and weights (N, P)."""
    weights = weights / n_points[rows]
    kept = weights != 0
    entries = (weights[kept], (np.broadcast_to(rows, weights.shape)[kept], columns[kept]))
    operator = sparse.coo_matrix(entries, shape=(len(n_points), n_columns)).tocsr()
    operator.sum_duplicates()
    return operator


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


def _spline_weights(
    points: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Columns and weights (64, P) of the cubic B-spline's coefficients, sum 1.

    Beyond the outermost voxel centres the outermost value continues.
    """
    upper = np.array(shape) - 1
    points = points.clip(0, upper)
    base = np.floor(points).astype(np.int64)
    away = points - base
    by_axis = np.stack([_b_spline(away - step) for step in (-1, 0, 1, 2)])  # (4, P, 3)
    columns = np.empty((64, len(points)), dtype=np.int64)
    weights = np.empty((64, len(points)))
    for number, (i, j, k) in enumerate(product(range(4), repeat=3)):
        neighbour = np.abs(base + np.array([i - 1, j - 1, k - 1]))
        neighbour = np.where(neighbour > upper, 2 * upper - neighbour, neighbour).clip(0)
        columns[number] = np.ravel_multi_index(tuple(neighbour.T), shape)
        weights[number] = by_axis[i, :, 0] * by_axis[j, :, 1] * by_axis[k, :, 2]
    return columns, weights


def _b_spline(away: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic B-spline at a distance in voxels."""
    away = np.abs(away)
    near, far = 2 / 3 - away**2 + away**3 / 2, (2 - np.minimum(away, 2)) ** 3 / 6
    return np.where(away < 1, near, far)


def _without_filter(splines: sparse.csr_matrix, mask: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Rows of weights of coefficients as weights of the voxels in the mask.

    Per axis, values = A · coefficients with A = (1, 4, 1) / 6 and mirrored ends, so a row w of
    weights becomes w A⁻¹ along every axis. A⁻¹ decays as 0.27 to the distance: a row is
    transformed in a box around its parcel, and its least entries are dropped.
    """
    inverses = [np.linalg.inv(_b_spline_values(size)) for size in mask.shape]
    starts, columns, weights = [0], [], []
    for row in range(splines.shape[0]):
        entries = slice(*splines.indptr[row : row + 2])
        voxels = np.array(np.unravel_index(splines.indices[entries], mask.shape))
        if voxels.size:
            inner, outer = _boxes(voxels, mask.shape)
            box = np.zeros([part.stop - part.start for part in inner])
            box[tuple(voxels - np.array([[part.start] for part in inner]))] = splines.data[entries]
            for axis, inverse in enumerate(inverses):
                block = inverse[inner[axis], outer[axis]]
                box = np.moveaxis(np.tensordot(box, block, axes=(axis, 0)), -1, axis)
            box *= mask[outer] & (np.abs(box) > SMALLEST_WEIGHT * np.abs(box).max())
            found = np.nonzero(box)
            place = tuple(index + part.start for index, part in zip(found, outer))
            columns.append(np.ravel_multi_index(place, mask.shape))
            weights.append(box[found])
        starts.append(starts[-1] + (len(columns[-1]) if voxels.size else 0))
    shape = splines.shape
    if not columns:
        return sparse.csr_matrix(shape)
    return sparse.csr_matrix((np.concatenate(weights), np.concatenate(columns), starts), shape)


def _b_spline_values(size: int) -> NDArray[np.float64]:
    """A (size, size): the values of a cubic spline at its knots from its coefficients."""
    if size == 1:
        return np.ones((1, 1))
    matrix = (4 * np.eye(size) + np.eye(size, k=1) + np.eye(size, k=-1)) / 6
    matrix[0, 1] = matrix[-1, -2] = 1 / 3
    return matrix


def _boxes(
    voxels: NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The box around voxels (3, N), and that with `HALO` voxels more on every side."""
    low, high = voxels.min(axis=1), voxels.max(axis=1) + 1
    inner = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    outer = tuple(
        slice(max(0, int(a) - HALO), min(int(size), int(b) + HALO))
        for a, b, size in zip(low, high, shape)
    )
    return inner, outer


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


def label_means(
    series: NDArray[Any], labels: NDArray[np.int64], covered: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], Coverage]:
    """Means by label of series without a grid, such as CIFTI's grayordinates.

    Parameters
    ----------
    series
        (T, V).
    labels
        (V,), 0 for none, 1 to 424.
    covered
        (V,) which of them have data.

    Returns
    -------
    means
        (T, 424), NaN where no point of a parcel has data.
    coverage
        Points per parcel, and those with data.
    """
    n_points = np.bincount(labels, minlength=N_PARCELS + 1)[1:]
    used = np.flatnonzero(covered & (labels > 0))
    n_covered = np.bincount(labels[used], minlength=N_PARCELS + 1)[1:]
    share = 1.0 / n_covered[labels[used] - 1]
    shape = (N_PARCELS, len(labels))
    operator = sparse.csr_matrix((share, (labels[used] - 1, used)), shape=shape)
    means = np.asarray(operator @ np.asarray(series, dtype=np.float64).T).T
    means[:, n_covered == 0] = np.nan
    return means, Coverage(n_points, n_covered, n_covered / np.maximum(n_points, 1))
