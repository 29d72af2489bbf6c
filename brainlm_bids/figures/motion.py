"""Figures of head motion and of the parcel series before and after denoising.

Each function draws arrays into one SVG file; equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.networks import network_legend, network_order, network_strip
from brainlm_bids.figures.palette import ACCENT, FAINT, NOISE, SIGNAL

_AXIS_COLOURS = (NOISE, SIGNAL, ACCENT)


def plot_motion(
    path: Path,
    confounds: Mapping[str, np.ndarray],
    tr: float,
    n_dummy: int = 0,
    fd_threshold: float = 0.5,
    dvars_threshold: float = 1.5,
    bad: np.ndarray | None = None,
) -> None:
    """Draw head motion, framewise displacement and standardised DVARS over time.

    Parameters
    ----------
    path
        SVG file to write.
    confounds
        Columns under fMRIPrep's names, each (T,): `trans_x`… in mm, `rot_x`… in radians (drawn
        in degrees), `framewise_displacement` in mm, `std_dvars` without unit. The panel of a
        missing column stays empty.
    tr
        Repetition time in s.
    n_dummy
        Number of leading volumes to shade.
    fd_threshold, dvars_threshold
        Limits of framewise displacement (mm) and standardised DVARS that are drawn.
    bad
        (T,) True for bad volumes, which are marked; None: there are none.
    """
    with c.canvas(path, height=5.6) as figure:
        panels = figure.subplots(4, 1, sharex=True, height_ratios=(1.2, 1.2, 1, 1))
        _motion_lines(panels[0], confounds, "trans", tr, 1.0)
        panels[0].set(title="Translation", ylabel="mm")
        _motion_lines(panels[1], confounds, "rot", tr, 180 / np.pi)
        panels[1].set(title="Rotation", ylabel="degrees")
        displacement = confounds.get("framewise_displacement")
        _trace(panels[2], displacement, tr, fd_threshold, "mm", n_dummy)
        panels[2].set(title="Framewise displacement", ylabel="mm")
        _trace(panels[3], confounds.get("std_dvars"), tr, dvars_threshold, "", n_dummy)
        panels[3].set(title="Standardised DVARS", ylabel="ratio", xlabel="time (s)")
        n = max((len(values) for values in confounds.values()), default=1)
        panels[3].set_xlim(-0.5 * tr, (n - 0.5) * tr)
        c.shade_dummies(panels, n_dummy, tr)
        c.mark_bad(panels, bad, tr)
        c.note(panels[0], c.marks_of_volumes(n_dummy, bad))


def _motion_lines(
    axes: Axes, confounds: Mapping[str, np.ndarray], kind: str, tr: float, factor: float
) -> None:
    for name, colour in zip("xyz", _AXIS_COLOURS):
        values = confounds.get(f"{kind}_{name}")
        if values is None:
            continue
        values = np.asarray(values, float) * factor
        time = np.arange(len(values)) * tr
        axes.plot(time, values, color=colour, label=name, rasterized=len(values) > 2000)
    axes.axhline(0, color=FAINT, lw=0.7, zorder=0)
    if axes.lines[:-1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)


def _trace(
    axes: Axes, values: np.ndarray | None, tr: float, threshold: float, unit: str, n_dummy: int
) -> None:
    """Plot a positive trace and its threshold; volumes of the steady state above it are marked.

    The mean is that of changes between volumes of the steady state.
    """
    if values is None:
        return
    values = np.asarray(values, float)
    time = np.arange(len(values)) * tr
    axes.plot(time, values, color=ACCENT, rasterized=len(values) > 2000)
    axes.axhline(threshold, color=NOISE, lw=0.8, ls=(0, (4, 3)))
    above = n_dummy + np.flatnonzero(np.nan_to_num(values[n_dummy:]) > threshold)
    axes.plot(time[above], values[above], "o", ms=2.6, color=NOISE, rasterized=len(above) > 500)
    # a change before the steady state can be so large that it would flatten all others
    top = max(threshold, c.finite_percentile(values[n_dummy:], 100, threshold))
    axes.set_ylim(0, 1.12 * top)
    known = values[n_dummy + 1 :][np.isfinite(values[n_dummy + 1 :])]
    mean = float(known.mean()) if known.size else float("nan")
    counted = f"{len(above)} above {threshold:g} {unit}"
    c.note(axes, f"mean {mean:.3f} {unit}".rstrip() + f"   ·   {counted}")


def plot_carpet(
    path: Path,
    before: np.ndarray,
    after: np.ndarray | None,
    networks: np.ndarray,
    tr: float,
    framewise_displacement: np.ndarray | None = None,
    *,
    units: str = "grand-mean units (mean = 10000)",
    n_dummy: int = 0,
    bad: np.ndarray | None = None,
) -> None:
    """Draw carpets of the series before and after denoising, below the framewise displacement.

    The temporal mean of each parcel is subtracted, parcels are sorted by network, and both
    carpets share one grey scale. Parcels without data are light grey.

    Parameters
    ----------
    path
        SVG file to write.
    before, after
        Series (T, V) in `units`; without `after` only one carpet is drawn.
    networks
        Network of each parcel, (V,), 1…7, 0 for none.
    tr
        Repetition time in s.
    framewise_displacement
        (T,) in mm.
    units
        Label of the grey scale.
    n_dummy
        Number of leading volumes to shade in the panel of the motion.
    bad
        (T,) True for bad volumes, which are marked; None: there are none.
    """
    series = {"Before denoising": before}
    if after is not None:
        series["After denoising"] = after
    order = network_order(networks)
    carpets = [c.centred(np.asarray(values, float)[:, order]).T for values in series.values()]
    limit = c.finite_percentile(np.abs(carpets[0]), 97)
    span = (-0.5 * tr, (carpets[0].shape[1] - 0.5) * tr)
    with c.canvas(path, height=1.3 + 2.35 * len(carpets)) as figure:
        rows = 1 + len(carpets)
        grid = figure.subplots(
            rows, 2, width_ratios=(1, 48), height_ratios=(0.55, *[1.7] * len(carpets))
        )
        grid[0, 0].set_axis_off()
        _small_motion(grid[0, 1], framewise_displacement, tr, span)
        for row, (title, matrix) in enumerate(zip(series, carpets), start=1):
            axes = grid[row, 1]
            image = _grey_carpet(axes, matrix, limit, span)
            axes.set(title=title, yticks=[])
            axes.sharex(grid[0, 1])
            axes.tick_params(labelbottom=row == rows - 1)
            network_strip(grid[row, 0], np.asarray(networks)[order])
            grid[row, 0].set_ylabel(f"{len(order)} parcels")
        grid[-1, 1].set_xlabel("time (s)")
        c.shade_dummies([grid[0, 1]], n_dummy, tr)
        c.mark_bad(list(grid[:, 1]), bad, tr)
        c.note(grid[0, 1], c.marks_of_volumes(n_dummy, bad))
        figure.colorbar(image, ax=list(grid[1:, 1]), label=units, pad=0.01, aspect=40)
        network_legend(figure, networks, loc="outside lower center")


def _grey_carpet(
    axes: Axes, carpet: np.ndarray, limit: float, span: tuple[float, float]
) -> AxesImage:
    """Draw a carpet (V, T) that spans these seconds, black at -limit and white at +limit."""
    extent = (*span, len(carpet), 0)
    return c.heatmap(
        axes, carpet, cmap="gray", limit=(-limit, limit), levels=17, columns=500, extent=extent
    )


def _small_motion(
    axes: Axes, displacement: np.ndarray | None, tr: float, span: tuple[float, float]
) -> None:
    axes.set_xlim(*span)
    axes.tick_params(labelbottom=False)
    axes.set_ylabel("FD (mm)")
    axes.set_title("Framewise displacement")
    if displacement is None:
        return
    displacement = np.asarray(displacement, float)
    time = np.arange(len(displacement)) * tr
    axes.fill_between(time, np.nan_to_num(displacement), color=ACCENT, alpha=0.25, lw=0)
    axes.plot(time, displacement, color=ACCENT, lw=0.8)
    axes.set_ylim(0, None)
