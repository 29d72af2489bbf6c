"""Fine-tuning with early stopping: returns the best weights and the learning curves.

An epoch uses every row once. The weights that are kept are those of the epoch with the smallest
validation loss; training ends after some epochs without a better one.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainlm_bids.errors import UserError
from brainlm_bids.training.loop import Loop, Progress, Tensors
from brainlm_bids.training.processes import mean_over_processes, share

Indices = NDArray[np.int64]
MicroBatches = Callable[[Indices, int], Iterable[tuple[Tensor, ...]]]
LossesOf = Callable[[nn.Module, Tensors], Tensor]
Validate = Callable[[nn.Module], Tensor]
Curves = list[dict[str, float]]


@dataclass(frozen=True)
class Stopping:
    """Epochs, patience, batch size and seed; field names are those of the command line."""

    epochs: int
    patience: int
    batch: int
    seed: int


def fit_with_early_stopping(
    module: nn.Module,
    groups: list[dict[str, Any]],
    n_rows: int,
    micro_batches: MicroBatches,
    losses_of: LossesOf,
    validate: Validate,
    stopping: Stopping,
    engine: Any,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[nn.Module, Curves]:
    """Fit a module.

    Parameters
    ----------
    module
        The module to fit.
    groups
        Parameter groups as an optimiser takes them: params, lr and weight_decay.
    n_rows
        Number of training rows.
    micro_batches
        (rows, epoch) -> tensors of some of these rows, in pieces.
    losses_of
        (module, tensors) -> (b,) losses, one per row.
    validate
        module -> (v,) validation losses of the rows of this process.
    stopping
        Epochs, patience, batch size and seed.
    engine
        See `processes.start_engine`.
    note
        Receives the epoch that is done, and its validation loss.

    Returns
    -------
    module
        With its best weights, in evaluation mode.
    curves
        A row per epoch: epoch, train_loss, validation_loss. Epoch 0 is before the first step.

    Raises
    ------
    UserError
        If a loss is not finite.
    """
    loop = Loop(engine, module, groups)
    fit = _EarlyStopping(n_rows, micro_batches, losses_of, validate, stopping, loop, note)
    loop.run(fit, Progress())
    trained = loop.trained
    trained.load_state_dict(fit.kept, strict=False)
    engine.free_memory()  # otherwise it keeps every module and optimiser that it has prepared
    return trained.eval(), fit.curves


class _EarlyStopping:
    """A `Fit` of rows that the validation loss stops."""

    def __init__(
        self,
        n_rows: int,
        micro_batches: MicroBatches,
        losses_of: LossesOf,
        validate: Validate,
        stopping: Stopping,
        loop: Loop,
        note: Callable[[str], None],
    ) -> None:
        self._note = note
        self.n_rows, self.stopping, self.loop = n_rows, stopping, loop
        self._micro_batches, self._losses_of, self._validate = micro_batches, losses_of, validate
        self.steps_per_epoch = max(1, math.ceil(n_rows / stopping.batch))
        self.n_steps = self.steps_per_epoch * stopping.epochs
        self.best, self.waited = self._validation_loss(), 0
        self.kept = _weights(loop.trained)
        self.curves: Curves = [{"epoch": 0, "train_loss": math.nan, "validation_loss": self.best}]
        self._losses = [torch.zeros(0)]

    def steps(self, first: int) -> Iterator[list[tuple[Tensor, ...]]]:
        """Micro-batches; the first tensor of each is the number of rows of its step."""
        for epoch in range(1, self.stopping.epochs + 1):
            order = np.random.default_rng([self.stopping.seed, epoch]).permutation(self.n_rows)
            for rows in np.array_split(order, self.steps_per_epoch):
                assigned, divisor = share(rows, self.loop.engine), float(len(rows))
                if not len(assigned):
                    # All processes take part in a step: this one with a row of weight 0.
                    assigned, divisor = rows[:1], math.inf
                yield [
                    (torch.tensor(divisor), *tensors)
                    for tensors in self._micro_batches(assigned, epoch)
                ]

    def loss(self, module: nn.Module, tensors: Tensors) -> Tensor:
        divisor, *rest = tensors
        losses = self._losses_of(module, rest)
        if torch.isfinite(divisor):
            self._losses.append(losses.detach().float().cpu())
        return losses.sum() / divisor

    def learning_rate(self, step: int) -> None:
        return None

    def after_epoch(self, progress: Progress) -> bool:
        epoch = progress.step // self.steps_per_epoch
        fitted = mean_over_processes(torch.cat(self._losses), self.loop.engine)
        validation = self._validation_loss()
        if not math.isfinite(validation):
            raise UserError(self.diverged(progress, validation, math.nan))
        self.curves.append({"epoch": epoch, "train_loss": fitted, "validation_loss": validation})
        self._losses = [torch.zeros(0)]
        self._note(
            f"epoch {epoch} of at most {self.stopping.epochs}, validation loss {validation:.4f}"
        )
        progress.begin_epoch()
        self.waited += 1
        if validation < self.best:
            self.best, self.kept, self.waited = validation, _weights(self.loop.trained), 0
        return self.waited < self.stopping.patience

    def after_step(self, progress: Progress, interrupted: bool) -> bool:
        return True

    def diverged(self, progress: Progress, loss: float, norm: float) -> str:
        epoch = max(progress.step - 1, 0) // self.steps_per_epoch + 1
        return f"the loss is not finite in epoch {epoch}: lower the learning rate"

    def _validation_loss(self) -> float:
        return mean_over_processes(self._validate(self.loop.trained), self.loop.engine)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the trainable weights; the others do not change."""
    return {
        name: weight.detach().clone()
        for name, weight in module.named_parameters()
        if weight.requires_grad
    }
