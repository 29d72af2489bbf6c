"""The past of a recording, cut in the scanner's own volumes.

A series at another rate than the scanner's holds, in every sample, volumes from both sides of it. A
recording is therefore cut first, after a number of its volumes; only what lies before is brought to
the rate of the model. What the model predicts at its rate is read at the times at which the scanner
measured the volumes that follow: those are compared as they are.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.model.future import forecast_origins
from brainlm_bids.model.network import Indices
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.parcels import scaling
from brainlm_bids.parcels.sampling import (
    LOBES,
    MINIMUM_VOLUMES,
    interpolated,
    rate_of,
    resample_series,
    rows_with_data,
    sample,
)

Array = NDArray[np.float64]
# Share of the power in the upper quarter of the frequencies below which a series is taken for one
# that was resampled or smoothed over time. White noise has 0.25, brought from 1 s to 0.735 s 0.011.
LEAST_POWER = 0.012


class Course(NamedTuple):
    """A recording as the scanner sampled it.

    Attributes
    ----------
    series
        (T, P), NaN in volumes and in parcels without data.
    tr
        Repetition time of the scanner, s.
    rate
        Repetition time at which a model sees it, s: `tr` itself if the two are close enough.
    kind
        "robust": scaled by its own interquartile ranges; "robustcohort": by those of the cohort.
    iqr
        (P,) interquartile ranges of the cohort, in units of the series; 1 if it is in such units.
    clean
        Makes from a number of volumes the series of as many first ones, cleaned by themselves
        alone; None: they are taken as they are in `series`.
    least
        Smallest number of volumes before an origin that `clean` needs.
    """

    series: Array
    tr: float
    rate: float
    kind: str = "robust"
    iqr: Array | float = 1.0
    clean: Callable[[int], Array] | None = None
    least: int = 0

    @property
    def resampled(self) -> bool:
        """Whether a model sees it at another rate."""
        return self.rate != self.tr

    def before(self, origin: int) -> Array:
        """The volumes before an origin, (origin, P), as predictors see them."""
        return self.series[:origin] if self.clean is None else self.clean(origin)

    def samples(self, n_volumes: int) -> int:
        """Samples at the rate of the model that as many volumes hold."""
        if not self.resampled:
            return n_volumes
        return math.floor((n_volumes - 1) * self.tr / self.rate + 1e-9) + 1

    def volumes(self, n_samples: int) -> int:
        """Smallest number of volumes that holds as many samples at the rate of the model."""
        if not self.resampled:
            return n_samples
        return math.ceil((n_samples - 1) * self.rate / self.tr - 1e-9) + 1

    def ahead(self, n_samples: int) -> int:
        """Volumes that the scanner measures within as many samples after an origin."""
        return math.floor(n_samples * self.rate / self.tr + 1e-9)


class Past(NamedTuple):
    """What a model sees of a recording before an origin.

    Attributes
    ----------
    series
        (t, P) at the rate of the model, scaled; the last sample is the last volume.
    location, scale
        (P,) statistics that turn scaled values into those of the recording.
    has_data
        (P,) whether a parcel has data.
    """

    series: Array
    location: Array
    scale: Array
    has_data: NDArray[np.bool_]


def course(
    series: ArrayLike,
    tr: float,
    model_tr: float,
    kind: str = "robust",
    iqr: Array | float = 1.0,
) -> Course:
    """Take a series as a recording, without the volumes without data at both ends.

    Parameters
    ----------
    series
        (T, P), NaN in volumes and in parcels without data.
    tr, model_tr
        Repetition times of the scanner and of the model, s.
    kind, iqr
        See `Course`.

    Returns
    -------
    Course
        The recording.

    Examples
    --------
    >>> made = course(np.random.default_rng(0).normal(size=(100, 3)), 2.0, 0.735)
    >>> made.samples(100), made.volumes(180), made.ahead(20)
    (270, 67, 7)
    """
    values = np.asarray(series, dtype=np.float64)
    good = np.flatnonzero(rows_with_data(values))
    if len(good):
        values = values[good[0] : good[-1] + 1]
    return Course(values, tr, rate_of(tr, model_tr), kind, iqr)


def origins_of(recording: Course, n_samples: int, n_seen: int, n_origins: int) -> Indices:
    """Choose the origins of forecasts: numbers of volumes, the last of which has data.

    Parameters
    ----------
    recording
        The recording.
    n_samples
        Samples to predict, at the rate of the model.
    n_seen
        Samples of the past that a window shows.
    n_origins
        Number of origins.

    Returns
    -------
    ndarray
        (K,) numbers of volumes before each, see `forecast_origins`.

    Raises
    ------
    UserError
        If no volume is measured within the forecast, or the recording is too short.
    """
    n_ahead = recording.ahead(n_samples)
    if not n_ahead:
        raise UserError(
            f"a forecast of {n_samples} samples of {recording.rate:g} s ends before the next "
            f"volume is measured ({recording.tr:g} s): there is nothing to compare it with"
        )
    least = max(MINIMUM_VOLUMES, recording.volumes(MINIMUM_VOLUMES), recording.least)
    seen = recording.volumes(n_seen)
    origins = forecast_origins(len(recording.series), n_ahead, seen, n_origins, least)
    usable = _after_data(recording.series, least)
    nearest = np.abs(origins[:, None] - usable).argmin(axis=1)
    return np.unique(usable[nearest])


def _after_data(series: Array, least: int) -> Indices:
    """Numbers of volumes of which the last one has data."""
    counts = np.flatnonzero(rows_with_data(series)) + 1
    return np.asarray(counts[counts >= min(least, counts[-1])])


def past_of(recording: Course, origin: int, n_samples: int | None = None) -> Past:
    """Bring the volumes before an origin, and no others, to the rate and scale of a model.

    Parameters
    ----------
    recording
        The recording.
    origin
        Number of volumes before it; the last one has data.
    n_samples
        Number of samples to return, which alone are used for the scaling; None: all.

    Returns
    -------
    Past
        The past.
    """
    first = 0
    if n_samples is not None:
        reach = LOBES if recording.resampled else 0
        first = max(origin - recording.volumes(n_samples) - reach, 0)
    # backwards in time: the last volume is then a sample
    made = sample(recording.before(origin)[first:][::-1], recording.tr, recording.rate)
    series = made.series[:n_samples]
    measured = None if made.measured is None else made.measured[:n_samples]
    stats = scaling.recording_stats(series, measured)
    counted = series if measured is None else series[measured]
    location = counted.mean(axis=0) + stats.median
    scale = (
        stats.iqr if recording.kind == "robust" else np.broadcast_to(recording.iqr, stats.iqr.shape)
    )
    _, filled = scaling.scale(series, stats, measured)
    location, scale = np.where(filled, 0, location), np.where(filled, 1, scale)
    scaled = np.where(filled, 0, (series - location) / scale)
    return Past(scaled[::-1], location, scale, ~filled)


def at_volumes(recording: Course, last: ArrayLike, predicted: ArrayLike) -> Array:
    """Read predictions at the times at which the scanner measured.

    Parameters
    ----------
    recording
        The recording.
    last
        (P,) the last sample before an origin.
    predicted
        (H, P) the samples after it, at the rate of the model.

    Returns
    -------
    ndarray
        (H', P) at 1 … H' repetition times of the scanner after the origin's last volume; between
        two predictions, the line through them.

    Examples
    --------
    >>> recording = course(np.eye(30), 1.5, 1.0)
    >>> at_volumes(recording, [0.0], [[1.0], [2.0], [3.0]]).ravel()
    array([1.5, 3. ])
    """
    samples = np.vstack([np.atleast_2d(last), np.asarray(predicted, dtype=np.float64)])
    if not recording.resampled:
        return samples[1:]
    n_ahead = recording.ahead(len(samples) - 1)
    place = np.arange(1, n_ahead + 1) * recording.tr / recording.rate
    before = np.minimum(np.floor(place + 1e-9).astype(int), len(samples) - 1)
    after = np.minimum(before + 1, len(samples) - 1)
    part = np.clip(place - before, 0, 1)[:, None]
    return np.where(part > 0, (1 - part) * samples[before] + part * samples[after], samples[before])


def window_at(recording: Course, origin: int, n_seen: int, n_hidden: int) -> Array:
    """Cut a window around an origin: its past alone decides what is seen and how it is scaled.

    Parameters
    ----------
    recording
        The recording.
    origin
        Number of volumes before it, one of `window_origins`.
    n_seen, n_hidden
        Samples before and after the origin.

    Returns
    -------
    ndarray
        (n_seen + n_hidden, P) in units of the past; 0 in parcels without data. The hidden samples
        are what a model learns to predict: they are interpolated from the volumes on both sides.
    """
    past = past_of(recording, origin, n_seen)
    good = rows_with_data(recording.series)
    values = recording.series if good.all() else interpolated(recording.series, good)
    if recording.resampled:
        reach = LOBES + recording.volumes(n_hidden) + 1
        begin = max(origin - 1 - LOBES, 0)
        start = (origin - 1 - begin) * recording.tr + recording.rate
        near = values[begin : origin + reach]
        following = resample_series(near, recording.tr, recording.rate, start)[:n_hidden]
    else:
        following = values[origin : origin + n_hidden]
    following = np.where(past.has_data, (following - past.location) / past.scale, 0)
    return np.vstack([past.series, np.nan_to_num(following)])


def window_origins(recording: Course, n_seen: int, n_hidden: int) -> Indices:
    """Places at which a window of a recording can be cut.

    Parameters
    ----------
    recording
        The recording.
    n_seen, n_hidden
        Samples before and after an origin.

    Returns
    -------
    ndarray
        Numbers of volumes, the last of which has data; empty if the recording is too short.
    """
    least = recording.volumes(n_seen)
    if recording.resampled:
        most = len(recording.series) - math.ceil(n_hidden * recording.rate / recording.tr - 1e-9)
    else:
        most = len(recording.series) - n_hidden
    counts = np.flatnonzero(rows_with_data(recording.series)) + 1
    return counts[(counts >= least) & (counts <= most)]


def smoothness_warnings(series: ArrayLike) -> list[Notice]:
    """Warn about a series that looks resampled, or low-pass filtered.

    Parameters
    ----------
    series
        (T, P) volumes; NaN are left out.

    Returns
    -------
    list of Notice
        One if next to none of its power lies in the upper quarter of its frequencies.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(200, 5))
    >>> smoothness_warnings(noise)
    []
    >>> [one.kind for one in smoothness_warnings(resample_series(noise, 2.0, 0.735))]
    ['smooth_series']
    """
    values = np.asarray(series, dtype=np.float64)
    values = values[np.isfinite(values).any(axis=1)]
    values = values[:, np.isfinite(values).all(axis=0)]
    tapered = (values - values.mean(axis=0)) * np.hanning(len(values))[:, None]
    power = np.square(np.abs(np.fft.rfft(tapered, axis=0)))
    total = power.sum()
    share = power[3 * len(power) // 4 :].sum() / total if total else 1.0
    if share >= LEAST_POWER:
        return []
    text = (
        f"Only {share:.1%} of the power of the series lies in the upper quarter of its "
        "frequencies, as after resampling to a higher rate or a low-pass filter. Its volumes then "
        "hold later ones, and even white noise is predicted well: give the series at the "
        "scanner's own repetition time, without a low-pass filter."
    )
    return [notice(Kind.SMOOTH_SERIES, text)]
