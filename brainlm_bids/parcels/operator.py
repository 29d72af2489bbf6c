"""Parcel series (T, n_parcels) of a run (X, Y, Z, T), from an atlas's labels.

The atlas's voxel centres are carried into the run's own voxels (coordinates (P, 3)); a sparse
operator W (n_parcels, X·Y·Z) interpolates and averages there, so that the run is read once and
never resampled as a whole. Every parcel keeps its column: a parcel without data is NaN.
"""

from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from brainlm_bids.parcels import N_PARCELS

# Volumes gathered at a time: about 40 MB for the 150 000 voxels of a 2 mm brain.
CHUNK = 32
# Voxels around a parcel's box, and share of the largest weight, beyond which W's entries are 0.
HALO = 8
SMALLEST_WEIGHT = 1e-4
# Of the weight of a parcel (1) that must lie in the mask for its spline to be used.
LEAST_WEIGHT = 0.5


@dataclass(frozen=True)
class Coverage:
    """How much of each parcel lies in the run's mask.

    Attributes
    ----------
    n_voxels
        (n_parcels,) voxels of the atlas.
    n_covered
        (n_parcels,) those of them in the mask.
    fraction
        (n_parcels,) their share.
    in_lesion
        (n_parcels,) share of the parcel that lies in a lesion; None where no mask marks one.
    """

    n_voxels: NDArray[np.int64]
    n_covered: NDArray[np.int64]
    fraction: NDArray[np.float64]
    in_lesion: NDArray[np.float64] | None = None

    def reaches(self, minimum: float) -> NDArray[np.bool_]:
        """Whether each parcel has data, and at least this fraction of it is covered: (n_parcels,).

        Parameters
        ----------
        minimum
            From 0 to 1; 0 keeps every parcel with data.

        Returns
        -------
        ndarray
            (n_parcels,) of bool.

        Examples
        --------
        >>> counts = np.array([4, 4, 4]), np.array([0, 1, 2])
        >>> Coverage(*counts, counts[1] / counts[0]).reaches(0.5)
        array([False, False,  True])
        """
        return np.asarray((self.n_covered > 0) & (self.fraction >= minimum))


