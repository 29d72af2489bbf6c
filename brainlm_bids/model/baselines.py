"""Baselines of reconstruction: predictions from the visible part of a recording.

truth (P, T) and visible (P, T) bool -> (P, T) float32; only visible values are used. In the window
that is predicted, these are the values that the model sees in the same pass. The other volumes of
the recording are all visible, because the baselines, unlike the model, were trained on no other
data.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from brainlm_bids.model.kriging import equal_rows, inverse, predict_from_time

Array = NDArray[np.float32]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # × the parcels' mean variance
ROUNDS = 3
NAMES = ("parcel_mean", "time", "ridge", "ridge_time")


def predictions(truth: Array, visible: Mask) -> dict[str, Array]:
    """Make the predictions of all baselines.

    Parameters
    ----------
    truth
        (P, T) recording.
    visible
        (P, T) whether a value may be used.

    Returns
    -------
    dict
        For each of `NAMES`, the result (P, T) of the function of that name; `ridge_time` and
        `ridge` share one fit.

    Examples
    --------
    >>> truth = np.random.default_rng(0).standard_normal((5, 60)).astype(np.float32)
    >>> visible = np.ones(truth.shape, dtype=bool)
    >>> visible[:2, 20:40] = False
    >>> list(predictions(truth, visible))
    ['parcel_mean', 'time', 'ridge', 'ridge_time']
    """
    mean = _visible_mean(truth, visible)[:, None]
    fit = _fit_ridge(np.where(visible, truth - mean, 0).astype(np.float64), visible)
    made = {
        "parcel_mean": np.broadcast_to(mean, truth.shape),
        "time": mean + predict_from_time(truth - mean, visible),
        "ridge": mean + fit.guess,
        "ridge_time": mean + fit.with_time(visible),
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


def parcel_mean(truth: Array, visible: Mask) -> Array:
    """Predict each parcel's mean over its visible values.

    Parameters
    ----------
    truth
        (P, T) recording.
    visible
        (P, T) whether a value may be used.

    Returns
    -------
    ndarray
        (P, T); the mean of all visible values for parcels without any.

    Examples
    --------
    >>> truth = np.array([[1.0, 3.0, 9.0]], dtype=np.float32)
    >>> parcel_mean(truth, np.array([[True, True, False]])).tolist()
    [[2.0, 2.0, 2.0]]
    """
    mean = _visible_mean(truth, visible)
    return np.broadcast_to(mean[:, None].astype(np.float32), truth.shape)


def time(truth: Array, visible: Mask) -> Array:
    """Predict hidden volumes of a parcel from its own visible ones, see `predict_from_time`.

    Neighbouring samples of a series that was brought from a longer repetition time to 0.735 s are
    so alike that this baseline predicts hidden patches of white noise.

    Parameters
    ----------
    truth
        (P, T) recording.
    visible
        (P, T) whether a value may be used.

    Returns
    -------
    ndarray
        (P, T); visible values are unchanged.

    Examples
    --------
    >>> truth = np.cos(np.arange(90) / 15).astype(np.float32)[None]
    >>> visible = np.arange(90)[None] % 30 > 3
    >>> bool(abs(time(truth, visible) - truth).max() < 0.1)
    True
    """
    mean = _visible_mean(truth, visible)[:, None]
    return np.asarray(mean + predict_from_time(truth - mean, visible), dtype=np.float32)


def ridge(truth: Array, visible: Mask) -> Array:
    """Predict masked parcels by ridge regression on those that are visible in the same volume.

    The coefficients, C_hv (C_vv + λI)⁻¹, come from the covariance C of the visible values, for each
    pair of parcels over the volumes in which both are visible, without its negative eigenvalues;
    then, `ROUNDS` times, from the covariance of the recording with its masked values as just
    predicted (after regularised EM, without the variance of imputed values). λ is the penalty that
    best predicts each visible parcel of one half of the volumes from the others, with C from the
    other half. In a recording of one window with 3 of 4 values masked, few pairs are ever visible
    together, so the prediction is poor.

    Parameters
    ----------
    truth
        (P, T) recording.
    visible
        (P, T) whether a value may be used.

    Returns
    -------
    ndarray
        (P, T); visible values are unchanged.

    References
    ----------
    Schneider T (2001). Analysis of incomplete climate data: estimation of mean values and
    covariance matrices and imputation of missing values. Journal of Climate 14:853-871.
    """
    mean = _visible_mean(truth, visible)[:, None]
    fit = _fit_ridge(np.where(visible, truth - mean, 0).astype(np.float64), visible)
    return np.asarray(mean + fit.guess, dtype=np.float32)


def ridge_time(truth: Array, visible: Mask) -> Array:
    """Predict masked values from other parcels, and what these leave from the parcel's own past.

    To the prediction of `ridge` is added that of its error (regression kriging): the errors at the
    parcel's visible volumes, each predicted from the other visible parcels without itself, tell by
    `predict_from_time` those of the hidden volumes.

    Parameters
    ----------
    truth
        (P, T) recording.
    visible
        (P, T) whether a value may be used.

    Returns
    -------
    ndarray
        (P, T); visible values are unchanged.

    References
    ----------
    Hengl T, Heuvelink GBM, Rossiter DG (2007). About regression-kriging: from equations to case
    studies. Computers & Geosciences 33:1301-1315.
    """
    return predictions(truth, visible)["ridge_time"]


class _Ridge:
    """Ridge regression between parcels, for any set of seen ones.

    Systems (C_vv + λI) of many seen parcels are solved through the inverse F of C + λI, whose
    blocks for seen (v) and hidden (h) parcels give (C_vv + λI)⁻¹ = F_vv − F_vh F_hh⁻¹ F_hv.
    """

    def __init__(self, covariance: Matrix, penalty: float) -> None:
        self.system = covariance + penalty * np.eye(len(covariance))
        self._inverse: Matrix | None = None

    @property
    def inverse(self) -> Matrix:
        """(P, P), computed once."""
        if self._inverse is None:
            self._inverse = inverse(self.system)
        return self._inverse

    def hidden(self, seen: Mask, values: Matrix) -> Matrix:
        """Predict the hidden parcels (H, N) from the seen; hidden values (P, N) are 0."""
        if _few_hidden(seen):
            blocks = self.inverse[~seen]
            factor = cho_factor(blocks[:, ~seen], check_finite=False)
            return np.asarray(-cho_solve(factor, blocks @ values, check_finite=False))
        factor = cho_factor(self.system[np.ix_(seen, seen)], check_finite=False)
        weights = cho_solve(factor, values[seen], check_finite=False)
        return np.asarray(self.system[np.ix_(~seen, seen)] @ weights)

    def left_out(self, seen: Mask, values: Matrix) -> Matrix:
        """Errors (V, N) of each seen parcel when the other seen ones predict it.

        With K = (C_vv + λI)⁻¹, they are (K x)_i / K_ii. Hidden values (P, N) are 0.
        """
        if not _few_hidden(seen):
            part = inverse(self.system[np.ix_(seen, seen)])
            return np.asarray((part @ values[seen]) / part.diagonal()[:, None])
        product, diagonal = self.inverse @ values, self.inverse.diagonal()
        if not seen.all():
            blocks = self.inverse[~seen]
            factor = cho_factor(blocks[:, ~seen], check_finite=False)
            weights = cho_solve(factor, blocks, check_finite=False)
            product = product - weights.T @ product[~seen]
            diagonal = diagonal - (blocks * weights).sum(axis=0)
        return np.asarray(product[seen] / diagonal[seen, None])


def _few_hidden(seen: Mask) -> bool:
    return bool(2 * np.count_nonzero(seen) > len(seen))


class _Fit(NamedTuple):
    """Ridge regression of a recording without its parcels' means: (P, T) predictions, and how."""

    guess: Matrix
    shift: Matrix
    regression: _Ridge
    groups: list[NDArray[np.int64]]

    def with_time(self, visible: Mask) -> Matrix:
        """Add to the predictions what the errors of visible volumes tell of hidden ones."""
        values = np.where(visible, self.guess - self.shift, 0)
        errors = np.zeros_like(values)
        for volumes in self.groups:
            seen = visible[:, volumes[0]]
            if seen.any():
                found = self.regression.left_out(seen, values[:, volumes])
                errors[np.ix_(seen, volumes)] = found
        return np.asarray(self.guess + np.where(visible, 0, predict_from_time(errors, visible)))


