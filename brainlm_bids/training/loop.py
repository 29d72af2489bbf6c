"""The loop of every training: micro-batches come in, the weights of a module change.

A step accumulates the gradients of its micro-batches over all processes, clips their norm and lets
the optimiser act. What is trained, and what happens after a step and after an epoch, is a `Fit`:
pre-training saves and scores, fine-tuning stops early.
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
    """Where a training stands: steps taken, and numbers of the epoch that is under way.

    Attributes
    ----------
    step
        Steps since the beginning.
    losses, norms
        Of the steps of this epoch: loss, and norm of the gradient before it was clipped.
    seconds, waiting
        Time in steps and time waiting for micro-batches, of this epoch.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    waiting: float = 0.0

    def begin_epoch(self) -> None:
        """Forget the numbers of the epoch that has ended."""
        self.losses, self.norms, self.seconds, self.waiting = [], [], 0.0, 0.0


class Fit(Protocol):
    """What the loop trains."""

    @property
    def n_steps(self) -> int:
        """Steps of the whole training, if nothing ends it before."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        ...

    def steps(self, first: int) -> Iterator[Sequence[Tensors]]:
        """The micro-batches of this process for every step from `first` on; at least one each."""
        ...

    def loss(self, module: nn.Module, tensors: Tensors) -> Tensor:
        """What a micro-batch adds to the loss of its step: the sum over all is that loss."""
        ...

    def learning_rate(self, step: int) -> float | None:
        """Of a step; None: as the groups of weights say."""
        ...

    def after_epoch(self, progress: Progress) -> bool:
        """Score, save, and say whether to go on."""
        ...

    def after_step(self, progress: Progress, interrupted: bool) -> bool:
        """Report, save, and say whether to go on; comes after `after_epoch`."""
        ...

    def diverged(self, progress: Progress, loss: float, norm: float) -> str:
        """What to tell the user when the loss or the gradient is not finite any more."""
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
        """The module itself, as it was handed in."""
        module: nn.Module = self.engine.unwrap_model(self.module)
        return module

    def run(self, fit: Fit, progress: Progress) -> None:
        """Take the steps that are left, until the fit ends it.

        Raises
        ------
        UserError
            When the loss or the gradient is not finite.
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
        """Accumulate over the micro-batches, agree on the loss, take the step.

        Returns whether any process was asked to stop.
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
    """Count the seconds that the training waits for micro-batches."""
    while True:
        began = time.monotonic()
        batches = next(steps, None)
        if batches is None:
            return
        progress.waiting += time.monotonic() - began
        yield batches
