"""Steps of a BOLD run before denoising.

They take volumes, and return motion, parcel series and confounds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from brainlm_bids.errors import RunSkipped
from brainlm_bids.parcels.operator import parcellate
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES
from brainlm_bids.preproc.affine import Matrix, centre_of_mass
from brainlm_bids.preproc.denoising import confounds, temporal
from brainlm_bids.preproc.motion import realign as realignment
from brainlm_bids.preproc.motion.batches import usable_device
from brainlm_bids.preproc.registration.brain import brain_mask_epi
from brainlm_bids.preproc.usable import check_varies, fill_from_neighbours, unusable_voxels

Mask = NDArray[np.bool_]

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
    n_unusable
        Voxels of the brain that were left out: some of their values are not finite.
    """

    n_dummy: int
    parameters: NDArray[np.float64] | None = None
    matrices: NDArray[np.float64] | None = None
    centre: NDArray[np.float64] | None = None
    filled: float | None = None
    device: str | None = None
    n_unusable: int = 0


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
        If there is no brain in the run, or its values do not change.
    """
    check_varies(bold)
    if n_dummy is None:
        n_dummy = realignment.detect_dummy_volumes(realignment.volumes_summary(bold))
    else:
        check_length(bold.shape[3], n_dummy)
    reference = realignment.reference_volume(bold, n_dummy, affine=affine, device=device)
    brain = brain_mask_epi(reference, affine)
    unusable = unusable_voxels(bold)
    if (brain & unusable).any():
        # lest the interpolation carry holes into their neighbours
        bold = bold if bold is out else bold.copy()
        fill_from_neighbours(bold, brain & unusable, unusable)
        reference = realignment.reference_volume(bold, n_dummy, affine=affine, device=device)
        brain = brain_mask_epi(reference, affine)
    matrices = realignment.realign(bold, affine, reference, device=device)
    in_view = realignment.volumes_in_view(matrices, affine, reference.shape)
    mask = brain & (in_view >= IN_VIEW * len(matrices)) & ~unusable
    centre = centre_of_mass(brain, affine)
    realigned = realignment.resample(bold, affine, matrices, out=out)
    filled = realignment.fill_unseen(realigned, matrices, affine, mask)
    parameters = realignment.matrices_to_parameters(matrices, centre)
    motion = Motion(
        n_dummy,
        parameters,
        matrices,
        centre,
        filled,
        usable_device(device),
        int((brain & unusable).sum()),
    )
    return Realigned(realigned, reference, mask, motion)


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
