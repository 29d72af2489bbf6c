"""Windows of a recording: check a scaled series and cut it into the input of a network.

Also the two passes over all of its windows: `encode` (nothing masked) and `predict` (some tokens
masked). Shapes: N windows of P parcels and W volumes; L tokens in a window, of which K are visible.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.masking import mask_by_order
from brainlm_bids.model.network import Indices
from brainlm_bids.model.windows import cut_windows, pad_to_window
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES

Array = NDArray[np.float32]


class PreparedSeries(NamedTuple):
    """The windows of one series.

    Attributes
    ----------
    signal
        (N, P, W); after the last volume of a short series zeros, or its mirror image.
    coords
        (P, 3) in mm.
    starts
        (N,) the first volume of each window.
    n_volumes
        Number of volumes of the series.
    """

    signal: Tensor
    coords: Tensor
    starts: Indices
    n_volumes: int

    @property
    def whole(self) -> Array:
        """(P, T) the signal without windows."""
        n_parcels, window = self.signal.shape[1:]
        result = np.zeros((n_parcels, max(self.n_volumes, window)), dtype=np.float32)
        for start, part in zip(self.starts, self.signal.numpy(), strict=True):
            result[:, start : start + window] = part
        return result[:, : self.n_volumes]

    @property
    def n_padded(self) -> int:
        """Number of volumes that were added to the only window of a short series."""
        return max(self.signal.shape[-1] - self.n_volumes, 0)


def prepare(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    *,
    input_gain: float = 1.0,
    stride: int | None = None,
    starts: Indices | None = None,
    mirrored: bool = False,
) -> PreparedSeries:
    """Check a series and cut it into windows.

    Parameters
    ----------
    model
        The model, which determines the numbers of parcels and volumes of a window.
    series
        (T, P) robust-scaled, sampled at the model's repetition time.
    coords
        (P, 3) MNI coordinates in mm, in the order of the columns of the series.
    input_gain
        Factor on the series.
    stride
        Volumes between the beginnings of windows; by default the length of a window.
    starts
        (N,) first volumes of the windows, in place of those that cover the series.
    mirrored
        Whether a short series is padded with its mirror image instead of zeros. Not where values
        are hidden: a copy of them would remain visible.

    Returns
    -------
    PreparedSeries
        The windows.

    Raises
    ------
    UserError
        For input from which no number should be computed.
    """
    values = np.asarray(series, dtype=np.float32)
    xyz = np.asarray(coords, dtype=np.float32)
    _check_series(model, values)
    if xyz.shape != (model.n_parcels, 3) or not np.isfinite(xyz).all():
        raise UserError(f"coordinates of shape {xyz.shape}: expected {model.n_parcels} finite xyz")
    if not (np.isfinite(input_gain) and input_gain > 0):
        raise UserError(f"--input-gain {input_gain}: expected a positive number")
    if stride is not None and not 1 <= stride <= model.window:
        raise UserError(f"--window-stride {stride}: expected 1 … {model.window} volumes")
    if starts is None:
        starts = cut_windows(len(values), model.window, stride)
    padded = pad_to_window(values * np.float32(input_gain), model.window, mirrored=mirrored)
    signal = np.stack([padded[start : start + model.window].T for start in starts])
    return PreparedSeries(torch.from_numpy(signal), torch.from_numpy(xyz), starts, len(values))


def _check_series(model: LoadedModel, values: Array) -> None:
    if values.ndim != 2 or values.shape[1] != model.n_parcels:
        raise UserError(
            f"{model.source}: the model expects {model.n_parcels} parcels, "
            f"the series has the shape {values.shape}; use the model's atlas"
        )
    if len(values) < MINIMUM_VOLUMES:
        raise UserError(f"the series has {len(values)} volumes; {MINIMUM_VOLUMES} are needed")
    if not np.isfinite(values).all():
        n_bad = int((~np.isfinite(values)).any(axis=0).sum())
        raise UserError(f"the series has NaN or infinite values in {n_bad} parcels; scale it first")
    if not values.any():
        raise UserError("the series is zero throughout: no parcel has data")


def complete_order(model: LoadedModel, tokens: Indices) -> Indices:
    """Append all other tokens to some tokens.

    Parameters
    ----------
    model
        The model.
    tokens
        (K,) tokens that may be visible.

    Returns
    -------
    ndarray
        (L,) a permutation of all tokens that begins with `tokens`.
    """
    return np.concatenate([tokens, np.setdiff1d(np.arange(model.config.n_tokens), tokens)])


class EncodedWindows(NamedTuple):
    """A batch of encoded windows.

    Attributes
    ----------
    latent
        (B, 1 + K, D) latents, CLS first; (B, 1, D) if only CLS was asked for.
    keep
        (B, K) the tokens that the encoder saw.
    last_input
        (B, 1 + K, D) input of the last layer of the encoder.
    """

    latent: Tensor
    keep: Tensor
    last_input: Tensor


def encode(
    model: LoadedModel, prepared: PreparedSeries, order: Indices, *, cls_only: bool = False
) -> Iterator[EncodedWindows]:
    """Encode all windows.

    Parameters
    ----------
    model
        The model.
    prepared
        The windows.
    order
        (K,) tokens that the encoder sees, in that order.
    cls_only
        Whether the last layer computes CLS alone.

    Yields
    ------
    EncodedWindows
        A batch of windows.
    """
    place = model.placement

    def work(part: slice) -> EncodedWindows:
        signal = place.to_device(prepared.signal[part])
        keep = torch.from_numpy(order).to(place.device).expand(len(signal), -1)
        coords = prepared.coords.to(place.device)
        encoded = model.network.encode(signal, coords, keep, cls_only=cls_only)
        return EncodedWindows(encoded.latent.float(), keep, encoded.last_input)

    return (batch for _, batch in place.batches(len(prepared.signal), work))


def predict(
    model: LoadedModel, prepared: PreparedSeries, windows: Indices, orders: Indices, n_keep: int
) -> tuple[Array, NDArray[np.bool_]]:
    """Predict masked values.

    Parameters
    ----------
    model
        The model.
    prepared
        The windows.
    windows
        (M,) indices of windows, possibly repeated.
    orders
        (M, L) a permutation of the tokens for each.
    n_keep
        The first `n_keep` tokens of an order are visible, in that order.

    Returns
    -------
    predictions
        (M, P, W) in units of the signal; NaN where a value was visible.
    hidden
        (M, P, W) whether a value was masked.
    """
    place = model.placement

    def work(part: slice) -> tuple[Tensor, Tensor]:
        signal = place.to_device(prepared.signal[windows[part]])
        masking = mask_by_order(place.to_device(torch.from_numpy(orders[part])), n_keep)
        prediction = model.network.predict(signal, prepared.coords.to(place.device), masking)
        return prediction.values.float().cpu(), prediction.hidden.cpu()

    shape = (len(windows), *prepared.signal.shape[1:])
    predictions, hidden = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=bool)
    for part, (values, mask) in place.batches(len(windows), work):
        predictions[part], hidden[part] = values.numpy(), mask.numpy().astype(bool)
    return predictions, hidden
