"""The rank of a number among others, in words."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

HEIGHT = ("lower", "higher", "lowest", "highest")
SIZE = ("smaller", "larger", "smallest", "largest")


def rank(value: float, values: Sequence[float], words: tuple[str, str, str, str] = HEIGHT) -> str:
    """The rank of a number among others, in words.

    Parameters
    ----------
    value
        The number.
    values
        It and at least one other, sorted.
    words
        For less and more, least and most.

    Examples
    --------
    >>> rank(0.31, [0.1, 0.2, 0.3, 0.31, 0.4])
    'higher than 3 of 4'
    >>> rank(5, [1, 2, 5]), rank(0, [0, 1, 2]), rank(1, [1, 1, 1])
    ('the highest of 3', 'the lowest of 3', 'the same in all')
    >>> rank(2, [1, 2, 3, 4], SIZE)
    'smaller than 2 of 3'
    >>> rank(1, [1, 1, 1, 2, 3])
    'lower than 2 of 4, the same in 2'
    """
    others = len(values) - 1
    lower, higher = bisect_left(values, value), len(values) - bisect_right(values, value)
    same = others - lower - higher
    if same == others:
        return "the same in all"
    if not same and not (lower and higher):
        return f"the {words[3 if lower else 2]} of {len(values)}"
    side, count = (words[1], lower) if lower >= higher else (words[0], higher)
    return f"{side} than {count} of {others}" + (f", the same in {same}" if same else "")
