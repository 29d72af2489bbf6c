"""The maps of a cohort's recordings, as the group's page draws them.

Tables of coordinates and variables come in. What goes out is what the page shows without its
script, the first map in the colours of the first variable, and all maps and variables as data, from
which `data/scripts/scatter.js` draws the others. Colours, shapes, classes and words are made here
alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.coding import CATEGORY
from brainlm_bids.cohort.maps import MINIMUM_FOR_UMAP, PCA, UMAP
from brainlm_bids.figures.palette import CATEGORIES, MUTED, SEQUENTIAL
from brainlm_bids.report.group_audit import FEATURES, SHARE
from brainlm_bids.report.page import recording_anchor
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, number, read_json, read_tsv

SIZE, MARGIN = 1000, 40
# Radius of a dot: it shrinks with their number
LARGEST_DOT, SMALLEST_DOT = 14.0, 3.5
# Numbers so many interquartile ranges beyond the quartiles do not stretch the colours
FENCE = 1.5
MISSING = "-"
BAR = "M-20-20H20V20H-20z"
_WARNINGS = {
    PCA: "Principal components of the standardised features. Distances in the map are at most "
    "those of all dimensions.",
    UMAP: "UMAP ({neighbours} neighbours, minimum distance {distance}, seed {seed}, umap-learn "
    "{version}) keeps neighbours together. Distances between clusters, their sizes and their "
    "densities mean nothing, and clusters appear in noise, too.",
}


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


class Panel(NamedTuple):
    """One kind of features in one map: its key, title, names of the axes, and places 0…1000."""

    key: str
    title: str
    axes: tuple[str, str]
    x: list[int]
    y: list[int]


class View(NamedTuple):
    """All maps by one method."""

    method: str
    label: str
    note: str
    panels: list[Panel]


class Drawn(NamedTuple):
    """A panel in the colours of the first variable: paths by colour."""

    panel: Panel
    share: str
    paths: list[tuple[str, str]]


@dataclass(frozen=True)
class EmbeddingMap:
    """The maps of one model.

    Attributes
    ----------
    views
        By method.
    variables
        What may colour them.
    drawn
        What is shown without the script.
    symbols
        Paths of the shapes, for the legend.
    missing
        Recordings without a value of the first variable.
    bar
        Path of a piece of the bar that is the legend of a number.
    many
        Whether dots are drawn without outlines.
    data
        Everything, as JSON.
    no_umap
        Why there is no UMAP; empty if there is.
    """

    views: list[View]
    variables: list[Variable]
    drawn: list[Drawn]
    symbols: list[str]
    missing: int
    bar: str
    many: bool
    data: str
    no_umap: str


def gather_map(naming: Naming, label: str) -> EmbeddingMap | None:
    """Read the maps of a model; None where there are none.

    Parameters
    ----------
    naming
        Of the group's files.
    label
        Label of the model.
    """
    path = naming.path("group_map", model=label)
    rows, about = read_tsv(path), mapping(read_json(path.with_suffix(".json")).get("Maps"))
    if not rows or not about:
        return None
    stems = [row["recording"] for row in rows]
    views = find_views(rows, about)
    audited = read_tsv(naming.path("group_confounding", model=label))
    variables = _variables(naming, label, stems, about, audited)
    radius = float(np.clip(130 / np.sqrt(len(rows)), SMALLEST_DOT, LARGEST_DOT))
    shapes = [shape(k, radius) for k in range(N_SHAPES)]
    first = variables[0] if variables else _uncoloured(len(rows))
    folder = Path(naming.output_dir)
    # a set, since 10,000 recordings are of few folders' pages
    pages = {page.name for page in folder.glob("sub-*.html")}
    places = [_page(stem, pages) for stem in stems]
    drawn = [
        Drawn(
            panel,
            first.shares.get(f"{panel.key}_{views[0].method}", ""),
            dots(panel, first, shapes),
        )
        for panel in views[0].panels
    ]
    data = {
        "recordings": stems,
        "pages": places,
        "shapes": shapes,
        "bar": BAR,
        "symbols": [shape(k, LARGEST_DOT) for k in range(N_SHAPES)],
        "missing": MUTED,
        "views": [
            view._replace(panels=[])._asdict() | {"panels": [p._asdict() for p in view.panels]}
            for view in views
        ],
        "variables": [_plain(one) for one in variables or [first]],
    }
    return EmbeddingMap(
        views,
        variables,
        drawn,
        [shape(k, LARGEST_DOT) for k in range(N_SHAPES)],
        first.classes.count(MISSING),
        BAR,
        len(rows) > 1000,
        json.dumps(data, ensure_ascii=False, separators=(",", ":")),
        "" if any(view.method == UMAP for view in views) else _no_umap(len(rows)),
    )


def _page(stem: str, pages: set[str]) -> str:
    """Link to the section of a recording; empty where its subject has no page."""
    page = f"{stem.split('_')[0]}.html"
    return f"{page}#{recording_anchor(stem)}" if page in pages else ""


def _no_umap(n_recordings: int) -> str:
    if n_recordings < MINIMUM_FOR_UMAP:
        return f"There is no UMAP of fewer than {MINIMUM_FOR_UMAP} recordings."
    return "For a UMAP, install umap-learn: pip install 'brainlm-bids[maps]'."


def _plain(one: Variable) -> dict[str, Any]:
    return {
        "name": one.name,
        "number": one.is_number,
        "classes": one.classes,
        "values": one.values,
        "legend": [entry._asdict() for entry in one.legend],
        "shares": one.shares,
    }


# --- places ------------------------------------------------------------------------------------


def find_views(rows: Sequence[Row], about: Mapping[str, Any]) -> list[View]:
    """The maps in a table of coordinates.

    Parameters
    ----------
    rows
        One for each recording.
    about
        How each map was made, by its key: the field Maps of the table's sidecar.
    """
    views = []
    for method, label in ((PCA, "PCA"), (UMAP, "UMAP")):
        panels, note = [], ""
        for kind, title in FEATURES.items():
            how = mapping(about.get(f"{kind}_{method}"))
            columns = [[as_float(row.get(f"{kind}_{method}_{k}")) for row in rows] for k in (1, 2)]
            if not how or any(value is None for column in columns for value in column):
                continue
            x, y = _placed(np.array(columns, dtype=np.float64))
            shares = how.get("VarianceOfAxes") or []
            axes = tuple(
                f"PC {k + 1}: {100 * float(shares[k]):.0f} %"
                if len(shares) == 2
                else f"UMAP {k + 1}"
                for k in range(2)
            )
            panels.append(Panel(kind, title, (axes[0], axes[1]), x, y))
            note = _WARNINGS[method].format(
                neighbours=how.get("Neighbours"),
                distance=how.get("MinimumDistance"),
                seed=how.get("Seed"),
                version=how.get("SoftwareVersion"),
            )
        if panels:
            views.append(View(method, label, note, panels))
    return views


def _placed(points: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Places (2, N) in the square, with one scale for both axes; the second axis points upwards."""
    low, high = points.min(axis=1), points.max(axis=1)
    scale = (SIZE - 2 * MARGIN) / max(float((high - low).max()), 1e-300)
    centre = (low + high) / 2
    inside = np.rint((points - centre[:, None]) * scale * [[1], [-1]] + SIZE / 2).astype(int)
    return inside[0].tolist(), inside[1].tolist()