def build_operator(
    labels: NDArray[np.int64],
    points_vox: NDArray[np.float64],
    shape: tuple[int, ...],
    mask: NDArray[np.bool_],
    n_parcels: int = N_PARCELS,
    order: Literal[1, 3] = 3,
    min_coverage: float = 0.0,
) -> tuple[sparse.csr_matrix, Coverage]:
    """Make the operator that averages a run over parcels.

    A point is covered if its nearest voxel is in the mask. Its value is that of the cubic spline
    through all voxels: the spline's weights and the filter from values to coefficients are both
    linear, and W is their product. Columns of voxels outside the mask are then set to 0 and the row
    is scaled to a sum of 1, so that such voxels have no influence. If little of a row remains, its
    points are interpolated linearly among voxels of the mask.

    Parameters
    ----------
    labels
        (P,), 1 to `n_parcels`.
    points_vox
        (P, 3) voxel coordinates in the run's grid; points outside it or not finite are uncovered.
    shape, mask
        (X, Y, Z) of the run and its mask.
    n_parcels
        Number of parcels of the atlas.
    order
        3: as above; 1: all points linearly among voxels of the mask.
    min_coverage
        Rows of parcels of which a smaller fraction is covered stay empty: their series are missing.

    Returns
    -------
    operator
        W (n_parcels, X·Y·Z) float32, columns in C order of `shape`: each row averages the covered
        points of a parcel, and is empty without any or with too few.
    coverage
        How much of each parcel is covered, whatever `min_coverage` is.

    Raises
    ------
    ValueError
        If the shapes disagree or a label is out of range.

    References
    ----------
    Unser M (1999). Splines: a perfect fit for signal and image processing. IEEE Signal Process.
    Mag. 16:22.

    Examples
    --------
    >>> labels, points = np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    >>> mask = np.ones((1, 1, 2), dtype=bool)
    >>> operator, coverage = build_operator(labels, points, (1, 1, 2), mask, n_parcels=2, order=1)
    >>> operator.toarray(), coverage.n_covered
    (array([[0.5, 0.5],
           [0. , 0. ]], dtype=float32), array([2, 0]))
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
    coverage = Coverage(n_voxels, n_covered, n_covered / np.maximum(n_voxels, 1))
    used = covered & coverage.reaches(min_coverage)[rows]
    points, rows = points_vox[used], rows[used]
    if order == 1:
        return _linear_rows(points, rows, n_parcels, mask).astype(np.float32), coverage
    splines = _spline_rows(points, rows, n_parcels, mask)
    total = np.asarray(splines.sum(axis=1)).ravel()
    kept = total >= LEAST_WEIGHT
    linear = ~kept[rows]
    operator = sparse.diags(np.where(kept, 1 / np.where(kept, total, 1), 0)) @ splines
    operator = operator + _linear_rows(points[linear], rows[linear], n_parcels, mask)
    operator.eliminate_zeros()
    return sparse.csr_matrix(operator).astype(np.float32), coverage


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


def _spline_rows(
    points: NDArray[np.float64], rows: NDArray[np.int64], n_rows: int, mask: NDArray[np.bool_]
) -> sparse.csr_matrix:
    """Means of the cubic spline over the points of each row, without columns outside the mask.

    The spline is a product of axes, and so are its weights: per axis, those of the coefficients
    (4 of a B-spline) times the inverse of A, where values = A · coefficients with
    A = (1, 4, 1) / 6 and mirrored ends. A⁻¹ decays as 0.27 to the distance: a row is computed in a
    box around its points, and its smallest entries are dropped.
    """
    upper = np.array(mask.shape) - 1
    inverses = [_coefficients_of_values(size) for size in mask.shape]
    order = np.argsort(rows, kind="stable")
    bounds = np.searchsorted(rows[order], np.arange(n_rows + 1))
    starts, columns, weights = [0], [np.empty(0, dtype=np.int64)], [np.empty(0)]
    for first, last in pairwise(bounds):
        if last > first:
            # beyond the outermost voxel centres the outermost value continues
            place = points[order[first:last]].clip(0, upper)
            box, corner = _spline_box(place, inverses)
            part = tuple(slice(a, a + n) for a, n in zip(corner, box.shape))
            box *= mask[part] & (np.abs(box) > SMALLEST_WEIGHT * np.abs(box).max())
            found = np.nonzero(box)
            index = tuple(where + offset for where, offset in zip(found, corner))
            columns.append(np.ravel_multi_index(index, mask.shape))
            weights.append(box[found])
        starts.append(starts[-1] + (len(columns[-1]) if last > first else 0))
    entries = np.concatenate(weights), np.concatenate(columns), starts
    return sparse.csr_matrix(entries, (n_rows, mask.size))


def _spline_box(
    points: NDArray[np.float64], inverses: list[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], list[int]]:
    """Mean weights of voxels (a box) over points (P, 3) within the volume, and its first voxel."""
    by_axis, corner = [], []
    for axis, inverse in enumerate(inverses):
        last = len(inverse) - 1
        place = points[:, axis]
        low = max(int(place.min()) - HALO, 0)
        high = min(int(place.max()) + HALO + 2, last + 1)
        base = np.floor(place).astype(np.int64)
        values = np.zeros((len(place), high - low))
        for step in (-1, 0, 1, 2):
            knot = np.abs(base + step)
            knot = np.where(knot > last, 2 * last - knot, knot).clip(0)
            weight = _b_spline(place - (base + step))
            values += weight[:, None] * inverse[knot, low:high]
        by_axis.append(values)
        corner.append(low)
    plane = by_axis[0][:, :, None] * by_axis[1][:, None, :]
    box = plane.reshape(len(points), -1).T @ by_axis[2] / len(points)
    return box.reshape([values.shape[1] for values in by_axis]), corner


def _b_spline(away: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic B-spline at a distance in voxels."""
    away = np.abs(away)
    near, far = 2 / 3 - away**2 + away**3 / 2, (2 - np.minimum(away, 2)) ** 3 / 6
    return np.where(away < 1, near, far)


