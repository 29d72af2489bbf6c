"""Tables of numbers as programs, spreadsheets and people's scripts save them: text in, cells out.

Understood are separators (tab, semicolon, comma, blanks), quotes, line ends of all systems, blank
rows, separators at the ends of rows, comments (#), missing values as words, and decimal commas.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cells import MISSING_WORDS, as_number, is_decimal_comma, is_missing, with_points

Cells = list[list[str]]


def read_cells(text: str) -> Cells:
    r"""Take a table apart.

    Parameters
    ----------
    text
        Of the file, without its byte-order mark.

    Returns
    -------
    list of list of str
        Rows of equally many cells, without blanks around them. A header without a name for the
        column of row names (as R writes it) gets an empty one.

    Raises
    ------
    ValueError
        If it is empty, or rows differ in length.

    Examples
    --------
    >>> read_cells('sep=;\n"a";"b";\n0,5;1;\n;;\n')
    [['a', 'b'], ['0,5', '1']]
    """
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip(" \ufeff\x00")]
    if lines and re.fullmatch(r'"?sep=.{1,2}"?', lines[0].strip(), flags=re.IGNORECASE):
        lines = lines[1:]  # Excel's own line about the separator
    lines = _without_comments(lines)
    if not lines:
        raise ValueError("it is empty")
    separator = _separator(lines)
    if separator == " ":
        rows = [next(csv.reader([" ".join(line.split())], delimiter=" ")) for line in lines]
    else:
        rows = list(csv.reader(io.StringIO("\n".join(lines), newline=""), delimiter=separator))
    rows = [[cell.strip().strip('"').strip() for cell in row] for row in rows]
    # empty rows are no values at the end of a spreadsheet, and missing ones within a table
    while rows and not any(rows[-1]):
        rows.pop()
    return _rectangular(rows)


def numbers(cells: Cells) -> NDArray[np.float64]:
    """The values of cells.

    Parameters
    ----------
    cells
        (T, P) of text.

    Returns
    -------
    ndarray
        (T, P), NaN where the cell is a word for a missing value or not finite.

    Raises
    ------
    ValueError
        In one line with the cell that is no number.

    Examples
    --------
    >>> numbers([["1", "n/a"], ["0,5", "2"]])
    array([[1. , nan],
           [0.5, 2. ]])
    """
    try:
        values = np.array(cells, dtype=np.float64)  # the ordinary case, and a fast one
    except ValueError:
        flat = with_points([cell for row in cells for cell in row])
        values = np.array([as_number(cell) for cell in flat]).reshape(len(cells), -1)
        for row, column in np.argwhere(np.isnan(values)).tolist():
            if not is_missing(cells[row][column]):
                place = f"row {row + 1} of the values, column {column + 1}"
                raise ValueError(f"{cells[row][column]!r} is not a number ({place})") from None
    return np.where(np.isfinite(values), values, np.nan)


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, also with a decimal comma.

    >>> [is_number(cell) for cell in ("-1.5e3", "0,5", "n/a", "R_V1")]
    [True, True, False, False]
    """
    return not math.isnan(as_number(cell.replace(",", ".", 1)))


def _without_comments(lines: list[str]) -> list[str]:
    """Without comments in front; the last is the header if it is as long as the values."""
    n = next((k for k, line in enumerate(lines) if not _is_comment(line)), len(lines))
    body = lines[n:]
    if not n or not body:
        return body
    header, separator = lines[n - 1].lstrip().lstrip("#").strip(), _separator(body)
    lengths = [
        len(line.split() if separator == " " else line.split(separator))
        for line in (header, body[0].strip())
    ]
    return [header, *body] if lengths[0] == lengths[1] > 1 else body


def _is_comment(line: str) -> bool:
    """Whether a line starts with #, but not with one of Excel's errors, such as #N/A."""
    line = line.lstrip().lower()
    return line.startswith("#") and not any(
        line.startswith(word) for word in MISSING_WORDS if word.startswith("#")
    )


def _separator(lines: Sequence[str]) -> str:
    """What separates the cells: tab, semicolon, comma or blanks."""
    line = lines[min(1, len(lines) - 1)]  # a row of values
    for separator in "\t;":
        if separator in line:
            return separator
    blanks = line.split()
    if "," not in line or (len(blanks) > 1 and all(map(_is_decimal_cell, blanks))):
        return " " if len(blanks) > 1 else ","
    return ","


def _is_decimal_cell(cell: str) -> bool:
    cell = cell.strip('"')
    return is_decimal_comma(cell) or ("," not in cell and bool(cell))


def _rectangular(rows: Cells) -> Cells:
    """All rows as long as most of them, without empty columns behind the last name."""
    if not rows:
        raise ValueError("it is empty")
    header, body = rows[0], rows[1:] or rows
    usual = Counter(map(len, body)).most_common(1)[0][0]
    body = [_shortened(row, usual) for row in body]
    while (
        usual > 1
        and not any(row[-1] for row in body if len(row) == usual)
        and (len(header) < usual or not header[usual - 1])
    ):
        usual -= 1
        body = [_shortened(row, usual) for row in body]
    header = _shortened(header, usual)
    if len(header) == usual - 1:  # R gives no name to the column of row names
        header = ["", *header]
    rows = [header, *body] if len(rows) > 1 else body
    wrong = next((k for k, row in enumerate(rows) if len(row) != usual), None)
    if wrong is not None:
        raise ValueError(
            f"row {wrong + 1} has {len(rows[wrong])} cells, others have {usual}; was the file cut "
            "short?"
        )
    return rows


def _shortened(row: list[str], length: int) -> list[str]:
    """Without the empty cells beyond a length."""
    return row[:length] if not any(row[length:]) else row
