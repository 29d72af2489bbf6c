"""Inference: a scaled series and MNI coordinates come in; embeddings and reconstructions go out.

Series (T, P) robust-scaled at the model's TR, without NaN (filled parcels are all zero);
coordinates (P, 3) in mm, in the order of the series' columns. Inputs are multiplied by
`input_gain`, predictions divided by it. float32; one window at a time on the CPU (BRAINLM.md 3).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import UserError
from . import baselines
from .brainlm import BrainLM, BrainLMOutput
from .checkpoint import LoadedModel
from .config import VITMAE_DIVISOR, BrainLMConfig
from .masking import Masking, disjoint_orders, mask_by_order
from .networks import parcel_attention, parcel_tokens
from .windows import cut_windows, pad_to_window

Array = NDArray[np.float32]
MINIMUM_VOLUMES = 20  # one time patch of the 13M
CUDA_BATCH = 8  # windows
Predictor = Callable[[Array, NDArray[np.bool_]], Array]
BASELINES: tuple[Predictor, ...] = (baselines.parcel_mean, baselines.ridge)


class Embeddings(NamedTuple):
    """cls (N, D); onset and duration (N,) in s, of the data in the window; n_padded volumes of
    zeros in the only window of a short run; token_order_seed None where order does not matter."""

    cls: Array
    onset: NDArray[np.float64]
    duration: NDArray[np.float64]
    n_padded: int
    token_order_seed: int | None


class Reconstruction(NamedTuple):
    """series (T, P) in units of the input, every value predicted while it was hidden.

    metrics: predictor ("model", "parcel_mean", "ridge" if asked for) -> {mse, mae, r2, pearson_r},
    pooled over samples and parcels; parcel_r2, parcel_r (P,) of the model, NaN for parcels
    without data.
    """

    series: Array
    n_windows: int
    n_padded: int
    metrics: dict[str, dict[str, float]]
    parcel_r2: NDArray[np.float64]
    parcel_r: NDArray[np.float64]


def embed(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    *,
    tr: float,
    seed: int,
    input_gain: float = 1.0,
) -> Embeddings:
    """CLS embedding of every window, nothing hidden but padded time patches (13M).

    The 13M depends on the order of its tokens and was trained on shuffled ones, so it gets one
    seeded permutation, the same for all windows; the image models' rows go from posterior to
    anterior (BRAINLM.md 0.3–0.5). Raises UserError for unusable input.
    """
    run = _prepare(model, series, coords, input_gain)
    cls = [batch.latent[:, 0] for batch in _encode(model, run, seed)]
    n_data = min(run.n_volumes, model.window)
    return Embeddings(
        cls=torch.cat(cls).cpu().numpy(),
        onset=run.starts.astype(np.float64) * tr,
        duration=np.full(len(run.starts), n_data * tr),
        n_padded=model.window - n_data,
        token_order_seed=seed if model.family == "brainlm" else None,
    )


def reconstruct(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    *,
    tr: float,
    mask_ratio: float,
    seed: int,
    input_gain: float = 1.0,
    ridge: bool = False,
) -> Reconstruction:
    """Predict every value while it is hidden: disjoint masks in turn, ceil(1 / ratio) passes.

    Where windows overlap, the earlier one's prediction counts. The baselines know what the model
    knows, the visible values of that window and pass: "parcel_mean" is the parcel's mean (of all
    parcels where it has none), and `ridge` adds `baselines.ridge`. `tr` is not used by the
    networks; it stands here so that both calls look alike. Raises UserError for unusable input.
    """
    if not 0 < mask_ratio < 1:
        raise UserError(f"--mask-ratio {mask_ratio}: expected a number between 0 and 1")
    run = _prepare(model, series, coords, input_gain)
    predictors = BASELINES if ridge else BASELINES[:1]
    shape = (1 + len(predictors), run.n_volumes, model.n_parcels)
    predicted = np.full(shape, np.nan, dtype=np.float32)
    for window, start in enumerate(run.starts):
        signal = run.signal[window]
        guess = _predict_window(model, run, signal, mask_ratio, [seed, window], predictors)
        stop = min(start + model.window, run.n_volumes)
        target = predicted[:, start:stop]
        new = np.isnan(target)
        target[new] = guess[:, : stop - start][new]
    predicted /= np.float32(input_gain)
    truth = np.asarray(series, dtype=np.float64)
    has_data = (truth != 0).any(axis=0)
    names = ("model", *(predictor.__name__ for predictor in predictors))
    metrics = {
        name: _metrics(truth[:, has_data].ravel(), predicted[i][:, has_data].ravel())
        for i, name in enumerate(names)
    }
    r2, r = np.full((2, model.n_parcels), np.nan)
    for parcel in np.flatnonzero(has_data):
        scores = _metrics(truth[:, parcel], predicted[0][:, parcel])
        r2[parcel], r[parcel] = scores["r2"], scores["pearson_r"]
    n_padded = max(model.window - run.n_volumes, 0)
    return Reconstruction(predicted[0], len(run.starts), n_padded, metrics, r2, r)


def parcel_features(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    *,
    tr: float,
    seed: int,
    input_gain: float = 1.0,
    reconstruction: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """What the model says about single parcels, (P, F), for `networks.parcel_networks`.

    13M: the parcel's tokens, averaged over time patches with data and over windows, F = D. Image
    models, whose patches span several parcels: the connectivity profile (correlation matrix,
    F = P; 0 for constant parcels) of `reconstruction` (T, P), which is made here with the model's
    mask ratio of training if it is not given.
    """
    if model.family == "brainlm":
        run = _prepare(model, series, coords, input_gain)
        n_patches = _token_grid(model)[1]
        features = [
            parcel_tokens(batch.latent, batch.keep, model.n_parcels, n_patches)
            for batch in _encode(model, run, seed)
        ]
        return torch.cat(features).double().mean(0).cpu().numpy()
    if reconstruction is None:
        ratio = model.config.mask_ratio
        result = reconstruct(
            model, series, coords, tr=tr, mask_ratio=ratio, seed=seed, input_gain=input_gain
        )
        reconstruction = result.series
    return correlation_profile(reconstruction)


def attention_profile(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    *,
    tr: float,
    seed: int,
    input_gain: float = 1.0,
) -> NDArray[np.float64]:
    """Attention between parcels in the last layer of the 13M's encoder, (P, P), rows = queries.

    The mean over heads, over the time patches with data of both parcels, and over windows, nothing
    hidden (`networks.parcel_attention`). `tr` is not used, as in `reconstruct`. Raises UserError
    for unusable input and for the image models, whose tokens span several parcels.
    """
    if not isinstance(model.module, BrainLM):
        raise UserError(
            f"{model.source}: an image model's attention says nothing of single parcels"
        )
    run = _prepare(model, series, coords, input_gain)
    layer, n_patches = model.module.vit.layers[-1], _token_grid(model)[1]
    total = np.zeros((model.n_parcels, model.n_parcels))
    for batch in _encode(model, run, seed):
        with torch.inference_mode():
            maps = parcel_attention(layer, batch.last_input, batch.keep, model.n_parcels, n_patches)
        total += maps.double().sum(0).cpu().numpy()
    return total / len(run.starts)


def correlation_profile(series: ArrayLike) -> NDArray[np.float64]:
    """Correlations (P, P) between the columns of (T, P); 0 where one is constant or not finite."""
    values = np.asarray(series, dtype=np.float64)
    centred = values - values.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    # What is left of a constant after its mean is removed is rounding, not a signal.
    usable = norm > 1e-10 * np.linalg.norm(values, axis=0)
    unit = np.where(usable, centred / np.where(usable, norm, 1), 0)
    return unit.T @ unit


class _Run(NamedTuple):
    """A checked recording: signal (N, P, window) on the device, padded; xyz (1, P, 3)."""

    signal: Tensor
    xyz: Tensor
    starts: NDArray[np.int64]
    n_volumes: int
    row_order: Tensor  # (P,) parcels from posterior to anterior, the image models' rows


def _prepare(model: LoadedModel, series: ArrayLike, coords: ArrayLike, gain: float) -> _Run:
    values = np.asarray(series, dtype=np.float32)
    xyz = np.asarray(coords, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != model.n_parcels:
        raise UserError(
            f"{model.source}: the model expects {model.n_parcels} parcels, "
            f"the series has the shape {values.shape}; use the model's atlas"
        )
    if xyz.shape != (model.n_parcels, 3) or not np.isfinite(xyz).all():
        raise UserError(f"coordinates of shape {xyz.shape}: expected {model.n_parcels} finite xyz")
    if len(values) < MINIMUM_VOLUMES:
        raise UserError(f"the series has {len(values)} volumes; {MINIMUM_VOLUMES} are needed")
    if not np.isfinite(values).all():
        n_bad = int((~np.isfinite(values)).any(axis=0).sum())
        raise UserError(
            f"the series holds NaN or infinite values in {n_bad} parcels; scale it first"
        )
    if not (np.isfinite(gain) and gain > 0):
        raise UserError(f"--input-gain {gain}: expected a positive number")
    starts = cut_windows(len(values), model.window)
    padded = pad_to_window(values * np.float32(gain), model.window)
    signal = np.stack([padded[start : start + model.window].T for start in starts])
    # A stable sort: the default one swaps parcels of equal y (BRAINLM.md 0.5).
    rows = np.argsort(xyz[:, 1], kind="stable")
    return _Run(
        torch.from_numpy(signal).to(model.device),
        torch.from_numpy(xyz).unsqueeze(0).to(model.device),
        starts,
        len(values),
        torch.from_numpy(rows).to(model.device),
    )


def _token_grid(model: LoadedModel) -> tuple[int, int]:
    """Rows and columns (time) of the tokens."""
    if isinstance(model.config, BrainLMConfig):
        return model.config.n_parcels, model.config.n_patches
    return model.config.grid


def _real_tokens(model: LoadedModel, n_volumes: int) -> NDArray[np.int64]:
    """Tokens that may be seen: for the 13M those of time patches with data, else all."""
    rows, columns = _token_grid(model)
    tokens = np.arange(rows * columns)
    if not isinstance(model.config, BrainLMConfig):
        return tokens
    n_with_data = -(-min(n_volumes, model.window) // model.config.timepoint_patching_size)
    return tokens[tokens % columns < n_with_data]


def _masking(model: LoadedModel, real: NDArray[np.int64], order: ArrayLike, n_keep: int) -> Masking:
    """`order` permutes `real`, the first `n_keep` are seen; tokens not in `real` are hidden."""
    rows, columns = _token_grid(model)
    padded = np.setdiff1d(np.arange(rows * columns), real)
    whole = np.concatenate([real[np.asarray(order)], padded])
    return mask_by_order(torch.from_numpy(whole).unsqueeze(0).to(model.device), n_keep)


def _expand(masking: Masking, n: int) -> Masking:
    return Masking(*(part.expand(n, -1) for part in masking))


class _Encoded(NamedTuple):
    """Latents (B, 1 + K, D), the tokens `keep` (B, K) that they belong to, and the input
    (B, 1 + K, D) of the encoder's last layer."""

    latent: Tensor
    keep: Tensor
    last_input: Tensor


