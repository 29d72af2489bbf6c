"""The plate of the independent components: map, time course, spectrum and decision of each.

It draws arrays into one SVG file; equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.denoising import Limits
from brainlm_bids.figures.mosaic import Layout
from brainlm_bids.figures.palette import BAD, FAINT, INK, MUTED, NOISE, SIGNAL
from brainlm_bids.figures.slabs import slabs
from brainlm_bids.figures.vector import Drawing, line, raster, text

# Pixels: the page's width, the height of a component's row, and where its four columns begin
WIDTH, ROW, HEAD = 1000, 72, 40
MAPS, COURSE, SPECTRUM, WORDS = 66, 416, 668, 790
MAP_WIDTH, COURSE_WIDTH, SPECTRUM_WIDTH, PLOT_HEIGHT = 340, 240, 110, 54
# Pixels of a slice, points of a time course and bars of a spectrum: fewer where there are more
# components than MANY, so that 150 of them stay below 700 kB
MANY = 80
SLICE_PIXELS, COURSE_POINTS, SPECTRUM_BARS = (52, 42), (480, 200), (110, 73)
# Shades of blue and of red, weak and strong
SHADES = 7
_ENDS = np.array([((28, 78, 216), (127, 227, 255)), ((214, 48, 10), (255, 233, 77))], float)
# Features by the names of the table, in the words of the plate
WORDS_OF = {
    "csf_fract": "CSF",
    "hfc": "HFC",
    "edge_fract": "edge",
    "max_rp_corr": "motion r",
}
STYLE = (
    f"text{{font-size:10px;fill:{INK}}}.b{{font-weight:bold}}.h{{font-size:13px;font-weight:bold}}"
    f".s{{font-size:8px}}.w{{fill:#fff;font-size:8px}}.ic{{font-size:12px;font-weight:bold}}"
    f".c{{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}}"
    f".n{{stroke:{NOISE}}}.g{{stroke:{SIGNAL}}}.low{{fill:#52606d}}.high{{fill:#aab4bf}}"
    f".l{{stroke:{MUTED};stroke-dasharray:3 2}}image{{image-rendering:auto}}"
)


@dataclass(frozen=True)
class TimeAxis:
    """The volumes of a run: repetition time in s, those before the steady state, bad ones (T,)."""

    tr: float
    n_dummy: int
    bad: np.ndarray


def plot_component_maps(
    path: Path,
    maps: np.ndarray,
    reference: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    features: Mapping[str, np.ndarray],
    mixing: np.ndarray,
    time: TimeAxis,
    limits: Limits,
) -> None:
    """Draw a row for each component: its map, time course, spectrum, and why it is noise or not.

    Noise comes first; in both groups, components with more variance come first.

    Parameters
    ----------
    path
        SVG file to write.
    maps
        (K, V) z at the voxels of the mask, 0 below the threshold.
    reference, mask, affine
        The BOLD reference (X, Y, Z), its brain mask with V voxels, and their affine.
    features
        Columns (K,): `max_rp_corr`, `edge_fract`, `csf_fract`, `hfc`, `variance` as fraction, and
        `classification`, "noise" or "signal".
    mixing
        Time courses (T', K) of the steady-state volumes, with values at bad volumes, too.
    time
        The run's T volumes; T' of them are in the steady state.
    limits
        Of the decision.
    """
    drawing = Drawing(WIDTH, STYLE)
    many = int(len(maps) > MANY)
    shown = slabs(np.asarray(mask) > 0, affine, max_pixels=SLICE_PIXELS[many])
    top = _strong(maps)
    height, width = shown.cut.shape
    scale = min(MAP_WIDTH / width, (ROW - 4) / height)
    size = (scale * width, scale * height)
    _define_map(drawing, shown.cut, reference, mask, scale)
    _define_course(drawing, time, len(mixing))
    noise = np.array([str(label) == "noise" for label in features["classification"]], bool)
    variance = np.nan_to_num(np.asarray(features["variance"], float))
    y = 0
    for name, members in (("noise", noise), ("signal", ~noise)):
        order = np.flatnonzero(members)
        order = order[np.argsort(-variance[order], kind="stable")]
        if not len(order):
            continue
        share = 100 * variance[order].sum()
        count = f"{len(order)} component{'s' * (len(order) != 1)}"
        title = f"Classified as {name}: {count}, {share:.0f} % of the run's variance"
        _header(drawing, y, title, top, time, len(mixing))
        y += HEAD
        for k in order:
            picture = _shades(shown.picture(maps[k]), top)
            _row(drawing, y, raster(picture, _colours(), MAPS, y, size))
            _label(drawing, y, k, name, variance[k])
            _course(drawing, y, mixing[:, k], time, name, COURSE_POINTS[many])
            split = limits.hfc, float(features["hfc"][k])
            _spectrum(drawing, y, mixing[:, k], time.tr, split, SPECTRUM_BARS[many])
            _words(drawing, y, {key: float(features[key][k]) for key in WORDS_OF}, name, limits)
            y += ROW
    about = f"{len(noise)} independent components, {int(noise.sum())} classified as noise"
    drawing.write(path, max(y, HEAD), about)


def _strong(maps: np.ndarray) -> float:
    """The z of the strongest colour: one for all maps, so that they can be compared."""
    each = [np.percentile(np.abs(z[z != 0]), 98) for z in maps if np.any(z)]
    return float(np.median(each)) if each else 4.0


# --- what all rows share ----------------------------------------------------------------------


def _define_map(
    drawing: Drawing, cut: Layout, reference: np.ndarray, mask: np.ndarray, scale: float
) -> None:
    """The slices of the reference in grey, with their millimetres, left and right."""
    grey = np.nan_to_num(cut.cut(reference))
    inside = np.asarray(reference)[np.asarray(mask) > 0]
    high = c.finite_percentile(inside, 99)
    level = np.clip(grey / high, 0, 1) * 15
    # the darker half of the greys, so that colours stand out
    greys = np.linspace(0, 190, 16).astype(np.uint8)
    colours = np.stack([greys, greys, greys, np.full(16, 255, np.uint8)], axis=1)
    size = (scale * cut.shape[1], scale * cut.shape[0])
    pieces = [raster(np.rint(level), colours, 0, 0, size)]
    for tile in cut.tiles:
        place = f"{tile.position:.0f} mm"
        pieces.append(text(round(scale * tile.left, 1), 8, place, "w"))
    first = cut.tiles[0]
    bottom = round(scale * (first.top + first.height) - 2, 1)
    pieces.append(text(round(scale * first.left + 1, 1), bottom, "L", "w b"))
    right = round(scale * (first.left + first.width) - 7, 1)
    pieces.append(text(right, bottom, "R", "w b"))
    drawing.define("map", *pieces)


def _define_course(drawing: Drawing, time: TimeAxis, n_steady: int) -> None:
    """The bands of volumes before the steady state and of bad ones."""
    n_volumes = time.n_dummy + n_steady
    step = COURSE_WIDTH / n_volumes
    pieces = []
    if time.n_dummy:
        pieces.append(_band(0, time.n_dummy * step, FAINT))
    for start, end in _stretches(np.asarray(time.bad, bool)[:n_volumes]):
        pieces.append(_band(start * step, max((end - start) * step, 1.0), BAD))
    zero = PLOT_HEIGHT / 2
    pieces.append(f'<path d="M0 {zero:g}h{COURSE_WIDTH}" stroke="{FAINT}"/>')
    drawing.define("time", *pieces)


def _band(x: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" width="{width:.1f}" height="{PLOT_HEIGHT}" fill="{colour}"/>'


def _stretches(marked: np.ndarray) -> list[tuple[int, int]]:
    """First and one after the last of each unbroken run of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, marked, False].astype(int)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2])]


