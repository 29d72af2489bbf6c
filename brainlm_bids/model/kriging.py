"""Prediction of hidden values of a parcel from its own visible ones, by their autocorrelation.

Series (P, T), visible (P, T) bool; float64. Only visible values are used.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg.lapack import dpotrs

from brainlm_bids.model.systems import cholesky, equal_rows, inverse

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
LAGS = 200  # volumes; longer lags count as uncorrelated
NUGGET = 1e-3  # white noise, × the variance
ROUNDING = 1e-9  # × the largest standard deviation: a parcel of less has no data
REACH = 40  # visible volumes used on both sides of the hidden ones


def autocorrelation(centred: Matrix, visible: Mask) -> Matrix:
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
    return Kriging(visible).autocorrelation(np.where(visible, centred, 0.0))


def predict_from_time(centred: Matrix, visible: Mask) -> Matrix:
    """Predict hidden values of each parcel from its own visible values (simple kriging).

    The best linear prediction under the covariance of `autocorrelation`, with white noise of
    `NUGGET` times the variance, from all visible volumes between `REACH` before the first and
    `REACH` after the last hidden one. One autocorrelation serves all parcels, since that of a
    single recording is too noisy: with a parcel's own, predictions of real data are worse.

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
    return Kriging(visible).predict(centred)


class Kriging:
    """`autocorrelation` and `predict_from_time` of several series that are hidden alike.

    Volumes in which no parcel is hidden count for all parcels alike: what they tell is subtracted
    once (conditional mean and covariance), and each parcel's system is left with the others.

    Parameters
    ----------
    visible
        (P, T) whether a value may be used.

    Examples
    --------
    >>> slow = np.sin(np.arange(100) / 20) * np.ones((4, 1))
    >>> visible = np.ones(slow.shape, dtype=bool)
    >>> visible[0, 50:55] = False
    >>> bool(abs(Kriging(visible).predict(slow) - slow).max() < 0.05)
    True
    """

    def __init__(self, visible: Mask) -> None:
        self.visible = visible
        hidden = np.asarray(~visible.all(axis=0))
        places = np.flatnonzero(hidden)
        near = slice(0, 0)
        if places.size:
            near = slice(max(int(places[0]) - REACH, 0), int(places[-1]) + REACH + 1)
        self._gaps = places  # volumes in which a parcel is hidden
        self._whole = np.flatnonzero(~hidden[near]) + near.start  # those near them without any
        self._shown = visible[:, places]

    def autocorrelation(self, values: Matrix) -> Matrix:
        """Estimate the autocorrelation, as the function of this name.

        Parameters
        ----------
        values
            (P, T) series with a mean of 0; hidden values are 0.

        Returns
        -------
        ndarray
            (T,).
        """
        n_volumes = values.shape[1]
        counts = np.maximum(self.visible.sum(axis=1), 1)
        scale = np.sqrt(np.einsum("pt,pt->p", values, values) / counts)
        used = scale > ROUNDING * scale.max(initial=0)
        products = _summed(values / np.where(used, scale, 1)[:, None])
        pairs = self._pairs
        if not used.all():
            pairs = pairs - _summed(self.visible[~used].astype(np.float64))
        pairs = np.rint(pairs)
        last = min(LAGS, n_volumes)
        taper = 0.5 + 0.5 * np.cos(np.pi * np.arange(last) / last)
        raw = np.zeros(n_volumes)
        raw[:last] = products[:last] / np.maximum(pairs[:last], 1) * (pairs[:last] > 0) * taper
        spectrum = np.fft.rfft(np.concatenate([raw, [0.0], raw[:0:-1]])).real
        result = np.fft.irfft(np.clip(spectrum, 0, None), 2 * n_volumes)[:n_volumes]
        if result[0] <= 0:  # no parcel has data
            return np.asarray(np.eye(1, n_volumes)[0])
        return np.asarray(result / result[0])

    @cached_property
    def _pairs(self) -> Matrix:
        return _summed(self.visible.astype(np.float64))

    def predict(self, centred: Matrix) -> Matrix:
        """Predict hidden values, as `predict_from_time`.

        Parameters
        ----------
        centred
            (P, T) series with a mean of 0; hidden values are not used.

        Returns
        -------
        ndarray
            (P, T).
        """
        result = np.where(self.visible, centred, 0.0)
        if not self._gaps.size:
            return result
        correlation = self.autocorrelation(result)
        correlation[0] += NUGGET
        part = np.concatenate([self._gaps, self._whole])
        covariance = correlation[np.abs(part[:, None] - part)]
        n = len(self._gaps)
        told = np.zeros((n, 0))
        if self._whole.size:
            known = covariance[n:, n:]
            told = dpotrs(cholesky(known), covariance[n:, :n], lower=True)[0].T
        system = covariance[:n, :n] - told @ covariance[n:, :n]
        expected = result[:, self._whole] @ told.T
        shown = self._shown
        rest = np.where(shown, result[:, self._gaps] - expected, 0)
        guess = expected + self._from_gaps(rest, system)
        result[:, self._gaps] = np.where(shown, result[:, self._gaps], guess)
        return result

    def _from_gaps(self, rest: Matrix, covariance: Matrix) -> Matrix:
        """Predict (P, N) hidden values from visible ones; both as errors of `expected`."""
        result = np.zeros_like(rest)
        precision: Matrix | None = None
        for stack in self._stacks:
            if not stack.few_hidden:
                matrix = covariance.take(_pairs_of(stack.seen, stack.seen, len(covariance)))
                known = np.linalg.solve(matrix, rest.take(stack.places(stack.seen)))
                block = covariance.take(_pairs_of(stack.hidden, stack.seen, len(covariance)))
                result.ravel()[stack.places(stack.hidden)] = block @ known
                continue
            if precision is None:
                precision = inverse(covariance)
                weighted = rest @ precision
            matrix = precision.take(_pairs_of(stack.hidden, stack.hidden, len(covariance)))
            at = stack.places(stack.hidden)
            result.ravel()[at] = -np.linalg.solve(matrix, weighted.take(at))
        return result

    @cached_property
    def _stacks(self) -> list["_Stack"]:
        """Rows that see everything, or nothing, are in none."""
        stacks: dict[tuple[int, int], list[NDArray[np.int64]]] = {}
        for rows in equal_rows(self._shown):
            n_seen = int(self._shown[rows[0]].sum())
            if 0 < n_seen < len(self._gaps):
                stacks.setdefault((n_seen, len(rows)), []).append(rows)
        found = []
        for groups in stacks.values():
            rows = np.stack(groups)
            shown = self._shown[rows[:, 0]]
            seen, hidden = (np.nonzero(x)[1].reshape(len(rows), -1) for x in (shown, ~shown))
            found.append(_Stack(rows, seen, hidden))
        return found


