"""Steps over existing fMRIPrep derivatives.

They take fMRIPrep's volumes or grayordinates and its confounds, and return the same records as the
steps of a raw run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from brainlm_bids.errors import RunSkipped, UserError
from brainlm_bids.parcels.operator import Coverage, label_means, parcellate_both
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES, interpolated
from brainlm_bids.preproc.affine import Matrix, centre_of_mass
from brainlm_bids.preproc.denoising import temporal, volumes
from brainlm_bids.preproc.denoising.fmriprep import (
    Column,
    interpolated_design,
    known_confounds,
    motion_parameters,
    n_non_steady,
    without_bad_volumes,
)
from brainlm_bids.preproc.registration.brain import brain_mask_epi
from brainlm_bids.preproc.steps.denoising import Design
from brainlm_bids.preproc.steps.functional import (
    MAX_BAD_VOLUMES,
    Extracted,
    Mask,
    Motion,
    Realigned,
    bad_volumes,
    check_length,
    grand_mean_factor,
)
from brainlm_bids.preproc.usable import check_varies, finite_mean, unusable_voxels

Confounds = Mapping[str, Column]


@dataclass(frozen=True)
class Grayordinates:
    """What the rest of a run needs of its grayordinates.

    Attributes
    ----------
    parcels, confounds
        See `Extracted`.
    coverage
        In grayordinates.
    motion
        With parameters.
    others
        (T, K) the series of further atlases, one after another; None without any.
    others_coverage
        Of each of these atlases.
    """

    parcels: NDArray[np.float64]
    confounds: dict[str, Column]
    coverage: Coverage
    motion: Motion
    others: NDArray[np.float64] | None = None
    others_coverage: tuple[Coverage, ...] = ()


def take_preprocessed(
    bold: NDArray[Any],
    affine: Matrix,
    confounds: Confounds,
    *,
    brain_mask: Mask | None = None,
    n_dummy: int | None = None,
    max_bad_volumes: float = MAX_BAD_VOLUMES,
    out: NDArray[np.float32] | None = None,
) -> Realigned:
    """Reference, brain and motion of a run that fMRIPrep preprocessed.

    Parameters
    ----------
    bold
        (X, Y, Z, T).
    affine
        (4, 4) voxel to RAS+ mm.
    confounds
        Columns (T,) of fMRIPrep's table.
    brain_mask
        (X, Y, Z); None: the brain is found in the mean of the run.
    n_dummy
        Volumes before the steady state; None: those that fMRIPrep marked.
    max_bad_volumes
        Largest share of bad volumes, see `volumes.find_bad_volumes`.
    out
        float32 (X, Y, Z, T) that a run with bad volumes is written to. It may be `bold` itself,
        which saves a copy of the run.

    Returns
    -------
    Realigned
        With `bold` as it is, but for bad volumes, which are interpolated in time; the reference is
        the mean of the good steady-state volumes, the brain goes as far as there are values.

    Raises
    ------
    RunSkipped
        If fewer than 20 volumes are left.
    UserError
        If the mask is of another grid, there is no brain, the values do not change, motion
        parameters are missing, or more volumes are bad than may be.
    """
    check_varies(bold)
    motion = _motion(confounds, bold.shape[3], n_dummy, bad_volumes(bold, max_bad_volumes))
    steady = bold[..., motion.n_dummy :]
    if motion.good is not None:
        bold = _without_bad_volumes(bold, motion.good, out)
        steady = bold[..., motion.n_dummy :]
        good = motion.good_steady
        steady = steady if good is None else steady[..., good]
    reference = finite_mean(steady)
    brain = brain_mask_epi(reference, affine) if brain_mask is None else brain_mask
    if brain.shape != reference.shape:
        raise UserError(f"the brain mask has {brain.shape} voxels, the BOLD {reference.shape}")
    unusable = unusable_voxels(steady)
    n_unusable = int((brain & unusable).sum())
    # fMRIPrep fills what was never in view with 0
    brain = brain & ~unusable & (steady != 0).any(axis=3)
    if not brain.any():
        raise UserError("there is no voxel with values in the brain mask")
    centre = centre_of_mass(brain, affine)
    return Realigned(bold, reference, brain, replace(motion, centre=centre, n_unusable=n_unusable))


def _without_bad_volumes(
    bold: NDArray[Any], good: Mask, out: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    if out is None:
        out = np.empty(bold.shape, dtype=np.float32)
    if out is not bold:
        out[...] = bold
    volumes.fill_volumes(out, good)
    return out


def extract_preprocessed(
    bold: NDArray[Any],
    brain_mask: Mask,
    operator: sparse.csr_matrix,
    confounds: Confounds,
    motion: Motion,
    others: sparse.csr_matrix | None = None,
) -> Extracted:
    """Average a run that fMRIPrep preprocessed over parcels; the confounds are fMRIPrep's.

    Parameters
    ----------
    bold
        (X, Y, Z, T).
    brain_mask
        (X, Y, Z).
    operator
        See `project`.
    confounds
        Columns (T,) of fMRIPrep's table.
    motion
        See `take_preprocessed`.
    others
        (K, X·Y·Z) the operators of further atlases, one below another.

    Returns
    -------
    Extracted
        Parcels at a grand mean of 10000, those confounds that a raw run has too, and the factor.
    """
    factor = grand_mean_factor(bold[brain_mask].T, motion)
    parcels, more = parcellate_both(operator, others, bold)
    if more is not None:
        more = more * factor
    return Extracted(parcels * factor, _known(confounds, motion), factor, more)


def _known(confounds: Confounds, motion: Motion) -> dict[str, Column]:
    """The confounds that a raw run has too, without what bad volumes left in them."""
    table = known_confounds(confounds)
    return table if motion.good is None else without_bad_volumes(table, motion.good, motion.n_dummy)


def take_cifti(
    series: NDArray[np.float32],
    labels: NDArray[np.int64],
    confounds: Confounds,
    *,
    n_dummy: int | None = None,
    min_parcel_coverage: float = 0.5,
    max_bad_volumes: float = MAX_BAD_VOLUMES,
    others: Sequence[tuple[NDArray[np.int64], int]] = (),
) -> Grayordinates:
    """Average fMRIPrep's grayordinates over parcels.

    Parameters
    ----------
    series
        (T, V).
    labels
        (V,), 0 for none, 1 to 424.
    confounds
        Columns (T,) of fMRIPrep's table.
    n_dummy
        Volumes before the steady state; None: those that fMRIPrep marked.
    min_parcel_coverage
        Parcels of which a smaller fraction of grayordinates has data have no series.
    max_bad_volumes
        Largest share of bad volumes, see `volumes.find_bad_volumes`.
    others
        Further atlases: labels (V,) from 1 to their number of parcels, and that number.

    Returns
    -------
    Grayordinates
        Parcels at a grand mean of 10000, interpolated in time at bad volumes; confounds, coverage
        and motion.

    Raises
    ------
    RunSkipped
        If fewer than 20 volumes are left.
    UserError
        If motion parameters are missing, or more volumes are bad than may be.
    """
    motion = _motion(confounds, len(series), n_dummy, bad_volumes(series.T, max_bad_volumes))
    if motion.good is not None:
        series = interpolated(series, motion.good)
    steady = series[motion.n_dummy :]
    if motion.good_steady is not None:
        steady = steady[motion.good_steady]
    covered = np.ptp(steady, axis=0) > 0
    factor = temporal.grand_mean_factor(steady, covered)
    parcels, coverage = label_means(series, labels, covered, min_parcel_coverage)
    more = [label_means(series, one, covered, min_parcel_coverage, n) for one, n in others]
    return Grayordinates(
        parcels * factor,
        _known(confounds, motion),
        coverage,
        motion,
        np.concatenate([means for means, _ in more], axis=1) * factor if more else None,
        tuple(covered_there for _, covered_there in more),
    )


def select_confounds(
    confounds: NDArray[np.float64],
    names: list[str],
    kept: NDArray[np.integer] | None,
    *,
    n_dummy: int = 0,
    good: Mask | None = None,
) -> Design:
    """The design of the steady-state volumes, from confounds that a strategy chose.

    Parameters
    ----------
    confounds
        (T, K), NaN for n/a.
    names
        Of the K columns; cosines are left out, since our own filter, which is narrower, is
        applied to series and confounds.
    kept
        Indices of the volumes that are not censored; None: all.
    n_dummy
        Volumes before the steady state.
    good
        (T,) False for bad volumes: they are censored, and the confounds interpolated; None: all
        are good.

    Returns
    -------
    Design
        Of T − n_dummy volumes.

    Raises
    ------
    RunSkipped
        If fewer than 20 volumes are left.

    Examples
    --------
    >>> design = select_confounds(np.zeros((30, 2)), ["csf", "cosine00"], np.arange(1, 30))
    >>> design.names.tolist(), int(design.kept.sum())
    (['csf'], 29)
    """
    mask = np.ones(len(confounds), dtype=bool)
    if kept is not None:
        mask[:] = False
        mask[np.asarray(kept)] = True
    if good is not None:
        mask &= good
    n_kept = int(mask[n_dummy:].sum())
    if n_kept < MINIMUM_VOLUMES:
        raise RunSkipped(f"the confounds leave {n_kept} volumes, fewer than {MINIMUM_VOLUMES}")
    chosen = [k for k, name in enumerate(names) if not name.startswith("cosine")]
    design = np.nan_to_num(np.asarray(confounds, dtype=np.float64)[:, chosen])
    chosen_names = [names[k] for k in chosen]
    if good is not None:
        design = interpolated_design(design, chosen_names, good)
    return Design(design[n_dummy:], np.array(chosen_names), mask[n_dummy:])


def _motion(
    confounds: Confounds, n_volumes: int, n_dummy: int | None, reasons: volumes.Reasons | None
) -> Motion:
    if n_dummy is None:
        n_dummy = n_non_steady(confounds)
    good = None if reasons is None else reasons == ""
    check_length(n_volumes, n_dummy, good)
    try:
        parameters = motion_parameters(confounds)
    except KeyError as error:
        raise UserError(f"the confounds have no column {error}") from None
    if good is not None:
        parameters = interpolated(parameters, good)
    return Motion(n_dummy, parameters, reasons=reasons)
