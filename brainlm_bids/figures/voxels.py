"""Figures of the voxels of a run before denoising: maps over the brain, and a carpet by tissue.

Each function draws arrays into one SVG file; equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.mosaic import (
    Layout,
    draw_contours,
    foreground,
    label_tiles,
    layout,
    picture_axes,
)
from brainlm_bids.figures.palette import ACCENT, AMBER, BROWN, FAINT, GREEN, MUTED, NOISE, SIGNAL

# Of the tissues with the codes 1 to 5: name, colour.
TISSUES = (
    ("Cortex", ACCENT),
    ("Subcortical grey matter", SIGNAL),
    ("Cerebellum", GREEN),
    ("White matter", MUTED),
    ("CSF", AMBER),
)
# Standard deviations at which the carpet is black and white.
CARPET_LIMIT = 2.0


# Of confounds that are not called by their column's name
_SHORT = {
    "csf": "CSF",
    "dvars": "DVARS",
    "std_dvars": "standardised DVARS",
    "framewise_displacement": "FD",
    "rmsd": "RMSD",
}


class _Trace(NamedTuple):
    """A line above the carpet: column of the confounds, label, unit, colour."""

    column: str
    label: str
    unit: str
    colour: str


_SIGNALS = (
    _Trace("global_signal", "Global", "%", ACCENT),
    _Trace("csf", "CSF", "%", AMBER),
    _Trace("white_matter", "WM", "%", MUTED),
)
_MOTION = (
    _Trace("framewise_displacement", "FD", "mm", NOISE),
    _Trace("std_dvars", "DVARS", "", BROWN),
)


def plot_maps(
    path: Path,
    mean: np.ndarray,
    deviation: np.ndarray,
    ratio: np.ndarray,
    affine: np.ndarray,
    brain: np.ndarray,
) -> None:
    """Draw mean, standard deviation and temporal signal-to-noise ratio of every voxel of a run.

    Parameters
    ----------
    path
        SVG file to write.
    mean, deviation
        (X, Y, Z) over time, in the units of the image.
    ratio
        (X, Y, Z) mean over deviation.
    affine
        (4, 4), voxel to RAS+ mm.
    brain
        (X, Y, Z) the brain, which is outlined, and by whose values colours are scaled.
    """
    brain = np.asarray(brain) > 0
    bound = brain if brain.any() else foreground(mean)
    cut = layout(np.shape(mean), affine, bound, planes="zx")
    maps = (
        ("Mean", mean, "gray", "units of the image", 99.5),
        ("Standard deviation", deviation, "viridis", "units of the image", 98),
        ("Temporal signal-to-noise ratio (tSNR)", ratio, "viridis", "ratio", 99),
    )
    height = cut.height(0.93 * c.WIDTH)
    with c.canvas(path, 3 * (height + 0.35), smooth=True) as figure:
        for part, (title, values, colours, unit, percent) in zip(c.split(figure, 3, 1), maps):
            inside = np.asarray(values)[bound]
            limit = (0.0, max(c.finite_percentile(inside, percent), 1e-6))
            axes = picture_axes(part, cut)
            _draw_map(axes, cut, values, brain, colours, limit)
            axes.set_title(title)
            part.colorbar(axes.images[0], ax=axes, label=unit, pad=0.01, aspect=25, extend="max")
            middle = c.finite_percentile(inside, 50, 0.0)
            digits = ".0f" if abs(middle) >= 1000 else ".4g"
            c.note(axes, f"median in the brain: {middle:{digits}}")


def _draw_map(
    axes: Axes,
    cut: Layout,
    values: np.ndarray,
    brain: np.ndarray,
    colours: str,
    limit: tuple[float, float],
) -> None:
    axes.imshow(
        cut.cut(values),
        cmap=c.coarse(colours, 40).with_extremes(bad="black"),
        vmin=limit[0],
        vmax=limit[1],
        interpolation="none",
    )
    if colours == "gray":
        draw_contours(axes, cut, {"brain": brain})
    label_tiles(axes, cut)


def plot_tissue_carpet(
    path: Path,
    series: np.ndarray,
    tissue: np.ndarray,
    confounds: Mapping[str, np.ndarray],
    tr: float,
    *,
    n_dummy: int = 0,
    bad: np.ndarray | None = None,
) -> None:
    """Draw the series of voxels of every tissue before denoising, below the global signals.

    Each voxel is detrended and divided by its standard deviation over the good volumes of the
    steady state.

    Parameters
    ----------
    path
        SVG file to write.
    series
        (T, R) some voxels, sorted by tissue.
    tissue
        (R,) codes 1 to 5: cortex, subcortical grey matter, cerebellum, white matter, CSF.
    confounds
        Columns (T,) under fMRIPrep's names; the line of a missing one is left out.
    tr
        Repetition time in s.
    n_dummy
        Number of leading volumes to shade.
    bad
        (T,) True for bad volumes, which are marked; None: there are none.
    """
    n_volumes = len(series)
    used = np.arange(n_volumes) >= n_dummy
    if bad is not None:
        used &= ~np.asarray(bad, dtype=bool)
    series, tissue = np.asarray(series, dtype=float), np.asarray(tissue, dtype=int)
    if not series.shape[1]:
        # no voxel of a known tissue: an empty carpet
        series, tissue = np.full((n_volumes, 1), np.nan), np.zeros(1, dtype=int)
    carpet = _standardised(series, used)
    if bad is not None:
        carpet[np.asarray(bad, dtype=bool)] = np.nan
    traces = [one for one in (*_SIGNALS, *_MOTION) if one.column in confounds]
    span = (-0.5 * tr, (n_volumes - 0.5) * tr)
    ratios = (*[0.5] * len(traces), 3.6)
    with c.canvas(path, height=0.9 + sum(ratios)) as figure:
        grid = figure.subplots(len(ratios), 1, height_ratios=ratios, squeeze=False)
        panels: list[Axes] = list(grid[:, 0])
        for axes, one in zip(panels, traces):
            # a change at the first volume of the steady state is one from a dummy volume
            counted = used if one in _SIGNALS else used & (np.arange(n_volumes) > n_dummy)
            _draw_trace(axes, np.asarray(confounds[one.column], dtype=float), one, tr, counted)
            axes.set_xlim(*span)
        axes = panels[-1]
        image = c.heatmap(
            axes,
            carpet.T,
            cmap="gray",
            limit=(-CARPET_LIMIT, CARPET_LIMIT),
            levels=17,
            columns=500,
            extent=(*span, carpet.shape[1], 0),
        )
        axes.set(yticks=[], xlabel="time (s)")
        axes.set_xlim(*span)
        _draw_tissues(axes, tissue)
        c.shade_dummies(panels[:-1], n_dummy, tr)
        c.mark_bad(panels, bad, tr)
        panels[0].set_title("Before denoising, by tissue")
        c.note(panels[0], c.marks_of_volumes(n_dummy, bad))
        figure.colorbar(image, ax=axes, label="standard deviations", pad=0.01, aspect=30)
        present = [code for code in range(1, len(TISSUES) + 1) if np.any(tissue == code)]
        handles = [
            Patch(color=TISSUES[code - 1][1], label=TISSUES[code - 1][0]) for code in present
        ]
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncol=len(handles))


def _standardised(series: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Series (T, R) without the linear trend of the used volumes, over their deviation."""
    time = np.linspace(-1, 1, len(series))
    design = np.column_stack([np.ones(len(series)), time])
    weights = np.linalg.lstsq(design[used], series[used], rcond=None)[0]
    rest = series - design @ weights
    deviation = rest[used].std(axis=0) if used.any() else np.zeros(series.shape[1])
    return np.divide(rest, deviation, out=np.full_like(rest, np.nan), where=deviation > 0)


