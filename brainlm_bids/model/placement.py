"""Device, precision and batch size of a loaded model.

On a CPU, one window at a time (larger batches are slower there). On CUDA, large batches: one that
does not fit into memory is halved and tried again, and if a single window does not fit, the model
moves to the CPU with a warning. The precision never changes: all windows of a recording, and the
control beside it, are computed in the one that their record names.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from brainlm_bids.model.devices import choose_device, resolve_precision

CUDA_BATCH = 64  # windows; halved until they fit
T = TypeVar("T")


class Placement:
    """Device, precision and batch size of one module.

    Device and batch size may change when memory runs out.
    """

    def __init__(self, module: nn.Module, device: str, precision: str, batch_size: int) -> None:
        self.module = module.to(device)
        self.device = device
        self.precision = precision
        self.batch_size = batch_size

    def to_device(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the device, through pinned memory so that CUDA need not wait for it.

        Parameters
        ----------
        tensor
            On the CPU.

        Returns
        -------
        Tensor
            On the device.
        """
        if self.device != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def batches(self, n: int, work: Callable[[slice], T]) -> Iterator[tuple[slice, T]]:
        """Call a function on 0 … n in batches that fit into memory.

        Parameters
        ----------
        n
            Number of windows.
        work
            Function of a slice.

        Yields
        ------
        part, result
            Slices in order, and their results.
        """
        start = 0
        while start < n:
            part = slice(start, min(start + self.batch_size, n))
            result = self._attempt(part, work)
            if result is None:
                continue
            yield part, result
            start = part.stop

    def _attempt(self, part: slice, work: Callable[[slice], T]) -> T | None:
        """The result, or None after an adjustment to a lack of memory."""
        try:
            with torch.inference_mode(), self._autocast():
                return work(part)
        except torch.OutOfMemoryError:
            if self.device == "cpu" and self.batch_size == 1:
                raise
        # Here, not in the handler: the error's traceback held the tensors that filled the memory.
        self._shrink(part.stop - part.start)
        return None

    def _shrink(self, tried: int) -> None:
        if tried > 1:
            self.batch_size = tried // 2
        else:
            slow = ", which is slow there" if self.precision == "bfloat16" else ""
            warnings.warn(
                "one window does not fit into the memory of the CUDA device; continuing on the CPU "
                f"in {self.precision}{slow}",
                RuntimeWarning,
                stacklevel=2,
            )
            self.module.to("cpu")
            self.device, self.batch_size = "cpu", 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "float32":
            # else cuDNN's convolutions round to the 10 bits of TF32, a thousand times more coarsely
            exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
            return nullcontext() if self.device == "cpu" else exact
        return torch.autocast(self.device, dtype=torch.bfloat16)


def place(module: nn.Module, device: str, precision: str) -> Placement:
    """Move a module to a device.

    Parameters
    ----------
    module
        The network.
    device, precision
        See `devices.choose_device` and `devices.resolve_precision`.

    Returns
    -------
    Placement
        Device, precision and batch size.

    Raises
    ------
    UserError
        For other values, and for CUDA where there is none.
    """
    target = choose_device(device)
    chosen = resolve_precision(target, precision)
    return Placement(module, target, chosen, CUDA_BATCH if target == "cuda" else 1)
