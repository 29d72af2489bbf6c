"""Rows of the accuracy table: what was measured, its bound, and what peers reach beside it."""

from typing import NamedTuple


class Row(NamedTuple):
    """One number, judged.

    stage, measure: what was measured, with its unit; ours: the number; bound: "<= 0.5",
    ">= 0.95", or "" for a number without one; peers: what others reach on the same input;
    note: a few words on how.
    """

    stage: str
    measure: str
    ours: float
    bound: str = ""
    peers: dict[str, float] = {}  # noqa: RUF012
    note: str = ""


HEADER = ("stage", "measure", "ours", "bound", "", "peers", "note")


def holds(row: Row) -> bool:
    """Whether a row keeps its bound; NaN keeps none, and without a bound there is none to break.

    >>> holds(Row("motion", "mean (mm)", 0.05, "<= 0.06")), holds(Row("W", "r", 0.9, ">= 0.99"))
    (True, False)
    """
    if not row.bound:
        return True
    sign, value = row.bound.split()
    if sign not in ("<=", ">="):
        raise ValueError(f"bound {row.bound!r} of {row.stage}: '<= number' or '>= number'")
    return row.ours <= float(value) if sign == "<=" else row.ours >= float(value)


def cells(row: Row) -> tuple[str, ...]:
    """A row as text.

    >>> cells(Row("motion", "mean (mm)", 0.0512, "<= 0.06", {"identity": 2.1}))
    ('motion', 'mean (mm)', '0.0512', '<= 0.06', 'ok', 'identity 2.1', '')
    """
    verdict = ("ok" if holds(row) else "MISSED") if row.bound else ""
    peers = ", ".join(f"{name} {value:.4g}" for name, value in row.peers.items())
    return (row.stage, row.measure, f"{row.ours:.4g}", row.bound, verdict, peers, row.note)
