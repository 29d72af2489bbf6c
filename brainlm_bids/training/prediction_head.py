"""The head of a fine-tuned model: from embeddings (B, D) to outputs (B, C) and their loss.

The head is that of the reference (vit_image_finetuning_mlp_pred_head.py of vandijklab/BrainLM at
commit b591d88): an MLP D -> D/2 -> D/2 -> C with ReLU and dropout, on CLS or on the mean of the
other tokens. Before it, embeddings are standardised with the means and standard deviations of the
training recordings. C = 1 for a number (standardised) or two classes (a logit), else one per
class. All tensors are float32.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from brainlm_bids.model.network import Network

POOLINGS = ("cls", "mean")
# A dimension that varies by less than this share of its size is constant but for rounding.
SMALLEST_RELATIVE_SD = 1e-6


def n_outputs(n_classes: int) -> int:
    """Number of outputs C of the head.

    Parameters
    ----------
    n_classes
        0 for a regression.

    Returns
    -------
    int
        1 for a regression and for two classes.

    Examples
    --------
    >>> n_outputs(0), n_outputs(2), n_outputs(4)
    (1, 1, 4)
    """
    return n_classes if n_classes > 2 else 1


class PredictionHead(nn.Module):
    """From embeddings (B, D) to outputs (B, C), with layers and names of the reference.

    Weights are initialised as in the reference, except that the last layer begins at 0: a head that
    learns nothing predicts the mean.

    Parameters
    ----------
    width
        D.
    outputs
        C.
    dropout
        Probability that a unit is dropped in training.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = width // 2
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, hidden)
        self.lin3 = nn.Linear(hidden, outputs)
        self.drop = nn.Dropout(dropout)
        for layer in (self.lin1, self.lin2):
            nn.init.kaiming_uniform_(layer.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.lin3.weight)
        nn.init.zeros_(self.lin3.bias)

    def standardise(self, embeddings: ArrayLike) -> None:
        """Set means and scales.

        Parameters
        ----------
        embeddings
            (N, D) of the training recordings, and no others.
        """
        values = np.asarray(embeddings, dtype=np.float64)
        mean, sd = values.mean(axis=0), values.std(axis=0)
        varies = sd > SMALLEST_RELATIVE_SD * np.maximum(np.abs(mean), 1e-30)
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(np.where(varies, sd, np.inf)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of embeddings.

        Parameters
        ----------
        x
            (…, D).

        Returns
        -------
        Tensor
            (…, C).
        """
        x = (x - self.mean) / self.scale
        x = F.relu(self.drop(self.lin1(x)))
        x = F.relu(self.drop(self.lin2(x)))
        return self.lin3(x)


class Finetuned(nn.Module):
    """An encoder with a head: from windows and visible tokens to outputs."""

    coords: Tensor

    def __init__(
        self, network: Network, head: PredictionHead, coords: ArrayLike, pooling: str
    ) -> None:
        """Join encoder and head.

        Parameters
        ----------
        network
            The encoder.
        head
            The head.
        coords
            (P, 3) centres of the parcels, mm.
        pooling
            "cls", or "mean" of the other tokens.

        Raises
        ------
        ValueError
            For another pooling.
        """
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(pooling)
        self.network, self.pooling = network, pooling
        self.weights = network.module  # registers it as a submodule
        self.head = head
        xyz = np.asarray(coords, dtype=np.float32)
        self.register_buffer("coords", torch.from_numpy(xyz), persistent=False)

    def forward(self, signal: Tensor, keep: Tensor) -> Tensor:
        """Outputs of windows.

        Parameters
        ----------
        signal
            (B, P, W) windows.
        keep
            (B, K) visible tokens.

        Returns
        -------
        Tensor
            (B, C).
        """
        only = self.pooling == "cls"
        latent = self.network.encode(signal, self.coords, keep, cls_only=only).latent
        return self.head(latent[:, 0] if only else latent[:, 1:].mean(1))


def class_weights(labels: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Weights of the classes in the loss, from the training labels.

    Parameters
    ----------
    labels
        Class indices.
    n_classes
        0 for a regression.

    Returns
    -------
    ndarray
        [1] for a regression; for two classes the reference's pos_weight, n(first) / n(second); for
        C classes N / (C · n), (C,).

    Examples
    --------
    >>> class_weights([0, 0, 0, 1], 2).tolist()
    [3.0]
    """
    if n_classes == 0:
        return np.ones(1)
    counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=n_classes)
    safe = np.maximum(counts, 1)
    if n_classes == 2:
        return np.array([counts[0] / safe[1] if counts[0] else 1.0])
    return counts.sum() / (n_classes * safe)


def losses(outputs: Tensor, target: Tensor, n_classes: int, weights: Tensor) -> Tensor:
    """Loss of each recording: squared error, binary cross-entropy or cross-entropy.

    Parameters
    ----------
    outputs
        (B, C).
    target
        (B,) standardised numbers or class indices.
    n_classes
        0 for a regression.
    weights
        See `class_weights`.

    Returns
    -------
    Tensor
        (B,).
    """
    if n_classes == 0:
        return (outputs[:, 0] - target).square()
    if n_classes == 2:
        return F.binary_cross_entropy_with_logits(
            outputs[:, 0], target, pos_weight=weights, reduction="none"
        )
    return F.cross_entropy(outputs, target.long(), reduction="none") * weights[target.long()]


def predictions(outputs: ArrayLike, n_classes: int, mean: float, scale: float) -> NDArray[Any]:
    """Convert outputs into predictions.

    Parameters
    ----------
    outputs
        (N, C).
    n_classes
        0 for a regression.
    mean, scale
        Of the training targets, see `standard`.

    Returns
    -------
    ndarray
        (N, 1) in the target's unit, or probabilities (N, n_classes).

    Examples
    --------
    >>> predictions([[0.0]], 2, mean=0, scale=1).tolist()
    [[0.5, 0.5]]
    """
    values = np.asarray(outputs, dtype=np.float64)
    if n_classes == 0:
        return values * scale + mean
    if n_classes == 2:
        second = 1 / (1 + np.exp(-np.clip(values[:, 0], -500, 500)))
        return np.stack([1 - second, second], axis=1)
    odds = np.exp(values - values.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def standard(values: ArrayLike) -> tuple[float, float]:
    """Mean and standard deviation of a target.

    Parameters
    ----------
    values
        (N,).

    Returns
    -------
    mean, sd
        sd is 1 where the target does not vary.

    Examples
    --------
    >>> standard([1.0, 3.0]), standard([2.0, 2.0])
    ((2.0, 1.0), (2.0, 1.0))
    """
    known = np.asarray(values, dtype=np.float64)
    sd = float(known.std())
    return float(known.mean()), sd if sd > 0 and math.isfinite(sd) else 1.0


def trainable(network: Network, parts: Mapping[str, bool]) -> list[nn.Parameter]:
    """Choose the parts of a network to train; position tables are never trained.

    Parameters
    ----------
    network
        The network; `requires_grad` of its weights is set.
    parts
        Whether to train "vit" and "decoder".

    Returns
    -------
    list of Parameter
        The trainable weights.
    """
    weights, fixed = [], network.fixed_tensors()
    for name, weight in network.module.named_parameters():
        is_trained = parts[name.split(".")[0]] and name not in fixed
        weight.requires_grad_(is_trained)
        if is_trained:
            weights.append(weight)
    return weights
