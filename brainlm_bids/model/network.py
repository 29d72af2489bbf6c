"""The common interface of both networks: latents and predictions from windows of parcels.

Everything outside of this file knows a `Network` alone. A wrapper owns what a family does to a
window before its transformer sees it: the 13M takes parcels as they are, with their coordinates;
the image models take a picture whose rows are sorted from posterior to anterior, divided by
5.6430855, and padded. docs/reference/networks.md describes both networks.

A third network is one new file: its modules, and a wrapper that fulfils the protocol. It needs a
configuration in `config.CONFIGS` and a row in `checkpoint.NETWORKS`.

Shapes: B windows of P parcels and W volumes; L tokens in a window, of which the encoder sees K;
latents of D dimensions. Signals are robust-scaled, coordinates in mm (MNI152NLin6Asym), float32.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainlm_bids.model.attention import AttentionLayer
from brainlm_bids.model.brainlm import BrainLM, BrainLMOutput, time_positions
from brainlm_bids.model.config import VITMAE_DIVISOR, BrainLMConfig, ModelConfig, ViTMAEConfig
from brainlm_bids.model.masking import Masking
from brainlm_bids.model.vitmae import ViTMAE, ViTMAEOutput, grid_positions, unpatchify

Indices = NDArray[np.int64]


class Encoded(NamedTuple):
    """What an encoder makes of windows of which it sees the tokens `keep`.

    latent (B, 1 + K, D), CLS first; last_input (B, 1 + K, D), the input of the last layer.
    """

    latent: Tensor
    last_input: Tensor


class Prediction(NamedTuple):
    """What a network predicts for a window: values (B, P, W), and which were hidden (1) from it."""

    values: Tensor
    hidden: Tensor


class MaskedPass(NamedTuple):
    """A pass with something hidden, in the network's own units and order of parcels.

    truth, predicted (B, P, W), and hidden (B, P, W), 1 where a value was hidden. Losses are
    computed from it.
    """

    truth: Tensor
    predicted: Tensor
    hidden: Tensor


class ReferencePass(NamedTuple):
    """One pass as the original code makes it, for a comparison with its stored arrays.

    output: arrays by the names of the original; masking: None where the mode of the pass, and not
    a random order, decides what is hidden.
    """

    output: BrainLMOutput | ViTMAEOutput
    loss: Tensor
    masking: Masking | None


class Network(Protocol):
    """A masked autoencoder over windows of parcels."""

    @property
    def module(self) -> nn.Module:
        """The torch module, with the parameter names of the released checkpoints."""
        ...

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        ...

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns (time) of the tokens of a window; token i is divmod(i, columns)."""
        ...

    @property
    def rows_are_parcels(self) -> bool:
        """Whether a row of tokens is one parcel, so that single parcels have latents."""
        ...

    @property
    def order_matters(self) -> bool:
        """Whether the result depends on the order in which the encoder sees the tokens."""
        ...

    @property
    def sees_padding(self) -> bool:
        """Whether tokens without data were shown to the network in training."""
        ...

    @property
    def patch(self) -> int:
        """Volumes of a time patch."""
        ...

    @property
    def margin(self) -> int:
        """Columns of padding in front of the first volume of a window."""
        ...

    @property
    def unit(self) -> float:
        """One unit of `MaskedPass`, in units of the signal."""
        ...

    @property
    def layers(self) -> Sequence[AttentionLayer]:
        """The layers of the encoder."""
        ...

    def tokens_of(self, coords: Tensor, parcels: Sequence[int]) -> Indices:
        """Tokens that hold a value of one of the parcels (indices of rows of the signal)."""
        ...

    def real_tokens(self, n_volumes: int) -> Indices:
        """Tokens that may be seen of a window whose first `n_volumes` volumes hold data."""
        ...

    def hidden_values(self, token_mask: Tensor, coords: Tensor) -> Tensor:
        """Which values (B, P, W) of a window are hidden (1) with the tokens (B, L) that are 1."""
        ...

    def encode(self, signal: Tensor, coords: Tensor, keep: Tensor) -> Encoded:
        """Encode windows (B, P, W) of parcels at coords (P, 3), seeing the tokens keep (B, K)."""
        ...

    def predict(self, signal: Tensor, coords: Tensor, masking: Masking) -> Prediction:
        """Predict what is hidden, in units of the signal and in its order of parcels."""
        ...

    def masked_pass(self, signal: Tensor, coords: Tensor, masking: Masking) -> MaskedPass:
        """The same in the network's own units, from which its loss is computed."""
        ...

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
        """A pass of the original: noise (B, L) per token, its `train_mode` and its `loss_fn`."""
        ...

    def fixed_tensors(self) -> dict[str, Tensor]:
        """The tables of positions, which never learn, by their names in a checkpoint."""
        ...

    def unused_tensors(self) -> dict[str, Tensor]:
        """What released checkpoints hold beyond the module and nothing uses, by name."""
        ...


