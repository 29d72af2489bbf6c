"""How well an image is what is expected of it within small windows, whatever its gain there."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]

# Variance below which a window holds nothing but noise, in units of the squared signal.
LEAST_VARIANCE = 1e-4


class LocalFit:
    """Correlation with an expected image in Gaussian windows, with its gradient.

    Windows count by the standard deviation of what is expected in them.

    Parameters
    ----------
    expected
        (X, Y, Z), in units of the brain's median.
    around
        (X, Y, Z) weights of the voxels.
    window
        sd in voxels.

    Examples
    --------
    >>> expected = np.random.default_rng(0).random((8, 8, 8), np.float32)
    >>> fit = LocalFit(expected, np.ones((8, 8, 8), np.float32), 2.0)
    >>> fit.misfit(2 * expected)[0] < 0.01 < fit.misfit(1 - expected)[0]
    True
    """

    def __init__(self, expected: Volume, around: Volume, window: float) -> None:
        self.window = window
        self.expected = expected
        self.mean = self._smooth(expected)
        self.variance = self._variance(expected, self.mean)
        weights = around * np.sqrt(self.variance)
        self.weights = np.asarray(weights / max(float(weights.sum()), 1e-6), dtype=np.float32)

    def _smooth(self, image: Volume) -> Volume:
        return np.asarray(ndimage.gaussian_filter(image, self.window, mode="nearest", truncate=3.0))

    def _variance(self, image: Volume, mean: Volume) -> Volume:
        return np.maximum(self._smooth(image * image) - mean * mean, 0) + np.float32(LEAST_VARIANCE)

    def misfit(self, image: Volume) -> tuple[float, Volume]:
        """The mean of 1 - correlation, and its gradient by the values of the image (X, Y, Z)."""
        mean = self._smooth(image)
        variance = self._variance(image, mean)
        covariance = self._smooth(image * self.expected) - mean * self.mean
        spread = np.sqrt(variance * self.variance)
        correlation = covariance / spread
        by_covariance = self.weights / spread
        by_variance = -self.weights * correlation / (2 * variance)
        # the windows are symmetric: what a voxel gives to a window it gets back from it
        gradient = self.expected * self._smooth(by_covariance)
        gradient -= self._smooth(by_covariance * self.mean)
        gradient += 2 * image * self._smooth(by_variance)
        gradient -= 2 * self._smooth(by_variance * mean)
        total = (self.weights * (1 - correlation)).sum(dtype=np.float64)
        return float(total), -gradient


def slope_adjoint(values: Volume, axis: int) -> Volume:
    """The transpose of `np.gradient` along an axis.

    Parameters
    ----------
    values
        (X, Y, Z).
    axis
        0, 1 or 2; at least two values long.

    Examples
    --------
    >>> x, y = np.random.default_rng(0).random((2, 4, 5, 6), np.float32)
    >>> bool(np.isclose((np.gradient(x, axis=1) * y).sum(), (x * slope_adjoint(y, 1)).sum()))
    True
    """
    lines = np.moveaxis(values, axis, 0)
    summed = np.zeros_like(lines)
    summed[2:] += lines[1:-1] / 2
    summed[:-2] -= lines[1:-1] / 2
    for here, there in ((0, 1), (-2, -1)):
        end = lines[0] if here == 0 else lines[-1]
        summed[here] -= end
        summed[there] += end
    return np.moveaxis(summed, 0, axis)
