"""The figure of the independent components and of ICA-AROMA's decision about each of them.

It draws arrays into one SVG file; equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.palette import MUTED, NOISE, SIGNAL

# High-frequency content is 0 at this frequency and 1 at the Nyquist frequency.
LOWEST_HZ = 0.01


@dataclass(frozen=True)
class Limits:
    """Above these limits a component is noise.

    `hyperplane` has the intercept and the weights of the correlation with motion and of the edge
    fraction; a component is noise where the sum is positive.
    """

    csf_fract: float
    hfc: float
    hyperplane: tuple[float, float, float]

    def exceeded(self, values: Mapping[str, float]) -> list[str]:
        """Names of the features of a component that make it noise; none if it is signal.

        >>> limits = Limits(0.1, 0.35, (-20.0, 10.0, 25.0))
        >>> limits.exceeded({"max_rp_corr": 0.7, "edge_fract": 0.9, "hfc": 0.4, "csf_fract": 0.0})
        ['hfc', 'edge_fract', 'max_rp_corr']
        """
        intercept, of_motion, of_edge = self.hyperplane
        score = intercept + of_motion * values["max_rp_corr"] + of_edge * values["edge_fract"]
        decided = {
            "csf_fract": values["csf_fract"] > self.csf_fract,
            "hfc": values["hfc"] > self.hfc,
            "edge_fract": score > 0,
            "max_rp_corr": score > 0,
        }
        return [name for name, above in decided.items() if above]

    @staticmethod
    def frequency(hfc: float, nyquist: float) -> float:
        """Frequency in Hz of a high-frequency content, which halves the power above 0.01 Hz.

        >>> Limits.frequency(1.0, 0.25), Limits.frequency(0.0, 0.25)
        (0.25, 0.01)
        """
        return LOWEST_HZ + hfc * (nyquist - LOWEST_HZ)


def plot_aroma(path: Path, features: Mapping[str, np.ndarray], limits: Limits) -> None:
    """Draw the features of all components with the limits of the decision.

    Parameters
    ----------
    path
        SVG file to write.
    features
        Columns (K,): `max_rp_corr`, `edge_fract`, `csf_fract` and `hfc` from 0 to 1, `variance`
        as fraction or percent, and `classification`, "noise" or "signal".
    limits
        Limits of the decision, drawn as dashed lines.
    """
    noise = np.array([str(label) == "noise" for label in features["classification"]], bool)
    variance = _fractions(features.get("variance"), len(noise))
    with c.canvas(path, height=3.3) as figure:
        _draw_features(figure, features, noise, variance, limits)


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
    # a dot of a size of its own takes a kilobyte
    style: dict[str, Any] = {"s": size, "c": colours, "alpha": 0.7, "lw": 0}
    style["rasterized"] = len(noise) > 40
    x, y = np.asarray(features["max_rp_corr"], float), np.asarray(features["edge_fract"], float)
    left.scatter(x, y, **style)
    intercept, of_motion, of_edge = limits.hyperplane
    line = np.array([0.0, 1.0])
    left.plot(line, -(intercept + of_motion * line) / of_edge, "--", color=MUTED)
    left.set(xlim=(0, 1), ylim=(0, 1), title="Motion and brain edge")
    left.set(xlabel="maximum correlation with motion", ylabel="edge fraction")
    x, y = np.asarray(features["hfc"], float), np.asarray(features["csf_fract"], float)
    middle.scatter(x, y, **style)
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
