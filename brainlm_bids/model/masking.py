"""Which tokens a masked autoencoder sees: noise or a seed comes in, index tensors go out.

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
    """`keep` (B, K) indices of the kept tokens in the order in which the encoder sees them;
    `restore` (B, L) places of the raster tokens in (kept, removed); `mask` (B, L) 1 = removed."""

    keep: Tensor
    restore: Tensor
    mask: Tensor


def n_kept(n_tokens: int, mask_ratio: float) -> int:
    """Tokens that stay: the reference truncates the float product, int(4240·(1−0.9)) = 423."""
    return int(n_tokens * (1 - mask_ratio))


def mask_by_noise(noise: Tensor, n_keep: int, *, stable: bool = False) -> Masking:
    """noise (B, L): keep the `n_keep` tokens of the smallest noise, in the order of their noise.

    The reference sorts unstably, so that is the default here: tied tokens (one golden case has two)
    come in the order of this build of torch. `stable` puts them in raster order.
    """
    order = torch.argsort(noise, dim=1, stable=stable)
    return mask_by_order(order, n_keep)


def mask_by_order(order: Tensor, n_keep: int) -> Masking:
    """order (B, L), a permutation per row: its first `n_keep` tokens are kept, in this order."""
    restore = torch.argsort(order, dim=1)
    return Masking(order[:, :n_keep], restore, (restore >= n_keep).float())


def n_passes(mask_ratio: float) -> int:
    """Passes until every token was masked once: ceil(1 / ratio), safe against rounding of 1/0.2."""
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
