"""What a cell of a table holds: a number, also with a decimal comma, or a word for nothing.

Tables of series and tables of people are read by the same rules.
"""

import math
import re
from collections.abc import Sequence

# Words for a missing value, in lower case: BIDS, pandas, R, SPSS, Excel, registries.
MISSING_WORDS = {
    *("", "n/a", "na", "n.a.", "n.a", "nan", "-nan", "+nan", "<na>", "null", "nil", "."),
    *("-", "--", "–", "—", "?", "missing", "unknown", "not available", "not applicable"),
    *("#n/a", "#na", "#value!", "#div/0!", "#num!", "#null!", "#ref!", "#name?"),
    *("1.#ind", "1.#qnan"),
}
_DECIMAL_COMMA = re.compile(r"[-+−]?\d*,\d+([eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+−]?[1-9]\d{0,2}(,\d{3})+")


def is_missing(cell: str | None) -> bool:
    """Whether a cell holds a word for a missing value, or nothing.

    Python's None is one; the word none, as in a column of medication, is a value.

    >>> [is_missing(cell) for cell in ("n/a", " NaN", "#N/A", "", None, "0", "none")]
    [True, True, True, True, True, False, False]
    """
    return cell is None or cell.strip() == "None" or cell.strip().lower() in MISSING_WORDS


def as_number(cell: str | None) -> float:
    """A cell's value; NaN for what is missing, or no number.

    >>> as_number("2.5"), as_number("n/a"), as_number(" −3 ")
    (2.5, nan, -3.0)
    """
    if cell is None or "_" in cell:  # Python reads 1_000 as a thousand
        return math.nan
    try:
        value = float(cell.strip().replace("−", "-"))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def is_decimal_comma(cell: str) -> bool:
    """Whether a cell is a number with a decimal comma, or with separators of thousands.

    >>> [is_decimal_comma(cell) for cell in ("0,5", "1,234", "0.5", "Smith, J")]
    [True, True, False, False]
    """
    return bool(_DECIMAL_COMMA.fullmatch(cell.strip()))


def with_points(cells: Sequence[str]) -> list[str]:
    """Numbers with decimal points in place of decimal commas; other cells as they are.

    Parameters
    ----------
    cells
        Of one column or table, which was written in one way.

    Raises
    ------
    ValueError
        If the commas may also be separators of thousands.

    Examples
    --------
    >>> with_points(["30,5", "41", "n/a"])
    ['30.5', '41', 'n/a']
    """
    commas = [cell for cell in cells if "," in cell]
    if not commas or not all(map(is_decimal_comma, commas)):
        return list(cells)
    points = any("." in cell and not math.isnan(as_number(cell)) for cell in cells)
    if points or all(_THOUSANDS.fullmatch(cell.strip()) for cell in commas):
        raise ValueError(
            f"it is not clear whether the comma in {commas[0]!r} is a decimal comma or separates "
            "thousands; save the numbers with decimal points, and without separators of thousands"
        )
    return [cell.replace(",", ".") for cell in cells]
