"""How a column of a table of people is coded: numbers or categories, and codes for missing values.

Columns have one text per recording, None where it is missing. What has to be assumed is said in
notes; what cannot be assumed is a `UserError` of one line.
"""

import math
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cells import as_number, is_missing, with_points
from brainlm_bids.errors import UserError

NUMBER, CATEGORY = "number", "category"
# Integers with no more values than this may be codes of categories.
FEW_VALUES = 10
# A code lies this many times further from the values than neighbours among them do.
WIDE_GAP = 3
# Codes for missing values in registries and questionnaires.
MISSING_CODES = (
    *(-1, -3, -7, -8, -9, -77, -88, -99, -777, -888, -999, -7777, -8888, -9999, -99999),
    *(99, 777, 888, 999, 7777, 8888, 9999, 99999),
)
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
        (N,) whose each value is, for messages.
    kind
        "number" or "category", if it is known; otherwise it follows from the values, `levels` and
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
    texts, coded, doubts = _without_codes(texts)
    values = {as_number(text) for text in texts if text is not None}
    chosen, about = (kind, "") if kind else _kind_of(name, values, len(known), levels)
    assumed = [f"{about} ({name}:{NUMBER} or {name}:{CATEGORY} decides)"] if about else []
    notes += [*coded, *doubts, *assumed]
    if chosen == CATEGORY:
        texts = [None if text is None else _level(text) for text in texts]
        assumed = []
    return Coded(name, chosen, tuple(texts), tuple(notes), (*coded, *doubts, *assumed))


def _without_codes(
    texts: list[str | None],
) -> tuple[list[str | None], list[str], list[str]]:
    """Numbers without codes for missing values; what was taken as one, and what may be one."""
    numbers = np.array([as_number(text) for text in texts if text is not None])
    codes, doubtful = missing_codes(numbers)
    kept = [None if as_number(text) in codes else text for text in texts]
    coded = [
        f"{code:g} (in {_n(numbers, code)}) lies far outside the other values "
        "and is taken as a code for a missing value"
        for code in sorted(codes)
    ]
    doubts = [
        f"{code:g} (in {_n(numbers, code)}) may be a code for a missing value; "
        "it is taken as a value: write n/a if it is a code"
        for code in sorted(doubtful)
    ]
    return kept, coded, doubts


def _n(numbers: NDArray[np.float64], code: float) -> str:
    count = int((numbers == code).sum())
    return f"{count} recording{'s' if count > 1 else ''}"


def missing_codes(values: NDArray[np.float64]) -> tuple[set[float], set[float]]:
    """Which numbers of a column are codes for missing values, and which may be.

    A number of `MISSING_CODES` is one if it lies further from the other numbers than these are
    from each other (their range), or if it is negative, no other number is, and it lies more than
    three times as far from them as neighbours among them from each other. It may be one if it lies
    outside of them, and is the only kind of negative number, or is repeated.

    Parameters
    ----------
    values
        (N,) without NaN.

    Returns
    -------
    codes, doubtful
        Numbers among the values.

    Examples
    --------
    >>> missing_codes(np.array([20.0, 35, 61, -9999, 44]))
    ({-9999.0}, set())
    >>> missing_codes(np.array([0.0, 3, 10, -1, 7]))
    (set(), {-1.0})
    """
    candidates = set(values.tolist()) & set(map(float, MISSING_CODES))
    others = np.array([value for value in values.tolist() if value not in candidates])
    if not candidates or not others.size:
        return set(), set()
    low, high = others.min(), others.max()
    spread = high - low
    gap = np.diff(np.unique(others)).max() if spread else math.inf
    codes = {
        code
        for code in candidates
        if (spread and not low - spread <= code <= high + spread)
        or (code < 0 <= low and low - code > WIDE_GAP * gap)
    }
    doubtful = {
        code
        for code in candidates - codes
        if not low <= code <= high and ((code < 0 <= low) or (values == code).sum() > 1)
    }
    return codes, doubtful


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


def _kind_of(
    name: str, values: set[float], n_known: int, levels: Collection[str]
) -> tuple[str, str]:
    """The kind of a column of numbers, and what was assumed if it could be otherwise."""
    if not values or any(value != round(value) for value in values):
        return NUMBER, ""
    if levels and values <= {as_number(level) for level in levels}:
        return CATEGORY, ""
    words = _words(name)
    several = n_known >= 3 * len(values)
    if words & CATEGORY_WORDS and not words & NUMBER_WORDS and several:
        return CATEGORY, "numbers are taken as codes of categories, as the name has it"
    if len(values) <= 2 or len(values) > FEW_VALUES or words & NUMBER_WORDS or not several:
        return NUMBER, ""
    return NUMBER, f"its {len(values)} different whole numbers are taken as numbers, not as codes"


def _words(name: str) -> set[str]:
    """Words of a name, in lower case.

    >>> sorted(_words("DX_GROUP")), sorted(_words("siteID"))
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
