"""The maps of a cohort's recordings, as the group's page draws them.

Tables of coordinates and variables come in. What goes out is what the page shows without its
script, the first map in the colours of the first variable, and all maps and variables as data, from
which `data/scripts/scatter.js` draws the others. Colours, shapes, classes and words are made in
Python alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.maps import MINIMUM_FOR_UMAP, PCA, UMAP
from brainlm_bids.figures.palette import MUTED
from brainlm_bids.report.embedding_colours import MISSING, Variable, gather_variables, uncoloured
from brainlm_bids.report.embedding_shapes import N_SHAPES, shape
from brainlm_bids.report.group_audit import FEATURES
from brainlm_bids.report.page import recording_anchor
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, read_json, read_tsv

SIZE, MARGIN = 1000, 40
# Radius of a dot: it shrinks with their number
LARGEST_DOT, SMALLEST_DOT = 14.0, 3.5
BAR = "M-20-20H20V20H-20z"
_WARNINGS = {
    PCA: "Principal components of the standardised features. Distances in the map are at most "
    "those of all dimensions.",
    UMAP: "UMAP ({neighbours} neighbours, minimum distance {distance}, seed {seed}, umap-learn "
    "{version}) keeps neighbours together. Distances between clusters, their sizes and their "
    "densities mean nothing, and clusters appear in noise, too.",
}


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
    variables = gather_variables(naming, label, stems, about, audited)
    radius = float(np.clip(130 / np.sqrt(len(rows)), SMALLEST_DOT, LARGEST_DOT))
    shapes = [shape(k, radius) for k in range(N_SHAPES)]
    first = variables[0] if variables else uncoloured(len(rows))
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
