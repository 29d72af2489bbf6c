"""Cubic splines through volumes (X, Y, Z): the coefficients, and values at displaced points.

Volumes of a run are small, and there are hundreds of them. A filter along an axis is a matrix, so
that smoothing and the spline's prefilter together are one product per axis. Head motion displaces
neighbours by nearly the same distance, so that a tap of the spline is, for all points of a slice, a
shifted view of the coefficients: the sum over taps works on whole slices, without any index.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.preproc.affine import in_voxels
from brainlm_bids.preproc.motion.target import FloatArray, Volume, finite_volume

# Points that are taken together: what is held for them stays in a processor's cache.
BLOCK_POINTS = 8_192
# Taps per point, 64 without rotation, from which one point after the other is quicker.
MOST_TAPS = 500.0


def spline_filters(
    shape: tuple[int, ...], smoothing: FloatArray | None = None
) -> tuple[NDArray[np.float32], ...]:
    """The matrices that take a volume to its spline coefficients, one for each axis.

    Parameters
    ----------
    shape
        (X, Y, Z).
    smoothing
        (3,) standard deviation of a Gaussian that comes before, in voxels; None: nothing does.

    Returns
    -------
    tuple of ndarray
        (X, X), (Y, Y) and (Z, Z) float32. Beyond the volume, the Gaussian goes on with the
        outermost values, the spline with mirrored ones.

    Examples
    --------
    >>> [matrix.shape for matrix in spline_filters((4, 3, 2))]
    [(4, 4), (3, 3), (2, 2)]
    """
    filters = []
    for axis, size in enumerate(shape):
        matrix = np.eye(size)
        if smoothing is not None:
            matrix = ndimage.gaussian_filter1d(matrix, smoothing[axis], axis=0, mode="nearest")
        matrix = ndimage.spline_filter1d(matrix, order=3, axis=0, mode="mirror")
        filters.append(np.asarray(matrix, dtype=np.float32))
    return tuple(filters)


def coefficients(volume: Volume, filters: tuple[NDArray[np.float32], ...]) -> Volume:
    """Filter a volume along its axes.

    Parameters
    ----------
    volume
        (X, Y, Z) float32.
    filters
        See `spline_filters`.

    Returns
    -------
    ndarray
        (X, Y, Z) float32, in Fortran's order, as nibabel's.

    Examples
    --------
    >>> volume = np.full((4, 3, 2), 7.0, dtype=np.float32)
    >>> bool(np.allclose(coefficients(volume, spline_filters(volume.shape)), 7))
    True
    """
    along_x, along_y, along_z = filters
    values = np.ascontiguousarray(volume.T)
    depth, height, width = values.shape
    values = (values.reshape(-1, width) @ along_x.T).reshape(depth, height, width)
    values = np.matmul(along_y, values)
    return np.asarray((along_z @ values.reshape(depth, -1)).reshape(depth, height, width).T)


def pulled(spline: Volume, pull: FloatArray) -> Volume:
    """Values of a spline on its own grid, as another pose sees it.

    Parameters
    ----------
    spline
        (X, Y, Z) coefficients of a cubic spline, which is mirrored beyond the outermost voxels.
    pull
        (4, 4) from the voxels of the result to those of `spline`.

    Returns
    -------
    ndarray
        (X, Y, Z) float32: those of `ndimage.affine_transform`, up to rounding.

    Examples
    --------
    >>> ramp = np.arange(6.0, dtype=np.float32)[:, None, None] * np.ones((1, 5, 4), np.float32)
    >>> next_voxel = np.eye(4)
    >>> next_voxel[0, 3] = 1.0
    >>> values = pulled(coefficients(ramp, spline_filters(ramp.shape)), next_voxel)
    >>> (values[:3, 2, 2].round(3) + 0.0).tolist()
    [1.0, 2.0, 3.0]
    """
    shape = spline.shape[::-1]
    # slowest axis first, as slices lie in memory
    slope = pull[:3, :3][::-1, ::-1] - np.eye(3)
    offset = pull[:3, 3][::-1]
    low, high = _range(slope, offset, np.zeros((1, 3)), np.array(shape)[None] - 1)
    before, after = np.maximum(1 - low[0], 0), np.maximum(high[0] + 2, 0)
    rows = max(1, BLOCK_POINTS // (shape[2] + before[2] + after[2]))
    extent = np.array([0, min(rows, shape[1]) - 1, shape[2] - 1])
    taps = np.prod(4 + np.abs(slope) @ extent)
    if taps * np.prod((shape + before + after) / shape) > MOST_TAPS:
        return np.asarray(
            ndimage.affine_transform(
                spline,
                pull[:3, :3],
                pull[:3, 3],
                output=np.float32,
                order=3,
                mode="mirror",
                prefilter=False,
            )
        )
    padded = np.pad(spline.T, list(zip(before, after)), mode="reflect")
    first = np.array([(z, y, 0) for z in range(shape[0]) for y in range(0, shape[1], rows)])
    last = np.minimum(first + np.array([0, rows - 1, shape[2] - 1]), np.array(shape) - 1)
    result = np.empty(shape, dtype=np.float32)
    for start, end, *taps in zip(first, last, *_range(slope, offset, first, last)):
        values = _block(padded, before, slope, offset, (start, end), taps)
        result[start[0], start[1] : end[1] + 1] = values
    return result.T


def _range(
    slope: FloatArray, offset: FloatArray, first: NDArray[Any], last: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(B, 3) each: displacements of boxes of points, rounded down, that are least and largest.

    first, last: (B, 3) corners of the boxes.
    """
    ends = np.stack([slope * first[:, None], slope * last[:, None]])
    low, high = (offset + kind.sum(axis=2) for kind in (ends.min(axis=0), ends.max(axis=0)))
    return np.floor(low).astype(np.int64), np.floor(high).astype(np.int64)


