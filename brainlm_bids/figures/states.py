"""The figure of the decoding of states: each source's accuracy, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.palette import ACCENT, INK, MUTED, NOISE

# Roles of `cohort.sources`
COLOURS = {"embedding": NOISE, "baseline": ACCENT, "control": MUTED}
ROW = 0.22  # inches of a source
WIDEST_LABELS = 12  # more states than this have no numbers in their cells


def plot_states(
    path: Path,
    sources: Sequence[Mapping[str, Any]],
    confusion: np.ndarray,
    states: Sequence[str],
    title: str,
) -> None:
    """Draw the balanced accuracy from each source, and a confusion matrix.

    Parameters
    ----------
    path
        SVG file to write.
    sources
        Each has `label`, `role`, `value`, `low`, `high` (balanced accuracy and its interval) and
        `p`.
    confusion
        (S, S) shares of the blocks of each state, a row per true state.
    states
        Their S names.
    title
        Of the matrix: which source it is of.
    """
    n_states = len(states)
    height = 0.9 + max(ROW * len(sources), 2.2)
    with c.canvas(path, height=height) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (0.9, 1.0)})
        _draw_sources(left, sources, 1 / n_states)
        image = right.imshow(np.asarray(confusion), cmap=c.coarse("Blues"), vmin=0, vmax=1)
        right.set_xticks(range(n_states), states, rotation=60, ha="right")
        right.set_yticks(range(n_states), states)
        right.set(xlabel="decoded as", ylabel="state")
        right.set_title(title.replace(", ", ",\n"), fontsize=8)
        figure.colorbar(image, ax=right, label="share of the blocks", pad=0.02, shrink=0.7)
        if n_states <= WIDEST_LABELS:
            _write_shares(right, np.asarray(confusion))


def _draw_sources(axes: Axes, sources: Sequence[Mapping[str, Any]], chance: float) -> None:
    for at, row in enumerate(sources):
        colour = COLOURS[row["role"]]
        axes.hlines(at, row["low"], row["high"], color=colour, lw=2)
        axes.plot(row["value"], at, "o", color=colour, ms=5)
    axes.axvline(chance, color=INK, lw=0.8, ls=":")
    axes.set_yticks(range(len(sources)), [row["label"] for row in sources])
    axes.set(ylim=(len(sources) - 0.5, -0.5), xlim=(0, 1.02), xlabel="balanced accuracy")
    axes.tick_params(axis="y", length=0, labelsize=6.5)


def _write_shares(axes: Axes, confusion: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(confusion):
        if share >= 0.005:
            colour = "white" if share > 0.6 else INK
            text = f"{share:.2f}".removeprefix("0")
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
