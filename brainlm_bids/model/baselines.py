"""Baselines of reconstruction: predictions from the visible part of a recording.

truth (P, T) and visible (P, T) bool -> (P, T) float32; only visible values are used. In the window
that is predicted, these are the values that the model sees in the same pass. The other volumes of
the recording are all visible, because the baselines, unlike the model, were trained on no other
data.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float32]
Matrix = NDArray[np.float64]
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # × the parcels' mean variance
ROUNDS = 3


def parcel_mean(truth: Array, visible: NDArray[np.bool_]) -> Array:
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


def ridge(truth: Array, visible: NDArray[np.bool_]) -> Array:
    """Predict masked parcels by ridge regression on those that are visible in the same volume.

    The coefficients, C_hv (C_vv + λI)⁻¹, come from the covariance C of the visible values, for each
    pair of parcels over the volumes in which both are visible; then, `ROUNDS` times, from the
    covariance of the recording with its masked values as just predicted (after regularised EM,
    without the variance of imputed values). λ is the penalty that best predicts each visible parcel
    of one half of the volumes from the others, with C from the other half. In a recording of one
    window with 3 of 4 values masked, few pairs are ever visible together, so the prediction is
    poor.

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
    mean = _visible_mean(truth, visible)
    centred = np.where(visible, truth - mean[:, None], 0).astype(np.float64)
    patterns, group = np.unique(visible, axis=1, return_inverse=True)
    groups = [np.flatnonzero(group.ravel() == i) for i in range(patterns.shape[1])]
    penalty = _best_penalty(centred, visible, groups)
    guess = _impute(centred, visible, groups, _covariance(centred, visible), penalty)
    for _ in range(ROUNDS):
        shift = guess.mean(axis=1, keepdims=True)
        covariance = (guess - shift) @ (guess - shift).T / guess.shape[1]
        guess = shift + _impute(guess - shift, visible, groups, covariance, penalty, complete=True)
    return (guess + mean[:, None]).astype(np.float32)


def _impute(
    centred: Matrix,
    visible: NDArray[np.bool_],
    groups: list[NDArray[np.int64]],
    covariance: Matrix,
    penalty: float,
    complete: bool = False,
) -> Matrix:
    """Keep visible values, predict masked ones from the covariance; 0 where no parcel is visible.

    `complete`: the covariance is that of data without gaps, so it has no negative eigenvalue.
    """
    result = np.where(visible, centred, 0)
    for volumes in groups:
        seen = visible[:, volumes[0]]
        if not seen.any() or seen.all():
            continue
        of_seen, known = covariance[np.ix_(seen, seen)], centred[np.ix_(seen, volumes)]
        if complete:
            np.fill_diagonal(of_seen, of_seen.diagonal() + penalty)
            weights = cho_solve(cho_factor(of_seen), known)
        else:
            values, vectors = np.linalg.eigh(of_seen)
            weights = (vectors / (np.clip(values, 0, None) + penalty)) @ (vectors.T @ known)
        result[np.ix_(~seen, volumes)] = covariance[np.ix_(~seen, seen)] @ weights
    return result


def _visible_mean(truth: Array, visible: NDArray[np.bool_]) -> Matrix:
    count = visible.sum(axis=1)
    total = np.where(visible, truth, 0).sum(axis=1, dtype=np.float64)
    overall = total.sum() / max(int(count.sum()), 1)
    return np.where(count > 0, total / np.maximum(count, 1), overall)


def _covariance(centred: Matrix, visible: NDArray[np.bool_]) -> Matrix:
    """(P, P), 0 for pairs that are never visible together."""
    shown = visible.astype(np.float64)
    return np.asarray((centred @ centred.T) / np.maximum(shown @ shown.T, 1))


def _best_penalty(
    centred: Matrix, visible: NDArray[np.bool_], groups: list[NDArray[np.int64]]
) -> float:
    """The penalty with the smallest error when each half of the volumes predicts the other."""
    variance = float((centred**2).sum() / max(int(visible.sum()), 1))
    penalties = np.array(PENALTIES) * (variance or 1.0)
    used = np.flatnonzero(visible.any(axis=0))
    if not used.size:
        return float(penalties[-1])
    late = np.arange(visible.shape[1]) > np.median(used)
    error = np.zeros(len(penalties))
    for half in (late, ~late):
        covariance = _covariance(centred[:, ~half], visible[:, ~half])
        for volumes in groups:
            tested, seen = volumes[half[volumes]], visible[:, volumes[0]]
            if not tested.size or not seen.any():
                continue
            values, vectors = np.linalg.eigh(covariance[np.ix_(seen, seen)])
            projected = vectors.T @ centred[np.ix_(seen, tested)]
            for i, penalty in enumerate(penalties):
                scale = 1 / (np.clip(values, 0, None) + penalty)
                # Leaving one parcel out: with K the inverse matrix, its error is (K x)_i / K_ii.
                residual = (vectors * scale) @ projected
                error[i] += float(((residual / ((vectors**2) @ scale)[:, None]) ** 2).sum())
    return float(penalties[error.argmin()])
