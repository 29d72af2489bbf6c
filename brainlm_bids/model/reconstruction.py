"""Reconstruction: predictions of a scaled series while it is masked, and their scores.

Series (T, P) are robust-scaled at the model's TR, coordinates (P, 3) in mm. Every value is
predicted in a pass that masked it. Four baselines do the same with the same masks: a model is worth
something only where it is better than the best of them. Predictions are in units of the input
(`input_gain` is undone).
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.model import baselines
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.masking import disjoint_orders
from brainlm_bids.model.network import Indices
from brainlm_bids.model.recording import Array, PreparedSeries, complete_order, predict, prepare

METRICS = ("mse", "mae", "r2", "pearson_r")


class Reconstruction(NamedTuple):
    """Predictions of a model, and the scores of model and baselines.

    Attributes
    ----------
    series
        (T, P) predictions; NaN where a value was never masked (see `always_visible`).
    n_windows
        Number of windows.
    n_padded
        Number of volumes of zeros in the only window of a short series.
    metrics
        Predictor ("model" and `baselines.NAMES`) -> metric ("mse", "mae", "r2", "pearson_r") ->
        value, pooled over volumes and parcels with data.
    parcel_metrics
        The same per parcel, (P,), NaN for parcels without data.
    """

    series: Array
    n_windows: int
    n_padded: int
    metrics: dict[str, dict[str, float]]
    parcel_metrics: dict[str, dict[str, NDArray[np.float64]]]


def reconstruct(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    *,
    mask_ratio: float,
    seed: int,
    input_gain: float = 1.0,
    with_baselines: bool = True,
    always_visible: Sequence[int] = (),
) -> Reconstruction:
    """Predict every value of a series while it is masked.

    Disjoint masks are applied in turn, in ceil(1 / ratio) passes. Windows do not overlap except for
    the last, whose predictions are used only where no other window has any. In each window and
    pass, the baselines of `baselines.predictions` use the values that the model sees, and all other
    volumes of the recording.

    Parameters
    ----------
    model
        The model.
    series
        (T, P) robust-scaled, sampled at the model's repetition time.
    coords
        (P, 3) MNI coordinates in mm, in the order of the columns of the series.
    mask_ratio
        Share of the tokens that a pass masks.
    seed
        Seed of the masks.
    input_gain
        Factor on the series before it enters the model.
    with_baselines
        Whether to compute the baselines.
    always_visible
        Indices of parcels that are never masked; in the image models, the patches that hold them.

    Returns
    -------
    Reconstruction
        Predictions and scores.

    Raises
    ------
    UserError
        For input that cannot be used.

    Examples
    --------
    >>> from brainlm_bids.model.checkpoint import load_model
    >>> rng = np.random.default_rng(0)
    >>> series, coords = rng.standard_normal((60, 424)), rng.uniform(-60, 60, (424, 3))
    >>> model = load_model("random:tiny", seed=0)
    >>> result = reconstruct(model, series, coords, mask_ratio=0.5, seed=0)
    >>> result.series.shape, sorted(result.metrics)
    ((60, 424), ['model', 'parcel_mean', 'ridge', 'ridge_time', 'time'])
    """
    if not 0 < mask_ratio < 1:
        raise UserError(f"--mask-ratio {mask_ratio}: expected a number between 0 and 1")
    prepared = prepare(model, series, coords, input_gain=input_gain)
    names = ("model", *(baselines.NAMES if with_baselines else ()))
    predicted = _predict(model, prepared, mask_ratio, seed, names, tuple(always_visible))
    predicted /= np.float32(input_gain)
    truth = np.asarray(series, dtype=np.float64)
    has_data = (truth != 0).any(axis=0)
    pooled, per_parcel = {}, {}
    for name, guess in zip(names, predicted, strict=True):
        per_parcel[name] = scores(truth, np.where(has_data, guess, np.nan))
        whole = scores(truth[:, has_data].reshape(-1, 1), guess[:, has_data].reshape(-1, 1))
        pooled[name] = {metric: float(values[0]) for metric, values in whole.items()}
    n_windows = len(prepared.starts)
    return Reconstruction(predicted[0], n_windows, prepared.n_padded, pooled, per_parcel)


def _predict(
    model: LoadedModel,
    prepared: PreparedSeries,
    mask_ratio: float,
    seed: int,
    names: tuple[str, ...],
    always_visible: tuple[int, ...],
) -> Array:
    """(1 + n, T, P): what the model and the baselines predict, in units of the signal."""
    windows, orders, n_keep = _passes(model, prepared, mask_ratio, seed, always_visible)
    guesses, hidden = predict(model, prepared, windows, orders, n_keep)
    whole = prepared.whole  # (P, T)
    predicted = np.full((len(names), *whole.shape), np.nan, dtype=np.float32)
    gaps: list[_Gap] = []
    for window, guess, mask in zip(windows, guesses, hidden, strict=True):
        start = int(prepared.starts[window])
        part = predicted[0, :, start : start + model.window]
        width = part.shape[-1]
        new = mask[:, :width] & np.isnan(part)
        if new.any():
            part[new] = guess[:, :width][new]
            gaps.append(_Gap(slice(start, start + width), mask[:, :width], new))
    if len(names) > 1:
        _fill(predicted[1:], whole, gaps)
    return np.ascontiguousarray(predicted.transpose(0, 2, 1))


class _Gap(NamedTuple):
    """What a pass hides of some volumes, (P, W), and what of it no earlier pass has predicted."""

    volumes: slice
    hidden: NDArray[np.bool_]
    new: NDArray[np.bool_]


def _fill(predicted: Array, whole: Array, gaps: Sequence[_Gap]) -> None:
    """Write the predictions of all baselines (n, P, T) of a signal (P, T).

    The matrices are too small for a product or a factorisation to be shared by threads: these wait
    for each other, on a busy machine for fifty times as long as they compute. Each pass has one
    thread of its own instead, so that the results do not depend on how many there are.
    """
    from threadpoolctl import threadpool_limits

    def work(gap: _Gap) -> None:
        visible = np.ones(whole.shape, dtype=bool)
        visible[:, gap.volumes] = ~gap.hidden
        for part, guess in zip(
            predicted, baselines.predictions(whole, visible).values(), strict=True
        ):
            part[:, gap.volumes][gap.new] = guess[:, gap.volumes][gap.new]

    n_threads = min(torch.get_num_threads(), len(gaps))
    with threadpool_limits(1, user_api="blas"):
        if n_threads == 1:
            for gap in gaps:
                work(gap)
            return
        with ThreadPoolExecutor(n_threads) as pool:
            deque(pool.map(work, gaps), maxlen=0)


def _passes(
    model: LoadedModel,
    prepared: PreparedSeries,
    mask_ratio: float,
    seed: int,
    always_visible: tuple[int, ...],
) -> tuple[Indices, Indices, int]:
    """Windows (M,) and orders (M, L) of all passes, and how many tokens each sees."""
    real = model.network.real_tokens(prepared.n_volumes)
    shown = real[np.isin(real, model.network.tokens_of(prepared.coords, always_visible))]
    rest = np.setdiff1d(real, shown)
    if not rest.size:
        raise UserError("every parcel is to stay visible: nothing is left to predict")
    windows, orders, n_keep = [], [], 0
    for window in range(len(prepared.starts)):
        rng = np.random.default_rng([seed, window, 1])
        for order, n_rest in disjoint_orders(len(rest), mask_ratio, [seed, window]):
            n_keep = len(shown) + n_rest
            kept = np.concatenate([rest[order[:n_rest]], shown])
            kept = rng.permutation(kept) if shown.size else kept
            windows.append(window)
            orders.append(complete_order(model, np.concatenate([kept, rest[order[n_rest:]]])))
    return np.array(windows), np.stack(orders), n_keep


def scores(truth: ArrayLike, predicted: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Score predictions of parcels: mse, mae, r2 = 1 − Σ(x − y)² / Σ(x − mean x)², and pearson_r.

    Parameters
    ----------
    truth
        (T, P) x.
    predicted
        (T, P) y; values that are not finite are left out.

    Returns
    -------
    dict
        Name of a metric to (P,). NaN without values; r2 and pearson_r are NaN where the truth does
        not vary, pearson_r also where the prediction does not.

    Examples
    --------
    >>> scores([[1.0], [3.0]], [[1.0], [2.0]])["mse"].tolist()
    [0.5]
    """
    known = np.isfinite(np.asarray(predicted, dtype=np.float64))
    x = np.where(known, np.asarray(truth, dtype=np.float64), 0.0)
    y = np.where(known, np.asarray(predicted, dtype=np.float64), 0.0)
    count = known.sum(axis=0)
    n = np.where(count, count, np.nan)
    centred = np.where(known, x - x.sum(axis=0) / n, 0)
    guessed = np.where(known, y - y.sum(axis=0) / n, 0)
    error = np.square(x - y).sum(axis=0)
    spread, guess_spread = np.square(centred).sum(axis=0), np.square(guessed).sum(axis=0)
    # Means of float32 repeats leave rounding of this size.
    varies = guess_spread > 1e-12 * np.square(y).sum(axis=0)
    variance = np.where(spread > 0, spread, np.nan)
    product = variance * np.where(varies, guess_spread, np.nan)
    return {
        "mse": error / n,
        "mae": np.abs(x - y).sum(axis=0) / n,
        "r2": 1 - error / variance + 0 * n,
        "pearson_r": (centred * guessed).sum(axis=0) / np.sqrt(product),
    }