def _encode(model: LoadedModel, run: _Run, seed: int) -> Iterator[_Encoded]:
    """Encode the windows in batches, nothing hidden but padded time patches (13M)."""
    real = _real_tokens(model, run.n_volumes)
    order = np.arange(len(real))
    if isinstance(model.module, BrainLM):
        order = np.random.default_rng(seed).permutation(len(real))
    masking = _masking(model, real, order, len(real))
    size = CUDA_BATCH if model.device == "cuda" else 1
    for start in range(0, len(run.signal), size):
        signal = run.signal[start : start + size]
        keep = _expand(masking, len(signal)).keep
        with torch.inference_mode():
            if isinstance(model.module, BrainLM):
                xyz = run.xyz.expand(len(signal), -1, -1)
                latent, states = model.module.vit(signal, xyz, keep)
            else:
                image = model.module.pad(signal[:, run.row_order] / VITMAE_DIVISOR)
                latent, states = model.module.vit(image, keep)
        yield _Encoded(latent, keep, states[-2])


def _predict_window(
    model: LoadedModel,
    run: _Run,
    signal: Tensor,
    mask_ratio: float,
    seed: list[int],
    predictors: tuple[Predictor, ...],
) -> Array:
    """(1 + n, window, P): the model's and the baselines' predictions of a window (P, window)."""
    n_data = min(run.n_volumes, model.window)
    real = _real_tokens(model, run.n_volumes)
    result = np.full((1 + len(predictors), *signal.shape), np.nan, dtype=np.float32)
    truth = signal.cpu().numpy()
    for order, n_keep in disjoint_orders(len(real), mask_ratio, seed):
        masking = _masking(model, real, order, n_keep)
        with torch.inference_mode():
            prediction, hidden = _forward(model, run, signal.unsqueeze(0), masking)
        new = hidden & np.isnan(result[0])
        visible = ~hidden
        visible[:, n_data:] = False
        result[0][new] = prediction[new]
        for i, predictor in enumerate(predictors):
            result[1 + i][new] = predictor(truth, visible)[new]
    return result.transpose(0, 2, 1)


