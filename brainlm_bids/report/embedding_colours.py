"""What may colour the maps of a cohort: classes of a variable, and their legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.coding import CATEGORY
from brainlm_bids.figures.palette import CATEGORIES, SEQUENTIAL
from brainlm_bids.report.embedding_shapes import N_SHAPES
from brainlm_bids.report.group_audit import SHARE
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, number, read_json, read_tsv

# Numbers so many interquartile ranges beyond the quartiles do not stretch the colours
FENCE = 1.5
MISSING = "-"


class Entry(NamedTuple):
    """A class of a legend: its name, colour, the number of its shape, and how many recordings."""

    label: str
    colour: str
    shape: int
    n: int


@dataclass(frozen=True)
class Variable:
    """What may colour the maps.

    Attributes
    ----------
    name
        As in the tables.
    is_number
        Whether its classes are ranges of numbers.
    classes
        A character per recording: the number of its entry in the legend, or `-` where missing.
    values
        A text per recording; empty for categories, whose texts are those of the legend.
    legend
        The classes.
    shares
        For each map, how much of the variance goes with the variable, in words.
    """

    name: str
    is_number: bool
    classes: str
    values: list[str]
    legend: list[Entry]
    shares: dict[str, str] = field(default_factory=dict)


def gather_variables(
    naming: Naming,
    label: str,
    stems: Sequence[str],
    about: Mapping[str, Any],
    audited: Sequence[Row],
) -> list[Variable]:
    """The columns of the table of variables, in its order."""
    path = naming.path("group_variables", model=label)
    rows = {row["recording"]: row for row in read_tsv(path)}
    kinds = mapping(read_json(path.with_suffix(".json")).get("Kinds"))
    found = []
    for name, kind in kinds.items():
        texts = [rows.get(stem, {}).get(name, "n/a") for stem in stems]
        one = category(name, texts) if kind == CATEGORY else measured(name, texts)
        if one is not None:
            one.shares.update(_shares(name, about, audited))
            found.append(one)
    return found


def category(name: str, texts: Sequence[str]) -> Variable | None:
    """A variable of categories; None if all recordings are alike.

    Parameters
    ----------
    name
        Of the variable.
    texts
        A category per recording; n/a where missing.

    Examples
    --------
    >>> category("sex", ["f", "m", "n/a", "f"]).classes
    '01-0'
    """
    levels = sorted({text for text in texts if text != "n/a"})
    if len(levels) < 2:
        return None
    number_of = {level: str(k) for k, level in enumerate(levels[:N_SHAPES])}
    legend = [
        Entry(level, CATEGORIES[k % len(CATEGORIES)], k, sum(text == level for text in texts))
        for k, level in enumerate(levels[:N_SHAPES])
    ]
    classes = "".join(number_of.get(text, MISSING) for text in texts)
    return Variable(name, False, classes, [], legend)


def measured(name: str, texts: Sequence[str]) -> Variable | None:
    """A variable of numbers in seven equal ranges; None if all recordings are alike.

    The ranges end 1.5 interquartile ranges beyond the quartiles at most; numbers further out belong
    to the first and the last range.

    Parameters
    ----------
    name
        Of the variable.
    texts
        A number per recording; n/a where missing.

    Examples
    --------
    >>> measured("age", ["20", "90", "n/a", "40"]).classes
    '06-2'
    """
    values = np.array([np.nan if (v := as_float(text)) is None else v for text in texts])
    known = values[np.isfinite(values)]
    if not known.size or known.min() == known.max():
        return None
    low, high = float(known.min()), float(known.max())
    first, third = (float(v) for v in np.percentile(known, [25, 75]))
    if third > first:
        reach = FENCE * (third - first)
        low, high = max(low, first - reach), min(high, third + reach)
    n_classes = len(SEQUENTIAL)
    places = np.full(len(values), -1)
    finite = np.isfinite(values)
    places[finite] = np.clip((values[finite] - low) / (high - low) * n_classes, 0, n_classes - 1)
    edges = [number(float(edge), 3) for edge in np.linspace(low, high, n_classes + 1)]
    labels = [f"{edges[k]} to {edges[k + 1]}" for k in range(n_classes)]
    if known.min() < low:
        labels[0] = f"up to {edges[1]}"
    if known.max() > high:
        labels[-1] = f"from {edges[-2]}"
    legend = [
        Entry(text, SEQUENTIAL[k], 0, int((places == k).sum())) for k, text in enumerate(labels)
    ]
    classes = "".join(MISSING if place < 0 else str(place) for place in places.tolist())
    written = ["n/a" if (v := as_float(text)) is None else number(v, 4) for text in texts]
    return Variable(name, True, classes, written, legend)


def uncoloured(n_recordings: int) -> Variable:
    """All recordings alike, where no variable differs between them."""
    entry = Entry("recordings", CATEGORIES[0], 0, n_recordings)
    return Variable("", False, "0" * n_recordings, [], [entry])


def _shares(name: str, about: Mapping[str, Any], audited: Sequence[Row]) -> dict[str, str]:
    """For each map, the share of the variance that goes with a variable, in words."""
    texts = {}
    for key, how in about.items():
        kind = str(mapping(how).get("Features"))
        everything = next(
            (
                row
                for row in audited
                if (row["variable"], row["measure"], row["features"]) == (name, SHARE, kind)
            ),
            {},
        )
        share, p = as_float(everything.get("value")), as_float(everything.get("p"))
        if share is None:
            texts[key] = f"How much of the variance goes with {name} was not measured."
            continue
        tested = "" if p is None else f" (p = {number(p, 2)})"
        text = f"{name}: {100 * share:.1f} % of the variance of all dimensions above chance{tested}"
        shown = mapping(mapping(mapping(how).get("VarianceShares")).get(name)).get("AboveChance")
        if (in_map := as_float(shown)) is not None:
            text += f", {100 * in_map:.1f} % of that in this map"
        texts[key] = f"{text}."
    return texts
