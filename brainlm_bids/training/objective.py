"""Masked prediction: from windows (B, P, W) to the loss of each window.

Windows are robust-scaled, P parcels × W volumes, and have L tokens, of which K are visible. The
module also draws windows and masks (from seeds alone), gives the learning rate of a step, and
selects the parameters with weight decay. All tensors are float32; nothing here uses files or
processes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from brainlm_bids.model.config import ModelConfig
from brainlm_bids.model.masking import mask_by_order, n_kept
from brainlm_bids.model.network import Network

# Windows per step in the training records of the released checkpoints, to which the peak learning
# rates (`config.peak_learning_rate`) belong.
PEAK_BATCH = 256
# Streams of random numbers from the seed of a run.
ORDER, TRAINING, VALIDATION, TEST = range(4)


class Losses(NamedTuple):
    """Loss and sums of each window of a batch, (B,) each.

    Attributes
    ----------
    loss
        Mean error over the hidden values, in units of the network.
    number
        Number of hidden values of parcels with data; the sums below are over these.
    total, squares
        Sums of x and x², in units of the series.
    errors
        Sum of (prediction − x)².
    """

    loss: Tensor
    number: Tensor
    total: Tensor
    squares: Tensor
    errors: Tensor


class MaskedPrediction(nn.Module):
    """A network with the parcels' coordinates and the number of visible tokens, for training.

    All windows of a batch have the same weight, so the loss of a batch does not depend on how it is
    distributed over devices. (The reference implementation pools the masked values of a device's
    batch, which gives the same number except for the padding of the image models.)
    """

    coords: Tensor

    def __init__(self, network: Network, coords: ArrayLike, mask_ratio: float) -> None:
        """Wrap a network.

        Parameters
        ----------
        network
            The network.
        coords
            (P, 3) centres of the parcels in mm, in the order of the series' columns.
        mask_ratio
            Share of the tokens that is masked.
        """
        super().__init__()
        self.network = network
        self.weights = network.module  # registers it as a submodule
        self.n_keep = n_kept(network.config.n_tokens, mask_ratio)
        xyz = torch.as_tensor(np.asarray(coords, dtype=np.float32))
        self.register_buffer("coords", xyz, persistent=False)

    def forward(self, signal: Tensor, order: Tensor) -> Losses:
        """Losses of partly masked windows.

        Parameters
        ----------
        signal
            (B, P, W) windows.
        order
            (B, L) permutations of the tokens; the first K of each row are visible, in that order.

        Returns
        -------
        Losses
            (B,) each.
        """
        masking = mask_by_order(order, self.n_keep)
        result = self.network.masked_pass(signal, self.coords, masking)
        return window_losses(
            result.predicted,
            result.truth,
            result.hidden,
            unit=self.network.unit,
            kind=self.network.config.loss_fn,
        )


def hidden_values(task: MaskedPrediction, order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Find the values that are masked.

    Parameters
    ----------
    task
        The network.
    order
        (L,) order of the tokens of a window.

    Returns
    -------
    ndarray
        (P, W) bool.
    """
    tokens = torch.ones(1, len(order))
    tokens[0, order[: task.n_keep]] = 0
    return task.network.hidden_values(tokens, task.coords.cpu())[0].numpy().astype(bool)


def window_losses(
    prediction: Tensor, truth: Tensor, hidden: Tensor, *, unit: float = 1.0, kind: str = "mse"
) -> Losses:
    """Losses and sums of windows.

    Parameters
    ----------
    prediction, truth, hidden
        (B, P, W); `hidden` is 1 where a value was masked.
    unit
        Unit of the network, in that of the series.
    kind
        "mse" or "mae".

    Returns
    -------
    Losses
        (B,) each.
    """
    error = (prediction.float() - truth) * hidden
    size = error.abs() if kind == "mae" else error.square()
    loss = size.sum((1, 2)) / hidden.sum((1, 2)).clamp(min=1)
    with torch.no_grad():
        counted = hidden * (truth != 0).any(-1, keepdim=True)
        x, e = (truth * unit * counted).double(), (error * unit * counted).double()
        sums = [part.sum((1, 2)) for part in (counted.double(), x, x.square(), e.square())]
    return Losses(loss, *sums)


