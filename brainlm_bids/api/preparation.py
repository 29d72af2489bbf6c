"""From a series as it was handed in to the series that a network sees."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.api.errors import value_errors
from brainlm_bids.api.series import ParcelSeries
from brainlm_bids.parcels.sampling import RESAMPLING, at_rate
from brainlm_bids.parcels.scaling import ScalingStats, load_stats
from brainlm_bids.parcels.steps import scale
from brainlm_bids.settings import Settings

# "own", a TSV of medians and interquartile ranges, or the statistics themselves.
Scaling = str | Path | ScalingStats


@dataclass(frozen=True)
class Prepared:
    """A series as a network sees it.

    Attributes
    ----------
    values
        (T', 424) in interquartile ranges, without NaN.
    tr
        Repetition time in seconds.
    provenance
        Source, resampling, scaling, filled parcels, notes.
    """

    values: NDArray[np.float32]
    tr: float
    provenance: dict[str, Any]


def prepare(series: ParcelSeries, *, scaling: Scaling, already_scaled: bool) -> Prepared:
    """Resample a series to the rate of the networks, and scale it robustly.

    Parameters
    ----------
    series
        The recording.
    scaling
        "own": by the recording's own median and interquartile range; else a TSV with the columns
        name, median and iqr, or the statistics.
    already_scaled
        Only resample: the values are in interquartile ranges already.

    Raises
    ------
    ValueError
        If no parcel can be scaled, or the statistics cannot be read.
    """
    model_tr = Settings.model_tr
    if already_scaled:
        values, tr = at_rate(series.values, series.tr, model_tr)
        filled = ~np.isfinite(values).all(axis=0)
        scaled = np.where(filled, 0.0, values)
    else:
        with value_errors():
            made = scale(series.values, series.tr, model_tr=model_tr, stats=_statistics(scaling))
        scaled, filled, tr = made.series, made.filled, made.tr
    if filled.all():
        raise ValueError(f"{series.source}: no parcel can be scaled")
    provenance = {
        "source": series.source,
        "source_repetition_time": series.tr,
        "repetition_time": tr,
        "resampling": None if tr == series.tr else RESAMPLING,
        "scaling": "none, as given" if already_scaled else _described(scaling),
        "filled_parcels": np.asarray(resources.parcels().names)[filled].tolist(),
        "notes": list(series.notes),
    }
    return Prepared(scaled.astype(np.float32), tr, provenance)


def _statistics(scaling: Scaling) -> ScalingStats | None:
    if scaling == "own":
        return None
    if isinstance(scaling, ScalingStats):
        return scaling
    return load_stats(Path(scaling), list(resources.parcels().names))


def _described(scaling: Scaling) -> str:
    if isinstance(scaling, ScalingStats):
        return "statistics as given"
    return "this recording" if scaling == "own" else Path(scaling).name
