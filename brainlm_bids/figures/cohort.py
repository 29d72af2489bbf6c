"""Figures of the cohort's report: arrays and tables in, one SVG file out per call.

Missing numbers are None or NaN and are left out of what is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.mosaic import layout
from brainlm_bids.parcels.scaling import UKB_SD_DEMEANED, UKB_SD_ROBUST

# The three kinds of features, always in this order and these colours.
FEATURES = (
    ("embedding", "embedding", c.NOISE),
    ("connectivity", "functional connectivity", c.ACCENT),
    ("random_weights", "random weights", c.MUTED),
)
WORDS = ("#31508c", "#c8553d", "#2e9e52", "#d98e04", "#7d3c98", "#2a7f8e", "#8d6e53", "#e377c2")


def _floats(values: Sequence[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values])


def plot_quality(path: Path, recordings: Sequence[Mapping[str, Any]]) -> None:
    """Histograms of motion, coverage and length: those that count, and on top those left out.

    Each recording has `mean_fd` (mm), `coverage` (0 … 1), `n_volumes` and `included`.
    """
    inside = np.array([bool(one["included"]) for one in recordings])
    panels = (
        ("mean_fd", "Motion", "mean framewise displacement (mm)"),
        ("coverage", "Coverage", "mean covered fraction of the parcels"),
        ("n_volumes", "Length", "volumes"),
    )
    with c.canvas(path, height=2.5) as figure:
        for axes, (key, title, label) in zip(figure.subplots(1, 3), panels):
            values = _floats([one[key] for one in recordings])
            known = np.isfinite(values)
            parts = [values[known & inside], values[known & ~inside]]
            axes.hist(
                parts,
                bins=_bins(values[known]),
                stacked=True,
                color=[c.ACCENT, c.NOISE],
                label=["counted", "left out"],
            )
            axes.set(title=title, xlabel=label, ylabel="recordings")
            axes.yaxis.get_major_locator().set_params(integer=True)
            if known.any():
                note = f"median {np.median(values[known]):.3g}"
                axes.set_title(note, loc="right", fontsize=8, color=c.MUTED, weight="normal")
        if not inside.all():
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
    """The cohort's scale (P,) by network, and its recordings beside BrainLM's training data.

    sd_demeaned, sd_robust: of every recording's denoised, and of its scaled series.
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
            (grid[2], sd_robust, UKB_SD_ROBUST, "Scaled with the cohort", "interquartile ranges"),
        ):
            known = _floats(values)
            known = known[np.isfinite(known)]
            axes.hist(known, bins=_bins(np.r_[known, norm]), color=c.ACCENT)
            _level(axes, norm, f"- - UKB {norm:g}", horizontal=False)
            axes.set(title=title, xlabel=f"sd of a recording ({unit})", ylabel="recordings")
            axes.yaxis.get_major_locator().set_params(integer=True)


def network_points(axes: Axes, values: np.ndarray, networks: np.ndarray) -> None:
    """A point per parcel and the median of each network; values (P,), networks (P,) 1 … 7."""
    for number, (name, _, colour) in enumerate(c.NETWORKS, start=1):
        own = values[(networks == number) & np.isfinite(values)]
        # a spread that is the same in every call
        offset = (np.arange(own.size) * 0.618034 % 1 - 0.5) * 0.6
        axes.scatter(number + offset, own, s=5, color=colour, alpha=0.6, lw=0)
        if own.size:
            axes.hlines(np.median(own), number - 0.36, number + 0.36, color=c.INK, lw=1.4)
        axes.text(number, -0.02, name, ha="center", va="top", transform=axes.get_xaxis_transform())
    axes.set_xticks([])


def _level(axes: Axes, value: float, text: str, *, horizontal: bool) -> None:
    line = axes.axhline if horizontal else axes.axvline
    line(value, color=c.AMBER, lw=1.2, ls="--")
    axes.set_title(text, loc="right", fontsize=8, color=c.AMBER, weight="normal")


def plot_maps(
    path: Path,
    panels: Sequence[tuple[str, np.ndarray, tuple[str, str]]],
    name: str,
    column: Sequence[Any],
) -> None:
    """Recordings in the plane, coloured by a variable: numbers, or a few words (None: missing).

    panels: (method, points (N, 2), names of the axes).
    """
    words = sorted({value for value in column if isinstance(value, str)})
    with c.canvas(path, height=4.4) as figure:
        grid = np.atleast_1d(figure.subplots(1, max(len(panels), 2)))
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        drawn: Any = None
        for axes, (method, points, labels) in zip(grid, panels):
            drawn = _points(axes, np.asarray(points), column, words) or drawn
            axes.set(title=f"{method}, by {name}", xlabel=labels[0], ylabel=labels[1])
        if words:
            last = grid[len(panels) - 1]
            last.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title=name)
        elif drawn is not None:
            figure.colorbar(drawn, ax=grid[: len(panels)].tolist(), label=name, aspect=30)


