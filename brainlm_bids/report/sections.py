"""The sections of a subject's page: a recording each, by session, with its parts and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from brainlm_bids.notices import Level
from brainlm_bids.report import figure_files
from brainlm_bids.report.advice import RECORDING
from brainlm_bids.report.cards import Card, cards
from brainlm_bids.report.contents import Model, Run, Subject
from brainlm_bids.report.figure_files import FigureFile
from brainlm_bids.report.map_place import Mark, marks
from brainlm_bids.report.measures import static_measures
from brainlm_bids.report.page import anchor, recording_anchor
from brainlm_bids.report.placing import LEVELS, MODEL, PageWarnings, Placed, levels, of_model
from brainlm_bids.report.standing import Cohort, Strip
from brainlm_bids.report.status import COLUMNS, NOT_DONE, of_group, recording_name
from brainlm_bids.report.values import Row

# It is shown without a figure too: it lists the parcels without data.
_ALWAYS_SHOWN = "Parcels"
# Shown without a figure where there are numbers.
IMAGE_QUALITY, REGISTRATION = "Image quality", "Registration"
_SIGNS = {Level.DANGER.value: "✗", Level.WARNING.value: "!", Level.NOTE.value: "i"}
# The row of a recording that no status table knows.
_UNTOLD = {"status": "done"}


@dataclass(frozen=True)
class Part:
    """A part of a recording's section: its heading, its identifier, what stands below."""

    heading: str
    anchor: str
    figures: list[FigureFile]
    warnings: list[Placed]


@dataclass(frozen=True)
class ModelPart:
    """The part about a model."""

    model: Model
    anchor: str
    warnings: list[Placed]


@dataclass(frozen=True)
class Section:
    """A recording on the page.

    Attributes
    ----------
    run
        What is known of it.
    anchor
        The section's identifier.
    session, title
        The label of its session, and what it is called within that.
    warnings
        All that it has, wherever they stand.
    own
        Those that stand in the section, by the part.
    cards, qualities
        Its numbers at a glance, and all measures of its image quality: label, value, explanation.
    strips, marks
        Where its numbers lie among those of other recordings, and where the recording lies on the
        maps of the cohort.
    parts, models
        What follows.
    """

    run: Run
    anchor: str
    session: str
    title: str
    warnings: list[Placed]
    own: dict[str, list[Placed]]
    cards: list[Card]
    qualities: list[tuple[str, str, str]]
    strips: list[Strip]
    marks: list[Mark]
    parts: list[Part]
    models: list[ModelPart]

    @property
    def task(self) -> str:
        """Name of the task; empty where it has none."""
        return self.run.entities.get("task", "")

    @property
    def links(self) -> dict[str, str]:
        """The identifiers of the parts that follow, by their headings."""
        of_models = {MODEL: self.models[0].anchor} if self.models else {}
        return {part.heading: part.anchor for part in self.parts} | of_models

    @property
    def full_title(self) -> str:
        """With the session."""
        return f"{session_title(self.session)} · {self.title}" if self.session else self.title

    @property
    def grave(self) -> str:
        """The level of its gravest warning, if that is more than a note."""
        found = [level for level in levels(self.warnings) if level != Level.NOTE]
        return found[0] if found else ""

    @property
    def alarm(self) -> str:
        """What its gravest warning asks of the reader."""
        return next((one.alarm for one in self.warnings if one.level == self.grave), "")


@dataclass(frozen=True)
class Session:
    """The recordings of a session; without a title where the data set has no sessions."""

    title: str
    sections: list[Section]


@dataclass(frozen=True)
class OverviewRow:
    """A row of the table of a subject's recordings.

    Attributes
    ----------
    title, anchor
        Of the recording and its section; the latter empty where it has none.
    row
        Of the status tables.
    reason
        Why it failed or was skipped; that of a finished one is a warning, which stands elsewhere.
    warnings, grave
        How many there are of each level (its sign, number and words), and a number to sort by.
    cards
        By their titles.
    """

    title: str
    anchor: str
    row: Row
    reason: str
    warnings: list[tuple[str, int, str]]
    grave: int
    cards: Mapping[str, Card]


def session_title(label: str) -> str:
    """What a session is called.

    >>> session_title("01"), session_title("")
    ('Session 01', '')
    """
    return f"Session {label}" if label else ""