def _fit_ridge(centred: Matrix, visible: Mask) -> _Fit:
    groups = equal_rows(visible.T)
    penalty = _best_penalty(centred, visible, groups)
    shift = np.zeros((len(centred), 1))
    regression = _Ridge(_covariance(centred, visible), penalty)
    guess = _impute(centred, visible, groups, regression)
    for _ in range(ROUNDS):
        shift = guess.mean(axis=1, keepdims=True)
        covariance = (guess - shift) @ (guess - shift).T / guess.shape[1]
        regression = _Ridge(covariance, penalty)
        guess = shift + _impute(guess - shift, visible, groups, regression)
    return _Fit(guess, shift, regression, groups)


def _impute(
    centred: Matrix, visible: Mask, groups: list[NDArray[np.int64]], regression: _Ridge
) -> Matrix:
    """Keep visible values, predict masked ones; 0 where no parcel is visible."""
    result = np.where(visible, centred, 0)
    for volumes in groups:
        seen = visible[:, volumes[0]]
        if seen.any() and not seen.all():
            result[np.ix_(~seen, volumes)] = regression.hidden(seen, result[:, volumes])
    return result


def _visible_mean(truth: Array, visible: Mask) -> Matrix:
    count = visible.sum(axis=1)
    total = np.where(visible, truth, 0).sum(axis=1, dtype=np.float64)
    overall = total.sum() / max(int(count.sum()), 1)
    return np.where(count > 0, total / np.maximum(count, 1), overall)


