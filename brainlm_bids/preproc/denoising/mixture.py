"""Thresholds of z maps (K, V), by a mixture of a Gaussian and two Gamma densities."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from brainlm_bids.preproc.denoising.ica import Float

FALLBACK_Z = 2.3


def threshold_maps(maps: Float, limits: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
    """Set voxels to 0 that are more probably background than active.

    Parameters
    ----------
    maps
        (K, V) z.
    limits
        (K, 2) of `threshold_limits`, if they are known.

    Returns
    -------
    ndarray
        (K, V) float32. A map may be empty.

    Examples
    --------
    With too few voxels for a mixture, the fixed threshold applies.

    >>> threshold_maps(np.array([[0.5, -3.0, 2.0]]))
    array([[ 0., -3.,  0.]], dtype=float32)
    """
    maps = np.asarray(maps, dtype=np.float32)
    found = threshold_limits(maps) if limits is None else limits
    low, high = np.asarray(found, dtype=np.float32).T[:, :, None]
    return np.where((maps > high) | (maps < low), maps, np.float32(0))


def threshold_limits(maps: Float) -> NDArray[np.float64]:
    """Find below and above which z a voxel of a map is more probably active than background.

    Each map is a mixture of one Gaussian (background) and two Gamma densities (activation and
    deactivation); voxels are active where the posterior of the Gammas exceeds 0.5. If the mixture
    cannot be fitted, or no voxel would be active, |z| > 2.3 is (MELODIC's null-hypothesis map).

    Parameters
    ----------
    maps
        (K, V) z.

    Returns
    -------
    ndarray
        (K, 2); ±inf where no voxel is active on that side.

    References
    ----------
    Beckmann CF, Smith SM (2004). IEEE Trans. Med. Imaging 23:137, section II-F.

    Examples
    --------
    >>> threshold_limits(np.array([[0.5, -3.0, 2.0]])).round(1)
    array([[-2.3,  2.3]])
    """
    return np.array([_limits(np.asarray(z, dtype=np.float32)) for z in maps]).reshape(-1, 2)


def _limits(z: NDArray[np.float32]) -> tuple[float, float]:
    inside = z[z != 0]
    limits = _mixture_limits(inside) if inside.size >= 100 else None
    if limits is not None and ((z > limits[1]) | (z < limits[0])).any():
        return limits
    return -FALLBACK_Z, FALLBACK_Z


def _mixture_limits(z: NDArray[np.float32], n_bins: int = 2000) -> tuple[float, float] | None:
    """Find the z below and above which a Gamma's posterior exceeds 0.5 (±inf: nowhere).

    None if the mixture cannot be fitted. The EM works on a histogram: 2000 bins give the same
    limits as 35,000 voxels, in milliseconds.
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
    """Where, from the mean outwards, the background's posterior falls below 0.5."""
    active = background < 0.5
    up, down = active & (x > mean), active & (x < mean)
    high = float(x[np.argmax(up)]) if up.any() else np.inf
    low = float(x[x.size - 1 - np.argmax(down[::-1])]) if down.any() else -np.inf
    return low, high


def _fit_mixture(
    x: Float, weight: Float, mean: float, deviation: float, n_iter: int = 200
) -> tuple[NDArray[np.float64], float] | None:
    """EM of a Gaussian and a Gamma on both sides; the Gaussian's posterior per bin, and its mean.

    The Gammas are fitted by their moments (no digamma), and their modes stay beyond one standard
    deviation of the background, so that the activation does not merge with the Gaussian.
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
    density = np.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    return np.asarray(density)


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
