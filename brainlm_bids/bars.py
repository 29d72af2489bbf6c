"""The bar of tqdm in one line of a terminal, and what fits into it."""

import os
import threading
from typing import Any, TextIO


def make_bar(stream: TextIO) -> Any:
    """A bar that is drawn when it is told to, and leaves nothing behind."""
    from tqdm import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # it is drawn often enough without a thread of its own

    Bar.set_lock(threading.RLock())
    return Bar(total=0, file=stream, leave=False, bar_format="{desc}")


def columns(stream: TextIO) -> int:
    """Width of a terminal, in characters."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def shortened(text: str, room: int) -> str:
    """The end of a text, which names the step.

    >>> shortened("sub-02, rest: head motion", 16)
    '...: head motion'
    """
    if len(text) <= room:
        return text
    return ("..." + text[len(text) - max(room - 3, 0) :])[: max(room, 0)]


def escaped(text: str) -> str:
    """Text as a format that gives it back."""
    return text.replace("{", "{{").replace("}", "}}")
