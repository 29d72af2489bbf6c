"""ICA-AROMA: features of components, the decision which are noise, and their removal.

Components are time courses (T, K) and thresholded maps (K, V). Motion parameters are (T, 6) in mm
and radians, times in seconds. The removal of components is a (T, T) matrix, so that it applies to
unsmoothed voxels, parcels and confounds alike.
"""

import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from brainlm_bids.preproc.denoising.ica import Bool, Float

Mode = Literal["nonaggr", "aggr", "none"]

# Decision of ICA-AROMA: Pruim et al. 2015, NeuroImage 112:267, and maartenmennes/ICA-AROMA,
# ICA_AROMA_functions.py, lines 484-494.
CSF_THRESHOLD = 0.10
HFC_THRESHOLD = 0.35
HYPERPLANE = (-19.9751070082159, 9.95127547670627, 24.8333160239175)
HFC_LOWEST_HZ = 0.01


def sample_maps(maps: Float, mask: Bool, voxels: NDArray[np.floating]) -> NDArray[np.float32]:
    """Sample maps at voxel coordinates, by linear interpolation.

    Parameters
    ----------
    maps
        (K, V) values at the voxels of the mask.
    mask
        (X, Y, Z), V of its voxels are True.
    voxels
        (N, 3) voxel coordinates.

    Returns
    -------
    ndarray
        (K, N) float32; 0 outside the mask.

    Examples
    --------
    >>> sample_maps(np.array([[1.0, 3.0]]), np.ones((1, 1, 2), bool), np.array([[0.0, 0.0, 0.5]]))
    array([[2.]], dtype=float32)
    """
    sampled = np.empty((len(maps), len(voxels)), dtype=np.float32)
    volume = np.zeros(mask.shape, dtype=np.float32)
    for k, values in enumerate(maps):
        volume[mask] = values
        map_coordinates(volume, voxels.T, output=sampled[k], order=1, mode="constant")
    return sampled


def max_rp_corr(
    mixing: Float,
    parameters: Float,
    seed: int,
    *,
    n_splits: int = 1000,
    subsets: NDArray[np.integer] | None = None,
    good: Bool | None = None,
) -> NDArray[np.float64]:
    """AROMA's maximum correlation of time courses with a motion model, 0 to 1.

    The model has 36 columns: the 6 parameters, their backward differences, and both one volume
    later and earlier. Time courses are correlated with them, and squared time courses with squared
    columns. The largest |r| is averaged over random subsets of 90 % of the volumes.

    Parameters
    ----------
    mixing
        (T, K) time courses.
    parameters
        (T, 6) motion parameters.
    seed
        Seed of the random subsets.
    n_splits
        Number of subsets.
    subsets
        (S, n) indices of volumes; given subsets in place of random ones.
    good
        (T,) False for volumes that are left out; None: all are good. Subsets are of the others.

    Returns
    -------
    ndarray
        (K,). Columns without variance in a subset are ignored there; 0 if no column ever varies.

    Raises
    ------
    ValueError
        If the numbers of volumes disagree.

    References
    ----------
    Pruim RHR, Mennes M, van Rooij D, et al. (2015). ICA-AROMA: a robust ICA-based strategy for
    removing motion artifacts from fMRI data. NeuroImage 112:267. In the original code:
    ICA_AROMA_functions.py, lines 214-277.
    """
    model = motion_model(parameters)
    n_volumes = mixing.shape[0]
    if model.shape[0] != n_volumes:
        raise ValueError(f"{n_volumes} volumes in the mixing, {model.shape[0]} in the parameters")
    if good is not None:
        mixing, model, n_volumes = mixing[good], model[good], int(good.sum())
    if subsets is None:
        subsets = _random_subsets(n_volumes, n_splits, seed)
    chosen = np.zeros((subsets.shape[0], n_volumes))
    np.put_along_axis(chosen, subsets, 1.0, axis=1)
    courses = np.asarray(mixing, dtype=np.float64)
    largest = np.fmax(
        _largest_correlation(chosen, courses, model),
        _largest_correlation(chosen, courses**2, model**2),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nan_to_num(np.nanmean(largest, axis=0), nan=0.0))


def motion_model(parameters: Float) -> NDArray[np.float64]:
    """Expand motion parameters to AROMA's model.

    Parameters
    ----------
    parameters
        (T, 6).

    Returns
    -------
    ndarray
        (T, 36): the parameters and their backward differences; then the same one volume later;
        then one volume earlier.

    Examples
    --------
    >>> motion_model(np.ones((3, 6)))[:, [0, 6, 12, 24]]
    array([[1., 0., 0., 1.],
           [1., 0., 1., 1.],
           [1., 0., 1., 0.]])
    """
    rp6 = np.asarray(parameters, dtype=np.float64)
    rp12 = np.hstack([rp6, np.diff(rp6, axis=0, prepend=rp6[:1])])
    empty = np.zeros((1, rp12.shape[1]))
    return np.hstack([rp12, np.vstack([empty, rp12[:-1]]), np.vstack([rp12[1:], empty])])


