"""Where the warnings of a subject stand on its page: each once, in the part that it is about.

A warning that several recordings share stands before all of them; one of a single recording in that
recording's section. Recordings and the summary lead to the places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from brainlm_bids.notices import Level, Notice, gravest_first
from brainlm_bids.report.advice import RECORDING, Advice, advice_on

ANATOMICAL, MODEL = "Anatomical", "BrainLM"
# What warnings of each level ask of the reader: of one, of several.
LEVELS = {
    Level.DANGER.value: ("forbids interpretation", "forbid interpretation"),
    Level.WARNING.value: ("asks for attention", "ask for attention"),
    Level.NOTE.value: ("is a note", "are notes"),
}
_ALARMS = {Level.DANGER.value: "Do not interpret", Level.NOTE.value: "Note"}


class Warned(Protocol):
    """What has to be known of a model or a recording that has warnings."""

    @property
    def warnings(self) -> Sequence[Notice]:
        """Each once."""
        ...


class WarnedRun(Warned, Protocol):
    """A recording with its models."""

    @property
    def name(self) -> str:
        """How the names of its files begin."""
        ...

    @property
    def models(self) -> Sequence[Warned]:
        """The models that saw it."""
        ...


@dataclass(frozen=True)
class Placed:
    """A warning on the page.

    Attributes
    ----------
    notice
        What happened.
    advice
        What to do, and which part of the page it is about.
    anchor
        Its identifier on the page.
    runs
        Names of the recordings that have it.
    """

    notice: Notice
    advice: Advice
    anchor: str
    runs: tuple[str, ...]

    @property
    def level(self) -> str:
        """As sidecars name it; that of a later version counts as a warning."""
        known = {level.value for level in Level}
        return self.notice.level if self.notice.level in known else Level.WARNING.value

    @property
    def heading(self) -> str:
        """The kind as a sentence; empty where the text begins with it."""
        title = self.advice.title
        if self.notice.text.lower().startswith(title.lower()):
            return ""
        return f"{title[:1].upper()}{title[1:]}."

    @property
    def alarm(self) -> str:
        """How grave it is, in words."""
        return _ALARMS.get(self.level, "Take note")


@dataclass(frozen=True)
class PageWarnings:
    """All warnings of a page.

    Attributes
    ----------
    placed
        Every warning, the gravest first.
    several
        Whether the page has several recordings.
    """

    placed: tuple[Placed, ...]
    several: bool

    @property
    def shared(self) -> list[Placed]:
        """Those that several recordings have, but for those of the T1w image."""
        return [one for one in self.placed if len(one.runs) > 1 and not _anatomical(one)]

    @property
    def anatomical(self) -> list[Placed]:
        """Those of the T1w images."""
        return [one for one in self.placed if _anatomical(one)]

    def of_run(self, name: str) -> list[Placed]:
        """All that a recording has, wherever they stand.

        Parameters
        ----------
        name
            Of the recording.
        """
        return [one for one in self.placed if name in one.runs]

    def by_section(self, run: WarnedRun) -> dict[str, list[Placed]]:
        """Those that stand in a recording's section, by the parts of it.

        Parameters
        ----------
        run
            The recording.
        """
        found: dict[str, list[Placed]] = {}
        for one in self.of_run(run.name):
            if len(one.runs) == 1 and not _anatomical(one):
                found.setdefault(_section(one, run), []).append(one)
        return found

    def counts(self) -> list[tuple[str, int, str]]:
        """Level, number and what they ask of the reader; levels without a warning are left out."""
        return [(level, n, LEVELS[level][n > 1]) for level, n in levels(self.placed).items()]


def place_warnings(runs: Sequence[WarnedRun]) -> PageWarnings:
    """Find the place of every warning of some recordings.

    Parameters
    ----------
    runs
        All recordings of a page, in their order.

    Returns
    -------
    PageWarnings
        The same text in several sidecars is one warning.
    """
    where: dict[Notice, list[str]] = {}
    for run in runs:
        for one in dict.fromkeys(_of(run)):
            where.setdefault(one, []).append(run.name)
    ordered = enumerate(gravest_first(where), start=1)
    return PageWarnings(
        tuple(
            Placed(one, advice_on(one.kind), f"warning-{number}", tuple(where[one]))
            for number, one in ordered
        ),
        len(runs) > 1,
    )


def of_model(placed: Iterable[Placed], model: Warned, before: Iterable[Warned]) -> list[Placed]:
    """Those that stand in a model's part: in that of the first model that has them.

    Parameters
    ----------
    placed
        Of the recording's part about models.
    model
        The model.
    before
        The models whose parts stand before.
    """
    seen = {one for other in before for one in other.warnings}
    return [one for one in placed if one.notice in model.warnings and one.notice not in seen]


def _of(run: WarnedRun) -> list[Notice]:
    return [*run.warnings, *(one for model in run.models for one in model.warnings)]


def _anatomical(one: Placed) -> bool:
    return one.advice.section == ANATOMICAL


def _section(one: Placed, run: WarnedRun) -> str:
    """The part of a recording's section; its beginning for what has no part of its own."""
    section = one.advice.section
    if section == MODEL:
        in_model = any(one.notice in model.warnings for model in run.models)
        return MODEL if in_model else RECORDING
    return RECORDING if section in ("Cohort", "Experiment") else section


def levels(placed: Iterable[Placed]) -> Mapping[str, int]:
    """How many warnings of each level there are, the gravest level first.

    Parameters
    ----------
    placed
        Some warnings.
    """
    counted = {level.value: 0 for level in Level}
    for one in placed:
        counted[one.level] += 1
    return {level: number for level, number in counted.items() if number}
