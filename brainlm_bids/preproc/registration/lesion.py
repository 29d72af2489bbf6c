"""Lesions of a T1w image, which are kept out of every comparison with images of healthy brains.

Images and masks are (X, Y, Z) with RAS+ affines. Leaving a lesion out of the cost of a registration
is cost-function masking (Brett et al. 2001, NeuroImage 14:486).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.preproc.affine import Matrix, Points, voxel_sizes, voxel_volume, world_to_voxel
from brainlm_bids.preproc.registration.transforms import PointMap, resample_to

Mask = NDArray[np.bool_]

# A parcel that lies in the lesion to more than this tells of damaged tissue.
LARGEST_OF_PARCEL = 0.5
# Of a probability, or of labels, from which on a voxel belongs to the lesion.
LEVEL = 0.5
# A mask of more than this share of the brain is no lesion: probably the healthy part was drawn.
LARGEST_SHARE = 0.5
# Width (sigma) of the neighbourhood by which a lesion is filled, mm.
FILL_MM = 8.0
# A coarse voxel of which the lesion makes up more than this takes no part.
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Lesion:
    """What is known of the lesion of a T1w image.

    Attributes
    ----------
    volume
        ml.
    share
        Of the brain's volume that lies in the lesion.
    problem
        Why it was not left out of the registration, in a few words; empty if it was.
    """

    volume: float
    share: float
    problem: str = ""

    def sidecar(self) -> dict[str, float]:
        """The fields of a sidecar; none for a lesion that was not left out."""
        if self.problem:
            return {}
        return {"LesionVolume": self.volume, "LesionShareOfBrain": self.share}


def union_on(
    masks: Sequence[tuple[NDArray[Any], Matrix]], shape: tuple[int, ...], affine: Matrix
) -> Mask:
    """The union of lesion masks, on the grid of a T1w image.

    Parameters
    ----------
    masks
        Each (X, Y, Z), of zeros and ones, probabilities or labels, and its (4, 4), voxel to RAS+
        mm. Its voxels are found by their places in the scanner; its grid may be another.
    shape, affine
        The grid of the T1w image.

    Returns
    -------
    ndarray
        (X, Y, Z) bool.

    Examples
    --------
    >>> half, whole = np.diag([0.5, 1.0, 1.0, 1.0]), np.eye(4)
    >>> fine = np.array([0, 0, 0, 0, 1, 1]).reshape(6, 1, 1)
    >>> union_on([(fine, half)], (4, 1, 1), whole).ravel().tolist()
    [False, False, True, False]
    """
    found = np.zeros(shape, dtype=bool)
    for data, grid in masks:
        inside = np.nan_to_num(np.asarray(data, dtype=np.float32)) > LEVEL
        found |= resample_to(inside, grid, shape, affine, np.eye(4), 0) > 0.5
    return found


def described(lesion: Mask, brain: Mask, affine: Matrix) -> Lesion:
    """How large a lesion is, and whether it can be one.

    Parameters
    ----------
    lesion, brain
        (X, Y, Z), on one grid.
    affine
        (4, 4) of both, voxel to RAS+ mm.

    Examples
    --------
    >>> brain = np.ones((10, 10, 10), bool)
    >>> described(~brain, brain, np.eye(4)).problem
    'no voxel of it lies in the T1w image'
    >>> described(brain, brain, np.eye(4)).problem
    'it covers 100 % of the brain; are lesion and healthy tissue exchanged?'
    """
    volume = float(lesion.sum() * voxel_volume(affine) / 1000)
    share = float((lesion & brain).sum() / max(int(brain.sum()), 1))
    problem = ""
    if not lesion.any():
        problem = "no voxel of it lies in the T1w image"
    elif share > LARGEST_SHARE:
        problem = f"it covers {share:.0%} of the brain; are lesion and healthy tissue exchanged?"
        problem = problem.replace("%", " %")
    elif not share:
        problem = "it lies outside of the brain; is it of this T1w image?"
    return Lesion(volume, share, problem)


def filled(image: NDArray[Any], lesion: Mask, brain: Mask, affine: Matrix) -> NDArray[np.float32]:
    """An image whose lesion is filled smoothly from the brain around it.

    What is filled in is never compared with anything; it keeps the lesion's own intensities from
    leaking into coarse grids and centres of mass.

    Parameters
    ----------
    image
        (X, Y, Z).
    lesion, brain
        (X, Y, Z) masks.
    affine
        (4, 4) voxel to RAS+ mm.

    Returns
    -------
    ndarray
        (X, Y, Z) float32.

    Examples
    --------
    >>> image, lesion = np.full((5, 5, 5), 3.0), np.zeros((5, 5, 5), bool)
    >>> image[2, 2, 2], lesion[2, 2, 2] = 99.0, True
    >>> float(filled(image, lesion, ~lesion, np.eye(4)).max().round(4))
    3.0
    """
    out = np.array(image, dtype=np.float32)
    healthy = brain & ~lesion
    if not lesion.any() or not healthy.any():
        return out
    sigma = FILL_MM / voxel_sizes(affine)
    index = np.argwhere(lesion)
    margin = np.ceil(4 * sigma).astype(int)
    low = np.maximum(index.min(axis=0) - margin, 0)
    high = np.minimum(index.max(axis=0) + margin + 1, out.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    known = healthy[box].astype(np.float32)
    weight = ndimage.gaussian_filter(known, sigma)
    total = ndimage.gaussian_filter(known * out[box], sigma)
    # far from healthy tissue the median of the brain takes over
    floor = np.float32(1e-3)
    around = (total + floor * np.float32(np.median(out[healthy]))) / (weight + floor)
    out[box] = np.where(lesion[box], around, out[box])
    return out


def on_coarse(
    lesion: Mask, affine: Matrix, shape: tuple[int, ...], grid: Matrix, pull: PointMap | Matrix
) -> Mask:
    """A lesion on a grid that is coarser, or lies elsewhere: every voxel that it reaches.

    Parameters
    ----------
    lesion, affine
        (X, Y, Z), and its (4, 4), voxel to RAS+ mm.
    shape, grid
        The other grid: (X, Y, Z) and its (4, 4).
    pull
        Points (P, 3) of the other grid to those of the lesion, mm, or a matrix (4, 4).
    """
    factor = np.maximum(voxel_sizes(grid) / voxel_sizes(affine), 1.0)
    smooth = ndimage.gaussian_filter(lesion.astype(np.float32), np.sqrt(factor**2 - 1) / 2.355)
    return resample_to(smooth, affine, shape, grid, pull) > LEAST_SHARE


def lesion_notices(found: Lesion) -> list[Notice]:
    """What to know of a T1w image with a lesion.

    Examples
    --------
    >>> lesion_notices(Lesion(31.26, 0.0241))[0].text
    'A lesion of 31.3 ml (2.4 % of the brain) was left out of the registration of the T1w image.'
    """
    if found.problem:
        text = (
            f"The lesion mask of the T1w image was not used: {found.problem}. The registration "
            "went on without it."
        )
        return [notice(Kind.LESION_MASK_UNUSED, text)]
    text = (
        f"A lesion of {found.volume:.1f} ml ({100 * found.share:.1f} % of the brain) was left out "
        "of the registration of the T1w image."
    )
    return [notice(Kind.LESION_MASKED, text)]


def damaged_parcels(
    shares: NDArray[np.float64], names: Sequence[str]
) -> tuple[dict[str, float], list[Notice]]:
    """The parcels that lie in a lesion, with their shares, and a warning about them.

    Parameters
    ----------
    shares
        (P,) of each parcel, see `parcel_shares`.
    names
        (P,) of the parcels.

    Examples
    --------
    >>> damaged_parcels(np.array([0.1, 0.75]), ["R_V1", "L_V1"])[0]
    {'L_V1': 0.75}
    """
    found = {names[k]: float(shares[k]) for k in np.flatnonzero(shares > LARGEST_OF_PARCEL)}
    if not found:
        return {}, []
    lie = "parcel lies" if len(found) == 1 else "parcels lie"
    text = (
        f"{len(found)} {lie} in the lesion to more than half ({', '.join(found)}): their series "
        "come from damaged tissue."
    )
    return found, [notice(Kind.LESION_PARCELS, text)]


def parcel_shares(
    labels: NDArray[np.int64], points: Points, lesion: Mask, affine: Matrix, n_parcels: int
) -> NDArray[np.float64]:
    """How much of each parcel lies in a lesion.

    Parameters
    ----------
    labels
        (P,) parcels, 1 to `n_parcels`.
    points
        (P, 3) the places of their voxels in the T1w image, RAS+ mm.
    lesion, affine
        (X, Y, Z), and its (4, 4), voxel to RAS+ mm.
    n_parcels
        Of the atlas.

    Returns
    -------
    ndarray
        (n_parcels,) from 0 to 1.

    Examples
    --------
    >>> lesion = np.zeros((3, 1, 1), bool)
    >>> lesion[1] = True
    >>> points = np.array([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0]])
    >>> parcel_shares(np.array([1, 1, 2]), points, lesion, np.eye(4), 2).tolist()
    [0.5, 0.0]
    """
    voxels = world_to_voxel(points, affine).T
    inside = ndimage.map_coordinates(lesion.astype(np.float32), voxels, order=0) > 0.5
    n_voxels = np.bincount(labels, minlength=n_parcels + 1)[1:]
    n_inside = np.bincount(labels, inside, minlength=n_parcels + 1)[1:]
    return np.asarray(n_inside / np.maximum(n_voxels, 1))