def _random_subsets(n_volumes: int, n_splits: int, seed: int) -> NDArray[np.int64]:
    n_chosen = round(0.9 * n_volumes)
    order = np.tile(np.arange(n_volumes), (n_splits, 1))
    return np.random.default_rng(seed).permuted(order, axis=1)[:, :n_chosen]


def _largest_correlation(chosen: Float, a: Float, b: Float) -> NDArray[np.float64]:
    """Largest |r| of each column of a (T, K) with any of b (T, R) in each subset (S, T): (S, K).

    Sums over subsets are matrix products. Columns are standardised over all volumes first, so
    that differences of sums lose no digits.
    """
    a, b = _standardise(a), _standardise(b)
    n = chosen.sum(axis=1, keepdims=True)
    sum_a, sum_b = chosen @ a, chosen @ b
    var_a, var_b = chosen @ a**2 - sum_a**2 / n, chosen @ b**2 - sum_b**2 / n
    # relative to a variance of 1 per volume: below this, a column is constant in the subset
    var_a[var_a <= 1e-10 * n], var_b[var_b <= 1e-10 * n] = np.nan, np.nan
    largest = np.full(sum_a.shape, np.nan)
    for r in range(b.shape[1]):
        cross = chosen @ (a * b[:, r : r + 1]) - sum_a * sum_b[:, r : r + 1] / n
        largest = np.fmax(largest, np.abs(cross) / np.sqrt(var_a * var_b[:, r : r + 1]))
    return largest


def _standardise(x: Float) -> NDArray[np.float64]:
    centred = x - x.mean(axis=0)
    deviation = centred.std(axis=0)
    constant = deviation <= 1e-12 * np.maximum(np.abs(x).max(axis=0), 1e-300)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, deviation))


