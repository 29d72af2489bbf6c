"""Figures of the parcels: coverage, series, connectivity.

Each function draws arrays into one SVG file; equal input gives equal bytes. V is the number of
parcels; `networks` (V,) are the AA-7 networks 1…7 of the parcels, 0 for none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.networks import (
    group_edges,
    network_colours,
    network_legend,
    network_order,
    network_strip,
)
from brainlm_bids.figures.palette import INK, NETWORKS, NOISE


def plot_coverage(
    path: Path,
    fraction: np.ndarray,
    coordinates: np.ndarray,
    networks: np.ndarray,
    *,
    threshold: float = 0.5,
    names: Sequence[str] | None = None,
) -> None:
    """Draw the covered fraction of each parcel at its place in the brain, and as bars.

    Parameters
    ----------
    path
        SVG file to write.
    fraction
        Covered fraction of each parcel, (V,), 0…1.
    coordinates
        Centres of the parcels, (V, 3) in mm.
    networks
        Network of each parcel, (V,).
    threshold
        Parcels covered by less than this fraction are marked.
    names
        Names of the parcels; the least covered are listed by name.
    """
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
                edgecolors=np.where(fraction[order] < threshold, NOISE, "white"),
                lw=np.where(fraction[order] < threshold, 1.4, 0.3),
                rasterized=True,
            )
            axes.set(title=view.capitalize(), aspect="equal")
            if view != "sagittal":
                _mark_sides(axes)
            axes.set(xlabel=f"{'xyz'[across]} (mm)", ylabel=f"{'xyz'[up]} (mm)")
        top.colorbar(marks, ax=list(panels), label="fraction covered", pad=0.01, aspect=30)
        _coverage_bars(bottom.subplots(), fraction, networks, threshold, names)
        network_legend(bottom, networks, loc="outside lower center")


def _mark_sides(axes: Axes) -> None:
    """Write left and right; x grows to the right of the head."""
    place: dict[str, Any] = {"transform": axes.transAxes, "weight": "bold", "va": "bottom"}
    axes.text(0.02, 0.02, "L", ha="left", **place)
    axes.text(0.98, 0.02, "R", ha="right", **place)


def _coverage_bars(
    axes: Axes,
    fraction: np.ndarray,
    networks: np.ndarray,
    threshold: float,
    names: Sequence[str] | None,
) -> None:
    order = network_order(networks)
    heights = np.nan_to_num(fraction[order])
    colours = network_colours(np.asarray(networks)[order])
    axes.bar(np.arange(len(order)), heights, width=1.0, color=colours, lw=0, rasterized=True)
    axes.axhline(threshold, color=NOISE, ls="--", lw=0.8)
    axes.set(xlim=(-0.5, len(order) - 0.5), ylim=(0, 1.05), xticks=[], ylabel="fraction")
    n_low = int((np.nan_to_num(fraction) < threshold).sum())
    n_empty = int((np.nan_to_num(fraction) <= 0).sum())
    axes.set_title("All parcels, by network")
    c.note(axes, f"{n_low} of {len(fraction)} below {threshold:g}   ·   {n_empty} without data")
    worst = [i for i in np.argsort(heights, kind="stable")[:6] if heights[i] < threshold]
    if names is None or len(worst) == 0:
        return
    text = "lowest: " + ", ".join(str(names[order[i]]) for i in worst)
    axes.set_xlabel(text, color=NOISE, fontsize=8)


def plot_series(
    path: Path,
    series: np.ndarray,
    tr: float,
    networks: np.ndarray,
    *,
    title: str = "Parcel series",
    units: str = "robust units (IQR = 1)",
    measured: np.ndarray | None = None,
) -> None:
    """Draw the series of all parcels as a heat map, sorted by network.

    Parameters
    ----------
    path
        SVG file to write.
    series
        (T, V) in `units`; NaN is light grey.
    tr
        Sampling interval in s.
    networks
        Network of each parcel, (V,).
    title
        Title of the figure.
    units
        Label of the colour scale.
    measured
        (T,) False for samples that are interpolated, since their volumes are bad; they are
        marked. None: all are measured.
    """
    order = network_order(networks)
    matrix = np.asarray(series, float)[:, order].T
    limit = c.finite_percentile(np.abs(matrix), 98)
    with c.canvas(path, height=4.4) as figure:
        strip, axes = figure.subplots(1, 2, width_ratios=(1, 48))
        span = (-0.5 * tr, (matrix.shape[1] - 0.5) * tr)
        image = c.heatmap(
            axes, matrix, cmap="RdBu_r", limit=(-limit, limit), extent=(*span, len(order), 0)
        )
        axes.set(title=title, xlabel="time (s)", yticks=[])
        if measured is not None and not np.all(measured):
            c.mark_bad([axes], ~np.asarray(measured, dtype=bool), tr)
            c.note(axes, f"{int(np.sum(~measured))} interpolated samples marked with a triangle")
        network_strip(strip, np.asarray(networks)[order])
        strip.set_ylabel(f"{len(order)} parcels")
        figure.colorbar(image, ax=axes, label=units, pad=0.01, aspect=40)
        network_legend(figure, networks, loc="outside lower center")


def plot_connectivity(path: Path, matrix: np.ndarray, networks: np.ndarray) -> None:
    """Draw a correlation matrix sorted by network, and its means within and between networks.

    Parameters
    ----------
    path
        SVG file to write.
    matrix
        Pearson correlations (V, V); the diagonal is not shown.
    networks
        Network of each parcel, (V,).
    """
    order = network_order(networks)
    sorted_networks = np.asarray(networks)[order]
    values = np.array(matrix, float)
    np.fill_diagonal(values, np.nan)
    values = values[np.ix_(order, order)]
    limit = min(1.0, max(0.2, c.finite_percentile(np.abs(values), 98)))
    with c.canvas(path, height=5.2) as figure:
        left, right = c.split(figure, 1, 2, width_ratios=(1.25, 1))
        grid = left.subplots(1, 2, width_ratios=(1, 24))
        image = c.heatmap(grid[1], values, cmap="RdBu_r", limit=(-limit, limit), aspect="equal")
        edges = group_edges(sorted_networks)
        for _, (_, last) in list(edges.items())[:-1]:
            grid[1].axhline(last - 0.5, color="white", lw=0.6)
            grid[1].axvline(last - 0.5, color="white", lw=0.6)
        grid[1].set(title=f"{len(order)} parcels", xticks=[], yticks=[])
        network_strip(grid[0], sorted_networks)
        grid[0].set_box_aspect(24)
        left.colorbar(image, ax=grid[1], label="Pearson r", pad=0.02, shrink=0.8, aspect=30)
        _network_means(right, values, edges, limit)
        network_legend(figure, networks, loc="outside lower center")


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
        ink = "white" if dark else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=ink)
    labels = [NETWORKS[n - 1].abbreviation if n > 0 else "none" for n in edges]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    axes.set_title("Mean r within and between networks")
    c.without_frame(axes)


def _nanmean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
