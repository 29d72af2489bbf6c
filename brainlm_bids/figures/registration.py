"""Figures of registrations and brain masks: slices of images (X, Y, Z) with contours.

Each function draws arrays into one SVG file; equal input gives equal bytes. Affines (4, 4) are in
RAS+ millimetres.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.mosaic import Layout, draw_grey, label_tiles, layout


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
    bound = next(iter(contours.values()), _foreground(fixed))
    cut = layout(np.shape(fixed), fixed_affine, bound)
    with c.canvas(path, cut.height(c.WIDTH) + 0.45, smooth=True, style=_FLICKER) as figure:
        axes = _picture_axes(figure, cut)
        draw_grey(axes, cut, moving_resampled)
        draw_grey(axes, cut, fixed, bound, gid="fixed")
        _contours(axes, cut, contours)
        label_tiles(axes, cut)
        axes.set_title(title or f"{moving_name} on {fixed_name}")
        c.note(axes, f"shown: {moving_name}   ·   point at the figure to see: {fixed_name}")
        _contour_legend(axes, contours)


# The image whose id is `fixed` is hidden; it fades in and out while a pointer is over the figure
_FLICKER = (
    "#fixed{opacity:0}svg:hover #fixed{animation:flicker 2.4s ease-in-out infinite}"
    "@keyframes flicker{0%,10%{opacity:0}40%,60%{opacity:1}90%,100%{opacity:0}}"
)


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
    head = _foreground(image) | (np.asarray(mask) > 0)
    cut = layout(np.shape(image), affine, head)
    contours = {"brain": mask}
    if lesion is not None and np.any(lesion):
        contours["lesion"] = lesion
    voxel_ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    volumes = [voxel_ml * np.count_nonzero(one) for one in contours.values()]
    with c.canvas(path, cut.height(c.WIDTH) + 0.4, smooth=True) as figure:
        axes = _picture_axes(figure, cut)
        draw_grey(axes, cut, image, mask)
        _contours(axes, cut, contours)
        label_tiles(axes, cut)
        axes.set_title(title)
        of_lesion = f", lesion (blue) {volumes[1]:.0f} cm³" if len(volumes) > 1 else ""
        c.note(axes, f"{volumes[0]:.0f} cm³{of_lesion}")


def _foreground(image: np.ndarray) -> np.ndarray:
    """Where an image is not background: above a quarter of its 98th percentile."""
    image = np.nan_to_num(np.asarray(image, dtype=np.float32))
    return image > 0.25 * np.percentile(image, 98)


def _picture_axes(figure: Figure, cut: Layout) -> Axes:
    axes = figure.subplots()
    axes.set(xlim=(-0.5, cut.shape[1] - 0.5), ylim=(cut.shape[0] - 0.5, -0.5), aspect="equal")
    axes.set(xticks=[], yticks=[], facecolor="black")
    c.without_frame(axes)
    return axes


def _contours(axes: Axes, cut: Layout, contours: Mapping[str, np.ndarray]) -> None:
    for mask, colour in zip(contours.values(), _CONTOUR_COLOURS):
        picture = np.nan_to_num(cut.cut(np.asarray(mask, dtype=np.float32)))
        if picture.max() > 0.5 > picture.min():
            axes.contour(picture, levels=[0.5], colors=[colour], linewidths=0.9)


_CONTOUR_COLOURS = ("#ff5c4d", "#39c5e0", "#f5c542", "#7ddf64")


def _contour_legend(axes: Axes, contours: Mapping[str, np.ndarray]) -> None:
    handles = [
        Line2D([], [], color=colour, lw=1.6, label=name)
        for name, colour in zip(contours, _CONTOUR_COLOURS)
    ]
    if handles:
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncol=4)
