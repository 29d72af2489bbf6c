"""Learning by masked prediction: windows (B, P, W) come in, the loss of each window goes out.

Windows are robust-scaled, P parcels × W volumes; L tokens, of which K are seen. Also what a run
draws (windows and masks, from seeds alone), the learning rate of a step, and the parameters that
decay. float32; nothing here knows files or processes.
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

# Windows per step of the released checkpoints' training records, which the peaks of the learning
# rate (`config.peak_learning_rate`) belong to.
PEAK_BATCH = 256
# Streams of random numbers of a run's seed.
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
    """A network with what it needs to be trained: the parcels' places and the share that is hidden.

    Each window counts the same in a batch, so the loss of a batch does not depend on how it is
    spread over devices. (The reference pools the hidden values of a device's batch, which is the
    same number but for the padding of the image models.)
    """

    coords: Tensor

    def __init__(self, network: Network, coords: ArrayLike, mask_ratio: float) -> None:
        """Wrap a network; `coords` (P, 3) are in mm, in the order of the series' columns."""
        super().__init__()
        self.network = network
        self.weights = network.module  # registered here, so that it moves and learns with this
        self.n_keep = n_kept(network.config.n_tokens, mask_ratio)
        xyz = torch.as_tensor(np.asarray(coords, dtype=np.float32))
        self.register_buffer("coords", xyz, persistent=False)

    def forward(self, signal: Tensor, order: Tensor) -> Losses:
        """Losses of windows of which a part is hidden.

        Parameters
        ----------
        signal
            (B, P, W) windows.
        order
            (B, L) a permutation of the tokens; the first of each row are visible, in that order.
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
    """(P, W): which values of a window an order of tokens (L,) hides."""
    tokens = torch.ones(1, len(order))
    tokens[0, order[: task.n_keep]] = 0
    return task.network.hidden_values(tokens, task.coords.cpu())[0].numpy().astype(bool)


def window_losses(
    prediction: Tensor, truth: Tensor, hidden: Tensor, *, unit: float = 1.0, kind: str = "mse"
) -> Losses:
    """All (B, P, W), `hidden` 1 where a value was hidden; `unit`: the network's, in the series'."""
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
    """Mean squared error and R² = 1 − Σ(guess − x)² / Σ(x − mean x)² from sums over windows."""
    n, x, xx, e = (float(np.sum(np.asarray(part))) for part in (number, total, squares, errors))
    if not n:
        return math.nan, math.nan
    spread = xx - x * x / n
    return e / n, 1 - e / spread if spread > 0 else math.nan


def draw(config: ModelConfig, n_volumes: int, key: Sequence[int]) -> tuple[int, NDArray[np.int64]]:
    """(first volume, order of tokens (L,)) of the window named by `key`, the same for the same key.

    key: seed, stream, epoch, index in the epoch.
    """
    rng = np.random.default_rng(key)
    first = int(rng.integers(n_volumes - config.window + 1))
    return first, rng.permutation(config.n_tokens)


def batches(n_windows: int, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The windows of an epoch in its seeded order, in steps of nearly equal size ≤ `batch`."""
    order = np.random.default_rng([seed, ORDER, epoch]).permutation(n_windows)
    return np.array_split(order, -(-n_windows // batch))


def default_learning_rate(config: ModelConfig, batch: float) -> float:
    """The released checkpoints' peak, in proportion to the batch where it is below theirs."""
    return config.peak_learning_rate * min(1.0, batch / PEAK_BATCH)


def learning_rate(step: int, n_steps: int, peak: float, warm_up: float) -> float:
    """Of step 0 … n_steps − 1: linear over the share `warm_up`, then half a cosine towards 0.

    As transformers' get_cosine_schedule_with_warmup, but for the warm-up, which is one step ahead,
    so that the first step does not have the rate 0.
    """
    n_warm = math.ceil(warm_up * n_steps)
    if step < n_warm:
        return peak * (step + 1) / n_warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(n_steps - n_warm, 1)))


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups: matrices and kernels decay; biases, gains and tokens do not."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim > 1 and "token" not in name.rsplit(".", 1)[-1]]
    ids = {id(p) for p in decayed}
    rest = [p for _, p in named if id(p) not in ids]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
