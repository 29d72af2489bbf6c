"""Spatial ICA and ICA-AROMA: a series (T, V) of brain voxels in, components and decisions out.

The series is smoothed (6 mm) and scaled to a grand mean of 10000; time courses are (T, K) and maps
(K, V). Motion parameters are (T, 6) in mm and radians, times in seconds. The removal of components
is a (T, T) matrix, so that it reaches unsmoothed voxels, parcels and confounds alike.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import gammaln

Mode = Literal["nonaggr", "aggr", "none"]
Float = NDArray[np.floating]
Bool = NDArray[np.bool_]

# Decision of ICA-AROMA: Pruim et al. 2015, NeuroImage 112:267, and maartenmennes/ICA-AROMA,
# ICA_AROMA_functions.py, lines 484-494.
CSF_THRESHOLD = 0.10
HFC_THRESHOLD = 0.35
HYPERPLANE = (-19.9751070082159, 9.95127547670627, 24.8333160239175)
HFC_LOWEST_HZ = 0.01

# MELODIC's variance normalisation: coefficients of the first 30 principal components below 2.3
# standard deviations count as noise (`--vn` with its default level).
VARNORM_COMPONENTS = 30
VARNORM_LEVEL = 2.3

# MELODIC: voxels / (2.5 × FWHM volume in voxels) are as good as independent (melhlprfns.cc).
VOXELS_PER_RESEL = 2.5

FALLBACK_Z = 2.3
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class ICA:
    """Components of one run, ordered by explained variance, maps with a positive skew.

    mixing: (T, K) float64 time courses, mean 0; mixing @ unscaled maps explains the normalised
    series. maps: (K, V) float32, z. explained_variance: (K,) fraction of the variance of the
    normalised series. converged: whether the start that was kept did; n_iter: its iterations;
    n_starts: how many starts were made.
    """

    mixing: NDArray[np.float64]
    maps: NDArray[np.float32]
    explained_variance: NDArray[np.float64]
    converged: bool
    n_iter: int
    n_starts: int


# --------------------------------------------------------------------------------------- dimension


def effective_samples(series: Float, mask: Bool) -> int:
    """Number of independent voxels of a smooth (T, V) series that fills `mask` (X, Y, Z).

    The smoothness is that of the noise: of what remains when the leading third of the principal
    components is gone (sources are smoother, or less smooth, than noise). It comes from the
    correlation r of neighbours along each axis: a Gaussian point spread has r = exp(-1 / 4σ²),
    FWHM = σ √(8 ln 2), in voxels. The independent voxels are V / (2.5 · FWHMx · FWHMy · FWHMz), as
    MELODIC counts them (it measures the smoothness of the whole series).

    Raises ValueError when the mask does not hold V voxels.
    """
    if int(mask.sum()) != series.shape[1]:
        raise ValueError(f"{int(mask.sum())} voxels in the mask, {series.shape[1]} in the series")
    x = normalise_variance(series)
    leading = np.linalg.eigh(_covariance(x))[1][:, -default_cap(x.shape[0]) :].astype(np.float32)
    x -= leading @ (leading.T @ x)
    z = _unit_norm(x)
    index = np.full(mask.shape, -1, dtype=np.int64)
    index[mask] = np.arange(series.shape[1])
    volume = 1.0
    for axis in range(3):
        volume *= _fwhm_voxels(z, np.moveaxis(index, axis, 0))
    # an unsmoothed voxel is one sample, never more
    return int(max(2.0, series.shape[1] / max(1.0, VOXELS_PER_RESEL * volume)))


def estimate_dimension(
    series: Float, cap: int | None = None, n_effective: int | None = None
) -> int:
    """How many components a (T, V) series holds: minimum description length, at most `cap`.

    The series is variance-normalised as for the ICA; the number of components is the rank with the
    shortest description of its temporal eigenvalues (`dimension_from_eigenvalues`). Smoothed voxels
    are not independent: `n_effective` comes from `effective_samples`; without it, the voxels are
    taken as smooth by 2 voxels in every direction (6 mm at 3 mm), which tends to more components.
    `cap` defaults to `default_cap(T)`.
    """
    n_volumes, n_voxels = series.shape
    limit = default_cap(n_volumes) if cap is None else cap
    samples = n_effective or max(2, int(n_voxels / (VOXELS_PER_RESEL * 8.0)))
    eigenvalues = np.linalg.eigvalsh(_covariance(normalise_variance(series)))[::-1]
    return dimension_from_eigenvalues(eigenvalues, samples, limit)


def default_cap(n_volumes: int) -> int:
    """A third of the volumes, at most 70: regression needs degrees of freedom that remain."""
    return max(1, min(n_volumes // 3, 70))


def dimension_from_eigenvalues(eigenvalues: ArrayLike, n_samples: int, cap: int) -> int:
    """Rank 1 … cap with the shortest description of descending eigenvalues (D,) from N samples.

    Minimum description length of k signals in white noise (Wax & Kailath 1985, IEEE Trans. ASSP
    33:387; Rissanen), in its form for real data: the likelihood of k free and D - k equal
    eigenvalues against ½ log N per free parameter, k eigenvalues and Dk - k(k+1)/2 for their axes.
    It is one of MELODIC's criteria. Chosen by simulation (3 to 40 smooth sources, noise white or
    coloured in time): it found their number within one where N was right within a factor of two.
    Minka's Laplace evidence did so for the smallest N alone and overestimated it otherwise.
    """
    spectrum = np.asarray(eigenvalues, dtype=np.float64)
    # what a filter or the mean has removed is not noise
    spectrum = spectrum[spectrum > 0.05 * np.median(spectrum)]
    d = spectrum.size
    if d < 3:
        return 1
    k = np.arange(1, max(1, min(cap, d - 2)) + 1)
    noise = (spectrum.sum() - np.cumsum(spectrum)[k - 1]) / (d - k)
    misfit = 0.5 * n_samples * (np.cumsum(np.log(spectrum))[k - 1] + (d - k) * np.log(noise))
    length = misfit + 0.5 * np.log(n_samples) * (k + d * k - k * (k + 1) / 2)
    return int(k[np.argmin(length)])


def _fwhm_voxels(z: NDArray[np.float32], index: NDArray[np.int64]) -> float:
    """FWHM along the first axis of `index`, in voxels, of unit-norm columns z (T, V)."""
    first, second = index[:-1].ravel(), index[1:].ravel()
    both = (first >= 0) & (second >= 0)
    first, second = first[both], second[both]
    if first.size == 0:
        return 1.0
    # volume by volume: two gathered copies of the series would be the largest arrays of the run
    r = sum(float(volume[first] @ volume[second]) for volume in z) / first.size
    r = min(max(r, 1e-6), 0.99999)
    return float(np.sqrt(8 * np.log(2.0) / (-4.0 * np.log(r))))


# --------------------------------------------------------------------------------------------- ICA


def normalise_variance(series: Float) -> NDArray[np.float32]:
    """(T, V) without its mean over time and divided by its noise per voxel, as MELODIC does.

    The noise is what remains after the strong part of the first 30 principal components (voxel
    scores above 2.3 standard deviations) is removed, so that voxels with much structure keep their
    weight. Constant and non-finite voxels become 0.
    """
    x = np.asarray(series, dtype=np.float32)
    x = x - x.mean(axis=0, dtype=np.float64).astype(np.float32)
    finite = np.isfinite(x).all(axis=0)
    x[:, ~finite] = 0.0
    scale = np.sqrt(np.einsum("tv,tv->v", x, x) / x.shape[0])
    constant = scale <= 1e-6 * (np.median(scale[scale > 0]) if (scale > 0).any() else 1.0)
    values, vectors = np.linalg.eigh(_covariance(x))
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
    return x


def spatial_ica(
    series: Float,
    n_components: int,
    seed: int,
    *,
    max_iter: int = 500,
    tolerance: float = 1e-4,
    max_starts: int = 3,
) -> ICA:
    """Spatial FastICA (log cosh, symmetric) of a (T, V) series: K time courses and z maps.

    The series is variance-normalised, whitened by the eigen-vectors of its T × T covariance, and
    rotated by scikit-learn's FastICA from a seeded start. A start that does not converge within
    `max_iter` is followed by another, up to `max_starts`; if none does, the one with the largest
    negentropy is kept and `converged` is False. Maps are regression z scores: the component divided
    by the residual noise of the voxel (Beckmann & Smith 2004, section II-E). Same bytes for the
    same input with one BLAS thread.

    Raises ValueError when K is not between 1 and T - 1 or the series holds less structure.
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
    return ICA(
        mixing=mixing * sign,
        maps=maps * sign[:, None].astype(np.float32),
        explained_variance=explained,
        converged=converged,
        n_iter=n_iter,
        n_starts=n_starts,
    )


