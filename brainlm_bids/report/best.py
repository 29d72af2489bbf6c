"""Which rows of a table are the best: one rule for all tables of the pages, also for ties."""

from __future__ import annotations

from collections.abc import Sequence

from brainlm_bids.report.values import number

# Digits of scores in tables; what looks equal in the table is equal in the words beside it
DIGITS = 3


def best_rows(values: Sequence[float | None], *, largest: bool = True) -> frozenset[int]:
    """Rows with the best value of a column, as the table shows it.

    Two values that the table writes alike are equal: a reader who sees 0.61 twice must not be told
    that one of them is larger.

    Parameters
    ----------
    values
        Of the column; None where not defined.
    largest
        Whether the largest is the best, or the smallest.

    Returns
    -------
    frozenset of int
        Places of all rows with the best value; empty where no value is defined.

    Examples
    --------
    >>> sorted(best_rows([0.5, 0.9001, None, 0.9002]))
    [1, 3]
    """
    known = [value for value in values if value is not None]
    if not known:
        return frozenset()
    best = max(known) if largest else min(known)
    return frozenset(
        place for place, value in enumerate(values) if value is not None and equal(value, best)
    )


def equal(one: float, other: float) -> bool:
    """Whether the tables show two values as the same number.

    >>> equal(0.12341, 0.12344), equal(0.123, 0.124)
    (True, False)
    """
    return number(one, DIGITS) == number(other, DIGITS)
