"""Training in several processes with the results of one: devices, shares of rows, sums over all.

accelerate is the engine: the same code runs in one process, on several GPUs or on several machines.
"""

import signal
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from brainlm_bids.errors import UserError
from brainlm_bids.locks import acquire
from brainlm_bids.model.devices import choose_device, resolve_precision

# Processes wait for the writing one, which also fits the predictors that are compared.
WAITING_TIME = timedelta(hours=6)


def start_engine(device: str, precision: str) -> Any:
    """Start accelerate on the device of this process.

    Parameters
    ----------
    device, precision
        See `model.devices` for the names.

    Returns
    -------
    Accelerator
        The engine.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    chosen = choose_device(device)
    return Accelerator(
        cpu=chosen == "cpu",
        mixed_precision={"float32": "no", "bfloat16": "bf16"}[resolve_precision(chosen, precision)],
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=WAITING_TIME),
        ],
    )


def share(rows: Sequence[Any] | NDArray[Any], engine: Any) -> Any:
    """Select the rows that this process works on.

    Parameters
    ----------
    rows
        (n, …) all rows.
    engine
        See `start_engine`.

    Returns
    -------
    list or ndarray
        Every k-th row, for k processes.
    """
    return rows[engine.process_index :: engine.num_processes]


def in_shares(
    function: Callable[[list[Any]], Sequence[Any]], rows: Sequence[Any], engine: Any
) -> list[Any]:
    """Apply a function to all rows; every process computes its share.

    Parameters
    ----------
    function
        Rows -> as many results.
    rows
        All rows.
    engine
        See `start_engine`.

    Returns
    -------
    list
        The result of every row, in every process.
    """
    from accelerate.utils import gather_object

    world = engine.num_processes
    assigned = share(list(rows), engine)
    entries = list(function(assigned)) if assigned else []
    if world == 1:
        return entries
    parts = gather_object([entries])
    return [parts[k % world][k // world] for k in range(len(rows))]


def mean_over_processes(values: Tensor, engine: Any) -> float:
    """Mean over the values of all processes, to the same bit in each.

    Parameters
    ----------
    values
        (n,) values of this process.
    engine
        See `start_engine`.

    Returns
    -------
    float
        The mean.
    """
    sums = torch.tensor([float(values.double().sum()), len(values)], dtype=torch.float64)
    total, number = engine.reduce(sums.to(engine.device), "sum").tolist()
    return total / number


def lock_folder(folder: Path) -> Any:
    """Lock a folder that one training at a time may write to.

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    FileLock
        The lock; release it at the end.

    Raises
    ------
    UserError
        If another process holds it.
    """
    from filelock import Timeout

    try:
        return acquire(folder / ".lock", 0)
    except Timeout:
        raise UserError(f"{folder}: another process is training here") from None


def largest_batch(attempt: Callable[[int], None], first: int) -> int:
    """Halve a batch size until the batch fits into memory.

    Parameters
    ----------
    attempt
        Called with a size; runs out of memory if it is too large.
    first
        The size to begin with.

    Returns
    -------
    int
        The first size that fits.

    Raises
    ------
    UserError
        If not even one window fits.

    Examples
    --------
    >>> largest_batch(lambda n: None, 8)
    8
    """
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


class Interruption:
    """SIGTERM and Ctrl-C end the training after the current step; a second Ctrl-C ends it at once.

    A context manager. `signal` is the number of the signal received, or 0.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may handle signals
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
