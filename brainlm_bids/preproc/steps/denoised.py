"""Steps over series that another program denoised and filtered, as XCP-D does.

They are averaged over parcels and used as they are. Volumes that were censored are bad ones,
whether the series holds values in their place or has a gap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from brainlm_bids.errors import UserError
from brainlm_bids.parcels.operator import Coverage, label_means, parcellate_both
from brainlm_bids.preproc.denoising import temporal, volumes
from brainlm_bids.preproc.denoising.confounds import MOTION_NAMES, motion_outlier_columns
from brainlm_bids.preproc.denoising.fmriprep import (
    Column,
    known_confounds,
    motion_parameters,
    without_bad_volumes,
)
from brainlm_bids.preproc.image_quality import moments
from brainlm_bids.preproc.steps.functional import MAX_BAD_VOLUMES, Mask, Motion, check_length
from brainlm_bids.preproc.usable import check_varies, unusable_voxels

DISPLACEMENT = "framewise_displacement"
# Why a censored volume is bad, as sidecars and reports name it.
CENSORED = "censored"
# Rounding of a constant voxel, as a share of the largest standard deviation.
CONSTANT = 1e-6


@dataclass(frozen=True)
class Censoring:
    """Which volumes of a scan were censored, and which a series holds; (T,) each.

    Attributes
    ----------
    censored
        Whether a volume was censored.
    present
        Whether the series holds it: a censored volume may be left out, or there and interpolated.
    """

    censored: Mask
    present: Mask


@dataclass(frozen=True)
class Taken:
    """What the rest of a run needs of its denoised volumes.

    Attributes
    ----------
    deviation
        (X, Y, Z) float32 standard deviation over time, in place of the mean, which was removed.
    brain_mask
        (X, Y, Z), where the values vary.
    confounds
        See `Extracted`; empty without a table of motion.
    motion
        Of all volumes of the scan; parameters where they are known.
    """

    deviation: NDArray[np.float32]
    brain_mask: Mask
    confounds: dict[str, Column]
    motion: Motion


@dataclass(frozen=True)
class DenoisedGrayordinates:
    """What the rest of a run needs of its denoised grayordinates.

    Attributes
    ----------
    series
        (T, 424) of all volumes of the scan, NaN in bad volumes and in parcels without data.
    coverage
        In grayordinates.
    confounds, motion
        See `Taken`.
    others
        (T, K) the series of further atlases, one after another; None where there are none.
    others_coverage
        Of each of these.
    """

    series: NDArray[np.float64]
    coverage: Coverage
    confounds: dict[str, Column]
    motion: Motion
    others: NDArray[np.float64] | None = None
    others_coverage: tuple[Coverage, ...] = ()


def find_gaps(n_volumes: int, n_rows: int, censored: Mask | None) -> Censoring:
    """Place the volumes of a denoised series in its scan.

    Parameters
    ----------
    n_volumes
        Of the series.
    n_rows
        Of the scan, as the tables have them.
    censored
        (T,) True for censored volumes; None: there was no censoring.

    Returns
    -------
    Censoring
        Of T = `n_rows` volumes.

    Raises
    ------
    UserError
        If the series has neither all volumes, nor all but the censored ones.

    Examples
    --------
    >>> find_gaps(2, 3, np.array([False, True, False])).present
    array([ True, False,  True])
    >>> find_gaps(3, 3, np.array([False, True, False])).present
    array([ True,  True,  True])
    """
    if censored is None:
        censored = np.zeros(n_rows, dtype=bool)
    if len(censored) != n_rows:
        raise UserError(
            f"a table of outliers of {len(censored)} rows, and one of motion of {n_rows}"
        )
    if n_volumes == n_rows:
        return Censoring(censored, np.ones(n_rows, dtype=bool))
    n_censored = int(censored.sum())
    if n_volumes != n_rows - n_censored:
        raise UserError(
            f"{n_volumes} volumes, and tables of {n_rows}, of which {n_censored} are censored: "
            "series and tables are not of one call of the program"
        )
    return Censoring(censored, ~censored)


def take_denoised(
    bold: NDArray[Any],
    censoring: Censoring,
    confounds: Mapping[str, Column] | None = None,
    *,
    n_dummy: int = 0,
    max_bad_volumes: float = MAX_BAD_VOLUMES,
) -> Taken:
    """Brain, motion and bad volumes of a run that was denoised already.

    Parameters
    ----------
    bold
        (X, Y, Z, T'), those volumes of the scan that are present.
    censoring
        Of the T volumes of the scan.
    confounds
        Columns (T,), with fMRIPrep's names of motion parameters; None where they are not known.
    n_dummy
        Volumes before the steady state.
    max_bad_volumes
        Largest share of bad volumes, the censored ones among them.

    Returns
    -------
    Taken
        See there.

    Raises
    ------
    RunSkipped
        If fewer than 20 volumes are left.
    UserError
        If the values do not vary, or more volumes are bad than may be.
    """
    check_varies(bold)
    motion = _motion(bold, censoring, confounds, n_dummy, max_bad_volumes)
    used = _used(motion, censoring)
    deviation = moments(bold, 0, used)[1]
    brain = (deviation > CONSTANT * deviation.max()) & ~unusable_voxels(bold, used)
    if not brain.any():
        raise UserError("there is no voxel whose values vary in time")
    return Taken(deviation, brain, _known(confounds, motion, censoring), motion)


def level_factor(
    preprocessed: NDArray[Any], brain: Mask, censoring: Censoring, motion: Motion
) -> float:
    """Find the factor for a denoised run's amplitude in the run that it was made from.

    Parameters
    ----------
    preprocessed
        (…, T"), with its mean, of the voxels or grayordinates of the denoised run. It may begin
        before the volumes of `censoring`.
    brain
        (…) the brain, or the grayordinates with data.
    censoring, motion
        See `take_denoised`.

    Returns
    -------
    float
        That would bring the good volumes of the preprocessed run to a grand mean of 10000.

    Raises
    ------
    UserError
        If the runs differ in their voxels, the preprocessed one is shorter, or has no mean.

    Examples
    --------
    >>> censoring = find_gaps(3, 3, None)
    >>> level_factor(np.full((2, 4), 500.0), np.ones(2, dtype=bool), censoring, Motion(0))
    20.0
    """
    before = preprocessed.shape[-1] - len(censoring.present)
    if preprocessed.shape[:-1] != brain.shape or before < 0:
        raise UserError(
            f"its shape {preprocessed.shape} does not fit the denoised series, of {brain.shape} "
            f"voxels and {len(censoring.present)} volumes"
        )
    good = np.arange(len(censoring.present)) >= motion.n_dummy
    good &= True if motion.good is None else motion.good
    values = preprocessed[brain].T[before:][good]
    try:
        return temporal.grand_mean_factor(values)
    except ValueError as error:
        raise UserError(f"has no grand mean: {error}") from None


def extract_denoised(
    bold: NDArray[Any],
    operator: sparse.csr_matrix,
    censoring: Censoring,
    motion: Motion,
    factor: float = 1.0,
    others: sparse.csr_matrix | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Average a run that was denoised already over parcels.

    Parameters
    ----------
    bold
        (X, Y, Z, T'), those volumes of the scan that are present.
    operator
        See `project`.
    censoring, motion
        See `take_denoised`.
    factor
        By which it is multiplied, see `level_factor`.
    others
        (K, X·Y·Z) sparse: further atlases, one below another.

    Returns
    -------
    series, others
        (T, 424) and (T, K) of all volumes of the scan; NaN in bad ones, among them the censored,
        before the steady state, and in parcels without data. None without further atlases.
    """
    means, more = parcellate_both(operator, others, bold)
    placed = factor * _placed(means, censoring, motion)
    return placed, None if more is None else factor * _placed(more, censoring, motion)


def take_denoised_cifti(
    series: NDArray[np.float32],
    labels: NDArray[np.int64],
    censoring: Censoring,
    confounds: Mapping[str, Column] | None = None,
    *,
    n_dummy: int = 0,
    min_parcel_coverage: float = 0.5,
    max_bad_volumes: float = MAX_BAD_VOLUMES,
    preprocessed: NDArray[Any] | None = None,
    others: Sequence[tuple[NDArray[np.int64], int]] = (),
) -> DenoisedGrayordinates:
    """Average grayordinates that were denoised already over parcels.

    Parameters
    ----------
    series
        (T', V), those volumes of the scan that are present.
    labels
        (V,), 0 for none, 1 to 424.
    censoring, confounds, n_dummy, max_bad_volumes
        See `take_denoised`.
    min_parcel_coverage
        Parcels of which a smaller fraction of grayordinates has data have no series.
    preprocessed
        (T", V) that it was made from, see `level_factor`; None: it is not there.
    others
        Of further atlases: labels (V,), and the number of parcels.

    Returns
    -------
    DenoisedGrayordinates
        See there.

    Raises
    ------
    RunSkipped
        If fewer than 20 volumes are left.
    UserError
        If more volumes are bad than may be, or the preprocessed series does not fit.
    """
    motion = _motion(series.T, censoring, confounds, n_dummy, max_bad_volumes)
    used = _used(motion, censoring)
    covered = np.ptp(series[used], axis=0) > 0
    means, coverage = label_means(series, labels, covered, min_parcel_coverage)
    factor = 1.0
    if preprocessed is not None:
        factor = level_factor(preprocessed.T, covered, censoring, motion)
    more = [label_means(series, one, covered, min_parcel_coverage, n) for one, n in others]
    further = np.concatenate([one for one, _ in more], axis=1) if more else None
    return DenoisedGrayordinates(
        factor * _placed(means, censoring, motion),
        coverage,
        _known(confounds, motion, censoring),
        motion,
        None if further is None else factor * _placed(further, censoring, motion),
        tuple(covered_there for _, covered_there in more),
    )


def _motion(
    bold: NDArray[Any],
    censoring: Censoring,
    confounds: Mapping[str, Column] | None,
    n_dummy: int,
    max_bad_volumes: float,
) -> Motion:
    """Motion, and why volumes of the scan are bad, of a run (…, T')."""
    # without their mean, volumes have no brightness and no contrast to be judged by
    found = volumes.judge(volumes.summarise(bold), 0.0, of_images=False)
    reasons = np.full(len(censoring.present), "", dtype=found.dtype)
    reasons[censoring.present] = found
    reasons[censoring.censored] = CENSORED
    volumes.check_share(reasons, max_bad_volumes)
    good = reasons == ""
    check_length(len(reasons), n_dummy, good)
    known = confounds is not None and {*MOTION_NAMES, DISPLACEMENT} <= confounds.keys()
    parameters = motion_parameters(confounds) if known and confounds is not None else None
    return Motion(n_dummy, parameters, reasons=None if good.all() else reasons)


def _used(motion: Motion, censoring: Censoring) -> Mask:
    """(T',) which of the volumes that are present are good ones of the steady state."""
    used = np.arange(len(censoring.present)) >= motion.n_dummy
    used &= True if motion.good is None else motion.good
    return np.asarray(used[censoring.present])


def _placed(
    parcels: NDArray[np.float64], censoring: Censoring, motion: Motion
) -> NDArray[np.float64]:
    """The series (T', P) at the places of its volumes in the scan; NaN where it is not used."""
    placed = np.full((len(censoring.present), parcels.shape[1]), np.nan)
    used = _used(motion, censoring)
    rows = np.flatnonzero(censoring.present)[used]
    placed[rows] = parcels[used]
    return placed


def _known(
    confounds: Mapping[str, Column] | None, motion: Motion, censoring: Censoring
) -> dict[str, Column]:
    """The confounds that a raw run has too, without what bad volumes left in them.

    Censored volumes are its motion outliers.
    """
    if confounds is None or motion.parameters is None:
        return {}
    table = known_confounds(confounds) | motion_outlier_columns(censoring.censored)
    return table if motion.good is None else without_bad_volumes(table, motion.good, motion.n_dummy)
