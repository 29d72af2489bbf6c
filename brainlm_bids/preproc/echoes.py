"""Echoes of a multi-echo run: how fast the signal decays, and their optimal combination.

Realigned echoes (X, Y, Z, T) on one grid come in, the shortest echo time first, with their echo
times in seconds. T2* per voxel and one series (X, Y, Z, T) go out. Everything is done volume by
volume, so that echoes may lie on disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Volumes = Sequence[NDArray[Any]]

# tedana's: a voxel at this percentile of the first echo shows what signal each echo has …
TYPICAL_PERCENTILE = 33
# … and an echo counts where it is no more than so many times darker than that.
DARKEST = 3.0
# Added to a signal before its logarithm: tedana's 1, but no more than this share of the typical
# signal, lest an image of small numbers have no decay.
OFFSET, LARGEST_OFFSET = 1.0, 1e-3
# A voxel whose signal does not decay takes its first echo: tedana's T2*, s.
NO_DECAY = 1e-3
# T2* of grey matter is 25 ms at 7 T and 85 ms at 1.5 T: medians of a brain lie well within (s).
SHORTEST_T2STAR, LONGEST_T2STAR = 0.01, 0.2


@dataclass(frozen=True)
class Decay:
    """How the signal of each voxel decays with the echo time.

    Attributes
    ----------
    t2star
        (X, Y, Z) float32, s; 0 where it is not known: fewer than two echoes have signal.
    n_good
        (X, Y, Z) how many of the echoes, from the first on, have signal.
    median
        T2* of the brain, s: one over the median decay rate of the voxels in which it is known;
        0 where no voxel is, and negative where the signal grows with the echo time.
    """

    t2star: NDArray[np.float32]
    n_good: NDArray[np.int8]
    median: float

    @property
    def is_plausible(self) -> bool:
        """Whether the brain's T2* is one of tissue; the echo times are probably wrong if not."""
        return SHORTEST_T2STAR <= self.median <= LONGEST_T2STAR


@dataclass(frozen=True)
class _Summary:
    """Of one echo over volumes, (X, Y, Z) each: mean, mean logarithm, and where all are > 0."""

    mean: NDArray[np.float64]
    logarithm: NDArray[np.float64]
    positive: Mask


def fit_decay(
    echoes: Volumes,
    echo_times: Sequence[float],
    brain: Mask,
    volumes: NDArray[np.integer] | None = None,
) -> Decay:
    """Fit an exponential decay to the echoes of each voxel, by the logarithms of their values.

    The fit is the log-linear one of tedana: least squares over all echoes that have signal and all
    volumes. Which echoes have signal follows tedana's adaptive mask, too: those up to the last one
    whose mean exceeds a third of what the voxel at the 33rd percentile of the brain has in the same
    echo, as long as no value is zero or negative. With two echoes the decay is that between their
    mean logarithms: there is nothing by which to judge the fit, or to recognise the noise floor.

    Parameters
    ----------
    echoes
        E arrays (X, Y, Z, T), realigned, the shortest echo time first.
    echo_times
        (E,) s, ascending.
    brain
        (X, Y, Z) from which the threshold and the median are taken.
    volumes
        Indices of the volumes to use: good ones of the steady state; None: all.

    Returns
    -------
    Decay
        T2* and the number of echoes with signal, of every voxel.

    Raises
    ------
    ValueError
        If there are fewer than two echoes, their shapes differ, or the times do not ascend.

    References
    ----------
    DuPre E et al. (2021). TE-dependent analysis of multi-echo fMRI with tedana. JOSS 6:3669.

    Examples
    --------
    >>> times = [0.01, 0.03]
    >>> echoes = [np.full((2, 2, 2, 5), 1000 * np.exp(-te / 0.04)) for te in times]
    >>> fit_decay(echoes, times, np.ones((2, 2, 2), bool)).median.__round__(3)
    0.04
    """
    times = _checked(echoes, echo_times)
    chosen = np.arange(echoes[0].shape[3]) if volumes is None else np.asarray(volumes)
    typical = float(np.percentile(_mean(echoes[0], chosen)[brain], TYPICAL_PERCENTILE))
    offset = min(OFFSET, LARGEST_OFFSET * max(typical, 0.0))
    summaries = [_summary(echo, chosen, offset) for echo in echoes]
    n_good = _count_good(summaries, brain)
    rate = np.zeros(brain.shape)
    for n in range(2, len(times) + 1):
        centred = times[:n] - times[:n].mean()
        slope = sum(t * one.logarithm for t, one in zip(centred, summaries)) / (centred @ centred)
        rate = np.where(n_good == n, -slope, rate)
    known = n_good >= 2
    within = known & brain
    middle = float(np.median(rate[within])) if within.any() else 0.0
    with np.errstate(divide="ignore"):
        t2star = np.where(rate > 0, 1 / rate, NO_DECAY)
    return Decay(
        np.where(known, t2star, 0).astype(np.float32), n_good, 1 / middle if middle else 0.0
    )


