"""Embeddings: a scaled series and MNI coordinates come in; what the encoder makes of it goes out.

Series (T, P) robust-scaled at the model's TR, without NaN (filled parcels are all zero);
coordinates (P, 3) in mm, in the order of the series' columns. Nothing is hidden but the padded
time patches of the 13M. float32.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from brainlm_bids.errors import UserError
from brainlm_bids.model.brainlm import BrainLM
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.networks import parcel_attention, parcel_tokens
from brainlm_bids.model.recording import (
    Encoded,
    Indices,
    Recording,
    encode,
    prepare,
    real_tokens,
    token_grid,
)

POOLINGS = ("cls", "mean", "max")
Array = NDArray[np.float64]


class Embeddings(NamedTuple):
    """What the encoder says of N windows.

    vectors (N, D); onset and duration (N,) in s, of the data in the window; n_padded volumes of
    zeros in the only window of a short run; token_order_seed None where order does not matter;
    spread (N,): how far the vectors of single token orders lie from their mean (root mean square,
    relative to the mean's length), None for one order; parcels (P, D), the 13M's tokens averaged
    over the time patches of a parcel, windows and orders, else None; attention (P, P) and tokens
    (N, rows, columns, D) in float16, NaN where a token was not seen, if asked for.
    """

    vectors: NDArray[np.float32]
    onset: Array
    duration: Array
    n_padded: int
    token_order_seed: int | None
    spread: Array | None
    parcels: Array | None
    attention: Array | None
    tokens: NDArray[np.float16] | None

    @property
    def recording(self) -> NDArray[np.float32]:
        """(D,) the mean over windows."""
        return self.vectors.mean(axis=0, dtype=np.float64).astype(np.float32)


def embed(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    *,
    tr: float,
    seed: int,
    input_gain: float = 1.0,
    stride: int | None = None,
    pooling: str = "cls",
    token_orders: int = 1,
    attention: bool = False,
    tokens: bool = False,
) -> Embeddings:
    """Embed every window of a recording.

    The 13M depends on the order of its tokens and was trained on shuffled ones, so it gets a seeded
    permutation, the same for all windows, or the mean over `token_orders` of them; the image
    models' rows go from posterior to anterior (BRAINLM.md 0.3–0.5), and their result does not
    depend on the order. pooling: "cls", or the "mean" or "max" of the other tokens. attention:
    between parcels in the encoder's last layer, mean over heads, time patches and windows, rows =
    queries (13M only). Raises UserError for unusable input.
    """
    if pooling not in POOLINGS:
        raise UserError(f"--pooling {pooling}: expected {', '.join(POOLINGS)}")
    by_parcel = isinstance(model.module, BrainLM)
    if attention and not by_parcel:
        raise UserError(
            f"{model.source}: an image model's attention says nothing of single parcels"
        )
    recording = prepare(model, series, coords, input_gain=input_gain, stride=stride)
    passes = [
        _pass(model, recording, order, pooling, attention, tokens)
        for order in _orders(model, recording.n_volumes, seed, token_orders)
    ]
    vectors = np.stack([one.vectors for one in passes])  # (K, N, D)
    n_data = min(recording.n_volumes, model.window)
    return Embeddings(
        vectors=vectors.mean(axis=0).astype(np.float32),
        onset=recording.starts.astype(np.float64) * tr,
        duration=np.full(len(recording.starts), n_data * tr),
        n_padded=recording.n_padded,
        token_order_seed=seed if by_parcel else None,
        spread=_spread(vectors) if len(passes) > 1 else None,
        parcels=_mean([one.parcels for one in passes]),
        attention=_mean([one.attention for one in passes]),
        tokens=_token_table(model, _mean([one.tokens for one in passes])),
    )


class _Pass(NamedTuple):
    """What one token order gives: vectors (N, D), means over windows (P, D) and (P, P), and
    tokens (N, L, D)."""

    vectors: Array
    parcels: Array | None
    attention: Array | None
    tokens: Array | None


def _pass(
    model: LoadedModel,
    recording: Recording,
    order: Indices,
    pooling: str,
    attention: bool,
    tokens: bool,
) -> _Pass:
    vectors, parcels, maps, tables = [], [], [], []
    for batch in encode(model, recording, order):
        with torch.inference_mode():
            vectors.append(_pool(batch.latent, pooling))
            if isinstance(model.module, BrainLM):
                grid = token_grid(model)
                parcels.append(parcel_tokens(batch.latent, batch.keep, *grid))
                if attention:
                    layer = model.module.vit.layers[-1]
                    maps.append(parcel_attention(layer, batch.last_input, batch.keep, *grid))
            if tokens:
                tables.append(_raster(model, batch))
    return _Pass(
        _joined(vectors),
        _joined(parcels).mean(axis=0) if parcels else None,
        _joined(maps).mean(axis=0) if maps else None,
        _joined(tables) if tables else None,
    )


def _joined(batches: list[Tensor]) -> Array:
    return torch.cat(batches).double().cpu().numpy()


def _pool(latent: Tensor, pooling: str) -> Tensor:
    if pooling == "cls":
        return latent[:, 0]
    return latent[:, 1:].mean(1) if pooling == "mean" else latent[:, 1:].amax(1)


def _raster(model: LoadedModel, batch: Encoded) -> Tensor:
    """(B, L, D): every token at its place in the window, NaN where it was not seen."""
    rows, columns = token_grid(model)
    latent = batch.latent[:, 1:]
    table = latent.new_full((len(latent), rows * columns, latent.shape[-1]), float("nan"))
    table.scatter_(1, batch.keep.unsqueeze(-1).expand_as(latent), latent)
    return table


def _token_table(model: LoadedModel, tokens: Array | None) -> NDArray[np.float16] | None:
    if tokens is None:
        return None
    return tokens.reshape(len(tokens), *token_grid(model), -1).astype(np.float16)


def _mean(values: list[Array | None]) -> Array | None:
    """Over orders; None where there is nothing to average."""
    known = [value for value in values if value is not None]
    return np.mean(known, axis=0) if known else None


def _orders(model: LoadedModel, n_volumes: int, seed: int, n: int) -> list[Indices]:
    """Orders in which the encoder sees the tokens: `n` for the 13M, one for the image models."""
    if n < 1:
        raise UserError(f"--token-orders {n}: expected 1 or more")
    real = real_tokens(model, n_volumes)
    if not isinstance(model.module, BrainLM):
        return [real]
    rng = np.random.default_rng(seed)
    return [rng.permutation(real) for _ in range(n)]


def _spread(vectors: Array) -> Array:
    """(K, N, D) -> (N,), see `Embeddings`."""
    mean = vectors.mean(axis=0)
    distance = np.square(vectors - mean).sum(axis=-1).mean(axis=0)
    return np.sqrt(distance / np.square(mean).sum(axis=-1))
