"""Slices of a volume (X, Y, Z) laid out side by side in one picture (H, W), in true proportions.

Volumes that share a grid are cut alike, so that their pictures can be laid over one another.
The left of the picture is the left of the head (neurological convention).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from scipy.ndimage import map_coordinates

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.canvas import coarse

# The image whose id is `fixed` is hidden; it fades in and out while a pointer is over the figure or
# the keyboard's focus on it, and just appears for people who prefer that nothing moves
FLICKER = (
    "#fixed{opacity:0}svg:is(:hover,:focus) #fixed{animation:flicker 2.4s ease-in-out infinite}"
    "@media(prefers-reduced-motion:reduce){svg:is(:hover,:focus) #fixed{animation:none;opacity:1}}"
    "@keyframes flicker{0%,10%{opacity:0}40%,60%{opacity:1}90%,100%{opacity:0}}"
)
# told apart on grey, by people who lack one kind of cone too
CONTOUR_COLOURS = ("#fc574b", "#44a9f9", "#984ea1", "#92ff8b")
# Pixels above every row of slices, for their labels
LABEL_ROOM = 9
# Width of the largest slice in pixels
MAX_PIXELS = 105
# Space around what the slices span, in mm
MARGIN = 6.0
# In-plane axes (horizontal, vertical) and the axis cut, of RAS+ volumes.
_PLANES = {"z": (0, 1, 2), "y": (0, 2, 1), "x": (1, 2, 0)}


@dataclass(frozen=True)
class Tile:
    """One slice in the picture: plane (x, y or z), position in mm, and its corner in pixels."""

    plane: str
    position: float
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """A picture of slices: where the pixels of each tile are in the voxel grid.

    Attributes
    ----------
    shape
        Height and width of the picture, in pixels.
    tiles
        The slices.
    coordinates
        Voxel coordinates (3, h, w) of the pixels of each tile.
    orientation
        Orientation of the image relative to RAS+, as nibabel has it.
    affine
        (4, 4) from those voxel coordinates to RAS+ mm.
    """

    shape: tuple[int, int]
    tiles: tuple[Tile, ...]
    coordinates: tuple[np.ndarray, ...]
    orientation: np.ndarray
    affine: np.ndarray

    def height(self, width: float) -> float:
        """Height of the picture for a given width.

        Parameters
        ----------
        width
            Width, in any unit.

        Returns
        -------
        float
            Height, in the same unit.
        """
        return width * self.shape[0] / self.shape[1]

    def cut(
        self, volume: np.ndarray, order: int = 1, affine: np.ndarray | None = None
    ) -> np.ndarray:
        """Sample the slices of a volume.

        Parameters
        ----------
        volume
            (X, Y, Z).
        order
            Order of the interpolation; 0 for labels.
        affine
            (4, 4) of the volume, if its grid is not that of the layout.

        Returns
        -------
        ndarray
            (H, W) float32 picture, NaN between the tiles.
        """
        volume = np.nan_to_num(np.asarray(volume, dtype=np.float32))
        if affine is None:
            sampled = nib.orientations.apply_orientation(volume, self.orientation)
            to_grid = np.eye(4)
        else:
            sampled, to_grid = volume, np.linalg.inv(affine) @ self.affine
        picture = np.full(self.shape, np.nan, dtype=np.float32)
        for tile, voxels in zip(self.tiles, self.coordinates):
            where = np.tensordot(to_grid[:3, :3], voxels, 1) + to_grid[:3, 3, None, None]
            cut = map_coordinates(sampled, where, order=order, mode="constant", cval=0.0)
            rows = slice(tile.top, tile.top + tile.height)
            picture[rows, tile.left : tile.left + tile.width] = cut
        return picture


def layout(
    shape: tuple[int, ...],
    affine: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    planes: str = "zyx",
    n_columns: int = 7,
    max_pixels: int = MAX_PIXELS,
    whole_voxels: bool = False,
) -> Layout:
    """Choose slices that span the mask and lay them out, one row per letter of `planes`.

    Parameters
    ----------
    shape, affine
        The grid: (X, Y, Z) and its affine (4, 4) in RAS+ mm.
    mask
        What the slices should span, (X, Y, Z); the whole grid if None or empty.
    planes
        One letter per row of slices: z (axial), y (coronal), x (sagittal).
    n_columns
        Slices per row.
    max_pixels
        Width of the largest slice in pixels.
    whole_voxels
        Whether no pixel may be smaller than a voxel.

    Returns
    -------
    Layout
        Voxel coordinates of every pixel of the picture.
    """
    orientation = nib.orientations.io_orientation(affine)
    inverse = nib.orientations.inv_ornt_aff(orientation, shape[:3])
    ras_affine = affine @ inverse
    zooms = nib.affines.voxel_sizes(ras_affine)
    filled = np.ones(shape[:3], bool) if mask is None or not np.any(mask) else np.asarray(mask) > 0
    filled = nib.orientations.apply_orientation(filled, orientation)
    low, high = _bounds(filled)
    pad = np.ceil(MARGIN / zooms)
    first = np.maximum(low - pad, 0)
    last = np.minimum(high + pad, np.array(filled.shape) - 1)
    in_plane = [axis for plane in planes for axis in _PLANES[plane][:2]]
    finest = zooms[in_plane].max() if whole_voxels else zooms.min()
    step = max(float(finest), float(((last - first) * zooms).max()) / max_pixels)
    size = ((last - first) * zooms / step).round().astype(int) + 1

    cell = max(size[_PLANES[plane][0]] for plane in planes)
    tiles, coordinates, top = [], [], 0
    for plane in planes:
        across, up, through = _PLANES[plane]
        top += LABEL_ROOM
        for column, at in enumerate(_positions(low[through], high[through], n_columns)):
            left = column * (cell + 2) + (cell - size[across]) // 2
            where = _slice_coordinates(first, last, size, (across, up, through), at)
            middle = (first + last) / 2
            middle[through] = at
            position = float((ras_affine @ np.append(middle, 1.0))[through])
            tiles.append(Tile(plane, position, int(left), top, int(size[across]), int(size[up])))
            coordinates.append(where)
        top += int(size[up]) + 2
    picture = (top - 2, int(n_columns * (cell + 2) - 2))
    return Layout(picture, tuple(tiles), tuple(coordinates), orientation, ras_affine)


def _bounds(filled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = [], []
    for axis in range(3):
        used = np.flatnonzero(filled.any(axis=tuple(a for a in range(3) if a != axis)))
        low.append(used[0])
        high.append(used[-1])
    return np.array(low, float), np.array(high, float)


def _positions(low: float, high: float, n: int) -> np.ndarray:
    """Slices inside the head: the outermost eighth on each side shows little brain."""
    inner = (high - low) / 8
    return np.round(np.linspace(low + inner, high - inner, n))


def _slice_coordinates(
    first: np.ndarray, last: np.ndarray, size: np.ndarray, axes: tuple[int, int, int], at: float
) -> np.ndarray:
    across, up, through = axes
    horizontal = np.linspace(first[across], last[across], size[across])
    # the first row of a picture is its top: superior, or anterior
    vertical = np.linspace(last[up], first[up], size[up])
    where = np.empty((3, size[up], size[across]))
    where[across], where[up], where[through] = horizontal[None, :], vertical[:, None], at
    return where


def draw_grey(
    axes: Axes,
    cut: Layout,
    volume: np.ndarray,
    mask: np.ndarray | None = None,
    gid: str | None = None,
) -> None:
    """Draw the slices of a volume in grey, scaled by its values inside a mask.

    Parameters
    ----------
    axes
        The axes.
    cut
        The slices.
    volume
        (X, Y, Z) image.
    mask
        (X, Y, Z) voxels that determine the grey scale; all if None or empty.
    gid
        Id of the image in the SVG.
    """
    volume = np.nan_to_num(np.asarray(volume, dtype=np.float32))
    inside = volume[np.asarray(mask) > 0] if mask is not None and np.any(mask) else volume
    inside = inside[inside > 0]
    low, high = np.percentile(inside, (1, 99)) if inside.size else (0.0, 1.0)
    picture = np.nan_to_num(cut.cut(volume))
    cmap = coarse("gray", 40)
    image = axes.imshow(
        picture, cmap=cmap, vmin=0.5 * low, vmax=max(high, low + 1e-6), interpolation="none"
    )
    image.set_gid(gid)


def label_tiles(axes: Axes, cut: Layout, colour: str = "white") -> None:
    """Write the position of each slice in mm, and left and right once.

    Parameters
    ----------
    axes
        The axes.
    cut
        The slices.
    colour
        Of the words.
    """
    for tile in cut.tiles:
        text: dict[str, Any] = {"color": colour, "fontsize": 7, "va": "bottom"}
        axes.text(tile.left, tile.top - 1, f"{tile.plane} = {tile.position:.0f} mm", **text)
    first = next((tile for tile in cut.tiles if tile.plane in "zy"), None)
    if first is None:
        return
    sides: dict[str, Any] = {"color": colour, "fontsize": 8, "va": "bottom", "weight": "bold"}
    bottom = first.top + first.height - 1
    axes.text(first.left + 1, bottom, "L", ha="left", **sides)
    axes.text(first.left + first.width - 1, bottom, "R", ha="right", **sides)


def picture_axes(figure: Figure | SubFigure, cut: Layout) -> Axes:
    """Make black axes without ticks for a picture of slices.

    Parameters
    ----------
    figure
        Where to put them.
    cut
        The slices.

    Returns
    -------
    Axes
        A pixel of the picture is a unit of theirs.
    """
    axes: Axes = figure.subplots()
    axes.set(xlim=(-0.5, cut.shape[1] - 0.5), ylim=(cut.shape[0] - 0.5, -0.5), aspect="equal")
    axes.set(xticks=[], yticks=[], facecolor="black")
    c.without_frame(axes)
    return axes


def foreground(image: np.ndarray) -> np.ndarray:
    """Find where an image is not background.

    Parameters
    ----------
    image
        (X, Y, Z).

    Returns
    -------
    ndarray
        (X, Y, Z) True above a quarter of the 98th percentile.
    """
    image = np.nan_to_num(np.asarray(image, dtype=np.float32))
    return np.asarray(image > 0.25 * np.percentile(image, 98))


def draw_contours(axes: Axes, cut: Layout, contours: Mapping[str, np.ndarray]) -> None:
    """Outline masks on a picture of slices.

    Parameters
    ----------
    axes
        The axes.
    cut
        The slices.
    contours
        Masks (X, Y, Z) by name.
    """
    for mask, colour in zip(contours.values(), CONTOUR_COLOURS):
        picture = np.nan_to_num(cut.cut(np.asarray(mask, dtype=np.float32)))
        if picture.max() > 0.5 > picture.min():
            axes.contour(picture, levels=[0.5], colors=[colour], linewidths=0.9)


def contour_legend(axes: Axes, contours: Mapping[str, np.ndarray]) -> None:
    """Name the outlines of `draw_contours` below a picture.

    Parameters
    ----------
    axes
        The axes.
    contours
        As they were drawn.
    """
    handles = [
        Line2D([], [], color=colour, lw=1.6, label=name)
        for name, colour in zip(contours, CONTOUR_COLOURS)
    ]
    if handles:
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncol=4)