def _header(
    drawing: Drawing, y: float, title: str, top: float, time: TimeAxis, n_steady: int
) -> None:
    """The title of a group, what the columns are, and the scale of the colours."""
    drawing.text(0, y + 16, title, "h")
    below = y + 32
    seconds = time.tr * (time.n_dummy + n_steady)
    drawing.text(0, below, "component")
    drawing.text(MAPS, below, f"map (z): {-top:.1f}")
    # the blue ones from strong to weak, then the red ones from weak to strong
    shades = _colours()[[*range(SHADES, 0, -1), *range(SHADES + 1, 2 * SHADES + 1)], :3]
    for at, (red, green, blue) in enumerate(shades):
        colour = f"rgb({red},{green},{blue})"
        x = MAPS + 74 + 6 * at
        drawing.add(f'<rect x="{x}" y="{below - 8}" width="6" height="9" fill="{colour}"/>')
    drawing.text(MAPS + 78 + 12 * SHADES, below, f"{top:.1f}, on the BOLD reference")
    drawing.text(COURSE, below, f"time course, 0 to {seconds:.0f} s")
    drawing.text(SPECTRUM, below, f"power, 0 to {0.5 / time.tr:.2g} Hz")
    drawing.text(WORDS, below, "decision; what decided is bold")


# --- the row of a component -------------------------------------------------------------------


def _colours() -> np.ndarray:
    """(1 + 2 · SHADES, 4): transparent, blues from weak to strong, reds from weak to strong."""
    strength = np.linspace(0, 1, SHADES)[:, None]
    mixed = [(1 - strength) * weak + strength * strong for weak, strong in _ENDS]
    colours = np.hstack([np.vstack(mixed), np.full((2 * SHADES, 1), 255)])
    return np.rint(np.vstack([np.zeros((1, 4)), colours])).astype(np.uint8)


def _shades(picture: np.ndarray, top: float) -> np.ndarray:
    """Colour of each pixel: 0 where there is no value, however weak those elsewhere are."""
    strength = np.clip(np.ceil(np.abs(picture) / top * SHADES), 1, SHADES)
    return np.where(picture == 0, 0, strength + np.where(picture > 0, SHADES, 0))


def _row(drawing: Drawing, y: float, overlay: str) -> None:
    drawing.use("map", MAPS, y)
    drawing.add(overlay)
    drawing.use("time", COURSE, y + 4)