def _coefficients_of_values(size: int) -> NDArray[np.float64]:
    """A⁻¹ (size, size): a cubic spline's coefficients from its values at the knots."""
    if size == 1:
        return np.ones((1, 1))
    values = (4 * np.eye(size) + np.eye(size, k=1) + np.eye(size, k=-1)) / 6
    values[0, 1] = values[-1, -2] = 1 / 3
    return np.asarray(np.linalg.inv(values))


def _linear_rows(
    points: NDArray[np.float64], rows: NDArray[np.int64], n_rows: int, mask: NDArray[np.bool_]
) -> sparse.csr_matrix:
    """Means over the points of each row, interpolated linearly among voxels of the mask."""
    columns, weights = _trilinear(points, mask)
    weights /= np.bincount(rows, minlength=n_rows)[rows]
    kept = weights > 0
    entries = (weights[kept], (np.broadcast_to(rows, weights.shape)[kept], columns[kept]))
    # the entries of a voxel are summed in float64 before they are rounded
    operator = sparse.coo_matrix(entries, shape=(n_rows, mask.size)).tocsr()
    operator.sum_duplicates()
    return operator


def _trilinear(
    points: NDArray[np.float64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Columns and weights (8, P) of the neighbours; 0 outside the mask, sum 1 over axis 0."""
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
    """Average a run over parcels.

    Only the voxels that the operator uses are read, `CHUNK` volumes at a time.

    Parameters
    ----------
    operator
        W (n_parcels, X·Y·Z), see `build_operator`.
    bold
        (X, Y, Z, T), in C or Fortran order (as nibabel loads it); it is not copied.

    Returns
    -------
    ndarray
        (T, n_parcels), NaN for parcels without data.

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


def parcellate_both(
    operator: sparse.spmatrix, others: sparse.spmatrix | None, bold: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Average a run over the parcels of an atlas and of further ones, in one pass over the run.

    Parameters
    ----------
    operator, others
        (n_parcels, X·Y·Z) and (K, X·Y·Z), see `build_operator`; None: there are no others.
    bold
        (X, Y, Z, T), see `parcellate`.

    Returns
    -------
    means, others
        (T, n_parcels) and (T, K), the same numbers as of `parcellate` alone; or None.

    Examples
    --------
    >>> one, two = sparse.csr_matrix([[0.5, 0.5]]), sparse.csr_matrix([[0.0, 1.0], [0.0, 0.0]])
    >>> [means.tolist() for means in parcellate_both(one, two, [[[[1.0], [3.0]]]])]
    [[[2.0]], [[3.0, nan]]]
    """
    if others is None:
        return parcellate(operator, bold), None
    means = parcellate(sparse.vstack([operator, others], format="csr"), bold)
    return means[:, : operator.shape[0]], means[:, operator.shape[0] :]


def label_means(
    series: NDArray[Any],
    labels: NDArray[np.int64],
    covered: NDArray[np.bool_],
    min_coverage: float = 0.0,
    n_parcels: int = N_PARCELS,
) -> tuple[NDArray[np.float64], Coverage]:
    """Average a series without a grid, such as CIFTI's grayordinates, by label.

    Parameters
    ----------
    series
        (T, V).
    labels
        (V,), 0 for none, 1 to `n_parcels`.
    covered
        (V,) whether each has data.
    min_coverage
        Parcels of which a smaller fraction has data are missing.
    n_parcels
        Number of parcels of the atlas.

    Returns
    -------
    means
        (T, n_parcels), NaN where no point of a parcel has data, or too few have.
    coverage
        Points per parcel, and those with data, whatever `min_coverage` is.
    """
    n_points = np.bincount(labels, minlength=n_parcels + 1)[1:]
    used = np.flatnonzero(covered & (labels > 0))
    n_covered = np.bincount(labels[used], minlength=n_parcels + 1)[1:]
    share = 1.0 / n_covered[labels[used] - 1]
    shape = (n_parcels, len(labels))
    operator = sparse.csr_matrix((share, (labels[used] - 1, used)), shape=shape)
    means = np.asarray(operator @ np.asarray(series, dtype=np.float64).T).T
    coverage = Coverage(n_points, n_covered, n_covered / np.maximum(n_points, 1))
    means[:, ~coverage.reaches(min_coverage)] = np.nan
    return means, coverage
