"""Figures of forecasts, perturbations, fine-tuning and pretraining.

Each function draws the columns of a table or arrays into one file, PNG or SVG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.cohort import SHOWN_METRICS, forest, network_points
from brainlm_bids.figures.palette import (
    ACCENT,
    AMBER,
    FAINT,
    GREEN,
    INK,
    MUTED,
    NOISE,
    PURPLE,
    SIGNAL,
)
from brainlm_bids.figures.parcel_maps import Image, ParcelSlices, parcel_slices

# Name in the tables: label in the legend, colour, dashes
BASELINES = {
    "median": ("median of the context", MUTED, ":"),
    "persistence": ("persistence (last volume)", AMBER, "--"),
    "autoregressive": ("autoregression per parcel", SIGNAL, "--"),
    "vector_autoregressive": ("vector autoregression, ridge", INK, "--"),
}
MODELS = (NOISE, ACCENT, PURPLE, GREEN)
# R² that white noise reaches at most, in every row of every predictor (docs/experiments.md)
WHITE_NOISE_R2 = 0.05
HORIZON_PANELS = (
    ("rmse", "Error", "RMSE (interquartile ranges)"),
    ("pearson_r", "Correlation", "Pearson r"),
    ("r2", "Variance explained", "R²"),
)


def plot_horizons(
    path: Path, columns: Mapping[str, Sequence[Any]], models: Sequence[str], title: str = ""
) -> None:
    """Draw error, r and R² of models and baselines for each volume ahead, with their intervals.

    Parameters
    ----------
    path
        File to write, PNG or SVG.
    columns
        Columns of the table of errors by horizon, `<metric>_low` and `<metric>_high` included.
    models
        Names of the models among its predictors.
    title
        Title of the figure.
    """
    table = {name: np.asarray(column) for name, column in columns.items()}
    styles = {name: (name, MODELS[k % len(MODELS)], "-") for k, name in enumerate(models)}
    with c.canvas(path, height=3.6) as figure:
        panels = figure.subplots(1, 3)
        for axes, (metric, heading, unit) in zip(panels, HORIZON_PANELS):
            for name, (label, colour, dashes) in {**styles, **BASELINES}.items():
                width = 1.8 if name in styles else 1.2
                line = {"color": colour, "ls": dashes, "lw": width}
                # a line for each repetition time
                for k, tr in enumerate(np.unique(table["repetition_time"])):
                    rows = (table["predictor"] == name) & (table["repetition_time"] == tr)
                    value, low, high = (
                        table[f"{metric}{part}"][rows].astype(float)
                        for part in ("", "_low", "_high")
                    )
                    ahead = table["seconds"][rows].astype(float)
                    axes.fill_between(ahead, low, high, color=colour, alpha=0.12, lw=0)
                    marker = "o" if rows.sum() == 1 else None
                    axes.plot(ahead, value, **line, marker=marker, label=None if k else label)
            axes.set(title=heading, xlabel="seconds ahead", ylabel=unit)
            axes.set_xlim(0, float(table["seconds"].max()) * 1.02)
        _limit(panels[2], table["r2"].astype(float))
        panels[2].axhspan(0, WHITE_NOISE_R2, color=FAINT, alpha=0.5, lw=0, zorder=0)
        counts = _counts(table)
        heading = f"{title}: {counts}" if title else counts
        figure.suptitle(heading, fontsize=9, x=0.01, ha="left", color=MUTED)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncol=min(len(labels), 4))


def _counts(table: Mapping[str, np.ndarray]) -> str:
    """Numbers of subjects and recordings, for each repetition time."""
    parts = []
    for tr in np.unique(table["repetition_time"]):
        k = int(np.argmax(table["repetition_time"] == tr))
        counts = (
            f"{table[key][k]} {word}{'' if str(table[key][k]) == '1' else 's'}"
            for key, word in (("n_subjects", "subject"), ("n_recordings", "recording"))
        )
        parts.append(f"{', '.join(counts)} at a TR of {tr:g} s")
    return "; ".join(parts)


def _limit(axes: Any, values: np.ndarray) -> None:
    """Cut the axis of R² where the lines of the others can still be distinguished.

    The R² of persistence is far below them.
    """
    axes.axhline(0, color=FAINT, lw=0.8, zorder=0)
    low = float(np.nanmin(values, initial=0))
    if low < -1.2:
        axes.set_ylim(bottom=-1.2)
        axes.text(0.02, 0.02, "some lines continue below", transform=axes.transAxes, fontsize=7)


# --- perturbations ---------------------------------------------------------------------------


def plot_perturbation(
    path: Path,
    change: np.ndarray,
    z: np.ndarray,
    q: np.ndarray,
    changed: Sequence[int],
    image: tuple[np.ndarray, np.ndarray],
    parcels: Any,
    distance: tuple[float, np.ndarray],
    title: str,
    *,
    background: Image | None = None,
) -> None:
    """Draw where predictions change, which parcels change most, and how far the embedding moves.

    Parameters
    ----------
    path
        File to write, PNG or SVG.
    change, z, q
        Change of each parcel's prediction (interquartile ranges), its z score against random
        sets of parcels, and its q value, (V,); NaN where unknown. Without any z the change
        itself is drawn.
    changed
        Indices of the parcels that were changed.
    image
        Parcel numbers 1…V in the voxels, (X, Y, Z), and the affine of the image.
    parcels
        The atlas: `names` and `network_index` of its parcels.
    distance
        Distance that the embedding moves, and that for each random set, (N,).
    title
        Title of the figure.
    background
        Anatomical image (X, Y, Z) below the map, in the space of the atlas, and its affine.
    """
    has_null = bool(np.isfinite(z).any())
    shown, unit = (z, "z against random sets") if has_null else (change, "change (IQR)")
    slices = parcel_slices(*image, background)
    height = slices.cut.height(c.WIDTH)
    with c.canvas(path, height=height + 4.0) as figure:
        top, bottom = c.split(figure, 2, 1, height_ratios=(height + 0.6, 3.4))
        top.suptitle(title, fontsize=9, x=0.01, ha="left", weight="bold")
        _map_picture(top, slices, shown, changed, unit)
        panels = bottom.subplots(1, 3, width_ratios=(1.0, 1.1, 1.1))
        _null_histogram(panels[0], *distance)
        _network_spread(panels[1], shown, parcels.network_index, changed, unit)
        _most_changed(panels[2], shown, q, parcels.names, unit)


def _map_picture(
    figure: Any,
    slices: ParcelSlices,
    values: np.ndarray,
    changed: Sequence[int],
    unit: str,
) -> None:
    limit = c.finite_percentile(np.abs(values), 99)
    low = -limit if np.nanmin(values, initial=0) < 0 else 0.0
    scale = ScalarMappable(Normalize(low, limit), "RdBu_r" if low < 0 else "plasma")
    colours = scale.to_rgba(np.nan_to_num(values))
    colours[:, 3] = np.isfinite(values)
    colours[np.asarray(changed)] = to_rgba(GREEN)
    axes = figure.subplots(1, 1)
    slices.draw(axes, colours)
    figure.colorbar(scale, ax=axes, label=unit, shrink=0.8, pad=0.01)
    c.note(axes, "green: perturbed parcels; not coloured: undefined")


def _null_histogram(axes: Any, distance: float, null: np.ndarray) -> None:
    axes.set(title="Embedding", xlabel="shift of the embedding", ylabel="random sets")
    if len(null):
        axes.hist(null, bins=min(25, max(len(null) // 4, 5)), color=FAINT, edgecolor=MUTED)
    axes.axvline(distance, color=NOISE, lw=1.8)
    c.note(axes, "| these parcels", NOISE)
    axes.yaxis.get_major_locator().set_params(integer=True)


def _network_spread(
    axes: Any, values: np.ndarray, networks: np.ndarray, changed: Sequence[int], unit: str
) -> None:
    shown = np.array(values, dtype=float)
    shown[np.asarray(changed)] = np.nan
    network_points(axes, shown, networks)
    axes.axhline(0, color=FAINT, lw=0.8, zorder=0)
    axes.set(title="Networks", ylabel=unit)


def _most_changed(
    axes: Any, values: np.ndarray, q: np.ndarray, names: Sequence[str], unit: str
) -> None:
    known = np.flatnonzero(np.isfinite(values))
    first = known[np.argsort(values[known])[::-1][:15]]
    colours = [NOISE if q[k] <= 0.05 else MUTED for k in first]
    axes.barh(np.arange(len(first)), values[first], color=colours)
    axes.set_yticks(np.arange(len(first)), [names[k] for k in first], fontsize=6.5)
    axes.invert_yaxis()
    axes.set(title="Most changed", xlabel=unit)
    c.note(axes, "red: q ≤ 0.05", NOISE)


# --- fine-tuning -----------------------------------------------------------------------------


def plot_finetuning(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    curves: Sequence[Sequence[Mapping[str, str]]],
) -> None:
    """Draw the scores of all sources with their intervals, and the learning curves of all folds.

    Parameters
    ----------
    path
        File to write, PNG or SVG.
    rows
        Rows of the table of decodings of one target, each with `label` and `default`; see
        `cohort.plot_decoding`.
    curves
        For each fold, the rows of its table of losses: epoch, train_loss, validation_loss.
    """
    labels = list(dict.fromkeys(row["label"] for row in rows))
    with c.canvas(path, height=max(3.0, 0.9 + 0.19 * len(labels))) as figure:
        shown = [name for name in SHOWN_METRICS if any(row["metric"] == name for row in rows)]
        panels = figure.subplots(1, len(shown) + 1)
        for axes, metric in zip(panels, shown):
            scores = {row["label"]: row for row in rows if row["metric"] == metric}
            forest(axes, labels, scores, *SHOWN_METRICS[metric])
        for axes in panels[1:-1]:
            axes.set_yticklabels([])
        _learning_curves(panels[-1], curves)
        first = rows[0]
        counts = f"{first['n_subjects']} subjects, {first['n_folds']} folds"
        figure.suptitle(
            f"{first['target']}: {counts}", fontsize=9, x=0.01, ha="left", weight="bold"
        )


def _learning_curves(axes: Any, curves: Sequence[Sequence[Mapping[str, str]]]) -> None:
    for number, table in enumerate(curves):
        epochs = [int(row["epoch"]) for row in table]
        for column, colour, name in (
            ("train_loss", ACCENT, "training"),
            ("validation_loss", NOISE, "validation"),
        ):
            values = [float("nan") if row[column] == "n/a" else float(row[column]) for row in table]
            axes.plot(epochs, values, color=colour, alpha=0.6, label=name if not number else None)
    axes.set(title="Loss of each fold", xlabel="epoch")
    axes.legend()


# --- pretraining -----------------------------------------------------------------------------

# Columns of the learning curves and of the first scores, before `_r2`: label, colour, dashes
PRETRAINED = {
    "compared": ("network", NOISE, "-"),
    "ridge_time": ("ridge regression and time", INK, "--"),
    "ridge": ("ridge regression", SIGNAL, "--"),
    "time": ("neighbours in time", AMBER, "--"),
    "mean": ("parcel's mean", MUTED, ":"),
}
FIRST_WEIGHTS = {"start": "the weights at the start", "untrained": "untrained weights"}


def plot_pretraining(
    path: Path,
    history: Sequence[Mapping[str, float]],
    first: Mapping[str, Mapping[str, Any]],
    resumed: Sequence[float],
) -> None:
    """Draw losses, R² beside baselines and first weights, and the learning rate over epochs.

    Parameters
    ----------
    path
        File to write.
    history
        A row per epoch, as in the table of the curves.
    first
        Scores of the weights at the start and of untrained ones, by their names.
    resumed
        Epochs, also within one, at which the training was continued.
    """
    epochs = [row["epoch"] for row in history]
    marker = "." if len(epochs) < 30 else ""
    with c.canvas(path, height=3.4) as figure:
        losses, scores, rates = figure.subplots(1, 3, width_ratios=(1, 1.3, 0.8))
        for column, colour, label in (
            ("train_loss", ACCENT, "training"),
            ("validation_loss", NOISE, "validation"),
        ):
            losses.plot(
                epochs, [row[column] for row in history], color=colour, marker=marker, label=label
            )
        losses.set(title="Loss of the masked tokens", ylabel="mean squared error")
        _pretrained_scores(scores, epochs, history, first, marker)
        rates.plot(epochs, [row["learning_rate"] for row in history], color=INK, marker=marker)
        rates.set(title="Learning rate")
        for axes in (losses, scores, rates):
            axes.set(xlabel="epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            for epoch in resumed:
                axes.axvline(epoch, color=GREEN, lw=0.9, ls=":", zorder=0)
        if resumed:
            c.note(rates, "green: continued", GREEN)
        losses.legend()


def _pretrained_scores(
    axes: Any,
    epochs: Sequence[float],
    history: Sequence[Mapping[str, float]],
    first: Mapping[str, Mapping[str, Any]],
    marker: str,
) -> None:
    """R² of the network: where baselines were computed on their windows, otherwise on all."""
    has_baselines = np.isfinite([row["compared_r2"] for row in history]).any()
    shown = PRETRAINED if has_baselines else {"validation": PRETRAINED["compared"]}
    for name, (label, colour, dashes) in shown.items():
        values = [row[f"{name}_r2"] for row in history]
        drawn = marker if dashes == "-" else ""
        axes.plot(epochs, values, color=colour, ls=dashes, marker=drawn, label=label)
    for (name, label), dotted in zip(FIRST_WEIGHTS.items(), ("-.", ":")):
        if name in first:
            value = float(first[name]["compared_r2" if has_baselines else "r2"])
            axes.axhline(value, color=PURPLE, ls=dotted, lw=1.0, label=label)
    axes.axhline(0, color=FAINT, lw=0.8, zorder=0)
    axes.set(title="Masked values of validation subjects", ylabel="R²")
    axes.legend(fontsize=7)
