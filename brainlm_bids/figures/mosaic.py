"""Slices of a volume laid out side by side: (X, Y, Z) arrays in, one (H, W) picture out (mm kept).

All volumes that share a grid are cut the same way, so that pictures can be laid over each other.
Left of the picture is left of the head (neurological convention).
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy.ndimage import map_coordinates

# Pixels kept free above every row of slices for their labels
LABEL_ROOM = 9
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
    """How a grid is cut: for every tile, where its pixels lie in the voxel grid."""

    shape: tuple[int, int]
    tiles: tuple[Tile, ...]
    coordinates: tuple[np.ndarray, ...]
    orientation: np.ndarray

    def cut(self, volume: np.ndarray, order: int = 1) -> np.ndarray:
        """Lay the slices of a volume (X, Y, Z) into one (H, W) float32 picture, NaN between."""
        volume = np.nan_to_num(np.asarray(volume, dtype=np.float32))
        ras = nib.orientations.apply_orientation(volume, self.orientation)
        picture = np.full(self.shape, np.nan, dtype=np.float32)
        for tile, where in zip(self.tiles, self.coordinates):
            cut = map_coordinates(ras, where, order=order, mode="constant", cval=0.0)
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
    max_pixels: int = 105,
    margin: float = 6.0,
) -> Layout:
    """Choose slices that span the mask and lay them out, one row per letter of `planes`.

    shape (X, Y, Z) and affine (4, 4) describe the grid; `mask` (X, Y, Z) bounds the head (all of
    the grid if None or empty); `max_pixels` is the width of the largest slice; `margin` in mm.
    """
    orientation = nib.orientations.io_orientation(affine)
    inverse = nib.orientations.inv_ornt_aff(orientation, shape[:3])
    ras_affine = affine @ inverse
    zooms = np.sqrt((ras_affine[:3, :3] ** 2).sum(axis=0))
    filled = np.ones(shape[:3], bool) if mask is None or not np.any(mask) else np.asarray(mask) > 0
    filled = nib.orientations.apply_orientation(filled, orientation)
    low, high = _bounds(filled)
    pad = np.ceil(margin / zooms)
    first = np.maximum(low - pad, 0)
    last = np.minimum(high + pad, np.array(filled.shape) - 1)
    step = max(float(zooms.min()), float(((last - first) * zooms).max()) / max_pixels)
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
    return Layout(picture, tuple(tiles), tuple(coordinates), orientation)


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