def weights_of(decay: Decay, echo_times: Sequence[float]) -> NDArray[np.float32]:
    """Weights TE · exp(−TE / T2*) of the echoes of each voxel, in which their noise is alike.

    Parameters
    ----------
    decay
        Of `fit_decay`.
    echo_times
        (E,) s, ascending.

    Returns
    -------
    ndarray
        (E, X, Y, Z) float32 with a sum of 1. Echoes without signal have weight 0, and a voxel with
        one echo, or none, that has signal takes the first one.

    References
    ----------
    Posse S et al. (1999). Enhancement of BOLD-contrast sensitivity by single-shot multi-echo
    functional MR imaging. Magn Reson Med 42:87.

    Examples
    --------
    >>> decay = Decay(np.full((1, 1, 1), 0.03, np.float32), np.full((1, 1, 1), 2, np.int8), 0.03)
    >>> weights_of(decay, [0.015, 0.03]).ravel().round(3)
    array([0.452, 0.548], dtype=float32)
    """
    times = np.asarray(echo_times, dtype=np.float64)
    known = decay.t2star > 0
    t2star = np.where(known, decay.t2star, 1.0).astype(np.float64)
    weights = np.empty((len(times), *t2star.shape))
    for k, time in enumerate(times):
        # relative to the first echo, so that nothing underflows
        decayed = np.exp(-(time - times[0]) / t2star)
        weights[k] = np.where(known & (k < decay.n_good), time * decayed, 0.0)
    weights[0][~known] = 1.0
    weights /= weights.sum(axis=0)
    return weights.astype(np.float32)


def combine(
    echoes: Volumes, weights: NDArray[Any], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Weighted sum of the echoes of each voxel, volume by volume.

    Parameters
    ----------
    echoes
        E arrays (X, Y, Z, T).
    weights
        (E, X, Y, Z), see `weights_of`.
    out
        float32 (X, Y, Z, T) to write to; None: a new array.

    Returns
    -------
    ndarray
        (X, Y, Z, T) float32.

    Examples
    --------
    >>> two = [np.full((1, 1, 1, 2), value, np.float32) for value in (1, 3)]
    >>> combine(two, np.full((2, 1, 1, 1), 0.5)).ravel()
    array([2., 2.], dtype=float32)
    """
    if out is None:
        out = np.empty(echoes[0].shape, dtype=np.float32, order="F")
    for t in range(out.shape[3]):
        out[..., t] = sum(
            weight * np.asarray(echo[..., t]) for weight, echo in zip(weights, echoes, strict=True)
        )
    return out


def _checked(echoes: Volumes, echo_times: Sequence[float]) -> NDArray[np.float64]:
    times = np.asarray(echo_times, dtype=np.float64)
    if len(echoes) != len(times) or len(times) < 2:
        raise ValueError(f"{len(echoes)} echoes with {len(times)} echo times: two or more of each")
    if not (times[0] > 0 and (np.diff(times) > 0).all()):
        raise ValueError(f"the echo times {times.tolist()} s do not ascend from above 0")
    if len({echo.shape for echo in echoes}) > 1:
        raise ValueError(f"the echoes have different shapes: {[echo.shape for echo in echoes]}")
    return times


def _mean(echo: NDArray[Any], volumes: NDArray[np.integer]) -> NDArray[np.float64]:
    total = np.zeros(echo.shape[:3])
    for t in volumes:
        total += echo[..., t]
    return total / len(volumes)


def _summary(echo: NDArray[Any], volumes: NDArray[np.integer], offset: float) -> _Summary:
    total, logarithm = np.zeros(echo.shape[:3]), np.zeros(echo.shape[:3])
    positive = np.ones(echo.shape[:3], dtype=bool)
    smallest = np.finfo(np.float32).tiny  # of an image that is 0 throughout
    for t in volumes:
        volume = np.asarray(echo[..., t])
        total += volume
        positive &= volume > 0
        logarithm += np.log(np.abs(volume) + np.float32(offset) + smallest)
    return _Summary(total / len(volumes), logarithm / len(volumes), positive)


def _count_good(summaries: Sequence[_Summary], brain: Mask) -> NDArray[np.int8]:
    """Count the echoes with signal from the first on, as tedana's method "dropout" does."""
    first = summaries[0].mean
    inside = brain & (first != 0)
    if not inside.any():
        return np.zeros(first.shape, dtype=np.int8)
    typical = np.percentile(first[inside], TYPICAL_PERCENTILE, method="higher")
    # of several such voxels the brightest, over the echoes
    examples = np.stack([one.mean[inside & (first == typical)] for one in summaries])
    thresholds = examples[:, examples.sum(axis=0).argmax()] / DARKEST
    last = np.zeros(first.shape, dtype=np.int8)
    for k, (one, threshold) in enumerate(zip(summaries, thresholds), 1):
        last[np.abs(one.mean) > threshold] = k
    n_positive = np.cumprod([one.positive for one in summaries], axis=0, dtype=np.int8).sum(axis=0)
    return np.asarray(np.minimum(last, n_positive), dtype=np.int8)
