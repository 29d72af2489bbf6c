"""Positive definite systems of which many, that share rows or patterns, are solved."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri

Matrix = NDArray[np.float64]


def equal_rows(table: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Group equal rows.

    Parameters
    ----------
    table
        (N, M).

    Returns
    -------
    list of ndarray
        Indices of the rows of each group, in the order of the first ones.

    Examples
    --------
    >>> [rows.tolist() for rows in equal_rows(np.array([[True], [False], [True]]))]
    [[0, 2], [1]]
    """
    places: dict[bytes, list[int]] = {}
    for i, row in enumerate(np.packbits(table, axis=1)):
        places.setdefault(row.tobytes(), []).append(i)
    return [np.array(rows) for rows in places.values()]


def cholesky(matrix: Matrix) -> Matrix:
    """Factorise a positive definite matrix.

    Parameters
    ----------
    matrix
        (N, N) symmetric.

    Returns
    -------
    ndarray
        (N, N) in Fortran's order; its lower triangle L, with L Lᵀ the matrix. Above the diagonal
        are remainders.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not positive definite.

    Examples
    --------
    >>> np.tril(cholesky(np.array([[4.0, 2.0], [2.0, 2.0]])))
    array([[2., 0.],
           [1., 1.]])
    """
    factor, failed = dpotrf(matrix.T, lower=True, clean=False)
    if failed:
        raise np.linalg.LinAlgError(f"row {failed} of {len(matrix)}: not positive definite")
    return np.asarray(factor)


def inverse(matrix: Matrix) -> Matrix:
    """Invert a positive definite matrix by its Cholesky factor.

    Parameters
    ----------
    matrix
        (N, N).

    Returns
    -------
    ndarray
        (N, N), symmetric.

    Examples
    --------
    >>> inverse(np.array([[4.0, 2.0], [2.0, 2.0]])).round(12)
    array([[ 0.5, -0.5],
           [-0.5,  1. ]])
    """
    lower = dpotri(cholesky(matrix), lower=True, overwrite_c=True)[0]
    return np.where(np.tri(len(matrix), dtype=bool), lower, lower.T)
