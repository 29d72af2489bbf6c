"""Figures of an output folder with their titles and captions, as `data/figures.toml` lists them."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from brainlm_bids.bids.outputs import Naming, figure_table


@dataclass(frozen=True)
class FigureFile:
    """A figure and where it is, relative to the output folder (POSIX).

    `size`: width and height, so that a page has its place for it before it is loaded.
    """

    title: str
    caption: str
    alt: str
    path: str
    interactive: bool = False
    size: tuple[int, int] | None = None


_NUMBER = rb"(\d{1,6}(?:\.\d+)?)"
_VIEW_BOX = re.compile(rb'viewBox="0 0 ' + _NUMBER + rb" " + _NUMBER + rb'"')
Sections = dict[str, list[FigureFile]]


def sections(about: str) -> list[str]:
    """Headings of the figures about a subject, run, model, cohort or cohort_model, in order."""
    return list(dict.fromkeys(r["section"] for r in figure_table().values() if r["of"] == about))


def existing_figures(naming: Naming, about: str, model: str = "") -> Sections:
    """Find the figures that were drawn, in the order of the table.

    Parameters
    ----------
    naming
        Of the subject, run or cohort that the figures describe.
    about
        What they describe: subject, run, model, cohort or cohort_model.
    model
        Label of the model.

    Returns
    -------
    dict
        The figures below each heading.
    """
    found: Sections = {}
    for key, row in figure_table().items():
        if row["of"] != about:
            continue
        path = naming.existing_figure(key, model=model)
        if path.is_file():
            found.setdefault(row["section"], []).append(figure_file(key, path, naming))
    return found


def figure_file(key: str, path: Path, naming: Naming) -> FigureFile:
    """A figure of the output folder under the title and the caption of its row."""
    row = figure_table()[key]
    where = path.relative_to(naming.output_dir).as_posix()
    interactive = row.get("interactive", False)
    return FigureFile(row["title"], row["caption"], row["alt"], where, interactive, _size(path))


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height of an SVG by its header; None where that does not tell."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        found = _VIEW_BOX.search(file.read(2000))
        if found:
            width, height = (round(float(text)) for text in found.groups())
            return (width, height) if width and height else None
    return None
