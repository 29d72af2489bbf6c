"""Baselines of reconstruction: predictions from the visible part of a recording.

truth (P, T) and visible (P, T) bool -> (P, T) float32; only visible values are used. In the window
that is predicted, these are the values that the model sees in the same pass. The other volumes of
the recording are all visible, because the baselines, unlike the model, were trained on no other
data.
"""

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.model.kriging import Kriging, predict_from_time
from brainlm_bids.model.ridge import fit_ridge

Array = NDArray[np.float32]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
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
    centred = np.where(visible, truth - mean, 0).astype(np.float64)
    fit, kriging = fit_ridge(centred, visible), Kriging(visible)
    made = {
        "parcel_mean": np.broadcast_to(mean, truth.shape),
        "time": mean + kriging.predict(centred),
        "ridge": mean + fit.guess,
        "ridge_time": mean + fit.with_time(kriging),
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
    then, `ridge.ROUNDS` times, from the covariance of the recording with its masked values as just
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
    fit = fit_ridge(np.where(visible, truth - mean, 0).astype(np.float64), visible)
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


def _visible_mean(truth: Array, visible: Mask) -> Matrix:
    count = visible.sum(axis=1)
    total = np.where(visible, truth, 0).sum(axis=1, dtype=np.float64)
    overall = total.sum() / max(int(count.sum()), 1)
    return np.where(count > 0, total / np.maximum(count, 1), overall)
