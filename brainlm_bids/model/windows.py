"""Windows: a series (T, P) comes in; out go the series at the model's TR and where windows begin.

Times are in seconds, starts in volumes. BrainLM was trained on windows of 200 volumes at 0.735 s
(BRAINLM.md 1c); what is shorter is padded with zeros, the mean of a centred parcel.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix, csr_matrix

TR_TOLERANCE = 0.02  # relative difference up to which a series stays as it is (BRAINLM.md 1c)
LOBES = 12  # zero crossings of the sinc on each side
KAISER_BETA = 8.0  # stop band below −80 dB (Kaiser 1974)


def needs_resampling(tr: float, target_tr: float) -> bool:
    """Whether the repetition times (s) differ by more than 2 % of the target."""
    return abs(tr - target_tr) > TR_TOLERANCE * target_tr


def at_rate(
    series: NDArray[np.float64], tr: float, target_tr: float
) -> tuple[NDArray[np.float64], float]:
    """Series (T, P) and its repetition time (s): resampled, or as they are where that is near."""
    if not needs_resampling(tr, target_tr):
        return series, tr
    return resample_series(series, tr, target_tr), target_tr


def resample_series(series: ArrayLike, tr: float, target_tr: float) -> NDArray[np.float64]:
    """Resample series (T, P) from one volume per `tr` seconds to one per `target_tr`.

    Windowed-sinc interpolation (Kaiser window; Smith & Gossett 1984) whose cutoff is the lower of
    the two Nyquist frequencies, so that nothing folds back when volumes become fewer. The ends are
    extended by point reflection. The first volume stays at t = 0, and no sample lies beyond the
    last volume: T' = floor((T − 1)·tr / target_tr) + 1. NaN columns stay NaN.
    """
    values = np.asarray(series, dtype=np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"expected a series (T, P), got shape {values.shape}")
    if not (np.isfinite([tr, target_tr]).all() and tr > 0 and target_tr > 0):
        raise ValueError(f"repetition times must be positive: {tr}, {target_tr}")
    if tr == target_tr:
        return values.copy()
    # A sparse product adds in a fixed order, whatever the number of threads.
    return np.asarray(_interpolation(len(values), tr, target_tr) @ values)


def cut_windows(n_volumes: int, window: int = 200, stride: int | None = None) -> NDArray[np.int64]:
    """First volumes of the windows: every `stride` (default `window`), the last right-aligned.

    Together they cover all volumes if stride ≤ window. A run shorter than a window has one, at 0.
    """
    step = window if stride is None else stride
    if n_volumes < 1 or window < 1 or step < 1:
        raise ValueError("n_volumes, window and stride must be positive")
    if n_volumes <= window:
        return np.zeros(1, dtype=np.int64)
    last = n_volumes - window
    starts = np.arange(0, last + 1, step, dtype=np.int64)
    return starts if starts[-1] == last else np.append(starts, last)


def pad_to_window(series: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """Zeros at the end of (T, P) up to `window` volumes; longer series come back as they are."""
    return np.pad(series, ((0, max(window - len(series), 0)), (0, 0)))


def _interpolation(n: int, tr: float, target_tr: float) -> csr_matrix:
    """(T', T) weights of the interpolation; each row sums to 1."""
    n_out = int(np.floor((n - 1) * tr / target_tr + 1e-9)) + 1
    widening = max(1.0, target_tr / tr)  # of the kernel, in volumes, to lower its cutoff
    reach = min(LOBES * widening, n - 1.0)  # one reflection must do for short series
    time = np.minimum(np.arange(n_out) * target_tr / tr, n - 1.0)  # in volumes of the input
    index = np.floor(time)[:, None] + np.arange(-np.ceil(reach), np.ceil(reach) + 2)[None, :]
    offset = (time[:, None] - index) / widening
    inside = np.clip(1 - (offset * widening / max(reach, 1.0)) ** 2, 0, None)
    weight = np.sinc(offset) * np.i0(KAISER_BETA * np.sqrt(inside)) * (inside > 0)
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
