"""Brain masks and bias fields of images (X, Y, Z) with RAS+ affines."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.affine import voxel_sizes, voxel_volume
from brainlm_bids.preproc.registration.bias import log_field

LOGGER = logging.getLogger(__name__)

# Bounds of a brain's volume, ml: newborns from 250 (Knickmeyer et al. 2008, J. Neurosci. 28:12176),
# adults 950-1700 (Allen et al. 2002), with room for CSF and for masks that keep the meninges.
BRAIN_ML = (250.0, 2200.0)
# A small head in empty air has a brain's volume, too. Its bone is dark: more than this share of it
# is darker than that share of the bright tissue. Brains without their skulls may have as much dark
# fluid; then the network decides: its brain fills a share of a head between these bounds.
DARK_SHARE, DARK_LEVEL = 0.03, 0.15
BRAIN_OF_HEAD = (0.3, 0.75)
# A slab of a few slices still has this much brain.
MIN_BRAIN_ML = 100.0
# Median inside over median outside; a BOLD reference has 10 or more, smooth noise below 2.
MIN_CONTRAST = 2.0
# Of all voxels of a T1w image at least as many show air, or the zeros around a stripped brain.
OFFSET_PERCENTILE = 1.0
# A stripped brain in a tight box touches its six faces with 2600 mm², a neck with over 8000.
MAX_TOUCH_MM2 = 5000.0


def bias_correct(
    data: NDArray[Any], affine: NDArray[np.float64], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Remove the bias field of an image, by N4.

    Parameters
    ----------
    data
        (X, Y, Z); values that are not finite count as 0.
    affine
        (4, 4) voxel to RAS+ mm.
    mask
        (X, Y, Z) where the field is estimated, on a grid of 4 to 8 mm; by default voxels above the
        mean.

    Returns
    -------
    ndarray
        (X, Y, Z) float32.

    References
    ----------
    Tustison NJ, Avants BB, Cook PA, et al. (2010). N4ITK: improved N3 bias correction. IEEE Trans.
    Med. Imaging 29:1310.
    """
    data = np.nan_to_num(np.asarray(data, dtype=np.float32))
    where = data > data.mean() if mask is None else mask
    step = int(np.clip(np.ceil(5.0 / voxel_sizes(affine).min()), 2, 4))
    field = np.exp(log_field(data, where, step))
    return np.asarray(data / np.maximum(field, 1e-3), dtype=np.float32)


def without_offset(data: NDArray[Any]) -> NDArray[np.float32]:
    """Remove what all voxels have in common, so that air is dark.

    Parameters
    ----------
    data
        (X, Y, Z); values that are not finite become 0.

    Returns
    -------
    ndarray
        (X, Y, Z) float32, not negative: less the first percentile. Images that differ by a constant
        become the same.

    Examples
    --------
    >>> without_offset(np.array([[[1000.0, 1000.0, 1500.0]]]))
    array([[[  0.,   0., 500.]]], dtype=float32)
    """
    data = np.asarray(data, dtype=np.float32)
    finite = np.isfinite(data)
    if not finite.any():
        return data
    lowest = np.percentile(data[finite], OFFSET_PERCENTILE)
    return np.where(finite, np.maximum(data - lowest, 0), 0).astype(np.float32)


def brain_mask_t1w(
    data: NDArray[Any], affine: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], str]:
    """Find the brain of a T1w image.

    Parameters
    ----------
    data
        (X, Y, Z), with or without the skull.
    affine
        (4, 4) voxel to RAS+ mm.

    Returns
    -------
    mask
        (X, Y, Z) bool.
    method
        "skull-stripped" if the image was already, "deepbet" for the network, "threshold" if that
        failed.

    Raises
    ------
    UserError
        If there is no brain in the image.

    References
    ----------
    Fisch L, Zumdick S, Barkhau C, et al. (2024). deepbet: fast brain extraction of T1-weighted MRI
    using convolutional neural networks. Comput. Biol. Med. 179:108845.
    """
    data = finite(data)
    stripped = _stripped_brain(data, affine)
    if stripped is not None and not _may_hold_bone(data, stripped):
        return stripped, "skull-stripped"
    try:
        mask = _deepbet(data, affine)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        LOGGER.warning("deepbet failed (%s); the brain is found by a threshold", error)
        return brain_mask_epi(data, affine), "threshold"
    if stripped is not None:
        low, high = BRAIN_OF_HEAD
        if not low < mask.sum() / stripped.sum() < high:
            return stripped, "skull-stripped"
    if _millilitres(mask, affine) >= MIN_BRAIN_ML:
        return mask, "deepbet"
    LOGGER.warning("deepbet found no brain; trying a threshold")
    return brain_mask_epi(data, affine), "threshold"


def finite(data: NDArray[Any]) -> NDArray[np.float32]:
    """Return an image as float32 with zeros in place of values that are not finite.

    Parameters
    ----------
    data
        (X, Y, Z).

    Returns
    -------
    ndarray
        (X, Y, Z) float32.

    Raises
    ------
    UserError
        If no value is finite, or all values are the same: there is no brain in such an image.

    Examples
    --------
    >>> finite(np.array([[[np.nan, 2.0]]]))
    array([[[0., 2.]]], dtype=float32)
    """
    data = np.asarray(data, dtype=np.float32)
    finite = np.isfinite(data)
    if not finite.any():
        raise UserError("no brain found in the image: it has no finite values")
    data = np.where(finite, data, np.float32(0))
    if data.min() == data.max():
        raise UserError("no brain found in the image: all its values are the same")
    return data


