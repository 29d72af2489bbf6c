"""What else is in an embedding: shares of variance, coupling with motion, reliability.

Draws arrays and the rows of tables into one SVG file; equal input gives equal bytes. Missing
numbers are None or NaN and are not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.palette import ACCENT, AMBER, INK, MUTED, NOISE

# Label and colour of each kind of features, as in the figures of decoding
FEATURES = {
    "embedding": ("embedding", NOISE),
    "connectivity": ("functional connectivity", ACCENT),
    "untrained": ("untrained network", MUTED),
}
_BINS = 24


def plot_audit(
    path: Path,
    confounding: Sequence[Mapping[str, Any]],
    distances: np.ndarray,
    correlations: np.ndarray | None,
    iccs: Mapping[str, np.ndarray],
    reliability: Sequence[Mapping[str, Any]],
) -> None:
    """Draw what goes with site and motion, and how reliable the features are, side by side.

    Parameters
    ----------
    path
        SVG file to write.
    confounding, reliability
        Rows of the tables of these names.
    distances
        (E,) distance between the parcels of each connection, in mm.
    correlations
        (E,) correlation of each connection with motion; None if motion is not known.
    iccs
        ICC of all dimensions, for each kind of features; empty without repeated recordings.
    """
    shares = [row for row in confounding if row["measure"] == "variance_share_adjusted"]
    n_lines = len({row["variable"] for row in shares})
    with c.canvas(path, height=max(3.0, 0.8 + 0.42 * n_lines)) as figure:
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
        _shares(left, shares)
        _distances(middle, distances, correlations, confounding)
        _iccs(right, iccs, reliability)


def _nothing(axes: Axes, text: str) -> None:
    axes.set_axis_off()
    axes.text(0.02, 0.9, text, transform=axes.transAxes, color=MUTED, va="top", fontsize=8)


def _shares(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title("Share of variance above chance")
    if not rows:
        return _nothing(axes, "no property differs between recordings")
    names = list(dict.fromkeys(row["variable"] for row in rows))
    kinds = [name for name in FEATURES if any(row["features"] == name for row in rows)]
    for k, kind in enumerate(kinds):
        label, colour = FEATURES[kind]
        chosen = {row["variable"]: row for row in rows if row["features"] == kind}
        values = np.array([100 * float(chosen[name]["value"]) for name in names])
        places = np.arange(len(names)) + 0.27 * (k - (len(kinds) - 1) / 2)
        axes.barh(places, np.nan_to_num(values), height=0.25, color=colour, label=label)
        for place, value, name in zip(places, values, names, strict=True):
            p = float(chosen[name]["p"])
            text = f"{value:.1f} %" + (f", p = {p:.2g}" if np.isfinite(p) else "")
            offset: dict[str, Any] = {
                "xytext": (3, 0),
                "textcoords": "offset points",
                "va": "center",
            }
            axes.annotate(text, (max(np.nan_to_num(value), 0), place), fontsize=6.5, **offset)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="per cent of the variance between recordings")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.45 * (high - low))
    axes.axvline(0, color=INK, lw=0.6)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower right", fontsize=7)
    return None


def _distances(
    axes: Axes,
    distances: np.ndarray,
    correlations: np.ndarray | None,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    axes.set_title("QC-FC")
    known = np.zeros(0, bool) if correlations is None else np.isfinite(correlations)
    if correlations is None or not known.any():
        return _nothing(axes, "no measure of motion")
    x, y = distances[known], np.asarray(correlations, float)[known]
    limit = max(float(np.abs(y).max()), 0.05)
    edges = np.linspace(x.min(), x.max(), _BINS + 1), np.linspace(-limit, limit, 2 * _BINS + 1)
    counts, _, _ = np.histogram2d(x, y, bins=list(edges))
    extent = (edges[0][0], edges[0][-1], -limit, limit)
    shown = np.where(counts > 0, counts, np.nan).T
    options: dict[str, Any] = {"origin": "lower", "extent": extent}
    c.heatmap(axes, shown, cmap="Blues", limit=(0, float(counts.max())), **options)
    bins = np.clip(np.digitize(x, edges[0]) - 1, 0, _BINS - 1)
    filled = [k for k in range(_BINS) if (bins == k).any()]
    centres = (edges[0][:-1] + edges[0][1:])[filled] / 2
    axes.plot(centres, [np.median(y[bins == k]) for k in filled], color=AMBER, lw=1.6)
    axes.axhline(0, color=MUTED, lw=0.6, ls=":")
    axes.set(xlabel="distance of the parcels (mm)", ylabel="r with mean FD over subjects")
    rho = [row for row in rows if row["measure"] == "distance_rho"]
    if rho:
        c.note(axes, f"ρ = {float(rho[0]['value']):.2f}, p = {float(rho[0]['p']):.2g}")
    return None


def _iccs(axes: Axes, iccs: Mapping[str, np.ndarray], rows: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title("Reliability")
    drawn = {name: values[np.isfinite(values)] for name, values in iccs.items() if name in FEATURES}
    if not any(values.size for values in drawn.values()):
        return _nothing(axes, "too few subjects have two recordings")
    rates = {
        row["features"]: row["value"] for row in rows if row["measure"] == "identification_rate"
    }
    bins = list(np.linspace(-0.6, 1, 41))
    for name, values in drawn.items():
        label, colour = FEATURES[name]
        label += f": median {np.median(values):.2f}"
        label += f"\nidentified {100 * float(rates[name]):.0f} %" if name in rates else ""
        weights = np.full(values.size, 100 / max(values.size, 1))
        style: dict[str, Any] = {"histtype": "step", "color": colour, "lw": 1.6, "label": label}
        axes.hist(np.clip(values, -0.6, 1), bins=bins, weights=weights, **style)
        axes.axvline(float(np.median(values)), color=colour, lw=0.8, ls="--", ymax=0.66)
    motion = iccs.get("mean_fd")
    if motion is not None and np.isfinite(motion[0]):
        c.note(axes, f"mean FD: {motion[0]:.2f}")
    axes.set(xlabel="ICC(2,1)", ylabel="per cent of the dimensions")
    axes.set_ylim(0, 1.5 * axes.get_ylim()[1])
    axes.legend(loc="upper left", fontsize=7)
    return None
