"""Figures of a model's results for one run: reconstruction and networks.

Each function draws arrays into one SVG file; equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.networks import network_legend, network_rgba
from brainlm_bids.figures.palette import (
    ACCENT,
    AMBER,
    FAINT,
    INK,
    MUTED,
    NETWORK_FEATURES,
    NETWORKS,
    NOISE,
    SIGNAL,
)
from brainlm_bids.figures.parcel_maps import Image, parcel_slices


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
    borders: Sequence[float] = (),
    bad: tuple[np.ndarray, float, float] | None = None,
) -> None:
    """Compare the series with the values that the model predicted for them while masked.

    Three parcels are shown: those with the best, the median and the worst r².

    Parameters
    ----------
    path
        SVG file to write.
    robust, reconstruction
        Series given to the model and its predictions, (T, V) in interquartile ranges; NaN where
        nothing was predicted.
    tr
        Sampling interval in s.
    r2
        r² of each parcel, (V,); computed from the two series if None.
    metrics
        Rows with `mask_ratio`, `predictor` (model, or a baseline such as ridge) and `r2`, drawn as
        bars.
    names
        Names of the parcels.
    title
        Title of the figure.
    borders
        Where one window ends and the next one begins, in s from the first volume.
    bad
        (T,) True for volumes that were interpolated, the sampling interval and the time of the
        first volume, 0, in s.

    Raises
    ------
    ValueError
        If no parcel has both a series and a reconstruction that vary.
    """
    robust = np.asarray(robust, float)
    reconstruction = np.asarray(reconstruction, float)
    quality = _columnwise_r2(robust, reconstruction) if r2 is None else np.asarray(r2, float)
    correlation = _columnwise_correlation(robust, reconstruction)
    shown = _best_median_worst(quality)
    with c.canvas(path, height=6.6) as figure:
        top, bottom = c.split(figure, 2, 1, height_ratios=(3.9, 2.7))
        panels = top.subplots(len(shown), 1, sharex=True)
        for axes, (rank, parcel) in zip(panels, shown.items()):
            _two_series(axes, robust[:, parcel], reconstruction[:, parcel], tr)
            name = names[parcel] if names is not None else f"parcel {parcel + 1}"
            axes.set_title(f"{rank}: {name}")
            c.note(axes, f"r² = {quality[parcel]:.2f}   ·   r = {correlation[parcel]:.2f}")
            for border in borders:
                axes.axvline(border, color=INK, lw=0.9, ls=(0, (4, 3)))
        if bad is not None:
            c.mark_bad(list(panels), *bad)
        panels[0].legend(loc="upper right", ncol=2)
        panels[-1].set_xlabel("time (s)" + _marks(borders, bad))
        if title:
            top.suptitle(title, fontsize=9, color=MUTED)
        left, right = bottom.subplots(1, 2, width_ratios=(1, 1.25))
        _correlation_histogram(left, correlation)
        _baseline_bars(right, metrics)


def _marks(borders: Sequence[float], bad: tuple[np.ndarray, float, float] | None) -> str:
    """What is marked, in words."""
    n_bad = 0 if bad is None else int(np.sum(bad[0]))
    words = "   ·   dashed: border between two windows of the model" if len(borders) else ""
    if n_bad:
        words += f"   ·   triangles: {n_bad} bad volume{'s' * (n_bad > 1)}, interpolated"
    return words


def _best_median_worst(quality: np.ndarray) -> dict[str, int]:
    usable = np.flatnonzero(np.isfinite(quality))
    ranked = usable[np.argsort(-quality[usable], kind="stable")]
    if len(ranked) == 0:
        raise ValueError("no parcel has both a series and a reconstruction that vary")
    return {"Best": ranked[0], "Median": ranked[len(ranked) // 2], "Worst": ranked[-1]}


def _two_series(axes: Axes, series: np.ndarray, model: np.ndarray, tr: float) -> None:
    time = np.arange(len(series)) * tr
    many = len(time) > 2000
    axes.plot(time, series, color=MUTED, label="series", rasterized=many)
    axes.plot(time, model, color=NOISE, label="model", rasterized=many)
    axes.set(ylabel="robust units", xlim=(0, max(time[-1], tr)))


def _columnwise_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(both, x, np.nan), np.where(both, y, np.nan)
    x, y = np.nan_to_num(c.centred(x)), np.nan_to_num(c.centred(y))
    norm = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return np.where(norm > 0, (x * y).sum(axis=0) / np.where(norm > 0, norm, 1), np.nan)


def _columnwise_r2(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    both = np.isfinite(truth) & np.isfinite(predicted)
    residual = np.where(both, truth - predicted, 0.0)
    total = np.nan_to_num(c.centred(np.where(both, truth, np.nan)))
    total = (total**2).sum(axis=0)
    return np.where(
        total > 0, 1 - (residual**2).sum(axis=0) / np.where(total > 0, total, 1), np.nan
    )


def _correlation_histogram(axes: Axes, correlation: np.ndarray) -> None:
    finite = correlation[np.isfinite(correlation)]
    axes.hist(finite, bins=list(np.linspace(-1, 1, 41)), color=ACCENT, alpha=0.85)
    axes.axvline(0, color=FAINT, lw=0.8, zorder=0)
    axes.set(xlim=(-1, 1), xlabel="r between series and model", ylabel="parcels")
    axes.set_title("Correlation by parcel")
    if finite.size:
        middle = float(np.median(finite))
        axes.axvline(middle, color=NOISE, lw=1.2)
        c.note(axes, f"median {middle:.2f}")


_PREDICTORS = {
    "model": ("model", NOISE),
    "parcel_mean": ("parcel mean", FAINT),
    "time": ("time", AMBER),
    "ridge": ("ridge", MUTED),
    "ridge_time": ("ridge and time", ACCENT),
}


def _baseline_bars(axes: Axes, metrics: Sequence[Mapping[str, object]]) -> None:
    axes.set_title("Prediction of masked values")
    axes.set(ylabel="r² (1 is perfect)", xlabel="fraction masked")
    ratios = sorted({float(str(row["mask_ratio"])) for row in metrics})
    predictors = list(dict.fromkeys(str(row["predictor"]) for row in metrics))
    if not ratios:
        axes.text(0.5, 0.5, "no metrics", ha="center", color=MUTED, transform=axes.transAxes)
        return
    width = 0.8 / len(predictors)
    extra = iter((ACCENT, SIGNAL, AMBER) * 10)
    for index, predictor in enumerate(predictors):
        label, colour = _PREDICTORS.get(predictor) or (predictor, next(extra))
        heights = [_metric(metrics, ratio, predictor) for ratio in ratios]
        at = np.arange(len(ratios)) + (index - (len(predictors) - 1) / 2) * width
        drawn = np.nan_to_num(np.clip(heights, -1, 1))
        bars = axes.bar(at, drawn, 0.92 * width, color=colour, label=label)
        texts = [f"{h:.2f}" if np.isfinite(h) else "n/a" for h in heights]
        axes.bar_label(bars, texts, fontsize=6.5, padding=1.5)
    axes.axhline(0, color=MUTED, lw=0.7)
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


def plot_networks(
    path: Path,
    labels: np.ndarray,
    atlas: np.ndarray,
    affine: np.ndarray,
    reference: np.ndarray,
    scores: Mapping[str, float] | None = None,
    *,
    background: Image | None = None,
    title: str = "Networks from the model",
) -> None:
    """Map the network of every parcel beside the published networks AA-7.

    Parameters
    ----------
    path
        SVG file to write.
    labels, reference
        Networks of the parcels and the published ones, (V,), 1…7, 0 for none.
    atlas, affine
        Parcel numbers 1…V in the voxels, (X, Y, Z), and the affine of the image.
    scores
        Fractions 0…1 by name (accuracy, chance level, controls), drawn as bars.
    background
        Anatomical image (X, Y, Z) below the maps, in the space of the atlas, and its affine.
    title
        Title of the map of `labels`.
    """
    labels, reference = np.asarray(labels).astype(int), np.asarray(reference).astype(int)
    slices = parcel_slices(atlas, affine, background)
    known = (labels > 0) & (reference > 0)
    share = float((labels == reference)[known].mean()) if known.any() else float("nan")
    height = slices.cut.height(c.WIDTH)
    with c.canvas(path, height=2 * height + 3.5) as figure:
        top, bottom = c.split(figure, 2, 1, height_ratios=(2 * height + 0.5, 3.0))
        maps = top.subplots(2, 1)
        for axes, name, numbers in (
            (maps[0], "Reference: AA-7", reference),
            (maps[1], title, labels),
        ):
            slices.draw(axes, network_rgba(numbers))
            axes.set_title(name)
        agreement = f"{100 * share:.0f} % of {int(known.sum())} parcels in the same network"
        c.note(maps[1], agreement)
        left, right = bottom.subplots(1, 2, width_ratios=(1, 1.4))
        _confusion(left, reference[known], labels[known])
        _score_bars(right, {"agreement": share} if not scores else dict(scores))
        network_legend(bottom, np.concatenate([labels, reference]), loc="outside lower center")


def _confusion(axes: Axes, reference: np.ndarray, labels: np.ndarray) -> None:
    table = np.zeros((7, 7))
    np.add.at(table, (reference - 1, labels - 1), 1)
    total = table.sum(axis=1, keepdims=True)
    rows = np.divide(table, total, out=np.full_like(table, np.nan), where=total > 0)
    axes.imshow(rows, cmap=c.coarse("Blues"), vmin=0, vmax=1)
    for row, column in np.ndindex(rows.shape):
        if table[row, column] > 0:
            ink = "white" if rows[row, column] > 0.5 else INK
            count = f"{table[row, column]:.0f}"
            axes.text(column, row, count, ha="center", va="center", fontsize=6.5, color=ink)
    names = [network.abbreviation for network in NETWORKS]
    axes.set_xticks(range(7), names)
    axes.set_yticks(range(7), names)
    axes.tick_params(length=0)
    axes.set(title="Number of parcels", xlabel="model", ylabel="reference")


def _score_bars(axes: Axes, scores: Mapping[str, float]) -> None:
    names = list(scores)
    values = np.array([float(scores[name]) for name in names])
    at = np.arange(len(names))
    colours = [ACCENT if index == 0 else FAINT for index in range(len(names))]
    bars = axes.barh(at, np.nan_to_num(values), color=colours, height=0.62)
    axes.bar_label(bars, [f"{v:.2f}" if np.isfinite(v) else "n/a" for v in values], padding=3)
    axes.set_yticks(at, [NETWORK_FEATURES.get(name, name) for name in names])
    axes.set(xlim=(0, 1.1), xlabel="fraction of parcels", title="Agreement with AA-7")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
