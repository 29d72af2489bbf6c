"""The steady state of a run: how many volumes come before it, by the mean of each."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# A volume counts as steady when its global signal is this close to what follows.
STEADY = 0.005
# Of the excess, from one volume to the next; T1 of 1.3 s, 30° and a TR of 0.7 s leave a half.
SLOWEST_DECAY = 0.7


def volumes_summary(bold: NDArray[Any], n_volumes: int = 40) -> FloatArray:
    """Global mean of the first volumes, from which dummy volumes are detected.

    Parameters
    ----------
    bold
        (X, Y, Z, T), raw.
    n_volumes
        How many volumes from the start are used.

    Returns
    -------
    ndarray
        (min(T, n_volumes),) means, the data clipped to [0, 99.8th percentile] as in niworkflows'
        ``NonsteadyStatesDetector``.

    Examples
    --------
    >>> volumes_summary(np.full((2, 2, 2, 3), 5.0))
    array([5., 5., 5.])
    """
    start = np.nan_to_num(np.asarray(bold[..., :n_volumes], dtype=np.float32))
    np.clip(start, 0.0, np.percentile(start, 99.8), out=start)
    return np.asarray(start.mean(axis=(0, 1, 2), dtype=np.float64))


def detect_dummy_volumes(global_signal: NDArray[Any]) -> int:
    """Count the leading volumes that were acquired before the steady state.

    Two rules apply one after the other. The first is that of fMRIPrep: the leading volumes whose
    modified z-score 0.6745·|x − median| / MAD exceeds 3.5 (Iglewicz and Hoaglin 1993). Drift and
    breathing hide from it smaller deviations, which would still ring in a temporal filter. So the
    approach to the steady state is continued as an exponential, and the volumes that follow count
    as long as it is above 0.5 %.

    Parameters
    ----------
    global_signal
        (T,) global mean, see `volumes_summary`; the first 40 volumes are used.

    Returns
    -------
    int
        How many volumes to leave out.

    References
    ----------
    Iglewicz B, Hoaglin D (1993). How to detect and handle outliers. ASQC Quality Press.

    Examples
    --------
    >>> detect_dummy_volumes(np.array([140.0, 110.0, 100.2, 99.9, 100.0, 100.1, 99.8, 100.0]))
    2
    """
    signal = np.asarray(global_signal, dtype=np.float64)[:40]
    distance = np.abs(signal - np.median(signal))
    # multiplied out: a series without any noise has MAD 0
    outlier = 0.6745 * distance > 3.5 * np.median(distance)
    n_outliers = int(np.cumprod(outlier).sum())
    return n_outliers + _approaching(signal / np.median(signal) - 1, n_outliers)


def _approaching(excess: FloatArray, n: int) -> int:
    """Count the volumes from n on that still exceed the steady state, by the decay before."""
    if not 0 < n < len(excess):
        return 0
    sign = np.sign(excess[0])
    seen = sign * excess[: n + 1]
    # least squares of e(t + 1) = decay · e(t): the first volumes, far above the noise, decide
    decay = np.clip(seen[:-1] @ seen[1:] / (seen[:-1] @ seen[:-1]), 0.0, SLOWEST_DECAY)
    # an approach that ends at once is no exponential: what was measured limits what is expected
    noise = np.median(np.abs(excess)) / 0.6745
    first = min(seen[n - 1] * decay, max(seen[n], 0.0) + noise)
    return int((first * decay ** np.arange(len(excess) - n) > STEADY).sum())