def _covariance(centred: Matrix, visible: Mask) -> Matrix:
    """(P, P) without negative eigenvalues, which gaps cause; from pairs that are visible together.

    Pairs that never are count as uncorrelated.
    """
    shown = visible.astype(np.float64)
    covariance = np.asarray((centred @ centred.T) / np.maximum(shown @ shown.T, 1))
    if visible.all():
        return covariance
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.clip(values, 0, None)) @ vectors.T)


def _best_penalty(centred: Matrix, visible: Mask, groups: list[NDArray[np.int64]]) -> float:
    """The penalty with the smallest error when each half of the volumes predicts the other."""
    variance = float((centred**2).sum() / max(int(visible.sum()), 1))
    penalties = np.array(PENALTIES) * (variance or 1.0)
    used = np.flatnonzero(visible.any(axis=0))
    if not used.size:
        return float(penalties[-1])
    late = np.arange(visible.shape[1]) > np.median(used)
    tests: list[tuple[Matrix, list[NDArray[np.int64]]]] = []
    for half in (late, ~late):
        tested = [volumes[half[volumes]] for volumes in groups if visible[:, volumes[0]].any()]
        covariance = _covariance(centred[:, ~half], visible[:, ~half])
        tests.append((covariance, [volumes for volumes in tested if volumes.size]))

    @cache
    def error(i: int) -> float:
        total = 0.0
        for covariance, tested in tests:
            regression = _Ridge(covariance, float(penalties[i]))
            for volumes in tested:
                found = regression.left_out(visible[:, volumes[0]], centred[:, volumes])
                total += float(np.square(found).sum())
        return total

    # The error falls towards one minimum: from the middle, go downhill.
    best = len(penalties) // 2
    while True:
        around = range(max(best - 1, 0), min(best + 2, len(penalties)))
        lowest = min(around, key=error)
        if lowest == best:
            return float(penalties[best])
        best = lowest
