"""Steps of a BOLD run before denoising.

They take volumes, and return motion, the transform to the T1w image, parcel series and confounds.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from brainlm_bids.errors import RunSkipped
from brainlm_bids.parcels.operator import Coverage, build_operator, parcellate
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES
from brainlm_bids.preproc.affine import (
    Matrix,
    Points,
    centre_of_mass,
    grid_points,
    labelled_points,
    subgrid,
    world_to_voxel,
)
from brainlm_bids.preproc.denoising import confounds, temporal
from brainlm_bids.preproc.motion import realign as realignment
from brainlm_bids.preproc.motion.batches import usable_device
from brainlm_bids.preproc.registration import boundary
from brainlm_bids.preproc.registration.ants import register_rigid
from brainlm_bids.preproc.registration.brain import brain_mask_epi
from brainlm_bids.preproc.registration.transforms import PointMap

if TYPE_CHECKING:
    from brainlm_bids.resources.template import AromaMasks, TissueMaps

Mask = NDArray[np.bool_]

# Share of white matter in a template voxel from which on it counts as white matter only.
PURE_WHITE_MATTER = 0.95
# Share of the volumes in which a voxel must be in view; with all, one bad volume cost the vertex.
IN_VIEW = 0.95


@dataclass(frozen=True)
class Motion:
    """Head motion of a run, and where its steady state begins.

    Attributes
    ----------
    n_dummy
        Volumes before the steady state.
    parameters, matrices
        (T, 6) translations in mm, then rotations in rad; (T, 4, 4) pulls, reference to volume,
        RAS+ mm. None where they are not known.
    centre
        (3,) mm, about which the rotations are.
    filled
        Share of the brain's values out of view, which are interpolated in time.
    device
        On which the motion was estimated, "cpu" or "cuda"; None where it was not.
    """

    n_dummy: int
    parameters: NDArray[np.float64] | None = None
    matrices: NDArray[np.float64] | None = None
    centre: NDArray[np.float64] | None = None
    filled: float | None = None
    device: str | None = None


@dataclass(frozen=True)
class Realigned:
    """A run without head motion.

    Attributes
    ----------
    bold
        (X, Y, Z, T) float32, on the reference's grid.
    boldref
        (X, Y, Z) float32, the reference.
    brain_mask
        (X, Y, Z), the brain where it is in view in nearly every volume.
    motion
        What was removed.
    """

    bold: NDArray[Any]
    boldref: NDArray[np.float32]
    brain_mask: Mask
    motion: Motion


@dataclass(frozen=True)
class Coregistration:
    """A rigid registration of a BOLD reference to a T1w image.

    Attributes
    ----------
    matrix
        (4, 4) RAS+ mm, points of the T1w image to those of the BOLD reference.
    method
        "boundary", or "mutual information" where the boundary of white matter is not clear.
    """

    matrix: Matrix
    method: str


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
    """

    operator: sparse.csr_matrix
    tissues: sparse.csr_matrix
    coverage: Coverage
    aroma: AromaSamples


@dataclass(frozen=True)
class Extracted:
    """Parcel series and confounds of a run.

    Attributes
    ----------
    parcels
        (T, 424) float64, grand mean 10000, NaN without data.
    confounds
        Columns (T,) with fMRIPrep's names.
    factor
        By which the run was multiplied for its grand mean to be 10000.
    """

    parcels: NDArray[np.float64]
    confounds: dict[str, NDArray[np.float64]]
    factor: float


def check_length(n_volumes: int, n_dummy: int) -> None:
    """Raise RunSkipped where too few volumes are left for the model."""
    if n_volumes - n_dummy < MINIMUM_VOLUMES:
        less = f"{n_volumes} volumes less {n_dummy} before the steady state"
        raise RunSkipped(f"{less} leave fewer than {MINIMUM_VOLUMES}")


def realign(
    bold: NDArray[Any],
    affine: Matrix,
    *,
    n_dummy: int | None = None,
    device: str = "cpu",
    out: NDArray[np.float32] | None = None,
) -> Realigned:
    """Make a reference of a run, find the brain in it, and remove head motion.

    Parameters
    ----------
    bold
        (X, Y, Z, T), raw.
    affine
        (4, 4) voxel to RAS+ mm.
    n_dummy
        Volumes before the steady state; None: they are detected.
    device
        "cpu", "cuda", or "auto": CUDA where there is one.
    out
        float32 (X, Y, Z, T) that the realigned run is written to. It may be `bold` itself, which
        saves a copy of the run.

    Returns
    -------
    Realigned
        The realigned run, its reference, brain and motion.

    Raises
    ------
    RunSkipped
        If fewer than 20 volumes are left after `n_dummy`.
    UserError
        If there is no brain in the run.
    """
    if n_dummy is None:
        n_dummy = realignment.detect_dummy_volumes(realignment.volumes_summary(bold))
    else:
        check_length(bold.shape[3], n_dummy)
    reference = realignment.reference_volume(bold, n_dummy, affine=affine, device=device)
    brain = brain_mask_epi(reference, affine)
    matrices = realignment.realign(bold, affine, reference, device=device)
    in_view = realignment.volumes_in_view(matrices, affine, reference.shape)
    mask = brain & (in_view >= IN_VIEW * len(matrices))
    centre = centre_of_mass(brain, affine)
    realigned = realignment.resample(bold, affine, matrices, out=out)
    filled = realignment.fill_unseen(realigned, matrices, affine, mask)
    parameters = realignment.matrices_to_parameters(matrices, centre)
    motion = Motion(n_dummy, parameters, matrices, centre, filled, usable_device(device))
    return Realigned(realigned, reference, mask, motion)


