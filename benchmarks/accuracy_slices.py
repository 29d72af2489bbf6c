"""Slice timing against a truth in continuous time, beside cubic interpolation and no correction."""

import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from benchmarks.table import Row
from brainlm_bids.preproc.motion.slice_timing import correct_slice_timing

Float = NDArray[np.floating]

N_SLICES, N_VOLUMES = 36, 240
STEP = 0.05  # s, of the truth
# BOLD has next to no power outside of this band, and the rate of 3 s holds it whole.
BAND = (0.008, 0.15)  # Hz
ORDERS = ("ascending", "interleaved", "multiband 3")
BOUND = ">= 0.9995"


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure the rows of slice timing of the accuracy table."""
    for tr in (2.0, 3.0):
        for order in ORDERS:
            yield _agreement(tr, order, seed)
    yield _seconds(seed)
    yield _future(seed)


def slice_times(order: str, n_slices: int, tr: float) -> Float:
    """(S,) acquisition times in s of an order of slices."""
    bands = 3 if order.startswith("multiband") else 1
    shots = n_slices // bands
    sequence = np.arange(shots)
    if order == "interleaved":
        sequence = np.concatenate([sequence[::2], sequence[1::2]])
    times = np.empty(shots)
    times[sequence] = np.arange(shots) * tr / shots
    return np.tile(times, bands)


def bold_like(n_series: int, seconds: float, seed: int) -> Float:
    """(V, N) series of unit variance in steps of `STEP`: power 1/f between the ends of `BAND`."""
    rng = np.random.default_rng(seed)
    n_steps = round(seconds / STEP)
    n_all = 2 * n_steps  # a part of a longer series, so that its ends do not meet
    frequency = np.fft.rfftfreq(n_all, STEP)
    inside = (frequency >= BAND[0]) & (frequency <= BAND[1])
    size = np.where(inside, 1 / np.sqrt(np.maximum(frequency, BAND[0])), 0)
    phase = np.exp(2j * np.pi * rng.random((n_series, len(frequency))))
    series = np.fft.irfft(size * phase, n_all, axis=1)[:, :n_steps]
    return np.asarray(series / series.std(axis=1, keepdims=True))


def acquired(truth: Float, times: Float, tr: float, n_volumes: int) -> Float:
    """(1, V, S, T) what a scanner sees at the times of its slices; a signal of 1 % on 1000."""
    index = np.rint((np.arange(n_volumes) * tr + times[:, None]) / STEP).astype(int)
    return np.asarray(1000 + 10 * truth[:, index], dtype=np.float32)[None]


def _ours(bold: Float, times: Float, tr: float, reference: float) -> Float:
    corrected = bold.copy()
    correct_slice_timing(corrected, times, tr, reference=reference)
    return corrected


def _cubic(bold: Float, times: Float, tr: float, reference: float) -> Float:
    volumes = np.arange(bold.shape[3])
    series = [
        CubicSpline(volumes, bold[:, :, k], axis=-1)(volumes + (reference - times[k]) / tr)
        for k in range(len(times))
    ]
    return np.stack(series, axis=2)


def _none(bold: Float, times: Float, tr: float, reference: float) -> Float:
    return bold


def agreement(
    method: Callable[[Float, Float, float, float], Float],
    tr: float,
    order: str,
    seed: int,
    n_voxels: int = 40,
) -> Float:
    """(V·S,) correlations of corrected series with the truth at the middle of the volumes."""
    times = slice_times(order, N_SLICES, tr)
    reference = float(times.min() + 0.5 * (times.max() - times.min()))
    truth = bold_like(n_voxels, (N_VOLUMES + 1) * tr, seed)
    bold = acquired(truth, times, tr, N_VOLUMES)
    found = method(bold, times, tr, reference).reshape(-1, N_VOLUMES)
    middle = np.rint((np.arange(N_VOLUMES) * tr + reference) / STEP).astype(int)
    wanted = np.repeat(truth[:, middle], N_SLICES, axis=0)
    found = found - found.mean(axis=1, keepdims=True)
    wanted = wanted - wanted.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return np.asarray((found * wanted).sum(axis=1) / norms)


def _agreement(tr: float, order: str, seed: int) -> Row:
    ours = agreement(_ours, tr, order, seed)
    peers = {
        name: float(np.median(agreement(method, tr, order, seed)))
        for name, method in (("cubic spline", _cubic), ("not corrected", _none))
    }
    measure = f"r with the middle of the volume, TR {tr:g} s, {order}"
    note = f"5th percentile {np.percentile(ours, 5):.5f}"
    return Row("slice timing", measure, float(np.median(ours)), BOUND, peers, note)


def _seconds(seed: int) -> Row:
    rng = np.random.default_rng(seed)
    bold = np.asfortranarray(rng.standard_normal((64, 64, N_SLICES, N_VOLUMES), dtype=np.float32))
    started = time.perf_counter()
    correct_slice_timing(bold, slice_times("ascending", N_SLICES, 2.0), 2.0, reference=1.0)
    return Row("slice timing", "time (s)", time.perf_counter() - started, "<= 15")


def _future(seed: int) -> Row:
    """How well the next volume of white noise, shared by all slices, is predicted afterwards."""
    times = slice_times("ascending", N_SLICES, 2.0)
    shared, own = np.random.default_rng(seed).standard_normal((2, 1, 60, N_SLICES, 400))
    bold = np.sqrt(0.5) * (own + shared[:, :1, :1])
    corrected = _ours(bold, times, 2.0, 1.0)
    peers = {"not corrected": _predicted(bold)}
    measure = "white noise shared by slices, R² of the next volume (a vector autoregression)"
    return Row("slice timing", measure, _predicted(corrected), "", peers, "why forecasts warn")


def _predicted(bold: Float) -> float:
    """R² of the next volume of 60 parcels of six slices, fitted to the first half."""
    starts = np.random.default_rng(3).integers(0, N_SLICES - 6, bold.shape[1])
    parcels = np.stack([bold[0, p, k : k + 6].mean(axis=0) for p, k in enumerate(starts)], axis=1)
    parcels -= parcels.mean(axis=0)
    past = np.hstack([parcels[2 - lag : len(parcels) - 1 - lag] for lag in range(3)])
    future = parcels[3:]
    half = len(future) // 2
    gram = past[:half].T @ past[:half] + 100 * np.eye(past.shape[1])
    weights = np.linalg.solve(gram, past[:half].T @ future[:half])
    left = future[half:] - past[half:] @ weights
    return float(1 - np.square(left).sum() / np.square(future[half:]).sum())
