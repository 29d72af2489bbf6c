"""Number of independent components in a series (T, V) of smooth brain voxels.

It is estimated from the eigenvalues of the series and the smoothness of its noise.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.preproc.denoising.ica import Bool, Float, covariance, normalise_variance

# MELODIC: voxels / (2.5 × FWHM volume in voxels) are as good as independent (melhlprfns.cc).
VOXELS_PER_RESEL = 2.5


def effective_samples(series: Float, mask: Bool) -> int:
    """Number of independent voxels of a smooth series.

    The smoothness is that of the noise: of what remains without the leading third of the principal
    components, because sources are smoother, or less smooth, than noise. It follows from the
    correlation r of neighbours along each axis: a Gaussian point spread has r = exp(-1 / 4σ²) and
    FWHM = σ √(8 ln 2), in voxels. As in MELODIC, which measures the smoothness of the whole series,
    the number is V / (2.5 · FWHMx · FWHMy · FWHMz).

    Parameters
    ----------
    series
        (T, V).
    mask
        (X, Y, Z), V of its voxels are True.

    Returns
    -------
    int
        The number of independent voxels.

    Raises
    ------
    ValueError
        If the mask does not hold V voxels.
    """
    if int(mask.sum()) != series.shape[1]:
        raise ValueError(f"{int(mask.sum())} voxels in the mask, {series.shape[1]} in the series")
    x = normalise_variance(series)
    leading = np.linalg.eigh(covariance(x))[1][:, -default_cap(x.shape[0]) :].astype(np.float32)
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
    """Number of components of a series, by minimum description length.

    The series is variance-normalised as for the ICA; the number of components is the rank with the
    shortest description of its temporal eigenvalues (`dimension_from_eigenvalues`).

    Parameters
    ----------
    series
        (T, V) of smoothed voxels.
    cap
        Largest number of components, by default `default_cap(T)`.
    n_effective
        Number of independent voxels, see `effective_samples`. By default voxels count as smooth by
        2 voxels in every direction (6 mm at 3 mm), which tends to more components.

    Returns
    -------
    int
        From 1 to `cap`.
    """
    n_volumes, n_voxels = series.shape
    limit = default_cap(n_volumes) if cap is None else cap
    samples = n_effective or max(2, int(n_voxels / (VOXELS_PER_RESEL * 8.0)))
    eigenvalues = np.linalg.eigvalsh(covariance(normalise_variance(series)))[::-1]
    return dimension_from_eigenvalues(eigenvalues, samples, limit)


def default_cap(n_volumes: int) -> int:
    """Largest number of components to estimate for a run.

    It is a third of the volumes and at most 70, so that the regression of components leaves enough
    degrees of freedom.

    Examples
    --------
    >>> default_cap(90), default_cap(500)
    (30, 70)
    """
    return max(1, min(n_volumes // 3, 70))


def dimension_from_eigenvalues(eigenvalues: ArrayLike, n_samples: int, cap: int) -> int:
    """Rank with the shortest description of the eigenvalues of a covariance.

    Minimum description length of k signals in white noise, in its form for real data: the
    likelihood of k free and D - k equal eigenvalues against ½ log N per free parameter, k
    eigenvalues and Dk - k(k+1)/2 for their axes. It is one of MELODIC's criteria. It was chosen by
    simulation (3 to 40 smooth sources, noise white or coloured in time), where it found their
    number within one if N was right within a factor of two. Minka's Laplace evidence did so for the
    smallest N alone and overestimated the number otherwise.

    Parameters
    ----------
    eigenvalues
        (D,) descending.
    n_samples
        N, the number of independent samples.
    cap
        Largest rank.

    Returns
    -------
    int
        From 1 to `cap`.

    References
    ----------
    Wax M, Kailath T (1985). Detection of signals by information theoretic criteria. IEEE Trans.
    ASSP 33:387.

    Examples
    --------
    >>> dimension_from_eigenvalues([9.0, 5.0, 1.0, 1.0, 1.0, 1.0], n_samples=1000, cap=4)
    2
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


def _unit_norm(series: Float) -> NDArray[np.float32]:
    x = np.asarray(series, dtype=np.float32)
    x = x - x.mean(axis=0, dtype=np.float64).astype(np.float32)
    norm = np.sqrt(np.einsum("tv,tv->v", x, x))
    norm[norm == 0] = np.inf
    return np.asarray(x / norm.astype(np.float32))
