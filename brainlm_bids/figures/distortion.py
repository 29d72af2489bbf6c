"""Figures of distortion: a BOLD reference before and after its correction, and how far it moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.mosaic import (
    FLICKER,
    contour_legend,
    draw_contours,
    draw_grey,
    foreground,
    label_tiles,
    layout,
    picture_axes,
)
from brainlm_bids.figures.palette import INK

# Displacements up to this one have the same colours in every figure, so that runs compare.
LEAST_RANGE_MM = 4.0


def plot_distortion(
    path: Path,
    before: np.ndarray,
    after: np.ndarray,
    affine: np.ndarray,
    millimetres: np.ndarray,
    brain: np.ndarray | None = None,
    *,
    title: str = "",
    direction: str = "",
    brain_name: str = "T1w brain",
) -> None:
    """Draw a BOLD reference without its distortion, with that of before beneath the pointer.

    Below, the displacement by the distortion is in colours.

    Parameters
    ----------
    path
        SVG file to write.
    before, after
        The reference (X, Y, Z) as it was measured, and without distortion.
    affine
        (4, 4), voxel to RAS+ mm.
    millimetres
        (X, Y, Z) displacement along the phase-encoding axis, positive towards larger indices.
    brain
        Mask (X, Y, Z) of where the brain is, to be outlined; None: no outline.
    title
        Title of the figure.
    direction
        Phase-encoding direction, such as "j-".
    brain_name
        Whose brain the mask is.
    """
    bound = foreground(after) if brain is None or not np.any(brain) else np.asarray(brain) > 0
    cut = layout(np.shape(after), affine, bound)
    moved = layout(np.shape(after), affine, bound, planes="zx")
    contours = {} if brain is None else {brain_name: brain}
    heights = (cut.height(c.WIDTH), moved.height(c.WIDTH))
    with c.canvas(path, sum(heights) + 1.0, smooth=True, style=FLICKER) as figure:
        upper, lower = c.split(figure, 2, 1, height_ratios=heights)
        axes = picture_axes(upper, cut)
        draw_grey(axes, cut, after)
        draw_grey(axes, cut, before, bound, gid="fixed")
        draw_contours(axes, cut, contours)
        label_tiles(axes, cut)
        axes.set_title(title or "BOLD reference without distortion")
        c.note(axes, "shown: corrected   ·   point at the figure to see: as it was measured")

        axes = picture_axes(lower, moved)
        seen = np.where(bound, np.nan_to_num(millimetres), 0.0)
        reach = max(LEAST_RANGE_MM, float(np.abs(seen).max()))
        shown = moved.cut(seen)
        picture = axes.imshow(
            np.nan_to_num(shown), cmap=c.coarse("RdBu_r", 40), vmin=-reach, vmax=reach
        )
        draw_contours(axes, moved, contours)
        label_tiles(axes, moved, INK)
        contour_legend(axes, contours)
        along = f" along {direction}" if direction else ""
        axes.set_title(f"Displacement by the distortion{along}")
        lower.colorbar(picture, ax=axes, label="mm", shrink=0.8, pad=0.01)