def _covariance(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """(T, T) covariance over voxels, about the mean of each volume, summed in blocks of voxels."""
    n_volumes, n_voxels = x.shape
    mean = x.mean(axis=1, dtype=np.float64)
    total = np.zeros((n_volumes, n_volumes))
    # float32 products in blocks, float64 between them: twice as fast, and as exact as needed
    for start in range(0, n_voxels, _ROWS_AT_ONCE):
        block = x[:, start : start + _ROWS_AT_ONCE]
        total += block @ block.T
    return total / n_voxels - np.outer(mean, mean)


def _whiten(
    x: NDArray[np.float32], n_components: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(K, V) white scores and the (T, K) matrix that brings them back."""
    values, vectors = np.linalg.eigh(_covariance(x))
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
        rotation = _nearest_rotation(np.asarray(ica.components_, dtype=np.float64))
        if not failed:
            return rotation, True, int(ica.n_iter_), start + 1
        contrast = _negentropy(rotation, whitened)
        if best is None or contrast > best[0]:
            best = (contrast, rotation, int(ica.n_iter_))
    if best is None:
        raise ValueError("max_starts must be at least 1")
    return best[1], False, best[2], max_starts


def _nearest_rotation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthogonal matrix nearest to one that single precision left almost orthogonal."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ vt


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
    return np.mean(centred**3, axis=1, dtype=np.float64)


def _unit_norm(series: Float) -> NDArray[np.float32]:
    x = np.asarray(series, dtype=np.float32)
    x = x - x.mean(axis=0, dtype=np.float64).astype(np.float32)
    norm = np.sqrt(np.einsum("tv,tv->v", x, x))
    norm[norm == 0] = np.inf
    return x / norm.astype(np.float32)


# --------------------------------------------------------------------------------------- threshold


def threshold_maps(maps: Float) -> NDArray[np.float32]:
    """(K, V) z maps with every voxel set to 0 that is more probably background than active.

    Each map is a mixture of one Gaussian (background) and two Gamma densities (activation and
    deactivation); voxels keep their z where the Gammas' posterior exceeds 0.5 (Beckmann & Smith
    2004, section II-F). Where the mixture cannot be fitted, or leaves nothing, |z| > 2.3 is kept
    (FACTS 3.6; MELODIC's null-hypothesis map). A map may end up empty.
    """
    return np.stack([_threshold_map(np.asarray(z, dtype=np.float32)) for z in maps])


def _threshold_map(z: NDArray[np.float32]) -> NDArray[np.float32]:
    inside = z[z != 0]
    limits = _mixture_limits(inside) if inside.size >= 100 else None
    if limits is not None:
        kept = np.where((z > limits[1]) | (z < limits[0]), z, np.float32(0))
        if kept.any():
            return kept
    return np.where(np.abs(z) > FALLBACK_Z, z, np.float32(0))


def _mixture_limits(z: NDArray[np.float32], n_bins: int = 2000) -> tuple[float, float] | None:
    """z below and above which a Gamma's posterior exceeds 0.5 (±inf: nowhere), or None.

    The EM works on a histogram: 2000 bins give the same limits as 35,000 voxels, in milliseconds.
    """
    lowest, highest = float(z.min()), float(z.max())
    centre = float(np.median(z))
    spread = float(np.median(np.abs(z - centre))) * 1.4826
    if not (np.isfinite(lowest) and np.isfinite(highest)) or spread <= 0 or highest <= lowest:
        return None
    counts, edges = np.histogram(z.astype(np.float64), bins=n_bins, range=(lowest, highest))
    x = (edges[1:] + edges[:-1]) / 2
    posterior = _fit_mixture(x, counts / counts.sum(), centre, spread)
    if posterior is None:
        return None
    background, mean = posterior
    return _outermost(x, background, mean)


def _outermost(x: Float, background: Float, mean: float) -> tuple[float, float]:
    """Where, going outwards from the mean, the posterior of the background falls below 0.5."""
    active = background < 0.5
    up, down = active & (x > mean), active & (x < mean)
    high = float(x[np.argmax(up)]) if up.any() else np.inf
    low = float(x[x.size - 1 - np.argmax(down[::-1])]) if down.any() else -np.inf
    return low, high


def _fit_mixture(
    x: Float, weight: Float, mean: float, deviation: float, n_iter: int = 200
) -> tuple[NDArray[np.float64], float] | None:
    """EM of Gaussian + Gamma on both sides; posterior of the Gaussian per bin and its mean.

    The Gammas' moments are matched (no digamma), and their modes stay beyond one standard deviation
    of the background: the activation cannot slip under the Gaussian.
    """
    shares = np.array([0.9, 0.05, 0.05])
    tails = [(3.0 * deviation, deviation**2), (3.0 * deviation, deviation**2)]
    previous = -np.inf
    for _ in range(n_iter):
        density = np.stack(
            [
                shares[0] * _gaussian(x, mean, deviation),
                shares[1] * _gamma(x - mean, *tails[0]),
                shares[2] * _gamma(mean - x, *tails[1]),
            ]
        )
        total = np.maximum(density.sum(axis=0), 1e-300)
        responsibility = density / total * weight
        shares = np.maximum(responsibility.sum(axis=1), 1e-12)
        mean = float(responsibility[0] @ x / shares[0])
        deviation = float(np.sqrt(responsibility[0] @ (x - mean) ** 2 / shares[0]))
        if not np.isfinite(deviation) or deviation <= 0 or shares[0] < 0.3:
            return None
        tails = [
            _gamma_moments(responsibility[1], x - mean, deviation),
            _gamma_moments(responsibility[2], mean - x, deviation),
        ]
        likelihood = float(weight @ np.log(total))
        if abs(likelihood - previous) < 1e-8:
            break
        previous = likelihood
    return density[0] / total, mean


def _gaussian(x: Float, mean: float, deviation: float) -> NDArray[np.float64]:
    return np.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))


def _gamma(distance: Float, mean: float, variance: float) -> NDArray[np.float64]:
    """Gamma density of a distance from the background's mean; 0 on the other side."""
    shape, scale = mean**2 / variance, variance / mean
    d = np.maximum(distance, 1e-12)
    log_density = (shape - 1) * np.log(d) - d / scale - gammaln(shape) - shape * np.log(scale)
    return np.where(distance > 0, np.exp(log_density), 0.0)


def _gamma_moments(responsibility: Float, distance: Float, deviation: float) -> tuple[float, float]:
    share = float(responsibility.sum())
    if share <= 1e-10:
        return 3.0 * deviation, deviation**2
    mean = max(float(responsibility @ distance / share), 1.5 * deviation)
    variance = float(responsibility @ (distance - mean) ** 2 / share)
    # the mode, mean - variance / mean, is at least one standard deviation out
    largest = mean * (mean - deviation)
    return mean, min(max(variance, (0.1 * deviation) ** 2), largest)


# ---------------------------------------------------------------------------------------- features


def max_rp_corr(
    mixing: Float,
    parameters: Float,
    seed: int,
    *,
    n_splits: int = 1000,
    subsets: NDArray[np.integer] | None = None,
) -> NDArray[np.float64]:
    """AROMA's maximum correlation (K,) of time courses (T, K) with a motion model, 0 … 1.

    The model (FACTS 3.1) holds the 6 parameters (T, 6), their backward differences, and both one
    volume later and earlier: 36 columns; time courses are correlated with them, and their squares
    with the squares. The largest |r| is averaged over random subsets of 90 % of the volumes, or
    over the given `subsets` (S, n) of volume indices. Columns without variance in a subset are
    ignored there; 0 when no column ever varies.
    """
    model = motion_model(parameters)
    n_volumes = mixing.shape[0]
    if model.shape[0] != n_volumes:
        raise ValueError(f"{n_volumes} volumes in the mixing, {model.shape[0]} in the parameters")
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
        return np.nan_to_num(np.nanmean(largest, axis=0), nan=0.0)


def motion_model(parameters: Float) -> NDArray[np.float64]:
    """(T, 36): 6 parameters and their differences, as they are, one volume later, one earlier."""
    rp6 = np.asarray(parameters, dtype=np.float64)
    rp12 = np.hstack([rp6, np.diff(rp6, axis=0, prepend=rp6[:1])])
    empty = np.zeros((1, rp12.shape[1]))
    return np.hstack([rp12, np.vstack([empty, rp12[:-1]]), np.vstack([rp12[1:], empty])])


def _random_subsets(n_volumes: int, n_splits: int, seed: int) -> NDArray[np.int64]:
    n_chosen = round(0.9 * n_volumes)
    order = np.tile(np.arange(n_volumes), (n_splits, 1))
    return np.random.default_rng(seed).permuted(order, axis=1)[:, :n_chosen]


def _largest_correlation(chosen: Float, a: Float, b: Float) -> NDArray[np.float64]:
    """(S, K): largest |r| of each column of a (T, K) with any of b (T, R), per subset (S, T).

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
    """AROMA's edge_fract (K,) and csf_fract (K,) of thresholded maps (K, V), FACTS 3.1.

    `csf`, `edge` and `out` (V,) are AROMA's masks at the same voxels (bool, or a fraction of each
    voxel). csf_fract = Σ|z| in CSF / Σ|z|; edge_fract = (Σ|z| outside + Σ|z| at the edge) /
    (Σ|z| - Σ|z| in CSF). Both are 0 for an empty map.
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
    """AROMA's HFC (K,) of time courses (T, K): where half of the power above 0.01 Hz lies, 0 … 1.

    0 is 0.01 Hz and 1 the Nyquist frequency (FACTS 3.1). The spectrum is that of MELODIC's
    melodic_FTmix: |DFT|² without the DC row, an odd number of volumes padded with one 0; row i of F
    is the frequency Nyquist · i / F.
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
    return ((frequency - HFC_LOWEST_HZ) / (nyquist - HFC_LOWEST_HZ))[half]


def classify(
    max_rp_corr: Float, edge_fract: Float, csf_fract: Float, hfc: Float
) -> tuple[Bool, list[str]]:
    """AROMA's decision: noise (K,) and, per component, the reasons as text (FACTS 3.1).

    Noise when csf_fract > 0.10, or HFC > 0.35, or the motion and edge score
    -19.975 + 9.951·max_rp_corr + 24.833·edge_fract > 0.
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


# -------------------------------------------------------------------------------- images and series


def smooth_series(
    bold: Float, affine: NDArray[np.float64], mask: Bool, fwhm: float
) -> NDArray[np.float32]:
    """Series (T, V) of the mask's voxels, smoothed by a Gaussian of `fwhm` mm inside the mask.

    `bold` is (X, Y, Z, T), `mask` (X, Y, Z). Smoothing is normalised by the smoothed mask, so that
    the brain's edge is not darkened by what lies outside (as FSL's and nilearn's masked smoothing).
    """
    sigma = fwhm / np.sqrt(8 * np.log(2.0)) / np.linalg.norm(affine[:3, :3], axis=0)
    inside = mask.astype(np.float32)
    weight = gaussian_filter(inside, sigma)[mask]
    series = np.empty((bold.shape[3], int(mask.sum())), dtype=np.float32)
    for t in range(bold.shape[3]):
        volume = np.asarray(bold[..., t], dtype=np.float32) * inside
        series[t] = gaussian_filter(volume, sigma)[mask] / weight
    return series


def sample_maps(maps: Float, mask: Bool, voxels: NDArray[np.floating]) -> NDArray[np.float32]:
    """Maps (K, V) of the mask's voxels at voxel coordinates (N, 3): (K, N), linear, 0 outside."""
    sampled = np.empty((len(maps), len(voxels)), dtype=np.float32)
    volume = np.zeros(mask.shape, dtype=np.float32)
    for k, values in enumerate(maps):
        volume[mask] = values
        map_coordinates(volume, voxels.T, output=sampled[k], order=1, mode="constant")
    return sampled


# ----------------------------------------------------------------------------------------- removal


def removal_state(noise: Bool) -> Literal["none", "some", "all"]:
    """How many components are noise. Nothing is removed for "none" and "all"; warn of "all"."""
    if not np.any(noise):
        return "none"
    return "all" if np.all(noise) else "some"


def removal_matrix(mixing: Float, noise: Bool, mode: Mode) -> NDArray[np.float64]:
    """(T, T) matrix R: R @ series (T, P) has the noise components removed, its mean kept.

    "nonaggr" fits all K time courses (T, K) and subtracts the noise part of the fit; "aggr" fits
    the noise alone (fsl_regfilt; FACTS 3.1). Time courses are demeaned first. The identity with
    "none", when no component is noise, and when all are (`removal_state` tells).
    """
    if mode not in ("nonaggr", "aggr", "none"):
        raise ValueError(f"unknown mode {mode!r}: nonaggr, aggr or none")
    bad = np.asarray(noise, dtype=bool)
    courses = np.asarray(mixing, dtype=np.float64)
    if bad.shape != courses.shape[1:]:
        raise ValueError(f"{bad.size} decisions for {courses.shape[1]} components")
    identity = np.eye(courses.shape[0])
    if mode == "none" or removal_state(bad) != "some":
        return identity
    courses = courses - courses.mean(axis=0)
    if mode == "aggr":
        return identity - courses[:, bad] @ np.linalg.pinv(courses[:, bad])
    return identity - courses[:, bad] @ np.linalg.pinv(courses)[bad]


def denoise(series: Float, mixing: Float, noise: Bool, mode: Mode) -> Float:
    """(T, P) without the noise components, in the precision of the series; always a new array.

    The series (voxels, parcels or confounds, unsmoothed) went through the same filter as the
    mixing (T, K). Columns with a NaN become NaN, the others do not notice. See `removal_matrix`.
    """
    values = np.asarray(series)
    dtype = values.dtype if values.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    if mode == "none" or removal_state(noise) != "some":
        return values.astype(dtype, copy=True)
    return removal_matrix(mixing, noise, mode).astype(dtype) @ values.astype(dtype, copy=False)
