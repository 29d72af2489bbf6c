"""Numbers that tell a registration that succeeded from one that failed.

How sharp the boundary of white matter is where the registration puts it, and the cost of the
registration there; how far the brains of BOLD reference and T1w image overlap; and how far the
normalised brain overlaps with the template's, and how alike the two are within. All pulls carry
points of the T1w image (or of the template) to those of the BOLD reference, RAS+ mm.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.preproc.affine import Matrix, apply, grid_points, invert, voxel_sizes
from brainlm_bids.preproc.registration import boundary
from brainlm_bids.preproc.registration.brain import touch_mm2
from brainlm_bids.preproc.registration.transforms import PointMap, resample_to

Mask = NDArray[np.bool_]


# By the image that was registered to the template. With a T1w image, simulated and real heads in
# their places have a contrast of 4.5 % or more, a cost of 0.77 or less, an overlap of 0.91 or more
# and a Dice coefficient of 0.959 or more; real heads of two people and turned headers 2.7 % or less
# and 0.83 or more (`python -m benchmarks.registration_quality`). Without a T1w image two real BOLD
# references have 5.9 and 2.9 %, 0.68 and 0.81; upside down or back to front 1.4 % or less, 0.90 or
# more.
LEAST_CONTRAST = {"T1w": 3.5, "boldref": 2.2}
HIGHEST_COST = {"T1w": 0.8, "boldref": 0.86}
LEAST_OVERLAP = 0.85
LEAST_DICE = {"T1w": 0.94, "boldref": 0.8}
# A brain that is cut off is stretched over the template's, and its Dice coefficient tells little. A
# whole head touches no face of its image, a stripped brain in a tight box touches all six with 2600
# mm², and a head without its top 35 mm with 5500 mm² or more.
LARGEST_EDGE_MM2 = 4000.0
# A brain may have the template's outline and other tissue within. Correlation with the template
# further than this from the brain's rim: two real adults 0.72 and 0.74, simulated adults 0.86, a
# newborn's contrast (grey matter brighter than white) 0.0; heads that are turned 0.4 or less.
LEAST_CORRELATION = 0.4
INNER_MM = 6.0


@dataclass(frozen=True)
class Limit:
    """Beyond which a number means that the registration has probably failed.

    Attributes
    ----------
    name
        The field of `Quality`.
    about
        What the number is, in words.
    value
        The limit itself.
    unit
        Behind the number.
    least
        Whether lower numbers are bad; else higher ones are.
    """

    name: str
    about: str
    value: float
    unit: str = ""
    least: bool = True

    def holds(self, number: float) -> bool:
        """Whether a number is within the limit; one that is not finite is not."""
        return number >= self.value if self.least else number < self.value

    def shown(self, number: float) -> str:
        """A number with its unit.

        >>> Limit("edge", "area", 4000.0, " mm²").shown(5472.1)
        '5472 mm²'
        """
        return f"{number:.0f}{self.unit}" if abs(number) >= 1000 else f"{number:.3g}{self.unit}"

    def __str__(self) -> str:
        return f"{'at least' if self.least else 'below'} {self.value:g}{self.unit}"


@dataclass(frozen=True)
class Quality:
    """What is known of a registration; None for what was not computed.

    Attributes
    ----------
    contrast
        Median over the boundary of white matter of Q = 200 (grey - white) / (grey + white), %.
    cost
        Mean of 1 - tanh(0.1 Q) there, which the boundary-based registration minimises; 1 for an
        image without such a boundary.
    overlap
        Dice coefficient of the brains of BOLD reference and T1w image, in the field of view.
    dice
        Dice coefficient of the normalised brain and the template's, in the field of view.
    edge
        Area of the T1w's brain on the faces of its image, mm²: large where a part is cut off.
    correlation
        Of the intensities of the normalised T1w image and the template, inside of the brain.
    """

    contrast: float | None = None
    cost: float | None = None
    overlap: float | None = None
    dice: float | None = None
    edge: float | None = None
    correlation: float | None = None


def at_boundary(
    surface: boundary.Surface,
    bold: NDArray[Any],
    affine: Matrix,
    brain: Mask,
    pull: PointMap | Matrix,
) -> tuple[float, float]:
    """How sharp the boundary of white matter is in a BOLD reference at a given pose.

    Parameters
    ----------
    surface
        Of the T1w image or of the template.
    bold, brain
        The reference (X, Y, Z) and its brain.
    affine
        (4, 4) of `bold`, voxel to RAS+ mm.
    pull
        Points (P, 3) of the surface's space to those of the reference, or a matrix (4, 4).

    Returns
    -------
    contrast, cost
        See `Quality`; 0 and 1 where no point of the surface is in view.

    References
    ----------
    Greve DN, Fischl B (2009). Accurate and robust brain image alignment using boundary-based
    registration. NeuroImage 48:63.
    """
    contrasts = boundary.contrasts(surface, bold, affine, brain, pull)
    if not len(contrasts):
        return 0.0, 1.0
    return float(np.median(contrasts)), boundary.mean_cost(contrasts)


def dice(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Dice coefficient of two masks of the same shape; 0 if both are empty.

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 0.0


def correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Pearson's correlation of two arrays of values (N,); 0 if one of them does not vary.

    Examples
    --------
    >>> correlation(np.array([1.0, 2.0, 3.0]), np.array([4.0, 2.0, 0.0]))
    -1.0
    """
    if first.size < 2 or not (np.ptp(first) and np.ptp(second)):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def overlap_in_view(
    mask: Mask, affine: Matrix, fixed_mask: Mask, fixed_affine: Matrix, pull: PointMap | Matrix
) -> float:
    """Dice coefficient of a mask and another, carried onto the grid of the latter.

    Parameters
    ----------
    mask, affine
        (X, Y, Z) and its (4, 4), voxel to RAS+ mm: what lies outside of this grid is not compared.
    fixed_mask, fixed_affine
        On whose grid both are compared.
    pull
        Points (P, 3) of the fixed image to those of `mask`, or a matrix (4, 4).

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> whole, half = np.ones((4, 4, 4), bool), np.ones((4, 4, 2), bool)
    >>> overlap_in_view(half, np.eye(4), whole, np.eye(4), np.eye(4))
    1.0
    """
    grid = fixed_mask.shape, fixed_affine, pull
    seen = resample_to(np.ones(mask.shape, np.float32), affine, *grid, 0) > 0.5
    moved = resample_to(mask, affine, *grid, 0) > 0.5
    return dice(moved, np.asarray(fixed_mask, dtype=bool) & seen)


