"""CPU time and memory of a function in a process of its own."""

import contextlib
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def measured(function: Callable[..., Any], *arguments: Any) -> tuple[float, float, Any]:
    """CPU seconds, peak memory (GB), and the result of `function(*arguments)` in a new process.

    `function` may be a generator: what comes before its first yield (reading) is not measured.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        raise RuntimeError(f"{function.__name__} ended without a result") from error
    finally:
        process.join()


def _report(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    steps = function(*arguments)
    next(steps)
    before = _resident_gb()
    with contextlib.suppress(OSError):
        # Linux: forget the peak of reading
        Path("/proc/self/clear_refs").write_text("5")
    started = time.process_time()
    result = next(steps)
    seconds = time.process_time() - started
    sender.send((seconds, _peak_gb() - before, result))


def _status_gb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def _resident_gb() -> float:
    return _status_gb("VmRSS:")


def _peak_gb() -> float:
    return _status_gb("VmHWM:")
