"""Device and precision of a model.

This module imports torch only when it must: the process that plans a call computes nothing.
"""

import sys
from importlib.metadata import version

from brainlm_bids.errors import UserError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")


def has_cuda() -> bool:
    """Whether torch can use a CUDA device."""
    # the version names builds without CUDA: importing torch would take seconds
    if "torch" not in sys.modules and version("torch").endswith("+cpu"):
        return False
    import torch

    return bool(torch.cuda.is_available())


def choose_device(device: str) -> str:
    """Choose the device.

    Parameters
    ----------
    device
        "cpu", "cuda", or "auto": CUDA if there is such a device.

    Returns
    -------
    str
        "cpu" or "cuda".

    Raises
    ------
    UserError
        For any other value, and for CUDA where there is none.
    """
    if device not in DEVICES:
        raise UserError(f"device {device!r}: expected one of {', '.join(DEVICES)}")
    if device == "cpu":
        return "cpu"
    if has_cuda():
        return "cuda"
    if device == "cuda":
        raise UserError("device 'cuda': this machine has no CUDA device; use 'cpu' or 'auto'")
    return "cpu"


def resolve_precision(device: str, precision: str) -> str:
    """Choose the precision of the matrix products of a model.

    Parameters
    ----------
    device
        "cpu", "cuda" or "auto" (see `choose_device`).
    precision
        "float32", "bfloat16" (under autocast), or "auto": bfloat16 on CUDA and float32 on a CPU,
        where bfloat16 is faster only with AVX512-BF16 or AMX, and several times slower without.

    Returns
    -------
    str
        "float32" or "bfloat16".

    Raises
    ------
    UserError
        For any other value, and for CUDA where there is none.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    chosen = choose_device(device)
    if precision != "auto":
        return precision
    return "bfloat16" if chosen == "cuda" else "float32"
