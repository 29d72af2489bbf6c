"""Image quality of a BOLD run, with the names and definitions of MRIQC.

What concerns one image takes the mean of a run (X, Y, Z), what concerns time takes the series of
its brain's voxels (T, V): realigned, without the volumes before the steady state and without bad
ones. The numbers are those of MRIQC's functions on the same arrays; those that MRIQC takes from
AFNI's programs follow the programs' published definitions.

References
----------
Esteban O, Birman D, Schaer M, Koyejo OO, Poldrack RA, Gorgolewski KJ (2017). MRIQC: advancing the
automatic prediction of image quality in MRI from unseen sites. PLoS ONE 12:e0184661.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Voxels are taken in blocks, so that no second copy of a long run is made.
BLOCK_VOXELS = 8_192
# Values that AFNI's 3dToutcount calls outliers occur by chance in this share of the voxels' series.
OUTLIER_CHANCE = 0.001
# Pairs of neighbours that AFNI's 3dFWHMx needs for a variance.
FEWEST_PAIRS = 36
# MRIQC rounds values to whole numbers; where they are smaller, that would change the result.
LEAST_ROUNDED = 100.0
# Below this energy of the background there is no signal outside the brain.
LEAST_BACKGROUND = 1e-3
SIGMA_TO_FWHM = float(np.sqrt(8 * np.log(2)))


def moments(
    bold: NDArray[Any], n_dummy: int = 0, good: Mask | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation over time of every voxel, volume by volume.

    Parameters
    ----------
    bold
        (X, Y, Z, T).
    n_dummy
        Volumes before the steady state, which are left out.
    good
        (T,) False for bad volumes, which are left out; None: all are good.

    Returns
    -------
    mean, deviation
        (X, Y, Z) float32; 0 where a value is not finite.

    Examples
    --------
    >>> mean, deviation = moments(np.array([[[[9.0, 1.0, 3.0]]]]), n_dummy=1)
    >>> float(mean[0, 0, 0]), float(deviation[0, 0, 0])
    (2.0, 1.0)
    """
    used = [t for t in range(n_dummy, bold.shape[3]) if good is None or good[t]]
    mean = np.zeros_like(bold[..., 0], dtype=np.float64)
    squares = np.zeros_like(mean)
    with np.errstate(invalid="ignore", over="ignore"):
        for t in used:
            mean += bold[..., t]
        mean /= max(len(used), 1)
        for t in used:
            squares += (bold[..., t] - mean) ** 2
        deviation = np.sqrt(squares / max(len(used), 1))
    known = np.isfinite(deviation) & np.isfinite(mean)
    return (
        np.where(known, mean, 0).astype(np.float32),
        np.where(known, deviation, 0).astype(np.float32),
    )


def temporal_snr(mean: NDArray[Any], deviation: NDArray[Any]) -> NDArray[np.float32]:
    """Temporal signal-to-noise ratio: mean over standard deviation, 0 where nothing varies.

    Parameters
    ----------
    mean, deviation
        Of each voxel over time, any shape.

    Returns
    -------
    ndarray
        Of the same shape; MRIQC reports the median over the brain.

    References
    ----------
    Krüger G, Glover GH (2001). Physiological noise in oxygenation-sensitive magnetic resonance
    imaging. Magn Reson Med 46:631.

    Examples
    --------
    >>> temporal_snr(np.array([1000.0, 7.0]), np.array([10.0, 0.0]))
    array([100.,   0.], dtype=float32)
    """
    mean, deviation = np.asarray(mean, dtype=np.float64), np.asarray(deviation, dtype=np.float64)
    # float32 does not hold smaller differences
    varies = deviation > 1e-6 * np.abs(mean)
    ratio = np.divide(mean, deviation, out=np.zeros_like(mean), where=varies)
    return np.asarray(ratio, dtype=np.float32)


def global_correlation(series: NDArray[Any]) -> float:
    """Mean correlation of all pairs of voxels, each with itself included (AFNI's @compute_gcor).

    Parameters
    ----------
    series
        (T, V).

    Returns
    -------
    float
        Sum of squares of the mean of the demeaned series of length 1; a constant voxel counts as 0.

    References
    ----------
    Saad ZS, Reynolds RC, Jo HJ, Gotts SJ, Chen G, Martin A, Cox RW (2013). Correcting brain-wide
    correlation differences in resting-state FMRI. Brain Connectivity 3:339.

    Examples
    --------
    >>> course = np.sin(np.arange(20.0))
    >>> round(global_correlation(np.stack([course, 3 * course, -course], axis=1)), 3)
    0.111
    """
    total, n_voxels = np.zeros(len(series)), series.shape[1]
    for first in range(0, n_voxels, BLOCK_VOXELS):
        block = series[:, first : first + BLOCK_VOXELS].astype(np.float64)
        block -= block.mean(axis=0)
        length = np.sqrt(np.einsum("tv,tv->v", block, block))
        weight = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
        total += block @ weight
    return float((total / max(n_voxels, 1)) @ (total / max(n_voxels, 1)))