def _label(drawing: Drawing, y: float, k: int, name: str, variance: float) -> None:
    colour = NOISE if name == "noise" else SIGNAL
    drawing.add(f'<rect y="{y}" width="4" height="{ROW - 8}" fill="{colour}"/>')
    drawing.text(10, y + 16, f"IC {k + 1}", "ic")
    drawing.text(10, y + 31, f"{100 * variance:.1f} %")
    drawing.text(10, y + 43, "of variance", "s")


def _course(
    drawing: Drawing, y: float, course: np.ndarray, time: TimeAxis, name: str, n_points: int
) -> None:
    """The time course, in half pixels; more volumes than n_points are drawn as their range."""
    volumes = time.n_dummy + np.arange(len(course))
    good = ~np.asarray(time.bad, bool)[volumes]
    values = np.where(good, course, np.nan)
    largest = c.finite_percentile(np.abs(values), 100)
    across = (volumes + 0.5) / (time.n_dummy + len(course)) * 2 * COURSE_WIDTH
    up = PLOT_HEIGHT * (1 - 0.94 * values / largest)
    if len(course) > n_points:
        across, up = _ranges(across, up, n_points // 2)
    kind = "n" if name == "noise" else "g"
    drawing.add(
        f'<path class="c {kind}" transform="translate({COURSE} {y + 4}) scale(.5)" '
        f'd="{line(across, up)}"/>'
    )


def _ranges(across: np.ndarray, up: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest point in each of n stretches, NaN where one has none."""
    width = 2 * COURSE_WIDTH / n
    pixel = np.minimum((across / width).astype(int), n - 1)
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    known = np.isfinite(up)
    np.minimum.at(low, pixel[known], up[known])
    np.maximum.at(high, pixel[known], up[known])
    both = np.stack([low, high], axis=1).ravel()
    return np.repeat(width * (np.arange(n) + 0.5), 2), np.where(np.isfinite(both), both, np.nan)


def _spectrum(
    drawing: Drawing,
    y: float,
    course: np.ndarray,
    tr: float,
    split: tuple[float, float],
    n_bars: int,
) -> None:
    """The power spectrum; split: limit of the high-frequency content, and that of the course."""
    power = np.abs(np.fft.rfft(course - course.mean()))[1:] ** 2
    if not power.size:
        return
    nyquist = 0.5 / tr
    power = _peaks(power, n_bars)
    height = PLOT_HEIGHT * power / (power.max() or 1.0)
    x = (1 + np.arange(len(power))) / len(power) * SPECTRUM_WIDTH
    limit, half = (SPECTRUM_WIDTH * Limits.frequency(one, nyquist) / nyquist for one in split)
    for kind, chosen in (("low", x <= half), ("high", x > half)):
        if chosen.any():
            outline = _area(2 * x[chosen], 2 * (PLOT_HEIGHT - height[chosen]), 2 * x[0])
            drawing.add(
                f'<path class="{kind}" transform="translate({SPECTRUM} {y + 4}) scale(.5)" '
                f'd="{outline}"/>'
            )
    drawing.add(f'<path class="l" d="M{SPECTRUM + limit:.1f} {y + 4}v{PLOT_HEIGHT}"/>')


def _peaks(power: np.ndarray, n: int) -> np.ndarray:
    """The largest of neighbouring values, until there are at most n."""
    step = -(-len(power) // n)
    padded = np.pad(power, (0, -len(power) % step))
    return np.asarray(padded.reshape(-1, step).max(axis=1))


def _area(x: np.ndarray, y: np.ndarray, width: float) -> str:
    """The outline of bars of one width that end at x, down to the axis."""
    edges = np.rint(np.r_[x - width, x[-1]]).astype(int)
    floor = 2 * PLOT_HEIGHT
    rises = np.diff(np.r_[floor, np.rint(y).astype(int)])
    steps = [f"v{up}h{across}" if up else f"h{across}" for up, across in zip(rises, np.diff(edges))]
    return f"M{edges[0]} {floor}{''.join(steps)}V{floor}z"


def _words(
    drawing: Drawing, y: float, values: Mapping[str, float], name: str, limits: Limits
) -> None:
    """The decision in words, and all features, bold where they decided."""
    decided = limits.exceeded(values) if name == "noise" else []
    # a CSF fraction of 0.103 is above the limit of 0.10
    said = {key: f"{WORDS_OF[key]} {values[key]:.{2 + (key == 'csf_fract')}f}" for key in WORDS_OF}
    reasons = [said[key] for key in decided] or ["below every limit"]
    drawing.text(WORDS, y + 13, f"**{name}:** {', '.join(reasons[:2])}")
    if len(reasons) > 2:
        drawing.text(WORDS, y + 26, ", ".join(reasons[2:]))
    for row, pair in enumerate((("max_rp_corr", "edge_fract"), ("hfc", "csf_fract"))):
        for column, key in enumerate(pair):
            bold = "**" if key in decided else ""
            drawing.text(WORDS + 86 * column, y + 43 + 14 * row, f"{bold}{said[key]}{bold}")
