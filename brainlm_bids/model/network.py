"""The common interface of both networks: latents and predictions from windows of parcels.

Everything outside of `model.families` uses a `Network` only. The wrappers there define what a
family does to a window before its transformer sees it: the 13M takes parcels as they are, with
their coordinates; the image models take a picture whose rows are sorted from posterior to anterior,
divided by 5.6430855, and padded. docs/reference/networks.md describes both networks.

A third network is one new file: its modules, and a wrapper that implements the protocol. It needs a
configuration in `config.CONFIGS` and a row in `checkpoint.NETWORKS`.

Shapes: B windows of P parcels and W volumes; L tokens in a window, of which the encoder sees K;
latents of D dimensions. Signals are robust-scaled, coordinates in mm (MNI152NLin6Asym), float32.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from brainlm_bids.model.attention import AttentionLayer
from brainlm_bids.model.brainlm import BrainLMOutput
from brainlm_bids.model.config import ModelConfig
from brainlm_bids.model.masking import Masking
from brainlm_bids.model.vitmae import ViTMAEOutput

Indices = NDArray[np.int64]


class Encoded(NamedTuple):
    """Output of an encoder.

    Attributes
    ----------
    latent
        (B, 1 + K, D) latents, CLS first; (B, 1, D) if only CLS was asked for.
    last_input
        (B, 1 + K, D) input of the last layer.
    """

    latent: Tensor
    last_input: Tensor


class Prediction(NamedTuple):
    """Predictions of a network for windows.

    Attributes
    ----------
    values
        (B, P, W); NaN where a value was visible.
    hidden
        (B, P, W) 1 where a value was masked.
    """

    values: Tensor
    hidden: Tensor


class MaskedPass(NamedTuple):
    """A pass with masked tokens, in the network's own units and order of parcels, for its loss.

    Attributes
    ----------
    truth, predicted
        (B, P, W).
    hidden
        (B, P, W) 1 where a value was masked.
    """

    truth: Tensor
    predicted: Tensor
    hidden: Tensor


class ReferencePass(NamedTuple):
    """A pass as in the original code, to compare with its stored arrays.

    Attributes
    ----------
    output
        Arrays by the names of the original.
    loss
        Its loss.
    masking
        None where the mode of the pass, and not a random order, decides which tokens are masked.
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
        """Whether the network was trained on windows with padding."""
        ...

    @property
    def patch(self) -> int:
        """Number of volumes of a time patch."""
        ...

    @property
    def margin(self) -> int:
        """Number of columns of padding before the first volume of a window."""
        ...

    @property
    def unit(self) -> float:
        """The unit of `MaskedPass`, in units of the signal."""
        ...

    @property
    def layers(self) -> Sequence[AttentionLayer]:
        """The layers of the encoder."""
        ...

    def tokens_of(self, coords: Tensor, parcels: Sequence[int]) -> Indices:
        """Find the tokens that contain values of some parcels.

        Parameters
        ----------
        coords
            (P, 3) coordinates, mm.
        parcels
            Indices of rows of the signal.

        Returns
        -------
        ndarray
            Indices of tokens.
        """
        ...

    def real_tokens(self, n_volumes: int) -> Indices:
        """Find the tokens that the encoder may see.

        Parameters
        ----------
        n_volumes
            Number of volumes with data, at the beginning of the window.

        Returns
        -------
        ndarray
            Indices of tokens.
        """
        ...

    def hidden_values(self, token_mask: Tensor, coords: Tensor) -> Tensor:
        """Find the values of masked tokens.

        Parameters
        ----------
        token_mask
            (B, L) 1 for masked tokens.
        coords
            (P, 3) coordinates, mm.

        Returns
        -------
        Tensor
            (B, P, W) 1 for masked values.
        """
        ...

    def encode(
        self, signal: Tensor, coords: Tensor, keep: Tensor, *, cls_only: bool = False
    ) -> Encoded:
        """Encode windows.

        Parameters
        ----------
        signal
            (B, P, W) windows.
        coords
            (P, 3) coordinates, mm.
        keep
            (B, K) tokens that the encoder sees, in that order.
        cls_only
            Whether the last layer computes CLS alone.

        Returns
        -------
        Encoded
            Latents, and the input of the last layer.
        """
        ...

    def predict(self, signal: Tensor, coords: Tensor, masking: Masking) -> Prediction:
        """Predict masked values.

        Parameters
        ----------
        signal
            (B, P, W) windows.
        coords
            (P, 3) coordinates, mm.
        masking
            Which tokens are visible, and in which order.

        Returns
        -------
        Prediction
            In units of the signal and in its order of parcels.
        """
        ...

    def masked_pass(self, signal: Tensor, coords: Tensor, masking: Masking) -> MaskedPass:
        """Predict masked values in the network's own units, to compute its loss.

        Parameters
        ----------
        signal, coords, masking
            As for `predict`.

        Returns
        -------
        MaskedPass
            Truth, predictions and mask.
        """
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
        """Make a pass as the original code does.

        Parameters
        ----------
        signal, coords
            As for `predict`.
        noise
            (B, L) number per token, which orders the tokens.
        mask_ratio
            Share of the tokens that is masked.
        mode, loss
            `train_mode` and `loss_fn` of the original; by default those of the configuration.
        stable
            See `masking.mask_by_noise`.

        Returns
        -------
        ReferencePass
            Output, loss and masking.
        """
        ...

    def fixed_tensors(self) -> dict[str, Tensor]:
        """Return the position tables, which are never trained.

        Returns
        -------
        dict
            Name in a checkpoint to tensor.
        """
        ...

    def unused_tensors(self) -> dict[str, Tensor]:
        """Return tensors of released checkpoints that nothing uses.

        Returns
        -------
        dict
            Name in a checkpoint to tensor.
        """
        ...
