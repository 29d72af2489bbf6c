"""What the reader of a warning should do, and where a report shows it: `data/warnings.toml`.

The kinds of warnings are those of `brainlm_bids.notices`; what happened in this very case is in the
text of the warning itself.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache

from brainlm_bids.files import DATA, read_text

# The parts of a report, in the order in which a subject's report shows them.
RECORDING = "Recording"
SECTIONS = (
    *(RECORDING, "Anatomical", "Registration", "Motion", "ICA-AROMA", "Parcels", "BrainLM"),
    *("Cohort", "Experiment"),
)


@dataclass(frozen=True)
class Advice:
    """What there is to say about a kind of warning.

    Attributes
    ----------
    title
        The warning in a few words.
    section
        The part of a report that it is about, one of `SECTIONS`.
    advice
        What its reader should do. Code stands between backquotes.
    """

    title: str
    section: str
    advice: str

    def parts(self) -> list[tuple[str, bool]]:
        """The advice in pieces, and whether each is code.

        >>> Advice("", "", "Use `--model 111M`.").parts()
        [('Use ', False), ('--model 111M', True), ('.', False)]
        """
        pieces = self.advice.split("`")
        return [(text, place % 2 == 1) for place, text in enumerate(pieces) if text]


@cache
def advice_table() -> dict[str, Advice]:
    """The table, by the names of the kinds."""
    rows: dict[str, dict[str, str]] = tomllib.loads(read_text(DATA / "warnings.toml"))
    return {kind: Advice(**row) for kind, row in rows.items()}


def advice_on(kind: str) -> Advice:
    """What there is to say about a kind; a kind of a later version has its name alone.

    Parameters
    ----------
    kind
        As sidecars name it.

    Examples
    --------
    >>> advice_on("no_t1w").section
    'Registration'
    >>> advice_on("of_the_future")
    Advice(title='of the future', section='Recording', advice='')
    """
    return advice_table().get(kind) or Advice(kind.replace("_", " "), RECORDING, "")