def of_normalisation(
    image: NDArray[Any],
    affine: Matrix,
    mask: Mask,
    template: NDArray[Any],
    template_affine: Matrix,
    template_mask: Mask,
    pull: PointMap,
    *,
    kind: Literal["T1w", "boldref"],
    seed: int,
    lesion: Mask | None = None,
) -> Quality:
    """Judge the way from the template to a T1w image or to a BOLD reference.

    Parameters
    ----------
    image, affine, mask
        (X, Y, Z), its (4, 4), voxel to RAS+ mm, and its brain.
    template, template_affine, template_mask
        The same of the template.
    pull
        Points (P, 3) of the template to those of the image.
    kind
        What `image` is.
    seed
        Of the points of the template's white surface.
    lesion
        (X, Y, Z) of a T1w image: where the brains are not compared.

    Returns
    -------
    Quality
        The Dice coefficient of the brains; of a T1w image also what lies at its edge and its
        correlation with the template, of a BOLD reference also contrast and cost.
    """
    # a T1w image shows the whole head, or part of the brain is missing; a run may be a slab
    if kind == "T1w":
        # every image is sampled at the same points
        points = pull(grid_points(template_mask.shape, template_affine))
        voxels = apply(invert(affine), points).T.reshape(3, *template_mask.shape)

        def there(data: NDArray[Any], order: int) -> NDArray[np.float32]:
            values = np.asarray(data, dtype=np.float32)
            return np.asarray(ndimage.map_coordinates(values, voxels, order=order))

        moved = there(mask, 0) > 0.5
        fixed = np.asarray(template_mask, dtype=bool)
        if lesion is not None:
            compared = there(lesion, 0) < 0.5
            moved, fixed = moved & compared, fixed & compared
        spacing = voxel_sizes(template_affine)
        inner = ndimage.distance_transform_edt(template_mask, sampling=spacing) > INNER_MM
        alike = correlation(there(image, 1)[inner & moved], template[inner & moved])
        return Quality(dice=dice(moved, fixed), edge=touch_mm2(mask, affine), correlation=alike)
    overlap = overlap_in_view(mask, affine, template_mask, template_affine, pull)
    surface = boundary.white_surface(template, template_affine, template_mask, seed)
    contrast, cost = at_boundary(surface, image, affine, mask, pull)
    return Quality(contrast, cost, dice=overlap)


