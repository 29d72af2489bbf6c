"""Figures of a cohort: quality, scaling, maps of embeddings, networks, decoding.

Each function draws arrays or the columns of a table into one SVG file; equal input gives equal
bytes. Missing numbers are None or NaN and are not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.palette import (
    ACCENT,
    AMBER,
    CATEGORIES,
    DECODED_FROM,
    FAINT,
    INK,
    MUTED,
    NETWORKS,
    NOISE,
)
from brainlm_bids.figures.parcel_maps import Image, parcel_slices
from brainlm_bids.parcels.scaling import UKB_SD_DEMEANED, UKB_SD_ROBUST


def _floats(values: Sequence[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values])


def plot_quality(path: Path, recordings: Sequence[Mapping[str, Any]]) -> None:
    """Draw histograms of motion, coverage and length, with excluded recordings on top.

    Parameters
    ----------
    path
        SVG file to write.
    recordings
        Each has `mean_fd` (mm), `coverage` (0…1), `n_volumes` and `included`.
    """
    included = np.array([bool(recording["included"]) for recording in recordings])
    panels = (
        ("mean_fd", "Motion", "mean framewise displacement (mm)"),
        ("coverage", "Coverage", "mean covered fraction of the parcels"),
        ("n_volumes", "Length", "volumes"),
    )
    with c.canvas(path, height=2.5) as figure:
        for axes, (key, title, label) in zip(figure.subplots(1, 3), panels):
            values = _floats([recording[key] for recording in recordings])
            known = np.isfinite(values)
            parts = [values[known & included], values[known & ~included]]
            axes.hist(
                parts,
                bins=_bins(values[known]),
                stacked=True,
                color=[ACCENT, NOISE],
                label=["included", "excluded"],
            )
            axes.set(title=title, xlabel=label, ylabel="recordings")
            axes.locator_params(axis="x", nbins=6)
            axes.yaxis.get_major_locator().set_params(integer=True)
            if known.any():
                c.note(axes, f"median {np.median(values[known]):.3g}")
        if not included.all():
            figure.axes[0].legend()


def _bins(values: np.ndarray) -> list[float]:
    if values.size == 0:
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    margin = max((high - low) * 0.02, 1e-3 * max(abs(high), 1.0))
    return list(np.linspace(low - margin, high + margin, 21))


def plot_statistics(
    path: Path,
    iqr: np.ndarray,
    networks: np.ndarray,
    sd_demeaned: Sequence[float | None],
    sd_robust: Sequence[float | None],
) -> None:
    """Draw the cohort's scale by network, and its recordings beside BrainLM's training data.

    Parameters
    ----------
    path
        SVG file to write.
    iqr
        Interquartile range of each parcel over the cohort, (V,), in grand-mean units.
    networks
        Network of each parcel, (V,), 1…7, 0 for none.
    sd_demeaned, sd_robust
        Standard deviation of each recording's demeaned series (grand-mean units) and of its
        scaled series (interquartile ranges).
    """
    with c.canvas(path, height=3.3) as figure:
        grid = figure.subplots(1, 3, width_ratios=(1.7, 1, 1))
        network_points(grid[0], np.asarray(iqr, float), np.asarray(networks))
        implied = UKB_SD_DEMEANED / UKB_SD_ROBUST
        _level(grid[0], implied, f"- - UK Biobank, about {implied:.0f}", horizontal=True)
        grid[0].set(title="Interquartile range of each parcel", ylabel="grand-mean units")
        grid[0].set_ylim(bottom=0)
        for axes, values, norm, title, unit in (
            (grid[1], sd_demeaned, UKB_SD_DEMEANED, "Before scaling", "grand-mean units"),
            (grid[2], sd_robust, UKB_SD_ROBUST, "After scaling", "interquartile ranges"),
        ):
            known = _floats(values)
            known = known[np.isfinite(known)]
            axes.hist(known, bins=_bins(np.r_[known, norm]), color=ACCENT)
            _level(axes, norm, f"- - UKB {norm:.3g}", horizontal=False)
            axes.set(title=title, xlabel=f"SD of a recording ({unit})", ylabel="recordings")
            axes.locator_params(axis="x", nbins=6)
            axes.yaxis.get_major_locator().set_params(integer=True)


def network_points(axes: Axes, values: np.ndarray, networks: np.ndarray) -> None:
    """Draw a point per parcel, side by side for the networks, and the median of each network.

    Parameters
    ----------
    axes
        The axes.
    values
        (V,) a value per parcel; NaN are not drawn.
    networks
        (V,) networks 1…7, 0 for none.
    """
    for number, network in enumerate(NETWORKS, start=1):
        members = values[(networks == number) & np.isfinite(values)]
        # spread the points by multiples of the golden ratio: the same in every call
        offset = (np.arange(members.size) * 0.618034 % 1 - 0.5) * 0.6
        axes.scatter(number + offset, members, s=5, color=network.colour, alpha=0.6, lw=0)
        if members.size:
            axes.hlines(np.median(members), number - 0.36, number + 0.36, color=INK, lw=1.4)
        place: dict[str, Any] = {"ha": "center", "va": "top"}
        axes.text(
            number, -0.02, network.abbreviation, transform=axes.get_xaxis_transform(), **place
        )
    axes.set_xticks([])


def _level(axes: Axes, value: float, text: str, *, horizontal: bool) -> None:
    line = axes.axhline if horizontal else axes.axvline
    line(value, color=AMBER, lw=1.2, ls="--")
    c.note(axes, text, AMBER)


def plot_maps(
    path: Path,
    panels: Sequence[tuple[str, np.ndarray, tuple[str, str]]],
    name: str,
    column: Sequence[Any],
) -> None:
    """Draw recordings as points in a plane, coloured by a variable.

    Parameters
    ----------
    path
        SVG file to write.
    panels
        For each projection: its method, the points (N, 2), and the labels of the two axes.
    name
        Name of the variable.
    column
        Its values, (N,): numbers, or categories as strings; None where missing.
    """
    categories = sorted({value for value in column if isinstance(value, str)})
    with c.canvas(path, height=4.4) as figure:
        grid = np.atleast_1d(figure.subplots(1, max(len(panels), 2)))
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        drawn: Any = None
        for axes, (method, points, labels) in zip(grid, panels):
            drawn = _points(axes, np.asarray(points), column, categories) or drawn
            axes.set(title=f"{method}, by {name}", xlabel=labels[0], ylabel=labels[1])
        if categories:
            last = grid[len(panels) - 1]
            last.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title=name)
        elif drawn is not None:
            figure.colorbar(drawn, ax=grid[: len(panels)].tolist(), label=name, aspect=30)


def _points(
    axes: Axes, points: np.ndarray, column: Sequence[Any], categories: Sequence[str]
) -> Any:
    size = float(np.clip(4000 / max(len(points), 1), 6, 40))
    style: dict[str, Any] = {"s": size, "lw": 0.3, "edgecolors": "white"}
    known = np.array(
        [isinstance(v, str) if categories else v == v and v is not None for v in column]
    )
    x, y = points.T
    axes.scatter(x[~known], y[~known], color=FAINT, **style)
    if not categories:
        values = _floats([v if k else None for v, k in zip(column, known)])[known]
        return axes.scatter(x[known], y[known], c=values, cmap="viridis", **style)
    for category, colour in zip(categories, CATEGORIES):
        chosen = np.array([value == category for value in column])
        axes.scatter(x[chosen], y[chosen], color=colour, label=category, **style)
    return None


def plot_probabilities(
    path: Path,
    probability: np.ndarray,
    atlas: np.ndarray,
    affine: np.ndarray,
    *,
    background: Image | None = None,
) -> None:
    """Draw, for each network, the share of subjects in which a parcel belongs to it.

    Parcels with a share of 0 are transparent.

    Parameters
    ----------
    path
        SVG file to write.
    probability
        Shares (7, V), 0…1.
    atlas, affine
        Parcel numbers 1…V in the voxels, (X, Y, Z), and the affine of the image.
    background
        Anatomical image (X, Y, Z) below the maps, in the space of the atlas, and its affine.
    """
    slices = parcel_slices(atlas, affine, background)
    row = slices.cut.height(0.92 * c.WIDTH)
    with c.canvas(path, height=len(probability) * (row + 0.28) + 0.2) as figure:
        grid = figure.subplots(len(probability), 1)
        for axes, shares, network in zip(grid, probability, NETWORKS):
            slices.draw(axes, share_colours(shares))
            axes.set_title(network.name)
            c.note(axes, _highest(shares))
        scale = ScalarMappable(Normalize(0, 1), c.coarse(SHARES))
        label = "share of participants (parcels with 0 are not coloured)"
        figure.colorbar(scale, ax=grid.tolist(), label=label, aspect=60, pad=0.01)


# From dark blue to yellow: every colour stands out from grey
SHARES = "plasma"


def share_colours(shares: np.ndarray) -> np.ndarray:
    """Colours of shares.

    Parameters
    ----------
    shares
        (V,) 0…1; NaN if unknown.

    Returns
    -------
    ndarray
        (V, 4); transparent where the share is 0 or unknown.

    Examples
    --------
    >>> share_colours(np.array([0.0, np.nan, 0.01]))[:, 3].tolist()
    [0.0, 0.0, 1.0]
    """
    known = np.nan_to_num(np.asarray(shares, float))
    colours = np.array(c.coarse(SHARES)(np.clip(known, 0, 1)))
    colours[:, 3] = known > 0
    return colours


def _highest(shares: np.ndarray) -> str:
    """How many parcels belong to a network in anybody, and how certain the most certain are."""
    known = np.nan_to_num(np.asarray(shares, float))
    count = int((known > 0).sum())
    return f"{count} parcel{'s' * (count != 1)}, share up to {known.max(initial=0):.2f}"


SHOWN_METRICS = {
    "r2": ("r²", 0.0),
    "pearson_r": ("Pearson r", 0.0),
    "auc": ("AUC", 0.5),
    "balanced_accuracy": ("balanced accuracy", None),
}


def plot_decoding(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw scores with their intervals: for each target a line per source.

    Parameters
    ----------
    path
        SVG file to write.
    rows
        Rows of the table of decodings, each with `label`, what it is decoded from in words, and
        `default`, whether it is the default readout. Dotted lines mark the chance level.
    """
    targets = list(dict.fromkeys(row["target"] for row in rows))
    lines = {
        target: list(dict.fromkeys(row["label"] for row in rows if row["target"] == target))
        for target in targets
    }
    heights = [0.75 + 0.17 * len(lines[target]) for target in targets]
    with c.canvas(path, height=sum(heights)) as figure:
        grid = figure.subplots(len(targets), 2, squeeze=False, height_ratios=heights)
        for axes, target in zip(grid, targets):
            own = [row for row in rows if row["target"] == target]
            shown = [name for name in SHOWN_METRICS if any(row["metric"] == name for row in own)]
            for place, metric in zip(axes, shown):
                chosen = {row["label"]: row for row in own if row["metric"] == metric}
                forest(place, lines[target], chosen, *SHOWN_METRICS[metric])
            axes[0].set_title(f"{target} ({own[0]['n_subjects']} subjects)", loc="left")
            for place in axes[1:]:
                place.set_yticklabels([])


