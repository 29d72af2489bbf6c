"""`brainlm pretrain`: series and an architecture come in; checkpoints, curves and a record go out.

torch with accelerate: one process, several GPUs or several machines run the same lines. A step's
windows and masks come from the seed, so the losses do not depend on the number of processes, and a
run that was killed goes on as if it had not been.
"""

import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from brainlm_bids.errors import UserError
from brainlm_bids.resources import parcels
from brainlm_bids.training import saving, setup
from brainlm_bids.training.curves import Board, draw_curves, write_curves
from brainlm_bids.training.evaluation import Judge, compared
from brainlm_bids.training.loader import Batch, Schedule, WindowSet, load
from brainlm_bids.training.objective import (
    TEST,
    VALIDATION,
    MaskedPrediction,
    decay_groups,
    learning_rate,
    mse_and_r2,
)
from brainlm_bids.training.setup import Data, Parameters, Settled, Start
from brainlm_bids.training.store import Store, find_or_build

CUDA_MICRO_BATCH = 64  # tried first
CPU_MICRO_BATCH = 2
PICTURE_SECONDS = 30.0  # between two drawings of the curves


def pretrain(given: Parameters) -> int:
    """Train, or go on with what RUN_DIR holds; 0, or 128 + the signal that stopped it.

    Raises
    ------
    UserError
        For unusable data or arguments, a full disk, and a loss that is not finite any more. What
        was saved before stays.
    """
    with _Stop() as stop:
        given.run_dir.mkdir(parents=True, exist_ok=True)
        store = find_or_build(
            given.data,
            given.run_dir,
            series=given.series,
            space=given.space,
            atlas=given.atlas,
            check=os.environ.get("LOCAL_RANK", "0") == "0",
        )
        start = setup.find_start(given)
        data = setup.divide(store, start.network.config, given)
        n_windows = len(data.parts[setup.TRAIN]) * given.windows_per_recording
        schedule = Schedule(n_windows, given.batch, given.epochs, given.seed)
        settled = setup.settle(given, start.network.config, schedule)
        run = _Run(given, settled, start, data, store, schedule)
        try:
            return run.train(stop)
        finally:
            run.close()


