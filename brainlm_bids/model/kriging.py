"""Prediction of hidden values of a parcel from its own visible ones, by their autocorrelation.

Series (P, T), visible (P, T) bool; float64. Only visible values are used.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.linalg import cho_factor, cho_solve, toeplitz
from scipy.linalg.lapack import dpotri

Matrix = NDArray[np.float64]
LAGS = 200  # volumes; longer lags count as uncorrelated
NUGGET = 1e-3  # white noise, × the variance
REACH = 40  # visible volumes used on both sides of the hidden ones


def autocorrelation(centred: Matrix, visible: NDArray[np.bool_]) -> Matrix:
    """Estimate the autocorrelation that the parcels have in common, from visible values.

    Products of values k volumes apart, both visible, are averaged over time and over parcels, each
    parcel having been scaled to unit variance. Hann's window tapers them to 0 at `LAGS` volumes,
    and negative values of their spectrum are set to 0, so that the result is a covariance.

    Parameters
    ----------
    centred
        (P, T) series with a mean of 0.
    visible
        (P, T) whether a value may be used.

    Returns
    -------
    ndarray
        (T,) autocorrelation at lags 0 … T − 1; it begins with 1.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal((50, 400))
    >>> abs(autocorrelation(noise, np.ones(noise.shape, dtype=bool))[1:]).max() < 0.03
    np.True_
    """
    n_volumes = centred.shape[1]
    n = next_fast_len(2 * n_volumes, real=True)  # no lag wraps around
    counts = np.maximum(visible.sum(axis=1, keepdims=True), 1)
    variance = np.where(visible, centred, 0) ** 2
    scale = np.sqrt(variance.sum(axis=1, keepdims=True) / counts)
    used = scale[:, 0] > 0
    unit = np.where(visible, centred, 0)[used] / scale[used]
    products = _summed(unit, n)[:n_volumes]
    pairs = np.rint(_summed(visible[used].astype(np.float64), n)[:n_volumes])
    last = min(LAGS, n_volumes)
    taper = 0.5 + 0.5 * np.cos(np.pi * np.minimum(np.arange(n_volumes) / last, 1))
    raw = np.where(pairs > 0, products / np.maximum(pairs, 1), 0) * taper
    spectrum = np.fft.rfft(np.concatenate([raw, [0.0], raw[:0:-1]])).real
    result = np.fft.irfft(np.clip(spectrum, 0, None), 2 * n_volumes)[:n_volumes]
    if result[0] <= 0:  # no parcel has data
        return np.asarray(np.eye(1, n_volumes)[0])
    return np.asarray(result / result[0])


def _summed(rows: Matrix, n: int) -> Matrix:
    """Sum over rows of the products of values k columns apart, (n,)."""
    power = np.square(np.abs(np.fft.rfft(rows, n, axis=1))).sum(axis=0)
    return np.asarray(np.fft.irfft(power, n))


def predict_from_time(centred: Matrix, visible: NDArray[np.bool_]) -> Matrix:
    """Predict hidden values of each parcel from its own visible values (simple kriging).

    The best linear prediction under the covariance of `autocorrelation`, with white noise of
    `NUGGET` times the variance, from all visible volumes between `REACH` before the first and
    `REACH` after the last hidden one. One autocorrelation serves all parcels, since that of a
    single recording is too noisy: with a parcel's own, predictions of real data are worse. Parcels
    that are visible in the same volumes have the same weights, which are computed once.

    Parameters
    ----------
    centred
        (P, T) series with a mean of 0; hidden values are not used.
    visible
        (P, T) whether a value may be used.

    Returns
    -------
    ndarray
        (P, T); visible values are unchanged, 0 where the parcel has no visible value nearby.

    References
    ----------
    Cressie N (1993). Statistics for spatial data. Wiley, chapter 3.

    Examples
    --------
    >>> slow = np.sin(np.arange(100) / 20) * np.ones((4, 1))
    >>> visible = np.ones(slow.shape, dtype=bool)
    >>> visible[0, 50:55] = False
    >>> bool(abs(predict_from_time(slow, visible) - slow).max() < 0.05)
    True
    """
    result = np.where(visible, centred, 0.0)
    hidden = np.flatnonzero(~visible.all(axis=0))
    if not hidden.size:
        return result
    part = slice(max(int(hidden[0]) - REACH, 0), int(hidden[-1]) + REACH + 1)
    shown, values = visible[:, part], result[:, part]
    correlation = autocorrelation(result, visible)[: shown.shape[1]].copy()
    correlation[0] += NUGGET
    covariance = toeplitz(correlation)
    precision = inverse(covariance)
    # Hidden values are 0 here, so this is the part of the visible ones.
    weighted = values @ precision
    for rows in equal_rows(shown):
        seen = shown[rows[0]]
        if seen.all() or not seen.any():
            continue
        at = np.ix_(rows, ~seen)
        if 2 * seen.sum() > len(seen):  # two equal solutions: the smaller system
            factor = cho_factor(precision[np.ix_(~seen, ~seen)], check_finite=False)
            values[at] = -cho_solve(factor, weighted[at].T, check_finite=False).T
        else:
            factor = cho_factor(covariance[np.ix_(seen, seen)], check_finite=False)
            known = cho_solve(factor, values[np.ix_(rows, seen)].T, check_finite=False)
            values[at] = known.T @ covariance[np.ix_(seen, ~seen)]
    return result


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
    factor, _ = cho_factor(matrix, lower=True, check_finite=False)
    lower = np.tril(dpotri(factor, lower=True)[0])
    return np.asarray(lower + np.tril(lower, -1).T)
