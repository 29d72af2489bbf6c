"""`brainlm pretrain`: train an architecture on series; write checkpoints, curves and a record.

The windows and masks of a step depend on the seed alone. So the losses do not depend on the number
of processes, and an interrupted run continues as if it had not been interrupted.
"""

import math
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainlm_bids.amount import Amount
from brainlm_bids.bids.calls import STOPPED
from brainlm_bids.errors import UserError
from brainlm_bids.messages import tell
from brainlm_bids.report.tools.page import reported, write_page
from brainlm_bids.resources import parcels
from brainlm_bids.training import saving, setup, start_scores
from brainlm_bids.training.curves import START_FILE, Board, draw_curves, write_curves
from brainlm_bids.training.evaluation import COLUMNS, Evaluator, compared
from brainlm_bids.training.loader import Batch, Schedule, WindowSet, load
from brainlm_bids.training.loop import Loop, Progress, Tensors
from brainlm_bids.training.objective import (
    TEST,
    VALIDATION,
    MaskedPrediction,
    decay_groups,
    learning_rate,
    mse_and_r2,
)
from brainlm_bids.training.processes import (
    Interruption,
    largest_batch,
    lock_folder,
    start_engine,
)
from brainlm_bids.training.setup import DataSplit, PretrainOptions, Resolved, StartingPoint
from brainlm_bids.training.store import Store, find_or_build

CUDA_MICRO_BATCH = 64  # halved until it fits
CPU_MICRO_BATCH = 2
TESTED = "test.tsv"  # written last
DRAWING_SECONDS = 30.0  # between two drawings of the curves


def pretrain(options: PretrainOptions, command: Sequence[str] = ()) -> int:
    """Train, or continue the training in the run folder.

    Parameters
    ----------
    options
        The options of the command.
    command
        The words of the command line, for the page; none for a call from Python.

    Returns
    -------
    int
        0, or 128 plus the signal that stopped it.

    Raises
    ------
    UserError
        For data or options that cannot be used, a full disk, and a loss that is no longer finite.
        What was saved before is kept.
    """
    with Interruption() as interruption:
        options.run_dir.mkdir(parents=True, exist_ok=True)
        store = find_or_build(
            options.data,
            options.run_dir,
            series=options.series,
            space=options.space,
            atlas=options.atlas,
            check=os.environ.get("LOCAL_RANK", "0") == "0",
        )
        start = setup.find_start(options)
        split = setup.divide(store, start.network.config, options)
        n_windows = len(split.parts[setup.TRAIN]) * options.windows_per_recording
        schedule = Schedule(n_windows, options.batch, options.epochs, options.seed)
        resolved = setup.resolve(options, start.network.config, schedule)
        run = _Pretraining(options, resolved, start, split, store, schedule, interruption)
        try:
            with run.reported(command) as run.call:
                return run.train()
        finally:
            run.close()


