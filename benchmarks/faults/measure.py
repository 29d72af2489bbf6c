"""Run a function in a process of its own, and measure its time and its memory."""

import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.faults.fault import Trial
from brainlm_bids.errors import UserError

# What a refusal, or a harmless reading, may take.
MOST_SECONDS, MOST_MEGABYTES = 1.0, 200.0
# The process ends here: a bomb must not take the machine along.
PATIENCE_S, ROOM_BYTES = 20, 3 << 30


def forked(run: Callable[[int], object]) -> tuple[bytes, int]:
    """What a child process writes, and the status with which it ends.

    Parameters
    ----------
    run
        Called in the child with the pipe's end to write to; it ends the process.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        run(writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        content = stream.read()
    return content, os.waitpid(child, 0)[1]


def in_own_process(function: Callable[[], object], *, must_refuse: bool) -> Trial:
    """Whether a function refuses in one line, or returns, within the time and the memory.

    Parameters
    ----------
    function
        It raises UserError, or returns.
    must_refuse
        Whether to return is a fault.
    """
    started = time.monotonic()
    text, status = forked(partial(_run, function))
    seconds = time.monotonic() - started
    if not text:
        return Trial(False, f"the process was killed (signal {status & 127})", seconds)
    kind, told, seconds, megabytes = json.loads(text)
    return Trial(
        _holds(kind, told, must_refuse) and _is_small(seconds, megabytes),
        *_said(kind, told),
        seconds,
        megabytes,
    )


def _said(kind: str, told: str) -> tuple[str]:
    return (told if kind == "refused" else f"{kind}: {told}" if told else kind,)


def _holds(kind: str, told: str, must_refuse: bool) -> bool:
    refused = kind == "refused" and 0 < len(told) < 1000 and "\n" not in told
    return refused or (kind == "harmless" and not must_refuse)


def _is_small(seconds: float, megabytes: float) -> bool:
    return seconds <= MOST_SECONDS and megabytes <= MOST_MEGABYTES


def _run(function: Callable[[], object], writer: int) -> None:
    """In the child: run, tell, and end without what the parent would do at its end."""
    try:
        signal.alarm(PATIENCE_S)
        before = _status("VmRSS")
        room = _status("VmSize") * 1024 + ROOM_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        kind, told, started = "harmless", "", time.monotonic()
        try:
            function()
        except UserError as error:
            kind, told = "refused", str(error)
        except BaseException:
            kind, told = "crashed", traceback.format_exc(limit=-3)[-1500:]
        seconds = time.monotonic() - started
        megabytes = max(0.0, (_status("VmHWM") - before) / 1024)
        os.write(writer, json.dumps([kind, told, seconds, megabytes]).encode())
    finally:
        os._exit(0)


def _status(name: str) -> int:
    """A number of kB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
