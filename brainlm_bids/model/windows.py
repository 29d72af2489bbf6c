"""Windows of a series (T, P): their first volumes, and padding of short series.

BrainLM was trained on windows of 200 volumes. Shorter series are padded: with zeros, the mean of a
centred parcel, or with their own mirror image.
"""

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.notices import Kind, Notice, notice

# Volumes of the model below which a run that is padded for an image model is a danger: by then the
# embedding is nearer to those of other recordings than to that of the whole window.
SHORT_RUN = 150


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


def pad_to_window(
    series: NDArray[np.float32], window: int, *, mirrored: bool = False
) -> NDArray[np.float32]:
    """Append zeros, or its mirror image, to a series up to the length of a window.

    Parameters
    ----------
    series
        (T, P).
    window
        Number of volumes of a window.
    mirrored
        Whether the series goes on backwards from its last volume, and forwards from its first
        again, instead of with zeros.

    Returns
    -------
    ndarray
        (max(T, window), P).

    Examples
    --------
    >>> pad_to_window(np.array([[1.0], [2.0]], dtype=np.float32), 3).ravel().tolist()
    [1.0, 2.0, 0.0]
    >>> series = np.array([[1.0], [2.0], [3.0]], dtype=np.float32)
    >>> pad_to_window(series, 6, mirrored=True).ravel().tolist()
    [1.0, 2.0, 3.0, 2.0, 1.0, 2.0]
    """
    mode = "reflect" if mirrored else "constant"
    padding = ((0, max(window - len(series), 0)), (0, 0))
    return np.asarray(np.pad(series, padding, mode=mode))  # type: ignore[call-overload]


def padding_warnings(n_padded: int, window: int, *, shown: bool) -> list[Notice]:
    """Warn about a series that was shorter than a window.

    Parameters
    ----------
    n_padded
        Number of volumes that were added.
    window
        Number of volumes of a window.
    shown
        Whether the network sees what was added, as the image models do.

    Returns
    -------
    list of Notice
        None for n_padded = 0, and a second, grave one for image models and series of fewer than
        `SHORT_RUN` volumes.

    Examples
    --------
    >>> [one.kind for one in padding_warnings(80, 200, shown=True)]
    ['padded_window', 'short_run']
    """
    if not n_padded:
        return []
    text = f"The run is short: it was padded by {n_padded} volumes to fill one window of the model."
    found, n_volumes = [notice(Kind.PADDED_WINDOW, text)], window - n_padded
    if shown and n_volumes < SHORT_RUN:
        text = (
            f"The run has only {n_volumes} volumes at the model's repetition time. The image "
            f"models were trained on {window} and see the {n_padded} that were added, a mirror "
            "image: this embedding is about as far from that of a whole window as those of "
            "other recordings are. Do not compare it with embeddings of longer runs. The 13M model "
            "does not see added patches."
        )
        found.append(notice(Kind.SHORT_RUN, text))
    return found