def edge_csf_fractions(
    maps: Float, csf: Float | Bool, edge: Float | Bool, out: Float | Bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AROMA's spatial features: how much of a map lies at the edge of the brain and in CSF.

    csf_fract = Σ|z| in CSF / Σ|z|; edge_fract = (Σ|z| outside the brain + Σ|z| at its edge) /
    (Σ|z| - Σ|z| in CSF).

    Parameters
    ----------
    maps
        (K, V) thresholded z maps.
    csf, edge, out
        (V,) AROMA's masks at the same voxels, as bool or as a fraction of each voxel.

    Returns
    -------
    edge_fract, csf_fract
        (K,) each, 0 for an empty map.

    Raises
    ------
    ValueError
        If masks and maps have different numbers of voxels.

    Examples
    --------
    >>> csf, edge, out = np.eye(3)
    >>> edge_csf_fractions(np.array([[2.0, 1.0, 1.0]]), csf, edge, out)
    (array([1.]), array([0.5]))
    """
    weights = np.stack([np.asarray(m, dtype=np.float64) for m in (csf, edge, out)], axis=1)
    if weights.shape[0] != maps.shape[1]:
        raise ValueError(f"{weights.shape[0]} voxels in the masks, {maps.shape[1]} in the maps")
    magnitude = np.abs(np.asarray(maps, dtype=np.float64))
    total = magnitude.sum(axis=1)
    in_csf, in_edge, in_out = (magnitude @ weights).T
    rest = total - in_csf
    csf_fract = np.divide(in_csf, total, out=np.zeros_like(total), where=total > 0)
    outside_csf = rest > 1e-9 * total
    edge_fract = np.divide(in_edge + in_out, rest, out=np.zeros_like(total), where=outside_csf)
    return edge_fract, csf_fract


def high_frequency_content(mixing: Float, tr: float) -> NDArray[np.float64]:
    """AROMA's high-frequency content: the frequency that halves the power, from 0 to 1.

    Parameters
    ----------
    mixing
        (T, K) time courses.
    tr
        Repetition time, s.

    Returns
    -------
    ndarray
        (K,): 0 is 0.01 Hz, 1 the Nyquist frequency; power below 0.01 Hz is ignored.

    Raises
    ------
    ValueError
        If no frequency is above 0.01 Hz.

    Notes
    -----
    The spectrum is that of MELODIC's melodic_FTmix: |DFT|² without the DC row, an odd number of
    volumes padded with one 0; row i of F is the frequency Nyquist · i / F.

    Examples
    --------
    An impulse has a flat spectrum.

    >>> high_frequency_content(np.eye(100)[:, :1], tr=2.0).round(2)
    array([0.5])
    """
    courses = np.asarray(mixing, dtype=np.float64)
    n_padded = courses.shape[0] + courses.shape[0] % 2
    power = np.abs(np.fft.rfft(courses, n=n_padded, axis=0)[1:]) ** 2
    nyquist = 0.5 / tr
    frequency = nyquist * np.arange(1, power.shape[0] + 1) / power.shape[0]
    kept = frequency > HFC_LOWEST_HZ
    if not kept.any():
        raise ValueError(f"no frequency above {HFC_LOWEST_HZ} Hz at a TR of {tr} s")
    power, frequency = power[kept], frequency[kept]
    cumulative = np.cumsum(power, axis=0)
    fraction = cumulative / np.maximum(cumulative[-1], 1e-300)
    half = np.argmin(np.abs(fraction - 0.5), axis=0)
    return np.asarray(((frequency - HFC_LOWEST_HZ) / (nyquist - HFC_LOWEST_HZ))[half])


def classify(
    max_rp_corr: Float, edge_fract: Float, csf_fract: Float, hfc: Float
) -> tuple[Bool, list[str]]:
    """AROMA's decision which components are noise.

    A component is noise if csf_fract > 0.10, or hfc > 0.35, or
    -19.975 + 9.951·max_rp_corr + 24.833·edge_fract > 0.

    Parameters
    ----------
    max_rp_corr, edge_fract, csf_fract, hfc
        (K,) features, see the functions above.

    Returns
    -------
    noise
        (K,) bool.
    reasons
        K texts that name the thresholds that were exceeded.

    References
    ----------
    Pruim RHR, et al. (2015). NeuroImage 112:267; ICA_AROMA_functions.py, lines 484-494.

    Examples
    --------
    >>> noise, reasons = classify([0.2, 0.2], [0.1, 0.1], [0.0, 0.5], [0.1, 0.1])
    >>> noise, reasons
    (array([False,  True]), ['below every threshold', 'csf_fract 0.500 > 0.10'])
    """
    correlation, edge = np.asarray(max_rp_corr, float), np.asarray(edge_fract, float)
    csf, high = np.asarray(csf_fract, float), np.asarray(hfc, float)
    score = HYPERPLANE[0] + HYPERPLANE[1] * correlation + HYPERPLANE[2] * edge
    noise = (csf > CSF_THRESHOLD) | (high > HFC_THRESHOLD) | (score > 0)
    reasons = [_reason(c, h, s) for c, h, s in zip(csf, high, score, strict=True)]
    return noise, reasons


def _reason(csf: float, hfc: float, score: float) -> str:
    found = []
    if csf > CSF_THRESHOLD:
        found.append(f"csf_fract {csf:.3f} > {CSF_THRESHOLD:.2f}")
    if hfc > HFC_THRESHOLD:
        found.append(f"HFC {hfc:.3f} > {HFC_THRESHOLD:.2f}")
    if score > 0:
        found.append(f"motion and edge score {score:.3f} > 0")
    return "; ".join(found) or "below every threshold"


def removal_matrix(
    mixing: Float, noise: Bool, mode: Mode, good: Bool | None = None
) -> NDArray[np.float64]:
    """Make the matrix that removes noise components from a series and keeps its mean.

    Parameters
    ----------
    mixing
        (T, K) time courses; they are demeaned first.
    noise
        (K,) bool.
    mode
        "nonaggr": fit all time courses and subtract the noise part of the fit. "aggr": fit and
        subtract the noise alone. Both as in fsl_regfilt. "none": remove nothing.
    good
        (T,) False for volumes that take no part in the fit; None: all are good.

    Returns
    -------
    ndarray
        R (T, T), to be applied as R @ series (T, P). The identity with "none", when no component
        is noise, and when all are.

    Raises
    ------
    ValueError
        If the mode is unknown, or the numbers of components disagree.

    Examples
    --------
    >>> courses = np.array([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]])
    >>> cleaned = removal_matrix(courses, np.array([True, False]), "aggr") @ courses
    >>> bool(np.allclose(cleaned[:, 0], 0))
    True
    """
    if mode not in ("nonaggr", "aggr", "none"):
        raise ValueError(f"unknown mode {mode!r}: nonaggr, aggr or none")
    bad = np.asarray(noise, dtype=bool)
    courses = np.asarray(mixing, dtype=np.float64)
    if bad.shape != courses.shape[1:]:
        raise ValueError(f"{bad.size} decisions for {courses.shape[1]} components")
    identity = np.eye(courses.shape[0])
    if mode == "none" or not bad.any() or bad.all():
        return identity
    used = courses if good is None else courses[good]
    courses, used = courses - used.mean(axis=0), used - used.mean(axis=0)
    noisy = courses[:, bad]
    fit = np.linalg.pinv(used[:, bad]) if mode == "aggr" else np.linalg.pinv(used)[bad]
    if good is None:
        return np.asarray(identity - noisy @ fit)
    identity[:, good] -= noisy @ fit
    return identity
