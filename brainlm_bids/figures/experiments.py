"""Figures of forecasts, perturbations and fine-tuning: tables come in, a PNG per call goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.mosaic import layout

# name in the tables -> what the legend says, colour, dashes
BASELINES = {
    "median": ("median of what was seen", c.MUTED, ":"),
    "persistence": ("persistence (the last volume)", c.AMBER, "--"),
    "autoregressive": ("autoregression of each parcel", c.SIGNAL, "--"),
    "vector_autoregressive": ("vector autoregression, ridge", c.INK, "--"),
}
MODELS = (c.NOISE, c.ACCENT, "#7d3c98", "#2e9e52")
HORIZON_PANELS = (
    ("rmse", "Error", "RMSE (interquartile ranges)"),
    ("pearson_r", "Correlation", "Pearson r"),
    ("r2", "Variance explained", "R²"),
)


def plot_horizons(
    path: Path, columns: Mapping[str, Sequence[Any]], models: Sequence[str], title: str = ""
) -> None:
    """Error, r and R² for each volume ahead of models and baselines, with their intervals.

    columns: those of the table of errors by horizon, `<metric>_low` and `_high` too.
    """
    table = {name: np.asarray(column) for name, column in columns.items()}
    styles = {name: (name, MODELS[k % len(MODELS)], "-") for k, name in enumerate(models)}
    with c.canvas(path, height=3.6) as figure:
        panels = figure.subplots(1, 3)
        for axes, (metric, heading, unit) in zip(panels, HORIZON_PANELS):
            for name, (label, colour, dashes) in {**styles, **BASELINES}.items():
                own = table["predictor"] == name
                values = [
                    table[f"{metric}{part}"][own].astype(float) for part in ("", "_low", "_high")
                ]
                ahead = table["horizon"][own].astype(int)
                axes.fill_between(ahead, values[1], values[2], color=colour, alpha=0.12, lw=0)
                width = 1.8 if name in styles else 1.2
                axes.plot(ahead, values[0], color=colour, ls=dashes, lw=width, label=label)
            axes.set(title=heading, xlabel="volumes ahead", ylabel=unit)
            axes.set_xlim(1, max(int(table["horizon"].max()), 2))
            axes.xaxis.get_major_locator().set_params(integer=True)
        _limit(panels[2], table["r2"].astype(float))
        said = f"{table['n_subjects'][0]} subjects, {table['n_recordings'][0]} recordings"
        shown = f"{title}: {said}" if title else said
        figure.suptitle(shown, fontsize=9, x=0.01, ha="left", color=c.MUTED)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncol=min(len(labels), 4))


def _limit(axes: Any, values: np.ndarray) -> None:
    """R² of persistence lies far below the others: cut where these can still be told apart."""
    axes.axhline(0, color=c.FAINT, lw=0.8, zorder=0)
    low = float(np.nanmin(values, initial=0))
    if low < -1.2:
        axes.set_ylim(bottom=-1.2)
        axes.text(0.02, 0.02, "some lines go on below", transform=axes.transAxes, fontsize=7)


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
) -> None:
    """Where predictions change, which parcels most, and how far the embedding moves.

    change, z, q (P,), NaN where unknown; image: labels (X, Y, Z) and affine; distance: that of the
    embedding and those of the random sets (N,). Without a null the change itself is shown.
    """
    has_null = bool(np.isfinite(z).any())
    shown, unit = (z, "z against random sets") if has_null else (change, "change (IQR)")
    labels, affine = image
    cut = layout(labels.shape, affine, labels > 0, planes="z", n_columns=8)
    height = c.WIDTH * cut.shape[0] / cut.shape[1]
    with c.canvas(path, height=height + 4.0) as figure:
        top, bottom = c.split(figure, 2, 1, height_ratios=(height + 0.6, 3.4))
        top.suptitle(title, fontsize=9, x=0.01, ha="left", weight="bold")
        _map_picture(top, cut, labels, shown, changed, unit)
        panels = bottom.subplots(1, 3, width_ratios=(1.0, 1.1, 1.1))
        _null_histogram(panels[0], *distance)
        _network_spread(panels[1], shown, parcels.network_index, changed, unit)
        _most_changed(panels[2], shown, q, parcels.names, unit)


def _map_picture(
    figure: Any,
    cut: Any,
    labels: np.ndarray,
    values: np.ndarray,
    changed: Sequence[int],
    unit: str,
) -> None:
    axes = figure.subplots(1, 1)
    axes.set(xticks=[], yticks=[], aspect="equal", facecolor="white")
    for spine in axes.spines.values():
        spine.set_visible(False)
    index = np.nan_to_num(cut.cut(labels, order=0)).round().astype(int)
    picture = np.concatenate([[np.nan], values])[index]
    limit = c.finite_percentile(np.abs(values), 99)
    low = -limit if np.nanmin(values, initial=0) < 0 else 0.0
    axes.imshow(np.where(index > 0, 0.0, np.nan), cmap=_plain("#d9dee4"), interpolation="nearest")
    drawn = axes.imshow(
        np.ma.masked_invalid(picture),
        cmap="RdBu_r" if low < 0 else "magma",
        vmin=low,
        vmax=limit,
        interpolation="nearest",
    )
    touched = np.isin(index, np.asarray(changed) + 1)
    axes.imshow(np.where(touched, 1.0, np.nan), cmap=_plain("#2e9e52"), interpolation="nearest")
    figure.colorbar(drawn, ax=axes, label=unit, shrink=0.8, pad=0.01)
    note = "green: changed parcels; grey: nothing can be said"
    axes.set_title(note, loc="right", fontsize=8, color=c.MUTED, weight="normal")


def _plain(colour: str) -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap([colour])


def _null_histogram(axes: Any, distance: float, null: np.ndarray) -> None:
    axes.set(title="Embedding", xlabel="distance that it moves", ylabel="random sets")
    if len(null):
        axes.hist(null, bins=min(25, max(len(null) // 4, 5)), color=c.FAINT, edgecolor=c.MUTED)
    axes.axvline(distance, color=c.NOISE, lw=1.8)
    axes.set_title("| these parcels", loc="right", fontsize=8, color=c.NOISE, weight="normal")
    axes.yaxis.get_major_locator().set_params(integer=True)


def _network_spread(
    axes: Any, values: np.ndarray, networks: np.ndarray, changed: Sequence[int], unit: str
) -> None:
    from brainlm_bids.figures.cohort import network_points

    shown = np.array(values, dtype=float)
    shown[np.asarray(changed)] = np.nan
    network_points(axes, shown, networks)
    axes.axhline(0, color=c.FAINT, lw=0.8, zorder=0)
    axes.set(title="Networks", ylabel=unit)


def _most_changed(
    axes: Any, values: np.ndarray, q: np.ndarray, names: Sequence[str], unit: str
) -> None:
    known = np.flatnonzero(np.isfinite(values))
    first = known[np.argsort(values[known])[::-1][:15]]
    colours = [c.NOISE if q[k] <= 0.05 else c.MUTED for k in first]
    axes.barh(np.arange(len(first)), values[first], color=colours)
    axes.set_yticks(np.arange(len(first)), [names[k] for k in first], fontsize=6.5)
    axes.invert_yaxis()
    axes.set(title="Most changed", xlabel=unit)
    axes.set_title("red: q ≤ 0.05", loc="right", fontsize=8, color=c.NOISE, weight="normal")


# --- fine-tuning -----------------------------------------------------------------------------

PREDICTORS = {
    "finetuned": ("fine-tuned", c.NOISE),
    "linear_probe": ("linear probe of the embedding", c.SIGNAL),
    "connectivity": ("functional connectivity", c.ACCENT),
    "baseline": ("mean or shares of the training", c.MUTED),
}


def plot_finetuning(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    curves: Sequence[Sequence[Mapping[str, str]]],
) -> None:
    """Scores of all predictors with their intervals, and the curves of all folds.

    rows: of the table of scores (predictor, metric, value, low, high); curves: a table per fold.
    """
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    with c.canvas(path, height=3.4) as figure:
        panels = figure.subplots(1, len(metrics) + 1, width_ratios=[1] * len(metrics) + [1.5])
        for axes, metric in zip(panels, metrics):
            own = [row for row in rows if row["metric"] == metric]
            for k, row in enumerate(own):
                colour = PREDICTORS[row["predictor"]][1]
                axes.plot([k, k], [row["low"], row["high"]], color=colour, lw=2)
                axes.plot(k, row["value"], "o", color=colour, ms=6)
            axes.set(title=metric, xticks=[], xlim=(-0.6, len(own) - 0.4))
            if metric in ("r2", "pearson_r"):
                axes.axhline(0, color=c.FAINT, lw=0.8, zorder=0)
        _learning_curves(panels[-1], curves)
        said = rows[0]
        note = f"{said['n_subjects']} subjects, {said['n_folds']} folds"
        figure.suptitle(f"{said['target']}: {note}", fontsize=9, x=0.01, ha="left", weight="bold")
        handles = [
            axes.plot([], [], "o", color=colour, label=label)[0]
            for label, colour in PREDICTORS.values()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncol=len(handles))


def _learning_curves(axes: Any, curves: Sequence[Sequence[Mapping[str, str]]]) -> None:
    for number, table in enumerate(curves):
        epochs = [int(row["epoch"]) for row in table]
        for column, colour, name in (
            ("train_loss", c.ACCENT, "training"),
            ("validation_loss", c.NOISE, "validation"),
        ):
            values = [float("nan") if row[column] == "n/a" else float(row[column]) for row in table]
            axes.plot(epochs, values, color=colour, alpha=0.6, label=name if not number else None)
    axes.set(title="Loss of each fold", xlabel="epoch")
    axes.legend()
