"""Filters over time, and the scaling to a grand mean of 10000.

A filter is a float64 matrix (T, T), made from the number of volumes, the repetition time and a
cut-off in seconds. `matrix @ series (T, V)` filters BOLD, parcels and confounds alike. Bad volumes
have weight 0: what a filter makes of the good ones does not depend on them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.parcels.sampling import interpolation_matrix

FloatArray = NDArray[np.float64]
# The median of the brain after scaling, as in FEAT.
GRAND_MEAN = 10000.0


def highpass_matrix(
    n_volumes: int, tr: float, cutoff: float = 100.0, good: NDArray[np.bool_] | None = None
) -> FloatArray:
    """FSL's high-pass filter, mean removed.

    At every volume a line is fitted to the neighbours by least squares, with Gaussian weights of
    σ = cutoff / 2, out to floor(3σ) volumes, and its value is subtracted; then the mean over
    time is removed (``fslmaths -bptf``: half amplitude near 0.004 Hz at 100 s).

    Parameters
    ----------
    n_volumes
        T.
    tr
        Repetition time, s.
    cutoff
        Full width, s; FEAT's ``paradigm_hp``.
    good
        (T,) False for volumes that take part neither in the lines nor in the mean; None: all are
        good.

    Returns
    -------
    ndarray
        (T, T) float64.

    Raises
    ------
    ValueError
        If T, TR or cut-off are not positive.

    Examples
    --------
    >>> line = np.linspace(0, 1, 40)
    >>> bool(np.allclose(highpass_matrix(40, 2.0) @ line, 0))
    True
    """
    delta = _lags(n_volumes)
    sigma = _sigma_volumes(n_volumes, tr, cutoff)
    weights = np.where(np.abs(delta) <= np.floor(3 * sigma), np.exp(-0.5 * (delta / sigma) ** 2), 0)
    if good is not None:
        weights = weights * good
    n = weights.sum(axis=1, keepdims=True)
    a = (weights * delta).sum(axis=1, keepdims=True)
    c = (weights * delta**2).sum(axis=1, keepdims=True)
    denominator = c * n - a**2
    # a window of one volume holds no line: FSL leaves the volume as it is
    fits = denominator > 0
    smoother = np.where(fits, weights * (c - a * delta) / np.where(fits, denominator, 1), 0)
    residual = np.eye(n_volumes) - smoother
    return np.asarray(residual - (residual if good is None else residual[good]).mean(axis=0))


def gaussian_lowpass_matrix(
    n_volumes: int, tr: float, cutoff: float, good: NDArray[np.bool_] | None = None
) -> FloatArray:
    """FSL's low-pass filter: a Gaussian of σ = cutoff / 2 seconds.

    The kernel has floor(5σ) + 2 volumes on each side and sums to 1; before the first and after the
    last volume their values are repeated (``fslmaths -bptf``).

    Parameters
    ----------
    n_volumes
        T.
    tr
        Repetition time, s.
    cutoff
        Full width, s, on the same scale as that of `highpass_matrix`.
    good
        (T,) False for volumes that are interpolated between their good neighbours first; None: all
        are good.

    Returns
    -------
    ndarray
        (T, T) float64; rows sum to 1, so the mean level stays.

    Raises
    ------
    ValueError
        If T, TR or cut-off are not positive.

    Examples
    --------
    >>> bool(np.allclose(gaussian_lowpass_matrix(40, 2.0, cutoff=8.0) @ np.ones(40), 1))
    True
    """
    sigma = _sigma_volumes(n_volumes, tr, cutoff)
    reach = int(5 * sigma) + 2
    lags = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (lags / sigma) ** 2)
    kernel /= kernel.sum()
    rows = np.repeat(np.arange(n_volumes), len(lags))
    columns = np.clip(np.add.outer(np.arange(n_volumes), lags), 0, n_volumes - 1).ravel()
    matrix = np.zeros((n_volumes, n_volumes))
    np.add.at(matrix, (rows, columns), np.tile(kernel, n_volumes))
    return matrix if good is None else matrix @ interpolation_matrix(good)


def grand_mean_factor(
    data: NDArray[Any], mask: NDArray[np.bool_] | None = None, target: float = GRAND_MEAN
) -> float:
    """Factor that scales a run to a median of `target` in the brain.

    Parameters
    ----------
    data
        (X, Y, Z, T) with `mask` (X, Y, Z), or a series (T, V) with `mask` (V,) or None.
    mask
        The brain.
    target
        10000 as in FEAT.

    Returns
    -------
    float
        target / median over all finite values in the mask, all volumes.

    Raises
    ------
    ValueError
        If the mask is empty or the median is not positive.

    Examples
    --------
    >>> grand_mean_factor(np.full((5, 3), 500.0))
    20.0
    """
    values = np.asarray(data)
    if mask is not None:
        inside = np.asarray(mask, dtype=bool)
        values = values[inside] if values.ndim == 4 else values[:, inside]
    if not np.isfinite(values).all():
        values = values[np.isfinite(values)]
    median = float(np.median(values)) if values.size else float("nan")
    if not (np.isfinite(median) and median > 0):
        raise ValueError(f"the median within the brain mask is {median}, it must be positive")
    return target / median


def _lags(n_volumes: int) -> FloatArray:
    """(T, T): column's volume minus row's volume."""
    volumes = np.arange(n_volumes, dtype=np.float64)
    return volumes[None, :] - volumes[:, None]


def _sigma_volumes(n_volumes: int, tr: float, cutoff: float) -> float:
    if n_volumes < 1 or not tr > 0 or not cutoff > 0:
        raise ValueError(f"no filter for {n_volumes} volumes, TR {tr} s, cut-off {cutoff} s")
    return cutoff / (2 * tr)
