"""Read images as arrays (X, Y, Z) and affines (4, 4) to RAS+ mm; the grids and spaces in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids.errors import UserError
from brainlm_bids.resources.cache import reason_of

REAL_SPACE = "MNI152NLin6Asym"
EMBEDDED_SPACE = "MNI152NLin2009aSym"
# 2 mm grid of FSL's MNI152 template, which is that of A424: LAS, origin 90, -126, -72
MNI_2MM_SHAPE = (91, 109, 91)
MNI_2MM_AFFINE = np.array(
    [[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]], dtype=np.float64
)


def load_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image.

    Parameters
    ----------
    path
        A file that nibabel reads.

    Returns
    -------
    data
        float32, of the image's shape.
    affine
        (4, 4) float64, voxel to RAS+ mm.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    import zlib

    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    try:
        image: Any = nib.load(path)
        return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, np.float64)
    except (OSError, EOFError, ValueError, AttributeError, zlib.error, ImageFileError) as error:
        raise UserError(f"cannot read the image {path}: {reason_of(error)}") from error


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
