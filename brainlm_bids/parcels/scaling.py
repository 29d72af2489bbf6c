"""Robust scaling of demeaned parcel series: (x − median) / interquartile range per parcel.

Series are (T, P), NaN in parcels without data. Parcels that cannot be scaled are filled with 0
(their median) and listed. As in the BrainLM toolkit (vandijklab/BrainLM,
toolkit/BrainLM_Toolkit.py, "Voxelwise_RobustScaler"), without the error in its operator precedence.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.files import read_rows, write_tsv
from brainlm_bids.notices import Kind, Notice, notice

Array = NDArray[np.float64]
# UK Biobank, as BrainLM was trained with it: sd of the demeaned parcel series in grand-mean units
# (vandijklab/BrainLM, toolkit/BrainLM_Toolkit.py, line 240), and sd of the robustly scaled series
# (the variance in the released trainer_state.json).
UKB_SD_DEMEANED, UKB_SD_ROBUST = 41.44, 0.83
# A scale that differs from theirs by more than this factor is worth a look; no published limit.
LARGEST_FACTOR = 2.0
# An interquartile range below this share of the median one is a constant parcel's rounding noise.
SMALLEST_RELATIVE_IQR = 1e-6


@dataclass(frozen=True)
class ScalingStats:
    """Statistics by which series are scaled, in the units of the series.

    Attributes
    ----------
    median
        (P,) median per parcel.
    iqr
        (P,) interquartile range per parcel.
    """

    median: Array
    iqr: Array


def recording_stats(series: Array, measured: NDArray[np.bool_] | None = None) -> ScalingStats:
    """Median and interquartile range of each parcel of one recording.

    Parameters
    ----------
    series
        (T, P), NaN in parcels without data.
    measured
        (T,) False for interpolated rows, which do not count; None: all are measured.

    Returns
    -------
    ScalingStats
        Statistics of the demeaned series; NaN for parcels without data.

    Examples
    --------
    >>> stats = recording_stats(np.array([[1.0], [2.0], [3.0], [4.0], [10.0]]))
    >>> float(stats.median[0]), float(stats.iqr[0])
    (-1.0, 2.0)
    """
    demeaned = np.asarray(series, dtype=np.float64)
    if measured is not None:
        demeaned = demeaned[measured]
    demeaned = demeaned - demeaned.mean(axis=0)
    low, median, high = np.percentile(demeaned, [25, 50, 75], axis=0)
    return ScalingStats(median, high - low)


def scale(
    series: Array, stats: ScalingStats, measured: NDArray[np.bool_] | None = None
) -> tuple[Array, NDArray[np.bool_]]:
    """Scale a recording and fill parcels that cannot be scaled.

    Parameters
    ----------
    series
        (T, P), NaN in parcels without data.
    stats
        Per-parcel statistics of demeaned series.
    measured
        (T,) False for interpolated rows, which do not count for the mean; None: all are measured.

    Returns
    -------
    scaled
        (T, P) in interquartile ranges, without NaN.
    filled
        (P,) True where the parcel has no data, no variation, or no statistics: its column is 0.

    Raises
    ------
    ValueError
        If the numbers of parcels differ.

    Examples
    --------
    >>> series = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]])
    >>> scale(series, ScalingStats(np.array([0.0, 0.0]), np.array([0.5, 0.5])))
    (array([[-2.,  0.],
           [ 0.,  0.],
           [ 2.,  0.]]), array([False,  True]))
    """
    values = np.asarray(series, dtype=np.float64)
    if values.shape[1] != len(stats.median):
        raise ValueError(f"{values.shape[1]} parcels, statistics for {len(stats.median)}")
    counted = values if measured is None else values[measured]
    demeaned = values - counted.mean(axis=0)
    filled = ~np.isfinite(values).all(axis=0) | ~_usable(stats)
    # a parcel that is constant here has no data to scale, whatever the statistics say
    filled |= ~(np.ptp(demeaned if measured is None else demeaned[measured], axis=0) > 0)
    scaled = np.zeros_like(values)
    keep = ~filled
    scaled[:, keep] = (demeaned[:, keep] - stats.median[keep]) / stats.iqr[keep]
    return scaled, filled


def _usable(stats: ScalingStats) -> NDArray[np.bool_]:
    finite = np.asarray(np.isfinite(stats.median) & np.isfinite(stats.iqr) & (stats.iqr > 0))
    if not finite.any():
        return finite
    least = SMALLEST_RELATIVE_IQR * np.median(stats.iqr[finite])
    return np.asarray(finite & (stats.iqr > least))


def save_stats(path: Path, names: list[str], stats: ScalingStats) -> None:
    """Write statistics as TSV with the columns name, median, iqr.

    Parameters
    ----------
    path
        The file to write.
    names
        (P,) names of the parcels.
    stats
        Their statistics.
    """
    columns = [names, stats.median.tolist(), stats.iqr.tolist()]
    write_tsv(path, ["name", "median", "iqr"], columns, digits=9)


def load_stats(path: Path, names: list[str]) -> ScalingStats:
    """Read statistics of parcels from a TSV with the columns name, median, iqr.

    Parameters
    ----------
    path
        The file to read; its rows may be in any order.
    names
        (P,) names of the parcels to return, in this order.

    Returns
    -------
    ScalingStats
        (P,) each.

    Raises
    ------
    UserError
        If the file is not such a table or lacks a parcel.
    """
    rows = read_rows(path)
    try:
        table = {row["name"]: (_number(row["median"]), _number(row["iqr"])) for row in rows}
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{path}: is not a TSV with the columns name, median, iqr ({error})"
        ) from error
    missing = [name for name in names if name not in table]
    if missing:
        raise UserError(f"{path}: lacks {len(missing)} parcels, the first is {missing[0]!r}")
    values = np.array([table[name] for name in names])
    return ScalingStats(values[:, 0], values[:, 1])


def _number(text: str) -> float:
    return math.nan if text == "n/a" else float(text)


def filled_warnings(
    filled: NDArray[np.bool_], fractions: Array, min_coverage: float | None
) -> list[Notice]:
    """Warn about parcels for which a model is given the median.

    Parameters
    ----------
    filled
        (P,) True for these parcels.
    fractions
        (P,) covered fraction of each parcel; NaN where it is not known.
    min_coverage
        Fraction below which a parcel has no series; None: there is no limit.

    Returns
    -------
    list of Notice
        One, with their numbers by reason; none without such a parcel.

    Examples
    --------
    >>> filled, fractions = np.array([True, True, False]), np.array([0.0, 0.2, 1.0])
    >>> filled_warnings(filled, fractions, 0.5)[0].text.partition(": ")[2]
    '1 without data or variation, 1 of which less than 50 % lies in the brain of the run.'
    """
    count = int(filled.sum())
    if not count:
        return []
    least = min_coverage or 0.0
    low = int((filled & (fractions > 0) & (fractions < least)).sum())
    reasons = [
        (count - low, "without data or variation"),
        (low, f"of which less than {100 * least:g} % lies in the brain of the run"),
    ]
    listed = ", ".join(f"{n} {reason}" for n, reason in reasons if n)
    start = (
        "1 parcel was replaced by its" if count == 1 else f"{count} parcels were replaced by their"
    )
    return [notice(Kind.FILLED_PARCELS, f"{start} median for the model: {listed}.")]


def far_off(value: float, reference: float) -> bool:
    """Whether a standard deviation differs from its reference by more than `LARGEST_FACTOR`.

    Examples
    --------
    >>> far_off(20.0, UKB_SD_DEMEANED), far_off(50.0, UKB_SD_DEMEANED)
    (True, False)
    """
    return not 1 / LARGEST_FACTOR <= value / reference <= LARGEST_FACTOR


def scale_warnings(demeaned: float | None, scaled: float | None) -> list[Notice]:
    """Warn about a scale that BrainLM was not trained on.

    Parameters
    ----------
    demeaned
        Standard deviation of the demeaned series in grand-mean units; None if unknown.
    scaled
        Standard deviation of the robustly scaled series; None if unknown.

    Returns
    -------
    list of Notice
        A warning for each that is far from UK Biobank's.

    Examples
    --------
    >>> [one.kind for one in scale_warnings(20.0, 0.8)]
    ['scale_far_off']
    """
    rows = (
        (Kind.SCALE_FAR_OFF, "parcel series", demeaned, UKB_SD_DEMEANED),
        (Kind.SCALED_FAR_OFF, "scaled series", scaled, UKB_SD_ROBUST),
    )
    return [
        notice(
            kind,
            f"The standard deviation of the {what} is {value:.4g}, {value / reference:.2f} times "
            f"the {reference:.3g} of the UK Biobank data that BrainLM was trained on: the model "
            "has not seen series of this scale.",
        )
        for kind, what, value, reference in rows
        if value is not None and far_off(value, reference)
    ]
