"""Properties of recordings that features should say nothing about: site, scanner, motion, ….

Age and sex are there to compare with: a share of the variance is large or small beside theirs.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cohort.coding import CATEGORY, NUMBER, NUMBER_WORDS, Coded, understand, words_of
from brainlm_bids.cohort.variables import MINIMUM_SUBJECTS

Array = NDArray[np.float64]
# Words in names of columns that say where and how a recording was made.
SITE_WORDS = {
    *("site", "sites", "scanner", "scanners", "centre", "center", "batch", "manufacturer"),
    *("vendor", "coil", "protocol", "institution", "hospital", "dataset"),
}
COMPARED_WORDS = {"age", "sex", "gender"}


class Property(NamedTuple):
    """A property of the recordings that features should say nothing about.

    Attributes
    ----------
    name
        Such as "site".
    values
        (N,) numbers, or indices of `levels`; NaN where it is not known.
    levels
        Names of the categories; empty for numbers.
    """

    name: str
    values: Array
    levels: tuple[str, ...] = ()

    @property
    def rows(self) -> NDArray[np.int64]:
        """The recordings of which it is known."""
        return np.flatnonzero(np.isfinite(self.values))


def obstacle(one: Property, subjects: Sequence[str]) -> str | None:
    """Say why nothing can be said about a property, if so.

    Parameters
    ----------
    one
        The property.
    subjects
        (N,) the subject of each recording.

    Returns
    -------
    str or None
        A clause that follows the property's name.

    Examples
    --------
    >>> obstacle(Property("site", np.zeros(12), ("a",)), [f"sub-{k}" for k in range(12)])
    'is the same in all recordings'
    """
    known = one.values[one.rows]
    people = {subjects[row] for row in one.rows}
    if not len(known):
        return "is not known of any recording"
    if np.ptp(known) == 0:
        return "is the same in all recordings"
    if len(people) < MINIMUM_SUBJECTS:
        return f"is known of {len(people)} subjects; {MINIMUM_SUBJECTS} are needed"
    if one.levels and len(np.unique(known)) > len(people) // 2:
        return "has more than one category for every two subjects"
    return None


def is_property(name: str) -> bool:
    """Whether a column of a table of participants is one by its name.

    Parameters
    ----------
    name
        Name of the column.

    Returns
    -------
    bool
        True for names with a word such as site, scanner, centre, batch, manufacturer or coil, for
        age and for sex.

    Examples
    --------
    >>> [name for name in ("SITE_ID", "scanner", "age", "iq", "language") if is_property(name)]
    ['SITE_ID', 'scanner', 'age']
    """
    return bool(_is_site(name) or words_of(name) & COMPARED_WORDS)


def _is_site(name: str) -> bool:
    return bool(words_of(name) & SITE_WORDS and not words_of(name) & NUMBER_WORDS)


def make_property(
    name: str,
    column: Sequence[str | None],
    owners: Sequence[str],
    *,
    kind: str | None = None,
    levels: Collection[str] = (),
) -> tuple[Property, Coded]:
    """Make a property of a column.

    Parameters
    ----------
    name
        Name of the column. One that names a site, a scanner and the like is a category.
    column
        (N,) text per recording, None where it is missing.
    owners
        (N,) the subject of each recording, for messages.
    kind
        "number" or "category", if it is known.
    levels
        Values that participants.json declares as categories.

    Returns
    -------
    Property
        Its values.
    Coded
        How the column was understood.

    Raises
    ------
    UserError
        If a column of numbers holds a word.

    Examples
    --------
    >>> make_property("scanner", ["1", "2", None], ["a", "b", "c"])[0].levels
    ('1', '2')
    """
    if kind is None and _is_site(name):
        kind = CATEGORY
    coded = understand(name, column, owners, kind=kind, levels=levels)
    if coded.kind == NUMBER:
        return Property(name, coded.numbers), coded
    found = sorted({text for text in coded.texts if text is not None})
    values = [np.nan if text is None else found.index(text) for text in coded.texts]
    return Property(name, np.array(values, dtype=np.float64), tuple(found)), coded
