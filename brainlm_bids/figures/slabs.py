"""Axial slices of a map that show the strongest value of the slab around each."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np

from brainlm_bids.figures.mosaic import Layout, layout

N_SLICES = 7


@dataclass(frozen=True)
class Slabs:
    """Slices that show the strongest value of the slab around each, so that nothing lies between.

    Attributes
    ----------
    cut
        The slices.
    pixel
        Pixel of the flat picture in which a voxel of the mask is shown, (V,).
    """

    cut: Layout
    pixel: np.ndarray

    def picture(self, values: np.ndarray) -> np.ndarray:
        """Project the values (V,) of a map: (H, W), 0 where there is none."""
        flat = np.zeros(self.cut.shape[0] * self.cut.shape[1], dtype=np.float32)
        shown = np.flatnonzero(values)
        # the last assignment stays
        shown = shown[np.argsort(np.abs(values[shown]), kind="stable")]
        flat[self.pixel[shown]] = values[shown]
        return flat.reshape(self.cut.shape)


def slabs(mask: np.ndarray, affine: np.ndarray, max_pixels: int = 52) -> Slabs:
    """Choose axial slices of a brain, and where in their picture each voxel is shown.

    Parameters
    ----------
    mask
        (X, Y, Z), with V voxels.
    affine
        (4, 4) to RAS+ mm.
    max_pixels
        Width of the largest slice.

    Returns
    -------
    Slabs
        Each voxel belongs to the nearest slice; left is left.
    """
    orientation = nib.orientations.io_orientation(affine)
    voxels = _ras_voxels(mask, orientation)
    # three quarters of a brain's slices lie within its outermost eighths
    thick = int(0.75 * np.ptp(voxels[:, 2])) + 1 if len(voxels) else 1
    cut = layout(
        mask.shape,
        affine,
        mask,
        planes="z",
        n_columns=min(N_SLICES, thick),
        max_pixels=max_pixels,
        whole_voxels=True,
    )
    heights = np.array([where[2, 0, 0] for where in cut.coordinates])
    nearest = np.abs(voxels[:, 2:] - heights).argmin(axis=1)
    pixel = np.zeros(len(voxels), dtype=np.int64)
    for number, (tile, where) in enumerate(zip(cut.tiles, cut.coordinates)):
        inside = nearest == number
        column = _position(voxels[inside, 0], where[0, 0])
        row = _position(voxels[inside, 1], where[1, :, 0])
        pixel[inside] = (tile.top + row) * cut.shape[1] + tile.left + column
    return Slabs(cut, pixel)


def _ras_voxels(mask: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Voxels (V, 3) of a mask, in the order of its values, as of the image turned to RAS+."""
    voxels = np.argwhere(mask)
    turned = np.empty_like(voxels)
    for axis, (target, flip) in enumerate(orientation):
        own = voxels[:, axis]
        turned[:, int(target)] = own if flip > 0 else mask.shape[axis] - 1 - own
    return turned


def _position(voxel: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Index of the pixel that is nearest to a voxel; places: evenly spaced."""
    span = places[-1] - places[0]
    share = (voxel - places[0]) / (span or 1.0)
    return np.rint(share * (len(places) - 1)).astype(int)