def forest(
    axes: Axes,
    labels: Sequence[str],
    rows: Mapping[str, Mapping[str, Any]],
    name: str,
    chance: float | None,
) -> None:
    """Draw one metric: a line per label, that of the default in bold and on a grey band.

    Parameters
    ----------
    axes
        Where to draw.
    labels
        From the top.
    rows
        Label to its row of a table of decodings, with `default`.
    name
        Of the metric.
    chance
        Its chance level, None where there is none.
    """
    for at, label in enumerate(labels):
        if label in rows:
            _score(axes, at, rows[label])
    if chance is not None:
        axes.axvline(chance, color=MUTED, lw=0.8, ls=":")
    # an R² of −3 says no more than one of −1, and would leave no room for the others
    axes.set_xlim(left=max(axes.get_xlim()[0], -1.05))
    axes.set_yticks(range(len(labels)), labels, fontsize=6.5)
    for label, tick in zip(labels, axes.get_yticklabels()):
        if label in rows and rows[label]["default"]:
            tick.set_fontweight("bold")
    axes.set(ylim=(len(labels) - 0.4, -0.6), xlabel=name)
    axes.tick_params(axis="y", length=0)


def _score(axes: Axes, at: int, row: Mapping[str, Any]) -> None:
    """A score, its interval, and both in words at the right."""
    value, low, high, p = _floats([row[key] for key in ("value", "low", "high", "permutation_p")])
    colour = DECODED_FROM.get(row["features"], INK)
    if row["default"]:
        axes.axhspan(at - 0.5, at + 0.5, color=FAINT, alpha=0.5, lw=0)
    if np.isfinite([value, low, high]).all():
        axes.hlines(at, low, high, color=colour, lw=1.6)
    # hollow where the statistics of the recording scaled the series
    face = "white" if row["scaling"] == "recording" else colour
    axes.plot(value, at, "o", color=colour, markerfacecolor=face, ms=4)
    text = f"{value:.2f}" if np.isfinite(value) else "n/a"
    if np.isfinite(p):
        text += f"  p = {p:.3g}"
    axes.annotate(
        text,
        (1.0, at),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=6.5,
    )
