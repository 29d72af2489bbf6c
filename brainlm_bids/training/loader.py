"""Windows of a store: load the tensors of a plan of micro-batches.

A window and its mask depend on the seed, the epoch and the window's index alone: neither the number
of processes nor a resumption changes them. Windows (b, P, W) float32; token orders (b, L) int64.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from brainlm_bids.model.config import ModelConfig
from brainlm_bids.training.objective import TRAINING, batches, draw
from brainlm_bids.training.store import Store

Indices = NDArray[np.int64]


class MicroBatch(NamedTuple):
    """What one process reads for one forward pass.

    windows: indices in the epoch; weights: what each counts in the step's mean, 0 for windows that
    only fill up the shares of processes.
    """

    stream: int
    epoch: int
    windows: Indices
    weights: NDArray[np.float32]


class Batch(NamedTuple):
    """signal (b, P, W), order (b, L), weights (b,), windows (b,): see `MicroBatch`."""

    signal: Tensor
    order: Tensor
    weights: Tensor
    windows: Tensor


class WindowSet(Dataset[Batch]):
    """Seeded random windows of some recordings of a store, `copies` per recording and epoch."""

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
        """(recording in the store, first volume, order of tokens) of a window."""
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
    """One process's part of a step, in micro-batches of ≤ `micro`: [(windows, weights), …].

    Every process gets as many, of equal sizes: windows of weight 0 fill up the last ones. Over all
    processes the weights sum to 1.
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
    """The steps of a training: `epochs` over `n_windows` each, ≤ `batch` windows a step."""

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
        """The micro-batches of each step from step `first` on, to the end of the training."""
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
    """Read the micro-batches of each step; `workers` processes read ahead, over epochs too."""
    ahead: list[int] = []

    def flat() -> Iterator[MicroBatch]:
        for step in plan:
            ahead.append(len(step))
            yield from step

    loader = iter(
        DataLoader(
            windows,
            sampler=flat(),
            batch_size=None,
            num_workers=workers,
            pin_memory=pin,
            prefetch_factor=4 if workers else None,
        )
    )
    while True:
        first = next(loader, None)
        if first is None:
            return
        yield [first, *(next(loader) for _ in range(ahead.pop(0) - 1))]
