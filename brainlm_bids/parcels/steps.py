"""The last step before a model: a parcel series is resampled in time and scaled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.parcels import scaling
from brainlm_bids.parcels.sampling import sample
from brainlm_bids.parcels.scaling import ScalingStats


@dataclass(frozen=True)
class Scaled:
    """A series as models see it.

    Attributes
    ----------
    series
        (T', P) in interquartile ranges, without NaN.
    filled
        (P,) True for parcels that could not be scaled and are 0.
    median, iqr
        (P,) the statistics that were used.
    tr
        Repetition time, s.
    first
        Volume of the source that the series begins with.
    measured
        (T',) False for volumes that are interpolated; None: all are measured.
    """

    series: NDArray[np.float64]
    filled: NDArray[np.bool_]
    median: NDArray[np.float64]
    iqr: NDArray[np.float64]
    tr: float
    first: int = 0
    measured: NDArray[np.bool_] | None = None


def scale(
    series: NDArray[np.float64],
    tr: float,
    *,
    model_tr: float,
    stats: ScalingStats | None = None,
) -> Scaled:
    """Bring a series to the model's repetition time, and scale it robustly.

    Parameters
    ----------
    series
        (T, P) steady-state volumes, NaN in parcels without data. Volumes without data (bad or
        censored ones) are cut off at both ends and interpolated elsewhere; they do not count for
        the statistics.
    tr, model_tr
        Repetition times of the series and of the model, s.
    stats
        Median and interquartile range per parcel; None: those of this recording.

    Returns
    -------
    Scaled
        The series, and how it was scaled.

    Examples
    --------
    >>> ramp = np.arange(40.0)[:, None] * np.array([1.0, 100.0])
    >>> scaled = scale(ramp, 0.735, model_tr=0.735)
    >>> scaled.series[[0, -1]].round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    made = sample(series, tr, model_tr)
    used = scaling.recording_stats(made.series, made.measured) if stats is None else stats
    scaled, filled = scaling.scale(made.series, used, made.measured)
    return Scaled(scaled, filled, used.median, used.iqr, made.tr, made.first, made.measured)
