"""The table of recordings on the page of a cohort: status, variables, measures, and what is odd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.report.advice import advice_on
from brainlm_bids.report.measures import Measure, in_order, is_measure, outliers
from brainlm_bids.report.recordings import RecordingSummary, gather_recordings, named
from brainlm_bids.report.values import Row, as_float, number, read_tsv

# Of the tables of people, the page shows so many columns; all of them are in their own table
MOST_VARIABLES = 6


@dataclass(frozen=True)
class Cell:
    """A measure of a recording: as text, as a number, and why it is marked, if it is."""

    text: str
    value: float | None
    reason: str = ""

    @property
    def mark(self) -> str:
        """A symbol that does not depend on colour; empty for a number that is not marked.

        >>> Cell("1.2", 1.2, "unusually high (others: at most 0.5 mm)").mark
        '▲'
        """
        if not self.reason:
            return ""
        return {"unusually high": "▲", "unusually low": "▼"}.get(
            " ".join(self.reason.split(" ")[:2]), "!"
        )


@dataclass(frozen=True)
class Line:
    """A recording: its summary, status in the cohort, variables and measures."""

    recording: RecordingSummary
    status: str
    reason: str
    variables: list[str]
    cells: list[Cell]
    warnings: list[str]


@dataclass(frozen=True)
class Recordings:
    """The table.

    Attributes
    ----------
    variables
        Names of the columns of variables.
    measures
        Of the columns of measures.
    lines
        In the order of the table of recordings.
    """

    variables: list[str]
    measures: list[Measure]
    lines: list[Line]

    @property
    def incomplete(self) -> list[Line]:
        """The recordings of which something is missing from the analysis."""
        return [one for one in self.lines if one.status != "included" or one.reason]


def gather_lines(naming: Naming, rows: Sequence[Row], labels: Sequence[str]) -> Recordings:
    """Put together what the folder holds about each recording of a cohort.

    Parameters
    ----------
    naming
        Of the group's files.
    rows
        Of the table of recordings.
    labels
        Of the models, of which the first has the table of variables.
    """
    known = {
        one.stem: one
        for one in gather_recordings(Path(naming.output_dir))
        if one.atlas in ("", naming.atlas)
    }
    folder = Path(naming.output_dir)
    summaries = [_summary(folder, row, known.get(row.get("recording", ""))) for row in rows]
    measures = [
        one for one in in_order({key for one in summaries for key in one.values}) if one.index
    ]
    marked = outliers(summaries, measures)
    names, variables = _variables(naming, labels)
    lines = [
        Line(
            one,
            row.get("status", ""),
            row.get("reason", "").removeprefix("n/a"),
            [variables.get(one.stem, {}).get(name, "n/a") for name in names],
            [_cell(one, measure, reasons) for measure in measures],
            [advice_on(kind).title for kind in one.warnings],
        )
        for row, one, reasons in zip(rows, summaries, marked, strict=True)
    ]
    return Recordings(names, measures, lines)


def _summary(folder: Path, row: Row, known: RecordingSummary | None) -> RecordingSummary:
    """What the folder knows of a recording, with the measures of the cohort's table."""
    values = {
        key: value
        for key, text in row.items()
        if is_measure(key) and (value := as_float(text)) is not None
    }
    known = known or named(folder, row.get("recording", ""))
    return replace(known, values={**values, **known.values})


def _cell(one: RecordingSummary, measure: Measure, reasons: Mapping[str, str]) -> Cell:
    value = one.values.get(measure.key)
    return Cell(measure.shown(value), value, reasons.get(measure.key, ""))


def _variables(naming: Naming, labels: Sequence[str]) -> tuple[list[str], dict[str, Row]]:
    """Columns of the tables of people, and their values by the name of the recording."""
    for label in labels:
        rows = read_tsv(naming.path("group_variables", model=label))
        if rows:
            names = [
                name
                for name in rows[0]
                if name not in ("recording", "session_id", "task", "run") and not is_measure(name)
            ]
            chosen = names[:MOST_VARIABLES]
            shown = {
                row["recording"]: {name: _short(row.get(name, "n/a")) for name in chosen}
                for row in rows
            }
            return chosen, shown
    return [], {}


def _short(text: str) -> str:
    """A number without digits that nobody reads; a category as it is."""
    return number(text, 4) if as_float(text) is not None else text
