"""Read images as arrays (X, Y, Z) and affines (4, 4) to RAS+ mm; the grids and spaces in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids.errors import UserError
from brainlm_bids.files import reading
from brainlm_bids.image_files import check_image, open_image
from brainlm_bids.image_headers import check_stored, read_grid

REAL_SPACE = "MNI152NLin6Asym"
EMBEDDED_SPACE = "MNI152NLin2009aSym"
# 2 mm grid of FSL's MNI152 template, which is that of A424: LAS, origin 90, -126, -72
MNI_2MM_SHAPE = (91, 109, 91)
MNI_2MM_AFFINE = np.array(
    [[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]], dtype=np.float64
)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Report any problem with an image in one line that names it.

    All readers of images, here, in `interfaces.images` and in `api.images`, use it.

    Parameters
    ----------
    path
        The file, or what a message calls the image.

    Raises
    ------
    UserError
        If the image cannot be read, or a kernel that knows no names refuses it.
    """
    with reading(path):
        try:
            yield
        except UserError as error:
            raise type(error)(f"{path}: {error}") from error


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """Open an image, whose data are to be read inside.

    Parameters
    ----------
    path
        A file that nibabel reads.

    Yields
    ------
    nibabel image
        Its header has been read.

    Raises
    ------
    UserError
        If the image cannot be read.
    """
    # nibabel stops reading before the checksum: most flipped bits would only change the values
    check_image(Path(path), whole=True)
    with named(Path(path)):
        yield open_image(path)


def load_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image.

    Parameters
    ----------
    path
        A file that nibabel reads.

    Returns
    -------
    data
        float32, of the image's shape without axes of length 1 beyond the third.
    affine
        (4, 4) float64, voxel to RAS+ mm.

    Raises
    ------
    UserError
        If the file cannot be read, or its header is not understood.
    """
    with opened(path) as image:
        check_stored(image)
        shape, affine = read_grid(image)
        return np.asarray(image.dataobj, dtype=np.float32).reshape(shape), affine


def read_only(array: np.ndarray) -> np.ndarray:
    """Make an array read-only, in place.

    Parameters
    ----------
    array
        The array.

    Returns
    -------
    ndarray
        The same array.
    """
    # cached arrays are shared by all callers of a process
    array.flags.writeable = False
    return array
