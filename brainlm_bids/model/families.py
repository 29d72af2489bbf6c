"""The two families of BrainLM as a `Network`; docs/reference/networks.md describes both."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from brainlm_bids.model.attention import AttentionLayer
from brainlm_bids.model.brainlm import BrainLM, time_positions
from brainlm_bids.model.config import VITMAE_DIVISOR, BrainLMConfig, ViTMAEConfig
from brainlm_bids.model.masking import Masking
from brainlm_bids.model.network import Encoded, Indices, MaskedPass, Prediction, ReferencePass
from brainlm_bids.model.vitmae import ViTMAE, grid_positions, unpatchify


class BrainLMNetwork:
    """The 13M family: a token is one parcel in one time patch.

    Its convolution along the tokens makes the result depend on their order; in training they were
    shuffled. Padded patches were never shown to it.
    """

    rows_are_parcels = True
    order_matters = True
    sees_padding = False
    margin = 0
    unit = 1.0
    # A parameter that no other family has, by which a weight file is recognised.
    landmark = "vit.embeddings.signal_embedding_projection.weight"

    def __init__(self, config: BrainLMConfig, module: BrainLM | None = None) -> None:
        self.config = config
        self.module = BrainLM(config) if module is None else module

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of a window."""
        return self.config.grid

    @property
    def patch(self) -> int:
        """Number of volumes of a time patch."""
        return self.config.timepoint_patching_size

    @property
    def layers(self) -> Sequence[AttentionLayer]:
        """The layers of the encoder."""
        return self.module.vit.layers

    def tokens_of(self, coords: Tensor, parcels: Sequence[int]) -> Indices:
        """Return all time patches of the parcels; see `Network.tokens_of`."""
        rows, columns = self.grid
        return np.flatnonzero(np.repeat(np.isin(np.arange(rows), parcels), columns))

    def real_tokens(self, n_volumes: int) -> Indices:
        """Return the tokens of time patches with data; padded patches are never seen."""
        rows, columns = self.grid
        n_with_data = -(-min(n_volumes, self.config.window) // self.patch)
        tokens = np.arange(rows * columns)
        return tokens[tokens % columns < n_with_data]

    def hidden_values(self, token_mask: Tensor, coords: Tensor) -> Tensor:
        """Find the values (B, P, W) of masked tokens (B, L); see `Network.hidden_values`."""
        by_patch = token_mask.view(-1, *self.grid, 1)
        return by_patch.expand(-1, -1, -1, self.patch).flatten(2)

    def encode(
        self, signal: Tensor, coords: Tensor, keep: Tensor, *, cls_only: bool = False
    ) -> Encoded:
        """Encode windows (B, P, W) from the tokens `keep` (B, K); see `Network.encode`."""
        rows = _only_cls(keep) if cls_only else None
        return Encoded(*self.module.vit(signal, _for_each(signal, coords), keep, rows))

    def predict(self, signal: Tensor, coords: Tensor, masking: Masking) -> Prediction:
        """Predict masked values, in units of the signal; see `Network.predict`."""
        output = self.module(signal, _for_each(signal, coords), masking, hidden_only=True)
        hidden = output.mask.unsqueeze(-1).expand_as(output.logits)
        return Prediction(output.logits.flatten(2), hidden.flatten(2))

    def masked_pass(self, signal: Tensor, coords: Tensor, masking: Masking) -> MaskedPass:
        """Predict in the network's own units; see `Network.masked_pass`."""
        output = self.module(signal, _for_each(signal, coords), masking)
        hidden = output.mask.unsqueeze(-1).expand_as(output.logits)
        return MaskedPass(signal, output.logits.flatten(2), hidden.flatten(2))

    def reference_pass(
        self,
        signal: Tensor,
        coords: Tensor,
        noise: Tensor | None,
        mask_ratio: float,
        *,
        mode: str | None = None,
        loss: str | None = None,
        stable: bool = False,
    ) -> ReferencePass:
        """Make a pass as the original code does; see `Network.reference_pass`."""
        masking = self.module.masking(_needed(noise), mask_ratio, stable=stable)
        output = self.module(signal, _for_each(signal, coords), masking)
        return ReferencePass(output, self.module.loss(output, signal, loss), masking)

    def fixed_tensors(self) -> dict[str, Tensor]:
        """Return the position tables; see `Network.fixed_tensors`."""
        table = time_positions(self.config.hidden_size)
        return {"vit.embeddings.pos_embedding.pe": table, "decoder.pos_embedding.pe": table.clone()}

    def unused_tensors(self) -> dict[str, Tensor]:
        """Return the unused prediction layer in the decoder of released checkpoints."""
        # Inherited from the superclass, a ViTMAE of 16² × 3 values in a patch.
        width = self.config.decoder_hidden_size
        return {
            "decoder.decoder_pred.weight": torch.zeros(768, width),
            "decoder.decoder_pred.bias": torch.zeros(768),
        }


class ViTMAENetwork:
    """The image family: a token is a square of parcels × volumes of the padded picture.

    The picture's rows are the parcels from posterior to anterior. The result does not depend on the
    order of the tokens, and the network was trained on padding too.
    """

    rows_are_parcels = False
    order_matters = False
    sees_padding = True
    unit = VITMAE_DIVISOR
    landmark = "vit.embeddings.patch_embeddings.projection.weight"

    def __init__(self, config: ViTMAEConfig, module: ViTMAE | None = None) -> None:
        self.config = config
        self.module = ViTMAE(config) if module is None else module
        self._shape = (config.n_parcels, config.window)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of a window."""
        return self.config.grid

    @property
    def patch(self) -> int:
        """Number of volumes of a time patch."""
        return self.config.patch_size

    @property
    def margin(self) -> int:
        """Number of columns of padding before the first volume."""
        return self.module.padding(self._shape)[1]

    @property
    def layers(self) -> Sequence[AttentionLayer]:
        """The layers of the encoder."""
        return self.module.vit.layers

    def tokens_of(self, coords: Tensor, parcels: Sequence[int]) -> Indices:
        """Return all patches with a row of one of the parcels; see `Network.tokens_of`."""
        rows, columns = self.grid
        order = posterior_to_anterior(coords).numpy()
        parcel_of_row = np.full(rows * self.patch, -1)
        top = self.module.padding(self._shape)[0]
        parcel_of_row[top : top + len(order)] = order
        concerned = np.isin(parcel_of_row, parcels).reshape(rows, self.patch).any(axis=1)
        return np.flatnonzero(np.repeat(concerned, columns))

    def real_tokens(self, n_volumes: int) -> Indices:
        """Return all tokens, because padding was shown in training."""
        return np.arange(self.config.n_tokens)

    def hidden_values(self, token_mask: Tensor, coords: Tensor) -> Tensor:
        """Find the values (B, P, W) of masked patches (B, L); see `Network.hidden_values`."""
        by_value = token_mask.unsqueeze(-1).expand(-1, -1, self.patch**2)
        picture = self.module.crop(unpatchify(by_value, self.grid, self.patch), self._shape)
        return picture[:, torch.argsort(posterior_to_anterior(coords))]

    def encode(
        self, signal: Tensor, coords: Tensor, keep: Tensor, *, cls_only: bool = False
    ) -> Encoded:
        """Encode windows (B, P, W) from the tokens `keep` (B, K); see `Network.encode`."""
        padded = self.module.pad(self._picture(signal, coords))
        return Encoded(*self.module.vit(padded, keep, _only_cls(keep) if cls_only else None))

    def predict(self, signal: Tensor, coords: Tensor, masking: Masking) -> Prediction:
        """Predict masked values, in units of the signal; see `Network.predict`."""
        _, predicted, hidden = self.masked_pass(signal, coords, masking)
        back = torch.argsort(posterior_to_anterior(coords))
        values = torch.where(hidden == 1, predicted * self.unit, float("nan"))
        return Prediction(values[:, back], hidden[:, back])

    def masked_pass(self, signal: Tensor, coords: Tensor, masking: Masking) -> MaskedPass:
        """Predict in the network's own units; see `Network.masked_pass`."""
        picture = self._picture(signal, coords)
        output = self.module(picture, masking)
        return MaskedPass(picture, output.logits, output.mask)

    def reference_pass(
        self,
        signal: Tensor,
        coords: Tensor,
        noise: Tensor | None,
        mask_ratio: float,
        *,
        mode: str | None = None,
        loss: str | None = None,
        stable: bool = False,
    ) -> ReferencePass:
        """Make a pass as the original code does; see `Network.reference_pass`."""
        picture, masking = self._picture(signal, coords), None
        if (mode or self.config.train_mode) == "auto_encode":
            masking = self.module.masking(_needed(noise), mask_ratio, stable=stable)
            output = self.module(picture, masking)
        else:
            mode = mode or self.config.train_mode
            output = self.module.predict_last(picture, mask_ratio, mode, stable=stable)
        return ReferencePass(output, self.module.loss(output, picture), masking)

    def fixed_tensors(self) -> dict[str, Tensor]:
        """Return the position tables; see `Network.fixed_tensors`."""
        config = self.config
        return {
            "vit.embeddings.position_embeddings": grid_positions(config.hidden_size, config.grid),
            "decoder.decoder_pos_embed": grid_positions(config.decoder_hidden_size, config.grid),
        }

    def unused_tensors(self) -> dict[str, Tensor]:
        """Return no tensors: everything in a checkpoint is used."""
        return {}

    def _picture(self, signal: Tensor, coords: Tensor) -> Tensor:
        """The signal (B, P, W) as a picture: rows from posterior to anterior, divided."""
        return signal[:, posterior_to_anterior(coords)] / self.unit


def posterior_to_anterior(coords: Tensor) -> Tensor:
    """Order parcels along y.

    The sort is stable: NumPy's default, which is not, puts most of the parcels of A424, which share
    their y with others, at other places than in training.

    Parameters
    ----------
    coords
        (P, 3) coordinates, mm.

    Returns
    -------
    Tensor
        (P,) indices.

    Examples
    --------
    >>> posterior_to_anterior(torch.tensor([[0.0, 5.0, 0.0], [0.0, -90.0, 0.0]])).tolist()
    [1, 0]
    """
    return torch.argsort(coords[:, 1], stable=True)


def _for_each(signal: Tensor, coords: Tensor) -> Tensor:
    """The coordinates (P, 3) for every window: (B, P, 3)."""
    return coords.expand(len(signal), -1, -1)


def _only_cls(keep: Tensor) -> Tensor:
    """The index of CLS for every window: (B, 1)."""
    return keep.new_zeros(len(keep), 1)


def _needed(noise: Tensor | None) -> Tensor:
    if noise is None:
        raise ValueError("no masking noise, in inputs.npz or in a file noise_<case>.npz")
    return noise
