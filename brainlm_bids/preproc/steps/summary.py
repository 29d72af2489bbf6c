"""What the tables and figures of a run show beside its series: one step computes all of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.parcels.connectivity import pearson
from brainlm_bids.parcels.sampling import rows_with_data
from brainlm_bids.parcels.steps import Scaled
from brainlm_bids.preproc.denoising.confounds import MOTION_OUTLIER
from brainlm_bids.preproc.denoising.ica import Components
from brainlm_bids.preproc.steps.denoising import Decisions
from brainlm_bids.preproc.steps.functional import Mask, Motion

Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Movement:
    """How much the head moved in the good volumes of the steady state.

    Attributes
    ----------
    mean_fd
        Mean framewise displacement, mm.
    translation, rotation
        Largest distance, mm, and largest angle about one axis, degrees, from the first volume.
    n_outliers
        Volumes that are marked as motion outliers.
    """

    mean_fd: float
    translation: float
    rotation: float
    n_outliers: int


@dataclass(frozen=True)
class SeriesSummary:
    """Numbers about the denoised series of the parcels of any atlas.

    Attributes
    ----------
    connectivity
        (P, P) Pearson correlations.
    missing
        (P,) True for parcels without a series.
    demeaned_sd
        Standard deviation over all parcels and volumes, without the means of the parcels; None
        where there is no value.
    """

    connectivity: NDArray[np.float64]
    missing: Mask
    demeaned_sd: float | None


@dataclass(frozen=True)
class Summary:
    """Numbers about a run that has been denoised and scaled.

    Attributes
    ----------
    connectivity
        (424, 424) Pearson correlations of the denoised series.
    missing
        (424,) True for parcels without a denoised series.
    demeaned_sd, robust_sd
        Standard deviation over all parcels and volumes of the denoised series without its means,
        and of the scaled one; None where there is no value.
    movement
        None where motion or confounds are not known.
    confounds
        Columns (T,), with those of the components that are noise.
    mixing
        (T, K) time courses of the components, NaN before the steady state and in bad volumes;
        None without an ICA.
    """

    connectivity: NDArray[np.float64]
    missing: Mask
    demeaned_sd: float | None
    robust_sd: float | None
    movement: Movement | None = None
    confounds: Columns = field(default_factory=dict)
    mixing: NDArray[np.float64] | None = None


def summarise_series(denoised: NDArray[np.float64], n_dummy: int) -> SeriesSummary:
    """Compute what the tables of a parcellation show beside its series.

    Parameters
    ----------
    denoised
        (T, P), NaN before the steady state, in bad volumes and in parcels without data.
    n_dummy
        Volumes before the steady state.

    Returns
    -------
    SeriesSummary
        Of the good volumes of the steady state.
    """
    steady = denoised[n_dummy:]
    good = rows_with_data(steady)
    steady = steady if good.all() else steady[good]
    missing = np.asarray(np.isnan(steady).any(axis=0))
    return SeriesSummary(pearson(steady), missing, _deviation(steady - steady.mean(axis=0)))


def summarise(
    denoised: NDArray[np.float64],
    robust: Scaled,
    motion: Motion,
    *,
    confounds: Mapping[str, NDArray[np.float64]] | None = None,
    components: Components | None = None,
    decisions: Decisions | None = None,
) -> Summary:
    """Compute what the tables and figures of a run show beside its series.

    Parameters
    ----------
    denoised
        (T, 424), NaN before the steady state, in bad volumes and in parcels without data.
    robust
        The same run as models see it.
    motion
        Of the run.
    confounds
        Columns (T,) with fMRIPrep's names, if they are known.
    components, decisions
        Of ICA-AROMA, both or neither.

    Returns
    -------
    Summary
        See there.
    """
    series = summarise_series(denoised, motion.n_dummy)
    columns = dict(confounds or {})
    mixing = None
    if components is not None and decisions is not None:
        mixing = _padded(components.mixing, motion)
        columns |= _noise_columns(components.mixing, decisions.noise, motion.n_dummy)
    return Summary(
        series.connectivity,
        series.missing,
        series.demeaned_sd,
        _deviation(robust.series[:, ~robust.filled]),
        None if confounds is None else _movement(motion, confounds),
        columns,
        mixing,
    )


def _movement(motion: Motion, confounds: Mapping[str, NDArray[np.float64]]) -> Movement | None:
    if motion.parameters is None:
        return None
    parameters, good = motion.parameters[motion.n_dummy :], motion.good_steady
    parameters = parameters if good is None else parameters[good]
    moved = parameters - parameters[0]
    return Movement(
        # the first volume of the steady state is compared with one before it
        float(np.nanmean(confounds["framewise_displacement"][motion.n_dummy + 1 :])),
        float(np.linalg.norm(moved[:, :3], axis=1).max()),
        float(np.degrees(np.abs(moved[:, 3:]).max())),
        sum(name.startswith(MOTION_OUTLIER) for name in confounds),
    )


def _noise_columns(mixing: NDArray[np.float64], noise: Mask, n_dummy: int) -> Columns:
    """Time courses (T,) of the components that are noise, by fMRIPrep's names."""
    # fMRIPrep fills the non-steady volumes of these columns with 0 too
    filled = np.concatenate([np.zeros((n_dummy, mixing.shape[1])), mixing])
    return {f"aroma_motion_{k + 1:02d}": filled[:, k] for k in np.flatnonzero(noise)}


def _padded(mixing: NDArray[np.float64], motion: Motion) -> NDArray[np.float64]:
    """Time courses (T, K) over all volumes, of those (T', K) of the steady state."""
    padded = np.full((motion.n_dummy + len(mixing), mixing.shape[1]), np.nan)
    padded[motion.n_dummy :] = mixing
    if motion.good is not None:
        padded[~motion.good] = np.nan
    return padded


def _deviation(values: NDArray[np.float64]) -> float | None:
    known = values[:, np.isfinite(values).all(axis=0)]
    return float(known.std()) if known.size else None
