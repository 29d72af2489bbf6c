"""Functional connectivity: correlations (P, P) of a parcel series (T, P)."""

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.parcels.sampling import rows_with_data


def pearson(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation of all pairs of parcels.

    Parameters
    ----------
    series
        (T, P), NaN in parcels without data and in bad or censored volumes, which are left out.

    Returns
    -------
    ndarray
        (P, P); NaN where a parcel has no data or does not vary.

    Examples
    --------
    >>> pearson(np.array([[0.0, 1.0, np.nan], [1.0, 0.0, np.nan], [2.0, -1.0, np.nan]])).round(3)
    array([[ 1., -1., nan],
           [-1.,  1., nan],
           [nan, nan, nan]])
    """
    good = rows_with_data(series)
    used = series if good.all() else series[good]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.corrcoef(used.T))


def fisher_z(matrix: NDArray[np.floating]) -> NDArray[np.floating]:
    """Fisher z of the correlations above the diagonal.

    Parameters
    ----------
    matrix
        (P, P).

    Returns
    -------
    ndarray
        (P·(P − 1) / 2,) row by row.

    Examples
    --------
    >>> fisher_z(np.array([[1.0, 0.5], [0.5, 1.0]])).round(4)
    array([0.5493])
    """
    pairs = matrix[np.triu_indices(len(matrix), k=1)]
    # a correlation that is 1 after rounding would be infinite
    return np.asarray(np.arctanh(np.clip(pairs, -0.999999, 0.999999)))
