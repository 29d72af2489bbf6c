"""The common look of the figures: a block that draws, and one SVG file of about 1000 px at its end.

Figures are drawn with `matplotlib.figure.Figure` directly: neither pyplot nor a global backend is
touched, the user's matplotlibrc has no say, and equal input gives equal bytes.
"""

from __future__ import annotations

import base64
import io
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

from brainlm_bids import files
from brainlm_bids.figures.palette import FAINT, INK, MUTED, NETWORKS

# 10.4 inches are 749 points, which a browser shows as 998 px.
WIDTH = 10.4
RASTER_DPI = 110
PNG_DPI = 144

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
    """Yield an empty figure and write it to a file when the block ends.

    The file appears whole or not at all; nothing is written if the block raises.

    Parameters
    ----------
    path
        File to write: PNG if its name ends in `.png`, SVG otherwise.
    height, width
        Size of the figure in inches.
    smooth
        Let the browser interpolate embedded images instead of showing their pixels as squares.
    style
        CSS to put into the SVG.

    Yields
    ------
    Figure
        The empty figure, with constrained layout.
    """
    with matplotlib.rc_context(_settings()):
        figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
        FigureCanvasAgg(figure)
        figure.set_facecolor("white")
        yield figure
        _fix_layout(figure)
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


def _fix_layout(figure: Figure) -> None:
    """Compute the layout once and round it: the solver's last bits differ from call to call."""
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


def _with_palette(match: re.Match[bytes]) -> bytes:
    """Reduce an embedded PNG to a palette of at most 256 colours: about half the size."""
    image = Image.open(io.BytesIO(base64.b64decode(match[1]))).convert("RGBA")
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
    with files.atomically(path) as temporary:
        temporary.write_bytes(content)


def _settings() -> Any:
    """Matplotlib's defaults with our style on top; the user's matplotlibrc has no influence."""
    kept = ("backend", "interactive", "toolbar", "timezone")
    defaults = matplotlib.rcParamsDefault
    shipped = {key: defaults[key] for key in defaults if not str(key).startswith(kept)}
    return {**shipped, **_STYLE}


def split(figure: Any, rows: int, columns: int, **ratios: Any) -> list[Any]:
    """Sub-figures of a figure, row by row."""
    return list(np.atleast_1d(figure.subfigures(rows, columns, **ratios)).ravel())


def centred(series: np.ndarray) -> np.ndarray:
    """Subtract the temporal mean of each column of a series (T, V); columns of NaN stay NaN."""
    count = np.isfinite(series).sum(axis=0)
    total = np.nansum(series, axis=0)
    # np.nanmean would warn about columns without data
    return series - np.where(count > 0, total / np.maximum(count, 1), np.nan)


def note(axes: Axes, text: str, colour: str = MUTED) -> None:
    """Write a short remark at the upper right of an axes, on the line of its title."""
    axes.set_title(text, loc="right", fontsize=8, color=colour, weight="normal")


def without_frame(axes: Axes) -> None:
    """Hide the four lines around an axes."""
    for spine in axes.spines.values():
        spine.set_visible(False)


def network_order(networks: np.ndarray) -> np.ndarray:
    """Sort parcels by network 1…7, keeping the atlas order inside; network 0 (none) comes last.

    (V,) int → (V,) int indices.
    """
    networks = np.asarray(networks)
    return np.argsort(np.where(networks > 0, networks, len(NETWORKS) + 1), kind="stable")


def network_colours(networks: np.ndarray) -> list[str]:
    """Colour of every parcel, (V,) int 0…7 → V hexadecimal strings."""
    return [
        NETWORKS[n - 1].colour if 0 < n <= len(NETWORKS) else FAINT for n in networks.astype(int)
    ]


def network_cmap() -> ListedColormap:
    """Colour map whose entry n is network n; entry 0 is a pale grey."""
    return ListedColormap([FAINT, *(network.colour for network in NETWORKS)])


def network_legend(figure: Any, networks: np.ndarray, **where: Any) -> None:
    """Draw the key of the networks that occur in `networks` (V,)."""
    present = [n for n in range(1, len(NETWORKS) + 1) if np.any(np.asarray(networks) == n)]
    handles = [Patch(color=NETWORKS[n - 1].colour, label=NETWORKS[n - 1].name) for n in present]
    if not handles:
        return
    options: dict[str, Any] = {
        "ncol": len(handles),
        "handlelength": 1.0,
        "columnspacing": 1.2,
        **where,
    }
    figure.legend(handles=handles, **options)


def network_strip(axes: Axes, sorted_networks: np.ndarray) -> None:
    """Fill an axes with the network's colour of each row of a matrix sorted by network."""
    strip = np.asarray(sorted_networks, dtype=float)[:, None]
    axes.imshow(
        strip, aspect="auto", cmap=network_cmap(), vmin=-0.5, vmax=7.5, interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    without_frame(axes)
    for number, (first, last) in group_edges(sorted_networks).items():
        # a name in a narrow band would run into its neighbours
        if number == 0 or (last - first) < 0.03 * len(strip):
            continue
        style: dict[str, Any] = {"color": "white", "fontsize": 6.5, "weight": "bold"}
        middle = (first + last - 1) / 2
        axes.text(0.0, middle, NETWORKS[number - 1].abbreviation, ha="center", va="center", **style)


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
    value = float(np.percentile(finite, percent))
    return value if value != 0 else default


def shade_dummies(panels: Sequence[Axes], n_dummy: int, tr: float) -> None:
    """Grey the non-steady-state volumes at the start of every panel (x axis in seconds)."""
    if n_dummy <= 0:
        return
    for axes in panels:
        axes.axvspan(-0.5 * tr, (n_dummy - 0.5) * tr, color=FAINT, lw=0, zorder=0)
