"""Softmax attention as both networks compute it, and the attention weights of a layer.

Tokens (B, L, D), h heads of d = D / h dimensions. Where only some tokens of a layer's output are
read, `rows` (B, M) are their indices: the layer then computes these alone, from all of its input.
"""

import math

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def tokens_at(x: Tensor, rows: Tensor | None) -> Tensor:
    """Take tokens (B, M, D) out of (B, L, D) by their indices (B, M); None takes all."""
    return x if rows is None else x.gather(1, rows.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


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

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None = None) -> Tensor:
        """Values weighted by the attention of queries to keys, all (B, h, L, d).

        The queries are those of the tokens `rows` (B, M), if given.
        """
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Attend from each token (B, L, D), or from those of `rows` (B, M), to all tokens."""
        q = self.split(self.query(tokens_at(x, rows)))
        k, v = self.split(self.key(x)), self.split(self.value(x))
        return self.mix(q, k, v, rows).transpose(1, 2).flatten(2)  # (B, h, M, d) -> (B, M, D)

    def probabilities(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Attention of the queries start … stop to all tokens: (B, h, stop − start, L)."""
        q, k = self.split(self.query(x[:, start:stop])), self.split(self.key(x))
        return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)


class AttentionLayer(nn.Module):
    """A layer of a transformer that can return its attention."""

    def probabilities(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Attention (B, h, stop − start, L) of the queries start … stop, for the layer's input."""
        raise NotImplementedError
