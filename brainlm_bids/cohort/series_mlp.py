"""The baseline that every claim about tokens needs: an MLP on the raw parcel series.

Each volume (P parcels) passes through one hidden layer with GELU; the hidden units are averaged
over volumes, and a linear layer reads them. It sees amplitudes and which parcels are active
together, which the mean of a series does not hold, but not the order of the volumes.
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

HIDDEN = 128


@dataclass(frozen=True)
class MlpOptions(ProbeOptions):
    """Grid, early stopping and draws of the MLP; see `ProbeOptions`.

    Attributes
    ----------
    hidden
        Number of hidden units.
    """

    rows: int = 256
    hidden: int = HIDDEN


def mlp_predictions(
    bags: Bags,
    target: ArrayLike,
    people: Sequence[str] | NDArray[np.str_],
    split: Split,
    *,
    n_classes: int = 0,
    seed: int = 0,
    options: MlpOptions = MlpOptions(),
) -> NDArray[np.float64]:
    """Train an MLP on the series of the training units, and predict the test units.

    Parcels are standardised by the training units. A missing value becomes the mean of its parcel,
    and a volume without any value takes no part. The training is that of the attentive probe.

    Parameters
    ----------
    bags
        Series (T, P) of N units.
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
    >>> size = rng.uniform(1, 3, size=40)
    >>> bags = Bags(tuple((a * rng.normal(size=(50, 4)),) for a in size))
    >>> people = [f"sub-{k:02d}" for k in range(40)]
    >>> split = np.arange(30), np.arange(30, 40)
    >>> found = mlp_predictions(bags, size, people, split)
    >>> bool(np.corrcoef(found[:, 0], size[30:])[0, 1] > 0.8)
    True
    """
    from brainlm_bids.cohort.probe_training import probe_predictions

    return probe_predictions(
        VolumePooling(options.hidden),
        bags,
        target,
        people,
        split,
        n_classes=n_classes,
        seed=seed,
        options=options,
    )


class VolumePooling:
    """A hidden layer on each volume, averaged over volumes.

    Parameters
    ----------
    hidden
        Number of hidden units.
    """

    fills = True

    def __init__(self, hidden: int = HIDDEN) -> None:
        self._hidden = hidden

    def initial(self, width: int, generator: "Generator") -> "Weights":
        """Draw initial weights.

        Parameters
        ----------
        width
            P.
        generator
            Source of random numbers.

        Returns
        -------
        dict
            hidden (P, H), and offset (H,).
        """
        import torch

        hidden = torch.randn(width, self._hidden, generator=generator) / math.sqrt(width)
        return {"hidden": hidden, "offset": torch.zeros(self._hidden)}

    def pooled(
        self,
        members: "Sequence[Weights]",
        rows: "Tensor",
        seen: "Tensor",
        scale: "Scale",
    ) -> "list[Tensor]":
        """Average the hidden units over the volumes of windows.

        Parameters
        ----------
        members
            G sets of weights.
        rows
            (B, T, P) volumes.
        seen
            (B, T) which of them take part.
        scale
            Mean and standard deviation (P,) of the training volumes.

        Returns
        -------
        list of Tensor
            (B, H) of each member.
        """
        from torch.nn.functional import gelu

        standard = (rows - scale.mean) / scale.sd
        weight = (seen / seen.sum(dim=1, keepdim=True))[:, None]
        return [
            (weight @ gelu(standard @ weights["hidden"] + weights["offset"]))[:, 0]
            for weights in members
        ]
