"""Embeddings: the encoder's latents of the windows of a scaled series.

Nothing is masked, except padding for networks that were not trained on padding; for the others, a
short series is padded with its mirror image (docs/methods.md).
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.network import Indices
from brainlm_bids.model.networks import parcel_attention, parcel_tokens
from brainlm_bids.model.recording import EncodedWindows, PreparedSeries, encode, prepare

POOLINGS = ("cls", "mean", "max")
Array = NDArray[np.float64]


class Embeddings(NamedTuple):
    """The embeddings of the N windows of a recording.

    Attributes
    ----------
    vectors
        (N, D).
    onset, duration
        (N,) of the data in the window, in s.
    n_padded
        Number of volumes that were added to the only window of a short run.
    token_order_seed
        None where the order of the tokens does not matter.
    spread
        (N,) distance of the vectors of single token orders from their mean: root mean square,
        relative to the length of the mean. None for one order.
    parcels
        (P, D) the tokens of each parcel, averaged over time patches, windows and orders; None
        unless requested.
    attention
        (P, P) attention between parcels, rows are queries; None unless requested.
    tokens
        (N, rows, columns, D) float16, NaN where a token was not seen; None unless requested.
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
        mean: NDArray[np.float32] = self.vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean


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
    parcels: bool = False,
    attention: bool = False,
    tokens: bool = False,
    starts: Indices | None = None,
) -> Embeddings:
    """Embed every window of a recording.

    The 13M depends on the order of its tokens and was trained on shuffled ones. It therefore gets a
    seeded permutation, the same for all windows, or the mean over several. The image models do not
    depend on the order (docs/reference/networks.md).

    Parameters
    ----------
    model
        A model of `checkpoint.load_model`.
    series
        (T, P) robust-scaled, sampled at the model's repetition time, without NaN; parcels without
        data are zero throughout.
    coords
        (P, 3) MNI coordinates in mm, in the order of the columns of the series.
    tr
        Repetition time in s, for the onsets.
    seed
        Seed of the token order.
    input_gain
        Factor on the series before it enters the model.
    stride
        Volumes between the beginnings of windows; by default the length of a window.
    pooling
        "cls", or the "mean" or "max" of the other tokens.
    token_orders
        Number of token orders to average over.
    parcels
        Whether to return the tokens of parcels. Only for networks with a token per parcel.
    attention
        Whether to return the attention between parcels in the last layer of the encoder: the mean
        over heads, time patches and windows. Only for networks with a token per parcel.
    tokens
        Whether to return all tokens.
    starts
        (N,) first volumes of the windows, in place of those that cover the series.

    Returns
    -------
    Embeddings
        Vectors of the windows, and what else was requested.

    Raises
    ------
    UserError
        For input or options that cannot be used.

    Examples
    --------
    >>> from brainlm_bids.model.checkpoint import load_model
    >>> rng = np.random.default_rng(0)
    >>> series, coords = rng.standard_normal((60, 424)), rng.uniform(-60, 60, (424, 3))
    >>> embed(load_model("random:tiny", seed=0), series, coords, tr=0.735, seed=0).vectors.shape
    (1, 32)
    """
    if pooling not in POOLINGS:
        raise UserError(f"--pooling {pooling}: expected {', '.join(POOLINGS)}")
    if (parcels or attention) and not model.network.rows_are_parcels:
        raise UserError(
            f"{model.source}: tokens and attention of an image model cannot be assigned to single "
            "parcels"
        )
    prepared = prepare(
        model,
        series,
        coords,
        input_gain=input_gain,
        stride=stride,
        starts=starts,
        mirrored=model.network.sees_padding,
    )
    passes = [
        _pass(model, prepared, order, pooling, parcels, attention, tokens)
        for order in _orders(model, prepared.n_volumes, seed, token_orders)
    ]
    vectors = np.stack([result.vectors for result in passes])  # (K, N, D)
    n_data = min(prepared.n_volumes, model.window)
    return Embeddings(
        vectors=vectors.mean(axis=0).astype(np.float32),
        onset=prepared.starts.astype(np.float64) * tr,
        duration=np.full(len(prepared.starts), n_data * tr),
        n_padded=prepared.n_padded,
        token_order_seed=seed if model.network.order_matters else None,
        spread=_spread(vectors) if len(passes) > 1 else None,
        parcels=_mean([result.parcels for result in passes]),
        attention=_mean([result.attention for result in passes]),
        tokens=_token_table(model, _mean([result.tokens for result in passes])),
    )


