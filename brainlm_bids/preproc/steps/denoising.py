"""Steps that clean a run: volumes and parcels in; components, decisions, denoised series out."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.parcels.sampling import interpolated
from brainlm_bids.preproc.affine import Matrix, grid_points, world_to_voxel
from brainlm_bids.preproc.denoising import aroma as rules
from brainlm_bids.preproc.denoising import temporal
from brainlm_bids.preproc.denoising.aroma import Mode
from brainlm_bids.preproc.denoising.dimension import (
    default_cap,
    effective_samples,
    estimate_dimension,
)
from brainlm_bids.preproc.denoising.fmriprep import confound_cleaning
from brainlm_bids.preproc.denoising.ica import Components, smooth_series, spatial_ica
from brainlm_bids.preproc.denoising.mixture import threshold_limits, threshold_maps
from brainlm_bids.preproc.registration.transforms import PointMap
from brainlm_bids.preproc.steps.functional import Mask, Motion
from brainlm_bids.preproc.steps.registration import AromaSamples

# ICA-AROMA smooths by 6 mm before the decomposition.
SMOOTHING_FWHM_MM = 6.0


@dataclass(frozen=True)
class Decisions:
    """ICA-AROMA's features and decision of K components, each (K,).

    Attributes
    ----------
    max_rp_corr, edge_fract, csf_fract, hfc
        The four features, see `aroma`.
    variance
        Explained variance, as a fraction.
    noise
        Whether the component is noise.
    reason
        By which threshold, as text.
    map_limits
        (K, 2) z below and above which a voxel belongs to the component's map, see
        `mixture.threshold_limits`; None in records of earlier versions.
    """

    max_rp_corr: NDArray[np.float64]
    edge_fract: NDArray[np.float64]
    csf_fract: NDArray[np.float64]
    hfc: NDArray[np.float64]
    variance: NDArray[np.float64]
    noise: Mask
    reason: NDArray[np.str_]
    map_limits: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Design:
    """Confounds to regress out of the steady-state volumes.

    Attributes
    ----------
    confounds
        (T', K), without NaN.
    names
        (K,).
    kept
        (T',) False for censored volumes.
    """

    confounds: NDArray[np.float64]
    names: NDArray[np.str_]
    kept: Mask


@dataclass(frozen=True)
class Denoised:
    """A denoised and filtered series.

    Attributes
    ----------
    series
        (T, P); NaN in non-steady and bad volumes and in parcels without data.
    cleaning
        (T', T') matrix that denoises and filters demeaned steady-state volumes. What it makes of
        good volumes does not depend on bad ones.
    """

    series: NDArray[np.float64]
    cleaning: NDArray[np.float64]


def decompose(
    bold: NDArray[Any],
    affine: Matrix,
    brain_mask: Mask,
    *,
    n_dummy: int = 0,
    factor: float = 1.0,
    fwhm: float = SMOOTHING_FWHM_MM,
    seed: int = 42,
    good: Mask | None = None,
) -> Components:
    """Decompose the smoothed steady-state volumes of a run by spatial ICA.

    Parameters
    ----------
    bold
        (X, Y, Z, T), realigned.
    affine
        (4, 4) voxel to RAS+ mm.
    brain_mask
        (X, Y, Z).
    n_dummy
        Volumes before the steady state; they are left out.
    factor
        That brings the run to a grand mean of 10000.
    fwhm
        Smoothing before the ICA, mm.
    seed
        Of the ICA's starts.
    good
        (T',) False for bad ones among the steady-state volumes, which are left out; None: all are
        good.

    Returns
    -------
    Components
        As many as the run holds by minimum description length. Their time courses are interpolated
        at bad volumes.
    """
    chosen, cap = None, None
    if good is not None:
        chosen = np.flatnonzero(good)
        # gaps do not change how finely a run is taken apart
        cap = default_cap(len(good[_first_to_last(good)]))
    series = smooth_series(bold[..., n_dummy:], affine, brain_mask, fwhm, chosen)
    del bold  # a run is large
    series *= factor
    samples = effective_samples(series, brain_mask)
    n_components = estimate_dimension(series, cap, samples)
    components = spatial_ica(series, n_components, seed)
    if good is None:
        return components
    mixing = np.zeros((len(good), components.mixing.shape[1]))
    mixing[good] = components.mixing
    return replace(components, mixing=interpolated(mixing, good))


def classify(
    components: Components,
    brain_mask: Mask,
    motion: Motion,
    aroma: AromaSamples,
    tr: float,
    *,
    seed: int = 42,
) -> Decisions:
    """Decide by ICA-AROMA's rule which components are noise.

    Parameters
    ----------
    components
        Of the steady-state volumes, see `decompose`.
    brain_mask
        (X, Y, Z), whose voxels the maps are of.
    motion
        Of all volumes, with parameters.
    aroma
        The masks' places in the run, see `project`.
    tr
        Repetition time, s.
    seed
        Of the random subsets over which correlations with motion are averaged.

    Returns
    -------
    Decisions
        Features, decision and reason of each component.

    References
    ----------
    Pruim RHR, Mennes M, van Rooij D, et al. (2015). ICA-AROMA: a robust ICA-based strategy for
    removing motion artifacts from fMRI data. NeuroImage 112:267.
    """
    if motion.parameters is None:
        raise ValueError("the motion parameters of the run are not known")
    mixing, parameters = components.mixing, motion.parameters[motion.n_dummy :]
    good = motion.good_steady
    if good is not None:
        kept = _first_to_last(good)
        mixing, parameters, good = mixing[kept], parameters[kept], good[kept]
    map_limits = threshold_limits(components.maps)
    thresholded = threshold_maps(components.maps, map_limits)
    # elsewhere all maps are 0, and add nothing to a sum
    whole = np.ones((1, thresholded.shape[1]), dtype=np.float32)
    near = rules.sample_maps(whole, brain_mask, aroma.voxels)[0] > 0
    maps = rules.sample_maps(thresholded, brain_mask, aroma.voxels[near])
    correlation = rules.max_rp_corr(mixing, parameters, seed, good=good)
    masks = (aroma.csf[near], aroma.edge[near], aroma.out[near])
    edge, csf = rules.edge_csf_fractions(maps, *masks)
    hfc = rules.high_frequency_content(mixing, tr)
    noise, reasons = rules.classify(correlation, edge, csf, hfc)
    variance = components.explained_variance
    reason = np.array(reasons)
    return Decisions(correlation, edge, csf, hfc, variance, noise, reason, map_limits)


def _first_to_last(good: Mask) -> slice:
    """From the first good volume to the last one."""
    known = np.flatnonzero(good)
    return slice(int(known[0]), int(known[-1]) + 1)


def denoise(
    parcels: NDArray[np.float64],
    tr: float,
    *,
    n_dummy: int = 0,
    high_pass: float = 100.0,
    low_pass: float | None = None,
    components: tuple[NDArray[np.float64], Mask] | None = None,
    mode: Mode = "nonaggr",
    design: Design | None = None,
    good: Mask | None = None,
) -> Denoised:
    """Remove noise components, or confounds, from series and filter them in time.

    Parameters
    ----------
    parcels
        (T, P), NaN in parcels without data. Bad volumes hold any finite values.
    tr
        Repetition time, s.
    n_dummy
        Volumes before the steady state; they become NaN.
    high_pass, low_pass
        Cut-offs, s; None: no low-pass filter.
    components
        Time courses (T', K) of the steady-state volumes, and (K,) whether each is noise.
    mode
        How they are removed: "nonaggr", "aggr", or "none".
    design
        Confounds to regress out instead of components.
    good
        (T',) False for bad ones among the steady-state volumes: they take no part in any fit, and
        become NaN; None: all are good.

    Returns
    -------
    Denoised
        The series, with the mean over time that it had, and the matrix that made it.

    Raises
    ------
    UserError
        If the confounds leave nothing of the series.

    Examples
    --------
    >>> drifting = np.linspace(0, 1, 60)[:, None] + np.array([5.0, np.nan])
    >>> cleaned = denoise(drifting, 2.0, n_dummy=2, components=None)
    >>> cleaned.series[2:].mean(axis=0).round(3), cleaned.cleaning.shape
    (array([5.517,   nan]), (58, 58))
    """
    steady = parcels[n_dummy:]
    cleaning = temporal.highpass_matrix(len(steady), tr, high_pass, good)
    if low_pass is not None:
        cleaning = temporal.gaussian_lowpass_matrix(len(steady), tr, low_pass, good) @ cleaning
    if design is not None:
        cleaning = confound_cleaning(design.confounds, design.kept, cleaning)
    elif components is not None:
        cleaning = cleaning @ rules.removal_matrix(*components, mode, good)
    return Denoised(clean(parcels, cleaning, n_dummy=n_dummy, good=good), cleaning)


def clean(
    parcels: NDArray[np.float64],
    cleaning: NDArray[np.float64],
    *,
    n_dummy: int = 0,
    good: Mask | None = None,
) -> NDArray[np.float64]:
    """Denoise and filter series by the matrix that was made for others of the same run.

    Parameters
    ----------
    parcels
        (T, P), NaN in parcels without data. Bad volumes hold any finite values.
    cleaning
        (T', T') matrix, see `Denoised`.
    n_dummy
        Volumes before the steady state; they become NaN.
    good
        (T',) False for bad ones among the steady-state volumes, which become NaN; None: all are
        good.

    Returns
    -------
    ndarray
        (T, P), with the mean over time that each series had.

    Examples
    --------
    >>> clean(np.array([[9.0], [1.0], [3.0]]), np.zeros((2, 2)), n_dummy=1).ravel()
    array([nan,  2.,  2.])
    """
    steady = parcels[n_dummy:]
    mean = steady.mean(axis=0) if good is None else steady[good].mean(axis=0)
    series = np.full(parcels.shape, np.nan)
    # FEAT adds the mean back, so that the series keeps its scale
    series[n_dummy:] = cleaning @ (steady - mean) + mean
    if good is not None:
        series[n_dummy:][~good] = np.nan
    return series


def resample_denoised(
    bold: NDArray[Any],
    affine: Matrix,
    brain_mask: Mask,
    cleaning: NDArray[np.float64],
    *,
    n_dummy: int,
    factor: float,
    shape: tuple[int, ...],
    grid: Matrix,
    pull: PointMap,
    good: Mask | None = None,
) -> NDArray[np.float32]:
    """Clean all voxels of a run as its parcels were, and resample them into template space.

    Parameters
    ----------
    bold
        (X, Y, Z, T), realigned.
    affine
        (4, 4) voxel to RAS+ mm.
    brain_mask
        (X, Y, Z); voxels outside are 0.
    cleaning
        (T', T') matrix, see `Denoised`.
    n_dummy
        Volumes before the steady state; they are left out.
    factor
        That brings the run to a grand mean of 10000.
    shape, grid
        Of the template: (X', Y', Z') and its affine (4, 4).
    pull
        Points (P, 3), RAS+ mm, of the template to those of the BOLD reference.
    good
        (T',) False for bad ones among the steady-state volumes, which are cut off at both ends and
        interpolated elsewhere; None: all are good.

    Returns
    -------
    (X', Y', Z', T'') float32, linearly interpolated.
    """
    series = bold[brain_mask].T[n_dummy:] * np.float32(factor)
    del bold  # a run is large
    mean = series.mean(axis=0) if good is None else series[good].mean(axis=0)
    series = cleaning.astype(np.float32) @ (series - mean) + mean
    if good is not None:
        series = interpolated(series, good)[_first_to_last(good)]
    voxels = world_to_voxel(pull(grid_points(shape, grid)), affine)
    sampled = rules.sample_maps(series, brain_mask, voxels)
    return np.moveaxis(sampled.reshape(-1, *shape), 0, 3)