def outlier_fractions(series: NDArray[Any]) -> FloatArray:
    """Share of the voxels that are outliers in each volume, as AFNI's 3dToutcount counts them.

    Parameters
    ----------
    series
        (T, V).

    Returns
    -------
    ndarray
        (T,) share of voxels further than alpha · sqrt(π/2) · MAD from their median over time; MAD
        is the median absolute deviation, and alpha the value that a standard normal variable
        exceeds with probability 0.001 / T. MRIQC's `aor` is the mean over volumes.

    Examples
    --------
    >>> series = np.tile([[1.0], [-1.0], [2.0], [-2.0], [0.0]], (8, 4))
    >>> series[5, 0] = 99.0
    >>> np.flatnonzero(outlier_fractions(series)), outlier_fractions(series).max()
    (array([5]), np.float64(0.25))
    """
    n_volumes, n_voxels = series.shape
    limit = float(norm.isf(OUTLIER_CHANCE / max(n_volumes, 1)) * np.sqrt(np.pi / 2))
    counts = np.zeros(n_volumes)
    for first in range(0, n_voxels, BLOCK_VOXELS):
        # along the last axis, where sorting is quick
        block = np.ascontiguousarray(series[:, first : first + BLOCK_VOXELS].T)
        far = np.abs(block - _middle(block)[:, None])
        spread = _middle(far)
        counts += ((far > limit * spread[:, None]) & (spread > 0)[:, None]).sum(axis=0)
    return np.asarray(counts / max(n_voxels, 1))


def quality_index(series: NDArray[Any]) -> FloatArray:
    """Difference of each volume from the median one, as AFNI's 3dTqual has it.

    Parameters
    ----------
    series
        (T, V).

    Returns
    -------
    ndarray
        (T,) 1 minus Spearman's rank correlation over voxels with the median over time. MRIQC's
        `aqi` is the mean over volumes.

    Examples
    --------
    >>> quality_index(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])).round(6)
    array([0., 0., 2.])
    """
    n_voxels = series.shape[1]
    typical = np.empty(n_voxels, dtype=np.float32)
    for first in range(0, n_voxels, BLOCK_VOXELS):
        block = slice(first, first + BLOCK_VOXELS)
        typical[block] = _middle(np.ascontiguousarray(series[:, block].T))
    reference = _ranks(typical)
    return np.array([1 - _correlation(_ranks(volume), reference) for volume in series])


def smoothness(image: NDArray[Any], mask: Mask) -> FloatArray:
    """Full widths at half maximum of an image, from differences of neighbours (AFNI's 3dFWHMx).

    Parameters
    ----------
    image
        (X, Y, Z).
    mask
        (X, Y, Z) of the voxels that count.

    Returns
    -------
    ndarray
        (3,) in voxels, along the image's axes; NaN where it cannot be computed. MRIQC applies the
        classic estimate of 3dFWHMx to the mean of a run, and divides by the size of a voxel.

    References
    ----------
    Forman SD, Cohen JD, Fitzgerald M, Eddy WF, Mintun MA, Noll DC (1995). Improved assessment of
    significant activation in functional magnetic resonance imaging (fMRI): use of a cluster-size
    threshold. Magn Reson Med 33:636.
    """
    values = np.asarray(image, dtype=np.float64)
    widths = np.full(3, np.nan)
    inside = values[mask]
    variance = inside.var(ddof=1) if inside.size > 1 else 0.0
    if not variance > 0:
        return widths
    for axis in range(3):
        pairs = np.diff(mask.astype(np.int8), axis=axis) == 0
        pairs &= np.take(mask, range(mask.shape[axis] - 1), axis=axis)
        differences = np.diff(values, axis=axis)[pairs]
        if differences.size < FEWEST_PAIRS:
            continue
        correlation = 1 - 0.5 * differences.var(ddof=1) / variance
        if 0 < correlation < 1:
            widths[axis] = SIGMA_TO_FWHM * np.sqrt(-0.25 / np.log(correlation))
    return widths