class _Stack(NamedTuple):
    """G systems of equal size, each of K rows that are hidden alike.

    rows (G, K); of N columns, those that are seen (G, S) and hidden (G, H).
    """

    rows: NDArray[np.int64]
    seen: NDArray[np.int64]
    hidden: NDArray[np.int64]

    @property
    def few_hidden(self) -> bool:
        """Of two equal solutions, that with the smaller system."""
        return bool(self.hidden.shape[1] < self.seen.shape[1])

    def places(self, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """(G, S or H, K) of the rows' values in a flat table of N columns."""
        n = self.seen.shape[1] + self.hidden.shape[1]
        return np.asarray(self.rows[:, None, :] * n + columns[:, :, None])


def _pairs_of(rows: NDArray[np.int64], columns: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Places of blocks in a flat matrix with n columns: faster than two indices."""
    return rows[:, :, None] * n + columns[:, None, :]


def _summed(rows: Matrix) -> Matrix:
    """Sum over rows of the products of values 0, 1, … columns apart; true below `LAGS`."""
    n_columns = rows.shape[1]
    n = next_fast_len(n_columns + min(LAGS, n_columns), real=True)  # no such lag wraps around
    parts = rfft(rows, n, axis=1).view(np.float64).reshape(len(rows), -1, 2)
    return np.asarray(irfft(np.einsum("pfk,pfk->f", parts, parts), n))
