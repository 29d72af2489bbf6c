"""What ends a command before its time: SIGTERM, Ctrl-C, and a second Ctrl-C."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from brainlm_bids.errors import Stopped

# Until a signal is sent again whose exception was lost.
REPEATED_S = 0.05


@contextmanager
def stoppable(name: str) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end a command in order, and Ctrl-C after either at once.

    The first process of a container ignores SIGTERM by default, and an end in order may take
    seconds: workers clean up, and the status table is written. Whoever presses Ctrl-C again does
    not want to wait. The other processes end when this one has; what is left half-written is
    removed by the next call.

    Parameters
    ----------
    name
        Of the command, for the message.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # a background job of a shell ignores Ctrl-C, and a program that calls this one may handle it
    takes_interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def leave(number: int, frame: object) -> NoReturn:
        os.write(2, f"\n{name}: stopped at once\n".encode())
        os._exit(128 + number)

    def end(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if takes_interrupts:
            signal.signal(signal.SIGINT, leave)
        raise Stopped if number == signal.SIGTERM else KeyboardInterrupt

    def repeat(swallowed: "sys.UnraisableHookArgs") -> None:
        error = swallowed.exc_value
        if not isinstance(error, KeyboardInterrupt):
            return unraisable(swallowed)
        # raised in a destructor or a callback, also those of imports: Python ignores it there
        signal.signal(signal.SIGTERM, end)
        if takes_interrupts:
            signal.signal(signal.SIGINT, end)
        number = code_of(error) - 128
        threading.Timer(REPEATED_S, os.kill, (os.getpid(), number)).start()

    unraisable, sys.unraisablehook = sys.unraisablehook, repeat
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    if takes_interrupts:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        with _imports_broken_off():
            yield
    finally:
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _imports_broken_off() -> Iterator[None]:
    """Raise what stopped a command where a module in C has made an ImportError of it."""
    try:
        yield
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None
        raise


def code_of(error: KeyboardInterrupt) -> int:
    """The exit code of a command that was stopped: 130 (Ctrl-C) or 143 (SIGTERM).

    >>> code_of(KeyboardInterrupt()), code_of(Stopped())
    (130, 143)
    """
    return 128 + (signal.SIGTERM if isinstance(error, Stopped) else signal.SIGINT)
