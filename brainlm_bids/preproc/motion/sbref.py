"""Single-band reference: a run's own reference is placed on it, and it is refused if it is unlike.

A single-band image (X, Y, Z) of the head before the run has another contrast than the volumes: its
spins are fully magnetised, so that fluid is several times as bright. Least squares between the two
is off by half a millimetre. So volumes are aligned with the median of the run, which is their like,
and that median once with the single-band image: by mutual information, and then by least squares
of what is left where brightness nearby is removed from both.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.image_headers import largest_distance
from brainlm_bids.preproc.affine import Matrix, apply, voxel_sizes
from brainlm_bids.preproc.motion.realign import realign
from brainlm_bids.preproc.motion.splines import resample
from brainlm_bids.preproc.registration.ants import register_rigid
from brainlm_bids.preproc.registration.brain import brain_mask_epi, finite
from brainlm_bids.preproc.registration.quality import dice

Mask = NDArray[np.bool_]
Volume = NDArray[np.float32]

# Between a single-band image and the run that follows, a head moves by a few millimetres.
LARGEST_DISTANCE_MM = 15.0
# Simulated single-band images have .92; those of another person .58, mirrored ones .66.
LEAST_LIKENESS = 0.7
LEAST_OVERLAP = 0.9
# Brightness is removed within these distances (standard deviations of Gaussians), where the two are
# aligned and where they are compared.
ALIGNED_MM, COMPARED_MM = 4.0, 12.0
# Of an image's brightest voxels: logarithms are taken from there on.
DARKEST = 0.05
# What least squares takes the mean of the contrast for; its factor then fits an offset.
LEVEL = 10.0
# Headers of one session differ by rounding only.
SAME_PLACE_MM = 0.5


class SingleBand(NamedTuple):
    """A single-band image.

    Attributes
    ----------
    image
        (X, Y, Z); values that are not finite count as 0.
    affine
        (4, 4) voxel to RAS+ mm.
    seed
        Of the registration to it.
    """

    image: NDArray[Any]
    affine: Matrix
    seed: int = 0


class Placement(NamedTuple):
    """A single-band image, and where a run's own reference lies in it.

    Attributes
    ----------
    image
        (X, Y, Z) float32, in the brightness of the run.
    matrix
        (4, 4) pull, world of the image to that of the run's own reference, RAS+ mm.
    brain
        (X, Y, Z), in the image.
    distance
        By which its brain moves on the way to the run's own reference, mm, on average.
    likeness
        Correlation of the two within the brain, each less its mean and over its scale nearby.
    """

    image: Volume
    matrix: Matrix
    brain: Mask
    distance: float
    likeness: float


def place(sbref: SingleBand, reference: Volume, affine: Matrix, brain: Mask) -> Placement:
    """Register a run's own reference rigidly to its single-band image.

    Parameters
    ----------
    sbref
        The single-band image.
    reference
        (X, Y, Z) of the run, see `realign.reference_volume`.
    affine
        (4, 4) of the run.
    brain
        (X, Y, Z), in the reference.

    Returns
    -------
    Placement
        The image as the reference of the run.

    Raises
    ------
    UserError
        Why the image does not fit the run, in a few words.
    """
    shape = sbref.image.shape
    if shape != reference.shape:
        raise UserError(f"is an image of {shape}, and the run has volumes {reference.shape}")
    apart = largest_distance(sbref.affine, affine, shape)
    if apart > SAME_PLACE_MM:
        raise UserError(f"lies up to {apart:.3g} mm from where the run lies")
    image = finite(sbref.image)
    own = brain_mask_epi(image, affine)
    masks = {"fixed_mask": own, "moving_mask": brain}
    matrix = register_rigid(image, affine, reference, affine, **masks, seed=sbref.seed, quick=True)
    matrix = _refined(matrix, image, reference, affine)
    points = apply(affine, np.argwhere(own))
    distance = float(np.linalg.norm(apply(matrix, points) - points, axis=1).mean())
    both = np.stack([reference, brain.astype(np.float32)], axis=3)
    there = resample(both, affine, np.stack([matrix, matrix]))
    likeness = _likeness(image, there[..., 0], own, affine)
    overlap = dice(own, there[..., 1] > 0.5)
    if distance > LARGEST_DISTANCE_MM:
        raise UserError(
            f"shows the head {distance:.1f} mm from where it lies in the run; up to "
            f"{LARGEST_DISTANCE_MM:g} mm are plausible"
        )
    if likeness < LEAST_LIKENESS or overlap < LEAST_OVERLAP:
        raise UserError(
            f"is too little like the run (likeness {likeness:.2f}, overlap of the brains "
            f"{overlap:.2f}; at least {LEAST_LIKENESS:g} and {LEAST_OVERLAP:g} are expected)"
        )
    factor = np.float32(np.median(reference[brain]) / np.median(image[own]))
    return Placement(image * factor, matrix, own, distance, likeness)


def place_if_it_fits(
    sbref: SingleBand | None, reference: Volume, affine: Matrix, brain: Mask
) -> tuple[Placement | None, str]:
    """The single-band image as the reference of a run, or the reason why it cannot be.

    Parameters
    ----------
    sbref
        None: there is none.
    reference, affine, brain
        See `place`.

    Returns
    -------
    placement
        None if there is none, or it does not fit.
    reason
        Why it does not fit, in a few words; empty otherwise.
    """
    if sbref is None:
        return None, ""
    try:
        return place(sbref, reference, affine, brain), ""
    except UserError as error:
        return None, str(error)


def _refined(matrix: Matrix, image: Volume, reference: Volume, affine: Matrix) -> Matrix:
    """The pull after Gauss–Newton between the edges of the two images, however bright they are."""
    there = resample(reference[..., np.newaxis], affine, matrix[np.newaxis])[..., 0]
    sigma = ALIGNED_MM / voxel_sizes(affine)
    fixed, moving = (LEVEL + _local(_logarithm(one), sigma) for one in (image, there))
    return np.asarray(matrix @ realign(moving[..., np.newaxis], affine, fixed)[0])


def _logarithm(image: Volume) -> Volume:
    return np.asarray(np.log(np.maximum(image, DARKEST * np.percentile(image, 98))))


def _likeness(first: Volume, second: Volume, brain: Mask, affine: Matrix) -> float:
    """Correlation within the brain of two images whose contrasts may differ from place to place."""
    sigma = COMPARED_MM / voxel_sizes(affine)
    return float(np.corrcoef(_local(first, sigma)[brain], _local(second, sigma)[brain])[0, 1])


def _local(image: Volume, sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """An image less its mean nearby, over its standard deviation nearby."""
    values = image.astype(np.float64)
    mean = ndimage.gaussian_filter(values, sigma)
    variance = ndimage.gaussian_filter(values**2, sigma) - mean**2
    least = 1e-3 * np.percentile(variance, 98)
    return np.asarray((values - mean) / np.sqrt(np.maximum(variance, max(least, 1e-30))))
