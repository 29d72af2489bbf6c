"""The common look of the figures: a context in, one SVG file out (inches in, about 1000 px wide).

Figures are drawn with `matplotlib.figure.Figure` directly: neither pyplot nor a global backend is
touched, the user's matplotlibrc has no say, and equal input gives equal bytes.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from PIL import Image

# 10.4 inches are 749 points, which a browser shows as 998 px.
WIDTH = 10.4
RASTER_DPI = 110
PNG_DPI = 144

INK = "#1f2933"
MUTED = "#7b8794"
FAINT = "#d9dee4"
NOISE = "#c8553d"
SIGNAL = "#2a7f8e"
ACCENT = "#31508c"
AMBER = "#d98e04"

# The seven networks AA-7 (Akiki & Abdallah 2019): abbreviation, name, colour. Index 0 is network 1.
NETWORKS: tuple[tuple[str, str, str], ...] = (
    ("VI", "Visual", "#7d3c98"),
    ("VS", "Ventral Salience", "#e377c2"),
    ("CE", "Central Executive", "#f39c12"),
    ("SM", "Sensorimotor", "#2e75b6"),
    ("DM", "Default Mode", "#cb3a45"),
    ("DS", "Dorsal Salience", "#2e9e52"),
    ("SC", "Subcortical", "#8d6e53"),
)

_STYLE = {
    "svg.hashsalt": "brainlm-bids",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    # names of parcels and runs come from the data: "$" is a character
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.0,
    "path.simplify_threshold": 0.5,
}


@contextmanager
def canvas(
    path: Path, height: float, width: float = WIDTH, *, smooth: bool = False, style: str = ""
) -> Iterator[Figure]:
    """Give an empty figure of `width` × `height` inches; write it to `path` at the end.

    An SVG, or a PNG where the name of the file says so.

    `smooth`: pictures are interpolated by the browser instead of shown in squares; `style`: CSS
    put into the file. The file appears whole or not at all; nothing is written if the block raises.
    """
    with matplotlib.rc_context(_settings()):
        figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
        FigureCanvasAgg(figure)
        figure.set_facecolor("white")
        yield figure
        _settle(figure)
        stream = io.BytesIO()
        if Path(path).suffix == ".png":
            figure.savefig(stream, format="png", dpi=PNG_DPI, metadata={"Software": None})
            _write(Path(path), stream.getvalue())
            return
        nothing = {"Date": None, "Creator": None}
        figure.savefig(stream, format="svg", dpi=RASTER_DPI, metadata=nothing)
    content = stream.getvalue()
    if smooth:
        content = content.replace(b"image-rendering:crisp-edges;image-rendering:pixelated", b"")
    if style:
        content = content.replace(b"<defs>", f"<style>{style}</style>\n <defs>".encode(), 1)
    _write(Path(path), _PNG.sub(_with_palette, content))


def _settle(figure: Figure) -> None:
    """Lay the figure out now, and round: the solver's last bits differ from call to call."""
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        box = part.bbox_relative
        box.p0, box.p1 = np.round(box.p0, 6), np.round(box.p1, 6)
    for axes in figure.axes:
        for original in (True, False):
            bounds = [round(float(x), 6) for x in axes.get_position(original).bounds]
            which: Literal["original", "active"] = "original" if original else "active"
            axes.set_position((bounds[0], bounds[1], bounds[2], bounds[3]), which=which)


_PNG = re.compile(rb"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)")


def _with_palette(found: re.Match[bytes]) -> bytes:
    """The same picture with a palette of at most 256 colours: about half as large."""
    image = Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGBA")
    pixels = np.ascontiguousarray(image).view(np.uint32)[..., 0]
    colours, index = np.unique(pixels, return_inverse=True)
    if len(colours) > 256:
        indexed = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        stream = io.BytesIO()
        indexed.save(stream, "PNG", optimize=True)
    else:
        rgba = colours[:, None].view(np.uint8)
        indexed = Image.fromarray(index.reshape(pixels.shape).astype(np.uint8))
        indexed.putpalette(rgba[:, :3].tobytes())
        stream = io.BytesIO()
        indexed.save(stream, "PNG", optimize=True, transparency=rgba[:, 3].tobytes())
    return b"data:image/png;base64," + base64.b64encode(stream.getvalue())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _settings() -> Any:
    """Matplotlib's own defaults and our style: a matplotlibrc of the user has no say."""
    left = ("backend", "interactive", "toolbar", "timezone")
    own = matplotlib.rcParamsDefault
    return {**{key: own[key] for key in own if not str(key).startswith(left)}, **_STYLE}


def split(figure: Any, rows: int, columns: int, **ratios: Any) -> list[Any]:
    """Sub-figures of a figure, row by row."""
    return list(np.atleast_1d(figure.subfigures(rows, columns, **ratios)).ravel())