def _points(axes: Axes, points: np.ndarray, column: Sequence[Any], words: Sequence[str]) -> Any:
    size = float(np.clip(4000 / max(len(points), 1), 6, 40))
    style: dict[str, Any] = {"s": size, "lw": 0.3, "edgecolors": "white"}
    known = np.array([isinstance(v, str) if words else v == v and v is not None for v in column])
    x, y = points.T
    axes.scatter(x[~known], y[~known], color=c.FAINT, **style)
    if not words:
        values = _floats([v if k else None for v, k in zip(column, known)])[known]
        return axes.scatter(x[known], y[known], c=values, cmap="viridis", **style)
    for word, colour in zip(words, WORDS * 2):
        own = np.array([value == word for value in column])
        axes.scatter(x[own], y[own], color=colour, label=word, **style)
    return None


def plot_probabilities(
    path: Path, probability: np.ndarray, atlas: np.ndarray, affine: np.ndarray
) -> None:
    """Share of subjects that give each parcel the network, (7, P), a row of slices per network."""
    cut = layout(np.shape(atlas), affine, np.asarray(atlas) > 0, planes="z", n_columns=8)
    parcels = np.nan_to_num(cut.cut(atlas, order=0)).round().astype(int)
    row = 0.92 * c.WIDTH * cut.shape[0] / cut.shape[1]
    with c.canvas(path, height=len(probability) * (row + 0.28) + 0.2) as figure:
        grid = figure.subplots(len(probability), 1)
        image: Any = None
        for axes, shares, (_, title, colour) in zip(grid, probability, c.NETWORKS):
            lookup = np.concatenate([[np.nan], shares])
            picture = np.ma.masked_invalid(lookup[np.clip(parcels, 0, len(shares))])
            cmap = c.coarse("magma").with_extremes(bad="white")
            image = axes.imshow(picture, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[], facecolor="white")
            axes.set_title(title, color=colour)
            for spine in axes.spines.values():
                spine.set_visible(False)
        figure.colorbar(image, ax=grid.tolist(), label="share of subjects", aspect=60, pad=0.01)


_SHOWN = {
    "r2": ("r²", 0.0),
    "pearson_r": ("Pearson r", 0.0),
    "auc": ("AUC", 0.5),
    "balanced_accuracy": ("balanced accuracy", None),
}


def plot_decoding(path: Path, scores: Mapping[str, Sequence[Any]]) -> None:
    """Scores with intervals, a panel per target and metric, the three kinds of features together.

    scores: columns of the decoding table. Dotted lines are chance.
    """
    rows = [dict(zip(scores, values)) for values in zip(*scores.values())]
    targets = list(dict.fromkeys(row["target"] for row in rows))
    with c.canvas(path, height=0.5 + 1.35 * len(targets)) as figure:
        grid = figure.subplots(len(targets), 2, squeeze=False)
        for line, target in zip(grid, targets):
            own = {row["metric"]: row for row in rows if row["target"] == target}
            shown = [name for name in _SHOWN if name in own]
            for axes, metric in zip(line, shown):
                _forest(axes, own[metric], own["permutation_p"], *_SHOWN[metric])
            line[0].set_ylabel("")
            line[0].set_title(f"{target} ({own[shown[0]]['n_subjects']} subjects)")
            for axes in line[1:]:
                axes.set_yticklabels([])


def _forest(
    axes: Axes,
    row: Mapping[str, Any],
    p: Mapping[str, Any],
    label: str,
    chance: float | None,
) -> None:
    for at, (name, _, colour) in enumerate(FEATURES):
        value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
        numbers = _floats([value, low, high])
        if np.isfinite(numbers).all():
            axes.hlines(at, numbers[1], numbers[2], color=colour, lw=2.2)
        axes.plot(numbers[0], at, "o", color=colour, ms=6)
        note = f"{numbers[0]:.2f}" if np.isfinite(numbers[0]) else "n/a"
        chosen = p[name]
        if chosen is not None and np.isfinite(float(chosen)):
            note += f"  p = {float(chosen):.3g}"
        axes.annotate(
            note,
            (1.0, at),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    if chance is not None:
        axes.axvline(chance, color=c.MUTED, lw=0.8, ls=":")
    axes.set_yticks(range(len(FEATURES)), [text for _, text, _ in FEATURES])
    axes.set(ylim=(len(FEATURES) - 0.5, -0.5), xlabel=label)
    axes.tick_params(axis="y", length=0)
