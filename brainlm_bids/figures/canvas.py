"""The common look of the figures: a context that collects drawing and writes one file at its end.

Figures are drawn with `matplotlib.figure.Figure` directly: pyplot and the global backend are not
used, the user's matplotlibrc has no influence, and equal input gives equal bytes.
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
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from brainlm_bids import files
from brainlm_bids.figures.palette import AMBER, BAD, FAINT, INK, MUTED

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
    # names of parcels and runs come from the data: "$" is not mathematics
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
        CSS to put into the SVG, which the keyboard can reach then.

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
        # savefig would draw twice, the first time for a layout, which is known here
        figure.set_dpi(RASTER_DPI)
        FigureCanvasSVG(figure).print_svg(stream, metadata=nothing)
    content = stream.getvalue()
    if smooth:
        content = content.replace(b"image-rendering:crisp-edges;image-rendering:pixelated", b"")
    if style:
        content = content.replace(b"<defs>", f"<style>{style}</style>\n <defs>".encode(), 1)
        content = content.replace(b"<svg ", b'<svg tabindex="0" ', 1)
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
    """Matplotlib's defaults with our style on top, whatever the user's matplotlibrc."""
    kept = ("backend", "interactive", "toolbar", "timezone")
    defaults = matplotlib.rcParamsDefault
    shipped = {key: defaults[key] for key in defaults if not str(key).startswith(kept)}
    return {**shipped, **_STYLE}


def split(figure: Any, rows: int, columns: int, **ratios: Any) -> list[Any]:
    """Divide a figure into sub-figures.

    Parameters
    ----------
    figure
        A figure or sub-figure.
    rows, columns
        Number of sub-figures in each direction.
    **ratios
        `width_ratios`, `height_ratios`.

    Returns
    -------
    list
        Sub-figures, row by row.
    """
    return list(np.atleast_1d(figure.subfigures(rows, columns, **ratios)).ravel())


def centred(series: np.ndarray) -> np.ndarray:
    """Subtract the temporal mean of each column of a series.

    Parameters
    ----------
    series
        (T, V).

    Returns
    -------
    ndarray
        (T, V); columns of NaN stay NaN.

    Examples
    --------
    >>> centred(np.array([[1.0, np.nan], [3.0, np.nan]])).tolist()
    [[-1.0, nan], [1.0, nan]]
    """
    count = np.isfinite(series).sum(axis=0)
    total = np.nansum(series, axis=0)
    # np.nanmean would warn about columns without data
    return series - np.where(count > 0, total / np.maximum(count, 1), np.nan)


def note(axes: Axes, text: str, colour: str = MUTED) -> None:
    """Write a short remark at the upper right of an axes, on the line of its title.

    Parameters
    ----------
    axes
        The axes.
    text, colour
        The remark and its colour.
    """
    axes.set_title(text, loc="right", fontsize=8, color=colour, weight="normal")


def without_frame(axes: Axes) -> None:
    """Hide the four lines around an axes."""
    for spine in axes.spines.values():
        spine.set_visible(False)


def coarse(name: str, levels: int = 33) -> Colormap:
    """Make a colour map with few levels, which reduces an embedded image to a third of its size.

    Parameters
    ----------
    name
        A colour map of matplotlib.
    levels
        Number of levels.

    Returns
    -------
    Colormap
        NaN is light grey.
    """
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
    """Draw a matrix as an embedded raster image.

    Parameters
    ----------
    axes
        The axes.
    matrix
        The matrix; NaN is light grey.
    cmap, limit, levels
        Colour map, the values at its ends, and its number of levels.
    columns
        Largest number of columns; neighbouring ones are averaged.
    **more
        Options of `Axes.imshow`.

    Returns
    -------
    AxesImage
        The image, for a colour bar.
    """
    options: dict[str, Any] = {"aspect": "auto", "interpolation": "none", **more}
    matrix = _shorter(matrix, columns)
    return axes.imshow(matrix, cmap=coarse(cmap, levels), vmin=limit[0], vmax=limit[1], **options)


def _shorter(matrix: np.ndarray, columns: int) -> np.ndarray:
    """Average neighbouring columns until there are no more than `columns`."""
    step = -(-matrix.shape[1] // columns)
    if step <= 1:
        return matrix
    # the last, shorter group is filled with its own last column
    padded = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % step)), mode="edge")
    return padded.reshape(len(matrix), -1, step).mean(axis=2)


def finite_percentile(values: np.ndarray, percent: float, default: float = 1.0) -> float:
    """Percentile of the finite values.

    Parameters
    ----------
    values
        Values of any shape.
    percent
        0 to 100.
    default
        Returned if there is no finite value, or the percentile is 0.

    Returns
    -------
    float
        The percentile.

    Examples
    --------
    >>> finite_percentile(np.array([1.0, 3.0, np.nan]), 50)
    2.0
    """
    finite = np.asarray(values)[np.isfinite(values)]
    if finite.size == 0:
        return default
    value = float(np.percentile(finite, percent))
    return value if value != 0 else default


def shade_dummies(panels: Sequence[Axes], n_dummy: int, tr: float) -> None:
    """Shade the non-steady-state volumes at the start.

    Parameters
    ----------
    panels
        Axes whose x axis is in seconds.
    n_dummy
        Number of volumes.
    tr
        Repetition time, s.
    """
    if n_dummy <= 0:
        return
    for axes in panels:
        axes.axvspan(-0.5 * tr, (n_dummy - 0.5) * tr, color=FAINT, lw=0, zorder=0)


def mark_bad(panels: Sequence[Axes], bad: np.ndarray | None, tr: float, first: float = 0.0) -> None:
    """Mark bad volumes: a band behind what is drawn, and a triangle above it.

    Parameters
    ----------
    panels
        Axes whose x axis is in seconds.
    bad
        (T,) True for bad volumes; None: there are none.
    tr
        Repetition time, s.
    first
        Time of the first volume, s.
    """
    if bad is None or not np.any(bad):
        return
    bad = np.asarray(bad, dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(int)))
    times = first + np.flatnonzero(bad) * tr
    for axes in panels:
        for start, end in first + (edges.reshape(-1, 2) - 0.5) * tr:
            axes.axvspan(start, end, color=BAD, lw=0, zorder=0)
        axes.plot(
            times,
            np.full(len(times), 1.0),
            linestyle="none",
            marker="v",
            markersize=4,
            color=AMBER,
            clip_on=False,
            zorder=5,
            transform=axes.get_xaxis_transform(),
            rasterized=len(times) > 300,
        )


def marks_of_volumes(n_dummy: int, bad: np.ndarray | None) -> str:
    """What `shade_dummies` and `mark_bad` have marked, in words; empty if nothing.

    Parameters
    ----------
    n_dummy
        Volumes before the steady state.
    bad
        (T,) True for bad volumes; None: there are none.

    Examples
    --------
    >>> marks_of_volumes(2, np.array([False, True, False]))
    '2 dummy volumes shaded   ·   1 bad volume marked with a triangle'
    """
    n_bad = 0 if bad is None else int(np.sum(bad))
    parts = []
    if n_dummy:
        parts.append(f"{n_dummy} dummy volume{'s' * (n_dummy > 1)} shaded")
    if n_bad:
        parts.append(f"{n_bad} bad volume{'s' * (n_bad > 1)} marked with a triangle")
    return "   ·   ".join(parts)