def _draw_trace(axes: Axes, values: np.ndarray, one: _Trace, tr: float, used: np.ndarray) -> None:
    """Draw a line of the confounds; signals as percent of their mean over the used volumes."""
    known = values[used & np.isfinite(values)]
    middle = float(known.mean()) if known.size else 0.0
    if one.unit == "%":
        values = 100 * (values / middle - 1) if middle else np.zeros_like(values)
        known = values[used & np.isfinite(values)]
        # a dummy volume is far brighter: it would leave a flat line
        reach = max(float(np.abs(known).max()) if known.size else 0.0, 1e-3)
        axes.set_ylim(-1.1 * reach, 1.1 * reach)
        about = f"SD {known.std() if known.size else 0.0:.2f} %"
    else:
        top = c.finite_percentile(known, 100)
        axes.set_ylim(0, 1.1 * top)
        about = f"mean {middle:.2f}"
    axes.plot(np.arange(len(values)) * tr, values, color=one.colour, lw=0.8)
    label = f"{one.label}\n({one.unit})" if one.unit else one.label
    axes.set_ylabel(label, rotation=0, ha="right", va="center", color=one.colour)
    axes.tick_params(labelbottom=False)
    axes.locator_params(axis="y", nbins=3)
    axes.text(
        1.008,
        0.5,
        about,
        transform=axes.transAxes,
        va="center",
        ha="left",
        fontsize=7.5,
        color=one.colour,
    )


