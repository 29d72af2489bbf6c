"""A drawing that is written as SVG piece by piece, for figures with hundreds of small parts.

Matplotlib needs about 0.1 s for each pair of axes, and twenty bytes for each point of a line.
Numbers are rounded to integers or to one decimal, so that equal input gives equal bytes.
"""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from brainlm_bids import files

FONT = "DejaVu Sans,Verdana,sans-serif"


class Drawing:
    """Pieces of an SVG in the order in which they are painted.

    Parameters
    ----------
    width
        In pixels; the height is known when the drawing is written.
    style
        CSS of its classes.
    """

    def __init__(self, width: float, style: str) -> None:
        self._width = width
        self._style = style
        self._defined: list[str] = []
        self._pieces: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "") -> None:
        """Write a line; x and y are where it begins, on its baseline. `<b>` marks bold parts."""
        self._pieces.append(text(x, y, words, kind))

    def add(self, piece: str) -> None:
        """Add a piece of SVG whose words are escaped."""
        self._pieces.append(piece)

    def define(self, name: str, *pieces: str) -> None:
        """Keep pieces under a name, to be painted any number of times by `use`."""
        self._defined.append(f'<g id="{name}">{"".join(pieces)}</g>')

    def use(self, name: str, x: float, y: float) -> None:
        """Paint what was defined, moved by (x, y)."""
        self._pieces.append(f'<use href="#{name}" x="{x:g}" y="{y:g}"/>')

    def write(self, path: Path, height: float, about: str) -> None:
        """Write the drawing; `about` describes it for screen readers."""
        size = f"{self._width:g} {height:g}"
        # the same size in points as matplotlib's figures have
        points = f'width="{0.75 * self._width:g}pt" height="{0.75 * height:g}pt"'
        content = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {points} viewBox="0 0 {size}" role="img">',
            f"<title>{escape(about)}</title>",
            f"<style>text{{font-family:{FONT}}}{self._style}</style>",
            "<defs>",
            *self._defined,
            "</defs>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            *self._pieces,
            "</svg>",
        ]
        with files.atomically(path) as temporary:
            temporary.write_text("\n".join(content) + "\n", encoding="utf-8")


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """A line of text; `**` around a part makes it bold.

    Parameters
    ----------
    x, y
        Where it begins, on its baseline.
    words
        The line; what is not bold is escaped as it is.
    kind
        Classes of the style.

    Returns
    -------
    str
        A piece of SVG.

    Examples
    --------
    >>> text(1, 2, "a < **b**", "small")
    '<text x="1" y="2" class="small">a &lt; <tspan class="b">b</tspan></text>'
    """
    parts = [escape(part) for part in words.split("**")]
    parts[1::2] = [f'<tspan class="b">{part}</tspan>' for part in parts[1::2]]
    chosen = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{chosen}>{"".join(parts)}</text>'


def line(x: np.ndarray, y: np.ndarray) -> str:
    """The path of a line through points, which is interrupted where y is not finite.

    Parameters
    ----------
    x, y
        Places, (N,), rounded to integers.

    Returns
    -------
    str
        The attribute `d` of a path, as relative steps.

    Examples
    --------
    >>> line(np.arange(4), np.array([1.0, 3.2, np.nan, 5.0]))
    'M0 1l1 2M3 5l0 0'
    """
    known = np.isfinite(y)
    starts = np.flatnonzero(known & ~np.r_[False, known[:-1]])
    ends = np.flatnonzero(known & ~np.r_[known[1:], False]) + 1
    across = np.rint(x).astype(int)
    up = np.rint(np.where(known, y, 0.0)).astype(int)
    parts = []
    for start, end in zip(starts, ends):
        # a single point is a dot, if the caps of the line are round
        dx = np.diff(across[start:end]) if end - start > 1 else [0]
        dy = np.diff(up[start:end]) if end - start > 1 else [0]
        steps = " ".join(f"{a} {b}" for a, b in zip(dx, dy)).replace(" -", "-")
        parts.append(f"M{across[start]} {up[start]}l{steps}")
    return "".join(parts)


def raster(
    index: np.ndarray, colours: np.ndarray, x: float, y: float, size: tuple[float, float]
) -> str:
    """An embedded picture of at most 16 colours.

    Parameters
    ----------
    index
        (H, W) colour of each pixel.
    colours
        (N, 4) uint8 red, green, blue, opacity.
    x, y, size
        Upper left corner, and width and height.

    Returns
    -------
    str
        A piece of SVG.
    """
    picture = Image.fromarray(np.ascontiguousarray(index, dtype=np.uint8))
    picture.putpalette(np.ascontiguousarray(colours[:, :3]).tobytes())
    stream = io.BytesIO()
    transparency = np.ascontiguousarray(colours[:, 3]).tobytes()
    picture.save(stream, "PNG", optimize=True, bits=4, transparency=transparency)
    content = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<image x="{x:g}" y="{y:g}" width="{size[0]:g}" height="{size[1]:g}" '
        f'preserveAspectRatio="none" href="data:image/png;base64,{content}"/>'
    )