class _Stop:
    """SIGTERM and Ctrl-C ask for an end after the step; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Stop":
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may listen to signals
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


class _Run:
    """One training: what it is, where it stands, and what it has written."""

    def __init__(
        self,
        given: Parameters,
        settled: Settled,
        start: Start,
        data: Data,
        store: Store,
        schedule: Schedule,
    ) -> None:
        self.given, self.settled, self.start, self.schedule = given, settled, start, schedule
        self.store, self.data, self.config = store, data, start.network.config
        self.folder = given.run_dir
        self.accelerator = _accelerator(settled)
        self.made = setup.record(given, settled, start, data, store)
        self.state = saving.load_state(self.folder / "state" / saving.STATE) or _fresh_state()
        self.lock: Any = None
        if self.is_main:
            self.lock = _lock(self.folder)
            setup.write_setup(self.folder, self.made, data, store)
        self.windows = {
            part: WindowSet(
                store,
                data.parts[part],
                self.config,
                seed=given.seed,
                copies=given.windows_per_recording,
            )
            for part in data.parts
        }
        self._prepare()
        self.step, self.signalled = int(self.state["step"]), 0.0
        self.saved_at = self.drawn_at = time.monotonic()

    def close(self) -> None:
        """Let another process train here."""
        if self.lock is not None:
            self.lock.release()

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def _prepare(self) -> None:
        """The network and the optimiser, as the state left them, onto the device."""
        network, device = self.start.network, self.accelerator.device
        if "network" in self.state:
            network.module.load_state_dict(self.state.pop("network"))
        task = MaskedPrediction(network, parcels().xyz, self.config.mask_ratio).to(device)
        groups = decay_groups(task, self.settled.weight_decay)
        on_cuda = device.type == "cuda"
        optimiser = torch.optim.AdamW(groups, lr=0.0, fused=on_cuda)
        if "optimiser" in self.state:
            optimiser.load_state_dict(self.state.pop("optimiser"))
        self.micro = self._micro_batch(task)
        with warnings.catch_warnings():
            # torch renames broadcast_buffers; accelerate knows the old name alone
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*")
            self.task, self.optimiser = self.accelerator.prepare(task.train(), optimiser)
        self.judge = Judge(self.accelerator, self.task, self.micro)
        self.workers = (2 if on_cuda else 0) if self.given.workers is None else self.given.workers

    def _micro_batch(self, task: MaskedPrediction) -> int:
        share = -(-self.given.batch // self.accelerator.num_processes)
        if self.given.micro_batch is not None:
            return min(self.given.micro_batch, share)
        if self.accelerator.device.type != "cuda":
            return min(CPU_MICRO_BATCH, share)
        fits = largest_batch(lambda n: self._try(task, n), min(CUDA_MICRO_BATCH, share))
        everywhere = self.accelerator.gather(torch.tensor([fits], device=self.accelerator.device))
        return int(everywhere.min())

    def _try(self, task: MaskedPrediction, n: int) -> None:
        """A forward and a backward pass of n windows, with room for gradients and Adam."""
        device = self.accelerator.device
        weights = sum(p.numel() for p in task.parameters())
        room = torch.empty(3 * weights, dtype=torch.float32, device=device)
        signal_ = torch.zeros(n, self.config.n_parcels, self.config.window, device=device)
        order = torch.arange(self.config.n_tokens, device=device).expand(n, -1)
        with self.accelerator.autocast():
            task(signal_, order).loss.sum().backward()
        task.zero_grad(set_to_none=True)
        del room

    # --- the training ------------------------------------------------------------------------

    def train(self, stop: _Stop) -> int:
        """All epochs that are left; 0, or 128 + the signal that stopped it."""
        from tqdm import tqdm

        if self.step >= self.schedule.n_steps:
            self._finish()
            return 0
        self._say(self._introduction())
        board = self._board() if self.is_main else nullcontext()
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        plan = self.schedule.plan(self.step, rank, world, self.micro)
        steps = load(
            self.windows[setup.TRAIN], plan, workers=self.workers, pin=self._device == "cuda"
        )
        progress = tqdm(
            total=self.schedule.n_steps,
            initial=self.step,
            desc="pretrain",
            unit="step",
            disable=None if self.is_main else True,
        )
        with board as board_, progress:
            for batches in _timed(steps, self.state):
                self._one_step(batches, stop)
                progress.update()
                progress.set_postfix(loss=f"{self.state['losses'][-1]:.4f}", refresh=False)
                if self.step % self.schedule.steps_per_epoch == 0:
                    self._end_epoch(board_)
                if self.stopping:
                    return self._leave(stop)
                if time.monotonic() - self.saved_at > 60 * self.given.save_minutes:
                    self._save()
        self._finish()
        return 0

    @property
    def _device(self) -> str:
        return str(self.accelerator.device.type)

    def _one_step(self, batches: Sequence[Batch], stop: _Stop) -> None:
        """Accumulate over the micro-batches, agree on the loss, take the step."""
        rate = learning_rate(
            self.step, self.schedule.n_steps, self.settled.learning_rate, self.given.warm_up
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        began = time.monotonic()
        said = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        world = self.accelerator.num_processes
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.task):
                signal_, order, weights, _ = (
                    part.to(said.device, non_blocking=True) for part in batch
                )
                loss = (self.task(signal_, order).loss * weights).sum()
                # Gradients are averaged over processes, and the weights sum to 1 over them.
                self.accelerator.backward(loss * world)
                said[0] += loss.detach()
        said[1] = stop.signal
        loss_, self.signalled = self.accelerator.reduce(said, "sum").tolist()
        norm = float(
            self.accelerator.clip_grad_norm_(
                self.task.parameters(), self.given.clip_norm or math.inf
            )
        )
        if not (math.isfinite(loss_) and math.isfinite(norm)):
            raise UserError(self._diverged(loss_, norm))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.state["losses"].append(loss_)
        self.state["norms"].append(norm)
        self.state["seconds"] += time.monotonic() - began

    @property
    def stopping(self) -> bool:
        return self.signalled > 0

    def _diverged(self, loss: float, norm: float) -> str:
        kept = self.folder / "last"
        said = f"{kept} holds the last good weights" if kept.exists() else "nothing was saved yet"
        return (
            f"step {self.step + 1} of {self.schedule.n_steps}: the loss is {loss:g}, the norm of "
            f"the gradient {norm:g}; stopped, {said}. Begin anew in another folder with a lower "
            "--learning-rate, a longer --warm-up or --precision float32"
        )

    def _end_epoch(self, board: Board | None) -> None:
        began = time.monotonic()
        state, epoch = self.state, self.step // self.schedule.steps_per_epoch
        windows = self.windows[setup.VALIDATION]
        sums = self.judge.sums(windows, VALIDATION)
        if state["baselines"] is None:
            n = self.given.baseline_windows
            state["baselines"] = self.judge.baselines(windows, VALIDATION, n)
        mse, r2 = mse_and_r2(*sums[:, 1:].T)
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": self.step,
            "learning_rate": float(self.optimiser.param_groups[0]["lr"]),
            "train_loss": float(np.mean(state["losses"])),
            "gradient_norm": float(np.mean(state["norms"])),
            "validation_loss": float(sums[:, 0].mean()),
            "validation_mse": mse,
            "validation_r2": r2,
            **compared(sums, state["baselines"]),
            "windows_per_second": self.schedule.n_windows / max(state["seconds"], 1e-9),
            "seconds_waiting": state["waiting"],
            "seconds_validating": time.monotonic() - began,
        }
        state["history"].append(row)
        is_best = mse < state["best"]
        if is_best:
            state["best"], state["best_epoch"] = mse, epoch
        if board is not None:
            self._write_events(board, row)
        state.update(losses=[], norms=[], seconds=0.0, waiting=0.0)
        self._save(best=is_best)
        self._say(
            f"epoch {epoch}/{self.schedule.epochs}: loss {row['train_loss']:.4f}, validation "
            f"{row['validation_loss']:.4f}, {_scored(r2, row)}"
        )

    def _board(self) -> Board:
        """Events of an epoch are written at its end: those of an unfinished one come again."""
        return Board(self.folder / "tensorboard", self.step - len(self.state["losses"]) + 1)

    def _write_events(self, board: Board, row: dict[str, Any]) -> None:
        before = self.step - len(self.state["losses"])
        for i, loss in enumerate(self.state["losses"], start=1):
            board.write("step", {"loss": loss}, before + i)
        board.write("epoch", row, self.step)

    # --- what is written ---------------------------------------------------------------------

    def _save(self, *, best: bool = False) -> None:
        """The best checkpoint first: a state that names it must not come before it."""
        self.saved_at = time.monotonic()
        if not self.is_main:
            return
        network = self.accelerator.unwrap_model(self.task).network
        about = self._about()
        if best:
            saving.save_checkpoint(self.folder / "best", network, about)
        optimiser = self.optimiser.state_dict()
        state = {
            **self.state,
            "step": self.step,
            "network": network.module.state_dict(),
            "optimiser": optimiser,
        }
        saving.save_state(self.folder / "state" / saving.STATE, state)
        saving.save_checkpoint(self.folder / "last", network, about)
        if self.state["history"]:
            self._write_curves(final=self.step >= self.schedule.n_steps)

    def _about(self) -> dict[str, Any]:
        history = self.state["history"]
        return {
            "Step": self.step,
            "Epoch": self.step / self.schedule.steps_per_epoch,
            "Scores": history[-1] if history else None,
            **self.made,
        }

    def _write_curves(self, *, final: bool) -> None:
        history = self.state["history"]
        try:
            write_curves(self.folder / "curves.tsv", history)
            if final or time.monotonic() - self.drawn_at > PICTURE_SECONDS:
                draw_curves(self.folder / "curves.png", history, self.folder.name)
                self.drawn_at = time.monotonic()
        except OSError as error:
            raise UserError(f"{self.folder}: the curves cannot be written ({error})") from error

    def _leave(self, stop: _Stop) -> int:
        self._save()
        if self.state["history"] and self.is_main:
            self._write_curves(final=True)
        number = stop.signal or signal.SIGTERM
        name = signal.Signals(number).name
        self._say(
            f"stopped by {name} after step {self.step} of {self.schedule.n_steps}; saved: the same "
            "command goes on from here"
        )
        self.accelerator.end_training()
        return 128 + int(number)

    def _finish(self) -> None:
        """Score the best checkpoint on subjects that it has never met, and say so."""
        best, file = self.folder / "best", self.folder / "test.tsv"
        if len(self.windows[setup.TEST]) and not file.is_file():
            from brainlm_bids.files import write_tsv
            from brainlm_bids.model.checkpoint import load_model

            self.accelerator.wait_for_everyone()
            network = self.accelerator.unwrap_model(self.task).network
            network.module.load_state_dict(load_model(best, seed=0).module.state_dict())
            sums = self.judge.sums(self.windows[setup.TEST], TEST)
            row = {"epoch": self.state["best_epoch"], "windows": len(sums)}
            row |= dict(zip(("mse", "r2"), mse_and_r2(*sums[:, 1:].T), strict=True))
            n = self.given.baseline_windows
            row |= compared(sums, self.judge.baselines(self.windows[setup.TEST], TEST, n))
            if self.is_main:
                write_tsv(file, list(row), [[value] for value in row.values()])
            self._say(f"test subjects: {_scored(row['r2'], row)}")
        self._say(f"done: {best} is the checkpoint of epoch {self.state['best_epoch']}, the best")
        self.accelerator.end_training()

    def _introduction(self) -> str:
        n = {part: len(found) for part, found in self.data.parts.items()}
        weights = sum(p.numel() for p in self.start.network.module.parameters() if p.requires_grad)
        lines = [
            f"{self.start.source}: {weights:,} weights; {self.config.mask_ratio:g} of the tokens "
            f"hidden; seed {self.given.seed}",
            f"recordings: {n['train']} train, {n['validation']} validation, {n['test']} test, "
            f"{sum(row[4] == 'no' for row in self.data.table)} left out (recordings.tsv)",
            f"steps: {self.schedule.n_steps} of {self.schedule.mean_batch:.4g} windows, peak "
            f"learning rate {self.settled.learning_rate:.4g}, {self.settled.precision}; "
            f"{self.accelerator.num_processes} process(es) on {self._device}, {self.micro} windows "
            "at a time",
        ]
        if setup.released(self.start):
            lines.append(f"the weights are {self.start.licence}: adapted ones may not be shared")
        if self.step:
            lines.append(f"going on after step {self.step}")
        return "\n".join(lines)

    def _say(self, text: str) -> None:
        """To the screen and to the log, by one process."""
        if not self.is_main:
            return
        from tqdm import tqdm

        tqdm.write(text)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with (self.folder / "log.txt").open("a", encoding="utf-8") as stream:
            stream.writelines(f"{stamp} {line}\n" for line in text.splitlines())


def _scored(r2: float, row: dict[str, Any]) -> str:
    """R² of all windows; and of network and ridge regression on those of the baseline."""
    if math.isnan(row["ridge_r2"]):
        return f"R² {r2:.4f}"
    return f"R² {r2:.4f} ({row['compared_r2']:.4f} where ridge has {row['ridge_r2']:.4f})"


def largest_batch(attempt: Callable[[int], None], first: int) -> int:
    """The first of `first`, half of it, … with which `attempt` does not run out of memory."""
    n = first
    while True:
        try:
            attempt(n)
            return n
        except torch.OutOfMemoryError:
            if n == 1:
                raise UserError(
                    "one window of this network does not fit into the GPU's memory; use a smaller "
                    "--size or --device cpu"
                ) from None
        n //= 2
        torch.cuda.empty_cache()


def _timed(steps: Iterator[list[Batch]], state: dict[str, Any]) -> Iterator[list[Batch]]:
    """Count the seconds that the training waits for windows."""
    while True:
        began = time.monotonic()
        batches = next(steps, None)
        if batches is None:
            return
        state["waiting"] += time.monotonic() - began
        yield batches


def _fresh_state() -> dict[str, Any]:
    return {
        "step": 0,
        "losses": [],
        "norms": [],
        "seconds": 0.0,
        "waiting": 0.0,
        "history": [],
        "best": math.inf,
        "best_epoch": 0,
        "baselines": None,
    }


def _accelerator(settled: Settled) -> Any:
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    return Accelerator(
        cpu=settled.device == "cpu",
        mixed_precision="bf16" if settled.precision == "bfloat16" else "no",
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        ],
    )


def _lock(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{folder}: another process is training here") from None
    return lock
