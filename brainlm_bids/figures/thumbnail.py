"""A small picture of a registration: a slice in each direction, with the outline of a brain.

It is a PNG with few grey levels, of some kilobytes, so that a page can show thousands of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageColor
from scipy import ndimage

from brainlm_bids import files
from brainlm_bids.figures.mosaic import CONTOUR_COLOURS, layout

# Height of the picture in pixels, twice that at which pages show it
HEIGHT = 112
# With the outline 16 colours, four bits a pixel
_GREYS = 15
# Of the three slices in each direction that the layout chooses, the one in the middle
_MIDDLE = (1, 4, 7)


def plot_thumbnail(
    path: Path, image: np.ndarray, affine: np.ndarray, brain: np.ndarray | None = None
) -> None:
    """Draw one axial, one coronal and one sagittal slice of an image, with the outline of a brain.

    Parameters
    ----------
    path
        PNG file to write.
    image, affine
        The image (X, Y, Z) and its affine in RAS+ mm.
    brain
        Mask (X, Y, Z) of what it was registered to; voxels above 0 are inside.
    """
    cut = layout(np.shape(image), affine, brain, n_columns=3)
    picture = np.nan_to_num(cut.cut(image))
    outline = np.zeros(picture.shape, bool)
    if brain is not None:
        inside = np.nan_to_num(cut.cut(np.asarray(brain, np.float32) > 0)) > 0.5
        outline = inside & ~ndimage.binary_erosion(inside)
    low, high = _window(image, brain)
    grey = np.clip((picture - low) / (high - low), 0, 1)
    index = np.where(outline, _GREYS, np.round(grey * (_GREYS - 1))).astype(np.uint8)
    tiles = [
        index[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        for tile in (cut.tiles[place] for place in _MIDDLE)
    ]
    _write(path, np.hstack([_of_height(tile) for tile in tiles]))


def _window(image: np.ndarray, brain: np.ndarray | None) -> tuple[float, float]:
    """Values that are drawn black and white."""
    values = np.nan_to_num(np.asarray(image, np.float32))
    inside = values[np.asarray(brain) > 0] if brain is not None and np.any(brain) else values
    inside = inside[inside > 0]
    low, high = np.percentile(inside, (1, 99)) if inside.size else (0.0, 1.0)
    return 0.5 * float(low), float(max(high, low + 1e-6))


def _of_height(tile: np.ndarray) -> np.ndarray:
    """A slice as high as the picture: shrunk, or centred on black."""
    if len(tile) > HEIGHT:
        width = max(1, round(tile.shape[1] * HEIGHT / len(tile)))
        # the nearest of the indices: means of grey levels and of the outline would be nonsense
        return np.asarray(Image.fromarray(tile).resize((width, HEIGHT), Image.Resampling.NEAREST))
    above = (HEIGHT - len(tile)) // 2
    return np.pad(tile, ((above, HEIGHT - len(tile) - above), (0, 0)))


def _write(path: Path, index: np.ndarray) -> None:
    picture = Image.fromarray(np.ascontiguousarray(index))
    greys = [round(255 * level / (_GREYS - 1)) for level in range(_GREYS)]
    palette = [value for grey in greys for value in (grey, grey, grey)]
    picture.putpalette([*palette, *ImageColor.getrgb(CONTOUR_COLOURS[0])])
    with files.atomically(Path(path)) as temporary:
        picture.save(temporary, "PNG", optimize=True, bits=4)
