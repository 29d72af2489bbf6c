"""Whole bad volumes of a run: found by number from a few summaries of each, and replaced.

A scan that was stopped, a lost or frozen volume, a wrong gain: such volumes carry no signal, and
one of them is enough to spoil a filter or a regression. Ordinary head motion, drift, activation and
the bright volumes at the start of a run are none of this.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.parcels.sampling import interpolated, interpolation_matrix
from brainlm_bids.preproc.motion.realign import matrices_to_parameters, parameters_to_matrices

Mask = NDArray[np.bool_]
Reasons = NDArray[np.str_]

# Why a volume is bad, as sidecars and reports name it.
MISSING, ZERO, CONSTANT, REPEATED = "missing", "zero", "constant", "repeated"
INCOMPLETE, BRIGHT, DARK, UNLIKE = "incomplete", "too bright", "too dark", "unlike the others"

# Head motion, drift and breathing change a volume's mean by a few percent, a tenth at most.
LARGEST_RATIO = 1.5
# T1 saturation from full magnetisation: CSF at a TR of 0.7 s and 90° is 6 times as bright.
BRIGHTEST_START = 6.0
# Volumes on the way to the steady state darken, but for what activation and noise add.
START_TOLERANCE = 1.1
# Head motion moves a few slices out of view, not a fifth of the head.
EMPTY_SHARE = 0.2
# A head that has moved by 20 mm still correlates by 0.5 with itself.
LEAST_CORRELATION, TYPICAL_CORRELATION = 0.2, 0.8
# Thermal noise alone changes a volume by far more than this share of the usual change. Frozen
# volumes that were resampled, each with its own motion estimate, differ by about that much.
LEAST_CHANGE = 0.01
# The mean is a measure of brightness where it is so many robust standard deviations above 0.
CLEARLY_POSITIVE = 5.0
# Raw parcel means vary by a few percent of their level; demeaned or scaled ones by more than it.
LARGEST_VARIATION = 0.1
N_TYPICAL = 15
N_CORRELATED = 50_000


@dataclass(frozen=True)
class Summaries:
    """A few numbers of each volume, (T,) each.

    Attributes
    ----------
    finite
        Share of the values that are finite.
    lowest, highest
        Of the finite values; 0 where there is none.
    empty
        Share of the head that is 0 or not finite.
    mean
        Over the head.
    correlation
        With the typical volume; NaN for a constant volume.
    change
        Mean absolute difference to the volume before, over the head; the first is NaN.
    repeated
        Whether the volume equals the one before in every value.
    """

    finite: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    empty: NDArray[np.float64]
    mean: NDArray[np.float64]
    correlation: NDArray[np.float64]
    change: NDArray[np.float64]
    repeated: Mask


def find_bad_volumes(bold: NDArray[Any]) -> Reasons:
    """Find the volumes of a run that carry no usable signal.

    Parameters
    ----------
    bold
        (…, T): volumes (X, Y, Z, T) or grayordinates (V, T), with their mean.

    Returns
    -------
    ndarray
        (T,) why a volume is bad, "" for good ones: "missing" (no finite values), "zero",
        "constant", "repeated" (equal to the volume before, but for what resampling changes; the
        first of such volumes is good), "incomplete" (a fifth of the head has no values), "too
        bright" or "too dark" (by a factor of 1.5, but for the start of a run, where T1 saturation
        is not complete), "unlike the others" (correlated with a typical volume by less than 0.2).

    Examples
    --------
    >>> bold = np.random.default_rng(0).normal(1000, 10, (4, 4, 4, 30))
    >>> bold[..., 12] *= 8
    >>> bold[..., 28:] = 0
    >>> reasons = find_bad_volumes(bold)
    >>> {int(t): str(reasons[t]) for t in np.flatnonzero(reasons != "")}
    {12: 'too bright', 28: 'zero', 29: 'zero'}
    """
    return judge(summarise(bold), LEAST_CHANGE)


def find_bad_rows(series: NDArray[Any]) -> Reasons:
    """Find the rows of a parcel series that carry no usable signal.

    Parameters
    ----------
    series
        (T, P), with or without its mean; NaN in parcels and rows without data.

    Returns
    -------
    ndarray
        (T,) reasons as in `find_bad_volumes`. Only rows that are exactly equal count as repeated:
        a smooth series may change little from one row to the next. Brightness is judged only where
        parcels vary little beside their mean, as means of raw images do, and likeness never.

    Examples
    --------
    >>> series = np.random.default_rng(0).normal(size=(30, 5))
    >>> series[7] = np.nan
    >>> np.flatnonzero(find_bad_rows(series) != "")
    array([7])
    """
    values = np.asarray(series, dtype=np.float64)
    found = summarise(values.T)
    # parcels of one level have no contrast that rows could share
    found = replace(found, correlation=np.zeros(len(values)))
    return judge(found, 0.0, of_images=_has_its_mean(values))


def _has_its_mean(series: NDArray[np.float64]) -> bool:
    """Whether most parcels vary little beside their mean, robustly."""
    known = series[np.isfinite(series).any(axis=1)][:, np.isfinite(series).any(axis=0)]
    level = np.nanmedian(known, axis=0) if known.size else np.zeros(1)
    spread = 1.4826 * np.nanmedian(np.abs(known - level), axis=0) if known.size else np.ones(1)
    return bool(np.median(level) > 0 and np.median(spread) < LARGEST_VARIATION * np.median(level))


def check_share(reasons: Reasons, max_bad_volumes: float) -> None:
    """Raise UserError where a larger share of the volumes is bad than may be.

    Parameters
    ----------
    reasons
        (T,) see `find_bad_volumes`.
    max_bad_volumes
        The largest share, from 0 to 1.

    Examples
    --------
    >>> check_share(np.array(["", "zero", "", ""]), 0.2)
    Traceback (most recent call last):
    ...
    brainlm_bids.errors.UserError: 1 of 4 volumes cannot be used (zero: 1), more than the share \
