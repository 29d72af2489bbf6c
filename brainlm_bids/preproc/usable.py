"""Voxels of a run (X, Y, Z, T) whose values are numbers; those of others are put aside."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.errors import UserError

Mask = NDArray[np.bool_]

# Share of the voxels with numbers below which a volume is lost as a whole, and its voxels are not.
LOST_VOLUME = 0.5


def check_varies(bold: NDArray[Any]) -> None:
    """Raise UserError for a run without an image, or with the same one in all volumes.

    Parameters
    ----------
    bold
        (X, Y, Z, T).
    """
    first = np.nan_to_num(bold[..., 0])
    others = (np.nan_to_num(bold[..., t]) for t in range(1, bold.shape[3]))
    if any(not np.array_equal(first, other) for other in others):
        return
    if first.size and first.min() < first.max():
        raise UserError("all its volumes are the same image")
    raise UserError("all its values are the same; there is no image in it")


def unusable_voxels(bold: NDArray[Any], good: Mask | None = None) -> Mask:
    """Find the voxels without a finite value in some volume.

    Parameters
    ----------
    bold
        (X, Y, Z, T). Volumes in which most voxels have no finite value do not count: there the
        volume is lost, not the voxels.
    good
        (T,) False for bad volumes, which do not count either; None: all are good.

    Returns
    -------
    ndarray
        (X, Y, Z).

    Examples
    --------
    >>> unusable_voxels(np.array([[[[1.0, np.nan], [2.0, 3.0]]]]))
    array([[[ True, False]]])
    """
    unusable = np.zeros(bold.shape[:3], dtype=bool)
    ever = np.zeros(bold.shape[:3], dtype=bool)
    odd = []
    for t in range(bold.shape[3]) if good is None else np.flatnonzero(good):
        finite = np.isfinite(bold[..., t])
        if finite.all():
            ever[:] = True
            continue
        ever |= finite
        odd.append(t)
    for t in odd:
        finite = np.isfinite(bold[..., t])
        if finite.sum() >= LOST_VOLUME * ever.sum():
            unusable |= ~finite
    return np.asarray(unusable | ~ever)


def finite_mean(bold: NDArray[Any]) -> NDArray[np.float32]:
    """Mean (X, Y, Z) over the finite values of each voxel of a run; 0 without any.

    >>> finite_mean(np.array([[[[1.0, np.nan], [2.0, 4.0]]]]))
    array([[[1., 3.]]], dtype=float32)
    """
    total, count = np.zeros(bold.shape[:3]), np.zeros(bold.shape[:3])
    for t in range(bold.shape[3]):
        finite = np.isfinite(bold[..., t])
        total += np.where(finite, bold[..., t], 0)
        count += finite
    return np.asarray(total / np.maximum(count, 1), dtype=np.float32)


def fill_from_neighbours(bold: NDArray[Any], voxels: Mask, unusable: Mask) -> None:
    """Give voxels the series of the nearest one that is usable, in place.

    Parameters
    ----------
    bold
        (X, Y, Z, T); changed.
    voxels
        (X, Y, Z) to fill.
    unusable
        (X, Y, Z) that may not serve, see `unusable_voxels`.
    """
    nearest = ndimage.distance_transform_edt(unusable, return_distances=False, return_indices=True)
    bold[voxels] = bold[tuple(nearest[:, voxels])]
