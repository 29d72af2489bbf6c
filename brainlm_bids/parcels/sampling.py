"""Sampling in time: a parcel series (T, P) is brought to the repetition time of the model.

Rows without data, which are bad or censored volumes, are filled before: those at the start and at
the end are cut off, the others interpolated.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix, csr_matrix

from brainlm_bids.notices import Kind, Notice, notice

# The shortest series that is embedded: one time patch of BrainLM's 13M network.
MINIMUM_VOLUMES = 20
# A series stays as it is where its repetition time differs by no more than this share. The Human
# Connectome Project (0.72 s), training data beside UK Biobank (0.735 s), differs by 2.04 %.
TR_TOLERANCE = 0.03
# Repetition time of UK Biobank, s, and the correlation of its parcel series with themselves one
# volume later: a first-order autoregression with it has 33 % of its power above 0.25 Hz, the series
# themselves have 34 %.
UKB_TR, UKB_LAG_ONE = 0.735, 0.46
# Share of UK Biobank's power that a series may lack without a warning: 0.8 s lacks 3 %, 1 s 10 %.
LARGEST_LOSS = 0.05
LOBES = 12  # zero crossings of the sinc on each side
# How sidecars and provenances describe it.
RESAMPLING = "Kaiser-windowed sinc, cutoff at the lower of the two Nyquist frequencies"
KAISER_BETA = 8.0  # stop band below −80 dB (Kaiser 1974)


@dataclass(frozen=True)
class Sampled:
    """A series at the sampling of a model.

    Attributes
    ----------
    series
        (T', P), NaN in parcels without data.
    tr
        Repetition time, s.
    first
        Row of the source that the series begins with.
    measured
        (T',) False for rows that are interpolated; None: all are measured.
    """

    series: NDArray[np.float64]
    tr: float
    first: int = 0
    measured: NDArray[np.bool_] | None = None


def sample(series: NDArray[np.float64], tr: float, target_tr: float) -> Sampled:
    """Fill rows without data, and bring a series to the model's repetition time.

    Parameters
    ----------
    series
        (T, P), NaN in parcels and in rows without data.
    tr, target_tr
        Repetition times of the series and of the model, s.

    Returns
    -------
    Sampled
        The series between its first and last row with data. Rows without data are interpolated
        linearly before the resampling; a row of the result counts as measured where the source
        row next to it in time is.

    Examples
    --------
    >>> made = sample(np.array([[np.nan], [1.0], [np.nan], [3.0]]), 2.0, 2.0)
    >>> made.series.ravel(), made.first, made.measured
    (array([1., 2., 3.]), 1, array([ True, False,  True]))
    """
    good = rows_with_data(series)
    if good.all() or not good.any():
        return Sampled(*at_rate(series, tr, target_tr))
    known = np.flatnonzero(good)
    kept = slice(int(known[0]), int(known[-1]) + 1)
    good = good[kept]
    filled = interpolated(series[kept], good)
    made, new_tr = at_rate(filled, tr, target_tr)
    nearest = np.rint(np.arange(len(made)) * new_tr / tr).astype(int).clip(0, len(good) - 1)
    measured = good if made is filled else good[nearest]
    return Sampled(made, new_tr, kept.start, None if measured.all() else measured)


def rows_with_data(series: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Find the rows that have data.

    Parameters
    ----------
    series
        (T, P), NaN where there is no data.

    Returns
    -------
    ndarray
        (T,) True where at least half of the parcels that have data anywhere have some.

    Examples
    --------
    >>> rows_with_data(np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, np.nan]]))
    array([ True, False,  True])
    """
    finite = np.isfinite(series)
    n_known = np.count_nonzero(finite.any(axis=0))
    return np.asarray(2 * np.count_nonzero(finite, axis=1) >= n_known)


def interpolated(series: NDArray[Any], good: NDArray[np.bool_]) -> NDArray[Any]:
    """Interpolate rows linearly between their good neighbours in time.

    Parameters
    ----------
    series
        (T, …), floating point.
    good
        (T,) False for rows to be replaced; at the ends the nearest good row is repeated.

    Returns
    -------
    ndarray
        A copy, (T, …).

    Examples
    --------
    >>> interpolated(np.array([1.0, 99.0, 3.0]), np.array([True, False, True]))
    array([1., 2., 3.])
    """
    result = np.array(series)
    weights = interpolation_matrix(good)[~good][:, good].astype(result.dtype)
    result[~good] = np.tensordot(weights, result[good], axes=1)
    return result


def interpolation_matrix(good: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(T, T): identity where good, else the weights of the nearest good rows on both sides.

    Examples
    --------
    >>> interpolation_matrix(np.array([True, False, True]))[1]
    array([0.5, 0. , 0.5])
    """
    index = np.flatnonzero(good)
    everything = np.arange(len(good))
    return np.stack([np.interp(everything, index, row) for row in np.eye(len(good))[:, index]], 1)


def at_rate(
    series: NDArray[np.float64], tr: float, target_tr: float
) -> tuple[NDArray[np.float64], float]:
    """Bring a series to the model's repetition time.

    Parameters
    ----------
    series
        (T, P).
    tr, target_tr
        Repetition times of the series and of the model, s.

    Returns
    -------
    series
        (T', P), see `resample_series`; the unchanged (T, P) if the repetition times differ by no
        more than `TR_TOLERANCE` of the target.
    tr
        Its repetition time, s.

    Examples
    --------
    >>> series, tr = at_rate(np.zeros((101, 424)), 2.0, 0.735)
    >>> series.shape, tr
    ((273, 424), 0.735)
    """
    new_tr = rate_of(tr, target_tr)
    if new_tr == tr:
        return series, tr
    return resample_series(series, tr, new_tr), new_tr


def rate_of(tr: float, target_tr: float) -> float:
    """Repetition time that a series has at the model: its own if that is close enough.

    Parameters
    ----------
    tr, target_tr
        Repetition times of the series and of the model, s.

    Returns
    -------
    float
        `tr` if the two differ by no more than `TR_TOLERANCE` of the target, else the target.

    Examples
    --------
    >>> rate_of(0.72, 0.735), rate_of(2.0, 0.735)
    (0.72, 0.735)
    """
    return tr if abs(tr - target_tr) <= TR_TOLERANCE * target_tr else target_tr


def power_above(frequency: float) -> float:
    """Share of the power of UK Biobank's parcel series above a frequency.

    Parameters
    ----------
    frequency
        Hz.

    Returns
    -------
    float
        That of a first-order autoregression with the autocorrelation of UK Biobank's series.

    Examples
    --------
    >>> [round(power_above(f), 2) for f in (0.1, 0.25, 0.5, 1.0)]
    [0.64, 0.33, 0.1, 0.0]
    """
    if frequency >= 0.5 / UKB_TR:
        return 0.0
    slope = (1 + UKB_LAG_ONE) / (1 - UKB_LAG_ONE)
    return float(1 - 2 / np.pi * np.arctan(slope * np.tan(np.pi * frequency * UKB_TR)))


def band_warnings(tr: float, low_pass: float | None = None) -> list[Notice]:
    """Warn about a series without frequencies that BrainLM's training data have.

    Parameters
    ----------
    tr
        Repetition time at which the series was acquired, s.
    low_pass
        Cut-off of a low-pass filter, s; None: there was none.

    Returns
    -------
    list of Notice
        One, or none if the share of the power is below `LARGEST_LOSS`.

    Examples
    --------
    >>> [one.kind for one in band_warnings(2.0)], band_warnings(0.8)
    (['missing_frequencies'], [])
    """
    nyquist = 0.5 / tr
    highest = nyquist if low_pass is None else min(nyquist, 1 / low_pass)
    share = power_above(highest)
    if share < LARGEST_LOSS:
        return []
    cause = f"a repetition time of {tr:g} s" if highest == nyquist else "the low-pass filter"
    text = (
        f"The series holds next to nothing above {highest:.3g} Hz ({cause}). About {share:.0%} of "
        f"the power of UK Biobank, most of BrainLM's training data, lies there ({UKB_TR:g} s): "
        "BrainLM was not trained on such series, and neighbouring samples are more alike."
    )
    return [notice(Kind.MISSING_FREQUENCIES, text)]


def resample_series(
    series: ArrayLike, tr: float, target_tr: float, first: float = 0.0
) -> NDArray[np.float64]:
    """Resample a series in time by a windowed sinc.

    The cut-off is the lower of the two Nyquist frequencies, so that there is no aliasing when the
    rate is reduced. The ends are extended by point reflection. No sample lies beyond the last
    volume.

    Parameters
    ----------
    series
        (T, P). Columns of NaN stay NaN.
    tr, target_tr
        Repetition times before and after, s.
    first
        Time of the first sample, s from the first volume, not beyond the last one.

    Returns
    -------
    ndarray
        (T', P) with T' = floor(((T − 1) · tr − first) / target_tr) + 1.

    Raises
    ------
    ValueError
        If the series is not 2-D, a repetition time is not positive, or `first` is outside of the
        series.

    References
    ----------
    Smith JO, Gossett P (1984). A flexible sampling-rate conversion method. ICASSP 9:112.
    Kaiser's window: Kaiser JF (1974). Nonrecursive digital filter design using the I0-sinh window
    function. IEEE Int. Symp. Circuits and Systems, 20.

    Examples
    --------
    >>> resample_series(np.full((4, 1), 7.0), 2.0, 1.0).round(6).ravel()
    array([7., 7., 7., 7., 7., 7., 7.])
    """
    values = np.asarray(series, dtype=np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"expected a series (T, P), got shape {values.shape}")
    if not (np.isfinite([tr, target_tr]).all() and tr > 0 and target_tr > 0):
        raise ValueError(f"repetition times must be positive: {tr}, {target_tr}")
    if not -1e-9 <= first <= (len(values) - 1) * tr + 1e-9:
        raise ValueError(
            f"a first sample at {first} s: the series ends at {len(values) - 1} · {tr}"
        )
    if tr == target_tr and not first:
        return values.copy()
    # A sparse product adds in a fixed order, whatever the number of threads.
    return np.asarray(_interpolation(len(values), tr, target_tr, first) @ values)


def windowed_sinc(
    offset: NDArray[np.float64], reach: float, widening: float = 1.0
) -> NDArray[np.float64]:
    """Weights of a sinc under Kaiser's window, which do not yet sum to 1.

    Parameters
    ----------
    offset
        (…,) distances, in units of the zero crossings of the sinc.
    reach
        Half the length of the window, in samples of the input.
    widening
        Samples of the input from one zero crossing to the next.

    Returns
    -------
    ndarray
        (…,) the weights; 0 beyond the window.

    Examples
    --------
    >>> windowed_sinc(np.array([0.0, 1.0, 20.0]), 12).round(6) + 0.0
    array([427.564116,   0.      ,   0.      ])
    """
    inside = np.clip(1 - (offset * widening / max(reach, 1.0)) ** 2, 0, None)
    return np.asarray(np.sinc(offset) * np.i0(KAISER_BETA * np.sqrt(inside)) * (inside > 0))


def _interpolation(n: int, tr: float, target_tr: float, first: float) -> csr_matrix:
    """(T', T) weights of the interpolation; each row sums to 1."""
    n_out = int(np.floor(((n - 1) * tr - first) / target_tr + 1e-9)) + 1
    widening = max(1.0, target_tr / tr)  # of the kernel, in volumes, to lower its cutoff
    reach = min(LOBES * widening, n - 1.0)  # one reflection must do for short series
    # in volumes of the input
    time = np.minimum((first + np.arange(n_out) * target_tr) / tr, n - 1.0)
    index = np.floor(time)[:, None] + np.arange(-np.ceil(reach), np.ceil(reach) + 2)[None, :]
    offset = (time[:, None] - index) / widening
    weight = windowed_sinc(offset, reach, widening)
    weight /= weight.sum(axis=1, keepdims=True)
    row = np.broadcast_to(np.arange(n_out)[:, None], index.shape)
    keep = weight != 0
    row, index, weight = row[keep], index[keep].astype(np.int64), weight[keep]
    # Point reflection about an end e: x[k] = 2 x[e] − x[2e − k].
    end = np.where(index < 0, 0, n - 1)
    beyond = (index < 0) | (index >= n)
    mirrored = np.clip(np.where(beyond, 2 * end - index, index), 0, n - 1)
    rows = np.concatenate([row, row[beyond]])
    columns = np.concatenate([mirrored, end[beyond]])
    weights = np.concatenate([np.where(beyond, -weight, weight), 2 * weight[beyond]])
    return coo_matrix((weights, (rows, columns)), shape=(n_out, n)).tocsr()
