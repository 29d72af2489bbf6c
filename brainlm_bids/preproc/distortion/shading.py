"""The shading of the coils, removed quickly: good enough for masks and for registration."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.preproc.affine import Matrix, voxel_sizes

# Standard deviation of the surroundings that an image is compared with.
SURROUNDINGS_MM = 25.0


def without_shading(
    image: NDArray[Any], affine: Matrix, brain: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Divide an image by the mean of the brain around each voxel.

    Parameters
    ----------
    image
        (X, Y, Z).
    affine
        (4, 4) voxel to RAS+ mm.
    brain
        (X, Y, Z), roughly.

    Returns
    -------
    ndarray
        (X, Y, Z) float32, about 1 in the brain; far from it, as at its rim.

    Examples
    --------
    >>> ramp = np.broadcast_to(np.linspace(1, 3, 60), (30, 30, 60))
    >>> flat = without_shading(ramp, np.diag([3.0, 3, 3, 1]), np.ones(ramp.shape, bool))
    >>> bool(flat.max() / flat.min() < 1.5)
    True
    """
    image = np.asarray(image, dtype=np.float32)
    width = SURROUNDINGS_MM / voxel_sizes(affine)
    inside = np.asarray(brain, dtype=np.float32)
    weight = ndimage.gaussian_filter(inside, width, mode="constant")
    mean = ndimage.gaussian_filter(image * inside, width, mode="constant")
    known = weight > 0.02
    if not known.any():
        return image
    level = np.divide(mean, weight, out=np.zeros_like(mean), where=known)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    level = level[tuple(nearest)]
    return np.asarray(np.divide(image, level, out=np.zeros_like(image), where=level > 0))
