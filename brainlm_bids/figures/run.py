"""Figures of the report: arrays in, one SVG file out at the path given.

Series are (T, V), parcels are V = 424 long arrays, images are (X, Y, Z) with an affine (4, 4) in
RAS+ mm, times are seconds. `networks` are the AA-7 numbers 1…7 of the parcels, 0 for none. All
functions write the file whole or not at all, and equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.mosaic import Layout, layout

# ICA-AROMA's decision (Pruim 2015; FACTS 3.1)
_CSF_LIMIT = 0.10
_HFC_LIMIT = 0.35
_HYPERPLANE = (-19.9751070082159, 9.95127547670627, 24.8333160239175)

_AXIS_COLOURS = ("#c8553d", "#2a7f8e", "#31508c")


def plot_motion(
    path: Path,
    confounds: Mapping[str, np.ndarray],
    tr: float,
    n_dummy: int = 0,
    fd_threshold: float = 0.5,
    dvars_threshold: float = 1.5,
) -> None:
    """Draw head motion, framewise displacement and standardised DVARS over time.

    `confounds` has fMRIPrep's names: trans_x… in mm, rot_x… in rad (drawn in degrees),
    framewise_displacement in mm, std_dvars without unit; each (T,). A missing one leaves its
    panel empty. `tr` in s; `n_dummy` leading volumes are shaded.
    """
    with c.canvas(path, height=5.6) as figure:
        panels = figure.subplots(4, 1, sharex=True, height_ratios=(1.2, 1.2, 1, 1))
        _motion_lines(panels[0], confounds, "trans", tr, 1.0)
        panels[0].set(title="Translation", ylabel="mm")
        _motion_lines(panels[1], confounds, "rot", tr, 180 / np.pi)
        panels[1].set(title="Rotation", ylabel="degrees")
        _trace(panels[2], confounds.get("framewise_displacement"), tr, fd_threshold, "mm")
        panels[2].set(title="Framewise displacement", ylabel="mm")
        _trace(panels[3], confounds.get("std_dvars"), tr, dvars_threshold, "")
        panels[3].set(title="Standardised DVARS", ylabel="ratio", xlabel="time (s)")
        n = max((len(values) for values in confounds.values()), default=1)
        panels[3].set_xlim(-0.5 * tr, (n - 0.5) * tr)
        c.shade_dummies(panels, n_dummy, tr)
        if n_dummy:
            panels[0].set_title(
                f"{n_dummy} dummy volume{'s' * (n_dummy > 1)} shaded",
                loc="right",
                fontsize=8,
                color=c.MUTED,
                weight="normal",
            )


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
    axes.axhline(0, color=c.FAINT, lw=0.7, zorder=0)
    if axes.lines[:-1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)


def _trace(axes: Axes, values: np.ndarray | None, tr: float, threshold: float, unit: str) -> None:
    """One positive trace with its threshold; what lies above it is marked and counted."""
    if values is None:
        return
    values = np.asarray(values, float)
    time = np.arange(len(values)) * tr
    axes.plot(time, values, color=c.ACCENT, rasterized=len(values) > 2000)
    axes.axhline(threshold, color=c.NOISE, lw=0.8, ls=(0, (4, 3)))
    above = np.flatnonzero(np.nan_to_num(values) > threshold)
    axes.plot(time[above], values[above], "o", ms=2.6, color=c.NOISE, rasterized=len(above) > 500)
    top = max(threshold, c.finite_percentile(values, 100, threshold))
    axes.set_ylim(0, 1.12 * top)
    mean = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    axes.set_title(
        f"mean {mean:.3f} {unit}".rstrip() + f"   ·   {len(above)} above {threshold:g} {unit}",
        loc="right",
        fontsize=8,
        color=c.MUTED,
        weight="normal",
    )


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
) -> None:
    """Carpet of the series (T, V) before and after denoising, with the head motion above.

    Columns are sorted by network (V,); both carpets share one grey scale, the mean of each series
    is taken off. NaN series are light grey.
    """
    carpets = [("Before denoising", before)]
    if after is not None:
        carpets.append(("After denoising", after))
    order = c.network_order(networks)
    centred = [_centred(np.asarray(series, float)[:, order]).T for _, series in carpets]
    limit = c.finite_percentile(np.abs(centred[0]), 97)
    n_volumes = centred[0].shape[1]
    span = (-0.5 * tr, (n_volumes - 0.5) * tr)
    with c.canvas(path, height=1.3 + 2.35 * len(carpets)) as figure:
        rows = 1 + len(carpets)
        grid = figure.subplots(
            rows, 2, width_ratios=(1, 48), height_ratios=(0.55, *[1.7] * len(carpets))
        )
        grid[0, 0].set_axis_off()
        _small_motion(grid[0, 1], framewise_displacement, tr, span)
        for row, ((title, _), matrix) in enumerate(zip(carpets, centred), start=1):
            axes = grid[row, 1]
            image = c.heatmap(
                axes,
                matrix,
                cmap="gray",
                limit=(-limit, limit),
                levels=17,
                columns=500,
                extent=(*span, len(order), 0),
            )
            axes.set(title=title, yticks=[])
            axes.sharex(grid[0, 1])
            axes.tick_params(labelbottom=row == rows - 1)
            c.network_strip(grid[row, 0], np.asarray(networks)[order])
            grid[row, 0].set_ylabel(f"{len(order)} parcels")
        grid[-1, 1].set_xlabel("time (s)")
        c.shade_dummies([grid[0, 1]], n_dummy, tr)
        figure.colorbar(image, ax=list(grid[1:, 1]), label=units, pad=0.01, aspect=40)
        c.network_legend(figure, networks, loc="outside lower center")


def _centred(series: np.ndarray) -> np.ndarray:
    """Series (T, V) without their temporal mean; columns of NaN stay NaN, and nothing is warned."""
    count = np.isfinite(series).sum(axis=0)
    total = np.nansum(series, axis=0)
    return series - np.where(count > 0, total / np.maximum(count, 1), np.nan)


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
    axes.fill_between(time, np.nan_to_num(displacement), color=c.ACCENT, alpha=0.25, lw=0)
    axes.plot(time, displacement, color=c.ACCENT, lw=0.8)
    axes.set_ylim(0, None)


def plot_registration(
    path: Path,
    fixed: np.ndarray,
    fixed_affine: np.ndarray,
    moving_resampled: np.ndarray,
    contours: Mapping[str, np.ndarray] | None = None,
    *,
    title: str = "",
    fixed_name: str = "fixed",
    moving_name: str = "moving",
) -> None:
    """Lay the moving image over the fixed one, both (X, Y, Z) on the fixed grid.

    The moving image is shown with the contours of the fixed space (`contours`: name → mask on
    that grid); a pointer over the figure fades to the fixed image and back. The first mask bounds
    the slices.
    """
    contours = dict(contours or {})
    bound = next(iter(contours.values()), _foreground(fixed))
    cut = layout(np.shape(fixed), fixed_affine, bound)
    with c.canvas(path, _mosaic_height(cut) + 0.45, smooth=True, style=_FLICKER) as figure:
        axes = _picture_axes(figure, cut)
        _grey(axes, cut, moving_resampled, None)
        _grey(axes, cut, fixed, bound, gid="fixed")
        _contours(axes, cut, contours)
        _tile_labels(axes, cut)
        axes.set_title(title or f"{moving_name} on {fixed_name}")
        axes.set_title(
            f"shown: {moving_name}   ·   point at the figure: {fixed_name}",
            loc="right",
            fontsize=8,
            color=c.MUTED,
            weight="normal",
        )
        _contour_legend(axes, contours)


# The picture named `fixed` is hidden, and comes and goes while a pointer is over the figure
_FLICKER = (
    "#fixed{opacity:0}svg:hover #fixed{animation:flicker 2.4s ease-in-out infinite}"
    "@keyframes flicker{0%,10%{opacity:0}40%,60%{opacity:1}90%,100%{opacity:0}}"
)


def plot_brain_mask(
    path: Path,
    image: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray,
    *,
    title: str = "Brain mask",
) -> None:
    """Outline a mask (X, Y, Z) on its image (X, Y, Z)."""
    # the head, not the mask, bounds the slices: what the mask misses must be in the picture
    head = _foreground(image) | (np.asarray(mask) > 0)
    cut = layout(np.shape(image), affine, head)
    volume = float(abs(np.linalg.det(affine[:3, :3])) * np.count_nonzero(mask) / 1000)
    with c.canvas(path, _mosaic_height(cut) + 0.4, smooth=True) as figure:
        axes = _picture_axes(figure, cut)
        _grey(axes, cut, image, mask)
        _contours(axes, cut, {"brain": mask})
        _tile_labels(axes, cut)
        axes.set_title(title)
        axes.set_title(f"{volume:.0f} cm³", loc="right", fontsize=8, color=c.MUTED, weight="normal")


def _foreground(image: np.ndarray) -> np.ndarray:
    """Where an image is not background: above a quarter of its 98th percentile."""
    image = np.nan_to_num(np.asarray(image, dtype=np.float32))
    return image > 0.25 * np.percentile(image, 98)


def _mosaic_height(cut: Layout) -> float:
    return c.WIDTH * cut.shape[0] / cut.shape[1]


def _picture_axes(figure: Figure, cut: Layout) -> Axes:
    axes = figure.subplots()
    axes.set(xlim=(-0.5, cut.shape[1] - 0.5), ylim=(cut.shape[0] - 0.5, -0.5), aspect="equal")
    axes.set(xticks=[], yticks=[], facecolor="black")
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _grey(
    axes: Axes, cut: Layout, volume: np.ndarray, mask: np.ndarray | None, gid: str | None = None
) -> None:
    volume = np.nan_to_num(np.asarray(volume, dtype=np.float32))
    inside = volume[np.asarray(mask) > 0] if mask is not None and np.any(mask) else volume
    inside = inside[inside > 0]
    low, high = np.percentile(inside, (1, 99)) if inside.size else (0.0, 1.0)
    picture = np.nan_to_num(cut.cut(volume))
    cmap = c.coarse("gray", 40)
    image = axes.imshow(
        picture, cmap=cmap, vmin=0.5 * low, vmax=max(high, low + 1e-6), interpolation="none"
    )
    image.set_gid(gid)


def _contours(axes: Axes, cut: Layout, contours: Mapping[str, np.ndarray]) -> None:
    for mask, colour in zip(contours.values(), _CONTOUR_COLOURS):
        picture = np.nan_to_num(cut.cut(np.asarray(mask, dtype=np.float32)))
        if picture.max() > 0.5 > picture.min():
            axes.contour(picture, levels=[0.5], colors=[colour], linewidths=0.9)


_CONTOUR_COLOURS = ("#ff5c4d", "#39c5e0", "#f5c542", "#7ddf64")


def _contour_legend(axes: Axes, contours: Mapping[str, np.ndarray]) -> None:
    handles = [
        Line2D([], [], color=colour, lw=1.6, label=name)
        for name, colour in zip(contours, _CONTOUR_COLOURS)
    ]
    if handles:
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncol=4)


def _tile_labels(axes: Axes, cut: Layout) -> None:
    for tile in cut.tiles:
        text: dict[str, Any] = {"color": "white", "fontsize": 7, "va": "bottom"}
        axes.text(tile.left, tile.top - 1, f"{tile.plane} = {tile.position:.0f} mm", **text)
    first = next((tile for tile in cut.tiles if tile.plane in "zy"), None)
    if first is None:
        return
    sides: dict[str, Any] = {"color": "white", "fontsize": 8, "va": "bottom", "weight": "bold"}
    bottom = first.top + first.height - 1
    axes.text(first.left + 1, bottom, "L", ha="left", **sides)
    axes.text(first.left + first.width - 1, bottom, "R", ha="right", **sides)


def plot_aroma(
    path: Path,
    features: Mapping[str, np.ndarray],
    mixing: np.ndarray,
    tr: float,
    *,
    max_components: int = 40,
) -> None:
    """Show every ICA component's features and decision, and time courses with their spectra.

    `features`: max_rp_corr, edge_fract, csf_fract, hfc (0…1), variance (fraction or percent) and
    classification ("noise" or "signal"), each (K,). `mixing` (T, K), NaN in
    non-steady volumes. The sheet holds the `max_components` components of the largest variance.
    """
    noise = np.array([str(label) == "noise" for label in features["classification"]], bool)
    mixing = np.asarray(mixing, float)
    variance = _fractions(features.get("variance"), len(noise))
    order = np.argsort(-variance, kind="stable")[:max_components]
    rows = int(np.ceil(len(order) / 2))
    with c.canvas(path, height=3.3 + 0.21 * max(rows, 4)) as figure:
        top, bottom = c.split(figure, 2, 1, height_ratios=(3.2, 0.4 + 0.21 * max(rows, 4)))
        _aroma_features(top, features, noise, variance)
        panels = bottom.subplots(1, 4, width_ratios=(2.4, 1, 2.4, 1))
        for half in range(2):
            chosen = order[half * rows : (half + 1) * rows]
            _component_rows(panels[2 * half], panels[2 * half + 1], chosen, mixing, noise, tr, rows)
        panels[0].set_title("Time courses")
        panels[1].set_title("Power spectra")
        if len(order) < len(noise):
            panels[2].set_title(
                f"the {len(order)} of {len(noise)} components with most variance",
                fontsize=8,
                color=c.MUTED,
                weight="normal",
            )


def _fractions(variance: np.ndarray | None, n: int) -> np.ndarray:
    """Variance as fractions that sum to one, (K,); equal if unknown."""
    if variance is None:
        return np.full(n, 1.0 / max(n, 1))
    values = np.nan_to_num(np.asarray(variance, float))
    return values / values.sum() if values.sum() > 0 else np.full(n, 1.0 / max(n, 1))


def _aroma_features(
    figure: Figure, features: Mapping[str, np.ndarray], noise: np.ndarray, variance: np.ndarray
) -> None:
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.2, 1.2, 0.8))
    colours = np.where(noise, c.NOISE, c.SIGNAL)
    size = 10 + 500 * variance
    x, y = np.asarray(features["max_rp_corr"], float), np.asarray(features["edge_fract"], float)
    left.scatter(x, y, s=size, c=colours, alpha=0.7, lw=0)
    line = np.array([0.0, 1.0])
    left.plot(line, -(_HYPERPLANE[0] + _HYPERPLANE[1] * line) / _HYPERPLANE[2], "--", color=c.MUTED)
    left.set(xlim=(0, 1), ylim=(0, 1), title="Motion and brain edge")
    left.set(xlabel="maximum correlation with motion", ylabel="edge fraction")
    x, y = np.asarray(features["hfc"], float), np.asarray(features["csf_fract"], float)
    middle.scatter(x, y, s=size, c=colours, alpha=0.7, lw=0)
    middle.axvline(_HFC_LIMIT, ls="--", color=c.MUTED)
    middle.axhline(_CSF_LIMIT, ls="--", color=c.MUTED)
    middle.set(xlim=(0, 1), ylim=(0, max(0.2, c.finite_percentile(y, 100) * 1.1)))
    middle.set(title="Frequency and CSF", xlabel="high-frequency content", ylabel="CSF fraction")
    share = [float(variance[~noise].sum()) * 100, float(variance[noise].sum()) * 100]
    counts = [int((~noise).sum()), int(noise.sum())]
    bars = right.bar(["kept", "removed"], share, color=[c.SIGNAL, c.NOISE], width=0.6)
    labels = [f"{count} IC\n{part:.0f} %" for count, part in zip(counts, share)]
    right.bar_label(bars, labels, fontsize=8, padding=2)
    right.set(ylim=(0, 1.3 * max(*share, 1.0)), ylabel="variance of the components (%)")
    right.set_title("Decision")


def _component_rows(
    time_axes: Axes,
    frequency_axes: Axes,
    chosen: np.ndarray,
    mixing: np.ndarray,
    noise: np.ndarray,
    tr: float,
    rows: int,
) -> None:
    # non-steady volumes have no value
    steady = np.flatnonzero(np.isfinite(mixing).all(axis=1))
    time, mixing = steady * tr, mixing[steady]
    frequency = np.fft.rfftfreq(len(mixing), tr)[1:]
    for row, component in enumerate(chosen):
        colour = c.NOISE if noise[component] else c.SIGNAL
        course = mixing[:, component] - mixing[:, component].mean()
        scaled = course / (np.abs(course).max() or 1.0)
        time_axes.plot(time, row - 0.48 * scaled, color=colour, lw=0.6, rasterized=True)
        power = np.abs(np.fft.rfft(course))[1:] ** 2
        scaled = power / (power.max() if power.size and power.max() > 0 else 1.0)
        base = np.full_like(frequency, row + 0.42)
        frequency_axes.fill_between(
            frequency, base, base - 0.85 * scaled, color=colour, lw=0, rasterized=True
        )
    time_axes.set_yticks(range(len(chosen)), [f"{component + 1}" for component in chosen])
    for label, component in zip(time_axes.get_yticklabels(), chosen):
        label.set(color=c.NOISE if noise[component] else c.SIGNAL, fontsize=6.5)
    frequency_axes.set_yticks([])
    time_axes.set(xlabel="time (s)", xlim=(0, max(time[-1], tr)), ylabel="component")
    frequency_axes.set(xlabel="frequency (Hz)", xlim=(0, 0.5 / tr))
    for axes in (time_axes, frequency_axes):
        axes.set_ylim(max(rows, 4) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)


def plot_coverage(
    path: Path,
    fraction: np.ndarray,
    coordinates: np.ndarray,
    networks: np.ndarray,
    *,
    threshold: float = 0.5,
    names: Sequence[str] | None = None,
) -> None:
    """Show how much of each parcel the run covers: fraction (V,) 0…1 at its centre (V, 3) in mm."""
    fraction = np.asarray(fraction, float)
    coordinates = np.asarray(coordinates, float)
    with c.canvas(path, height=4.7) as figure:
        top, bottom = c.split(figure, 2, 1, height_ratios=(3, 1.5))
        panels = top.subplots(1, 3, width_ratios=(1, 0.84, 0.84))
        views = (("sagittal", 1, 2, 0), ("coronal", 0, 2, 1), ("axial", 0, 1, 2))
        for axes, (view, across, up, depth) in zip(panels, views):
            near = np.argsort(np.abs(coordinates[:, depth]), kind="stable")[::-1]
            order = np.concatenate(
                [near[fraction[near] >= threshold], near[fraction[near] < threshold]]
            )
            marks = axes.scatter(
                coordinates[order, across],
                coordinates[order, up],
                c=np.nan_to_num(fraction[order]),
                cmap="viridis",
                vmin=0,
                vmax=1,
                s=np.where(fraction[order] < threshold, 46, 22),
                edgecolors=np.where(fraction[order] < threshold, c.NOISE, "white"),
                lw=np.where(fraction[order] < threshold, 1.4, 0.3),
                rasterized=True,
            )
            axes.set(title=view.capitalize(), aspect="equal")
            axes.set(xlabel=f"{'xyz'[across]} (mm)", ylabel=f"{'xyz'[up]} (mm)")
        top.colorbar(marks, ax=list(panels), label="fraction covered", pad=0.01, aspect=30)
        _coverage_bars(bottom.subplots(), fraction, networks, threshold, names)
        c.network_legend(bottom, networks, loc="outside lower center")


def _coverage_bars(
    axes: Axes,
    fraction: np.ndarray,
    networks: np.ndarray,
    threshold: float,
    names: Sequence[str] | None,
) -> None:
    order = c.network_order(networks)
    heights = np.nan_to_num(fraction[order])
    colours = c.network_colours(np.asarray(networks)[order])
    axes.bar(np.arange(len(order)), heights, width=1.0, color=colours, lw=0, rasterized=True)
    axes.axhline(threshold, color=c.NOISE, ls="--", lw=0.8)
    axes.set(xlim=(-0.5, len(order) - 0.5), ylim=(0, 1.05), xticks=[], ylabel="fraction")
    n_low = int((np.nan_to_num(fraction) < threshold).sum())
    n_empty = int((np.nan_to_num(fraction) <= 0).sum())
    axes.set_title("Every parcel, by network")
    note = f"{n_low} of {len(fraction)} below {threshold:g}   ·   {n_empty} without data"
    axes.set_title(note, loc="right", fontsize=8, color=c.MUTED, weight="normal")
    worst = [i for i in np.argsort(heights, kind="stable")[:6] if heights[i] < threshold]
    if names is None or len(worst) == 0:
        return
    text = "lowest: " + ", ".join(str(names[order[i]]) for i in worst)
    axes.set_xlabel(text, color=c.NOISE, fontsize=8)


def plot_series(
    path: Path,
    series: np.ndarray,
    tr: float,
    networks: np.ndarray,
    *,
    title: str = "Parcel series",
    units: str = "robust units (IQR = 1)",
) -> None:
    """Heat map of the series (T, V), parcels sorted by network; NaN is light grey."""
    order = c.network_order(networks)
    matrix = np.asarray(series, float)[:, order].T
    limit = c.finite_percentile(np.abs(matrix), 98)
    with c.canvas(path, height=4.4) as figure:
        strip, axes = figure.subplots(1, 2, width_ratios=(1, 48))
        span = (-0.5 * tr, (matrix.shape[1] - 0.5) * tr)
        image = c.heatmap(
            axes, matrix, cmap="RdBu_r", limit=(-limit, limit), extent=(*span, len(order), 0)
        )
        axes.set(title=title, xlabel="time (s)", yticks=[])
        c.network_strip(strip, np.asarray(networks)[order])
        strip.set_ylabel(f"{len(order)} parcels")
        figure.colorbar(image, ax=axes, label=units, pad=0.01, aspect=40)
        c.network_legend(figure, networks, loc="outside lower center")


def plot_connectivity(path: Path, matrix: np.ndarray, networks: np.ndarray) -> None:
    """Correlation matrix (V, V) sorted by network, and its means within and between networks."""
    order = c.network_order(networks)
    sorted_networks = np.asarray(networks)[order]
    values = np.array(matrix, float)
    np.fill_diagonal(values, np.nan)
    values = values[np.ix_(order, order)]
    limit = min(1.0, max(0.2, c.finite_percentile(np.abs(values), 98)))
    with c.canvas(path, height=5.2) as figure:
        left, right = c.split(figure, 1, 2, width_ratios=(1.25, 1))
        grid = left.subplots(1, 2, width_ratios=(1, 24))
        image = c.heatmap(grid[1], values, cmap="RdBu_r", limit=(-limit, limit), aspect="equal")
        edges = c.group_edges(sorted_networks)
        for _, (_, last) in list(edges.items())[:-1]:
            grid[1].axhline(last - 0.5, color="white", lw=0.6)
            grid[1].axvline(last - 0.5, color="white", lw=0.6)
        grid[1].set(title=f"{len(order)} parcels", xticks=[], yticks=[])
        c.network_strip(grid[0], sorted_networks)
        grid[0].set_box_aspect(24)
        left.colorbar(image, ax=grid[1], label="Pearson r", pad=0.02, shrink=0.8, aspect=30)
        _network_means(right, values, edges, limit)
        c.network_legend(figure, networks, loc="outside lower center")


def _network_means(
    figure: Figure, values: np.ndarray, edges: Mapping[int, tuple[int, int]], limit: float
) -> None:
    axes = figure.subplots()
    means = np.array(
        [
            [_nanmean(values[slice(*rows), slice(*columns)]) for columns in edges.values()]
            for rows in edges.values()
        ]
    )
    axes.imshow(means, cmap=c.coarse("RdBu_r"), vmin=-limit, vmax=limit)
    for row, column in np.ndindex(means.shape):
        value = means[row, column]
        text = f"{value:.2f}" if np.isfinite(value) else "n/a"
        dark = np.isfinite(value) and abs(value) > 0.6 * limit
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if dark else c.INK,
        )
    labels = [c.NETWORKS[n - 1][0] if n > 0 else "none" for n in edges]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    axes.set_title("Mean r within and between networks")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _nanmean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def plot_reconstruction(
    path: Path,
    robust: np.ndarray,
    reconstruction: np.ndarray,
    tr: float,
    r2: np.ndarray | None = None,
    metrics: Sequence[Mapping[str, object]] = (),
    *,
    names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Compare the series that the model saw with what it predicted while they were masked.

    `robust` and `reconstruction` (T, V), NaN where nothing was predicted; `r2` (V,) per parcel
    (computed if None); `metrics`: rows with mask_ratio, predictor (model, parcel_mean, ridge), r2.
    The parcels shown are the best, the median and the worst by r². Raises ValueError if there is
    no parcel to compare.
    """
    robust = np.asarray(robust, float)
    reconstruction = np.asarray(reconstruction, float)
    correlation = _columnwise_correlation(robust, reconstruction)
    quality = _columnwise_r2(robust, reconstruction) if r2 is None else np.asarray(r2, float)
    usable = np.flatnonzero(np.isfinite(quality))
    ranked = usable[np.argsort(-quality[usable], kind="stable")]
    if len(ranked) == 0:
        raise ValueError("no parcel has both a series and a reconstruction that vary")
    shown = [("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])]
    with c.canvas(path, height=6.6) as figure:
        top, bottom = c.split(figure, 2, 1, height_ratios=(3.9, 2.7))
        panels = top.subplots(3, 1, sharex=True)
        time = np.arange(len(robust)) * tr
        for axes, (kind, parcel) in zip(panels, shown):
            many = len(time) > 2000
            axes.plot(time, robust[:, parcel], color=c.MUTED, label="series", rasterized=many)
            axes.plot(
                time, reconstruction[:, parcel], color=c.NOISE, label="model", rasterized=many
            )
            name = names[parcel] if names is not None else f"parcel {parcel + 1}"
            axes.set_title(f"{kind.capitalize()}: {name}")
            numbers = f"r² = {quality[parcel]:.2f}   ·   r = {correlation[parcel]:.2f}"
            axes.set_title(numbers, loc="right", fontsize=8, color=c.MUTED, weight="normal")
            axes.set(ylabel="robust units", xlim=(0, max(time[-1], tr)))
        panels[0].legend(loc="upper right", ncol=2)
        panels[-1].set_xlabel("time (s)")
        if title:
            top.suptitle(title, fontsize=9, color=c.MUTED)
        left, right = bottom.subplots(1, 2, width_ratios=(1, 1.25))
        _correlation_histogram(left, correlation)
        _baseline_bars(right, metrics)


def _columnwise_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(both, x, np.nan), np.where(both, y, np.nan)
    x, y = np.nan_to_num(_centred(x)), np.nan_to_num(_centred(y))
    norm = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return np.where(norm > 0, (x * y).sum(axis=0) / np.where(norm > 0, norm, 1), np.nan)


def _columnwise_r2(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    both = np.isfinite(truth) & np.isfinite(predicted)
    residual = np.where(both, truth - predicted, 0.0)
    total = np.nan_to_num(_centred(np.where(both, truth, np.nan)))
    total = (total**2).sum(axis=0)
    return np.where(
        total > 0, 1 - (residual**2).sum(axis=0) / np.where(total > 0, total, 1), np.nan
    )


def _correlation_histogram(axes: Axes, correlation: np.ndarray) -> None:
    finite = correlation[np.isfinite(correlation)]
    axes.hist(finite, bins=list(np.linspace(-1, 1, 41)), color=c.ACCENT, alpha=0.85)
    axes.axvline(0, color=c.FAINT, lw=0.8, zorder=0)
    axes.set(xlim=(-1, 1), xlabel="r of series and model", ylabel="parcels")
    axes.set_title("Correlation by parcel")
    if finite.size:
        middle = float(np.median(finite))
        axes.axvline(middle, color=c.NOISE, lw=1.2)
        axes.set_title(
            f"median {middle:.2f}", loc="right", fontsize=8, color=c.MUTED, weight="normal"
        )


_PREDICTORS = {
    "model": ("model", c.NOISE),
    "parcel_mean": ("parcel mean", c.FAINT),
    "ridge": ("ridge", c.MUTED),
}


def _baseline_bars(axes: Axes, metrics: Sequence[Mapping[str, object]]) -> None:
    axes.set_title("Masked values: the model and simple predictors")
    axes.set(ylabel="r² (1 is perfect)", xlabel="fraction masked")
    ratios = sorted({float(str(row["mask_ratio"])) for row in metrics})
    predictors = list(dict.fromkeys(str(row["predictor"]) for row in metrics))
    if not ratios:
        axes.text(0.5, 0.5, "no metrics", ha="center", color=c.MUTED, transform=axes.transAxes)
        return
    width = 0.8 / len(predictors)
    extra = iter((c.ACCENT, c.SIGNAL, c.AMBER) * 10)
    for index, predictor in enumerate(predictors):
        label, colour = _PREDICTORS.get(predictor) or (predictor, next(extra))
        heights = [_metric(metrics, ratio, predictor) for ratio in ratios]
        at = np.arange(len(ratios)) + (index - (len(predictors) - 1) / 2) * width
        drawn = np.nan_to_num(np.clip(heights, -1, 1))
        bars = axes.bar(at, drawn, 0.92 * width, color=colour, label=label)
        texts = [f"{h:.2f}" if np.isfinite(h) else "n/a" for h in heights]
        axes.bar_label(bars, texts, fontsize=6.5, padding=1.5)
    axes.axhline(0, color=c.MUTED, lw=0.7)
    axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
    axes.margins(y=0.15)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _metric(metrics: Sequence[Mapping[str, object]], ratio: float, predictor: str) -> float:
    for row in metrics:
        if float(str(row["mask_ratio"])) == ratio and str(row["predictor"]) == predictor:
            try:
                return float(str(row["r2"]))
            except ValueError:
                return float("nan")
    return float("nan")


def plot_embeddings(
    path: Path, cls: np.ndarray, onset: np.ndarray, duration: float | None = None
) -> None:
    """Show the embedding (N, D) of every window as a strip, and how alike the windows are.

    `onset` (N,) and `duration` of the windows in s. Likeness is the cosine of the embeddings.
    """
    cls = np.atleast_2d(np.asarray(cls, float))
    onset = np.atleast_1d(np.asarray(onset, float))
    n_windows, width = cls.shape
    norm = np.linalg.norm(cls, axis=1, keepdims=True)
    unit = cls / np.where(norm > 0, norm, 1)
    likeness = unit @ unit.T
    labels = [f"{start:.0f}" for start in onset]
    every = max(1, n_windows // 12)
    limit = c.finite_percentile(np.abs(cls), 99)
    note = f"{n_windows} window{'s' * (n_windows != 1)} of {width} numbers"
    if duration:
        note += f", {duration:.0f} s each"
    with c.canvas(path, height=2.9) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(2.6, 1))
        image = c.heatmap(left, cls, cmap="RdBu_r", limit=(-limit, limit))
        left.set_yticks(range(0, n_windows, every), labels[::every])
        left.set(title="Embedding (CLS)", xlabel="dimension", ylabel="onset of window (s)")
        left.set_title(note, loc="right", fontsize=8, color=c.MUTED, weight="normal")
        figure.colorbar(image, ax=left, label="value", pad=0.01, aspect=25)
        lowest = float(likeness.min())
        image = right.imshow(likeness, cmap=c.coarse("viridis"), vmin=min(lowest, 0.99), vmax=1)
        right.set_xticks(range(0, n_windows, every), labels[::every], rotation=90 * (n_windows > 6))
        right.set_yticks(range(0, n_windows, every), labels[::every])
        right.set(title="Likeness of windows", xlabel="onset (s)", ylabel="onset (s)")
        figure.colorbar(image, ax=right, label="cosine", pad=0.02, aspect=25)
        if n_windows <= 6:
            for row, column in np.ndindex(likeness.shape):
                bright = likeness[row, column] > 0.5 * (min(lowest, 0.99) + 1)
                ink = c.INK if bright else "white"
                text = f"{likeness[row, column]:.3f}"
                right.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)


def plot_networks(
    path: Path,
    labels: np.ndarray,
    atlas: np.ndarray,
    affine: np.ndarray,
    reference: np.ndarray,
    scores: Mapping[str, float] | None = None,
    *,
    background: np.ndarray | None = None,
    title: str = "Networks from the model",
) -> None:
    """Map the network of every parcel next to the published one (AA-7).

    `labels` and `reference` (V,) 1…7, 0 for none; `atlas` (X, Y, Z) with parcel numbers 1…V;
    `background` (X, Y, Z) on the same grid; `scores` are fractions 0…1 by name (accuracy, chance,
    controls), drawn as bars.
    """
    labels, reference = np.asarray(labels).astype(int), np.asarray(reference).astype(int)
    cut = layout(np.shape(atlas), affine, np.asarray(atlas) > 0, planes="z", n_columns=8)
    parcels = np.nan_to_num(cut.cut(atlas, order=0)).round().astype(int)
    known = (labels > 0) & (reference > 0)
    share = float((labels == reference)[known].mean()) if known.any() else float("nan")
    height = c.WIDTH * cut.shape[0] / cut.shape[1]
    with c.canvas(path, height=2 * height + 3.5) as figure:
        top, bottom = c.split(figure, 2, 1, height_ratios=(2 * height + 0.5, 3.0))
        maps = top.subplots(2, 1)
        for axes, name, numbers in (
            (maps[0], "Reference: AA-7", reference),
            (maps[1], title, labels),
        ):
            _network_picture(axes, cut, parcels, numbers, background)
            axes.set_title(name)
        agreement = f"{100 * share:.0f} % of {int(known.sum())} parcels as in the reference"
        maps[1].set_title(agreement, loc="right", fontsize=8, color=c.MUTED, weight="normal")
        left, right = bottom.subplots(1, 2, width_ratios=(1, 1.4))
        _confusion(left, reference[known], labels[known])
        _score_bars(right, {"agreement": share} if not scores else dict(scores))
        c.network_legend(bottom, np.concatenate([labels, reference]), loc="outside lower center")


def _network_picture(
    axes: Axes,
    cut: Layout,
    parcels: np.ndarray,
    numbers: np.ndarray,
    background: np.ndarray | None,
) -> None:
    axes.set(xticks=[], yticks=[], aspect="equal", facecolor="black")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set(xlim=(-0.5, cut.shape[1] - 0.5), ylim=(cut.shape[0] - 0.5, -0.5))
    if background is not None:
        _grey(axes, cut, background, None)
    lookup = np.concatenate([[0], numbers])
    network = lookup[np.clip(parcels, 0, len(numbers))].astype(float)
    network[parcels == 0] = np.nan
    image = np.ma.masked_invalid(network)
    axes.imshow(image, cmap=c.network_cmap(), vmin=-0.5, vmax=7.5, interpolation="nearest")
    _tile_labels(axes, cut)


def _confusion(axes: Axes, reference: np.ndarray, labels: np.ndarray) -> None:
    table = np.zeros((7, 7))
    np.add.at(table, (reference - 1, labels - 1), 1)
    total = table.sum(axis=1, keepdims=True)
    rows = np.divide(table, total, out=np.full_like(table, np.nan), where=total > 0)
    axes.imshow(rows, cmap=c.coarse("Blues"), vmin=0, vmax=1)
    for row, column in np.ndindex(rows.shape):
        if table[row, column] > 0:
            ink = "white" if rows[row, column] > 0.5 else c.INK
            count = f"{table[row, column]:.0f}"
            axes.text(column, row, count, ha="center", va="center", fontsize=6.5, color=ink)
    names = [name for name, _, _ in c.NETWORKS]
    axes.set_xticks(range(7), names)
    axes.set_yticks(range(7), names)
    axes.tick_params(length=0)
    axes.set(title="Parcels, by network", xlabel="model", ylabel="reference")


def _score_bars(axes: Axes, scores: Mapping[str, float]) -> None:
    names = list(scores)
    values = np.array([float(scores[name]) for name in names])
    at = np.arange(len(names))
    colours = [c.ACCENT if index == 0 else c.FAINT for index in range(len(names))]
    bars = axes.barh(at, np.nan_to_num(values), color=colours, height=0.62)
    axes.bar_label(bars, [f"{v:.2f}" if np.isfinite(v) else "n/a" for v in values], padding=3)
    axes.set_yticks(at, [name.replace("_", " ") for name in names])
    axes.set(xlim=(0, 1.1), xlabel="fraction", title="Scores and controls")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
