"""The page of the index: every recording of a folder a row, and a strip plot of every measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup, escape

from brainlm_bids.report.measures import NONE, Measure, outliers, rule
from brainlm_bids.report.page import Places, render
from brainlm_bids.report.places import GROUP_PAGE
from brainlm_bids.report.recordings import RecordingSummary, level_of, measures_of
from brainlm_bids.report.strips import Strip, strip
from brainlm_bids.report.values import read_json

MISSING = "–"
# Rows of a part of the table, which a browser lays out when it comes into view
PART = 50
Cell = tuple[str, str, str]


@dataclass(frozen=True)
class Column:
    """A column of numbers: its heading, what it holds, the measure of its strip, and its cells.

    A cell is the text, the number to sort by where the text is none, and why it is marked.
    """

    heading: str
    about: str
    key: str
    cells: list[Cell]


@dataclass(frozen=True)
class IndexRow:
    """A recording with what the page adds to it."""

    recording: RecordingSummary
    marked: str
    n_marked: int
    grave: str
    warnings: str
    weight: int
    cells: Markup


@dataclass
class Section:
    """Strips, each with its marked recordings (number, reason); and what is the same in all."""

    strips: list[tuple[Strip, list[tuple[RecordingSummary, str, str]]]] = field(
        default_factory=list
    )
    equal: list[str] = field(default_factory=list)


def build_page(output_dir: Path, recordings: Sequence[RecordingSummary], *, version: str) -> str:
    """The page of the index.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    recordings
        All of them, in their order.
    version
        Version of this program.

    Returns
    -------
    str
        The page; it links to files by paths relative to the output folder.
    """
    shown = [one for one in measures_of(recordings) if one.index]
    marked = outliers(recordings, shown)
    columns = _columns(recordings, shown, marked)
    about = read_json(output_dir / "dataset_description.json")
    return render(
        "index.html.j2",
        Places(group=GROUP_PAGE if (output_dir / GROUP_PAGE).is_file() else ""),
        name=str(about.get("Name") or "Recordings"),
        n_participants=len({one.participant for one in recordings}),
        counts=_counts(recordings, marked),
        sections=_strips(recordings, shown, marked),
        columns=columns,
        n_recordings=len(recordings),
        rows=_rows(recordings, marked, columns),
        part=PART,
        choices=_choices(recordings),
        several_atlases=len({(one.space, one.atlas) for one in recordings if one.atlas}) > 1,
        has_cohort=any(one.cohort for one in recordings),
        has_thumbnails=any(one.thumbnail for one in recordings),
        rule=rule(),
        about=_about(about, version),
    )


def _counts(
    recordings: Sequence[RecordingSummary], marked: Sequence[dict[str, str]]
) -> list[tuple[str, int, str, str]]:
    """Label, number, fragment that filters the table, and the level: what a lab looks at first."""
    of_status = Counter(one.status for one in recordings)
    known = ("done", "failed", "skipped")
    order = [*known, *sorted(set(of_status) - set(known))]
    levels = {"failed": "danger", "skipped": "warning"}
    counts = [("recordings", len(recordings), "", "")]
    counts += [
        (status, of_status[status], f"status={status}", levels.get(status, ""))
        for status in order
        if of_status[status]
    ]
    dangers = sum(one.level == "danger" for one in recordings)
    with_marks = sum(bool(reasons) for reasons in marked)
    if dangers:
        counts.append(("not to be interpreted", dangers, "warnings=danger", "danger"))
    counts.append(("with marked numbers", with_marks, "marked=1", "warning" if with_marks else ""))
    excluded = sum(one.cohort not in ("", "included") for one in recordings)
    if excluded:
        counts.append(("not in the cohort", excluded, "cohort=excluded", "warning"))
    return counts


def _strips(
    recordings: Sequence[RecordingSummary],
    shown: Sequence[Measure],
    marked: Sequence[dict[str, str]],
) -> dict[str, Section]:
    """The strips below their headings; a measure that is the same in all recordings needs none."""
    found: dict[str, Section] = {}
    for one in shown:
        if one.bad == NONE:
            continue
        section = found.setdefault(one.section, Section())
        drawn = strip(one, recordings, [one.key in reasons for reasons in marked])
        if drawn is None:
            section.equal.append(_equal(one, recordings))
            continue
        odd = [
            (row, one.shown(row.values[one.key], unit=True), reasons[one.key])
            for row, reasons in zip(recordings, marked, strict=True)
            if one.key in reasons
        ]
        section.strips.append((drawn, odd))
    return found


def _equal(one: Measure, recordings: Sequence[RecordingSummary]) -> str:
    """What is said instead of a strip."""
    values = [row.values[one.key] for row in recordings if one.key in row.values]
    number = one.shown(values[0], unit=True)
    whom = {1: "the only recording", 2: "both recordings"}.get(
        len(values), f"all {len(values)} recordings"
    )
    return f"{one.label}: {number} in {whom}."


def _columns(
    recordings: Sequence[RecordingSummary],
    shown: Sequence[Measure],
    marked: Sequence[dict[str, str]],
) -> list[Column]:
    """A column for each measure in which recordings differ."""
    columns = []
    for one in shown:
        values = {row.values[one.key] for row in recordings if one.key in row.values}
        if one.bad == NONE or (len(values) == 1 and len(recordings) > 1):
            continue
        cells = [
            (
                one.shown(row.values[one.key]) if one.key in row.values else MISSING,
                "",
                reasons.get(one.key, ""),
            )
            for row, reasons in zip(recordings, marked, strict=True)
        ]
        columns.append(Column(one.heading, f"{one.label}. {one.about}", one.key, cells))
        baselines = [other for other in shown if other.key.startswith(f"{one.key}_")]
        if baselines:
            columns.append(_best(recordings, baselines))
    return columns


def _best(recordings: Sequence[RecordingSummary], baselines: Sequence[Measure]) -> Column:
    """The best of the baselines of a model, by name."""
    cells = []
    for row in recordings:
        known = [(row.values[one.key], one) for one in baselines if one.key in row.values]
        if not known:
            cells.append((MISSING, "", ""))
            continue
        value, best = max(known, key=lambda pair: pair[0])
        cells.append((f"{best.shown(value)} {best.short.removeprefix('R² ')}", f"{value:.7g}", ""))
    return Column(
        "Best baseline", f"R² of the best of the baselines. {baselines[0].about}", "", cells
    )


def _rows(
    recordings: Sequence[RecordingSummary],
    marked: Sequence[dict[str, str]],
    columns: Sequence[Column],
) -> list[IndexRow]:
    headings = {column.key: column.heading.partition(" (")[0] for column in columns}
    return [
        IndexRow(
            row,
            ", ".join(headings[key] for key in reasons if key in headings),
            len(reasons),
            _kinds(row, grave=True),
            _kinds(row, grave=False),
            _weight(row),
            Markup("".join(_cell(*column.cells[place]) for column in columns)),
        )
        for place, (row, reasons) in enumerate(zip(recordings, marked, strict=True))
    ]


def _cell(text: str, value: str, reason: str) -> str:
    """There are so many of them that the template would take seconds."""
    attributes = f' data-value="{escape(value)}"' if value else ""
    if reason:
        attributes += f' class="odd" title="{escape(reason)}"'
    return f"<td{attributes}>{escape(text)}</td>"


def _kinds(one: RecordingSummary, *, grave: bool) -> str:
    """The warnings because of which it must not be interpreted, or the others."""
    kinds = [kind for kind in one.warnings if (level_of(kind) == "danger") == grave]
    return ", ".join(kind.replace("_", " ") for kind in kinds)


def _weight(one: RecordingSummary) -> int:
    """By what warnings are sorted: the number of grave ones, then of the others."""
    dangers = sum(level_of(kind) == "danger" for kind in one.warnings)
    return 100 * dangers + len(one.warnings) - dangers


def _choices(recordings: Sequence[RecordingSummary]) -> list[tuple[str, str, list[str]]]:
    """What the table can be filtered by: name, label and values; only where there are several."""
    found = [
        ("status", "Status", sorted({one.status for one in recordings})),
        ("task", "Task", sorted({one.task for one in recordings if one.task})),
        ("session", "Session", sorted({one.session for one in recordings if one.session})),
        ("cohort", "Cohort", sorted({one.cohort for one in recordings if one.cohort})),
    ]
    return [(key, label, values) for key, label, values in found if len(values) > 1]


def _about(description: dict[str, object], version: str) -> list[tuple[str, str]]:
    rows = [("brainlm-bids", version)]
    tools = description.get("GeneratedBy")
    rows += [
        ("Folder written by", f"{tool['Name']} {tool.get('Version', '')}".strip())
        for tool in (tools if isinstance(tools, list) else [])
        if isinstance(tool, dict) and tool.get("Name")
    ]
    if description.get("BIDSVersion"):
        rows.append(("BIDS", str(description["BIDSVersion"])))
    return rows
