"""Fine-tuning: windows (B, P, W) and a target come in; a head's outputs and their loss go out.

The head is that of the reference (vit_image_finetuning_mlp_pred_head.py of vandijklab/BrainLM at
commit b591d88): an MLP D -> D/2 -> D/2 -> C with ReLU and dropout, on CLS or on the mean of the
other tokens. In front of it stand fixed means and scales of the embedding, those of the recordings
that it learns from.
C = 1 for a number (standardised) or two classes (a logit), else one per class. float32.
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
    """Outputs of the head: 1 for a number (`n_classes` 0) and for two classes."""
    return n_classes if n_classes > 2 else 1


class PredictionHead(nn.Module):
    """(B, D) -> (B, C); names and order of layers are the reference's, and their first weights.

    But the last layer begins at 0: a head that finds nothing to learn predicts the mean.
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
        """Take means and scales from embeddings (N, D): those to learn from, and no others."""
        values = np.asarray(embeddings, dtype=np.float64)
        mean, sd = values.mean(axis=0), values.std(axis=0)
        varies = sd > SMALLEST_RELATIVE_SD * np.maximum(np.abs(mean), 1e-30)
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(np.where(varies, sd, np.inf)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (…, C) for embeddings (…, D)."""
        x = (x - self.mean) / self.scale
        x = F.relu(self.drop(self.lin1(x)))
        x = F.relu(self.drop(self.lin2(x)))
        return self.lin3(x)


class Finetuned(nn.Module):
    """An encoder with a head: windows (B, P, W) and the tokens seen (B, K) -> outputs (B, C)."""

    coords: Tensor

    def __init__(
        self, network: Network, head: PredictionHead, coords: ArrayLike, pooling: str
    ) -> None:
        """Join encoder and head; `coords` (P, 3) in mm, `pooling` "cls" or "mean"."""
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(pooling)
        self.network, self.pooling = network, pooling
        self.weights = network.module  # registered here, so that it moves and learns with this
        self.head = head
        xyz = np.asarray(coords, dtype=np.float32)
        self.register_buffer("coords", torch.from_numpy(xyz), persistent=False)

    def forward(self, signal: Tensor, keep: Tensor) -> Tensor:
        """Outputs (B, C) for windows (B, P, W), of which the tokens `keep` (B, K) are visible."""
        latent = self.network.encode(signal, self.coords, keep).latent
        return self.head(latent[:, 0] if self.pooling == "cls" else latent[:, 1:].mean(1))


def class_weights(labels: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """What each class counts in the loss, from the labels to learn from; [1] for a number.

    Two classes: the reference's pos_weight, n(first) / n(second). More: N / (C · n).

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
    """(B,) of each recording: squared error, binary or plain cross-entropy.

    outputs (B, C); target (B,) standardised numbers or class indices; weights: `class_weights`.
    """
    if n_classes == 0:
        return (outputs[:, 0] - target).square()
    if n_classes == 2:
        return F.binary_cross_entropy_with_logits(
            outputs[:, 0], target, pos_weight=weights, reduction="none"
        )
    return F.cross_entropy(outputs, target.long(), reduction="none") * weights[target.long()]


def predictions(outputs: ArrayLike, n_classes: int, mean: float, scale: float) -> NDArray[Any]:
    """Outputs (N, C) -> numbers (N, 1) in the target's unit, or probabilities (N, n_classes)."""
    values = np.asarray(outputs, dtype=np.float64)
    if n_classes == 0:
        return values * scale + mean
    if n_classes == 2:
        second = 1 / (1 + np.exp(-np.clip(values[:, 0], -500, 500)))
        return np.stack([1 - second, second], axis=1)
    odds = np.exp(values - values.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def standard(values: ArrayLike) -> tuple[float, float]:
    """Mean and standard deviation of a target (N,), 1 where it does not vary."""
    known = np.asarray(values, dtype=np.float64)
    sd = float(known.std())
    return float(known.mean()), sd if sd > 0 and math.isfinite(sd) else 1.0


def trainable(network: Network, parts: Mapping[str, bool]) -> list[nn.Parameter]:
    """Let the parts ("vit", "decoder") learn that are True; the position tables never do."""
    chosen, fixed = [], network.fixed_tensors()
    for name, weight in network.module.named_parameters():
        learns = parts[name.split(".")[0]] and name not in fixed
        weight.requires_grad_(learns)
        if learns:
            chosen.append(weight)
    return chosen
