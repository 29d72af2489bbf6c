"""How a column of a table of people is coded: numbers or categories, and codes for missing values.

Columns have one text per recording, None where it is missing. What has to be assumed is said in
notes; what cannot be assumed is a `UserError` of one line.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cells import as_number, is_missing, with_points
from brainlm_bids.cohort.plausibility import without_codes
from brainlm_bids.errors import UserError

NUMBER, CATEGORY = "number", "category"
# Integers with no more values than this may be codes of categories.
FEW_VALUES = 10
# … if each of them has this many people.
SEVERAL_PEOPLE = 3
# Categories that a line on the screen names.
MOST_NAMED = 12
# Words in names of columns that hold categories, and words that say otherwise.
CATEGORY_WORDS = {
    *("site", "sites", "scanner", "centre", "center", "sex", "gender", "diagnosis", "diag", "dx"),
    *("dxgroup", "group", "grp", "arm", "race", "ethnicity", "ethnic", "handedness", "hand"),
    *(
        "batch",
        "cohort",
        "study",
        "dataset",
        "manufacturer",
        "vendor",
        "coil",
        "protocol",
        "family",
    ),
    *("condition", "genotype", "treatment", "category", "class", "institution", "hospital"),
}
NUMBER_WORDS = {
    *(
        "age",
        "years",
        "year",
        "months",
        "days",
        "weeks",
        "score",
        "scores",
        "iq",
        "count",
        "number",
    ),
    *("n", "num", "mean", "total", "sum", "index", "percent", "rate", "duration", "time", "size"),
    *("distance", "weight", "height", "bmi", "volume", "volumes", "fd", "coverage", "education"),
}


class Coded(NamedTuple):
    """A column as it was understood.

    Attributes
    ----------
    name
        Of the column.
    kind
        "number" or "category".
    texts
        (N,) None where the value is missing; numbers have decimal points.
    notes
        What was assumed.
    doubts
        Those of the notes that the reader should check.
    """

    name: str
    kind: str
    texts: tuple[str | None, ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def numbers(self) -> NDArray[np.float64]:
        """(N,) values, NaN where missing or a word."""
        return np.array([as_number(text) for text in self.texts])


def split_kind(name: str) -> tuple[str, str | None]:
    """A name as the user gives it: the column, and its kind if that is given.

    >>> split_kind("site:category"), split_kind("age")
    (('site', 'category'), ('age', None))
    """
    column, _, kind = name.rpartition(":")
    return (column, kind) if column and kind in (NUMBER, CATEGORY) else (name, None)


def asked_columns(
    names: Iterable[str], known: Collection[str], measured: Collection[str] = ()
) -> dict[str, str | None]:
    """Columns as the user names them, and their kind where it is given.

    Parameters
    ----------
    names
        COLUMN, COLUMN:category or COLUMN:number.
    known
        Names of columns.
    measured
        Those that participants.json declares as numbers.

    Returns
    -------
    dict
        Name of a column to "number", "category", or None where the values decide.

    Examples
    --------
    >>> asked_columns(["age", "site:category"], ["age", "site"])
    {'age': None, 'site': 'category'}
    """
    asked = dict((name, None) if name in known else split_kind(name) for name in names)
    return {name: kind or (NUMBER if name in measured else None) for name, kind in asked.items()}


def understand(
    name: str,
    column: Sequence[str | None],
    owners: Sequence[str] | None = None,
    *,
    kind: str | None = None,
    levels: Collection[str] = (),
) -> Coded:
    """Tell numbers from categories, and values from codes for missing ones.

    Parameters
    ----------
    name
        Of the column.
    column
        (N,) text per recording, None where it is missing.
    owners
        (N,) the person whose each value is; without them, every value is of somebody else.
    kind
        "number" or "category", if it is known; otherwise it follows from `levels`, the values and
        the name.
    levels
        Values that participants.json declares as categories.

    Returns
    -------
    Coded

    Raises
    ------
    UserError
        If a column of numbers holds a word that is none.

    Examples
    --------
    >>> site = understand("site", ["1", "2", "3", "-9999"] * 5)
    >>> site.kind, site.texts[3]
    ('category', None)
    """
    texts = [None if text is None or is_missing(text) else text.strip() for text in column]
    texts, notes = _decimal_points(name, texts)
    known = [text for text in texts if text is not None]
    numbers = np.array([as_number(text) for text in known])
    strays = [text for text, value in zip(known, numbers, strict=True) if math.isnan(value)]
    if strays:
        if kind == NUMBER or (kind is None and _mostly_numbers(numbers, levels)):
            place = texts.index(strays[0])
            row = f" (row of {owners[place]})" if owners is not None else ""
            raise UserError(
                f"{name}: {strays[0]!r} is not a number{row}, and most values of the column are; "
                "correct it, or write n/a"
            )
        return Coded(name, CATEGORY, tuple(texts), tuple(notes))
    texts, coded, doubts = without_codes(texts)
    found = _Kind(kind) if kind else _kind_of(name, _people(texts, owners), levels)
    assumed = [f"{found.assumed} ({name}:{NUMBER} or {name}:{CATEGORY} decides)"]
    assumed = assumed if found.assumed else []
    notes += [*coded, *doubts, *assumed]
    doubts = [*coded, *doubts, *(assumed if found.doubtful else [])]
    if found.kind == CATEGORY:
        texts = [None if text is None else _level(text) for text in texts]
    return Coded(name, found.kind, tuple(texts), tuple(notes), tuple(doubts))


def _people(texts: Sequence[str | None], owners: Sequence[str] | None) -> dict[float, set[str]]:
    """Who has each number of a column."""
    people: dict[float, set[str]] = {}
    for row, text in enumerate(texts):
        if text is not None:
            owner = str(row) if owners is None else owners[row]
            people.setdefault(as_number(text), set()).add(owner)
    return people


def summary(kind: str, texts: Sequence[str | None]) -> dict[str, Any]:
    """How a column is coded, for a sidecar.

    Parameters
    ----------
    kind
        "number" or "category".
    texts
        (N,) None where the value is missing.

    Returns
    -------
    dict
        `Kind`; `Levels` with the number of recordings of each, or `Minimum` and `Maximum`; and
        `Missing`, the number of recordings without a value.

    Examples
    --------
    >>> summary("category", ["f", "m", None, "m"])
    {'Kind': 'category', 'Levels': {'f': 1, 'm': 2}, 'Missing': 1}
    """
    known = [text for text in texts if text is not None]
    about: dict[str, Any] = {"Kind": kind}
    if kind == CATEGORY:
        about["Levels"] = dict(sorted(Counter(known).items()))
    elif known:
        numbers = [as_number(text) for text in known]
        about |= {"Minimum": min(numbers), "Maximum": max(numbers)}
    return {**about, "Missing": len(texts) - len(known)}


def in_words(about: Mapping[str, Any]) -> str:
    """What `summary` says, for the screen.

    Examples
    --------
    >>> in_words(summary("category", ["f", "m", None, "m"]))
    '2 categories: f (1), m (2); 1 recording without a value'
    >>> in_words(summary("number", ["20.5", "71"]))
    'numbers from 20.5 to 71'
    """
    if about["Kind"] == CATEGORY:
        levels = about["Levels"]
        names = [f"{level} ({n})" for level, n in levels.items()]
        shown = names if len(names) <= MOST_NAMED else [*names[: MOST_NAMED - 1], "…"]
        text = f"{len(names)} categories: {', '.join(shown)}"
    elif "Minimum" in about:
        text = f"numbers from {about['Minimum']:g} to {about['Maximum']:g}"
    else:
        text = "no value"
    missing = about["Missing"]
    return f"{text}; {missing} recording{'s' * (missing > 1)} without a value" if missing else text


def _decimal_points(name: str, texts: list[str | None]) -> tuple[list[str | None], list[str]]:
    """Texts with decimal points, if all of them are numbers then; and what was done."""
    known = [text for text in texts if text is not None]
    if not any("," in text for text in known):
        return texts, []
    try:
        pointed = iter(with_points(known))
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    changed = [None if text is None else next(pointed) for text in texts]
    if changed == texts:
        return texts, []
    return changed, ["decimal commas are read as points"]


def _mostly_numbers(numbers: NDArray[np.float64], levels: Collection[str]) -> bool:
    """Whether words among these (NaN) stand in the way of a column of numbers."""
    found = numbers[np.isfinite(numbers)]
    few = len(set(found.tolist())) <= min(FEW_VALUES, len(numbers) / 3)
    return not levels and not few and len(found) >= len(numbers) / 2


class _Kind(NamedTuple):
    """The kind of a column of numbers, and what was assumed if it could be otherwise."""

    kind: str
    assumed: str = ""
    doubtful: bool = True


def _kind_of(name: str, people: Mapping[float, set[str]], levels: Collection[str]) -> _Kind:
    """The kind of a column from who has which number, its declared levels, and its name."""
    values, n_people = set(people), sum(map(len, people.values()))
    if not values or any(value != round(value) for value in values):
        return _Kind(NUMBER)
    if levels and values <= {as_number(level) for level in levels}:
        return _Kind(CATEGORY)
    words = words_of(name)
    if len(values) == 1 or words & NUMBER_WORDS:
        return _Kind(NUMBER)
    whole = f"its {len(values)} different whole numbers are taken as"
    as_numbers = f"{whole} numbers, not as codes"
    if words & CATEGORY_WORDS:
        if n_people < 2 * len(values):
            return _Kind(NUMBER, as_numbers)
        return _Kind(CATEGORY, f"{whole} codes of categories, as the name has it", doubtful=False)
    if not 2 < len(values) <= FEW_VALUES or n_people < SEVERAL_PEOPLE * len(values):
        return _Kind(NUMBER)
    if min(map(len, people.values())) < SEVERAL_PEOPLE:
        return _Kind(NUMBER, as_numbers)
    return _Kind(CATEGORY, f"{whole} codes of categories, as several people have each")


def words_of(name: str) -> set[str]:
    """Words of a name, in lower case.

    Parameters
    ----------
    name
        Name of a column.

    Returns
    -------
    set of str

    Examples
    --------
    >>> sorted(words_of("DX_GROUP")), sorted(words_of("siteID"))
    (['dx', 'group'], ['id', 'site'])
    """
    split = re.sub(r"([a-z])([A-Z])", r"\1_\2", name)
    return {word for word in re.split(r"[^A-Za-z]+", split.lower()) if word}


def _level(text: str) -> str:
    """The name of a category: 1 and 1.0 are the same.

    >>> _level("1.0"), _level("F")
    ('1', 'F')
    """
    value = as_number(text)
    return text if math.isnan(value) else f"{value:.10g}"