class BrainLMNetwork:
    """The 13M family: a token is one parcel in one time patch.

    Its convolution along the tokens makes the result depend on their order; in training they were
    shuffled. What was padded was not shown to it.
    """

    rows_are_parcels = True
    order_matters = True
    sees_padding = False
    margin = 0
    unit = 1.0
    # Parameters that no other family has: what a weight file is recognised by.
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
        """Volumes of a time patch."""
        return self.config.timepoint_patching_size

    @property
    def layers(self) -> Sequence[AttentionLayer]:
        """The layers of the encoder."""
        return self.module.vit.layers

    def tokens_of(self, coords: Tensor, parcels: Sequence[int]) -> Indices:
        """All time patches of the parcels."""
        rows, columns = self.grid
        return np.flatnonzero(np.repeat(np.isin(np.arange(rows), parcels), columns))

    def real_tokens(self, n_volumes: int) -> Indices:
        """Tokens of time patches with data; padded patches are never seen."""
        rows, columns = self.grid
        n_with_data = -(-min(n_volumes, self.config.window) // self.patch)
        tokens = np.arange(rows * columns)
        return tokens[tokens % columns < n_with_data]

    def hidden_values(self, token_mask: Tensor, coords: Tensor) -> Tensor:
        """Which values (B, P, W) belong to hidden tokens (B, L)."""
        by_patch = token_mask.view(-1, *self.grid, 1)
        return by_patch.expand(-1, -1, -1, self.patch).flatten(2)

    def encode(self, signal: Tensor, coords: Tensor, keep: Tensor) -> Encoded:
        """Encode windows (B, P, W) from the tokens `keep` (B, K); see `Network.encode`."""
        return Encoded(*self.module.vit(signal, _for_each(signal, coords), keep))

    def predict(self, signal: Tensor, coords: Tensor, masking: Masking) -> Prediction:
        """Predict what is hidden, in units of the signal; see `Network.predict`."""
        _, predicted, hidden = self.masked_pass(signal, coords, masking)
        return Prediction(predicted, hidden)

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
        """The tables of positions, by their names in a checkpoint."""
        table = time_positions(self.config.hidden_size)
        return {"vit.embeddings.pos_embedding.pe": table, "decoder.pos_embedding.pe": table.clone()}

    def unused_tensors(self) -> dict[str, Tensor]:
        """The unused prediction layer in the decoder of released checkpoints."""
        # Inherited from the superclass, a ViTMAE of 16² × 3 values in a patch.
        width = self.config.decoder_hidden_size
        return {
            "decoder.decoder_pred.weight": torch.zeros(768, width),
            "decoder.decoder_pred.bias": torch.zeros(768),
        }


class ViTMAENetwork:
    """The image family: a token is a square of parcels × volumes of the padded picture.

    The picture's rows are the parcels from posterior to anterior. Nothing depends on the order of
    the tokens, and the padding was shown to the network in training.
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
        """Volumes of a time patch."""
        return self.config.patch_size

    @property
    def margin(self) -> int:
        """Columns of padding in front of the first volume."""
        return self.module.padding(self._shape)[1]

    @property
    def layers(self) -> Sequence[AttentionLayer]:
        """The layers of the encoder."""
        return self.module.vit.layers

    def tokens_of(self, coords: Tensor, parcels: Sequence[int]) -> Indices:
        """All patches of the picture that contain a row of one of the parcels."""
        rows, columns = self.grid
        order = posterior_to_anterior(coords).numpy()
        parcel_of_row = np.full(rows * self.patch, -1)
        top = self.module.padding(self._shape)[0]
        parcel_of_row[top : top + len(order)] = order
        concerned = np.isin(parcel_of_row, parcels).reshape(rows, self.patch).any(axis=1)
        return np.flatnonzero(np.repeat(concerned, columns))

    def real_tokens(self, n_volumes: int) -> Indices:
        """All tokens, because the padding was shown in training."""
        return np.arange(self.config.n_tokens)

    def hidden_values(self, token_mask: Tensor, coords: Tensor) -> Tensor:
        """Which values (B, P, W) belong to hidden patches (B, L)."""
        by_value = token_mask.unsqueeze(-1).expand(-1, -1, self.patch**2)
        picture = self.module.crop(unpatchify(by_value, self.grid, self.patch), self._shape)
        return picture[:, torch.argsort(posterior_to_anterior(coords))]

    def encode(self, signal: Tensor, coords: Tensor, keep: Tensor) -> Encoded:
        """Encode windows (B, P, W) from the tokens `keep` (B, K); see `Network.encode`."""
        return Encoded(*self.module.vit(self.module.pad(self._picture(signal, coords)), keep))

    def predict(self, signal: Tensor, coords: Tensor, masking: Masking) -> Prediction:
        """Predict what is hidden, in units of the signal; see `Network.predict`."""
        _, predicted, hidden = self.masked_pass(signal, coords, masking)
        back = torch.argsort(posterior_to_anterior(coords))
        return Prediction(predicted[:, back] * self.unit, hidden[:, back])

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
        """The tables of positions, by their names in a checkpoint."""
        config = self.config
        return {
            "vit.embeddings.position_embeddings": grid_positions(config.hidden_size, config.grid),
            "decoder.decoder_pos_embed": grid_positions(config.decoder_hidden_size, config.grid),
        }

    def unused_tensors(self) -> dict[str, Tensor]:
        """No tensors: everything in a checkpoint is used."""
        return {}

    def _picture(self, signal: Tensor, coords: Tensor) -> Tensor:
        """The signal (B, P, W) as a picture: rows from posterior to anterior, divided."""
        return signal[:, posterior_to_anterior(coords)] / self.unit


def posterior_to_anterior(coords: Tensor) -> Tensor:
    """The order (P,) of parcels at coords (P, 3) along y.

    The sort is stable: the unstable one of NumPy's default puts most of the parcels of A424, which
    share a y with others, at other places than in training.
    """
    return torch.argsort(coords[:, 1], stable=True)


def _for_each(signal: Tensor, coords: Tensor) -> Tensor:
    """The coordinates (P, 3) for every window: (B, P, 3)."""
    return coords.expand(len(signal), -1, -1)


def _needed(noise: Tensor | None) -> Tensor:
    if noise is None:
        raise ValueError("no masking noise, in inputs.npz or in a file noise_<case>.npz")
    return noise
