"""Which tokens a masked autoencoder sees, as indices drawn from noise or from a seed.

Both families use the scheme of He et al. 2022 (MAE, arXiv 2111.06377, section 3): argsort of a
noise value per token; the smallest are kept, in that order. L tokens, K of them kept.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Masking(NamedTuple):
    """Which tokens are visible.

    Attributes
    ----------
    keep
        (B, K) indices of the visible tokens, in the order in which the encoder sees them.
    restore
        (B, L) places of the raster tokens in (visible, hidden).
    mask
        (B, L) 1 for hidden tokens.
    """

    keep: Tensor
    restore: Tensor
    mask: Tensor


def n_kept(n_tokens: int, mask_ratio: float) -> int:
    """Number of visible tokens; like the reference, it truncates the float product.

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
    """Number of passes until every token was hidden once: ceil(1 / ratio).

    It is safe against rounding of ratios such as 0.2.

    Examples
    --------
    >>> n_passes(0.2), n_passes(0.75)
    (5, 2)
    """
    return math.ceil(1 / mask_ratio - 1e-9)


def disjoint_orders(
    n_tokens: int, mask_ratio: float, seed: int | Sequence[int]
) -> list[tuple[np.ndarray, int]]:
    """Passes that mask every token: [(order (L,), n_keep), …], for `mask_by_order`.

    The tokens, in one seeded shuffle, are masked in turn, each pass the same share of them: the
    masks are disjoint. Where the ratio does not divide 1, the last pass is filled up with tokens
    that an earlier one masked (whose first prediction counts), so that every pass has the ratio.
    Kept tokens come in a seeded random order, as in training.
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
