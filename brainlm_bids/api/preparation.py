"""From a series as it was handed in to the series that a network sees."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.api.errors import value_errors
from brainlm_bids.api.series import ParcelSeries
from brainlm_bids.errors import UserError
from brainlm_bids.parcels.sampling import RESAMPLING, band_warnings, sample
from brainlm_bids.parcels.scaling import ScalingStats, load_stats
from brainlm_bids.parcels.steps import scale
from brainlm_bids.preproc.denoising.volumes import Reasons, described
from brainlm_bids.preproc.steps import Given, take_series
from brainlm_bids.settings import Settings

# What medians and interquartile ranges (of typical parcels) of a scaled series do not exceed.
FARTHEST_MEDIAN, NARROWEST_RANGE, WIDEST_RANGE = 1.0, 0.1, 10.0
# "own", a TSV of medians and interquartile ranges, or the statistics themselves.
Scaling = str | Path | ScalingStats


@dataclass(frozen=True)
class Prepared:
    """A series as a network sees it, and what every call of a network takes beside it.

    Attributes
    ----------
    values
        (T', 424) in interquartile ranges, without NaN.
    tr
        Repetition time in seconds.
    input_gain
        Factor on the scaled series.
    seed
        Of what is random in the call.
    provenance
        Source, resampling, scaling, filled parcels, bad volumes (from 0), gain, seed, notes.
    """

    values: NDArray[np.float32]
    tr: float
    input_gain: float
    seed: int
    provenance: dict[str, Any]


@dataclass(frozen=True)
class SeriesOptions:
    """What every call of a network can be told about its series; see `BrainLM.embed`."""

    scaling: Scaling = "own"
    already_scaled: bool = False
    input_gain: float = 1.0
    random_state: int = 42


def prepare(series: ParcelSeries, options: SeriesOptions) -> Prepared:
    """Resample a series to the rate of the networks, and scale it robustly.

    Parameters
    ----------
    series
        The recording.
    options
        Of the call. scaling: "own", by the recording's own median and interquartile range; else a
        TSV with the columns name, median and iqr, or the statistics. already_scaled: only
        resample, since the values are in interquartile ranges already; a warning says so if they
        obviously are not.

    Raises
    ------
    ValueError
        If no parcel can be scaled, the statistics cannot be read, or more than a fifth of the
        volumes is missing, 0 or repeated.
    """
    model_tr, scaling = Settings.model_tr, options.scaling
    given = _taken(series)
    reasons = given.motion.reasons
    lacking = [one.text for one in band_warnings(series.tr)]
    notes = [*series.notes, *_notes(reasons), *lacking]
    values = given.series
    if options.already_scaled:
        sampled = sample(values, series.tr, model_tr)
        values, tr = sampled.series, sampled.tr
        doubt = _not_scaled(values)
        if doubt:
            notes.append(doubt)
            warnings.warn(f"{series.source}: {doubt}", UserWarning, stacklevel=3)
        filled = ~np.isfinite(values).all(axis=0)
        scaled = np.where(filled, 0.0, values)
    else:
        with value_errors():
            made = scale(values, series.tr, model_tr=model_tr, stats=_statistics(scaling))
        scaled, filled, tr = made.series, made.filled, made.tr
    if filled.all():
        raise ValueError(f"{series.source}: no parcel can be scaled")
    provenance = {
        "source": series.source,
        "source_repetition_time": series.tr,
        "repetition_time": tr,
        "resampling": None if tr == series.tr else RESAMPLING,
        "scaling": "none, as given" if options.already_scaled else _described(scaling),
        "filled_parcels": np.asarray(resources.parcels().names)[filled].tolist(),
        "bad_volumes": [] if reasons is None else np.flatnonzero(reasons != "").tolist(),
        "input_gain": options.input_gain,
        "random_state": options.random_state,
        "notes": notes,
    }
    seen = scaled.astype(np.float32)
    return Prepared(seen, tr, options.input_gain, options.random_state, provenance)


def _not_scaled(values: NDArray[np.float64]) -> str:
    """What speaks against a series (T, P) being in interquartile ranges; empty if nothing does.

    Statistics of a cohort leave single recordings and parcels with other ranges than 1, so only
    what no such statistics explain counts.
    """
    finite = values[:, np.isfinite(values).all(axis=0)]
    low, middle, high = np.percentile(finite, [25, 50, 75], axis=0)
    varies = high > low
    if not varies.any():
        return ""
    median = float(np.median(np.abs(middle[varies])))
    width = float(np.median((high - low)[varies]))
    if median <= FARTHEST_MEDIAN and NARROWEST_RANGE <= width <= WIDEST_RANGE:
        return ""
    return (
        "already_scaled=True, but the values do not look robustly scaled: a typical parcel has a "
        f"median {median:.3g} away from 0 and an interquartile range of {width:.3g} (expected 0 "
        "and about 1); leave already_scaled out for a series in other units"
    )


def _taken(series: ParcelSeries) -> Given:
    """The series without its bad volumes, as a run takes one. Raises ValueError, naming it."""
    try:
        return take_series(series.values, max_bad_volumes=Settings.max_bad_volumes)
    except UserError as error:
        hint = "; if volumes without data are meant to count, interpolate them first"
        raise ValueError(f"{series.source}: {error}{hint}") from error


def _notes(reasons: Reasons | None) -> list[str]:
    if reasons is None:
        return []
    return [
        f"volumes that cannot be used ({described(reasons)}; the first is 0) were cut off at the "
        "ends and interpolated elsewhere, and do not count for the scaling"
    ]


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