def ghost_to_signal(image: NDArray[Any], mask: Mask, axis: int) -> float:
    """Ghost-to-signal ratio along an axis: MRIQC's ``gsr``.

    Parameters
    ----------
    image
        (X, Y, Z), mean of a run.
    mask
        (X, Y, Z), its brain.
    axis
        Along which the ghost would be shifted by half of the field of view.

    Returns
    -------
    float
        Mean at the place of the ghost minus mean of the other background, over the median of the
        brain; NaN where one of them is empty.

    References
    ----------
    Giannelli M, Diciotti S, Tessa C, Mascalchi M (2010). Characterization of Nyquist ghost in
    EPI-fMRI acquisition sequences implemented on two clinical 1.5 T MR scanner systems. J Appl Clin
    Med Phys 11:3237.
    """
    ghost = np.roll(mask, mask.shape[axis] // 2, axis=axis) & ~mask
    background = ~mask & ~ghost
    if not (ghost.any() and background.any() and mask.any()):
        return float("nan")
    signal = float(np.median(image[mask]))
    difference = float(image[ghost].mean() - image[background].mean())
    return difference / signal if signal else float("nan")


def entropy_focus(image: NDArray[Any]) -> float:
    """Entropy focus criterion of an image, relative to the largest possible: MRIQC's ``efc``.

    Parameters
    ----------
    image
        (X, Y, Z), none negative.

    Returns
    -------
    float
        0: all energy in one voxel; 1: equal values everywhere; NaN for an empty image.

    References
    ----------
    Atkinson D, Hill DL, Stoyle PN, Summers PE, Keevil SF (1997). Automatic correction of motion
    artifacts in magnetic resonance images using an entropy focus criterion. IEEE Trans Med Imaging
    16:903.

    Examples
    --------
    >>> round(entropy_focus(np.ones((4, 4, 4))), 6)
    1.0
    """
    values = np.asarray(image, dtype=np.float64)
    energy = float(np.sqrt((values**2).sum()))
    if energy == 0 or values.size < 2:
        return float("nan")
    shares = values[values > 0] / energy
    largest = -0.5 * np.sqrt(values.size) * np.log(values.size)
    return float((shares * np.log(shares)).sum() / largest)


def foreground_to_background(image: NDArray[Any], mask: Mask) -> float:
    """Ratio of the median energies of brain and background: MRIQC's ``fber``.

    Parameters
    ----------
    image
        (X, Y, Z), mean of a run.
    mask
        (X, Y, Z), its brain.

    Returns
    -------
    float
        NaN where there is no signal outside the brain; MRIQC writes -1 there.
    """
    if mask.all() or not mask.any():
        return float("nan")
    values = np.asarray(image, dtype=np.float64) ** 2
    background = float(np.median(values[~mask]))
    if background < LEAST_BACKGROUND:
        return float("nan")
    return float(np.median(values[mask])) / background


def signal_to_noise(image: NDArray[Any], mask: Mask) -> float:
    """Median over standard deviation of the voxels of the brain in one image: MRIQC's ``snr``.

    Parameters
    ----------
    image
        (X, Y, Z), mean of a run.
    mask
        (X, Y, Z), its brain.

    Returns
    -------
    float
        NaN where the brain has one value only. Values are rounded to whole numbers first, as MRIQC
        does, unless the median is so small that rounding would matter.
    """
    values = np.asarray(image, dtype=np.float64)[mask]
    if values.size < 2:
        return float("nan")
    if float(np.median(values)) >= LEAST_ROUNDED:
        values = np.round(values)
    deviation = float(values.std()) * np.sqrt(values.size / (values.size - 1))
    return float(np.median(values)) / deviation if deviation > 0 else float("nan")


def _middle(values: NDArray[Any]) -> NDArray[Any]:
    """(V,) medians of rows (V, T); sorting is quicker than `np.median`."""
    ordered = np.sort(values, axis=1)
    middle = ordered.shape[1] // 2
    if ordered.shape[1] % 2:
        return np.asarray(ordered[:, middle])
    return np.asarray((ordered[:, middle - 1] + ordered[:, middle]) / 2)


def _ranks(values: NDArray[Any]) -> FloatArray:
    """(V,) ranks from 0, equal values with their mean rank; quicker than scipy's `rankdata`."""
    order = np.argsort(values)
    ordered = values[order]
    ranks = np.arange(len(order), dtype=np.float64)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    if len(starts) < len(order):
        sizes = np.diff(np.append(starts, len(order)))
        ranks = np.repeat(starts + (sizes - 1) / 2, sizes)
    result = np.empty(len(order))
    result[order] = ranks
    return result


def _correlation(a: FloatArray, b: FloatArray) -> float:
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0 else float("nan")
