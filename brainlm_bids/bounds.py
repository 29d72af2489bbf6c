"""Bounds of what is read: data sets come from strangers, and a file may claim or hold anything.

Only regular files are read (a pipe or a device never ends), and none beyond the size that a file
of its kind can have.
"""

import os
import stat
from pathlib import Path

from brainlm_bids.errors import UserError

MIB = 1 << 20
# Sidecars hold kilobytes; those that list every slice of a long run hold a few megabytes.
LARGEST_JSON = 16 * MIB
# Values of a JSON file: each takes 64 bytes and more of memory, however short its text is.
MOST_JSON_VALUES = 1_000_000
# Text files of settings, written by hand.
LARGEST_SETTINGS = MIB
# Tables: 10,000 recordings with their embeddings take some hundred megabytes.
LARGEST_TABLE = 2048 * MIB
# Columns of a table: the confounds of fMRIPrep are up to some thousands.
MOST_COLUMNS = 20_000


def check_regular(path: Path) -> int:
    """Size in bytes of a regular file.

    Parameters
    ----------
    path
        The file, or a link to it.

    Returns
    -------
    int
        Its size.

    Raises
    ------
    UserError
        If it is a pipe, a device or a socket, which may never end. A folder or a missing file
        raises what opening it would.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, os.strerror(21), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: is a pipe, a device or a socket, not a file; remove it")
    return status.st_size


def content_of(path: Path, largest: int = LARGEST_TABLE) -> bytes:
    """The content of a regular file.

    Parameters
    ----------
    path
        The file.
    largest
        Bytes that it may hold.

    Raises
    ------
    UserError
        If it is no regular file, or larger; nothing is read then.
    """
    size = check_regular(path)
    if size > largest:
        raise UserError(
            f"{path}: holds {in_bytes(size)}, more than the {in_bytes(largest)} that a file of "
            "its kind may hold; is it the right file?"
        )
    with path.open("rb") as stream:
        # `read` makes room for all that it may read: the bound alone would be gigabytes
        content = stream.read(size + 1)
        if len(content) > size:  # it has grown since, or its size is not known (/proc)
            content += stream.read(largest - size)
        return content


def check_json_size(path: Path, text: str) -> None:
    """Raise UserError if a JSON text holds more values than a sidecar can."""
    n_values = text.count(",") + text.count("[") + text.count("{")
    if n_values > MOST_JSON_VALUES:
        raise UserError(
            f"{path}: holds {n_values:,} values, more than the {MOST_JSON_VALUES:,} that a JSON "
            "file may hold; is it the right file?"
        )


def check_columns(path: Path, content: bytes, separators: bytes = b"\t") -> None:
    """Raise UserError if a row of a table has more cells than a table can.

    separators: what may stand between cells, one byte each.
    """
    marks = [bytes([mark]) for mark in separators]
    longest = max(max(map(line.count, marks)) for line in content.splitlines() or [b""])
    if longest >= MOST_COLUMNS:
        raise UserError(
            f"{path}: has a row of {longest + 1:,} cells, more than the {MOST_COLUMNS:,} that a "
            "table may have; is it the right file?"
        )


def in_bytes(size: float) -> str:
    """A size for a sentence.

    >>> in_bytes(70_368_744_177_664), in_bytes(3_500_000), in_bytes(348)
    ('70 TB', '3.5 MB', '348 bytes')
    """
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            number = size / factor
            return f"{number:.2g} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{size:.0f} bytes"