# --- colours -----------------------------------------------------------------------------------


def _variables(
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


def _uncoloured(n_recordings: int) -> Variable:
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


# --- dots --------------------------------------------------------------------------------------

# Outlines of the shapes of categories around 0, in radii; the first is a circle
_OUTLINES: tuple[tuple[tuple[float, float], ...], ...] = (
    (),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)),
    ((0, -1.4), (1.1, 0), (0, 1.4), (-1.1, 0)),
    ((0, 1.3), (-1.2, -0.9), (1.2, -0.9)),
    (
        *((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)),
        *((0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)),
    ),
    ((-0.4, -1.3), (0.4, -1.3), (0.4, 1.3), (-0.4, 1.3)),
    ((-1.3, -0.4), (1.3, -0.4), (1.3, 0.4), (-1.3, 0.4)),
    ((-1.1, -1.1), (1.1, -1.1), (0, 0), (1.1, 1.1), (-1.1, 1.1), (0, 0)),
    ((-1.2, 0), (-0.6, -1), (0.6, -1), (1.2, 0), (0.6, 1), (-0.6, 1)),
)
N_SHAPES = len(_OUTLINES)


def shape(number: int, radius: float) -> str:
    """A shape as the relative part of an SVG path, to be written behind `M x y`.

    Parameters
    ----------
    number
        Of the shape, 0 to 9.
    radius
        Of a circle of about its size.

    Examples
    --------
    >>> shape(1, 10)
    'm-9-9l18 0l0 18l-18 0z'
    """
    outline = _OUTLINES[number]
    if not outline:
        r = f"{radius:g}"
        return f"m-{r} 0a{r} {r} 0 1 0 {2 * radius:g} 0a{r} {r} 0 1 0-{2 * radius:g} 0z"
    points = np.round(np.array(outline) * radius, 1)
    steps = [points[0], *np.diff(points, axis=0)]
    return "m" + "l".join(_pair(x, y) for x, y in steps) + "z"


def _pair(x: float, y: float) -> str:
    first, second = (f"{round(float(value), 1) + 0.0:g}" for value in (x, y))
    return f"{first}{'' if second.startswith('-') else ' '}{second}"


def dots(panel: Panel, variable: Variable, shapes: Sequence[str]) -> list[tuple[str, str]]:
    """Draw the recordings of a panel: one path for each class of a variable.

    Parameters
    ----------
    panel
        Places of the recordings.
    variable
        What colours them.
    shapes
        Paths of the shapes.

    Returns
    -------
    list of tuple
        Colour and path; recordings without a value come first, below the others.
    """
    paths = []
    entries = [(MISSING, MUTED, 0)]
    entries += [(str(k), one.colour, one.shape) for k, one in enumerate(variable.legend)]
    for code, colour, kind in entries:
        places = zip(panel.x, panel.y, variable.classes, strict=True)
        path = "".join(f"M{x} {y}{shapes[kind]}" for x, y, own in places if own == code)
        if path:
            paths.append((colour, path))
    return paths
