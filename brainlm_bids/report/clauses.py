"""Sentences about several recordings that may differ: with counts where they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


def said(clauses: Sequence[str | None], what: str = "runs") -> str:
    """One sentence where all recordings agree, else one per group with its count.

    Parameters
    ----------
    clauses
        What there is to tell of each recording: a main clause without capital letter and full
        stop, or None for nothing.
    what
        What is counted, in the plural.

    Returns
    -------
    str
        Sentences; empty if there is nothing to tell.

    Examples
    --------
    >>> said(["no volume was excluded"] * 3)
    'No volume was excluded.'
    >>> said(["it was filtered", "it was filtered", None])
    'In 2 of 3 runs, it was filtered.'
    """
    groups = Counter(clause for clause in clauses if clause)
    if (len(groups) == 1 and not all(clauses) and len(clauses) > 1) or len(groups) > 1:
        return " ".join(f"In {n} of {len(clauses)} {what}, {text}." for text, n in groups.items())
    return " ".join(f"{_capitalised(text)}." for text in groups)


def _capitalised(text: str) -> str:
    """A clause as the start of a sentence; a name with a capital of its own stays as it is.

    >>> _capitalised("it was filtered"), _capitalised("fMRIPrep’s series were used")
    ('It was filtered', 'fMRIPrep’s series were used')
    """
    own = any(letter.isupper() for letter in text.partition(" ")[0][1:])
    return text if own else f"{text[:1].upper()}{text[1:]}"


def span(values: Iterable[float], unit: str = "", digits: int = 4) -> str:
    """A number, or a range of numbers.

    Examples
    --------
    >>> span([2.0, 2.0], " s"), span([0.72, 2.0, 3.0], " s")
    ('2 s', '0.72–3 s')
    """
    known = sorted(values)
    low, high = f"{known[0]:.{digits}g}", f"{known[-1]:.{digits}g}"
    return f"{low}{unit}" if low == high else f"{low}–{high}{unit}"


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun.

    Examples
    --------
    >>> counted(1, "run"), counted(3, "run")
    ('1 run', '3 runs')
    """
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def quoted(value: object) -> str:
    """Words that come from the data, which must not read as a citation."""
    return str(value).replace("[@", "[ @")
