"""Where a recording lies among the others of its task: a strip for each measure, and its rank.

The dots of the others are drawn once for a page and a task, and each recording marks its own place
on them, so that a page with many recordings stays small.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from brainlm_bids.bids.derivatives import OfParticipant
from brainlm_bids.bids.names import without_prefix
from brainlm_bids.report.index_table import read_table
from brainlm_bids.report.map_place import CohortMap, find_maps
from brainlm_bids.report.measures import Measure, Range, all_fences, outliers
from brainlm_bids.report.page import anchor
from brainlm_bids.report.ranks import rank
from brainlm_bids.report.recordings import (
    RecordingSummary,
    gather_recordings,
    measures_of,
)

# With fewer others a rank says nothing.
LEAST_OTHERS = 4
# Of more recordings, so many evenly spaced ones among the sorted are drawn.
MOST_DOTS = 200
WIDTH, HEIGHT = 200.0, 16.0  # of a strip, in its own units
_EDGE = 4.0
_GOLDEN = 0.618034  # spreads dots over the height without a pattern


@dataclass(frozen=True)
class Scale:
    """A measure over the recordings of a task.

    Attributes
    ----------
    one
        The measure.
    identifier
        Of its dots on the page.
    values
        Of the recordings, sorted; there are at least two different ones.
    dots
        The dots of the recordings, as the path of an SVG.
    fence
        Left edge and width of the range that is not unusual; None where it is not known.
    """

    one: Measure
    identifier: str
    values: tuple[float, ...]
    dots: str
    fence: tuple[float, float] | None

    def place(self, value: float) -> float:
        """Where a value is on the strip."""
        low, high = self.values[0], self.values[-1]
        return round(_EDGE + (WIDTH - 2 * _EDGE) * (value - low) / (high - low), 1)


@dataclass(frozen=True)
class Strip:
    """A recording on the strip of a measure.

    Attributes
    ----------
    scale
        The strip.
    value
        Of the recording, as text.
    place
        Where it is marked.
    rank
        Its rank among the others, in words.
    """

    scale: Scale
    value: str
    place: float
    rank: str


class Cohort:
    """The recordings of a folder, to compare those of a page with.

    Parameters
    ----------
    recordings
        All of the folder.
    maps
        Of their embeddings.
    """

    def __init__(
        self, recordings: Sequence[RecordingSummary], maps: Sequence[CohortMap] = ()
    ) -> None:
        self._recordings = recordings
        self.maps = maps
        self._scales: dict[str, list[Scale]] = {}

    @cached_property
    def _marked(self) -> dict[str, tuple[RecordingSummary, dict[str, str]]]:
        marks = outliers(self._recordings, measures_of(self._recordings))
        found: dict[str, tuple[RecordingSummary, dict[str, str]]] = {}
        for one, marked in zip(self._recordings, marks, strict=True):
            found.setdefault(one.stem, (one, marked))
        return found

    def find(self, stem: str) -> tuple[RecordingSummary, dict[str, str]] | None:
        """A recording, and which of its numbers are marked, and why; None if there is none.

        Parameters
        ----------
        stem
            How the names of its files begin.
        """
        return self._marked.get(stem)

    def scales(self, task: str) -> list[Scale]:
        """The strips of a task: of the measures of the index that differ between its recordings.

        Parameters
        ----------
        task
            Its name.
        """
        if task not in self._scales:
            of_task = [one for one in self._recordings if one.task == task and one.finished]
            found = (_scale(of_task, one, task) for one in measures_of(of_task) if one.index)
            self._scales[task] = [scale for scale in found if scale is not None]
        return self._scales[task]

    def strips(self, stem: str) -> list[Strip]:
        """Where a recording lies on the strips of its task.

        Parameters
        ----------
        stem
            How the names of its files begin.
        """
        found = self.find(stem)
        if found is None or not found[0].finished:
            return []
        values = found[0].values
        return [
            Strip(
                scale,
                scale.one.shown(value, unit=True),
                scale.place(value),
                rank(value, scale.values),
            )
            for scale in self.scales(found[0].task)
            if (value := values.get(scale.one.key)) is not None
        ]


def find_cohort(output_dir: Path, labels: Collection[str]) -> Cohort:
    """The recordings of some subjects as their files have them, the others as the index has them.

    So the jobs of an array do not each read the files of all others.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    labels
        Of the subjects, without "sub-".
    """
    others = [
        one
        for one in read_table(output_dir) or ()
        if without_prefix("sub", one.participant) not in labels
    ]
    # what became of the subjects' recordings is not compared: no status table is read for it
    own = gather_recordings(output_dir, OfParticipant(tuple(labels)), rows={}) if labels else []
    recordings = sorted([*own, *others], key=lambda one: one.place)
    return Cohort(recordings, find_maps(output_dir))


def _scale(of_task: Sequence[RecordingSummary], one: Measure, task: str) -> Scale | None:
    """The strip of a measure; None where there are too few recordings, or all are alike."""
    values = sorted(r.values[one.key] for r in of_task if one.key in r.values)
    if len(values) <= LEAST_OTHERS or values[0] == values[-1]:
        return None
    blank = Scale(one, f"strip-{anchor(task)}-{one.key}", tuple(values), "", None)
    return replace(
        blank, dots=_dots(blank), fence=_fence(blank, all_fences(of_task, one).get(task))
    )


def _fence(scale: Scale, fence: Range | None) -> tuple[float, float] | None:
    """Left edge and width of the range that is not unusual, as far as the strip shows it."""
    if fence is None:
        return None
    left = 0.0 if fence.low is None else max(scale.place(fence.low), 0.0)
    right = WIDTH if fence.high is None else min(scale.place(fence.high), WIDTH)
    return left, round(right - left, 1)


def _dots(scale: Scale) -> str:
    """The dots of the recordings as a path: lines without length, with round ends."""
    values = scale.values
    places: Sequence[int] = range(len(values))
    if len(values) > MOST_DOTS:
        places = [int(k) for k in np.linspace(0, len(values) - 1, MOST_DOTS)]
    heights = (round(3 + (HEIGHT - 6) * ((k * _GOLDEN) % 1), 1) for k in range(len(places)))
    return "".join(
        f"M{scale.place(values[k]):g} {height:g}h0"
        for k, height in zip(places, heights, strict=True)
    )
