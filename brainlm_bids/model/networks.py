"""Networks: features of parcels come in, a network label per parcel and its agreement go out.

Features (P, F) come from the 13M's tokens or attention, from a reconstruction's connectivity, or,
as controls that the caller makes, from the raw series and from untrained weights (DESIGN.md 6).
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn

N_NETWORKS = 7  # AA-7 (BRAINLM.md 1c)
N_NEIGHBOURS = 10
N_FOLDS = 10


def parcel_tokens(latent: Tensor, keep: Tensor, n_parcels: int) -> Tensor:
    """Latents (B, 1 + K, D) of the tokens `keep` (B, K) -> mean over time patches (B, P, D).

    Tokens are brought back from the order in which the encoder saw them; only those that it saw
    (padded patches are not among them) count. A parcel without any is NaN.
    """
    n_patches = _n_patches(keep, n_parcels)
    parcel = keep // n_patches
    return _mean_by_parcel(latent[:, 1:], parcel, n_parcels)


def parcel_attention(
    layer: nn.Module, x: Tensor, keep: Tensor, n_parcels: int, chunk: int = 256
) -> Tensor:
    """Attention between parcels, (B, P, P) rows = queries: the mean over heads and over the time
    patches of the query and of the key, CLS dropped.

    `layer` gets its input x (B, 1 + K, D). Queries go in chunks: the whole (h, L, L) matrix of the
    13M would take 288 MB.
    """
    n_patches = _n_patches(keep, n_parcels)
    parcel = keep // n_patches  # (B, K)
    one_hot = torch.nn.functional.one_hot(parcel, n_parcels).to(x.dtype)  # (B, K, P)
    total = x.new_zeros(len(x), n_parcels, n_parcels)
    for start in range(1, x.shape[1], chunk):
        stop = min(start + chunk, x.shape[1])
        rows = layer.probabilities(x, start, stop).mean(1)[..., 1:]  # type: ignore[operator]
        keys = rows @ one_hot  # (B, chunk, P)
        total += one_hot[:, start - 1 : stop - 1].transpose(1, 2) @ keys
    count = one_hot.sum(1)  # (B, P)
    return total / (count.unsqueeze(2) * count.unsqueeze(1))


def _n_patches(keep: Tensor, n_parcels: int) -> int:
    return int(keep.max()) // n_parcels + 1 if keep.numel() else 1


def _mean_by_parcel(tokens: Tensor, parcel: Tensor, n_parcels: int) -> Tensor:
    index = parcel.unsqueeze(-1).expand_as(tokens)
    total = tokens.new_zeros(len(tokens), n_parcels, tokens.shape[-1])
    total.scatter_add_(1, index, tokens)
    count = torch.nn.functional.one_hot(parcel, n_parcels).sum(1).unsqueeze(-1)
    return total / count