class _Pretraining:
    """One pretraining: a `Fit` for the loop, its scores, and the files that it writes."""

    def __init__(
        self,
        options: PretrainOptions,
        resolved: Resolved,
        start: StartingPoint,
        split: DataSplit,
        store: Store,
        schedule: Schedule,
        interruption: Interruption,
    ) -> None:
        self.options, self.resolved, self.start, self.schedule = options, resolved, start, schedule
        self.split, self.config, self.interruption = split, start.network.config, interruption
        self.folder = options.run_dir
        self.engine = start_engine(resolved.device, resolved.precision)
        self.record = setup.run_record(options, resolved, start, split, store)
        self.lock: Any = None
        if self.is_main:
            self.lock = lock_folder(self.folder)
            setup.write_setup(self.folder, self.record, split, store)
        copies = options.windows_per_recording
        self.windows = {
            part: WindowSet(store, recordings, self.config, seed=options.seed, copies=copies)
            for part, recordings in split.parts.items()
        }
        self._restore()
        self.saved_at = self.drawn_at = time.monotonic()
        self.interrupted = False
        self.board: Board | None = None
        self.bar = Amount("training", self.schedule.n_steps, quiet=True)
        self.call: dict[str, Any] = {}

    def close(self) -> None:
        """Release the folder."""
        if self.lock is not None:
            self.lock.release()

    def reported(self, command: Sequence[str]) -> Any:
        """Record the call and write the page of the folder, in one process."""
        if not self.is_main:
            return nullcontext({})
        facts = {"FromStep": self.progress.step, "Steps": self.n_steps}
        return reported(self.folder, "pretrain", command, **facts)

    @property
    def is_main(self) -> bool:
        return bool(self.engine.is_main_process)

    @property
    def on_cuda(self) -> bool:
        return bool(self.engine.device.type == "cuda")

    def _restore(self) -> None:
        """Restore network, optimiser and history of an earlier call, if there was one."""
        state = saving.load_state(self.folder / "state" / saving.STATE) or {}
        if state:
            self.start.network.module.load_state_dict(state["network"])
        self.progress = Progress(**{key: state[key] for key in asdict(Progress()) if key in state})
        self.history: list[dict[str, Any]] = state.get("history", [])
        self.best: float = state.get("best", math.inf)
        self.best_epoch: int = state.get("best_epoch", 0)
        self.baselines: Any = state.get("baselines")
        self.task = MaskedPrediction(self.start.network, parcels().xyz, self.config.mask_ratio)
        self.micro = self._micro_batch(self.task.to(self.engine.device))
        self.loop = Loop(
            self.engine,
            self.task,
            decay_groups(self.task, self.resolved.weight_decay),
            clip_norm=self.options.clip_norm,
            optimiser_state=state.get("optimiser"),
            interruption=lambda: self.interruption.signal,
        )
        self.evaluator = Evaluator(self.engine, self.task, self.micro)

    def _micro_batch(self, task: MaskedPrediction) -> int:
        share = -(-self.options.batch // self.engine.num_processes)
        if self.options.micro_batch is not None:
            return min(self.options.micro_batch, share)
        if not self.on_cuda:
            return min(CPU_MICRO_BATCH, share)
        fits = largest_batch(lambda n: self._try(task, n), min(CUDA_MICRO_BATCH, share))
        everywhere = self.engine.gather(torch.tensor([fits], device=self.engine.device))
        return int(everywhere.min())

    def _try(self, task: MaskedPrediction, n: int) -> None:
        """Forward and backward pass of n windows, with memory for gradients and Adam reserved."""
        device = self.engine.device
        weights = sum(p.numel() for p in task.parameters())
        room = torch.empty(3 * weights, dtype=torch.float32, device=device)
        windows = torch.zeros(n, self.config.n_parcels, self.config.window, device=device)
        order = torch.arange(self.config.n_tokens, device=device).expand(n, -1)
        with self.engine.autocast():
            task(windows, order).loss.sum().backward()
        task.zero_grad(set_to_none=True)
        del room

    # --- the training ------------------------------------------------------------------------

    def train(self) -> int:
        """Train the remaining epochs; 0, or 128 + the signal that stopped it."""
        if self.progress.step >= self.n_steps:
            self._save_what_lacks()
            self._finish()
            return 0
        self._report(self._introduction())
        self._score_start()
        self.bar = Amount("training", self.n_steps, self.progress.step, quiet=not self.is_main)
        # Events are written at the end of an epoch, so those of an unfinished one are repeated.
        first_event = self.progress.step - len(self.progress.losses) + 1
        folder = self.folder / "tensorboard"
        with Board(folder, first_event) if self.is_main else nullcontext() as self.board, self.bar:
            try:
                self.loop.run(self, self.progress)
            finally:
                self.call["ToStep"] = self.progress.step
        if self.interrupted:
            return self._leave()
        self._finish()
        return 0

    def _score_start(self) -> None:
        if self.progress.step or (self.folder / START_FILE).is_file():
            return
        windows = self.windows[setup.VALIDATION]
        rows = start_scores.score_start(
            self.evaluator, windows, self._baselines(), self.start, self.options.seed
        )
        if self.is_main:
            start_scores.write_start(self.folder, rows)

    def _baselines(self) -> Any:
        """Sums of the baselines on validation windows, computed once."""
        if self.baselines is None:
            n = self.options.baseline_windows
            self.baselines = self.evaluator.baselines(self.windows[setup.VALIDATION], VALIDATION, n)
        return self.baselines

    @property
    def n_steps(self) -> int:
        return self.schedule.n_steps

    @property
    def steps_per_epoch(self) -> int:
        return self.schedule.steps_per_epoch

    def steps(self, first: int) -> Iterator[list[Batch]]:
        rank, world = self.engine.process_index, self.engine.num_processes
        plan = self.schedule.plan(first, rank, world, self.micro)
        workers = self.options.workers
        if workers is None:
            workers = 2 if self.on_cuda else 0
        return load(self.windows[setup.TRAIN], plan, workers=workers, pin=self.on_cuda)

    def loss(self, module: nn.Module, tensors: Tensors) -> Tensor:
        windows, order, weights, _ = tensors
        loss: Tensor = (module(windows, order).loss * weights).sum()
        return loss

    def learning_rate(self, step: int) -> float:
        peak, warm_up = self.resolved.learning_rate, self.options.warm_up
        return learning_rate(step, self.n_steps, peak, warm_up)

    def after_step(self, progress: Progress, interrupted: bool) -> bool:
        self.bar.advance()
        loss = progress.losses[-1] if progress.losses else self.history[-1]["train_loss"]
        self.bar.note(f"loss {loss:.4f}")
        self.interrupted = interrupted
        if interrupted:
            return False
        if time.monotonic() - self.saved_at > 60 * self.options.save_minutes:
            self._save()
        return True

    def diverged(self, progress: Progress, loss: float, norm: float) -> str:
        last = self.folder / "last"
        saved = f"{last} has the last good weights" if last.exists() else "nothing was saved yet"
        return (
            f"step {progress.step + 1} of {self.n_steps}: the loss is {loss:g}, the norm of "
            f"the gradient {norm:g}; stopped, {saved}. Start again in another folder with a lower "
            "--learning-rate, a longer --warm-up or --precision float32"
        )

    def after_epoch(self, progress: Progress) -> bool:
        began = time.monotonic()
        epoch = progress.step // self.steps_per_epoch
        windows = self.windows[setup.VALIDATION]
        sums = self.evaluator.sums(windows, VALIDATION)
        mse, r2 = mse_and_r2(*sums[:, 1:].T)
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": progress.step,
            "learning_rate": float(self.loop.optimiser.param_groups[0]["lr"]),
            "train_loss": float(np.mean(progress.losses)),
            "gradient_norm": float(np.mean(progress.norms)),
            "validation_loss": float(sums[:, 0].mean()),
            "validation_mse": mse,
            "validation_r2": r2,
            **compared(sums, self._baselines()),
            "windows_per_second": self.schedule.n_windows / max(progress.seconds, 1e-9),
            "seconds_waiting": progress.waiting,
            "seconds_validating": time.monotonic() - began,
        }
        self.history.append(row)
        is_best = mse < self.best
        if is_best:
            self.best, self.best_epoch = mse, epoch
        if self.board is not None:
            self._write_events(self.board, row)
        progress.begin_epoch()
        self._save(best=is_best)
        self._report(
            f"epoch {epoch}/{self.schedule.epochs}: loss {row['train_loss']:.4f}, validation "
            f"{row['validation_loss']:.4f}, {_scored(r2, row)}"
        )
        return True

    def _write_events(self, board: Board, row: dict[str, Any]) -> None:
        before = self.progress.step - len(self.progress.losses)
        for i, loss in enumerate(self.progress.losses, start=1):
            board.write("step", {"loss": loss}, before + i)
        board.write("epoch", row, self.progress.step)

    # --- what is written ---------------------------------------------------------------------

    def _save(self, *, best: bool = False) -> None:
        """Save the best checkpoint before the state that refers to it."""
        self.saved_at = time.monotonic()
        if not self.is_main:
            return
        network, about = self.start.network, self._about()
        if best:
            saving.save_checkpoint(self.folder / "best", network, about)
        state = {
            **asdict(self.progress),
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "baselines": self.baselines,
            "network": network.module.state_dict(),
            "optimiser": self.loop.optimiser.state_dict(),
        }
        saving.save_state(self.folder / "state" / saving.STATE, state)
        saving.save_checkpoint(self.folder / "last", network, about)
        if self.history:
            self._write_curves(final=self.progress.step >= self.n_steps)

    def _save_what_lacks(self) -> None:
        """Write what a call that was killed has not: it saves the state, and then what is read."""
        if not self.is_main or (self.folder / TESTED).is_file():
            return
        saving.save_checkpoint(self.folder / "last", self.start.network, self._about())
        self._write_curves(final=True)

    def _about(self) -> dict[str, Any]:
        return {
            "Step": self.progress.step,
            "Epoch": self.progress.step / self.steps_per_epoch,
            "Scores": self.history[-1] if self.history else None,
            **self.record,
        }

    def _write_curves(self, *, final: bool) -> None:
        try:
            write_curves(self.folder / "curves.tsv", self.history)
            if final or time.monotonic() - self.drawn_at > DRAWING_SECONDS:
                draw_curves(self.folder, self.history)
                write_page(self.folder)
                self.drawn_at = time.monotonic()
        except OSError as error:
            raise UserError(f"{self.folder}: the curves cannot be written ({error})") from error

    def _leave(self) -> int:
        self._save()
        if self.history and self.is_main:
            self._write_curves(final=True)
        number = self.interruption.signal or signal.SIGTERM
        name = signal.Signals(number).name
        self.call |= {"Outcome": STOPPED, "Reason": name}
        self._report(
            f"stopped by {name} after step {self.progress.step} of {self.n_steps}; saved: the same "
            "command continues from here"
        )
        self.engine.end_training()
        return 128 + int(number)

    def _finish(self) -> None:
        """Score the best checkpoint on the test subjects, and report it."""
        best, file = self.folder / "best", self.folder / TESTED
        if len(self.windows[setup.TEST]) and not file.is_file():
            from brainlm_bids.files import write_tsv
            from brainlm_bids.model.checkpoint import load_model

            self.engine.wait_for_everyone()
            module = self.start.network.module
            module.load_state_dict(load_model(best, seed=0).module.state_dict())
            sums = self.evaluator.sums(self.windows[setup.TEST], TEST)
            row: dict[str, float] = {"epoch": self.best_epoch, "windows": len(sums)}
            row |= dict(zip(("mse", "r2"), mse_and_r2(*sums[:, 1:].T), strict=True))
            n = self.options.baseline_windows
            row |= compared(sums, self.evaluator.baselines(self.windows[setup.TEST], TEST, n))
            if self.is_main:
                write_tsv(file, list(row), [[value] for value in row.values()])
            self._report(f"test subjects: {_scored(row['r2'], row)}")
        self._report(f"done: {best} is the best checkpoint, of epoch {self.best_epoch}")
        self.engine.end_training()

    def _introduction(self) -> str:
        n = {part: len(recordings) for part, recordings in self.split.parts.items()}
        trained = [p for p in self.start.network.module.parameters() if p.requires_grad]
        lines = [
            f"{self.start.source}: {sum(p.numel() for p in trained):,} weights; "
            f"{self.config.mask_ratio:g} of the tokens masked; seed {self.options.seed}",
            f"recordings: {n['train']} train, {n['validation']} validation, {n['test']} test, "
            f"{sum(row[4] == 'no' for row in self.split.table)} left out (recordings.tsv)",
            f"steps: {self.n_steps} of {self.schedule.mean_batch:.4g} windows, peak "
            f"learning rate {self.resolved.learning_rate:.4g}, {self.resolved.precision}; "
            f"{self.engine.num_processes} process(es) on {self.engine.device.type}, {self.micro} "
            "windows at a time",
        ]
        if setup.is_released(self.start):
            lines.append(
                f"the weights are under {self.start.licence}: adapted weights must not be shared"
            )
        if self.progress.step:
            lines.append(f"continuing after step {self.progress.step}")
        return "\n".join(lines)

    def _report(self, text: str) -> None:
        """Write to the screen and to the log, in one process."""
        if not self.is_main:
            return
        tell(text)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with (self.folder / "log.txt").open("a", encoding="utf-8") as stream:
            stream.writelines(f"{stamp} {line}\n" for line in text.splitlines())


def _scored(r2: float, row: Mapping[str, Any]) -> str:
    """R² of all windows; and of network and best baseline on the windows of the baselines."""
    scores = {name: row[f"{name}_r2"] for name in COLUMNS.values()}
    if all(math.isnan(score) for score in scores.values()):
        return f"R² {r2:.4f}"
    best = max(scores, key=lambda name: scores[name])
    return f"R² {r2:.4f} ({row['compared_r2']:.4f} where {best} has {scores[best]:.4f})"
