"""Which rows of a table are the best: one rule for all tables of the pages, also for ties."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brainlm_bids.report.values import number

# Digits of scores in tables; what looks equal in the table is equal in the words beside it
DIGITS = 3


def significant(value: float) -> str:
    """A score as the tables of decodings write it: with three significant digits."""
    return number(value, DIGITS)


def decimals(value: float) -> str:
    """A score as the tables of means write it: with three decimals."""
    return f"{value:.{DIGITS}f}"


def best_rows(
    values: Sequence[float | None], written: Callable[[float], str] = significant
) -> frozenset[int]:
    """Rows with the largest value of a column, as the table shows it.

    Two values that the table writes alike are equal: a reader who sees 0.61 twice must not be told
    that one of them is larger.

    Parameters
    ----------
    values
        Of the column; None where not defined.
    written
        How the table writes a value.

    Returns
    -------
    frozenset of int
        Places of all rows with the largest value; empty where no value is defined.

    Examples
    --------
    >>> sorted(best_rows([0.5, 0.9001, None, 0.9002]))
    [1, 3]
    """
    known = [value for value in values if value is not None]
    if not known:
        return frozenset()
    best = written(max(known))
    return frozenset(
        place for place, value in enumerate(values) if value is not None and written(value) == best
    )
