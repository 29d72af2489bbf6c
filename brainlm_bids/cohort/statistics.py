"""Statistics of a cohort: median and quartiles per parcel over the series of many recordings.

Series are (T, P), NaN in parcels without data; stores are (P, N) float32, the demeaned volumes of
some recordings side by side, or objects that read these: few parcels are needed at a time.

As for BrainLM's training (convert_ukbiobank_to_arrow.py): each recording minus its parcels' means,
then median and interquartile range per parcel over the first 200 volumes of all recordings.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Store = NDArray[np.float32]
# A parcel whose range is below this share of its level is constant but for rounding.
SMALLEST_RELATIVE_RANGE = 1e-9
PARCELS_AT_A_TIME = 8


class Rows(Protocol):
    """A store, or an object that reads the requested rows of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> Store: ...


class PooledStatistics(NamedTuple):
    """Statistics per parcel, NaN where no recording has data.

    Attributes
    ----------
    median
        (P,) median.
    iqr
        (P,) interquartile range.
    n_values
        (P,) number of volumes that they are computed from.
    """

    median: Array
    iqr: Array
    n_values: NDArray[np.int64]


def demeaned(series: Array, first: int | None = None) -> Store:
    """Remove the mean of each parcel and select the first volumes.

    Parameters
    ----------
    series
        (T, P).
    first
        Number of volumes to return; None for all. The mean is that of the whole recording.

    Returns
    -------
    ndarray
        (P, T') float32. Parcels with a missing value, and those without variation, are NaN.

    Examples
    --------
    >>> demeaned(np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]]), 2)
    array([[-2., -1.],
           [nan, nan]], dtype=float32)
    """
    values = np.asarray(series, dtype=np.float64)
    mean = values.mean(axis=0)
    varies = np.ptp(values, axis=0) > SMALLEST_RELATIVE_RANGE * np.abs(mean)
    centred = np.where(varies, values - mean, np.nan)
    return np.ascontiguousarray(centred[:first].T, dtype=np.float32)


def pooled_statistics(
    stores: Sequence[Rows], parcels_at_a_time: int = PARCELS_AT_A_TIME
) -> PooledStatistics:
    """Median and interquartile range per parcel over all volumes of all stores.

    They are exactly `numpy.percentile` (25, 50, 75) of each parcel's finite values, and so do not
    depend on the order and grouping of the recordings.

    Parameters
    ----------
    stores
        (P, N) each.
    parcels_at_a_time
        Rows of all stores in memory at once (4 bytes a value), besides one parcel in float64.

    Returns
    -------
    PooledStatistics
        (P,) each.

    Raises
    ------
    ValueError
        If there is no store, or the numbers of parcels differ.

    Examples
    --------
    >>> pooled_statistics([np.array([[0.0, 1.0]]), np.array([[2.0]])]).iqr
    array([1.])
    """
    if not stores:
        raise ValueError("no recordings")
    n_parcels = len(stores[0])
    if any(len(store) != n_parcels for store in stores):
        raise ValueError(f"stores of {sorted({len(store) for store in stores})} parcels")
    quartiles = np.full((3, n_parcels), np.nan)
    n_values = np.zeros(n_parcels, dtype=np.int64)
    for start in range(0, n_parcels, parcels_at_a_time):
        rows = slice(start, min(start + parcels_at_a_time, n_parcels))
        block = np.concatenate([np.asarray(store[rows]) for store in stores], axis=1)
        for parcel, values in enumerate(block, start=start):
            known = values[np.isfinite(values)].astype(np.float64)
            n_values[parcel] = known.size
            if known.size:
                quartiles[:, parcel] = np.percentile(known, [25, 50, 75], overwrite_input=True)
    low, median, high = quartiles
    return PooledStatistics(median, high - low, n_values)
