"""Figures of forecasts, perturbations and fine-tuning: tables come in, a PNG per call goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids.report import canvas as c

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
        panels[2].set_title(said, loc="right", fontsize=8, color=c.MUTED, weight="normal")
        if title:
            figure.suptitle(title, fontsize=9)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncol=min(len(labels), 4))


def _limit(axes: Any, values: np.ndarray) -> None:
    """R² of persistence lies far below the others: cut where these can still be told apart."""
    axes.axhline(0, color=c.FAINT, lw=0.8, zorder=0)
    low = float(np.nanmin(values, initial=0))
    if low < -1.2:
        axes.set_ylim(bottom=-1.2)
        axes.text(0.02, 0.02, "some lines go on below", transform=axes.transAxes, fontsize=7)
