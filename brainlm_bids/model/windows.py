"""Windows of a series (T, P): where they begin, in volumes; what is shorter is padded.

BrainLM was trained on windows of 200 volumes. What is shorter is padded with zeros, the mean of a
centred parcel.
"""

import numpy as np
from numpy.typing import NDArray


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
