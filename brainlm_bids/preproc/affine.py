"""Linear maps of points: (4, 4) matrices and points (..., 3) in, points or matrices out.

An affine carries voxel indices to RAS+ millimetres; a pull carries points of one image to those of
another. Both are matrices of homogeneous coordinates: ``y = A[:3, :3] @ x + A[:3, 3]``.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]
Points = NDArray[np.float64]


def apply(matrix: Matrix, points: ArrayLike) -> Points:
    """Map points by a matrix.

    Parameters
    ----------
    matrix
        (4, 4), or a stack (T, 4, 4) for a single point.
    points
        (3,) or (P, 3).

    Returns
    -------
    The mapped points, in the shape of `points`; (T, 3) for a stack of matrices.

    Examples
    --------
    >>> shift_and_double = np.array([[2.0, 0, 0, 5], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    >>> apply(shift_and_double, [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    array([[7., 4., 6.],
           [5., 0., 0.]])
    """
    linear = np.swapaxes(matrix[..., :3, :3], -1, -2)
    return np.asarray(np.asarray(points) @ linear + matrix[..., :3, 3])


def invert(matrix: Matrix) -> Matrix:
    """The inverse of a matrix (4, 4), or of each of a stack (T, 4, 4).

    Examples
    --------
    >>> shift = np.eye(4)
    >>> shift[:3, 3] = [1.0, 2.0, 3.0]
    >>> apply(invert(shift), [1.0, 2.0, 3.0])
    array([0., 0., 0.])
    """
    return np.asarray(np.linalg.inv(np.asarray(matrix, dtype=np.float64)))


def compose(*matrices: Matrix) -> Matrix:
    """The product of matrices, the last of which is applied first.

    Examples
    --------
    >>> double, shift = np.diag([2.0, 2.0, 2.0, 1.0]), np.eye(4)
    >>> shift[:3, 3] = 1.0
    >>> apply(compose(double, shift), [0.0, 0.0, 0.0])
    array([2., 2., 2.])
    """
    product = np.asarray(matrices[0], dtype=np.float64)
    for matrix in matrices[1:]:
        product = product @ matrix
    return product


def about(centre: ArrayLike, linear: NDArray[Any], shift: ArrayLike = 0.0) -> Matrix:
    """The matrix of a linear map about a centre, followed by a shift.

    Parameters
    ----------
    centre
        (3,) mm, the point that `linear` leaves in place.
    linear
        (3, 3) rotation, stretch or shear, or a stack (T, 3, 3).
    shift
        (3,) mm, or (T, 3).

    Returns
    -------
    (4, 4), or (T, 4, 4) for a stack.

    Examples
    --------
    >>> half_turn = np.diag([-1.0, -1.0, 1.0])
    >>> apply(about([10.0, 0.0, 0.0], half_turn), [11.0, 0.0, 0.0])
    array([9., 0., 0.])
    """
    centre = np.asarray(centre, dtype=np.float64)
    matrix = np.zeros((*linear.shape[:-2], 4, 4))
    matrix[..., :3, :3] = linear
    matrix[..., :3, 3] = centre + shift - linear @ centre
    matrix[..., 3, 3] = 1.0
    return matrix


def in_voxels(matrix: Matrix, affine: Matrix) -> Matrix:
    """A pull between images of one grid, in voxel indices instead of millimetres.

    Parameters
    ----------
    matrix
        (4, 4) or (T, 4, 4), RAS+ mm.
    affine
        (4, 4) of the grid.

    Examples
    --------
    >>> shift = np.eye(4)
    >>> shift[0, 3] = 3.0
    >>> in_voxels(shift, np.diag([2.0, 2.0, 2.0, 1.0]))[0].tolist()
    [1.0, 0.0, 0.0, 1.5]
    """
    return compose(invert(affine), matrix, affine)


def world_to_voxel(points: ArrayLike, affine: Matrix) -> Points:
    """Voxel coordinates (P, 3) of points (P, 3) in RAS+ mm.

    Examples
    --------
    >>> world_to_voxel([[4.0, 0.0, 0.0]], np.diag([2.0, 2.0, 2.0, 1.0]))
    array([[2., 0., 0.]])
    """
    return apply(invert(affine), points)


def grid_points(shape: tuple[int, ...], affine: Matrix) -> Points:
    """The centres of all voxels of a grid.

    Parameters
    ----------
    shape
        (X, Y, Z).
    affine
        (4, 4) of the grid.

    Returns
    -------
    (X·Y·Z, 3) RAS+ mm, in C order of the voxels.

    Examples
    --------
    >>> grid_points((1, 1, 2), np.diag([2.0, 2.0, 3.0, 1.0]))
    array([[0., 0., 0.],
           [0., 0., 3.]])
    """
    return apply(affine, np.indices(shape).reshape(3, -1).T)


def labelled_points(labels: NDArray[Any], affine: Matrix) -> tuple[NDArray[np.int64], Points]:
    """The voxels that carry a label, and where they are.

    Parameters
    ----------
    labels
        (X, Y, Z) integers, 0 for none.
    affine
        (4, 4) of the grid.

    Returns
    -------
    names
        (P,) the labels.
    points
        (P, 3) the centres of their voxels, RAS+ mm.

    Examples
    --------
    >>> names, points = labelled_points(np.array([[[0, 7]]]), np.diag([2.0, 2.0, 3.0, 1.0]))
    >>> names.tolist(), points.tolist()
    ([7], [[0.0, 0.0, 3.0]])
    """
    index = np.argwhere(labels > 0)
    names = np.asarray(labels[tuple(index.T)], dtype=np.int64)
    return names, apply(affine, index)


def centre_of_mass(mask: NDArray[np.bool_], affine: Matrix) -> Points:
    """The centre (3,) of a mask (X, Y, Z), RAS+ mm.

    Examples
    --------
    >>> centre_of_mass(np.ones((3, 1, 1), dtype=bool), np.diag([2.0, 2.0, 2.0, 1.0]))
    array([2., 0., 0.])
    """
    return apply(affine, np.argwhere(mask).mean(axis=0))


def voxel_sizes(affine: Matrix) -> Points:
    """The edges (3,) of a voxel, mm.

    Examples
    --------
    >>> voxel_sizes(np.array([[0.0, -3, 0, 9], [2, 0, 0, 9], [0, 0, 4, 9], [0, 0, 0, 1]]))
    array([2., 3., 4.])
    """
    return np.asarray(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))


def voxel_volume(affine: Matrix) -> float:
    """The volume of a voxel, mm³.

    Examples
    --------
    >>> round(voxel_volume(np.diag([-2.0, 2.0, 3.0, 1.0])), 6)
    12.0
    """
    return float(abs(np.linalg.det(affine[:3, :3])))


def subgrid(affine: Matrix, first: ArrayLike = 0, step: ArrayLike = 1) -> Matrix:
    """The affine of a grid that starts at voxel `first` of another and takes every `step`-th.

    Parameters
    ----------
    affine
        (4, 4) of the whole grid.
    first
        (3,) voxel indices of the new origin.
    step
        (3,) or one number, in voxels; need not be whole.

    Examples
    --------
    >>> subgrid(np.diag([2.0, 2.0, 2.0, 1.0]), first=[1, 0, 0], step=2)[0].tolist()
    [4.0, 0.0, 0.0, 2.0]
    """
    grid = np.array(affine, dtype=np.float64)
    grid[:3, 3] += grid[:3, :3] @ np.broadcast_to(np.asarray(first, dtype=np.float64), 3)
    steps = np.broadcast_to(np.asarray(step, dtype=np.float64), 3)
    return compose(grid, np.diag([*steps, 1.0]))


def nearest_rotation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthogonal matrix that is nearest to a square one, in the least-squares sense.

    Examples
    --------
    >>> nearest_rotation(np.array([[1.001, 0.0], [0.0, 0.999]])).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)
