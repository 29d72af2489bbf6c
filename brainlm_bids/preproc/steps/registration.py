"""Steps that bring a run, its T1w image and the atlas together.

They take volumes and masks, and return transforms, operators, and numbers to judge them by.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.parcels.operator import Coverage, build_operator
from brainlm_bids.preproc.affine import (
    Matrix,
    Points,
    grid_points,
    invert,
    labelled_points,
    subgrid,
    world_to_voxel,
)
from brainlm_bids.preproc.distortion.contrast import Contrasts, contrasts
from brainlm_bids.preproc.distortion.field import Distortion
from brainlm_bids.preproc.registration import boundary, quality
from brainlm_bids.preproc.registration.ants import register_rigid
from brainlm_bids.preproc.registration.brain import bias_correct, brain_mask_flat
from brainlm_bids.preproc.registration.lesion import parcel_shares
from brainlm_bids.preproc.registration.quality import Quality
from brainlm_bids.preproc.registration.transforms import Chain, PointMap, resample_to
from brainlm_bids.preproc.tissue import Tissue, tissue_of_parcels, tissue_of_voxels

if TYPE_CHECKING:
    from brainlm_bids.resources.packaged import AromaMasks, TissueMaps

Mask = NDArray[np.bool_]

# Share of white matter in a template voxel from which on it counts as white matter only.
PURE_WHITE_MATTER = 0.95


@dataclass(frozen=True)
class Coregistration:
    """A rigid registration of a BOLD reference to a T1w image.

    Attributes
    ----------
    matrix
        (4, 4) RAS+ mm, points of the T1w image to those of the BOLD reference; of a run whose
        distortion is known, to where they would be without it.
    method
        "boundary", or "mutual information" where the boundary of white matter is not clear.
    quality
        Contrast and cost at the boundary of white matter, and overlap of the brains, at `matrix`.
    brain_mask
        (X, Y, Z) of the run: the T1w's brain where there is signal, or the run's own if the
        registration is suspect.
    mask_source
        Whose brain that is: "T1w" or "BOLD".
    contrasts
        Whether the correction of distortion sharpens the run; None without one.
    """

    matrix: Matrix
    method: str
    quality: Quality
    brain_mask: Mask
    mask_source: str
    contrasts: Contrasts | None = None


@dataclass(frozen=True)
class AromaSamples:
    """ICA-AROMA's masks at the places of a run that they cover.

    Attributes
    ----------
    voxels
        (N, 3) float32 voxel coordinates in the run.
    csf, edge, out
        (N,) whether the place is in the ventricles, at the brain's edge, outside the brain.
    """

    voxels: NDArray[np.float32]
    csf: Mask
    edge: Mask
    out: Mask


@dataclass(frozen=True)
class Placed:
    """An atlas in the voxels of a run.

    Attributes
    ----------
    operator
        W, (n_parcels, X·Y·Z) sparse: ``W @ voxels`` are the means of the parcels.
    coverage
        How much of each parcel is in view.
    """

    operator: sparse.csr_matrix
    coverage: Coverage


@dataclass(frozen=True)
class Projection:
    """Where atlas, tissues and masks lie in the voxels of a run.

    Attributes
    ----------
    operator
        W, (424, X·Y·Z) sparse: ``W @ voxels`` are the means of the parcels.
    tissues
        (2, X·Y·Z) sparse: means over white matter and over cerebrospinal fluid.
    coverage
        How much of each parcel is in view.
    aroma
        See `AromaSamples`.
    tissue
        (X, Y, Z) codes of the tissue of each voxel, see `brainlm_bids.preproc.tissue`: of the
        atlas's parcels, and of the template's white matter and ventricles.
    quality
        Dice coefficient of the run's brain with the template's; None where it was not asked for.
    others
        Further atlases.
    """

    operator: sparse.csr_matrix
    tissues: sparse.csr_matrix
    coverage: Coverage
    aroma: AromaSamples
    tissue: NDArray[np.uint8]
    quality: Quality | None = None
    others: tuple[Placed, ...] = ()


def coregister(
    boldref: NDArray[Any],
    affine: Matrix,
    brain_mask: Mask,
    t1w: NDArray[Any],
    t1w_affine: Matrix,
    t1w_mask: Mask,
    *,
    seen: Mask | None = None,
    t1w_lesion: Mask | None = None,
    distortion: Distortion | None = None,
    seed: int = 42,
) -> Coregistration:
    """Register a BOLD reference to a T1w image: the brains first, then the boundary.

    The shading of the coils is removed from the reference for this purpose.

    Parameters
    ----------
    boldref, t1w
        (X, Y, Z); the T1w image without its bias field.
    affine, t1w_affine
        (4, 4) of each, voxel to RAS+ mm.
    brain_mask, t1w_mask
        Their brains.
    seen
        (X, Y, Z) of the run, see `Realigned`: only these voxels are added to the brain. None: all.
    t1w_lesion
        (X, Y, Z) of the T1w image: whose edges are not taken for the boundary of white matter.
    distortion
        Of the run. The reference is registered as it is without it, and the brain of the T1w image
        is carried to where the run shows it. None: it is not known.
    seed
        Of the points at which images are compared.

    Returns
    -------
    Coregistration
        The rigid matrix, which of the two methods it rests on, numbers to judge it by, and the
        brain of the run.

    Raises
    ------
    UserError
        If the images cannot be brought together.

    References
    ----------
    Greve DN, Fischl B (2009). Accurate and robust brain image alignment using boundary-based
    registration. NeuroImage 48:63.
    """
    shown, own = _without_shading(boldref, affine, brain_mask)
    flat = shown
    if distortion is not None:
        flat, own = distortion.undistorted(shown), distortion.undistorted(own, 0) > 0.5
    register = partial(
        register_rigid,
        *(t1w, t1w_affine, flat, affine),
        fixed_mask=t1w_mask,
        moving_mask=own,
        seed=seed,
    )
    healthy = t1w_mask if t1w_lesion is None else t1w_mask & ~t1w_lesion
    surface = boundary.white_surface(t1w, t1w_affine, healthy, seed)
    refined = boundary.refine(surface, flat, affine, own, register(quick=True))
    method = "boundary"
    if refined is None:
        # nothing refines it: the images are compared on finer grids
        method, refined = "mutual information", register()
    contrast, cost = quality.at_boundary(surface, flat, affine, own, refined)
    overlap = quality.overlap_in_view(t1w_mask, t1w_affine, own, affine, invert(refined))
    found = Quality(contrast, cost, overlap=overlap)
    sharper = None
    if distortion is not None:
        sharper = contrasts(surface, shown, affine, brain_mask, refined, distortion)
    if quality.registration_warnings(found):
        return Coregistration(refined, method, found, brain_mask, "BOLD", sharper)
    to_t1w = Chain(
        (invert(refined),) if distortion is None else (distortion.inverse, invert(refined))
    )
    carried = carried_brain(t1w_mask, t1w_affine, shown, affine, to_t1w, brain_mask, seen)
    return Coregistration(refined, method, found, carried, "T1w", sharper)


def carried_brain(
    t1w_mask: Mask,
    t1w_affine: Matrix,
    flat: NDArray[np.float32],
    affine: Matrix,
    to_t1w: PointMap,
    brain_mask: Mask,
    seen: Mask | None,
) -> Mask:
    """The T1w's brain where a run shows it and has signal: (X, Y, Z) of the run.

    Parameters
    ----------
    t1w_mask, t1w_affine
        The brain of the T1w image (X, Y, Z), and its affine (4, 4), voxel to RAS+ mm.
    flat, affine
        The reference of the run without shading, (X, Y, Z), and its affine.
    to_t1w
        Points (P, 3) of the run to those of the T1w image, RAS+ mm.
    brain_mask, seen
        As those of `coregister`.
    """
    carried = resample_to(t1w_mask, t1w_affine, flat.shape, affine, to_t1w, 0) > 0.5
    carried &= flat > boundary.FLOOR * np.median(flat[carried])
    if seen is not None:
        # elsewhere the run has values in all volumes only within its own brain
        carried &= brain_mask | seen
    return np.asarray(carried)


def _without_shading(
    boldref: NDArray[Any], affine: Matrix, brain_mask: Mask
) -> tuple[NDArray[np.float32], Mask]:
    """A reference without the shading of the coils, and the brain that is found in it then."""
    flat = bias_correct(boldref, affine, brain_mask)
    return flat, brain_mask_flat(flat, affine, brain_mask)


def project(
    atlas: NDArray[Any],
    atlas_affine: Matrix,
    *,
    tissues: "TissueMaps",
    aroma: "AromaMasks",
    pull: PointMap,
    brain_mask: Mask,
    affine: Matrix,
    template_brain: tuple[Mask, Matrix] | None = None,
    lesion: tuple[Mask, Matrix, PointMap] | None = None,
    min_parcel_coverage: float = 0.5,
    others: Sequence[tuple[NDArray[Any], Matrix, int]] = (),
) -> Projection:
    """Find where an atlas, tissues and ICA-AROMA's masks lie in the voxels of a run.

    Parameters
    ----------
    atlas
        (X, Y, Z) labels, 1 to 424, on a grid of their own in template space.
    atlas_affine
        (4, 4) of that grid, voxel to RAS+ mm.
    tissues, aroma
        Maps in template space, see `brainlm_bids.resources`.
    pull
        Points (P, 3), RAS+ mm, of the template to those of the BOLD reference.
    brain_mask
        (X, Y, Z) of the run.
    affine
        (4, 4) of the run.
    template_brain
        The template's brain mask (X, Y, Z) and its affine (4, 4), where a run that was registered
        elsewhere is to be compared with it.
    lesion
        The lesion of the T1w image (X, Y, Z), its affine (4, 4), and the way from points (P, 3) of
        the template to those of the T1w image.
    min_parcel_coverage
        Parcels of which a smaller fraction of voxels lies in the brain mask have no series.
    others
        Further atlases: labels (X, Y, Z) from 1 to their number of parcels, the affine (4, 4) of
        their grid, and that number.

    Returns
    -------
    Projection
        The operators that average over parcels and tissues, and the places of the masks.
    """

    def in_run(points: Points) -> Points:
        return world_to_voxel(pull(points), affine)

    def placed(labels: NDArray[np.int64], points: Points, places: Points, n_parcels: int) -> Placed:
        operator, coverage = build_operator(
            labels,
            places,
            brain_mask.shape,
            brain_mask,
            n_parcels,
            min_coverage=min_parcel_coverage,
        )
        if lesion is not None:
            mask, grid, to_t1w = lesion
            shares = parcel_shares(labels, to_t1w(points), mask, grid, n_parcels)
            coverage = replace(coverage, in_lesion=shares)
        return Placed(operator, coverage)

    labels, points = labelled_points(atlas, atlas_affine)
    places = in_run(points)
    own = placed(labels, points, places, N_PARCELS)
    more = []
    for other, other_affine, n_parcels in others:
        other_labels, at = labelled_points(other, other_affine)
        more.append(placed(other_labels, at, in_run(at), n_parcels))
    classes, other_points = _tissue_points(tissues, aroma)
    other_places = in_run(other_points)
    # for means over large tissues linear interpolation is as good, and quick
    means, _ = build_operator(classes, other_places, brain_mask.shape, brain_mask, 2, order=1)
    tissue = tissue_of_voxels(
        np.concatenate([places, other_places]),
        np.concatenate(
            [tissue_of_parcels(labels), np.array([0, Tissue.WHITE_MATTER, Tissue.CSF])[classes]]
        ),
        brain_mask.shape,
    )
    voxels = in_run(grid_points(aroma.csf.shape, aroma.affine))
    # beyond the volume every map is 0 and adds nothing to a sum
    inside = ((voxels > -1) & (voxels < np.array(brain_mask.shape))).all(axis=1)
    samples = AromaSamples(
        voxels[inside].astype(np.float32),
        *(mask.ravel()[inside] for mask in (aroma.csf, aroma.edge, aroma.out)),
    )
    found = None
    if template_brain is not None:
        dice = quality.overlap_in_view(brain_mask, affine, *template_brain, pull)
        found = Quality(dice=dice)
    return Projection(own.operator, means, own.coverage, samples, tissue, found, others=tuple(more))


def _tissue_points(tissues: "TissueMaps", aroma: "AromaMasks") -> tuple[NDArray[np.int64], Points]:
    """Points (P, 3) of white matter (1) and cerebrospinal fluid (2), mm in template space."""
    # every second voxel of the 1 mm map is plenty for a mean
    white = tissues.white_matter[::2, ::2, ::2] > PURE_WHITE_MATTER
    _, white_points = labelled_points(white, subgrid(tissues.affine, step=2))
    _, csf_points = labelled_points(aroma.csf, aroma.affine)
    labels = np.repeat([1, 2], [len(white_points), len(csf_points)])
    return labels, np.concatenate([white_points, csf_points])