of 0.2 that max_bad_volumes allows
    """
    n_bad = int((reasons != "").sum())
    if n_bad > max_bad_volumes * len(reasons):
        raise UserError(
            f"{n_bad} of {len(reasons)} volumes cannot be used ({described(reasons)}), more than "
            f"the share of {max_bad_volumes:g} that max_bad_volumes allows"
        )


def fill_volumes(bold: NDArray[Any], good: NDArray[np.bool_]) -> None:
    """Replace, in place, bad volumes by interpolation in time.

    Parameters
    ----------
    bold
        (…, T) floating point; changed in place.
    good
        (T,) False for the volumes to replace, linearly between the nearest good ones; at the ends
        the nearest good volume is copied.

    Examples
    --------
    >>> bold = np.array([[1.0, 99.0, 3.0, np.nan]])
    >>> fill_volumes(bold, np.array([True, False, True, False]))
    >>> bold
    array([[1., 2., 3., 3.]])
    """
    weights = interpolation_matrix(good)
    for t in np.flatnonzero(~good):
        near = np.flatnonzero(weights[t])
        bold[..., t] = sum(weights[t, s].astype(bold.dtype) * bold[..., s] for s in near)


def complete_motion(
    matrices: NDArray[Any], good: NDArray[np.bool_], centre_mm: NDArray[Any]
) -> NDArray[np.float64]:
    """Interpolate the motion of bad volumes between their good neighbours.

    Parameters
    ----------
    matrices
        (N, 4, 4) pull matrices of the N good volumes.
    good
        (T,) which volumes these are.
    centre_mm
        (3,) the point that rotations are about, RAS+ mm.

    Returns
    -------
    ndarray
        (T, 4, 4); the motion parameters of bad volumes change linearly, and at the ends of the run
        they are those of the nearest good volume.

    Examples
    --------
    >>> known = parameters_to_matrices(np.array([[0.0] * 6, [2.0, 0, 0, 0, 0, 0]]), np.zeros(3))
    >>> complete_motion(known, np.array([True, False, True]), np.zeros(3))[1, :3, 3]
    array([1., 0., 0.])
    """
    whole = np.empty((len(good), 4, 4))
    whole[good] = matrices
    parameters = np.zeros((len(good), 6))
    parameters[good] = matrices_to_parameters(matrices, centre_mm)
    between = interpolated(parameters, good)[~good]
    whole[~good] = parameters_to_matrices(between, centre_mm)
    return whole


def described(reasons: Sequence[str] | Reasons) -> str:
    """The bad volumes in words: each reason with its volumes, counted from 0.

    Examples
    --------
    >>> described(["", "zero", "too bright", "", "zero", "zero"])
    'zero: 1, 4-5; too bright: 2'
    """
    found: dict[str, list[int]] = {}
    for volume, reason in enumerate(reasons):
        if reason:
            found.setdefault(str(reason), []).append(volume)
    return "; ".join(f"{reason}: {_ranges(volumes)}" for reason, volumes in found.items())


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in ascending order, neighbours joined: 1, 4-5."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else f"{p[0]}" for p in parts)


def summarise(bold: NDArray[Any]) -> Summaries:
    """Compute the summaries that bad volumes are found by.

    Parameters
    ----------
    bold
        (…, T).

    Returns
    -------
    Summaries
        Of T volumes.
    """
    n_volumes = bold.shape[-1]
    typical = _typical_volume(bold)
    head = typical > 0.2 * np.percentile(typical, 98)
    step = max(1, typical.size // N_CORRELATED)
    sample = slice(None, None, step)
    names = ("finite", "lowest", "highest", "empty", "mean", "correlation", "change")
    numbers = {name: np.full(n_volumes, np.nan) for name in names}
    repeated = np.zeros(n_volumes, dtype=bool)
    previous = None
    for t in range(n_volumes):
        volume = _volume(bold, t)
        finite = np.isfinite(volume)
        values = volume if finite.all() else np.where(finite, volume, 0)
        within = values[head]
        numbers["finite"][t] = finite.mean()
        known = volume[finite]
        numbers["lowest"][t], numbers["highest"][t] = (
            (known.min(), known.max()) if known.size else (0, 0)
        )
        numbers["empty"][t] = (within == 0).mean() if within.size else 0.0
        numbers["mean"][t] = within.mean(dtype=np.float64) if within.size else 0.0
        numbers["correlation"][t] = _correlation(values[sample], typical[sample])
        if previous is not None:
            difference = np.abs(within - previous[head])
            numbers["change"][t] = difference.mean(dtype=np.float64) if within.size else np.nan
            repeated[t] = np.array_equal(values, previous)
        previous = values
    return Summaries(**numbers, repeated=repeated)


def judge(found: Summaries, least_change: float, *, of_images: bool = True) -> Reasons:
    """Decide from the summaries which volumes are bad.

    Parameters
    ----------
    found
        Of T volumes.
    least_change
        Share of the usual change below which a volume counts as repeated; 0: only equal ones.
    of_images
        Whether the values have the contrast of an image; without, volumes are judged by what they
        hold alone, not by how bright and how like the others they are.

    Returns
    -------
    ndarray
        (T,) reasons, "" for good volumes.
    """
    missing = found.finite < 0.5 * found.finite.max()
    constant = ~missing & (found.lowest == found.highest)
    zero = constant & (found.highest == 0)
    usable = ~missing & ~constant
    changes = found.change[usable & ~found.repeated]
    usual = np.nanmedian(changes) if np.isfinite(changes).any() else 0.0
    with np.errstate(invalid="ignore"):
        repeated = usable & (found.repeated | (found.change < least_change * usual))
    reasons = np.full(len(missing), "", dtype="<U20")
    simple = ((MISSING, missing), (CONSTANT, constant), (ZERO, zero), (REPEATED, repeated))
    for name, chosen in simple:
        reasons[chosen] = name
    if not of_images:
        return reasons
    usable &= ~repeated
    incomplete = usable & (found.empty > _median(found.empty[usable]) + EMPTY_SHARE)
    usable &= ~incomplete
    bright, dark = _brightness(found.mean, usable)
    usable &= ~bright & ~dark
    correlation = np.nan_to_num(found.correlation)
    unlike = usable & (correlation < LEAST_CORRELATION)
    unlike &= _median(correlation[usable]) >= TYPICAL_CORRELATION
    others = ((INCOMPLETE, incomplete), (BRIGHT, bright), (DARK, dark), (UNLIKE, unlike))
    for name, chosen in others:
        reasons[chosen] = name
    return reasons


def _brightness(mean: NDArray[np.float64], usable: Mask) -> tuple[Mask, Mask]:
    """(T,) each: volumes that are too bright and too dark; none where the mean is about 0."""
    nothing = np.zeros(len(mean), dtype=bool)
    level = _median(mean[usable])
    spread = 1.4826 * _median(np.abs(mean[usable] - level))
    if not level > CLEARLY_POSITIVE * spread:
        return nothing, nothing
    ratio = mean / level
    bright, dark = usable & (ratio > LARGEST_RATIO), usable & (ratio < 1 / LARGEST_RATIO)
    # the approach to the steady state: bright at the start, and ever less so
    previous = BRIGHTEST_START
    for t in np.flatnonzero(usable & (ratio <= BRIGHTEST_START)):
        if not (bright[t] and ratio[t] <= START_TOLERANCE * previous):
            break
        bright[t], previous = False, ratio[t]
    return bright, dark


def _typical_volume(bold: NDArray[Any]) -> NDArray[np.float64]:
    """(V,) median over volumes spread over those that have values; 0 where there are none."""
    candidates = [t for t in range(bold.shape[-1]) if _has_values(_volume(bold, t))]
    if not candidates:
        return np.zeros(_volume(bold, 0).size)
    places = np.linspace(0, len(candidates) - 1, min(N_TYPICAL, len(candidates))).round()
    chosen = [candidates[int(place)] for place in np.unique(places)]
    volumes = np.stack([_volume(bold, t) for t in chosen])
    # a sum of infinite values is NaN, and a median with a NaN too
    return np.asarray(np.nan_to_num(np.median(volumes, axis=0), nan=0.0, posinf=0.0, neginf=0.0))


def _volume(bold: NDArray[Any], t: int) -> NDArray[Any]:
    """(V,) one volume as floating point, in the order of memory where that is possible."""
    volume = bold[..., t].ravel(order="K")
    return volume if volume.dtype.kind == "f" else volume.astype(np.float32)


def _has_values(volume: NDArray[Any]) -> bool:
    """Whether half of a volume is finite and it is not constant, judged by a part of its voxels."""
    part = volume[:: max(1, volume.size // N_CORRELATED)]
    known = part[np.isfinite(part)]
    return bool(known.size >= 0.5 * part.size and known.size and known.min() < known.max())


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = a - a.mean(dtype=np.float64), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float("nan")


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if values.size else 0.0