def limits(normalised: str) -> tuple[Limit, ...]:
    """The limits of a registration.

    Parameters
    ----------
    normalised
        "T1w" or "boldref": the image that was registered to the template.
    """
    whose = "" if normalised == "T1w" else "the template's "
    brain = "T1w" if normalised == "T1w" else "BOLD"
    boundary = f"boundary of {whose}white matter"
    contrast, cost = LEAST_CONTRAST[normalised], HIGHEST_COST[normalised]
    about_dice = f"overlap of the {brain}'s brain with the template's (Dice)"
    about_edge = "area of the T1w's brain at the edge of its image"
    return (
        Limit("contrast", f"contrast at the {boundary}", contrast, " %"),
        Limit("cost", f"cost of the registration at the {boundary}", cost, least=False),
        Limit("overlap", "overlap of the brains of BOLD and T1w (Dice)", LEAST_OVERLAP),
        Limit("dice", about_dice, LEAST_DICE[normalised]),
        Limit("edge", about_edge, LARGEST_EDGE_MM2, " mm²", least=False),
        Limit("correlation", "correlation of the T1w with the template", LEAST_CORRELATION),
    )


def judged(quality: Quality, normalised: str = "T1w") -> list[tuple[Limit, float]]:
    """The numbers that are known of a registration, each with its limit.

    Parameters
    ----------
    quality
        What is known.
    normalised
        "T1w" or "boldref": the image that was registered to the template.

    Examples
    --------
    >>> [(limit.name, str(limit), number) for limit, number in judged(Quality(cost=0.9))]
    [('cost', 'below 0.8', 0.9)]
    """
    numbers = ((limit, getattr(quality, limit.name)) for limit in limits(normalised))
    return [(limit, number) for limit, number in numbers if number is not None]


def registration_warnings(quality: Quality, normalised: str = "T1w") -> list[Notice]:
    """A warning if a registration has probably failed, by its numbers.

    Parameters
    ----------
    quality, normalised
        See `judged`.

    Examples
    --------
    >>> [one.level for one in registration_warnings(Quality(contrast=0.2, cost=1.0))]
    ['danger']
    >>> registration_warnings(Quality(contrast=8.0, cost=0.5, overlap=0.95, dice=0.98))
    []
    """
    beyond = [
        f"{limit.about} {limit.shown(number)}, not {limit}"
        for limit, number in judged(quality, normalised)
        if not limit.holds(number)
    ]
    if not beyond:
        return []
    other = ", or T1w and BOLD are not of one person" if normalised == "T1w" else ""
    text = f"The registration has probably failed{other}: look at the figure ({'; '.join(beyond)})."
    return [notice(Kind.SUSPECT_REGISTRATION, text)]