class _Pass(NamedTuple):
    """The result of one token order.

    vectors (N, D); means over windows: parcels (P, D) and attention (P, P); tokens (N, L, D).
    """

    vectors: Array
    parcels: Array | None
    attention: Array | None
    tokens: Array | None


def _pass(
    model: LoadedModel,
    prepared: PreparedSeries,
    order: Indices,
    pooling: str,
    parcels: bool,
    attention: bool,
    tokens: bool,
) -> _Pass:
    network = model.network
    vectors, rows, maps, tables = [], [], [], []
    cls_only = pooling == "cls" and not (parcels or tokens)
    for batch in encode(model, prepared, order, cls_only=cls_only):
        with torch.inference_mode():
            vectors.append(_pool(batch.latent, pooling))
            if parcels:
                rows.append(parcel_tokens(batch.latent, batch.keep, *network.grid))
            if attention:
                layer, x = network.layers[-1], batch.last_input
                maps.append(parcel_attention(layer, x, batch.keep, *network.grid))
            if tokens:
                tables.append(_in_raster_order(model, batch))
    return _Pass(
        _joined(vectors),
        _joined(rows).mean(axis=0) if rows else None,
        _joined(maps).mean(axis=0) if maps else None,
        _joined(tables) if tables else None,
    )


def _joined(batches: list[Tensor]) -> Array:
    joined: Array = torch.cat(batches).double().cpu().numpy()
    return joined


def _pool(latent: Tensor, pooling: str) -> Tensor:
    if pooling == "cls":
        return latent[:, 0]
    return latent[:, 1:].mean(1) if pooling == "mean" else latent[:, 1:].amax(1)


def _in_raster_order(model: LoadedModel, batch: EncodedWindows) -> Tensor:
    """(B, L, D): every token at its place in the window, NaN where it was not seen."""
    latent = batch.latent[:, 1:]
    table = latent.new_full((len(latent), model.config.n_tokens, latent.shape[-1]), float("nan"))
    return table.scatter_(1, batch.keep.unsqueeze(-1).expand_as(latent), latent)


def _token_table(model: LoadedModel, tokens: Array | None) -> NDArray[np.float16] | None:
    if tokens is None:
        return None
    return tokens.reshape(len(tokens), *model.network.grid, -1).astype(np.float16)


def _mean(values: list[Array | None]) -> Array | None:
    """Over orders; None where there is nothing to average."""
    known = [value for value in values if value is not None]
    return np.asarray(np.mean(known, axis=0)) if known else None


def _orders(model: LoadedModel, n_volumes: int, seed: int, n: int) -> list[Indices]:
    """Orders in which the encoder sees the tokens: `n` where the order matters, else one."""
    if n < 1:
        raise UserError(f"--token-orders {n}: expected 1 or more")
    real = model.network.real_tokens(n_volumes)
    if not model.network.order_matters:
        return [real]
    rng = np.random.default_rng(seed)
    return [rng.permutation(real) for _ in range(n)]


def _spread(vectors: Array) -> Array:
    """(K, N, D) -> (N,), see `Embeddings`."""
    mean = vectors.mean(axis=0)
    distance = np.square(vectors - mean).sum(axis=-1).mean(axis=0)
    return np.asarray(np.sqrt(distance / np.square(mean).sum(axis=-1)))