def page_sections(page: Subject, warnings: PageWarnings, cohort: Cohort) -> list[Section]:
    """The sections of all recordings of a page.

    Parameters
    ----------
    page
        What the folder holds of the subject.
    warnings
        Those of the page, in their places.
    cohort
        All recordings of the folder.
    """
    return [_section(run, warnings, cohort) for run in page.runs]


def _section(run: Run, warnings: PageWarnings, cohort: Cohort) -> Section:
    name, own = recording_anchor(run.name), warnings.by_section(run)
    qualities = _qualities(run, cohort)
    shown = {_ALWAYS_SHOWN}
    shown |= {IMAGE_QUALITY} if qualities else set()
    shown |= {REGISTRATION} if run.registration or run.distortion else set()
    known = figure_files.sections("run")
    headings = [
        *(one for one in known if one in run.figures or one in own or one in shown),
        *(one for one in own if one not in (*known, RECORDING, MODEL)),
    ]
    models = [
        ModelPart(
            model, f"{name}-model-{k}", of_model(own.get(MODEL, []), model, run.models[: k - 1])
        )
        for k, model in enumerate(run.models, start=1)
    ]
    return Section(
        run,
        name,
        run.entities.get("ses", ""),
        _title(run),
        warnings.of_run(run.name),
        own,
        _cards(run, cohort),
        qualities,
        cohort.strips(run.name),
        marks(run.name, cohort.maps),
        [
            Part(one, f"{name}-{anchor(one)}", run.figures.get(one, []), own.get(one, []))
            for one in headings
        ],
        models,
    )


def _cards(run: Run, cohort: Cohort) -> list[Card]:
    found = cohort.find(run.name)
    if found is None:
        return []
    summary, unusual = found
    return cards(summary.values, unusual, summary.normalised)


def _qualities(run: Run, cohort: Cohort) -> list[tuple[str, str, str]]:
    found = cohort.find(run.name)
    values = {} if found is None else found[0].values
    return [
        (one.label, one.shown(values[one.key], unit=True), one.about)
        for one in static_measures()
        if one.section == IMAGE_QUALITY and one.key in values
    ]


def _title(run: Run) -> str:
    """What a recording is called within its session."""
    entities = [(key, label) for key, label in run.entities.items() if key not in ("sub", "ses")]
    return " · ".join(f"{key} {label}" for key, label in entities) or run.name


def sessions(sections: Sequence[Section]) -> list[Session]:
    """The sections by session, in their order.

    Parameters
    ----------
    sections
        Of a page.
    """
    found: dict[str, list[Section]] = {}
    for section in sections:
        found.setdefault(section.session, []).append(section)
    return [Session(session_title(label), listed) for label, listed in found.items()]


def overview(page: Subject, sections: Sequence[Section]) -> list[OverviewRow]:
    """A row for each recording, and for what the group level could not do with it.

    Parameters
    ----------
    page
        What the folder holds of the subject.
    sections
        Of the page.
    """
    of_run = {section.run.name: section for section in sections}
    rows = [row for row in page.status if not of_group(row) or row["status"] in NOT_DONE]
    known = {recording_name(row) for row in rows}
    untold = [section for section in sections if section.run.name not in known]
    return [
        *(_overview_row(row, of_run.get(recording_name(row))) for row in rows),
        *(_overview_row(dict.fromkeys(COLUMNS, "") | _UNTOLD, one) for one in untold),
    ]


def _overview_row(row: Row, section: Section | None) -> OverviewRow:
    title = section.full_title if section else recording_name(row) or row["source"] or row["task"]
    counted = levels(section.warnings) if section else {}
    grave = 0
    for level in Level:
        grave = 100 * grave + min(counted.get(level.value, 0), 99)
    return OverviewRow(
        f"{title} (group level)" if of_group(row) else title,
        section.anchor if section else "",
        row,
        row["reason"] if row["status"] in NOT_DONE else "",
        [(_SIGNS[one], number, LEVELS[one][number > 1]) for one, number in counted.items()],
        grave,
        {card.title: card for card in section.cards} if section else {},
    )


def columns(sections: Sequence[Section]) -> list[str]:
    """The titles of the cards of some recordings, each once.

    Parameters
    ----------
    sections
        Of a page.
    """
    return list(dict.fromkeys(card.title for section in sections for card in section.cards))
