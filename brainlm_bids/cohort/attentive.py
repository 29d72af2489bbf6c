"""The attentive probe: one learnt query reads the tokens of a frozen network.

Multi-head attention with a single query that is the same for all windows. Because the query is
constant, its product with the key projection is one vector per head, u_h, and the score of a token
x is x · u_h; and because pooling is linear, values are projected after it:

    v_h = W_h Σ_i softmax_i(x_i · u_h) x_i

This equals the attention with explicit keys and values, at H · D multiplications a token instead of
2 D². The probe is an upper bound that a linear readout of the CLS or the mean token does not reach
where the information is in few tokens.

References
----------
Chen X, Ding M, Wang X, Xin Y, Mo S, Wang Y, Han S, Luo P, Zeng G, Wang J (2024). Context
autoencoder for self-supervised representation learning. International Journal of Computer Vision
132:208-223 (attentive probing).
Vaswani A et al. (2017). Attention is all you need. NeurIPS.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.cohort.bags import Bags
from brainlm_bids.cohort.folds import Split
from brainlm_bids.cohort.probe_options import ProbeOptions

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from brainlm_bids.cohort.probe_training import Scale, Weights

HEAD_WIDTH = 64
INITIAL_SCORE_SD = 0.3  # of the scores, so that pooling starts near the mean token


@dataclass(frozen=True)
class AttentiveOptions(ProbeOptions):
    """Grid, early stopping and draws of the attentive probe; see `ProbeOptions`.

    Attributes
    ----------
    head_width
        Dimensions of a head; there are D // head_width heads, at least one.
    """

    head_width: int = HEAD_WIDTH


def attentive_predictions(
    bags: Bags,
    target: ArrayLike,
    people: Sequence[str] | NDArray[np.str_],
    split: Split,
    *,
    n_classes: int = 0,
    seed: int = 0,
    options: AttentiveOptions = AttentiveOptions(),
) -> NDArray[np.float64]:
    """Train an attentive probe on the training units of a split, and predict its test units.

    Tokens are standardised per dimension by the training units. The training is stopped by
    validation subjects, which are a fifth of the training subjects. Tokens with a missing value
    take no part. What is predicted for a unit is the mean over its windows.

    Parameters
    ----------
    bags
        Tokens (W, L, D) of N units.
    target
        (N,) numbers, or class indices.
    people
        (N,) the subject of each unit.
    split
        Training units and test units.
    n_classes
        0 for a regression. Classes have equal weight.
    seed
        Seed of the validation subjects, initial weights, batches and draws.
    options
        Grid, early stopping and draws.

    Returns
    -------
    ndarray
        (n_test, 2) for a regression: the prediction, and the mean of the training units;
        (n_test, C) probabilities for C classes.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> age = rng.normal(size=30)
    >>> bags = Bags(tuple((a + rng.normal(size=(1, 9, 4)),) for a in age))
    >>> people = [f"sub-{k:02d}" for k in range(30)]
    >>> split = np.arange(20), np.arange(20, 30)
    >>> found = attentive_predictions(bags, age, people, split)
    >>> bool(np.corrcoef(found[:, 0], age[20:])[0, 1] > 0.8)
    True
    """
    from brainlm_bids.cohort.probe_training import probe_predictions

    return probe_predictions(
        AttentivePooling(options.head_width),
        bags,
        target,
        people,
        split,
        n_classes=n_classes,
        seed=seed,
        options=options,
    )


class AttentivePooling:
    """Attention of a constant query, keys folded into it, values projected after pooling.

    Parameters
    ----------
    head_width
        Dimensions of a head.
    """

    fills = False

    def __init__(self, head_width: int = HEAD_WIDTH) -> None:
        self._head_width = head_width

    def initial(self, width: int, generator: "Generator") -> "Weights":
        """Draw initial weights.

        Parameters
        ----------
        width
            D.
        generator
            Source of random numbers.

        Returns
        -------
        dict
            query (D, H), and value (H, D, head width).
        """
        import torch

        n_heads = max(1, width // self._head_width)
        query = torch.randn(width, n_heads, generator=generator)
        value = torch.randn(n_heads, width, min(width, self._head_width), generator=generator)
        return {
            "query": query * INITIAL_SCORE_SD / math.sqrt(width),
            "value": value / math.sqrt(width),
        }

    def pooled(
        self,
        members: "Sequence[Weights]",
        rows: "Tensor",
        seen: "Tensor",
        scale: "Scale",
    ) -> "list[Tensor]":
        """Pool the tokens of windows.

        The standardisation is folded into the query and applied to what was pooled: the weights of
        a softmax add up to one.

        Parameters
        ----------
        members
            G sets of weights, whose heads share the products with the tokens.
        rows
            (B, L, D) tokens.
        seen
            (B, L) which of them take part.
        scale
            Mean and standard deviation (D,) of the training tokens.

        Returns
        -------
        list of Tensor
            (B, H · head width) of each member.
        """
        import torch

        n_windows, _, width = rows.shape
        queries = torch.cat([weights["query"] for weights in members], dim=1) / scale.sd[:, None]
        scores = (rows.reshape(-1, width) @ queries).view(n_windows, -1, queries.shape[1])
        attention = scores.masked_fill(~seen[:, :, None], -math.inf).softmax(dim=1)
        # (B, G · H, D)
        mean = (torch.bmm(attention.transpose(1, 2), rows) - scale.mean) / scale.sd
        return [
            torch.einsum("bhd,hdk->bhk", part, weights["value"]).flatten(1)
            for part, weights in zip(mean.chunk(len(members), dim=1), members, strict=True)
        ]
