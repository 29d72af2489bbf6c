"""Visible and masked tokens of a masked autoencoder, drawn from noise or from a seed.

Both families use the scheme of He et al. 2022 (MAE, arXiv 2111.06377, section 3): argsort of a
noise value per token; the tokens with the smallest values are kept, in that order. L tokens, K of
them kept.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Masking(NamedTuple):
    """Visible and masked tokens.

    Attributes
    ----------
    keep
        (B, K) indices of the visible tokens, in the order in which the encoder sees them.
    restore
        (B, L) places of the raster tokens in (visible, masked).
    mask
        (B, L) 1 for masked tokens.
    """

    keep: Tensor
    restore: Tensor
    mask: Tensor

    @property
    def hidden(self) -> Tensor:
        """(B, L − K) indices of the masked tokens."""
        return torch.argsort(self.restore, dim=1)[:, self.keep.shape[1] :]


def n_kept(n_tokens: int, mask_ratio: float) -> int:
    """Number of visible tokens.

    Parameters
    ----------
    n_tokens
        Number of tokens.
    mask_ratio
        Share of them that is masked.

    Returns
    -------
    int
        The product in floating point, truncated as in the reference.

    Examples
    --------
    >>> n_kept(4240, 0.9)
    423
    """
    return int(n_tokens * (1 - mask_ratio))


def mask_by_noise(noise: Tensor, n_keep: int, *, stable: bool = False) -> Masking:
    """Keep the tokens of the smallest noise, in the order of their noise.

    Parameters
    ----------
    noise
        (B, L).
    n_keep
        Number of visible tokens.
    stable
        Whether tied tokens come in raster order. The reference sorts unstably, so that is the
        default: tied tokens come in an order that depends on the build of torch.

    Returns
    -------
    Masking
        Visible and hidden tokens.
    """
    order = torch.argsort(noise, dim=1, stable=stable)
    return mask_by_order(order, n_keep)


def mask_by_order(order: Tensor, n_keep: int) -> Masking:
    """Keep the first tokens of an order.

    Parameters
    ----------
    order
        (B, L), a permutation of the tokens per row.
    n_keep
        Number of visible tokens.

    Returns
    -------
    Masking
        Visible and hidden tokens.

    Examples
    --------
    >>> mask_by_order(torch.tensor([[2, 0, 1]]), 1).mask
    tensor([[1., 1., 0.]])
    """
    restore = torch.argsort(order, dim=1)
    return Masking(order[:, :n_keep], restore, (restore >= n_keep).float())


def n_passes(mask_ratio: float) -> int:
    """Number of passes until every token was masked: ceil(1 / ratio), safe against rounding.

    Parameters
    ----------
    mask_ratio
        Share of the tokens that a pass masks.

    Returns
    -------
    int
        Number of passes.

    Examples
    --------
    >>> n_passes(0.2), n_passes(0.75)
    (5, 2)
    """
    return math.ceil(1 / mask_ratio - 1e-9)


def disjoint_orders(
    n_tokens: int, mask_ratio: float, seed: int | Sequence[int]
) -> list[tuple[np.ndarray, int]]:
    """Orders of the tokens for passes that together mask every token.

    The tokens, in one seeded shuffle, are masked in turn, each pass the same share of them: the
    masks are disjoint. Where the ratio does not divide 1, the last pass also masks tokens of an
    earlier pass (whose first prediction counts), so that every pass has the ratio. Visible tokens
    are in seeded random order, as in training.

    Parameters
    ----------
    n_tokens
        Number of tokens L.
    mask_ratio
        Share of the tokens that a pass masks.
    seed
        Seed of the orders.

    Returns
    -------
    list of tuple
        (order (L,), n_keep) of each pass, for `mask_by_order`.

    Raises
    ------
    ValueError
        If the ratio masks no token.

    Examples
    --------
    >>> [sorted(order[keep:].tolist()) for order, keep in disjoint_orders(4, 0.5, seed=0)]
    [[0, 2], [1, 3]]
    """
    rng = np.random.default_rng(seed)
    n_keep = n_kept(n_tokens, mask_ratio)
    n_masked = n_tokens - n_keep
    if n_masked == 0:
        raise ValueError(f"a mask ratio of {mask_ratio} masks none of {n_tokens} tokens")
    shuffled = rng.permutation(n_tokens)
    orders = []
    # The truncation of n_kept rounds the masked share up, so this can only end early.
    for start in range(0, n_tokens, n_masked):
        first = min(start, n_keep)
        removed = shuffled[first : first + n_masked]
        kept = np.concatenate([shuffled[:first], shuffled[first + n_masked :]])
        orders.append((np.concatenate([rng.permutation(kept), removed]), n_keep))
    return orders
