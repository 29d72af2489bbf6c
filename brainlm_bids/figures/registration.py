"""Figures of registrations and brain masks: slices of images (X, Y, Z) with contours.

Each function draws arrays into one SVG file; equal input gives equal bytes. Affines (4, 4) are in
RAS+ millimetres.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def plot_registration(
    path: Path,
    fixed: np.ndarray,
    fixed_affine: np.ndarray,
    moving_resampled: np.ndarray,
    contours: Mapping[str, np.ndarray] | None = None,
    *,
    title: str = "",
    fixed_name: str = "fixed",
    moving_name: str = "moving",
) -> None:
    """Draw a registered image with contours of the image that it was registered to.

    A pointer over the figure fades to the fixed image and back.

    Parameters
    ----------
    path
        SVG file to write.
    fixed, fixed_affine
        The fixed image (X, Y, Z) and its affine.
    moving_resampled
        The moving image on the grid of the fixed one, (X, Y, Z).
    contours
        Masks (X, Y, Z) by name, to be outlined; the first determines which slices are shown.
    title
        Title of the figure.
    fixed_name, moving_name
        What the two images are called in the figure.
    """
    contours = dict(contours or {})
    bound = next(iter(contours.values()), foreground(fixed))
    cut = layout(np.shape(fixed), fixed_affine, bound)
    with c.canvas(path, cut.height(c.WIDTH) + 0.45, smooth=True, style=FLICKER) as figure:
        axes = picture_axes(figure, cut)
        draw_grey(axes, cut, moving_resampled)
        draw_grey(axes, cut, fixed, bound, gid="fixed")
        draw_contours(axes, cut, contours)
        label_tiles(axes, cut)
        axes.set_title(title or f"{moving_name} on {fixed_name}")
        c.note(axes, f"shown: {moving_name}   ·   point at the figure to see: {fixed_name}")
        contour_legend(axes, contours)


def plot_brain_mask(
    path: Path,
    image: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray,
    *,
    lesion: np.ndarray | None = None,
    title: str = "Brain mask",
) -> None:
    """Outline a brain mask on its image, and state the volume of the mask.

    Parameters
    ----------
    path
        SVG file to write.
    image, affine
        The image (X, Y, Z) and its affine.
    mask
        The mask (X, Y, Z); voxels above 0 are inside.
    lesion
        Mask of a lesion (X, Y, Z), to be outlined, too.
    title
        Title of the figure.
    """
    # slices span the whole head, so that brain which the mask misses can be seen
    head = foreground(image) | (np.asarray(mask) > 0)
    cut = layout(np.shape(image), affine, head)
    contours = {"brain": mask}
    if lesion is not None and np.any(lesion):
        contours["lesion"] = lesion
    voxel_ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    volumes = [voxel_ml * np.count_nonzero(one) for one in contours.values()]
    with c.canvas(path, cut.height(c.WIDTH) + 0.4, smooth=True) as figure:
        axes = picture_axes(figure, cut)
        draw_grey(axes, cut, image, mask)
        draw_contours(axes, cut, contours)
        label_tiles(axes, cut)
        axes.set_title(title)
        of_lesion = f", lesion (blue) {volumes[1]:.0f} cm³" if len(volumes) > 1 else ""
        c.note(axes, f"{volumes[0]:.0f} cm³{of_lesion}")
