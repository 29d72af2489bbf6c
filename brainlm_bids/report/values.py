"""Values of tables and sidecars: read, converted to numbers, written as text.

A missing or broken file reads as empty and a missing number as None, so that a report leaves out
what is not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids import files
from brainlm_bids.bids.derivatives import read_table
from brainlm_bids.errors import UserError
from brainlm_bids.system_errors import LOST

Row = dict[str, str]


@dataclass(frozen=True)
class Fact:
    """A number of a summary: its label, the value as text, a remark, and whether it looks odd."""

    label: str
    value: str
    note: str = ""
    odd: bool = False


def number(value: object, digits: int = 4) -> str:
    """Write a number with up to `digits` significant digits; other texts are returned unchanged.

    >>> number("0.12345"), number(float("nan")), number(490)
    ('0.1235', 'n/a', '490')
    """
    converted = as_float(value)
    if converted is None:
        return str(value) if isinstance(value, str) and value else "n/a"
    if converted == int(converted) and abs(converted) < 1e9:
        return str(int(converted))
    return f"{converted:.{digits}g}"


def as_float(value: object) -> float | None:
    """A finite number, or None for anything else.

    >>> as_float("0.5"), as_float("n/a"), as_float(None)
    (0.5, None, None)
    """
    try:
        converted = float(str(value))
    except ValueError:
        return None
    return converted if math.isfinite(converted) else None


def mean_of(rows: Sequence[Row], key: str) -> float | None:
    """Mean of a column over the rows that have a number; None without any.

    >>> mean_of([{"r2": "0.5"}, {"r2": "n/a"}], "r2"), mean_of([], "r2")
    (0.5, None)
    """
    values = [v for row in rows if (v := as_float(row.get(key))) is not None]
    return float(np.mean(values)) if values else None


def mean_sd(rows: Sequence[Row], key: str) -> str:
    """Mean and standard deviation of a column, over the rows that have a number.

    >>> mean_sd([{"r2": "0.5"}, {"r2": "0.7"}, {"r2": "n/a"}], "r2"), mean_sd([{"r2": "0.5"}], "r2")
    ('0.600 (0.141)', '0.500')
    """
    values = [v for row in rows if (v := as_float(row.get(key))) is not None]
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "n/a"
    return f"{np.mean(values):.3f} ({np.std(values, ddof=1):.3f})"


def as_list(value: object) -> list[Any]:
    """A list as it is, nothing as an empty list, and any other value as a list of one."""
    if isinstance(value, list):
        return value
    return [] if value in (None, "") else [value]


def joined(names: list[str]) -> str:
    """An enumeration in words.

    >>> joined(["a"]), joined(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def without_na(row: Row) -> Row:
    """A row whose missing values are empty texts."""
    return {key: "" if value == "n/a" else value for key, value in row.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a sidecar; empty if it is missing or broken. UserError if the disk does not give it."""
    try:
        return files.read_json(path)
    except UserError as error:
        _check_disk(error)
        return {}


def read_tsv(path: Path) -> list[Row]:
    """Read the rows of a table; none if it is missing or broken. UserError as `read_json`."""
    try:
        return read_table(path)
    except UserError as error:
        _check_disk(error)
        return []


def _check_disk(error: UserError) -> None:
    """Raise an error again where a page would lack, and not tell, what the next call could read."""
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in LOST:
        raise error
