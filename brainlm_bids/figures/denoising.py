"""The figure of the independent components and of ICA-AROMA's decision about each of them.

It draws arrays into one SVG file; equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.palette import MUTED, NOISE, SIGNAL


@dataclass(frozen=True)
class Limits:
    """Above these limits a component is noise.

    `hyperplane` has the intercept and the weights of the correlation with motion and of the edge
    fraction; a component is noise where the sum is positive.
    """

    csf_fract: float
    hfc: float
    hyperplane: tuple[float, float, float]


def plot_aroma(
    path: Path,
    features: Mapping[str, np.ndarray],
    mixing: np.ndarray,
    tr: float,
    limits: Limits,
    *,
    max_components: int = 40,
) -> None:
    """Draw each component's features and decision, and time courses with their power spectra.

    Parameters
    ----------
    path
        SVG file to write.
    features
        Columns (K,): `max_rp_corr`, `edge_fract`, `csf_fract` and `hfc` from 0 to 1, `variance`
        as fraction or percent, and `classification`, "noise" or "signal".
    mixing
        Time courses (T, K); NaN in non-steady-state volumes.
    tr
        Repetition time in s.
    limits
        Limits of the decision, drawn as dashed lines.
    max_components
        Time courses are drawn of so many components, those with most variance.
    """
    noise = np.array([str(label) == "noise" for label in features["classification"]], bool)
    mixing = np.asarray(mixing, float)
    variance = _fractions(features.get("variance"), len(noise))
    order = np.argsort(-variance, kind="stable")[:max_components]
    rows = int(np.ceil(len(order) / 2))
    with c.canvas(path, height=3.3 + 0.21 * max(rows, 4)) as figure:
        top, bottom = c.split(figure, 2, 1, height_ratios=(3.2, 0.4 + 0.21 * max(rows, 4)))
        _draw_features(top, features, noise, variance, limits)
        panels = bottom.subplots(1, 4, width_ratios=(2.4, 1, 2.4, 1))
        for half in range(2):
            chosen = order[half * rows : (half + 1) * rows]
            _component_rows(panels[2 * half], panels[2 * half + 1], chosen, mixing, noise, tr, rows)
        panels[0].set_title("Time courses")
        panels[1].set_title("Power spectra")
        if len(order) < len(noise):
            text = f"the {len(order)} of {len(noise)} components with most variance"
            panels[2].set_title(text, fontsize=8, color=MUTED, weight="normal")


def _fractions(variance: np.ndarray | None, n: int) -> np.ndarray:
    """Variance (K,) as fractions that sum to 1; all equal if unknown."""
    if variance is None:
        return np.full(n, 1.0 / max(n, 1))
    values = np.nan_to_num(np.asarray(variance, float))
    return values / values.sum() if values.sum() > 0 else np.full(n, 1.0 / max(n, 1))


def _draw_features(
    figure: Figure,
    features: Mapping[str, np.ndarray],
    noise: np.ndarray,
    variance: np.ndarray,
    limits: Limits,
) -> None:
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.2, 1.2, 0.8))
    colours = np.where(noise, NOISE, SIGNAL)
    size = 10 + 500 * variance
    x, y = np.asarray(features["max_rp_corr"], float), np.asarray(features["edge_fract"], float)
    left.scatter(x, y, s=size, c=colours, alpha=0.7, lw=0)
    intercept, of_motion, of_edge = limits.hyperplane
    line = np.array([0.0, 1.0])
    left.plot(line, -(intercept + of_motion * line) / of_edge, "--", color=MUTED)
    left.set(xlim=(0, 1), ylim=(0, 1), title="Motion and brain edge")
    left.set(xlabel="maximum correlation with motion", ylabel="edge fraction")
    x, y = np.asarray(features["hfc"], float), np.asarray(features["csf_fract"], float)
    middle.scatter(x, y, s=size, c=colours, alpha=0.7, lw=0)
    middle.axvline(limits.hfc, ls="--", color=MUTED)
    middle.axhline(limits.csf_fract, ls="--", color=MUTED)
    middle.set(xlim=(0, 1), ylim=(0, max(0.2, c.finite_percentile(y, 100) * 1.1)))
    middle.set(title="Frequency and CSF", xlabel="high-frequency content", ylabel="CSF fraction")
    share = [float(variance[~noise].sum()) * 100, float(variance[noise].sum()) * 100]
    counts = [int((~noise).sum()), int(noise.sum())]
    bars = right.bar(["signal", "noise"], share, color=[SIGNAL, NOISE], width=0.6)
    labels = [f"{count} IC\n{part:.0f} %" for count, part in zip(counts, share)]
    right.bar_label(bars, labels, fontsize=8, padding=2)
    right.set(ylim=(0, 1.3 * max(*share, 1.0)), ylabel="variance of the components (%)")
    right.set_title("Classification")


def _component_rows(
    time_axes: Axes,
    frequency_axes: Axes,
    chosen: np.ndarray,
    mixing: np.ndarray,
    noise: np.ndarray,
    tr: float,
    rows: int,
) -> None:
    # non-steady-state volumes have no value
    steady = np.flatnonzero(np.isfinite(mixing).all(axis=1))
    time, mixing = steady * tr, mixing[steady]
    frequency = np.fft.rfftfreq(len(mixing), tr)[1:]
    for row, component in enumerate(chosen):
        colour = NOISE if noise[component] else SIGNAL
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
        label.set(color=NOISE if noise[component] else SIGNAL, fontsize=6.5)
    frequency_axes.set_yticks([])
    time_axes.set(xlabel="time (s)", xlim=(0, max(time[-1], tr)), ylabel="component")
    frequency_axes.set(xlabel="frequency (Hz)", xlim=(0, 0.5 / tr))
    for axes in (time_axes, frequency_axes):
        axes.set_ylim(max(rows, 4) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