def mse_and_r2(
    number: ArrayLike, total: ArrayLike, squares: ArrayLike, errors: ArrayLike
) -> tuple[float, float]:
    """Mean squared error and R² = 1 − Σ(prediction − x)² / Σ(x − mean x)², from sums over windows.

    Parameters
    ----------
    number, total, squares, errors
        Sums of any number of windows, see `Losses`.

    Returns
    -------
    mse, r2
        NaN without values; r2 is NaN also where x does not vary.

    Examples
    --------
    >>> mse_and_r2([2], [4.0], [10.0], [0.5])
    (0.25, 0.75)
    """
    n, x, xx, e = (float(np.sum(np.asarray(part))) for part in (number, total, squares, errors))
    if not n:
        return math.nan, math.nan
    spread = xx - x * x / n
    return e / n, 1 - e / spread if spread > 0 else math.nan


def draw(config: ModelConfig, n_volumes: int, key: Sequence[int]) -> tuple[int, NDArray[np.int64]]:
    """Draw a window of a recording, and the order of its tokens.

    Parameters
    ----------
    config
        Configuration of the network.
    n_volumes
        Number of volumes of the recording.
    key
        Seed, stream, epoch, and index in the epoch. The same key always draws the same.

    Returns
    -------
    first
        First volume of the window.
    order
        (L,) order of the tokens.
    """
    rng = np.random.default_rng(key)
    first = int(rng.integers(n_volumes - config.window + 1))
    return first, rng.permutation(config.n_tokens)


def batches(n_windows: int, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Distribute the windows of an epoch over steps, in seeded order.

    Parameters
    ----------
    n_windows
        Number of windows of the epoch.
    batch
        Largest number of windows of a step.
    seed, epoch
        Seed of the run, and number of the epoch.

    Returns
    -------
    list of ndarray
        Windows of each step, nearly as many in all.

    Examples
    --------
    >>> [len(step) for step in batches(10, batch=4, seed=0, epoch=0)]
    [4, 3, 3]
    """
    order = np.random.default_rng([seed, ORDER, epoch]).permutation(n_windows)
    return np.array_split(order, -(-n_windows // batch))


def default_learning_rate(config: ModelConfig, batch: float) -> float:
    """Peak learning rate of the released checkpoints, proportionally less for smaller batches.

    Parameters
    ----------
    config
        Configuration of the network.
    batch
        Windows per step.

    Returns
    -------
    float
        The learning rate.
    """
    return config.peak_learning_rate * min(1.0, batch / PEAK_BATCH)


def learning_rate(step: int, n_steps: int, peak: float, warm_up: float) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine towards 0.

    As in transformers' `get_cosine_schedule_with_warmup`, except that the warm-up is one step
    ahead, so that the first step does not have the rate 0.

    Parameters
    ----------
    step
        0 … n_steps − 1.
    n_steps
        Number of steps.
    peak
        Learning rate at the end of the warm-up.
    warm_up
        Share of the steps.

    Returns
    -------
    float
        The learning rate.

    Examples
    --------
    >>> [learning_rate(step, 4, peak=1.0, warm_up=0.5) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    n_warm = math.ceil(warm_up * n_steps)
    if step < n_warm:
        return peak * (step + 1) / n_warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(n_steps - n_warm, 1)))


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups: weight matrices and kernels decay; biases, gains and special tokens do not.

    Parameters
    ----------
    module
        The module to fit.
    weight_decay
        Weight decay of the first group.

    Returns
    -------
    list of dict
        Parameter groups as an optimiser takes them.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim > 1 and "token" not in name.rsplit(".", 1)[-1]]
    ids = {id(p) for p in decayed}
    rest = [p for _, p in named if id(p) not in ids]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