def _millilitres(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    return float(mask.sum() * voxel_volume(affine) / 1000)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, number = ndimage.label(mask)
    if number == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _stripped_brain(
    data: NDArray[np.float32], affine: NDArray[np.float64]
) -> NDArray[np.bool_] | None:
    """The brain of an image whose other voxels are exactly 0; None if it is not such an image."""
    nonzero = data != 0
    if nonzero.mean() > 0.6:
        return None
    brain = ndimage.binary_fill_holes(_largest(nonzero))
    if not BRAIN_ML[0] <= _millilitres(brain, affine) <= BRAIN_ML[1]:
        return None
    # speckle around a head, or a head that is cut at its neck, is no stripped brain
    if (nonzero & ~brain).sum() > 0.05 * brain.sum():
        return None
    if touch_mm2(brain, affine) > MAX_TOUCH_MM2:
        return None
    return np.asarray(brain)


def _may_hold_bone(data: NDArray[np.float32], whole: NDArray[np.bool_]) -> bool:
    """Whether so much of what an image shows is dark that it may be a head."""
    values = data[whole]
    return bool((values < DARK_LEVEL * np.percentile(values, 90)).mean() > DARK_SHARE)


def touch_mm2(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    """Area of a mask on the six faces of its volume.

    Parameters
    ----------
    mask
        (X, Y, Z).
    affine
        (4, 4) voxel to RAS+ mm.

    Returns
    -------
    float
        mm².

    Examples
    --------
    >>> touch_mm2(np.ones((2, 2, 2), dtype=bool), np.eye(4))
    24.0
    """
    spacing = voxel_sizes(affine)
    faces = [spacing.prod() / spacing[axis] * mask.take([0, -1], axis).sum() for axis in range(3)]
    return float(sum(faces))


def _deepbet(data: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    import nibabel.orientations
    from deepbet import BrainExtraction

    orientations: Any = nibabel.orientations  # it has no types
    # the network was trained on RAS+ arrays
    axes = orientations.io_orientation(affine)
    ras = np.array([[0, 1], [1, 1], [2, 1]])
    turned = orientations.apply_orientation(data, axes)
    extraction = BrainExtraction(no_gpu=True)
    probability = extraction.run_model(np.array(turned, dtype=np.float32))
    mask = extraction.postprocess(probability > 0.5)
    back = orientations.ornt_transform(ras, axes)
    return np.asarray(orientations.apply_orientation(mask, back), dtype=np.bool_)


def brain_mask_epi(data: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Find the brain of a BOLD reference by a threshold, as ANTs' getMask does.

    The mask holds the voxels above the mean, opened with a ball of two voxels: the largest
    component, without holes.

    Parameters
    ----------
    data
        (X, Y, Z).
    affine
        (4, 4) voxel to RAS+ mm.

    Returns
    -------
    ndarray
        (X, Y, Z) bool.

    Raises
    ------
    UserError
        If the image is empty or constant, or the bright region is small or hardly differs from the
        rest.
    """
    data = finite(data)
    bright = data > data.mean()
    mask = np.zeros_like(bright)
    for radius in (2, 1):
        mask = _open(bright, radius)
        if _millilitres(mask, affine) >= MIN_BRAIN_ML:
            break
    volume = _millilitres(mask, affine)
    if volume < MIN_BRAIN_ML:
        raise UserError(
            f"no brain found in the image: the largest bright region has {volume:.0f} ml, "
            f"less than {MIN_BRAIN_ML:.0f} ml"
        )
    inside, outside = np.median(data[mask]), np.median(data[~mask]) if not mask.all() else 0.0
    if inside < MIN_CONTRAST * outside:
        raise UserError(
            f"no brain found in the image: its bright region (median {inside:.4g}) hardly differs "
            f"from the rest ({outside:.4g})"
        )
    return np.asarray(mask)


def brain_mask_flat(
    flat: NDArray[Any], affine: NDArray[np.float64], before: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Find the brain of an image whose shading was removed.

    Parameters
    ----------
    flat
        (X, Y, Z) without the shading of the coils.
    affine
        (4, 4) voxel to RAS+ mm.
    before
        (X, Y, Z) the brain that was found with the shading.

    Returns
    -------
    ndarray
        (X, Y, Z); that of before where none is found, as in an odd field of view.
    """
    try:
        return brain_mask_epi(flat, affine)
    except UserError:
        return before


def _open(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Opening with a ball (voxels), largest component, holes filled."""
    grid = np.indices((2 * radius + 1,) * 3) - radius
    ball = (grid**2).sum(axis=0) <= radius**2
    # beyond the volume counts as brain, lest a narrow field of view lose its outer slices
    eroded = _largest(ndimage.binary_erosion(mask, ball, border_value=1))
    opened = ndimage.binary_dilation(eroded, ball) & mask
    return closed(_largest(opened), radius)


def closed(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Close a mask with a ball and fill its holes.

    Parameters
    ----------
    mask
        (X, Y, Z).
    radius
        Radius of the ball, in voxels.

    Returns
    -------
    ndarray
        (X, Y, Z) bool.
    """
    if not mask.any():
        return mask
    padded = np.pad(mask, radius + 1)
    # distances are as quick for a large ball as for a small one
    grown = ndimage.distance_transform_edt(~padded) <= radius
    closed = ndimage.distance_transform_edt(grown) > radius
    inner = (slice(radius + 1, -radius - 1),) * 3
    return np.asarray(ndimage.binary_fill_holes((closed | padded)[inner]))
