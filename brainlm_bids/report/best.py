"""Which rows of a table are the best: one rule for all tables of the pages, also for ties."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brainlm_bids.report.values import number

# Digits of scores in tables; what looks equal in the table is equal in the words beside it
DIGITS = 3


def decimals(value: float | None) -> str:
    """A score as the tables write it: with three decimals, so that a column lines up.

    >>> decimals(0.12345), decimals(-0.0001), decimals(None)
    ('0.123', '0.000', 'n/a')
    """
    return "n/a" if value is None else f"{round(value, DIGITS) + 0.0:.{DIGITS}f}"


def p_value(value: float | None) -> str:
    """A p value as the tables and the sentences write it.

    >>> p_value(0.04), p_value(0.0002), p_value(None)
    ('0.040', '0.0002', 'n/a')
    """
    return decimals(value) if value is None or value >= 0.001 else number(value, 1)


def best_rows(
    values: Sequence[float | None], written: Callable[[float], str] = decimals
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
