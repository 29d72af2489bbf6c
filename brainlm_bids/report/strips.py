"""Strip plots: the numbers of all recordings in one measure, a dot each, as coordinates of an SVG.

A strip is two paths, whatever the number of dots, so that a page with thousands of recordings opens
at once. It is complete without a script: axis, limits, median and marked dots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.report.measures import Compared, Measure, Range, all_fences, fixed_limit

# The coordinates of a strip: its size, the height of the axis, the room left and right of the dots,
# where the middle of the dots lies and how far they may reach from it
WIDTH, HEIGHT, AXIS, ROOM = 800, 172, 132, 24
_MIDDLE, _REACH = 66, 56
# Dots of one column of this width are put above one another; they are this far apart if that fits
_COLUMN, _STEP = 9, 9
# Numbers further than this many interquartile ranges beyond the quartiles do not stretch the axis;
# limits do, as far as this many times what the numbers span
_STRETCH, _TO_LIMIT = 6.0, 2.5
_TICKS = 5
# Quartiles of fewer numbers say nothing
_QUARTILES = 5


@dataclass(frozen=True)
class Strip:
    """A measure of all recordings.

    Attributes
    ----------
    measure
        What is shown.
    dots, marked
        Paths of all dots, in the order of the recordings that have a number, and of those that
        are marked.
    ticks
        Place and text of the ticks.
    bad
        Left edge and width of what is beyond a fixed limit.
    fences
        Where outliers begin, if the recordings are of one task.
    median
        Its place.
    summary
        Number of recordings, median and quartiles, in words.
    limits
        The fixed limits, in words; empty if there are none.
    beyond
        How many dots lie beyond the axis, in words; empty if none does.
    low, high
        The ends of the axis.
    """

    measure: Measure
    dots: str
    marked: str
    ticks: tuple[tuple[int, str], ...]
    bad: tuple[tuple[int, int], ...]
    fences: tuple[int, ...]
    median: int
    summary: str
    limits: str
    beyond: str
    low: float
    high: float

    def place(self, value: float) -> int:
        """The horizontal coordinate of a number, at the end of the axis if it is beyond."""
        return int(_places(np.array([value]), self.low, self.high)[0])


def strip(one: Measure, recordings: Sequence[Compared], is_marked: Sequence[bool]) -> Strip | None:
    """Lay out the numbers of all recordings.

    Parameters
    ----------
    one
        The measure.
    recordings
        All of a folder, in the order of the page.
    is_marked
        Whether the number of each is marked.

    Returns
    -------
    Strip or None
        None where no recording has a number, or all have the same.
    """
    having = [place for place, row in enumerate(recordings) if one.key in row.values]
    if not having:
        return None
    values = np.array([recordings[place].values[one.key] for place in having])
    if values.min() == values.max():
        return None
    of_kinds = _limits(one, recordings)
    limits = list(of_kinds.values())
    of_tasks = all_fences(recordings, one)
    of_task = next(iter(of_tasks.values())) if len(of_tasks) == 1 else None
    low, high = _axis(values, one.margin, [*limits, *([of_task] if of_task else [])])
    x = _places(values, low, high)
    y = _heights(x)
    chosen = np.array([is_marked[place] for place in having])
    median = float(np.median(values))
    edges = () if of_task is None else (of_task.low, of_task.high)
    return Strip(
        measure=one,
        dots=_path(x, y),
        marked=_path(x[chosen], y[chosen]),
        ticks=_ticks(one, low, high),
        bad=_bad(limits, low, high),
        fences=tuple(
            int(_places(np.array([edge]), low, high)[0])
            for edge in edges
            if edge is not None and low < edge < high
        ),
        median=int(_places(np.array([median]), low, high)[0]),
        summary=_summary(one, values),
        limits=_in_words(one, of_kinds),
        beyond=_beyond(values, low, high),
        low=low,
        high=high,
    )


def _limits(one: Measure, recordings: Sequence[Compared]) -> dict[str, Range]:
    """The fixed limits that apply to some recording, by the image that was normalised."""
    kinds = sorted({row.normalised for row in recordings if one.key in row.values})
    limits = {kind: fixed_limit(one, kind) for kind in kinds}
    return {kind: limit for kind, limit in limits.items() if limit is not None}


def _in_words(one: Measure, limits: Mapping[str, Range]) -> str:
    texts = {kind: limit.shown(one) for kind, limit in limits.items()}
    if len(set(texts.values())) < 2:
        return next(iter(texts.values()), "")
    return f"{texts['T1w']}, without a T1w image {texts['boldref']}"


def _axis(
    values: NDArray[np.float64], margin: float, ranges: Sequence[Range]
) -> tuple[float, float]:
    """The ends of the axis: all numbers but the furthest, and the limits that lie near."""
    first, third = np.percentile(values, (25, 75))
    reach = _STRETCH * max(float(third - first), margin, 1e-9)
    low, high = max(values.min(), first - reach), min(values.max(), third + reach)
    edges = [edge for one in ranges for edge in (one.low, one.high) if edge is not None]
    far = _TO_LIMIT * (high - low)
    near = [edge for edge in edges if low - far <= edge <= high + far]
    low, high = min([low, *near]), max([high, *near])
    room = 0.04 * (high - low) or max(margin, abs(high) * 0.01, 1e-6)
    return float(low - room), float(high + room)


def _places(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.int64]:
    share = np.clip((values - low) / (high - low), 0.0, 1.0)
    return np.round(ROOM + share * (WIDTH - 2 * ROOM)).astype(np.int64)


def _heights(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Dots in one column lie above and below one another, the first in the middle."""
    columns = x // _COLUMN
    order = np.argsort(columns, kind="stable")
    _, starts, counts = np.unique(columns[order], return_index=True, return_counts=True)
    rank = np.empty(len(x), np.int64)
    rank[order] = np.arange(len(x)) - np.repeat(starts, counts)
    step = min(float(_STEP), 2 * _REACH / max(int(counts.max()), 1))
    offset = np.where(rank % 2 == 1, 1, -1) * ((rank + 1) // 2)
    return np.round(_MIDDLE + step * offset).astype(np.int64)


def _path(x: NDArray[np.int64], y: NDArray[np.int64]) -> str:
    """A line without length for each dot, which its round end draws."""
    return "".join(f"M{a} {b}h0" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def _bad(limits: Sequence[Range], low: float, high: float) -> tuple[tuple[int, int], ...]:
    """What is beyond every fixed limit that applies."""
    areas = []
    lows = [limit.low for limit in limits if limit.low is not None]
    highs = [limit.high for limit in limits if limit.high is not None]
    if lows and min(lows) > low:
        areas.append((ROOM, int(_places(np.array([min(lows)]), low, high)[0]) - ROOM))
    if highs and max(highs) < high:
        edge = int(_places(np.array([max(highs)]), low, high)[0])
        areas.append((edge, WIDTH - ROOM - edge))
    return tuple(areas)


def _ticks(one: Measure, low: float, high: float) -> tuple[tuple[int, str], ...]:
    """Round numbers on the axis."""
    rough = (high - low) / _TICKS
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    numbers = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    texts = [f"{float(f'{value:.6g}') + 0.0:g}".replace("-", "−") for value in numbers]
    places = _places(numbers, low, high).tolist()
    return tuple(zip(places, texts, strict=True))


def _summary(one: Measure, values: NDArray[np.float64]) -> str:
    first, median, third = (float(value) for value in np.percentile(values, (25, 50, 75)))
    text = f"{len(values)} recordings, median {one.shown(median, unit=True)}"
    if len(values) < _QUARTILES:
        return text
    return f"{text}, quartiles {one.shown(first)} and {one.shown(third)}"


def _beyond(values: NDArray[np.float64], low: float, high: float) -> str:
    below, above = int((values < low).sum()), int((values > high).sum())
    parts = [f"{n} at the {side} edge" for n, side in ((below, "left"), (above, "right")) if n]
    total = "lies" if below + above == 1 else "lie"
    return f"{' and '.join(parts)} {total} beyond the axis" if parts else ""