def coregister(
    boldref: NDArray[Any],
    affine: Matrix,
    brain_mask: Mask,
    t1w: NDArray[Any],
    t1w_affine: Matrix,
    t1w_mask: Mask,
    *,
    seed: int = 42,
) -> Coregistration:
    """Register a BOLD reference to a T1w image: the brains first, then the boundary.

    Parameters
    ----------
    boldref, t1w
        (X, Y, Z); the T1w image without its bias field.
    affine, t1w_affine
        (4, 4) of each, voxel to RAS+ mm.
    brain_mask, t1w_mask
        Their brains.
    seed
        Of the points at which images are compared.

    Returns
    -------
    Coregistration
        The rigid matrix, and which of the two methods it rests on.

    Raises
    ------
    UserError
        If the images cannot be brought together.

    References
    ----------
    Greve DN, Fischl B (2009). Accurate and robust brain image alignment using boundary-based
    registration. NeuroImage 48:63.
    """
    matrix = register_rigid(
        t1w,
        t1w_affine,
        boldref,
        affine,
        fixed_mask=t1w_mask,
        moving_mask=brain_mask,
        seed=seed,
    )
    surface = boundary.white_surface(t1w, t1w_affine, t1w_mask, seed)
    refined = boundary.refine(surface, boldref, affine, brain_mask, matrix)
    if refined is None:
        return Coregistration(matrix, "mutual information")
    return Coregistration(refined, "boundary")


def project(
    atlas: NDArray[Any],
    atlas_affine: Matrix,
    *,
    tissues: "TissueMaps",
    aroma: "AromaMasks",
    pull: PointMap,
    brain_mask: Mask,
    affine: Matrix,
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

    Returns
    -------
    Projection
        The operators that average over parcels and tissues, and the places of the masks.
    """

    def in_run(points: Points) -> Points:
        return world_to_voxel(pull(points), affine)

    labels, points = labelled_points(atlas, atlas_affine)
    operator, coverage = build_operator(labels, in_run(points), brain_mask.shape, brain_mask)
    labels, points = _tissue_points(tissues, aroma)
    # for means over large tissues linear interpolation is as good, and quick
    means, _ = build_operator(labels, in_run(points), brain_mask.shape, brain_mask, 2, order=1)
    voxels = in_run(grid_points(aroma.csf.shape, aroma.affine))
    # beyond the volume every map is 0 and adds nothing to a sum
    inside = ((voxels > -1) & (voxels < np.array(brain_mask.shape))).all(axis=1)
    samples = AromaSamples(
        voxels[inside].astype(np.float32),
        *(mask.ravel()[inside] for mask in (aroma.csf, aroma.edge, aroma.out)),
    )
    return Projection(operator, means, coverage, samples)


def _tissue_points(tissues: "TissueMaps", aroma: "AromaMasks") -> tuple[NDArray[np.int64], Points]:
    """Points (P, 3) of white matter (1) and cerebrospinal fluid (2), mm in template space."""
    # every second voxel of the 1 mm map is plenty for a mean
    white = tissues.white_matter[::2, ::2, ::2] > PURE_WHITE_MATTER
    _, white_points = labelled_points(white, subgrid(tissues.affine, step=2))
    _, csf_points = labelled_points(aroma.csf, aroma.affine)
    labels = np.repeat([1, 2], [len(white_points), len(csf_points)])
    return labels, np.concatenate([white_points, csf_points])


def extract(
    bold: NDArray[Any],
    brain_mask: Mask,
    motion: Motion,
    operator: sparse.csr_matrix,
    tissues: sparse.csr_matrix,
    tr: float,
    *,
    fd_spike_threshold: float = 0.5,
    dvars_spike_threshold: float = 1.5,
) -> Extracted:
    """Average a realigned run over parcels, and compute its confounds.

    Parameters
    ----------
    bold
        (X, Y, Z, T), realigned.
    brain_mask
        (X, Y, Z).
    motion
        With parameters and matrices, see `realign`.
    operator, tissues
        See `project`.
    tr
        Repetition time, s.
    fd_spike_threshold, dvars_spike_threshold
        In mm, and of standardised DVARS: volumes beyond are marked as outliers.

    Returns
    -------
    Extracted
        Parcels at a grand mean of 10000, confounds, and the factor between raw values and these.

    Raises
    ------
    ValueError
        If the shapes do not belong together or the brain is dark.
    """
    if motion.parameters is None:
        raise ValueError("the motion parameters of the run are not known")
    factor = temporal.grand_mean_factor(bold[..., motion.n_dummy :], brain_mask)
    parcels = parcellate(operator, bold) * factor
    means = parcellate(tissues, bold) * factor
    brain = np.ascontiguousarray(bold[brain_mask].T)
    table = confounds.confounds_table(
        motion.parameters,
        motion.matrices,
        brain.mean(axis=1, dtype=np.float64) * factor,
        means[:, 1],
        means[:, 0],
        brain,
        motion.n_dummy,
        tr,
        fd_spike_threshold=fd_spike_threshold,
        dvars_spike_threshold=dvars_spike_threshold,
    )
    return Extracted(np.asarray(parcels, dtype=np.float64), table, factor)
