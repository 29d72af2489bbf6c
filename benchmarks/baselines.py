"""The baselines of reconstruction against their formulas as one writes them down.

    python -m benchmarks.baselines [--volumes 490]

`direct` solves one system for each volume (ridge regression on the visible parcels) and one for
each parcel (kriging), decomposes nothing that it does not need, and shares nothing. Both do the
same masks of one window of a simulated recording in turn, with one thread; seconds are the
processor's. That they agree within 1e-6 of the standard deviation is asserted.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import toeplitz
from threadpoolctl import threadpool_limits

from brainlm_bids.model import baselines
from brainlm_bids.model.kriging import LAGS, NUGGET, REACH
from brainlm_bids.model.masking import disjoint_orders
from brainlm_bids.model.ridge import FLAT, PENALTIES, ROUNDS

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
RATIOS = (0.2, 0.75, 0.9)
N_PARCELS, PATCH, WINDOW = 424, 20, 200


def direct(truth: NDArray[np.float32], visible: Mask) -> dict[str, Matrix]:
    """`time`, `ridge` and `ridge_time` of a recording (P, T)."""
    count = visible.sum(axis=1, keepdims=True)
    total = np.where(visible, truth, 0).sum(axis=1, keepdims=True, dtype=np.float64)
    mean = np.where(count > 0, total / np.maximum(count, 1), total.sum() / count.sum())
    centred = np.where(visible, truth - mean, 0)
    penalty = _penalty(centred, visible)
    covariance, shift = _covariance(centred, visible), np.zeros_like(mean)
    guess = _impute(centred, visible, covariance, penalty)
    for _ in range(ROUNDS):
        shift = guess.mean(axis=1, keepdims=True)
        covariance = np.cov(guess, bias=True)
        guess = shift + _impute(guess - shift, visible, covariance, penalty)
    errors = _left_out(np.where(visible, guess - shift, 0), visible, covariance, penalty)
    later = np.where(visible, 0, _kriging(errors, visible))
    return {
        "time": mean + _kriging(centred, visible),
        "ridge": mean + guess,
        "ridge_time": mean + guess + later,
    }


def _covariance(centred: Matrix, visible: Mask) -> Matrix:
    shown = visible.astype(float)
    values, vectors = np.linalg.eigh(centred @ centred.T / np.maximum(shown @ shown.T, 1))
    return np.asarray((vectors * np.clip(values, 0, None)) @ vectors.T)


def _impute(centred: Matrix, visible: Mask, covariance: Matrix, penalty: float) -> Matrix:
    result = centred.copy()
    for t, seen in enumerate(visible.T):
        system = covariance[np.ix_(seen, seen)] + penalty * np.eye(seen.sum())
        result[~seen, t] = covariance[np.ix_(~seen, seen)] @ np.linalg.solve(
            system, centred[seen, t]
        )
    return result


def _left_out(centred: Matrix, visible: Mask, covariance: Matrix, penalty: float) -> Matrix:
    """Errors of each parcel predicted from the others, (K x)_i / K_ii, K inverted per volume."""
    result = np.zeros_like(centred)
    for t, seen in enumerate(visible.T):
        inverse = np.linalg.inv(covariance[np.ix_(seen, seen)] + penalty * np.eye(seen.sum()))
        result[seen, t] = inverse @ centred[seen, t] / inverse.diagonal()
    return result


def _penalty(centred: Matrix, visible: Mask) -> float:
    variance = np.square(centred).sum() / visible.sum()
    late = np.arange(visible.shape[1]) > np.median(np.flatnonzero(visible.any(axis=0)))
    halves = [(_covariance(centred[:, ~half], visible[:, ~half]), half) for half in (late, ~late)]

    def error(i: int) -> float:
        penalty = PENALTIES[i] * variance
        found = [
            _left_out(centred[:, half], visible[:, half], covariance, penalty)
            for covariance, half in halves
        ]
        return float(sum(np.square(one).sum() for one in found))

    best, errors = len(PENALTIES) // 2, {}
    while True:
        around = [i for i in (best - 1, best, best + 1) if 0 <= i < len(PENALTIES)]
        errors |= {i: error(i) for i in around if i not in errors}
        lowest = min(around, key=errors.__getitem__)
        if errors[lowest] >= errors[best] * (1 - FLAT):
            return float(PENALTIES[best] * variance)
        best = lowest


def _kriging(centred: Matrix, visible: Mask) -> Matrix:
    n = visible.shape[1]
    scale = np.sqrt(np.square(centred).sum(axis=1) / np.maximum(visible.sum(axis=1), 1))
    used = scale > 1e-9 * scale.max()  # the others have no data
    unit, shown = centred[used] / scale[used, None], visible[used].astype(float)
    raw = np.zeros(n)
    for k in range(min(LAGS, n)):
        pairs = (shown[:, k:] * shown[:, : n - k]).sum()
        product = (unit[:, k:] * unit[:, : n - k]).sum() / max(pairs, 1)
        raw[k] = product * (0.5 + 0.5 * np.cos(np.pi * k / min(LAGS, n)))
    spectrum = np.fft.rfft(np.concatenate([raw, [0.0], raw[:0:-1]])).real.clip(0)
    correlation = np.fft.irfft(spectrum, 2 * n)[:n]
    hidden = np.flatnonzero(~visible.all(axis=0))
    near = np.zeros(n, dtype=bool)
    near[max(hidden[0] - REACH, 0) : hidden[-1] + REACH + 1] = True
    covariance = toeplitz(correlation / correlation[0]) + NUGGET * np.eye(n)
    result = centred.copy()
    for row, seen in zip(result, visible, strict=True):
        known = np.linalg.solve(covariance[np.ix_(seen & near, seen & near)], row[seen & near])
        row[~seen] = covariance[np.ix_(~seen, seen & near)] @ known
    return result


def recording(n_parcels: int, n_volumes: int, seed: int = 0) -> NDArray[np.float32]:
    """(P, T): slow factors that parcels share, and slow noise of their own."""
    rng = np.random.default_rng(seed)
    slow = np.hanning(9) / np.hanning(9).sum()
    shared = rng.standard_normal((n_parcels, 12)) @ rng.standard_normal((12, n_volumes + 8))
    noise = 2 * rng.standard_normal((n_parcels, n_volumes + 8))
    series = np.stack([np.convolve(row, slow, mode="valid") for row in shared + noise])
    return (series / series.std(axis=1, keepdims=True)).astype(np.float32)


def masks(n_parcels: int, n_volumes: int, ratio: float, start: int = 0) -> list[Mask]:
    """Visible values (P, T) of the passes over one window, tokens of one parcel being hidden."""
    found = []
    n_patches = min(WINDOW, n_volumes) // PATCH
    for order, n_keep in disjoint_orders(n_parcels * n_patches, ratio, 0):
        shown = np.isin(np.arange(n_parcels * n_patches), order[:n_keep]).reshape(n_parcels, -1)
        visible = np.ones((n_parcels, n_volumes), dtype=bool)
        visible[:, start : start + n_patches * PATCH] = np.repeat(shown, PATCH, axis=1)
        found.append(visible)
    return found


def _timed(work: Callable[[], dict[str, NDArray]]) -> tuple[dict[str, NDArray], float]:
    started = time.process_time()
    return work(), time.process_time() - started


def main() -> int:
    parser = argparse.ArgumentParser(description="Baselines of reconstruction: time and agreement")
    parser.add_argument("--volumes", type=int, default=490)
    n_volumes = parser.parse_args().volumes
    truth = recording(N_PARCELS, n_volumes)
    print("mask ratio   s per pass   direct s   ratio   largest difference")
    with threadpool_limits(1):
        for ratio in RATIOS:
            visible = masks(N_PARCELS, n_volumes, ratio, n_volumes // 3)[0]
            expected, slow = _timed(lambda v=visible: direct(truth, v))
            runs = [_timed(lambda v=visible: baselines.predictions(truth, v)) for _ in range(5)]
            fast, made = median(seconds for _, seconds in runs), runs[0][0]
            apart = max(float(abs(made[name] - expected[name]).max()) for name in expected)
            assert apart < 1e-6, apart
            print(f"{ratio:10} {fast:12.3f} {slow:10.2f} {slow / fast:7.0f}   {apart:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
