"""Steps of the anatomy: a T1w image in; its brain and the way to the template out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.preproc.affine import Matrix
from brainlm_bids.preproc.registration import lesion as lesions
from brainlm_bids.preproc.registration.ants import register_to_template
from brainlm_bids.preproc.registration.brain import (
    bias_correct,
    brain_mask_t1w,
    without_offset,
)
from brainlm_bids.preproc.registration.lesion import Lesion
from brainlm_bids.preproc.registration.quality import Quality, of_normalisation
from brainlm_bids.preproc.registration.transforms import ItkTransform, PointMap, resample_to

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Anatomy:
    """A T1w image and its brain.

    Attributes
    ----------
    t1w
        (X, Y, Z) float32; from `prepare_t1w` without its bias field.
    brain_mask
        (X, Y, Z).
    method
        How the brain was found: "skull-stripped", "deepbet" or "threshold".
    lesion
        (X, Y, Z), empty if its mask cannot be used; None without one.
    lesion_found
        What is known of the lesion; None without a mask.
    """

    t1w: NDArray[np.float32]
    brain_mask: Mask
    method: str
    lesion: Mask | None = None
    lesion_found: Lesion | None = None


@dataclass(frozen=True)
class Normalised:
    """The way from the template to an image.

    Attributes
    ----------
    transform
        It resamples the image into template space; as a map of points it leads from the template
        to the image.
    quality
        Dice coefficient of the normalised brain with the template's; for a BOLD reference also
        contrast and cost at the boundary of the template's white matter.
    """

    transform: ItkTransform
    quality: Quality


def prepare_t1w(
    t1w: NDArray[Any], affine: Matrix, lesion_masks: Sequence[tuple[NDArray[Any], Matrix]] = ()
) -> Anatomy:
    """Find the brain of a T1w image and remove its bias field.

    What all voxels have in common is removed before, since a bias field is a factor.

    Parameters
    ----------
    t1w
        (X, Y, Z), with or without the skull.
    affine
        (4, 4) voxel to RAS+ mm.
    lesion_masks
        Masks of lesions (X, Y, Z), each with its (4, 4), on this grid or others. The bias field is
        estimated without them.

    Returns
    -------
    Anatomy
        On the grid of `t1w`.

    Raises
    ------
    UserError
        If there is no brain in the image.
    """
    data = without_offset(t1w)
    mask, method = brain_mask_t1w(data, affine)
    if not lesion_masks:
        return Anatomy(bias_correct(data, affine, mask), mask, method)
    lesion = lesions.union_on(lesion_masks, data.shape, affine)
    found = lesions.described(lesion, mask, affine)
    if found.problem:
        lesion = np.zeros_like(lesion)
    return Anatomy(bias_correct(data, affine, mask & ~lesion), mask, method, lesion, found)


def normalise(
    image: NDArray[Any],
    affine: Matrix,
    brain_mask: Mask,
    template: NDArray[Any],
    template_affine: Matrix,
    template_mask: Mask,
    *,
    kind: Literal["T1w", "boldref"] = "T1w",
    method: Literal["fast", "syn"] = "fast",
    lesion: Mask | None = None,
    seed: int = 42,
) -> Normalised:
    """Register a T1w image, or a BOLD reference, to the template, nonlinearly.

    Parameters
    ----------
    image, template
        (X, Y, Z).
    affine, template_affine
        (4, 4) of each, voxel to RAS+ mm.
    brain_mask, template_mask
        Their brains.
    kind
        What `image` is. A T1w image is expected without its bias field.
    method
        Of a T1w image: "fast", a greedy diffeomorphism, or "syn", SyN of ANTs.
    lesion
        (X, Y, Z) of a T1w image: what is not compared with the template.
    seed
        Of the points at which images are compared.

    Returns
    -------
    Normalised
        The transform, and numbers to judge it by.

    Raises
    ------
    UserError
        If the two cannot be brought together.
    """
    if lesion is not None and not lesion.any():
        lesion = None
    transform = register_to_template(
        image,
        affine,
        template,
        template_affine,
        moving_mask=brain_mask,
        template_mask=template_mask,
        seed=seed,
        kind=kind,
        method=method,
        lesion=lesion,
    )
    moving, fixed = (image, affine, brain_mask), (template, template_affine, template_mask)
    quality = of_normalisation(*moving, *fixed, transform, kind=kind, seed=seed, lesion=lesion)
    return Normalised(transform, quality)


def resample_anatomy(
    anatomy: Anatomy, affine: Matrix, shape: tuple[int, ...], grid: Matrix, pull: PointMap
) -> Anatomy:
    """An anatomy in template space.

    Parameters
    ----------
    anatomy
        On the grid of `affine` (4, 4).
    shape, grid
        The template's grid: (X, Y, Z) and its affine (4, 4).
    pull
        Points (P, 3), RAS+ mm, of the template to those of the T1w image, see `normalise`.

    Returns
    -------
    Anatomy
        The image interpolated linearly, the mask from the nearest voxel.

    Examples
    --------
    >>> anatomy = Anatomy(np.ones((2, 2, 2), np.float32), np.ones((2, 2, 2), bool), "deepbet")
    >>> there = resample_anatomy(anatomy, np.eye(4), (2, 2, 1), np.eye(4), lambda points: points)
    >>> there.t1w.shape, bool(there.brain_mask.all())
    ((2, 2, 1), True)
    """
    t1w = resample_to(anatomy.t1w, affine, shape, grid, pull, 1)
    brain = resample_to(anatomy.brain_mask, affine, shape, grid, pull, 0) > 0.5
    return Anatomy(t1w, brain, anatomy.method)
