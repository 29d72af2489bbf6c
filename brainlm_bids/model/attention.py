"""Softmax attention as both networks compute it, and the attention weights of a layer.

Tokens (B, L, D), h heads of d = D / h dimensions.
"""

import math

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Softmax attention (Vaswani et al. 2017) without the projection of its output."""

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)

    def split(self, x: Tensor) -> Tensor:
        """Split tokens into heads: (B, L, D) -> (B, h, L, d)."""
        split: Tensor = x.unflatten(-1, (self.heads, -1))
        return split.transpose(1, 2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Values weighted by the attention of queries to keys, all (B, h, L, d)."""
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each token (B, L, D) to all tokens."""
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        return self.mix(q, k, v).transpose(1, 2).flatten(2)  # (B, h, L, d) -> (B, L, D)

    def probabilities(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Attention of the queries start … stop to all tokens: (B, h, stop − start, L)."""
        q, k = self.split(self.query(x[:, start:stop])), self.split(self.key(x))
        return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)


class AttentionLayer(nn.Module):
    """A layer of a transformer that can return its attention."""

    def probabilities(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Attention (B, h, stop − start, L) of the queries start … stop, for the layer's input."""
        raise NotImplementedError