def _draw_tissues(axes: Axes, tissue: np.ndarray) -> None:
    """Colour each row's tissue at the left of the carpet, with lines between the tissues."""
    strip = axes.inset_axes((-0.02, 0.0, 0.014, 1.0))
    colours = ListedColormap([FAINT, *(colour for _, colour in TISSUES)])
    strip.imshow(
        tissue[:, None],
        aspect="auto",
        cmap=colours,
        interpolation="none",
        vmin=-0.5,
        vmax=len(TISSUES) + 0.5,
    )
    strip.set(xticks=[], yticks=[], ylabel=f"{len(tissue)} voxels")
    c.without_frame(strip)
    for edge in np.flatnonzero(np.diff(tissue)) + 1:
        axes.axhline(edge, color=AMBER, lw=0.6)


def plot_confound_correlations(
    path: Path, confounds: Mapping[str, np.ndarray], used: np.ndarray, names: Sequence[str]
) -> None:
    """Draw the correlations of confounds with each other, and with the global signal.

    Parameters
    ----------
    path
        SVG file to write.
    confounds
        Columns (T,) under fMRIPrep's names.
    used
        (T,) the volumes that count.
    names
        Of the columns, one or more, in the order in which they are drawn; all are compared with
        the first on the right.
    """
    columns = [np.asarray(confounds[name], dtype=float)[used] for name in names]
    matrix = _correlations(columns)
    labels = [_SHORT.get(name, name.replace("_", " ")) for name in names]
    side = max(0.19 * len(names), 1.5)
    with c.canvas(path, height=side + 1.5) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 0.9))
        image = c.heatmap(left, matrix, cmap="RdBu_r", limit=(-1, 1), levels=41)
        places = range(len(names))
        left.set_xticks(places, labels, rotation=90, fontsize=7)
        left.set_yticks(places, labels, fontsize=7)
        left.tick_params(length=0)
        left.set_title("Confounds with each other")
        c.without_frame(left)
        figure.colorbar(image, ax=left, label="Pearson r", pad=0.01, aspect=30)
        values = np.nan_to_num(matrix[0])
        order = np.argsort(-np.abs(values[1:]), kind="stable") + 1
        bars = values[order]
        right.barh(range(len(order)), bars, color=np.where(bars < 0, ACCENT, NOISE), height=0.7)
        right.axvline(0, color=MUTED, lw=0.7)
        right.set_yticks(range(len(order)), [labels[k] for k in order], fontsize=7)
        right.set(xlim=(-1, 1), ylim=(max(len(order), 1) - 0.4, -0.6), xlabel="Pearson r")
        right.set_title(f"With the {labels[0]}")


def _correlations(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Pearson correlations (K, K) of columns (T,) over what both have; NaN for constants."""
    n = len(columns)
    matrix = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i + 1):
            both = np.isfinite(columns[i]) & np.isfinite(columns[j])
            a, b = columns[i][both], columns[j][both]
            if a.size < 3:
                continue
            a, b = a - a.mean(), b - b.mean()
            length = float(np.sqrt((a @ a) * (b @ b)))
            if length > 0:
                matrix[i, j] = matrix[j, i] = float(a @ b) / length
    return matrix
