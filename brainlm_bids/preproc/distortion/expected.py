"""What an echo-planar image would look like without distortion, as far as a T1w image tells.

The signal of a run is averaged over places of equal T1w intensity and equal distance to the brain's
edge, where nothing is distorted, and shown at such places everywhere.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.preproc.affine import Matrix, invert, subgrid, voxel_sizes
from brainlm_bids.preproc.registration.transforms import resample_to

Mask = NDArray[np.bool_]

# sd, in voxels of the run, by which the T1w image is smoothed before it is sampled there.
BLUR = 0.35
N_INTENSITIES = 12
# Classes of distance to the brain's edge, mm, negative inside.
DISTANCES_MM = (-8.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 9.0, 12.0)
# sd, in classes, over which the means are smoothed.
CLASSES = 0.7
# What lies farther outside of the brain does not teach.
FARTHEST_MM = 15.0
# Half of what a T1w image has is enough for distances.
STEP = 2


@dataclass(frozen=True)
class Expected:
    """An image of the head in the place of a run.

    Attributes
    ----------
    image
        (X, Y, Z) float32, intensities of the run.
    distance
        (X, Y, Z) float32, mm to the edge of the T1w's brain, negative inside.
    """

    image: NDArray[np.float32]
    distance: NDArray[np.float32]


def expected_image(
    boldref: NDArray[Any],
    affine: Matrix,
    t1w: NDArray[Any],
    t1w_affine: Matrix,
    t1w_mask: Mask,
    matrix: Matrix,
    undistorted: Mask,
) -> Expected:
    """What a run would look like without distortion.

    Parameters
    ----------
    boldref
        (X, Y, Z) of the run, without the shading of the coils.
    affine, t1w_affine
        (4, 4), voxel to RAS+ mm.
    t1w, t1w_mask
        (X, Y, Z) without bias field, and its brain.
    matrix
        (4, 4) points of the T1w image to those of the run, RAS+ mm.
    undistorted
        (X, Y, Z) of the run: where the T1w image and the run show the same.

    Returns
    -------
    Expected
        On the grid of the run.
    """
    grid = boldref.shape, affine, invert(matrix)
    spacing = voxel_sizes(t1w_affine)
    smooth = ndimage.gaussian_filter(
        np.asarray(t1w, dtype=np.float32), BLUR * voxel_sizes(affine).min() / spacing
    )
    shown = resample_to(smooth, t1w_affine, *grid)
    coarse = np.asarray(t1w_mask[::STEP, ::STEP, ::STEP])
    away = _signed_distance(coarse, STEP * spacing)
    # beyond the T1w image's own grid everything is far from the brain
    beyond = float(away.max())
    distance = resample_to(away - beyond, subgrid(t1w_affine, step=STEP), *grid) + beyond
    image = np.asarray(boldref, dtype=np.float32)
    classes = _classes(shown, distance)
    teaches = undistorted & (distance < FARTHEST_MM)
    means = _means(image[teaches], classes[teaches])
    return Expected(means[classes], distance)


def _signed_distance(mask: Mask, spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    return np.asarray(outside - inside, dtype=np.float32)


def _classes(shown: NDArray[np.float32], distance: NDArray[np.float32]) -> NDArray[np.int64]:
    """(X, Y, Z) the class of each voxel: quantile of the T1w's brain, and distance to its edge."""
    brain = shown[distance < 0]
    shares = np.linspace(0, 1, N_INTENSITIES + 1)[1:-1]
    intensity = np.searchsorted(np.quantile(brain, shares), shown) if brain.size else 0
    depth = np.searchsorted(DISTANCES_MM, distance)
    return np.asarray(intensity * (len(DISTANCES_MM) + 1) + depth, dtype=np.int64)


def _means(values: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean of each class; a class that is rare has its neighbours' mean."""
    shape = N_INTENSITIES, len(DISTANCES_MM) + 1
    n_classes = int(np.prod(shape))

    def smoothed(weights: NDArray[Any] | None) -> NDArray[np.float64]:
        table = np.bincount(classes, weights, n_classes).reshape(shape).astype(np.float64)
        return np.asarray(ndimage.gaussian_filter(table, CLASSES))

    sums, counts = smoothed(values), smoothed(None)
    return np.asarray(sums / np.maximum(counts, 1e-6), dtype=np.float32).ravel()
