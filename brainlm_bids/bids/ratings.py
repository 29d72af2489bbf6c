"""What people said of recordings after they had looked at their reports: a table of ratings.

The pages of the reports write such tables, and so may anybody: a column `recording` and a column
`rating`, with a row per recording and rater.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath

from brainlm_bids.cells import is_missing
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_rows
from brainlm_bids.notices import Kind, Notice, notice

# Columns of the table; the first two are needed.
COLUMNS = ("recording", "rating", "reasons", "note", "rater", "rated")
# How many names a message lists.
_SHOWN = 3


class Verdict(StrEnum):
    """What a person says of a recording, the worst last."""

    PASS = "pass"
    DOUBTFUL = "doubtful"
    FAIL = "fail"


@dataclass(frozen=True)
class Rating:
    """What one person, or the strictest of several, said of a recording.

    Attributes
    ----------
    verdict
        Whether it can be used.
    reasons, note
        Why, in catchwords and in free text; empty where nothing was said.
    """

    verdict: Verdict
    reasons: str = ""
    note: str = ""

    def __str__(self) -> str:
        """As a reason in a table: `rated fail (motion; moved at the end)`."""
        why = "; ".join(text for text in (self.reasons, self.note) if text)
        return f"rated {self.verdict}" + (f" ({why})" if why else "")


@dataclass(frozen=True)
class Ratings:
    """Ratings by the name of the recording.

    Attributes
    ----------
    of
        The rating of each recording that has one.
    path
        The table.
    """

    of: Mapping[str, Rating] = field(default_factory=dict)
    path: Path | None = None

    def of_recording(self, stem: str) -> Rating | None:
        """The rating of a recording, if it was rated."""
        return self.of.get(stem)

    def unmatched(self, stems: Iterable[str]) -> list[Notice]:
        """A notice of the rated recordings that are not among these; none if there is none."""
        others = sorted(set(self.of) - set(stems))
        if not others:
            return []
        shown = ", ".join(others[:_SHOWN]) + (", …" if len(others) > _SHOWN else "")
        text = f"{self.path}: {len(others)} of {len(self.of)} rated recordings are not among those "
        return [notice(Kind.RATINGS_UNMATCHED, f"{text}of this call: {shown}.")]


def read_ratings(path: Path | None) -> Ratings:
    """Read a table of ratings.

    Of several rows by one rater the last counts (by the column `rated`, and in the order of the
    rows), and of several raters the strictest.

    Parameters
    ----------
    path
        A TSV with the columns `recording` and `rating` (pass, doubtful or fail), and if it has
        them `reasons`, `note`, `rater` and `rated`; None for no ratings. A recording is named as
        in the reports (`sub-01_task-rest_run-1`); the name of its BOLD file does as well.

    Raises
    ------
    UserError
        If the file is no such table.
    """
    if path is None:
        return Ratings()
    rows = read_rows(path)
    missing = [name for name in COLUMNS[:2] if not rows or name not in rows[0]]
    if missing:
        raise UserError(f"{path}: has no rows, or no column {' or '.join(missing)}")
    latest: dict[tuple[str, str], Rating] = {}
    dated = sorted(enumerate(rows, start=2), key=lambda one: one[1].get("rated") or "")
    for line, row in dated:
        if is_missing(row["rating"]):
            continue
        rating = _rating(path, line, row)
        latest[_stem(row["recording"]), _text(row, "rater")] = rating
    of: dict[str, Rating] = {}
    strictness = list(Verdict)
    for (stem, _), rating in sorted(latest.items()):
        known = of.get(stem)
        if known is None or strictness.index(rating.verdict) > strictness.index(known.verdict):
            of[stem] = rating
    return Ratings(of, path)


def _rating(path: Path, line: int, row: Mapping[str, str]) -> Rating:
    word = row["rating"].strip().lower()
    if word not in set(Verdict):
        raise UserError(
            f"{path}: line {line}: the rating of {row['recording']!r} is {row['rating']!r}; it has "
            f"to be one of {', '.join(Verdict)}, or n/a"
        )
    if is_missing(row["recording"]):
        raise UserError(f"{path}: line {line}: a rating without the name of a recording")
    return Rating(Verdict(word), _text(row, "reasons"), _text(row, "note"))


def _text(row: Mapping[str, str], column: str) -> str:
    cell = row.get(column)
    return "" if cell is None or is_missing(cell) else cell.strip()


def _stem(cell: str) -> str:
    """The name of a recording, from that of its section in a report, or of its file.

    >>> _stem("sub-01/func/sub-01_task-rest_bold.nii.gz"), _stem("sub-01_task-rest ")
    ('sub-01_task-rest', 'sub-01_task-rest')
    """
    name = PurePosixPath(cell.strip().replace("\\", "/")).name.partition(".")[0]
    return name.removesuffix("_bold")
