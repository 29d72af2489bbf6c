"""Where a recording lies on the maps of a cohort's embeddings, once the group level has made them.

The dots of all recordings are drawn once for a page; a recording marks its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainlm_bids.bids.derivatives import Derivative, find_derivatives
from brainlm_bids.report.embedding_map import Panel, View, find_views
from brainlm_bids.report.page import anchor
from brainlm_bids.report.ranks import SIZE, rank
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import read_json, read_tsv

# Of more recordings, so many are drawn: every second, every third, ...
MOST_DOTS = 500
_EMBEDDING = "embedding"


class Place(NamedTuple):
    """A recording on a map: where, and how far from the middle compared with the others."""

    x: int
    y: int
    rank: str


@dataclass(frozen=True)
class CohortMap:
    """A map of the embeddings by one model.

    Attributes
    ----------
    identifier
        Of its dots on a page.
    title
        The model, and how the map was made.
    note
        What the map shows, and what it does not.
    dots
        The recordings, as the path of an SVG with the side `SIZE`.
    places
        By the names of the recordings.
    """

    identifier: str
    title: str
    note: str
    dots: str
    places: Mapping[str, Place]


@dataclass(frozen=True)
class Mark:
    """A recording on a map."""

    map: CohortMap
    place: Place


def find_maps(output_dir: Path) -> list[CohortMap]:
    """The maps that the group level has left in a folder, one for each model.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    """
    found = (_map(table) for table in find_derivatives(output_dir, ["group_map"]))
    return [one for one in found if one is not None]


def _map(table: Derivative) -> CohortMap | None:
    """The principal components of the embeddings; None where the table does not hold them."""
    rows = read_tsv(table.path)
    about = mapping(read_json(table.path.with_suffix(".json")).get("Maps"))
    if any("recording" not in row for row in rows):
        return None
    for view in find_views(rows, about) if rows else ():
        for panel in view.panels:
            if panel.key == _EMBEDDING:
                return _drawn(table, view, panel, [row["recording"] for row in rows])
    return None


def _drawn(table: Derivative, view: View, panel: Panel, stems: Sequence[str]) -> CohortMap:
    points = np.array([panel.x, panel.y], dtype=np.float64).T
    distances = np.hypot(*(points - np.median(points, axis=0)).T)
    ordered = sorted(float(distance) for distance in distances)
    step = -(-len(stems) // MOST_DOTS)
    task = table.naming.stem.partition("_")[2]
    return CohortMap(
        f"map-{anchor(task)}-{anchor(table.model)}",
        f"{table.model}, {view.label}",
        view.note,
        "".join(f"M{x} {y}h0" for x, y in zip(panel.x[::step], panel.y[::step], strict=True)),
        {
            stem: Place(x, y, _in_words(float(distance), ordered))
            for stem, x, y, distance in zip(stems, panel.x, panel.y, distances, strict=True)
        },
    )


def _in_words(distance: float, ordered: Sequence[float]) -> str:
    """How far from the middle a recording is, compared with the others."""
    return f"distance from the middle: {rank(distance, ordered, SIZE)}" if len(ordered) > 1 else ""


def marks(stem: str, maps: Sequence[CohortMap]) -> list[Mark]:
    """A recording on the maps that have it.

    Parameters
    ----------
    stem
        How the names of its files begin.
    maps
        Of the folder.
    """
    return [Mark(one, one.places[stem]) for one in maps if stem in one.places]
