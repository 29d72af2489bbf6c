"""Variables of a cohort: columns of a TSV become targets and confounds.

Columns have one text per recording, None where it is missing. A column that cannot be decoded
raises a `UserError` of one line, and the caller continues with the next.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError

MISSING = frozenset({"", "n/a", "nan", "NaN", "NA", "None"})
FOLDS = 5
MINIMUM_SUBJECTS = 2 * FOLDS  # so that a fold holds at least two
MINIMUM_PER_CLASS = FOLDS
MAXIMUM_CLASSES = 10


class Target(NamedTuple):
    """A target to decode.

    Attributes
    ----------
    name
        Name of its column.
    rows
        (N,) the recordings with a value.
    values
        (N,) numbers, or indices of classes.
    classes
        Names of the classes; empty for a regression.
    notes
        What was left out, and why.
    """

    name: str
    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_regression(self) -> bool:
        """Whether the target is a number rather than a class."""
        return not self.classes


def as_number(text: str | None) -> float:
    """Convert a value of a table to a number.

    Parameters
    ----------
    text
        The value.

    Returns
    -------
    float
        NaN if it is missing or not a number.

    Examples
    --------
    >>> as_number("2.5"), as_number("n/a")
    (2.5, nan)
    """
    try:
        return math.nan if text is None or text in MISSING else float(text)
    except ValueError:
        return math.nan


def is_missing(text: str | None) -> bool:
    """Whether a value of a table is missing.

    Parameters
    ----------
    text
        The value.

    Returns
    -------
    bool
        True for None, an empty text, "n/a" and the like.

    Examples
    --------
    >>> is_missing("n/a"), is_missing(None), is_missing("0")
    (True, True, False)
    """
    return text is None or text.strip() in MISSING


def make_target(name: str, column: Sequence[str | None], subjects: Sequence[str]) -> Target:
    """Make a target of a column: a regression of numbers, or a classification.

    Numbers with more than two values are regressed; two values, or words, are classified.

    Parameters
    ----------
    name
        Name of the column.
    column
        Text per recording, None where it is missing.
    subjects
        The subject of each recording.

    Returns
    -------
    Target
        Values of the recordings that have one.

    Raises
    ------
    UserError
        If the column is constant, all missing, or has too few subjects, or too many classes.

    Examples
    --------
    >>> people = [f"sub-{k:02d}" for k in range(12)]
    >>> target = make_target("sex", ["f", "m"] * 6, people)
    >>> target.classes, target.is_regression
    (('f', 'm'), False)
    """
    known = np.array([k for k, text in enumerate(column) if not is_missing(text)], dtype=np.int64)
    texts = [str(column[k]).strip() for k in known]
    owners = [subjects[k] for k in known]
    notes = []
    if len(known) < len(column):
        missing = len(column) - len(known)
        notes.append(f"{missing} of {len(column)} recordings have no value and are left out")
    if len(set(texts)) < 2:
        problem = f"the same value {texts[0]!r} everywhere" if texts else "no value anywhere"
        raise UserError(f"--target {name}: {problem}; there is nothing to decode")
    numbers = np.array([as_number(text) for text in texts])
    if np.isfinite(numbers).all() and len(set(numbers.tolist())) > 2:
        _check_subjects(name, owners)
        return Target(name, known, numbers, (), tuple(notes))
    return _classes(name, known, texts, owners, notes)


def _classes(
    name: str,
    rows: NDArray[np.int64],
    texts: list[str],
    owners: list[str],
    notes: list[str],
) -> Target:
    members: dict[str, set[str]] = {}
    for text, owner in zip(texts, owners, strict=True):
        members.setdefault(text, set()).add(owner)
    kept = sorted(text for text, people in members.items() if len(people) >= MINIMUM_PER_CLASS)
    if len(members) > MAXIMUM_CLASSES:
        raise UserError(
            f"--target {name}: {len(members)} different words, for example {min(members)!r}; "
            f"a class needs at least {MINIMUM_PER_CLASS} subjects, a regression needs numbers"
        )
    notes += [
        f"{text!r} is left out: {len(members[text])} subjects, fewer than {MINIMUM_PER_CLASS}"
        for text in sorted(set(members) - set(kept))
    ]
    if len(kept) < 2:
        counts = ", ".join(f"{text!r} {len(members[text])}" for text in sorted(members))
        raise UserError(
            f"--target {name}: too few subjects ({counts}); two classes of at least "
            f"{MINIMUM_PER_CLASS} subjects are needed"
        )
    chosen = [k for k, text in enumerate(texts) if text in kept]
    values = np.array([kept.index(texts[k]) for k in chosen], dtype=np.float64)
    _check_subjects(name, [owners[k] for k in chosen])
    return Target(name, rows[chosen], values, tuple(kept), tuple(notes))


def _check_subjects(name: str, owners: Sequence[str]) -> None:
    n_subjects = len(set(owners))
    if n_subjects < MINIMUM_SUBJECTS:
        raise UserError(
            f"--target {name}: {n_subjects} subjects have a value; {MINIMUM_SUBJECTS} are needed"
        )


def design(columns: Mapping[str, Sequence[str | None]]) -> NDArray[np.float64]:
    """Make a matrix of confounds.

    Numbers stay as they are; words become indicators of all levels but the first.
    Missing numbers become the mean, missing words are a level of their own. There is no intercept.

    Parameters
    ----------
    columns
        Name to a text per recording.

    Returns
    -------
    ndarray
        (N, K).

    Raises
    ------
    UserError
        If no recording has a value in a column.

    Examples
    --------
    >>> design({"site": ["b", "a", "b"], "fd": ["0.1", "n/a", "0.3"]}).tolist()
    [[1.0, 0.1], [0.0, 0.2], [1.0, 0.3]]
    """
    parts: list[NDArray[np.float64]] = []
    n_rows = max((len(column) for column in columns.values()), default=0)
    for name, column in columns.items():
        numbers = np.array([as_number(text) for text in column])
        known = [text for text in column if not is_missing(text)]
        if not known:
            raise UserError(f"--regress-out {name}: no recording has a value")
        if np.isfinite(numbers).sum() == len(known):
            mean = numbers[np.isfinite(numbers)].mean()
            parts.append(np.where(np.isfinite(numbers), numbers, mean))
            continue
        words = ["" if is_missing(text) else str(text).strip() for text in column]
        parts += [np.array([word == level for word in words], float) for level in _levels(words)]
    return np.stack(parts, axis=1) if parts else np.zeros((n_rows, 0))


def _levels(words: Sequence[str]) -> list[str]:
    return sorted(set(words))[1:]
