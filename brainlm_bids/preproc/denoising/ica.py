"""Spatial ICA: a series (T, V) of brain voxels becomes time courses (T, K) and z maps (K, V).

The series is smoothed (6 mm) and scaled to a grand mean of 10000.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from brainlm_bids.preproc.affine import nearest_rotation, voxel_sizes

Float = NDArray[np.floating]
Bool = NDArray[np.bool_]

# MELODIC's variance normalisation: coefficients of the first 30 principal components below 2.3
# standard deviations count as noise (`--vn` with its default level).
VARNORM_COMPONENTS = 30
VARNORM_LEVEL = 2.3

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Components:
    """Components of one run, ordered by explained variance, maps with a positive skew.

    Attributes
    ----------
    mixing
        (T, K) float64 time courses with mean 0; mixing @ unscaled maps explains the normalised
        series.
    maps
        (K, V) float32, z.
    explained_variance
        (K,) fraction of the variance of the normalised series.
    converged
        Whether the start that was kept converged.
    n_iter
        Its number of iterations.
    n_starts
        How many starts were made.
    """

    mixing: NDArray[np.float64]
    maps: NDArray[np.float32]
    explained_variance: NDArray[np.float64]
    converged: bool
    n_iter: int
    n_starts: int


def smooth_series(
    bold: Float,
    affine: NDArray[np.float64],
    mask: Bool,
    fwhm: float,
    chosen: NDArray[np.integer] | None = None,
) -> NDArray[np.float32]:
    """Smooth a run inside a mask and return the series of the mask's voxels.

    Smoothing is normalised by the smoothed mask, so that values outside do not darken the edge of
    the brain (as in FSL's and nilearn's masked smoothing).

    Parameters
    ----------
    bold
        (X, Y, Z, T).
    affine
        (4, 4) voxel to RAS+ mm.
    mask
        (X, Y, Z).
    fwhm
        Full width at half maximum of the Gaussian, mm.
    chosen
        (T',) indices of the volumes to take; None: all.

    Returns
    -------
    ndarray
        (T', V) float32.

    Examples
    --------
    >>> smooth_series(np.full((2, 2, 2, 1), 3.0), np.eye(4), np.ones((2, 2, 2), bool), 2.0)[0, :2]
    array([3., 3.], dtype=float32)
    """
    sigma = fwhm / np.sqrt(8 * np.log(2.0)) / voxel_sizes(affine)
    inside = mask.astype(np.float32)
    weight = gaussian_filter(inside, sigma)[mask]
    volumes = np.arange(bold.shape[3]) if chosen is None else chosen
    series = np.empty((len(volumes), int(mask.sum())), dtype=np.float32)
    for row, t in enumerate(volumes):
        # chosen, not multiplied: voxels outside need not hold numbers
        volume = np.where(mask, np.asarray(bold[..., t], dtype=np.float32), np.float32(0))
        series[row] = gaussian_filter(volume, sigma)[mask] / weight
    return series


def normalise_variance(series: Float) -> NDArray[np.float32]:
    """Remove each voxel's mean over time and divide by its noise, as MELODIC does.

    The noise is what remains without the strong part of the first 30 principal components (voxel
    scores above 2.3 standard deviations), so that voxels with much structure keep their weight.

    Parameters
    ----------
    series
        (T, V).

    Returns
    -------
    ndarray
        (T, V) float32; constant and non-finite voxels are 0.
    """
    x = np.asarray(series, dtype=np.float32)
    x = x - x.mean(axis=0, dtype=np.float64).astype(np.float32)
    finite = np.isfinite(x).all(axis=0)
    x[:, ~finite] = 0.0
    scale = np.sqrt(np.einsum("tv,tv->v", x, x) / x.shape[0])
    constant = scale <= 1e-6 * (np.median(scale[scale > 0]) if (scale > 0).any() else 1.0)
    values, vectors = np.linalg.eigh(covariance(x))
    n_strong = min(VARNORM_COMPONENTS, x.shape[0] - 1)
    values, vectors = values[-n_strong:], vectors[:, -n_strong:]
    deviation = np.sqrt(np.maximum(values, values[-1] * 1e-12 + 1e-30)).astype(np.float32)
    basis = vectors.astype(np.float32)
    scores = basis.T @ x
    scores[np.abs(scores) < VARNORM_LEVEL * deviation[:, None]] = 0.0
    residual = x - basis @ scores
    noise = np.sqrt(np.einsum("tv,tv->v", residual, residual) / x.shape[0])
    del residual
    noise[constant] = np.inf
    # a voxel that is all structure must not be divided by almost nothing
    noise = np.maximum(noise, 0.01 * scale)
    x /= noise.astype(np.float32)
    return np.asarray(x)


def spatial_ica(
    series: Float,
    n_components: int,
    seed: int,
    *,
    max_iter: int = 500,
    tolerance: float = 1e-4,
    max_starts: int = 3,
) -> Components:
    """Spatial FastICA (log cosh, symmetric) of a series.

    The series is variance-normalised, whitened by the eigenvectors of its T × T covariance, and
    rotated by scikit-learn's FastICA from a seeded start. A start that does not converge within
    `max_iter` is followed by another, up to `max_starts`; if none does, the one with the largest
    negentropy is kept and `converged` is False. Maps are regression z scores: the component divided
    by the residual noise of the voxel. With one BLAS thread, the same input gives the same bytes.

    Parameters
    ----------
    series
        (T, V).
    n_components
        K, from 1 to T - 1.
    seed
        Seed of the starts.
    max_iter, tolerance
        When a start ends.
    max_starts
        How many starts are made at most.

    Returns
    -------
    Components
        Time courses and z maps.

    Raises
    ------
    ValueError
        If K is out of range, or the series has a lower rank.

    References
    ----------
    Beckmann CF, Smith SM (2004). Probabilistic independent component analysis for functional
    magnetic resonance imaging. IEEE Trans. Med. Imaging 23:137, section II-E.
    Hyvärinen A (1999). Fast and robust fixed-point algorithms for independent component analysis.
    IEEE Trans. Neural Netw. 10:626.
    """
    n_volumes = series.shape[0]
    if not 1 <= n_components < n_volumes:
        raise ValueError(f"{n_components} components cannot come from {n_volumes} volumes")
    x = normalise_variance(series)
    whitened, dewhitening = _whiten(x, n_components)
    rotation, converged, n_iter, n_starts = _rotate(
        whitened, seed, max_iter=max_iter, tolerance=tolerance, max_starts=max_starts
    )
    mixing = dewhitening @ rotation.T
    mixing -= mixing.mean(axis=0)
    power = float(np.einsum("tv,tv->v", x, x).sum(dtype=np.float64)) / x.shape[1]
    explained = np.sum(mixing**2, axis=0) / power
    order = np.argsort(-explained, kind="stable")
    mixing, explained = mixing[:, order], explained[order]
    maps = _z_maps(x, mixing)
    sign = np.where(_skewness(maps) < 0, -1.0, 1.0)
    return Components(
        mixing=mixing * sign,
        maps=maps * sign[:, None].astype(np.float32),
        explained_variance=explained,
        converged=converged,
        n_iter=n_iter,
        n_starts=n_starts,
    )


def covariance(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Temporal covariance over voxels, about the mean of each volume.

    Parameters
    ----------
    x
        (T, V).

    Returns
    -------
    ndarray
        (T, T) float64, summed in blocks of voxels.
    """
    n_volumes, n_voxels = x.shape
    mean = x.mean(axis=1, dtype=np.float64)
    total = np.zeros((n_volumes, n_volumes))
    # float32 products in blocks, float64 between them: twice as fast, and as exact as needed
    for start in range(0, n_voxels, _ROWS_AT_ONCE):
        block = x[:, start : start + _ROWS_AT_ONCE]
        total += block @ block.T
    return np.asarray(total / n_voxels - np.outer(mean, mean))


def _whiten(
    x: NDArray[np.float32], n_components: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(K, V) white scores and the (T, K) matrix that brings them back."""
    values, vectors = np.linalg.eigh(covariance(x))
    values, vectors = values[::-1][:n_components], vectors[:, ::-1][:, :n_components]
    if values[-1] <= 1e-7 * values[0]:
        raise ValueError(f"the series has fewer than {n_components} independent time courses")
    # the sign of an eigenvector is the library's choice: fix it
    largest = np.argmax(np.abs(vectors), axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(n_components)])
    scores = (vectors / np.sqrt(values)).T.astype(np.float32) @ x
    scores -= scores.mean(axis=1, dtype=np.float64).astype(np.float32)[:, None]
    return scores, vectors * np.sqrt(values)


def _rotate(
    whitened: NDArray[np.float32], seed: int, *, max_iter: int, tolerance: float, max_starts: int
) -> tuple[NDArray[np.float64], bool, int, int]:
    """Orthogonal (K, K) unmixing of white scores, whether it converged, iterations, starts."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    k = whitened.shape[0]
    best: tuple[float, NDArray[np.float64], int] | None = None
    for start in range(max_starts):
        initial = np.random.default_rng([seed, start]).standard_normal((k, k))
        ica = FastICA(
            whiten=False,
            algorithm="parallel",
            fun="logcosh",
            max_iter=max_iter,
            tol=tolerance,
            w_init=initial.astype(np.float32),
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ica.fit(whitened.T)
        failed = any(issubclass(w.category, ConvergenceWarning) for w in caught)
        # single precision leaves it almost orthogonal
        rotation = nearest_rotation(np.asarray(ica.components_, dtype=np.float64))
        if not failed:
            return rotation, True, int(ica.n_iter_), start + 1
        contrast = _negentropy(rotation, whitened)
        if best is None or contrast > best[0]:
            best = (contrast, rotation, int(ica.n_iter_))
    if best is None:
        raise ValueError("max_starts must be at least 1")
    return best[1], False, best[2], max_starts


def _negentropy(rotation: NDArray[np.float64], whitened: NDArray[np.float32]) -> float:
    """Sum of Hyvärinen's approximations (E[log cosh s] - E[log cosh ν])², ν standard normal."""
    sources = np.abs(rotation.astype(np.float32) @ whitened)
    log_cosh = sources + np.log1p(np.exp(-2.0 * sources)) - np.log(2.0)
    # E[log cosh ν] = 0.374567 by quadrature
    return float(np.sum((log_cosh.mean(axis=1, dtype=np.float64) - 0.3745672) ** 2))


def _z_maps(x: NDArray[np.float32], mixing: NDArray[np.float64]) -> NDArray[np.float32]:
    """(K, V) z scores of the least-squares fit of the (T, K) time courses to x (T, V)."""
    n_volumes, k = mixing.shape
    unmixing = np.linalg.pinv(mixing)
    maps = unmixing.astype(np.float32) @ x
    residual = x - mixing.astype(np.float32) @ maps
    variance = np.einsum("tv,tv->v", residual, residual) / max(n_volumes - 1 - k, 1)
    del residual
    voxel_noise = np.sqrt(variance)
    voxel_noise[voxel_noise <= 1e-12] = np.inf
    component_noise = np.sqrt(np.sum(unmixing**2, axis=1))
    maps /= component_noise.astype(np.float32)[:, None]
    maps /= voxel_noise.astype(np.float32)
    return maps


def _skewness(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Third central moment of each map: only its sign is used."""
    centred = maps - maps.mean(axis=1, dtype=np.float64).astype(np.float32)[:, None]
    # a power is ten times as slow as products
    return np.asarray(np.mean(centred * centred * centred, axis=1, dtype=np.float64))
