"""Mounts and child processes, for the programs that run containers and for the image's entry point.

In: paths of the host, commands. Out: arguments of docker or Apptainer, exit codes. It needs only
Python's standard library.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from brainlm_bids.errors import UserError

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1)


def existing(path: Path) -> Path:
    """The absolute path of a file or folder; UserError if it does not exist."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder")
    return path.absolute()


def mounts(flag: str, places: Mapping[Path, str]) -> list[str]:
    """`flag HOST:INSIDE` for each; INSIDE may end in `:ro`."""
    for path in places:
        if ":" in str(path):
            raise UserError(f"{path}: a path with a colon cannot be mounted into a container")
    return [part for path, there in places.items() for part in (flag, f"{path}:{there}")]


def supervise(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a program as a child; returns its exit code, or minus the signal that killed it.

    Signals are passed on to it. As the first process of a container, this one also collects the
    exit codes of orphaned processes.
    """
    interactive = os.isatty(0)
    # no signal may arrive between the start of the child and its handlers
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    child = subprocess.Popen(
        command,
        env=None if environment is None else dict(environment),
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
    )
    handlers = {}
    for number in FORWARDED:
        # a terminal sends ^C to both processes
        received = number == signal.SIGINT and interactive
        handlers[number] = signal.signal(number, signal.SIG_IGN if received else _to(child.pid))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        while True:
            pid, status = os.wait()
            if pid == child.pid:
                child.returncode = os.waitstatus_to_exitcode(status)
                return child.returncode
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _to(pid: int) -> Callable[[int, object], None]:
    def forward(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, number)

    return forward
