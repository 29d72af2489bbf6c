"""Windows of a store: load the tensors of a plan of micro-batches.

A window and its mask depend on the seed, the epoch and the window's index alone: neither the number
of processes nor a resumption changes them. Windows (b, P, W) float32; token orders (b, L) int64.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from brainlm_bids.errors import UserError
from brainlm_bids.model.config import ModelConfig
from brainlm_bids.training.objective import TRAINING, batches, draw
from brainlm_bids.training.store import Store

Indices = NDArray[np.int64]


class MicroBatch(NamedTuple):
    """What one process reads for one forward pass.

    Attributes
    ----------
    stream
        Stream of random numbers.
    epoch
        Number of the epoch.
    windows
        (b,) indices of windows in the epoch.
    weights
        (b,) weight of each window in the mean of the step; 0 for windows that only make the shares
        of the processes equally large.
    """

    stream: int
    epoch: int
    windows: Indices
    weights: NDArray[np.float32]


class Batch(NamedTuple):
    """Tensors of a `MicroBatch`.

    Attributes
    ----------
    signal
        (b, P, W) windows.
    order
        (b, L) orders of the tokens.
    weights, windows
        (b,) as in the `MicroBatch`.
    """

    signal: Tensor
    order: Tensor
    weights: Tensor
    windows: Tensor


class WindowSet(Dataset[Batch]):
    """Seeded random windows of some recordings of a store.

    Parameters
    ----------
    store
        The store.
    recordings
        Indices into the store.
    config
        Configuration of the network: length of a window and number of tokens.
    seed
        Seed of windows and masks.
    copies
        Windows per recording and epoch.
    """

    def __init__(
        self,
        store: Store,
        recordings: Sequence[int],
        config: ModelConfig,
        *,
        seed: int,
        copies: int = 1,
    ) -> None:
        self.store, self.recordings, self.config = store, list(recordings), config
        self.seed, self.copies = seed, copies

    def __len__(self) -> int:
        return len(self.recordings) * self.copies

    def locate(self, stream: int, epoch: int, window: int) -> tuple[int, int, Indices]:
        """Find where a window is cut.

        Parameters
        ----------
        stream, epoch, window
            As in a `MicroBatch`, for a single window.

        Returns
        -------
        recording
            Index into the store.
        first
            First volume.
        order
            (L,) order of the tokens.
        """
        recording = self.recordings[window // self.copies]
        n_volumes = self.store.recordings[recording].n_volumes
        return recording, *draw(self.config, n_volumes, (self.seed, stream, epoch, window))

    def __getitem__(self, batch: MicroBatch) -> Batch:
        length = self.config.window
        signal = np.empty((len(batch.windows), self.store.n_parcels, length), dtype=np.float32)
        orders = []
        for row, window in enumerate(batch.windows):
            recording, first, order = self.locate(batch.stream, batch.epoch, int(window))
            signal[row] = self.store.series(recording)[first : first + length].T
            orders.append(order)
        return Batch(
            torch.from_numpy(signal),
            torch.from_numpy(np.stack(orders)),
            torch.from_numpy(batch.weights),
            torch.from_numpy(batch.windows),
        )


def shares(windows: Indices, rank: int, world: int, micro: int) -> list[tuple[Indices, NDArray]]:
    """Divide a step among processes and into micro-batches.

    Parameters
    ----------
    windows
        (n,) windows of the step.
    rank, world
        Index of this process, and number of processes.
    micro
        Largest number of windows of a micro-batch.

    Returns
    -------
    list of tuple
        (windows, weights) of each micro-batch of this process. All processes have as many, of the
        same sizes; windows of weight 0 fill up the last ones. Over all processes the weights sum to
        1.

    Examples
    --------
    >>> [(part.tolist(), weights.tolist()) for part, weights in shares(np.arange(4), 0, 2, micro=1)]
    [([0], [0.25]), ([2], [0.25])]
    """
    n = len(windows)
    per_rank = -(-n // world)
    filled = np.concatenate([windows, np.repeat(windows[:1], per_rank * world - n)])
    weights = np.repeat(np.array([1 / n, 0], np.float32), [n, per_rank * world - n])
    parts = -(-per_rank // micro)
    return list(
        zip(
            np.array_split(filled[rank::world], parts),
            np.array_split(weights[rank::world], parts),
            strict=True,
        )
    )


class Schedule(NamedTuple):
    """The steps of a training.

    Attributes
    ----------
    n_windows
        Number of windows of an epoch.
    batch
        Largest number of windows of a step.
    epochs
        Number of epochs.
    seed
        Seed of the order of the windows.
    """

    n_windows: int
    batch: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimiser in an epoch; the last batch may be smaller."""
        return -(-self.n_windows // self.batch)

    @property
    def n_steps(self) -> int:
        """Steps of the optimiser in all epochs."""
        return self.steps_per_epoch * self.epochs

    @property
    def mean_batch(self) -> float:
        """Windows per step, on average."""
        return self.n_windows / self.steps_per_epoch

    def plan(self, first: int, rank: int, world: int, micro: int) -> Iterator[list[MicroBatch]]:
        """Plan the micro-batches of the remaining steps.

        Parameters
        ----------
        first
            Number of steps taken already.
        rank, world
            Index of this process, and number of processes.
        micro
            Largest number of windows of a micro-batch.

        Yields
        ------
        list of MicroBatch
            Those of a step.
        """
        for epoch in range(first // self.steps_per_epoch, self.epochs):
            steps = batches(self.n_windows, self.batch, self.seed, epoch)
            skipped = first - epoch * self.steps_per_epoch
            for windows in steps[max(skipped, 0) :]:
                yield [
                    MicroBatch(TRAINING, epoch, *share)
                    for share in shares(windows, rank, world, micro)
                ]


def load(
    windows: WindowSet, plan: Iterator[list[MicroBatch]], *, workers: int, pin: bool
) -> Iterator[list[Batch]]:
    """Read the micro-batches of each step.

    Parameters
    ----------
    windows
        The windows.
    plan
        Micro-batches of each step, see `Schedule.plan`.
    workers
        Number of processes that read ahead, also beyond the end of an epoch.
    pin
        Whether to pin the memory of the tensors, for a GPU.

    Yields
    ------
    list of Batch
        Those of a step.
    """
    ahead: list[int] = []

    def flat() -> Iterator[MicroBatch]:
        for step in plan:
            ahead.append(len(step))
            yield from step

    with _signals_held():
        loader = iter(
            DataLoader(
                windows,
                sampler=flat(),
                batch_size=None,
                num_workers=workers,
                pin_memory=pin,
                prefetch_factor=4 if workers else None,
                worker_init_fn=_end_with_the_training,
            )
        )
    while True:
        with _readers_told():
            first = next(loader, None)
            if first is None:
                return
            step = [first, *(next(loader) for _ in range(ahead.pop(0) - 1))]
        yield step


# --- the processes that read ------------------------------------------------------------------


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Begin processes that a batch system or Ctrl-C does not end: the training ends them.

    They inherit that the signals are held. torch handles SIGCHLD from now on, by an error wherever
    the training just is; without that handler, it finds where it reads that a process has died.
    """
    held = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_the_training(_number: int) -> None:
    """In a process that reads: obey SIGTERM of the process that it reads for, and of no other."""
    threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(training: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != training:
        continue
    os._exit(0)


@contextlib.contextmanager
def _readers_told() -> Iterator[None]:
    """Tell in one line that a process that reads was killed."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        # torch's words; or the pipe, where the process died while it handed over a window
        told = str(error)
        if told.startswith("Caught") or (
            isinstance(error, RuntimeError) and not told.startswith("DataLoader worker")
        ):
            raise
        raise UserError(
            "a process that reads windows was killed, probably for want of memory; give more "
            "memory or fewer --workers; the same command continues from what was saved"
        ) from None
