"""The figure of a recording's embeddings: how its windows differ, and when.

It draws arrays into one SVG file; equal input gives equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.palette import ACCENT, FAINT, INK, MUTED, NOISE

# Windows whose similarities differ by less than this are the same to rounding errors of float32
SAME = 1e-6
# Of so few windows, the values stand in the matrix
FEW = 6


@dataclass(frozen=True)
class Similarity:
    """Cosine similarities between N windows.

    Attributes
    ----------
    matrix
        (N, N); NaN on the diagonal, which is 1 by definition.
    low, high, mean
        Of all pairs of windows; NaN if there is one window.
    """

    matrix: np.ndarray
    low: float
    high: float
    mean: float

    @property
    def digits(self) -> int:
        """Decimals that tell the smallest similarity from the largest."""
        spread = self.high - self.low
        return int(np.clip(1 - np.floor(np.log10(spread)), 2, 6)) if spread > SAME else 3

    @property
    def same(self) -> bool:
        """Whether all windows have the same embedding."""
        return bool(self.high - self.low < SAME and self.low > 1 - SAME)


def similarity(vectors: np.ndarray) -> Similarity:
    """Compare the embeddings of windows.

    Parameters
    ----------
    vectors
        (N, D).

    Returns
    -------
    Similarity
        Of each pair of windows.

    Examples
    --------
    >>> found = similarity(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    >>> found.matrix.round(1).tolist()
    [[nan, 1.0, 0.0], [1.0, nan, 0.0], [0.0, 0.0, nan]]
    >>> found.low, found.high, round(found.mean, 2)
    (0.0, 1.0, 0.33)
    """
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norm > 0, norm, 1)
    matrix = unit @ unit.T
    np.fill_diagonal(matrix, np.nan)
    known = matrix[np.isfinite(matrix)]
    if not known.size:
        return Similarity(matrix, np.nan, np.nan, np.nan)
    return Similarity(matrix, float(known.min()), float(known.max()), float(known.mean()))


def trajectory(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project windows onto the first two principal components of their recording.

    Parameters
    ----------
    vectors
        (N, D).

    Returns
    -------
    points
        (N, 2); 0 in a component that there is not.
    shares
        (2,) fraction of the variance between windows along each component.

    Examples
    --------
    >>> points, shares = trajectory(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))
    >>> np.abs(points[:, 0]).round(6).tolist(), shares.tolist()
    ([2.0, 0.0, 2.0], [1.0, 0.0])
    """
    left, strength, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    points, shares = np.zeros((len(vectors), 2)), np.zeros(2)
    total = float((strength**2).sum())
    # what rounding makes of a component that there is not is no variance
    n = min(2, int((strength > 1e-6 * strength[0]).sum()))
    if total > 0:
        points[:, :n] = left[:, :n] * strength[:n]
        shares[:n] = strength[:n] ** 2 / total
    # the sign of a component is arbitrary: the last window is at the right and at the top
    return points * np.where(points[-1] < 0, -1, 1), shares


def plot_embeddings(
    path: Path,
    vectors: np.ndarray,
    onset: np.ndarray,
    duration: float | np.ndarray | None = None,
    *,
    bad: tuple[np.ndarray, float, float] | None = None,
) -> None:
    """Draw the similarity between windows, that of each to the others over time, and their path.

    Parameters
    ----------
    path
        SVG file to write.
    vectors
        Embeddings (N, D), a row per window, without NaN.
    onset
        Onsets of the windows, (N,) in s.
    duration
        Duration of the windows in s, one or (N,).
    bad
        (T,) True for volumes without data, the sampling interval and the time of the first volume
        in s.
    """
    vectors = np.atleast_2d(np.asarray(vectors, float))
    onset = np.atleast_1d(np.asarray(onset, float))
    lengths = np.broadcast_to(np.asarray(0.0 if duration is None else duration, float), onset.shape)
    n_windows, width = vectors.shape
    about = f"{n_windows} window{'s' * (n_windows != 1)} × {width} dimensions"
    if lengths[0] > 0:
        about += f", {lengths[0]:.0f} s each"
    found = similarity(vectors)
    if n_windows < 3:
        _draw_few(path, vectors, onset, lengths, about)
        return
    found = similarity(vectors)
    with c.canvas(path, height=3.3) as figure:
        left, middle, right = c.split(figure, 1, 3, width_ratios=(1.15, 1.25, 1))
        _matrix(left, found, onset)
        panels = middle.subplots(2, 1, sharex=True)
        _over_time(panels, vectors, found, onset, lengths)
        if bad is not None:
            c.mark_bad(panels, *bad)
        _path(right.subplots(), *trajectory(vectors), onset)
        figure.suptitle(about, fontsize=8, color=MUTED, x=0.99, ha="right")


def _draw_few(
    path: Path, vectors: np.ndarray, onset: np.ndarray, lengths: np.ndarray, about: str
) -> None:
    """One or two windows: their values, and what can be said of them in words."""
    with c.canvas(path, height=2.4) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
        if len(vectors) == 1:
            _values(left, vectors[0])
        else:
            _against(left, vectors, onset)
        c.note(left, about)
        right.set_axis_off()
        words = "\n".join(_in_words(vectors, onset, lengths))
        style: dict[str, Any] = {"va": "center", "linespacing": 1.6, "fontsize": 9}
        right.text(0.06, 0.5, words, transform=right.transAxes, **style)


def _values(axes: Axes, vector: np.ndarray) -> None:
    """The distribution of the values of one embedding."""
    axes.hist(vector[np.isfinite(vector)], bins=60, color=ACCENT)
    axes.set(title="Values of the embedding", xlabel="value", ylabel="dimensions")


def _against(axes: Axes, vectors: np.ndarray, onset: np.ndarray) -> None:
    """A dot for each dimension: its value in the second window over that in the first."""
    low, high = float(vectors.min()), float(vectors.max())
    axes.plot([low, high], [low, high], color=FAINT, lw=1, zorder=0)
    first, second = vectors
    axes.scatter(
        first, second, s=7, color=ACCENT, alpha=0.6, lw=0, rasterized=vectors.shape[1] > 200
    )
    axes.set(title="Values of both windows", xlabel=f"window from {onset[0]:.0f} s")
    axes.set(ylabel=f"window from {onset[1]:.0f} s")


def _in_words(vectors: np.ndarray, onset: np.ndarray, lengths: np.ndarray) -> list[str]:
    ends = onset + lengths
    norms = np.linalg.norm(vectors, axis=1)
    if len(vectors) == 1:
        return [
            "The recording is one window of the model:",
            "there is no other to compare it with.",
            f"It lasts from {onset[0]:.0f} s to {ends[0]:.0f} s.",
            f"Length of its embedding (norm): {norms[0]:.3g}",
        ]
    found = similarity(vectors)
    words = [
        "The recording is two windows of the model.",
        f"Cosine similarity: {found.mean:.4f}",
        f"Lengths of the embeddings (norms): {norms[0]:.4g} and {norms[1]:.4g}",
    ]
    shared = ends[0] - onset[1]
    if shared > 0:
        words.append(f"They share {shared:.0f} s, which makes them alike.")
    if found.same:
        words.append("They are the same: the model does not respond.")
    return words


def _matrix(figure: Any, found: Similarity, onset: np.ndarray) -> None:
    axes = figure.subplots()
    n_windows, digits = len(onset), found.digits
    # a range of its own, so that differences can be seen where all similarities are near 1
    margin = 0.0 if found.high - found.low > SAME else 0.5 * SAME
    low, high = found.low - margin, found.high + margin
    image = axes.imshow(
        found.matrix, cmap=c.coarse("viridis"), vmin=low, vmax=high, interpolation="none"
    )
    every = max(1, -(-n_windows // 10))
    labels = [f"{start:.0f}" for start in onset]
    axes.set_xticks(range(0, n_windows, every), labels[::every], rotation=90 * (n_windows > FEW))
    axes.set_yticks(range(0, n_windows, every), labels[::every])
    axes.set(xlabel="onset of window (s)", ylabel="onset of window (s)")
    axes.set_title("Similarity of windows")
    if found.high - found.low > SAME:
        bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=25)
        bar.set_label(f"cosine, from {found.low:.{digits}f} to {found.high:.{digits}f}")
        bar.ax.axhline(found.mean, color="white", lw=1.5)
    if found.same:
        text = "all windows are the same: the model does not respond"
        axes.set_xlabel(f"onset of window (s)\n{text}", color=NOISE)
    if n_windows > FEW:
        return
    for row, column in np.ndindex(found.matrix.shape):
        value = found.matrix[row, column]
        ink = INK if row == column or value > 0.5 * (low + high) else "white"
        words = "1" if row == column else f"{value:.{digits}f}"
        axes.text(column, row, words, ha="center", va="center", fontsize=7, color=ink)


def _over_time(
    panels: np.ndarray,
    vectors: np.ndarray,
    found: Similarity,
    onset: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """Mean similarity of each window to the others, and the length of its embedding."""
    upper, lower = panels
    middle = onset + 0.5 * lengths
    of_others = np.nanmean(found.matrix, axis=1)
    norm = np.linalg.norm(vectors, axis=1)
    for axes, values in ((upper, of_others), (lower, norm)):
        # the extent of each window, where they can be told apart
        if len(onset) <= 12:
            axes.hlines(values, onset, onset + lengths, color=FAINT, lw=5)
        axes.plot(middle, values, color=ACCENT, marker="o" if len(onset) <= 60 else "", ms=3.5)
        axes.margins(y=0.2)
        axes.yaxis.get_major_formatter().set_useOffset(False)
        axes.locator_params(axis="y", nbins=4)
    upper.axhline(found.mean, color=MUTED, ls="--", lw=0.8)
    upper.set(title="Similarity to the others", ylabel="mean cosine")
    c.note(upper, f"mean {found.mean:.{found.digits}f}")
    lower.set(title="Length of the embedding", ylabel="norm", xlabel="time (s)")
    lower.set_xlim(min(0.0, float(onset[0])), float((onset + lengths).max()) or None)


def _path(axes: Axes, points: np.ndarray, shares: np.ndarray, onset: np.ndarray) -> None:
    """The windows in the plane of the recording's first two components, joined in time."""
    across, up = points.T
    axes.plot(across, up, color=FAINT, lw=1, zorder=1)
    many = len(points) > 60
    style: dict[str, Any] = {"lw": 0.4, "edgecolors": "white", "rasterized": many}
    size = 12 if many else 26
    drawn = axes.scatter(across, up, c=onset, cmap="viridis", s=size, **style)
    ends = {0: "first"} | {len(points) - 1: "last"}
    for k, word in ends.items():
        place: dict[str, Any] = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 7}
        axes.annotate(f"{word} ({onset[k]:.0f} s)", points[k], **place)
    axes.margins(0.18)
    axes.set_title("Path through the recording")
    axes.set(xlabel=f"component 1 ({100 * shares[0]:.0f} % of the variance)")
    axes.set(ylabel=f"component 2 ({100 * shares[1]:.0f} %)")
    axes.locator_params(axis="y", nbins=5)
    axes.locator_params(axis="x", nbins=3)
    if len(onset) > FEW:
        bar = axes.figure.colorbar(drawn, ax=axes, pad=0.02, aspect=25)
        bar.set_label("onset of window (s)")
