"""Smooth functions of space: cubic B-splines on a regular grid of control points."""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

FloatArray = NDArray[np.float64]


def weights(away: FloatArray) -> FloatArray:
    """The cubic B-spline at distances from its control point, in units of their spacing.

    >>> weights(np.array([0.0, 1.0, 2.0])).round(3)
    array([0.667, 0.167, 0.   ])
    """
    near = 2 / 3 - away**2 + away**3 / 2
    return np.asarray(np.where(away < 1, near, (2 - np.minimum(away, 2)) ** 3 / 6))


def basis(
    points: FloatArray, origin: FloatArray, shape: tuple[int, ...], spacing: float
) -> sparse.csr_matrix:
    """Weights (N, control points) of a cubic B-spline; constant beyond its control points.

    Parameters
    ----------
    points
        (N, 3) where the spline is wanted.
    origin
        (3,) position of the first control point.
    shape
        Control points along each axis.
    spacing
        Between control points, in the unit of the points.
    """
    place = (points - origin) / spacing
    first = np.floor(place).astype(np.int64) - 1
    by_axis = weights(np.abs(place[:, None, :] - first[:, None, :] - np.arange(4)[:, None]))
    columns, entries = [], []
    for steps in product(range(4), repeat=3):
        control = (first + np.array(steps)).clip(0, np.array(shape) - 1)
        columns.append(np.ravel_multi_index(tuple(control.T), shape))
        entries.append(np.prod([by_axis[:, step, axis] for axis, step in enumerate(steps)], axis=0))
    starts = np.arange(len(points) + 1) * 64
    flat = (np.stack(entries, axis=1).ravel(), np.stack(columns, axis=1).ravel(), starts)
    return sparse.csr_matrix(flat, (len(points), int(np.prod(shape))))


def bending(shape: tuple[int, ...]) -> Any:
    """Q (control points, control points): cᵀQc is the sum of all squared second differences."""
    same = [sparse.identity(n) for n in shape]
    first = [sparse.diags([-1.0, 1.0], [0, 1], shape=(n - 1, n)) for n in shape]
    second = [sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n - 2, n)) for n in shape]
    terms = []
    for axis in range(3):
        pure = [second[n] if n == axis else same[n] for n in range(3)]
        mixed = [same[n] if n == axis else first[n] for n in range(3)]
        terms.append(sparse.kron(sparse.kron(pure[0], pure[1]), pure[2]))
        terms.append(np.sqrt(2) * sparse.kron(sparse.kron(mixed[0], mixed[1]), mixed[2]))
    stacked = sparse.vstack(terms).tocsr()
    return sparse.csr_matrix(stacked.T @ stacked)
