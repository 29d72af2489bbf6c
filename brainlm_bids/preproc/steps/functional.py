"""Steps of a BOLD run before denoising.

They take volumes, and return motion, parcel series and confounds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from brainlm_bids.errors import RunSkipped
from brainlm_bids.parcels.operator import parcellate, parcellate_both
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES, interpolated
from brainlm_bids.preproc.affine import Matrix, centre_of_mass
from brainlm_bids.preproc.denoising import confounds, temporal, volumes
from brainlm_bids.preproc.motion import realign as realignment
from brainlm_bids.preproc.motion import splines, steady, view
from brainlm_bids.preproc.motion.batches import usable_device
from brainlm_bids.preproc.motion.sbref import SingleBand, place_if_it_fits
from brainlm_bids.preproc.motion.slice_timing import correct_slice_timing
from brainlm_bids.preproc.registration.brain import brain_mask_epi
from brainlm_bids.preproc.usable import check_varies, fill_from_neighbours, unusable_voxels

Mask = NDArray[np.bool_]

# Share of the volumes in which a voxel must be in view; with all, one bad volume cost the vertex.
IN_VIEW = 0.95
# Beyond this share of bad volumes a run is not worth saving.
MAX_BAD_VOLUMES = 0.2
# What a run's motion refers to, as sidecars name it.
OWN_REFERENCE, SINGLE_BAND = "median of volumes", "sbref"


@dataclass(frozen=True)
class Motion:
    """Head motion of a run, where its steady state begins, and which of its volumes are bad.

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
    reasons
        (T,) why a volume is bad, "" for good ones, see `volumes.find_bad_volumes`; None where all
        are good.
    reference
        What the matrices lead from: `OWN_REFERENCE` or `SINGLE_BAND`.
    sbref_distance, sbref_likeness
        Of the single-band reference, see `sbref.Placement`.
    sbref_refused
        Why the run's single-band reference was not used, in a few words; "" if it was, or if there
        was none.
    """

    n_dummy: int
    parameters: NDArray[np.float64] | None = None
    matrices: NDArray[np.float64] | None = None
    centre: NDArray[np.float64] | None = None
    filled: float | None = None
    device: str | None = None
    n_unusable: int = 0
    reasons: volumes.Reasons | None = None
    reference: str = OWN_REFERENCE
    sbref_distance: float | None = None
    sbref_likeness: float | None = None
    sbref_refused: str = ""

    @property
    def good(self) -> Mask | None:
        """(T,) False for bad volumes; None where all are good."""
        return None if self.reasons is None else self.reasons == ""

    @property
    def good_steady(self) -> Mask | None:
        """(T',) the same of the steady-state volumes."""
        good = self.good
        if good is None or good[self.n_dummy :].all():
            return None
        return good[self.n_dummy :]


@dataclass(frozen=True)
class SliceTimes:
    """When the slices of a volume were acquired.

    Attributes
    ----------
    times
        (S,) s from the beginning of the volume, of each slice along `axis`.
    reference
        The point in time that the slices are brought to, s from the beginning of the volume.
    tr
        Repetition time, s.
    axis
        0, 1 or 2: along which the slices are stacked.
    """

    times: NDArray[np.float64]
    reference: float
    tr: float
    axis: int = 2


@dataclass(frozen=True)
class Realigned:
    """A run without head motion.

    Attributes
    ----------
    bold
        (X, Y, Z, T) float32, on the reference's grid; bad volumes are interpolated in time.
    boldref
        (X, Y, Z) float32, the reference.
    brain_mask
        (X, Y, Z), the brain where it is in view in nearly every volume.
    motion
        What was removed.
    seen
        (X, Y, Z), in view in every volume and away from voxels without finite values: what may be
        added to the brain. None where nothing is added.
    """

    bold: NDArray[Any]
    boldref: NDArray[np.float32]
    brain_mask: Mask
    motion: Motion
    seen: Mask | None = None


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
    others
        (T, K) the same of the parcels of further atlases, one after another; None without any.
    """

    parcels: NDArray[np.float64]
    confounds: dict[str, NDArray[np.float64]]
    factor: float
    others: NDArray[np.float64] | None = None


def check_length(n_volumes: int, n_dummy: int, good: Mask | None = None) -> None:
    """Raise RunSkipped where too few volumes are left for the model."""
    n_bad = 0 if good is None else int((~good[n_dummy:]).sum())
    if n_volumes - n_dummy - n_bad < MINIMUM_VOLUMES:
        bad = f" and {n_bad} bad ones" if n_bad else ""
        raise RunSkipped(
            f"{n_volumes} volumes less {n_dummy} before the steady state{bad} leave fewer than "
            f"{MINIMUM_VOLUMES}"
        )


def realign(
    bold: NDArray[Any],
    affine: Matrix,
    *,
    n_dummy: int | None = None,
    max_bad_volumes: float = MAX_BAD_VOLUMES,
    device: str = "cpu",
    slices: SliceTimes | None = None,
    sbref: SingleBand | None = None,
    out: NDArray[np.float32] | None = None,
) -> Realigned:
    """Make a reference of a run, find the brain in it, and remove head motion.

    Motion is estimated from the volumes as they were acquired: brought to one point in time, they
    would hold a part of the position of their neighbours, and look as if they moved less. Then the
    slices are corrected in time, where that is asked for, and the run is resampled by its motion.

    Parameters
    ----------
    bold
        (X, Y, Z, T), raw.
    affine
        (4, 4) voxel to RAS+ mm.
    n_dummy
        Volumes before the steady state; None: they are detected.
    max_bad_volumes
        Largest share of bad volumes, see `volumes.find_bad_volumes`. They take no part in the
        reference, and their motion is interpolated.
    device
        "cpu", "cuda", or "auto": CUDA where there is one.
    slices
        When slices were acquired, for their correction in time; None: they are left as they are.
    sbref
        The run's single-band reference. If it fits, it becomes the reference, in the brightness of
        the run, and all volumes are brought to where it lies.
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
        If fewer than 20 volumes are left after `n_dummy` and without bad ones.
    UserError
        If there is no brain in the run, its values do not change, or more volumes are bad than may
        be.
    """
    check_varies(bold)
    reasons = bad_volumes(bold, max_bad_volumes)
    good = None if reasons is None else reasons == ""
    given = n_dummy is not None
    if n_dummy is None:
        n_dummy = _detect_dummy_volumes(bold, good)
    if given or good is not None:
        check_length(bold.shape[3], n_dummy, good)
    reference = realignment.reference_volume(bold, n_dummy, affine=affine, device=device, good=good)
    brain = brain_mask_epi(reference, affine)
    unusable = unusable_voxels(bold, good)
    if (brain & unusable).any():
        # lest the interpolation carry holes into their neighbours
        bold = bold if bold is out else bold.copy()
        fill_from_neighbours(bold, brain & unusable, unusable)
        reference = realignment.reference_volume(
            bold, n_dummy, affine=affine, device=device, good=good
        )
        brain = brain_mask_epi(reference, affine)
    chosen = None if good is None else np.flatnonzero(good)
    matrices = realignment.realign(bold, affine, reference, device=device, chosen=chosen)
    found, refused = place_if_it_fits(sbref, reference, affine, brain)
    if found is not None:
        matrices, reference, brain = matrices @ found.matrix, found.image, found.brain
    if good is not None:
        matrices = volumes.complete_motion(matrices, good, centre_of_mass(brain, affine))
    in_view = view.volumes_in_view(matrices, affine, reference.shape)
    mask = brain & (in_view >= IN_VIEW * len(matrices)) & ~unusable
    centre = centre_of_mass(brain, affine)
    if slices is not None:
        bold = in_one_time(bold, slices, n_dummy, good, in_place=bold is out)
    realigned = splines.resample(bold, affine, matrices, out=out)
    filled = view.fill_unseen(realigned, matrices, affine, mask, good)
    if good is not None:
        volumes.fill_volumes(realigned, good)
    parameters = realignment.matrices_to_parameters(matrices, centre)
    motion = Motion(
        n_dummy,
        parameters,
        matrices,
        centre,
        filled,
        usable_device(device),
        int((brain & unusable).sum()),
        reasons,
        OWN_REFERENCE if found is None else SINGLE_BAND,
        None if found is None else found.distance,
        None if found is None else found.likeness,
        refused,
    )
    # the interpolation carries holes this far
    near_holes = ndimage.binary_dilation(unusable, iterations=2)
    seen = (in_view == len(matrices)) & ~near_holes
    return Realigned(realigned, reference, mask, motion, seen)


def in_one_time(
    bold: NDArray[Any], slices: SliceTimes, n_dummy: int, good: Mask | None, *, in_place: bool
) -> NDArray[Any]:
    """Bring the slices of a raw run to one point in time of each volume.

    Parameters
    ----------
    bold
        (X, Y, Z, T), raw.
    slices
        When they were acquired.
    n_dummy
        Volumes before the steady state, which are left as they are.
    good
        (T,) False for bad volumes; None: all are good.
    in_place
        Whether `bold` itself, float32, is changed.

    Returns
    -------
    ndarray
        (X, Y, Z, T) float32.
    """
    corrected = bold if in_place else np.array(bold, dtype=np.float32)
    correct_slice_timing(
        corrected,
        slices.times,
        slices.tr,
        reference=slices.reference,
        axis=slices.axis,
        first=n_dummy,
        good=good,
    )
    return corrected


def bad_volumes(bold: NDArray[Any], max_bad_volumes: float) -> volumes.Reasons | None:
    """Why volumes (…, T) are bad; None where all are good, UserError where too many are not."""
    reasons = volumes.find_bad_volumes(bold)
    volumes.check_share(reasons, max_bad_volumes)
    return reasons if (reasons != "").any() else None


def _detect_dummy_volumes(bold: NDArray[Any], good: Mask | None) -> int:
    """Count the volumes before the steady state; bad ones at the start are among them."""
    if good is None:
        return steady.detect_dummy_volumes(steady.volumes_summary(bold))
    first = int(np.argmax(good))
    summary = steady.volumes_summary(bold[..., first:])
    known = good[first : first + len(summary)]
    return first + steady.detect_dummy_volumes(interpolated(summary, known))


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
    others: sparse.csr_matrix | None = None,
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
    others
        (K, X·Y·Z) the operators of further atlases, one below another.

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
    brain = np.ascontiguousarray(bold[brain_mask].T)
    factor = grand_mean_factor(brain, motion)
    parcels, more = parcellate_both(operator, others, bold)
    means = parcellate(tissues, bold) * factor
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
        good=motion.good,
    )
    return Extracted(parcels * factor, table, factor, None if more is None else more * factor)


def grand_mean_factor(brain: NDArray[Any], motion: Motion) -> float:
    """Factor that brings the good steady-state volumes of (T, V) to a grand mean of 10000."""
    steady, good = brain[motion.n_dummy :], motion.good_steady
    return temporal.grand_mean_factor(steady if good is None else steady[good])