def network_order(networks: np.ndarray) -> np.ndarray:
    """Sort parcels by network 1…7, keeping the atlas order inside; network 0 (none) comes last.

    (V,) int → (V,) int indices.
    """
    networks = np.asarray(networks)
    return np.argsort(np.where(networks > 0, networks, len(NETWORKS) + 1), kind="stable")


def network_colours(networks: np.ndarray) -> list[str]:
    """Colour of every parcel, (V,) int 0…7 → V hexadecimal strings."""
    return [NETWORKS[n - 1][2] if 0 < n <= len(NETWORKS) else FAINT for n in networks.astype(int)]


def network_cmap() -> ListedColormap:
    """Colour map whose entry n is network n; entry 0 is a pale grey."""
    return ListedColormap([FAINT, *(colour for _, _, colour in NETWORKS)])


def network_legend(figure: Any, networks: np.ndarray, **where: Any) -> None:
    """Draw the key of the networks that occur in `networks` (V,)."""
    present = [n for n in range(1, len(NETWORKS) + 1) if np.any(np.asarray(networks) == n)]
    handles = [Patch(color=NETWORKS[n - 1][2], label=NETWORKS[n - 1][1]) for n in present]
    if not handles:
        return
    options: dict[str, Any] = {
        "ncol": len(handles),
        "handlelength": 1.0,
        "columnspacing": 1.2,
        **where,
    }
    figure.legend(handles=handles, **options)


def network_strip(axes: Axes, sorted_networks: np.ndarray, vertical: bool = True) -> None:
    """Fill an axes with the colour of each row (or column) of a matrix sorted by network."""
    strip = np.asarray(sorted_networks, dtype=float)
    image = strip[:, None] if vertical else strip[None, :]
    axes.imshow(
        image, aspect="auto", cmap=network_cmap(), vmin=-0.5, vmax=7.5, interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    for number, (first, last) in group_edges(sorted_networks).items():
        # a name in a narrow band would run into its neighbours
        if number == 0 or (last - first) < 0.03 * len(strip):
            continue
        middle = (first + last - 1) / 2
        name = NETWORKS[number - 1][0]
        at = (0.0, middle) if vertical else (middle, 0.0)
        axes.text(*at, name, ha="center", va="center", color="white", fontsize=6.5, weight="bold")


def group_edges(sorted_groups: np.ndarray) -> dict[int, tuple[int, int]]:
    """First and one-past-last index of every run of equal numbers in a sorted (V,) array."""
    numbers, first = np.unique(sorted_groups, return_index=True)
    edges = {}
    for number, start in sorted(zip(numbers, first), key=lambda pair: pair[1]):
        edges[int(number)] = (int(start), int(start + np.sum(sorted_groups == number)))
    return edges


def coarse(name: str, levels: int = 33) -> Colormap:
    """Colour map with few levels: the eye sees no difference and the PNG is a third of the size."""
    return matplotlib.colormaps[name].resampled(levels).with_extremes(bad="#e8e8e8")


def heatmap(
    axes: Axes,
    matrix: np.ndarray,
    *,
    cmap: str,
    limit: tuple[float, float],
    levels: int = 33,
    columns: int = 900,
    **more: Any,
) -> AxesImage:
    """Matrix as an embedded raster image of at most `columns` columns; NaN is light grey."""
    options: dict[str, Any] = {"aspect": "auto", "interpolation": "none", **more}
    matrix = _shorter(matrix, columns)
    return axes.imshow(matrix, cmap=coarse(cmap, levels), vmin=limit[0], vmax=limit[1], **options)


def _shorter(matrix: np.ndarray, columns: int) -> np.ndarray:
    """Average neighbouring columns so that there are no more than the screen has pixels for."""
    step = -(-matrix.shape[1] // columns)
    if step <= 1:
        return matrix
    # the last, shorter group is filled with its own last column
    padded = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % step)), mode="edge")
    return padded.reshape(len(matrix), -1, step).mean(axis=2)


def finite_percentile(values: np.ndarray, percent: float, default: float = 1.0) -> float:
    """Percentile over the finite values; `default` if there is none or it is zero."""
    finite = np.asarray(values)[np.isfinite(values)]
    if finite.size == 0:
        return default
    found = float(np.percentile(finite, percent))
    return found if found != 0 else default


def shade_dummies(panels: Sequence[Axes], n_dummy: int, tr: float) -> None:
    """Grey the non-steady-state volumes at the start of every panel (x axis in seconds)."""
    if n_dummy <= 0:
        return
    for axes in panels:
        axes.axvspan(-0.5 * tr, (n_dummy - 0.5) * tr, color=FAINT, lw=0, zorder=0)
