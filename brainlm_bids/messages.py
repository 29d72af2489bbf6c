"""Messages on standard error: lines with the time, and words without it.

Standard output is for results. On a terminal, a line takes the place of the bar of `progress`,
which is drawn again beneath it; into a file, nothing is written but whole lines.
"""

import contextlib
import logging
import os
import re
import sys
from typing import TextIO

LINE = "%(asctime)s %(levelname)s %(message)s"
# A terminal has little room, and whoever looks at it knows the day.
DATE, TIME = "%Y-%m-%d %H:%M:%S", "%H:%M:%S"
OWN = "brainlm_bids"
# Back to the beginning of the line, and what stands there erased: the bar.
ERASE = "\r\x1b[K"
# Control characters, marks that turn the direction of writing, and bytes that are no Unicode.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# Nipype logs errors with complete tracebacks. The app logs in one line which step failed and why;
# the tracebacks are in the crash files.
QUIET = {"workflow": "CRITICAL", "interface": "WARNING", "utils": "WARNING", "filemanip": "WARNING"}


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal on which a line can be replaced."""
    if stream is None or os.environ.get("TERM", "dumb") in ("", "dumb"):
        return False
    with contextlib.suppress(ValueError):  # of a closed stream
        return stream.isatty()
    return False


def printable(text: str) -> str:
    r"""A text whose hidden characters are escaped: those of names of files may control a terminal.

    >>> printable("sub-01\x1b[2J\udcff.nii\n")
    'sub-01\\x1b[2J\\udcff.nii\n'
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def tell(text: str) -> None:
    """Write words for a person: a line of a table, a summary."""
    _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    """Write whole lines at once, so that those of other processes come before or after them."""
    if stream is None:
        return
    erase = ERASE if is_terminal(stream) else ""
    text = printable(text)
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        stream.write(f"{erase}{text}\n")
        stream.flush()


class _Lines(logging.Handler):
    """Log records as lines on standard error, whatever that is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        date = TIME if is_terminal(sys.stderr) else DATE
        # a line that a name of a file begins does not look like one of the program
        _write(sys.stderr, logging.Formatter(LINE, date).format(record).replace("\n", "\n  "))


class _Ours(logging.Filter):
    """Only records of this package, and errors of others."""

    def filter(self, record: logging.LogRecord) -> bool:
        own = record.name.partition(".")[0] == OWN
        return own or record.levelno >= logging.ERROR


def configure(verbose: int) -> None:
    """Set up the messages of this process; again once Nipype, which adds a handler, is imported.

    Parameters
    ----------
    verbose : int
        0: messages of brainlm-bids, and errors of other libraries; 1: also their warnings, and
        messages of Nipype; 2: also the start of every step.
    """
    root = logging.getLogger()
    if not root.handlers:
        handler = _Lines()
        # whoever asks Python for warnings gets them
        if not verbose and not sys.warnoptions:
            handler.addFilter(_Ours())
        root.addHandler(handler)
        # warnings of numpy or nilearn, which would stand in the middle of the screen
        logging.captureWarnings(True)
    root.setLevel(logging.WARNING)
    logging.getLogger(OWN).setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    # it tells of headers that it mends, without the name of the file, by a handler of its own
    logging.getLogger("nibabel.global").setLevel(logging.WARNING if verbose else logging.CRITICAL)
    # its handler would print the same line again on standard output
    logging.getLogger("nipype").handlers.clear()
    for part, level in _levels(verbose).items():
        logging.getLogger(f"nipype.{part}").setLevel(level)


def nipype_config(verbose: int) -> dict[str, str]:
    """The section "logging" of a workflow's configuration; Nipype's own would undo `configure`."""
    return {f"{part}_level": level for part, level in _levels(verbose).items()}


def _levels(verbose: int) -> dict[str, str]:
    return dict.fromkeys(QUIET, "INFO") if verbose else QUIET
