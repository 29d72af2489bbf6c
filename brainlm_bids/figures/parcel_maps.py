"""Values of parcels in colour on axial slices of an anatomical image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from brainlm_bids.figures import canvas as c
from brainlm_bids.figures.mosaic import Layout, label_tiles, layout

N_SLICES = 8
# The anatomy is drawn darker than it could be, so that the colours stand out
BRIGHTEST = 175
# Of parcels without a colour, where there is no anatomical image
PLAIN = 90

# An image (X, Y, Z) and its affine (4, 4)
Image = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ParcelSlices:
    """Slices of an atlas, and of the anatomy below it.

    Attributes
    ----------
    cut
        The slices.
    parcels
        (H, W) number 1…V of the parcel in each pixel, 0 for none.
    grey
        (H, W) uint8, the anatomy.
    """

    cut: Layout
    parcels: np.ndarray
    grey: np.ndarray

    def picture(self, colours: np.ndarray) -> np.ndarray:
        """Colour the parcels.

        Parameters
        ----------
        colours
            (V, 4) red, green, blue and opacity of each parcel, 0…1; with opacity 0 the anatomy is
            shown as it is.

        Returns
        -------
        ndarray
            (H, W, 3) uint8.
        """
        of_none = np.zeros((1, 4))
        chosen = np.vstack([of_none, colours])[np.minimum(self.parcels, len(colours))]
        chosen[self.parcels > len(colours)] = 0
        opacity = chosen[..., 3:]
        mixed = 255 * opacity * chosen[..., :3] + (1 - opacity) * self.grey[..., None]
        return np.asarray(np.rint(mixed), dtype=np.uint8)

    def draw(self, axes: Axes, colours: np.ndarray) -> None:
        """Draw the picture with millimetres, left and right; see `picture`."""
        axes.set(xticks=[], yticks=[])
        c.without_frame(axes)
        axes.imshow(self.picture(colours), interpolation="none", aspect="equal")
        label_tiles(axes, self.cut)


def parcel_slices(
    atlas: np.ndarray, affine: np.ndarray, background: Image | None = None
) -> ParcelSlices:
    """Cut an atlas and the anatomy below it.

    Parameters
    ----------
    atlas, affine
        Parcel numbers 1…V in the voxels, (X, Y, Z), and the affine of the image (4, 4).
    background
        An anatomical image in the same space, on any grid, and its affine.

    Returns
    -------
    ParcelSlices
        Eight axial slices that span the atlas; left is left.
    """
    atlas = np.asarray(atlas)
    cut = layout(atlas.shape, affine, atlas > 0, planes="z", n_columns=N_SLICES)
    parcels = np.nan_to_num(cut.cut(atlas, order=0)).round().astype(int)
    if background is None:
        return ParcelSlices(cut, parcels, np.where(parcels > 0, PLAIN, 0).astype(np.uint8))
    image, grid = background
    brightest = c.finite_percentile(image[image > 0], 99)
    # few levels, since grey that varies from pixel to pixel cannot be compressed
    share = np.clip(np.nan_to_num(cut.cut(image, affine=grid)) / brightest, 0, 1)
    grey = np.rint(np.rint(31 * share) / 31 * BRIGHTEST)
    return ParcelSlices(cut, parcels, grey.astype(np.uint8))