def _block(
    padded: Volume,
    before: NDArray[np.int64],
    slope: FloatArray,
    offset: FloatArray,
    corners: tuple[NDArray[np.int64], NDArray[np.int64]],
    taps: list[NDArray[np.int64]],
) -> Volume:
    """Values at the points of some rows of a slice.

    padded: coefficients, with `before` values before the first along each axis; taps: the least and
    the largest displacement along each axis, rounded down.
    """
    _, height, stride = padded.shape
    (first, last), (low, high) = corners, taps
    rows, width = last[1] - first[1] + 1, last[2] + 1
    # rows of the padded volume follow one another: the points are one run of it, ends included
    n_points = (rows - 1) * stride + width
    y, x = np.arange(first[1], last[1] + 1), np.arange(stride)
    along = (offset + slope[:, 0] * first[0])[:, None] + slope[:, 1, None] * y
    across = (slope[:, 2, None] * x).astype(np.float32)
    moved = along.astype(np.float32)[:, :, None] + across[:, None]
    weights = [
        _weights(one.ravel()[:n_points], int(low[axis]), int(high[axis]))
        for axis, one in enumerate(moved)
    ]
    start = before + low - 1 + first
    flat = padded.reshape(-1)[(start[0] * height + start[1]) * stride + start[2] :]
    size = flat.itemsize
    shape = (*(len(w) for w in weights), n_points)
    views = as_strided(
        flat, shape, (height * stride * size, stride * size, size, size), writeable=False
    )
    values = np.empty(rows * stride, dtype=np.float32)
    values[:n_points] = _weighted(views, weights)
    return np.asarray(values.reshape(rows, stride)[:, :width])


def _weights(moved: Volume, low: int, high: int) -> Volume:
    """The cubic B-spline (A, N) at the taps from low - 1 to high + 2 of points displaced (N,)."""
    whole = np.floor(moved) if low < high else np.float32(low)
    part = moved - whole
    rest, square, sixth = 1 - part, part * part, np.float32(1 / 6)
    weights = np.empty((4, len(moved)), dtype=np.float32)
    np.multiply(square, part, out=weights[3])
    weights[3] *= sixth
    np.multiply(rest, rest, out=weights[0])
    weights[0] *= rest
    weights[0] *= sixth
    np.multiply(weights[3], 3, out=weights[1])
    weights[1] -= square
    weights[1] += 4 * sixth
    np.subtract(1, weights[0], out=weights[2])
    weights[2] -= weights[1]
    weights[2] -= weights[3]
    if low == high:
        return weights
    wide = np.zeros((4 + high - low, len(moved)), dtype=np.float32)
    for step in range(high - low + 1):
        wide[step : step + 4] += weights * (whole == low + step).astype(np.float32)
    return wide


def _weighted(views: NDArray[np.float32], weights: list[Volume]) -> Volume:
    """Sum (N,) of views (A, B, C, N) times the weights (N,) of their taps along three axes."""
    total = np.zeros(views.shape[3], dtype=np.float32)
    partial, term = np.empty(views.shape[1::2], np.float32), np.empty(views.shape[1::2], np.float32)
    for plane, weight in zip(views, weights[0]):
        np.multiply(plane[:, 0], weights[2][0], out=partial)
        for tap in range(1, views.shape[2]):
            np.multiply(plane[:, tap], weights[2][tap], out=term)
            np.add(partial, term, out=partial)
        np.multiply(partial, weights[1], out=partial)
        along_z = np.add.reduce(partial, axis=0, out=term[0])
        along_z *= weight
        total += along_z
    return total


def resample(
    bold: NDArray[Any], affine: NDArray[Any], matrices: NDArray[Any], *, out: Volume | None = None
) -> Volume:
    """Resample a run by its motion, with cubic splines.

    Parameters
    ----------
    bold
        (X, Y, Z, T).
    affine
        (4, 4) voxel to RAS+ mm.
    matrices
        (T, 4, 4) pull matrices of `realign`. A volume that did not move goes through the same
        interpolation as the others (and stays as it was, up to rounding).
    out
        float32 array of the shape of `bold` to write to; `bold` itself may be given, which
        saves a copy of the run.

    Returns
    -------
    ndarray
        (X, Y, Z, T) float32. Outside the field of view, a volume is continued by reflection about
        its outermost voxel centres: values there are not data (see `view.volumes_in_view` and
        `view.fill_unseen`).
    """
    if out is None:
        out = np.empty(bold.shape, dtype=np.float32)
    filters = spline_filters(bold.shape[:3])
    for t, pull in enumerate(in_voxels(matrices, affine)):
        out[..., t] = pulled(coefficients(finite_volume(bold, t), filters), pull)
    return out
