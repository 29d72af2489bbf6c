"""What a volume's field of view holds after head motion, and what takes the place of the rest."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.preproc.affine import apply, in_voxels

Volume = NDArray[np.float32]


def volumes_in_view(
    matrices: NDArray[Any], affine: NDArray[Any], shape: tuple[int, int, int]
) -> NDArray[np.int32]:
    """Count the volumes that have each voxel of the reference in their field of view.

    Parameters
    ----------
    matrices
        (T, 4, 4) pull matrices.
    affine
        (4, 4) voxel to RAS+ mm.
    shape
        (X, Y, Z) of a volume.

    Returns
    -------
    ndarray
        (X, Y, Z) counts, 0 to T. A voxel's centre is in view up to the outer faces of the
        outermost voxels, not only up to their centres.

    Examples
    --------
    >>> volumes_in_view(np.tile(np.eye(4), (3, 1, 1)), np.eye(4), (1, 1, 2))
    array([[[3, 3]]], dtype=int32)
    """
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    last = np.array(shape) - 1
    count = np.zeros(shape, dtype=np.int32)
    for pull in in_voxels(matrices, affine):
        seen = np.ones(shape, dtype=bool)
        for axis, size in enumerate(shape):
            a, b, c, offset = pull[axis]
            ends = np.outer([0, 1], pull[axis, :3] * last)
            if ends.min(axis=0).sum() + offset >= -0.5 and (
                ends.max(axis=0).sum() + offset <= size - 0.5
            ):
                continue
            position = (a * i + offset) + b * j + c * k
            seen &= (position >= -0.5) & (position <= size - 0.5)
        count += seen
    return count


def fill_unseen(
    realigned: Volume,
    matrices: NDArray[Any],
    affine: NDArray[Any],
    mask: NDArray[Any],
    good: NDArray[np.bool_] | None = None,
) -> float:
    """Replace, in place, values outside the field of view by interpolation in time.

    When the head has moved, some voxels of the reference lie outside the field of view of a volume,
    where `resample` continues the image by reflection. These values are interpolated linearly
    between the nearest volumes that have the voxel in view (at the ends of the run: copied from the
    nearest one).

    Parameters
    ----------
    realigned
        (X, Y, Z, T) float32, of `resample`; changed in place.
    matrices
        (T, 4, 4) pull matrices.
    affine
        (4, 4) voxel to RAS+ mm.
    mask
        (X, Y, Z) the voxels to fill, each in view at least once.
    good
        (T,) False for bad volumes, which nothing is taken from; None: all are good.

    Returns
    -------
    float
        The share of the values in the mask, of good volumes, that were replaced.
    """
    shape = mask.shape
    partly = mask & (volumes_in_view(matrices, affine, shape) < len(matrices))
    voxels = np.argwhere(partly)
    if not len(voxels):
        return 0.0
    seen = np.empty((len(matrices), len(voxels)), dtype=bool)
    upper = np.array(shape) - 0.5
    for t, pull in enumerate(in_voxels(matrices, affine)):
        position = apply(pull, voxels)
        seen[t] = ((position >= -0.5) & (position <= upper)).all(axis=1)
    times = np.arange(len(matrices))
    n_unseen, n_volumes = (~seen).sum(), len(matrices)
    if good is not None:
        n_unseen, n_volumes = (~seen[good]).sum(), good.sum()
        seen[~good] = False
        voxels, seen = voxels[seen.any(axis=0)], seen[:, seen.any(axis=0)]
    for voxel, known in zip(voxels, seen.T):
        series = realigned[tuple(voxel)]
        series[~known] = np.interp(times[~known], times[known], series[known])
    return float(n_unseen / (mask.sum() * n_volumes))