def _forward(
    model: LoadedModel, run: _Run, signal: Tensor, masking: Masking
) -> tuple[Array, NDArray[np.bool_]]:
    """Prediction (P, window) in units of `signal` (1, P, window), and which values were hidden."""
    if isinstance(model.module, BrainLM):
        output: BrainLMOutput = model.module(signal, run.xyz, masking)
        mask = output.mask.unsqueeze(-1).expand_as(output.logits)
        prediction, hidden = output.logits.flatten(2)[0], mask.flatten(2)[0]
    else:
        image = model.module(signal[:, run.row_order] / VITMAE_DIVISOR, masking)
        back = torch.argsort(run.row_order)
        prediction, hidden = image.logits[0, back] * VITMAE_DIVISOR, image.mask[0, back]
    return prediction.cpu().numpy(), hidden.cpu().numpy().astype(bool)


def _metrics(truth: NDArray[np.float64], predicted: Array) -> dict[str, float]:
    """Of two vectors; r2 and pearson_r are NaN where a vector is constant (or empty)."""
    if not truth.size:
        return dict.fromkeys(("mse", "mae", "r2", "pearson_r"), float("nan"))
    guess = predicted.astype(np.float64)
    error = guess - truth
    deviation, guessed = truth - truth.mean(), guess - guess.mean()
    spread, guess_spread = float(deviation @ deviation), float(guessed @ guessed)
    # Means of float32 repeats leave rounding of this size.
    varies = guess_spread > 1e-12 * float(guess @ guess)
    r = float(deviation @ guessed) / np.sqrt(spread * guess_spread) if spread and varies else np.nan
    return {
        "mse": float(np.mean(error**2)),
        "mae": float(np.mean(np.abs(error))),
        "r2": 1 - float(error @ error) / spread if spread else float("nan"),
        "pearson_r": float(r),
    }
