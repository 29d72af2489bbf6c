"""A recording as the networks take it: a scaled series (T, P) comes in, checked windows go out.

Also which of a window's tokens may be seen, and the two passes through the networks: `encode`
(nothing hidden) and `predict` (something hidden). L tokens in a window, K of them seen; windows
(N, P, W) of W volumes; coordinates (P, 3) in mm. float32.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from brainlm_bids.errors import UserError
from brainlm_bids.model.brainlm import BrainLM
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.config import VITMAE_DIVISOR, BrainLMConfig
from brainlm_bids.model.masking import Masking, mask_by_order
from brainlm_bids.model.windows import cut_windows, pad_to_window
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES

Array = NDArray[np.float32]
Indices = NDArray[np.int64]


class Recording(NamedTuple):
    """signal (N, P, W), zeros behind the last volume; xyz (P, 3); first volumes `starts` (N,);
    rows (P,): parcels from posterior to anterior, the rows of the image models."""

    signal: Tensor
    xyz: Tensor
    starts: Indices
    n_volumes: int
    rows: Tensor

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
        """Volumes of zeros in the only window of a short run."""
        return max(self.signal.shape[-1] - self.n_volumes, 0)


def prepare(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    *,
    input_gain: float = 1.0,
    stride: int | None = None,
) -> Recording:
    """Check a series (T, P) and cut it into windows, one every `stride` volumes.

    The signal is the series times `input_gain`. Raises UserError, in one line, for what no number
    should be made from.
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
    starts = cut_windows(len(values), model.window, stride)
    padded = pad_to_window(values * np.float32(input_gain), model.window)
    signal = np.stack([padded[start : start + model.window].T for start in starts])
    # A stable sort: the default one swaps parcels of equal y (BRAINLM.md 0.5).
    rows = np.argsort(xyz[:, 1], kind="stable")
    return Recording(
        torch.from_numpy(signal),
        torch.from_numpy(xyz),
        starts,
        len(values),
        torch.from_numpy(rows),
    )


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
        raise UserError(
            f"the series holds NaN or infinite values in {n_bad} parcels; scale it first"
        )
    if not values.any():
        raise UserError("the series is zero throughout: no parcel has data")


def token_grid(model: LoadedModel) -> tuple[int, int]:
    """Rows and columns (time) of a window's tokens; rows of the 13M are parcels."""
    if isinstance(model.config, BrainLMConfig):
        return model.config.n_parcels, model.config.n_patches
    return model.config.grid


def real_tokens(model: LoadedModel, n_volumes: int) -> Indices:
    """Tokens that may be seen: for the 13M those of time patches with data, else all.

    The image models saw padding in training, and so do they here; the 13M did not.
    """
    rows, columns = token_grid(model)
    tokens = np.arange(rows * columns)
    if not isinstance(model.config, BrainLMConfig):
        return tokens
    n_with_data = -(-min(n_volumes, model.window) // model.config.timepoint_patching_size)
    return tokens[tokens % columns < n_with_data]


def tokens_of(model: LoadedModel, recording: Recording, parcels: Sequence[int]) -> Indices:
    """The tokens that hold a value of one of `parcels` (indices of columns of the series)."""
    rows, columns = token_grid(model)
    if isinstance(model.module, BrainLM):
        of_row = np.arange(rows)[:, None]
    else:
        top, patch = model.module.padding(recording.signal.shape)[0], model.module.config.patch_size
        of_row = np.full((rows, patch), -1)
        place = np.arange(len(recording.rows)) + top
        of_row[place // patch, place % patch] = recording.rows.numpy()
    concerned = np.isin(of_row, np.asarray(parcels, dtype=np.int64)).any(axis=1)
    return np.flatnonzero(np.repeat(concerned, columns))


def complete_order(model: LoadedModel, tokens: Indices) -> Indices:
    """(L,) `tokens`, then all others: those can only be hidden."""
    rows, columns = token_grid(model)
    return np.concatenate([tokens, np.setdiff1d(np.arange(rows * columns), tokens)])


class Encoded(NamedTuple):
    """Latents (B, 1 + K, D), CLS first, of the tokens `keep` (B, K), and the input (B, 1 + K, D)
    of the encoder's last layer."""

    latent: Tensor
    keep: Tensor
    last_input: Tensor


def encode(model: LoadedModel, recording: Recording, order: Indices) -> Iterator[Encoded]:
    """Encode all windows, seeing the tokens `order` (K,) in that order; batches of windows."""
    place = model.placement

    def work(part: slice) -> Encoded:
        signal = place.to_device(recording.signal[part])
        keep = torch.from_numpy(order).to(place.device).expand(len(signal), -1)
        if isinstance(model.module, BrainLM):
            xyz = recording.xyz.to(place.device).expand(len(signal), -1, -1)
            latent, last_input = model.module.vit(signal, xyz, keep)
        else:
            image = model.module.pad(signal[:, recording.rows.to(signal.device)] / VITMAE_DIVISOR)
            latent, last_input = model.module.vit(image, keep)
        return Encoded(latent.float(), keep, last_input)

    return (batch for _, batch in place.batches(len(recording.signal), work))


def predict(
    model: LoadedModel, recording: Recording, windows: Indices, orders: Indices, n_keep: int
) -> tuple[Array, NDArray[np.bool_]]:
    """Predict what is hidden: `windows` (M,) of a recording, each with a permutation of its tokens.

    orders (M, L): the first `n_keep` tokens of each are seen, in that order. Returns predictions
    (M, P, W) in units of the signal, and which values were hidden.
    """
    place = model.placement

    def work(part: slice) -> tuple[Tensor, Tensor]:
        signal = place.to_device(recording.signal[windows[part]])
        masking = mask_by_order(place.to_device(torch.from_numpy(orders[part])), n_keep)
        prediction, hidden = _forward(model, recording, signal, masking)
        return prediction.float().cpu(), hidden.cpu()

    shape = (len(windows), *recording.signal.shape[1:])
    predictions, hidden = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=bool)
    for part, (guess, mask) in place.batches(len(windows), work):
        predictions[part], hidden[part] = guess.numpy(), mask.numpy().astype(bool)
    return predictions, hidden


def _forward(
    model: LoadedModel, recording: Recording, signal: Tensor, masking: Masking
) -> tuple[Tensor, Tensor]:
    """Prediction (B, P, W) in units of `signal` (B, P, W), and its mask, 1 = hidden."""
    if isinstance(model.module, BrainLM):
        xyz = recording.xyz.to(signal.device).expand(len(signal), -1, -1)
        output = model.module(signal, xyz, masking)
        mask = output.mask.unsqueeze(-1).expand_as(output.logits)
        return output.logits.flatten(2), mask.flatten(2)
    rows = recording.rows.to(signal.device)
    image = model.module(signal[:, rows] / VITMAE_DIVISOR, masking)
    back = torch.argsort(rows)
    return image.logits[:, back] * VITMAE_DIVISOR, image.mask[:, back]
