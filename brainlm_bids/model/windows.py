"""Windows of a series (T, P): their first volumes, and padding of short series.

BrainLM was trained on windows of 200 volumes. Shorter series are padded with zeros, the mean of a
centred parcel.
"""

import numpy as np
from numpy.typing import NDArray


def cut_windows(n_volumes: int, window: int = 200, stride: int | None = None) -> NDArray[np.int64]:
    """First volumes of the windows of a series.

    Together they cover all volumes if stride ≤ window. A series shorter than a window has one, at
    0.

    Parameters
    ----------
    n_volumes
        Number of volumes of the series.
    window
        Number of volumes of a window.
    stride
        Volumes between the beginnings of windows; by default `window`. The last window is aligned
        with the end of the series.

    Returns
    -------
    ndarray
        (N,) volumes.

    Raises
    ------
    ValueError
        If a number is not positive.

    Examples
    --------
    >>> cut_windows(450).tolist()
    [0, 200, 250]
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
    """Append zeros to a series up to the length of a window.

    Parameters
    ----------
    series
        (T, P).
    window
        Number of volumes of a window.

    Returns
    -------
    ndarray
        (max(T, window), P).

    Examples
    --------
    >>> pad_to_window(np.ones((2, 1), dtype=np.float32), 3).ravel().tolist()
    [1.0, 1.0, 0.0]
    """
    return np.pad(series, ((0, max(window - len(series), 0)), (0, 0)))
