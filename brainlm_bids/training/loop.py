"""The training loop, common to pretraining and fine-tuning.

A step accumulates the gradients of its micro-batches over all processes, clips their norm and
updates the weights. A `Fit` defines what is trained, and what happens after a step and after an
epoch: pretraining saves and scores, fine-tuning stops early.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from brainlm_bids.errors import UserError

Tensors = Sequence[Tensor]


@dataclass
class Progress:
    """Progress of a training: steps taken, and numbers of the current epoch.

    Attributes
    ----------
    step
        Number of steps taken.
    losses, norms
        Loss, and norm of the gradient before clipping, of each step of this epoch.
    seconds, waiting
        Seconds spent in steps, and waiting for micro-batches, in this epoch.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    waiting: float = 0.0

    def begin_epoch(self) -> None:
        """Reset the numbers of the epoch."""
        self.losses, self.norms, self.seconds, self.waiting = [], [], 0.0, 0.0


class Fit(Protocol):
    """What the loop trains, and how."""

    @property
    def n_steps(self) -> int:
        """Number of steps of the whole training, unless something ends it earlier."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch."""
        ...

    def steps(self, first: int) -> Iterator[Sequence[Tensors]]:
        """Micro-batches of this process for every remaining step.

        Parameters
        ----------
        first
            Number of steps taken already.

        Yields
        ------
        list of tensors
            At least one micro-batch per step.
        """
        ...

    def loss(self, module: nn.Module, tensors: Tensors) -> Tensor:
        """Contribution of a micro-batch to the loss of its step.

        Parameters
        ----------
        module
            The module to fit.
        tensors
            A micro-batch.

        Returns
        -------
        Tensor
            A scalar; the sum over the micro-batches of all processes is the loss of the step.
        """
        ...

    def learning_rate(self, step: int) -> float | None:
        """Learning rate of a step.

        Parameters
        ----------
        step
            Number of steps taken before.

        Returns
        -------
        float or None
            None for the rates of the parameter groups.
        """
        ...

    def after_epoch(self, progress: Progress) -> bool:
        """Score and save.

        Parameters
        ----------
        progress
            Progress of the training.

        Returns
        -------
        bool
            Whether to continue.
        """
        ...

    def after_step(self, progress: Progress, interrupted: bool) -> bool:
        """Report and save; called after `after_epoch` at the end of an epoch.

        Parameters
        ----------
        progress
            Progress of the training.
        interrupted
            Whether a process was asked to stop.

        Returns
        -------
        bool
            Whether to continue.
        """
        ...

    def diverged(self, progress: Progress, loss: float, norm: float) -> str:
        """Message for the user when the loss or the gradient is no longer finite.

        Parameters
        ----------
        progress
            Progress of the training.
        loss, norm
            Loss and norm of the gradient of the step.

        Returns
        -------
        str
            What happened, and what to do.
        """
        ...


class Loop:
    """A module and its optimiser (AdamW) on the device of an engine."""

    def __init__(
        self,
        engine: Any,
        module: nn.Module,
        groups: list[dict[str, Any]],
        *,
        clip_norm: float = 1.0,
        optimiser_state: dict[str, Any] | None = None,
        interruption: Callable[[], int] = lambda: 0,
    ) -> None:
        """Move a module to the device and give it an optimiser.

        Parameters
        ----------
        engine
            See `processes.start_engine`.
        module
            The module to fit.
        groups
            Parameter groups as an optimiser takes them: params, weight_decay, and lr where the fit
            does not set it.
        clip_norm
            Largest norm of the gradient; 0 for no limit.
        optimiser_state
            State to continue from.
        interruption
            Returns a number other than 0 when this process was asked to stop; all processes learn
            of it after the step.
        """
        self.engine, self.clip_norm, self.interruption = engine, clip_norm, interruption
        module = module.to(engine.device)
        fused = engine.device.type == "cuda"
        optimiser = torch.optim.AdamW(groups, lr=0.0, fused=fused)
        if optimiser_state is not None:
            optimiser.load_state_dict(optimiser_state)
        self.module, self.optimiser = engine.prepare(module.train(), optimiser)

    @property
    def trained(self) -> nn.Module:
        """The module as it was passed in, without the wrapper of the engine."""
        module: nn.Module = self.engine.unwrap_model(self.module)
        return module

    def run(self, fit: Fit, progress: Progress) -> None:
        """Take the remaining steps, until the fit ends the training.

        Parameters
        ----------
        fit
            What to train, and how.
        progress
            Progress of the training; updated.

        Raises
        ------
        UserError
            If the loss or the gradient is not finite.
        """
        self.module.train()
        for batches in _timed(fit.steps(progress.step), progress):
            interrupted = self.step(fit, progress, batches)
            go_on = True
            if progress.step % fit.steps_per_epoch == 0:
                go_on = fit.after_epoch(progress)
                self.module.train()
            if not fit.after_step(progress, interrupted) or not go_on:
                return

    def step(self, fit: Fit, progress: Progress, batches: Sequence[Tensors]) -> bool:
        """Accumulate the gradients of the micro-batches of all processes, and take a step.

        Parameters
        ----------
        fit
            What to train, and how.
        progress
            Progress of the training; updated.
        batches
            Micro-batches of this process.

        Returns
        -------
        bool
            Whether any process was asked to stop.

        Raises
        ------
        UserError
            If the loss or the gradient is not finite.
        """
        rate = fit.learning_rate(progress.step)
        for group in self.optimiser.param_groups if rate is not None else ():
            group["lr"] = rate
        began = time.monotonic()
        sums = torch.zeros(2, dtype=torch.float64, device=self.engine.device)
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last else self.engine.no_sync(self.module):
                tensors = [part.to(sums.device, non_blocking=True) for part in batch]
                with self.engine.autocast():
                    loss = fit.loss(self.module, tensors)
                # Gradients are averaged over the processes, losses are summed.
                self.engine.backward(loss * self.engine.num_processes)
                sums[0] += loss.detach()
        sums[1] = self.interruption()
        step_loss, interruption = self.engine.reduce(sums, "sum").tolist()
        norm = float(
            self.engine.clip_grad_norm_(self.module.parameters(), self.clip_norm or math.inf)
        )
        if not (math.isfinite(step_loss) and math.isfinite(norm)):
            raise UserError(fit.diverged(progress, step_loss, norm))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        progress.step += 1
        progress.losses.append(step_loss)
        progress.norms.append(norm)
        progress.seconds += time.monotonic() - began
        return bool(interruption > 0)


def _timed(steps: Iterator[Sequence[Tensors]], progress: Progress) -> Iterator[Sequence[Tensors]]:
    """Measure the time spent waiting for micro-batches."""
    while True:
        began = time.monotonic()
        batches = next(steps, None)
        if batches is None:
            return
        progress.waiting += time.monotonic() - began
        yield batches
