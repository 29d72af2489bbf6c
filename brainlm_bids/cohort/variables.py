"""Variables of a cohort: columns of a TSV become targets and confounds.

Columns have one text per recording, None where it is missing. A column that cannot be decoded
raises a `UserError` of one line, and the caller continues with the next.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cells import as_number
from brainlm_bids.cohort.coding import CATEGORY, NUMBER, Coded, summary, understand
from brainlm_bids.cohort.units import Units, group_units
from brainlm_bids.errors import UserError

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
        What was left out, and why; what was assumed.
    unit
        What is predicted once: "subject", "session" or "recording"; see `units.group_units`.
    units
        (U,) the recordings of each unit, numbered as in `rows`.
    doubts
        Those of the notes that the reader should check.
    """

    name: str
    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    unit: str
    units: Units
    doubts: tuple[str, ...] = ()

    @property
    def is_regression(self) -> bool:
        """Whether the target is a number rather than a class."""
        return not self.classes

    @property
    def places(self) -> tuple[tuple[int, ...], ...]:
        """(U,) the recordings of each unit, as indices of `rows`."""
        place = {int(row): k for k, row in enumerate(self.rows)}
        return tuple(tuple(place[row] for row in unit) for unit in self.units)

    @property
    def unit_values(self) -> NDArray[np.float64]:
        """(U,) the value of each unit."""
        return self.values[[unit[0] for unit in self.places]]


def make_target(
    name: str,
    column: Sequence[str | None],
    subjects: Sequence[str],
    *,
    sessions: Sequence[str | None] | None = None,
    kind: str | None = None,
    levels: Collection[str] = (),
) -> Target:
    """Make a target of a column: a regression of numbers, or a classification.

    Numbers with more than two values are regressed; two values, words, and numbers that code
    categories (see `coding.understand`) are classified.

    Parameters
    ----------
    name
        Name of the column.
    column
        Text per recording, None where it is missing.
    subjects
        The subject of each recording.
    sessions
        The session of each recording, where sessions are known.
    kind
        "number" or "category", if it is known.
    levels
        Values that participants.json declares as categories.

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
    >>> target.classes, target.is_regression, target.unit
    (('f', 'm'), False, 'subject')
    """
    try:
        coded = understand(name, column, subjects, kind=kind, levels=levels)
    except UserError as error:
        raise UserError(f"--target {error}") from None
    known = np.array([k for k, text in enumerate(coded.texts) if text is not None], dtype=np.int64)
    texts = [str(coded.texts[k]) for k in known]
    owners = [subjects[k] for k in known]
    notes = list(coded.notes)
    if len(known) < len(column):
        missing = len(column) - len(known)
        notes.append(f"{missing} of {len(column)} recordings have no value and are left out")
    if len(set(texts)) < 2:
        problem = f"the same value {texts[0]!r} everywhere" if texts else "no value anywhere"
        raise UserError(f"--target {name}: {problem}; there is nothing to decode")
    numbers = coded.numbers[known]
    several = len(set(numbers.tolist())) > 2 or kind == NUMBER
    if coded.kind == NUMBER and several:
        classes: tuple[str, ...] = ()
        rows, values = known, numbers
    else:
        classes, rows, values = _classes(name, known, texts, owners, notes)
    people = [subjects[row] for row in rows]
    _check_subjects(name, people)
    visits = None if sessions is None else [sessions[row] for row in rows]
    unit, units = group_units(rows.tolist(), values.tolist(), people, visits)
    return Target(name, rows, values, classes, tuple(notes), unit, units, coded.doubts)


def _classes(
    name: str,
    rows: NDArray[np.int64],
    texts: list[str],
    owners: list[str],
    notes: list[str],
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.float64]]:
    """Names of the classes, the recordings that belong to one, and its index for each."""
    members: dict[str, set[str]] = {}
    for text, owner in zip(texts, owners, strict=True):
        members.setdefault(text, set()).add(owner)
    kept = sorted(text for text, people in members.items() if len(people) >= MINIMUM_PER_CLASS)
    if len(members) > MAXIMUM_CLASSES:
        # a word says more than a number about what stands in the way
        word = min(members, key=lambda text: (not np.isnan(as_number(text)), text))
        owner = min(members[word])
        raise UserError(
            f"--target {name}: {word!r} (row of {owner}) is not a number, and the column has "
            f"{len(members)} different words, too many for classes: a class needs at least "
            f"{MINIMUM_PER_CLASS} subjects, and there may be {MAXIMUM_CLASSES}"
            if np.isnan(as_number(word))
            else f"--target {name}: {len(members)} different categories are too many: a class "
            f"needs at least {MINIMUM_PER_CLASS} subjects, and there may be {MAXIMUM_CLASSES}; "
            f"{name}:{NUMBER} makes it a regression"
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
    return tuple(kept), rows[chosen], values


def _check_subjects(name: str, owners: Sequence[str]) -> None:
    n_subjects = len(set(owners))
    if n_subjects < MINIMUM_SUBJECTS:
        raise UserError(
            f"--target {name}: {n_subjects} subjects have a value; {MINIMUM_SUBJECTS} are needed"
        )


def coding(target: Target) -> dict[str, Any]:
    """How a target was coded; see `coding.summary`.

    Examples
    --------
    >>> target = make_target("sex", ["f", "m"] * 6, [f"sub-{k:02d}" for k in range(12)])
    >>> coding(target)
    {'Kind': 'category', 'Levels': {'f': 6, 'm': 6}, 'Missing': 0}
    """
    if target.is_regression:
        return summary(NUMBER, [str(value) for value in target.values])
    return summary(CATEGORY, [target.classes[int(value)] for value in target.values])


def design(columns: Sequence[Coded]) -> NDArray[np.float64]:
    """Make a matrix of confounds.

    Numbers stay as they are; categories become indicators of all levels but the first.
    Missing numbers become the mean, missing categories are a level of their own. There is no
    intercept.

    Parameters
    ----------
    columns
        Columns as `coding.understand` understood them.

    Returns
    -------
    ndarray
        (N, K).

    Raises
    ------
    UserError
        If no recording has a value in a column, or hardly two share a category.

    Examples
    --------
    >>> site, fd = ("site", ["b", "a", "b", "a"]), ("fd", ["0.1", "n/a", "0.3", "0.2"])
    >>> design([understand(*site), understand(*fd)]).round(2).tolist()
    [[1.0, 0.1], [0.0, 0.2], [1.0, 0.3], [0.0, 0.2]]
    """
    parts: list[NDArray[np.float64]] = []
    n_rows = max((len(column.texts) for column in columns), default=0)
    for column in columns:
        known = [text for text in column.texts if text is not None]
        if not known:
            raise UserError(f"--regress-out {column.name}: no recording has a value")
        if column.kind == CATEGORY:
            if len(set(known)) > max(2, len(known) // 2):
                raise UserError(
                    f"--regress-out {column.name}: {len(set(known))} categories in {len(known)} "
                    f"recordings, for example {min(known)!r}; hardly two recordings share one"
                )
            words = [text or "" for text in column.texts]
            levels = sorted(set(words))[1:]
            parts += [np.array([word == level for word in words], float) for level in levels]
        else:
            numbers = column.numbers
            mean = numbers[np.isfinite(numbers)].mean()
            parts.append(np.where(np.isfinite(numbers), numbers, mean))
    return np.stack(parts, axis=1) if parts else np.zeros((n_rows, 0))
