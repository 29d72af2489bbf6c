"""Baselines of forecasts: predict the next volumes from the volumes seen so far.

seen (T, P) -> (H, P), where volume h is h + 1 volumes ahead of the last one seen. Everything is
fitted to `seen` alone; no baseline uses later volumes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Forecaster = Callable[[ArrayLike, int], Array]
MAXIMUM_ORDER = 10
VOLUMES_PER_COEFFICIENT = 5
# × the mean eigenvalue of the lagged products; the one with the best forecasts is used
PENALTIES = tuple(10.0 ** np.arange(-3, 4.0))
HELD_OUT = 0.25  # last share of the seen volumes, on which the penalty is chosen


class Autoregression(NamedTuple):
    """Models x(t) − μ = Σ φ_k (x(t − k) − μ) + e of P parcels.

    Attributes
    ----------
    mean
        (P,) μ.
    coefficients
        (P, K) φ, 0 beyond a parcel's order.
    order
        (P,) order of each model.
    variance
        (P,) variance of e.
    """

    mean: Array
    coefficients: Array
    order: NDArray[np.int64]
    variance: Array


def fit_autoregression(seen: ArrayLike, order: int | None = None) -> Autoregression:
    """Fit an autoregression to each parcel by the Yule–Walker equations (Levinson–Durbin).

    The biased autocovariance makes every model stationary, so that forecasts decay to the mean.
    Constant parcels have order 0.

    Parameters
    ----------
    seen
        (T, P) volumes.
    order
        Order of all models. None: for each parcel the order of 0 … 10 (fewer in short series) with
        the smallest AIC = T log σ² + 2 p.

    Returns
    -------
    Autoregression
        A model for each parcel.

    Raises
    ------
    ValueError
        If there are not more volumes than coefficients.

    References
    ----------
    Akaike H (1974). A new look at the statistical model identification. IEEE Transactions on
    Automatic Control 19:716-723.
    """
    values = np.asarray(seen, dtype=np.float64)
    n_volumes, n_parcels = values.shape
    highest = min(MAXIMUM_ORDER, n_volumes // VOLUMES_PER_COEFFICIENT) if order is None else order
    if not 0 <= highest < n_volumes:
        raise ValueError(f"order {highest} for {n_volumes} volumes")
    mean = values.mean(axis=0)
    covariance = _autocovariance(values - mean, highest)
    # the rounding errors of a constant parcel are not variance
    varies = covariance[0] > 1e-20 * (1 + mean**2)
    covariance = np.where(varies, covariance, 0)
    models, variances = _levinson_durbin(covariance)
    if order is None:
        with np.errstate(divide="ignore"):
            criterion = n_volumes * np.log(variances) + 2 * np.arange(highest + 1)[:, None]
        chosen = np.where(varies, criterion.argmin(axis=0), 0)
    else:
        chosen = np.where(varies, highest, 0)
    parcels = np.arange(n_parcels)
    return Autoregression(mean, models[chosen, parcels], chosen, variances[chosen, parcels])


def _autocovariance(centred: Array, highest: int) -> Array:
    """(K + 1, P), divided by T at every lag."""
    n = len(centred)
    return np.stack([(centred[k:] * centred[: n - k]).sum(axis=0) / n for k in range(highest + 1)])


def _levinson_durbin(covariance: Array) -> tuple[Array, Array]:
    """Coefficients (K + 1, P, K) and innovation variances (K + 1, P) of the orders 0 … K."""
    highest, n_parcels = len(covariance) - 1, covariance.shape[1]
    models = np.zeros((highest + 1, n_parcels, highest))
    variances = np.empty((highest + 1, n_parcels))
    variances[0] = covariance[0]
    for k in range(1, highest + 1):
        last = models[k - 1, :, : k - 1]
        rest = covariance[k] - (last * covariance[k - 1 : 0 : -1].T).sum(axis=1)
        usable = variances[k - 1] > 1e-12 * covariance[0]
        reflection = np.where(usable, rest / np.where(usable, variances[k - 1], 1), 0)
        models[k, :, : k - 1] = last - reflection[:, None] * last[:, ::-1]
        models[k, :, k - 1] = reflection
        variances[k] = variances[k - 1] * (1 - reflection**2)
    return models, variances


def autoregressive(seen: ArrayLike, n_volumes: int, order: int | None = None) -> Array:
    """Forecast each parcel from its own past, see `fit_autoregression`.

    Parameters
    ----------
    seen
        (T, P) volumes.
    n_volumes
        Number of volumes to predict, H.
    order
        Order of the models, or None to choose it by AIC.

    Returns
    -------
    ndarray
        (H, P).

    Examples
    --------
    >>> seen = np.array([[1.0], [-1.0]] * 50)
    >>> bool(autoregressive(seen, 1, order=1)[0, 0] > 0.9)
    True
    """
    values = np.asarray(seen, dtype=np.float64)
    model = fit_autoregression(values, order)
    reach = model.coefficients.shape[1]
    # the latest volume first, like the coefficients
    past = (values[len(values) - reach :] - model.mean)[::-1].T
    forecast = np.empty((n_volumes, values.shape[1]))
    for step in range(n_volumes):
        forecast[step] = (model.coefficients * past).sum(axis=1)
        past = np.hstack([forecast[step][:, None], past])[:, :reach]
    return forecast + model.mean


def vector_autoregressive(seen: ArrayLike, n_volumes: int) -> Array:
    """Forecast all parcels from all: x(t + 1) − μ = A (x(t) − μ), A by ridge regression.

    The penalty is the one with the best forecasts, one volume ahead, of the last quarter of `seen`
    when fitted to the first three. A model that would grow (spectral radius above 1) is scaled down
    to a radius of 1.

    Parameters
    ----------
    seen
        (T, P) volumes.
    n_volumes
        Number of volumes to predict, H.

    Returns
    -------
    ndarray
        (H, P).
    """
    values = np.asarray(seen, dtype=np.float64)
    mean = values.mean(axis=0)
    centred = values - mean
    forecast = np.zeros((n_volumes, values.shape[1]))
    if centred.any():
        transition = _transition(centred, _best_penalty(values))
        radius = float(np.abs(np.linalg.eigvals(transition)).max())
        transition /= max(radius, 1.0)
        state = centred[-1]
        for step in range(n_volumes):
            state = transition @ state
            forecast[step] = state
    return forecast + mean


def _transition(centred: Array, penalty: float) -> Array:
    """A (P, P) = Y'ᵀ Y (YᵀY + λI)⁻¹ for volumes Y and those after them Y', in its dual form."""
    before, after = centred[:-1], centred[1:]
    gram = before @ before.T
    scale = float(np.trace(gram)) / len(gram) or 1.0
    weights = np.linalg.solve(gram + penalty * scale * np.eye(len(gram)), before)
    return np.asarray(after.T @ weights)


def _best_penalty(values: Array) -> float:
    n_fitted = len(values) - max(int(HELD_OUT * len(values)), 1)
    mean = values[:n_fitted].mean(axis=0)
    centred = values - mean
    fitted, before, after = centred[:n_fitted], centred[n_fitted - 1 : -1], centred[n_fitted:]
    if not fitted.any():
        return PENALTIES[-1]
    errors = [
        float(np.square(before @ _transition(fitted, penalty).T - after).sum())
        for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmin(errors))]


def persistence(seen: ArrayLike, n_volumes: int) -> Array:
    """Repeat the last volume.

    Parameters
    ----------
    seen
        (T, P) volumes.
    n_volumes
        Number of volumes to predict, H.

    Returns
    -------
    ndarray
        (H, P).
    """
    return np.repeat(np.asarray(seen, dtype=np.float64)[-1:], n_volumes, axis=0)


def median(seen: ArrayLike, n_volumes: int) -> Array:
    """Repeat each parcel's median over the volumes seen.

    Parameters
    ----------
    seen
        (T, P) volumes.
    n_volumes
        Number of volumes to predict, H.

    Returns
    -------
    ndarray
        (H, P).

    Examples
    --------
    >>> median([[1.0], [2.0], [6.0]], 2)
    array([[2.],
           [2.]])
    """
    middle = np.median(np.asarray(seen, dtype=np.float64), axis=0)
    return np.repeat(middle[None], n_volumes, axis=0)


# name in the tables -> forecaster; the first two do not model dynamics
FORECASTERS: dict[str, Forecaster] = {
    "median": median,
    "persistence": persistence,
    "autoregressive": autoregressive,
    "vector_autoregressive": vector_autoregressive,
}
