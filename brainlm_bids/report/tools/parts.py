"""What a page of a tool consists of: sections of sentences, tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from brainlm_bids.notices import Notice
from brainlm_bids.report.advice import Advice, advice_on
from brainlm_bids.report.best import decimals
from brainlm_bids.report.figure_files import FigureFile
from brainlm_bids.report.values import Fact, as_float, number


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, the number by which it is sorted, and a link."""

    text: str
    value: float | None = None
    href: str = ""


@dataclass(frozen=True)
class TableRow:
    """A row of a table; `best` marks the best one by the table's rule."""

    cells: tuple[Cell, ...]
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its caption, which states the rule by which a row is marked.

    Attributes
    ----------
    caption
        What it shows.
    header
        A word per column.
    rows
        As many cells each.
    folded
        Whether the table opens on demand.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[TableRow, ...]
    folded: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        return [
            any(line.cells[place].value is not None for line in self.rows)
            for place in range(len(self.header))
        ]


@dataclass(frozen=True)
class Warned:
    """A warning of a sidecar, with what its reader should do."""

    notice: Notice
    advice: Advice
    about: str = ""


@dataclass
class Section:
    """A section of a page: what is claimed, in sentences, and the numbers behind it."""

    heading: str
    anchor: str
    lead: str = ""
    claims: list[str] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    figures: list[FigureFile] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def cell(value: object, digits: int = 3) -> Cell:
    """A cell of a number or a text.

    Examples
    --------
    >>> cell("0.12345"), cell("n/a"), cell("a")
    (Cell(text='0.123', value=0.12345, href=''), Cell(text='n/a', value=None, href=''), \
Cell(text='a', value=None, href=''))
    """
    return Cell(number(value, digits), as_float(value))


def score(value: object) -> Cell:
    """A cell of a score, with as many decimals as the sentences beside the table have.

    Examples
    --------
    >>> score("0.12345").text, score("n/a").text
    ('0.123', 'n/a')
    """
    return Cell(decimals(as_float(value)), as_float(value))


def written(value: float) -> str:
    """A number as `cell` writes it."""
    return cell(value).text


def row(values: Iterable[object], *, best: bool = False) -> TableRow:
    """A row of cells; those that are cells stay as they are."""
    return TableRow(tuple(v if isinstance(v, Cell) else cell(v) for v in values), best)


def best_place(values: Sequence[float | None], *, smallest: bool = False) -> int | None:
    """Where the largest (smallest) of some values is, the first of equal ones; None without any.

    Examples
    --------
    >>> best_place([0.1, None, 0.3, 0.3]), best_place([None])
    (2, None)
    """
    known = [(v if smallest else -v, place) for place, v in enumerate(values) if v is not None]
    return min(known)[1] if known else None


def warned(notices: Iterable[Notice], about: str = "") -> list[Warned]:
    """Warnings with their advice, each once."""
    return [Warned(one, advice_on(one.kind), about) for one in dict.fromkeys(notices)]
