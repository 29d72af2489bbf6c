"""Attention of a layer whose tokens lie in a space of few dimensions.

The tokens that enter the first layer of the 13M are sums of linear maps of 20 values, 3 coordinates
and 10 time patches (and CLS): they span 34 of 512 dimensions. Queries times keys, and attention
times values, are then products over 34 numbers instead of the 128 of a head. The result is the
same but for rounding.

Tokens (B, L, D), h heads of d dimensions, r dimensions of the space.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from brainlm_bids.model.attention import SelfAttention


class Subspace(NamedTuple):
    """Tokens as sums of a few vectors.

    Attributes
    ----------
    parts
        (B, L, r) coordinates of the tokens.
    basis
        (r, D) orthonormal vectors; the tokens are `parts @ basis`.
    """

    parts: Tensor
    basis: Tensor


def subspace(weights: Tensor, vectors: Tensor) -> Subspace:
    """Express tokens, given as sums of any vectors, by an orthonormal basis.

    With an orthonormal basis the coordinates are no larger than the tokens, and rounding errors are
    not either: the time positions, for example, are nearly parallel.

    Parameters
    ----------
    weights
        (B, L, r) weights of the vectors.
    vectors
        (r, D), r no more than D; the tokens are `weights @ vectors`.

    Returns
    -------
    Subspace
        The same tokens.

    Examples
    --------
    >>> found = subspace(torch.ones(1, 1, 2), torch.tensor([[3.0, 0.0, 0.0], [3.0, 4.0, 0.0]]))
    >>> torch.allclose(found.parts @ found.basis, torch.tensor([[[6.0, 4.0, 0.0]]]))
    True
    """
    basis, mixture = torch.linalg.qr(vectors.double().T)
    return Subspace(weights @ mixture.T.to(weights.dtype), basis.T.to(weights.dtype))


def attend(
    attention: SelfAttention, space: Subspace, convolve: Callable[[Tensor], Tensor]
) -> Tensor:
    """Attend from each token of a space to all, and add a convolution of the values.

    With tokens c·E, queries are c·E·Q + q and keys c·E·K + k. The softmax over keys does not see
    what is added to all of a query's scores, so that of k is left out, and the scores are
    (c·E·Q + q)·(E·K)ᵀ·cᵀ. The weights of a query sum to 1, so its values are (weights · c)·E·V + v.

    Parameters
    ----------
    attention
        The layer's weights.
    space
        The tokens (B, L, D) that enter it.
    convolve
        A linear map along the tokens, the same for each dimension of a head: (B, h, L, n) to the
        same shape.

    Returns
    -------
    Tensor
        (B, L, D).
    """
    heads, width = attention.heads, space.basis.shape[1] // attention.heads

    def by_head(projection: nn.Linear) -> tuple[Tensor, Tensor]:
        """The projection of the basis (h, r, d), and the bias (h, 1, d)."""
        matrix = F.linear(space.basis, projection.weight).unflatten(-1, (heads, width))
        return matrix.transpose(0, 1), projection.bias.view(heads, 1, width)

    (to_query, query), (to_key, _) = by_head(attention.query), by_head(attention.key)
    to_value, value = by_head(attention.value)
    parts = space.parts.unsqueeze(1)  # (B, 1, L, r)
    back = to_key.transpose(1, 2)  # (h, d, r)
    scoring = parts @ (to_query @ back) + query @ back  # (B, h, L, r)
    shared = parts.expand(-1, heads, -1, -1)
    mixed = F.scaled_dot_product_attention(scoring, shared, shared, scale=1 / math.sqrt(width))
    mixed = mixed + convolve(shared)
    total = 1 + convolve(shared.new_ones(1, heads, shared.shape[2], 1))  # less at both ends
    return (mixed @ to_value + total * value).transpose(1, 2).flatten(2)
