"""Sums and equations along one axis, for all lines of a volume at once: (N, …) arrays.

What the estimate of a field from two images needs: how much signal lies before a place, how much a
displacement bends, and the solution of one small banded system per line.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]

BEYOND = 3  # faces by which the sums are continued, so that splines do not see the end


class CumulativeSignal:
    """How much signal of an image lies before a place along the first axis.

    Differences of it between two places are the signal between them, so that an image which is
    stretched or compressed keeps its sum exactly, whatever the displacement (Chang and Fitzpatrick
    1992). Between the faces of the voxels, where it is known, runs a cubic spline; beyond the image
    the outermost voxels continue.

    Parameters
    ----------
    image
        (N, X, Z).

    References
    ----------
    Chang H, Fitzpatrick JM (1992). A technique for accurate magnetic resonance imaging in the
    presence of field inhomogeneities. IEEE Trans. Med. Imaging 11:319.

    Examples
    --------
    >>> before = CumulativeSignal(np.array([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1))
    >>> amount, density = before(np.arange(1.0, 5.0).reshape(4, 1, 1))
    >>> amount.ravel().round(6).tolist()
    [1.0, 3.0, 6.0, 10.0]
    """

    def __init__(self, image: Array) -> None:
        self.n_voxels = len(image)
        ahead = np.arange(1.0, BEYOND + 1)[:, np.newaxis, np.newaxis]
        faces = np.concatenate([np.zeros_like(image[:1]), np.cumsum(image, axis=0)])
        before, after = faces[:1] - ahead[::-1] * image[:1], faces[-1:] + ahead * image[-1:]
        faces = np.concatenate([before, faces, after])
        self._coefficients = ndimage.spline_filter1d(faces, order=3, axis=0, mode="mirror").ravel()

    def __call__(self, places: Array) -> tuple[Array, Array]:
        """Signal before each place, and its density there.

        Parameters
        ----------
        places
            (M, X, Z), in voxels from the first face.
        """
        n_lines = places[0].size
        at = np.clip(places, -1, self.n_voxels + 1).reshape(-1, n_lines) + BEYOND
        whole = at.astype(np.intp)
        t = at - whole
        u = 1 - t
        index = (whole - 1) * n_lines + np.arange(n_lines)
        a, b, c, d = (self._coefficients.take(index + k * n_lines) for k in range(4))
        amount = u**3 * a + (4 - 6 * t**2 + 3 * t**3) * b + (4 - 6 * u**2 + 3 * u**3) * c + t**3 * d
        density = (3 * t - 4) * t * b - u**2 * a - (3 * u - 4) * u * c + t**2 * d
        return amount.reshape(places.shape) / 6, density.reshape(places.shape) / 2


@dataclass(frozen=True)
class Bending:
    """Sum of all squared second derivatives of a volume: nothing for what is linear in space.

    Attributes
    ----------
    spacing
        (3,) distance of neighbours, mm.

    Examples
    --------
    >>> ramp = np.arange(5.0)[:, np.newaxis, np.newaxis] + np.arange(4.0)[:, np.newaxis]
    >>> float(np.abs(Bending((2.0, 2.0, 2.0)).gradient(ramp)).max())
    0.0
    """

    spacing: tuple[float, float, float]

    def gradient(self, volume: Array) -> Array:
        """Half of the derivative of the sum, which is linear in the volume (X, Y, Z)."""
        out = np.zeros_like(volume)
        for axis in range(3):
            along, to = np.moveaxis(volume, axis, 0), np.moveaxis(out, axis, 0)
            second = (along[2:] - 2 * along[1:-1] + along[:-2]) / self.spacing[axis] ** 4
            to[2:] += second
            to[:-2] += second
            to[1:-1] -= 2 * second
        for one, other in ((0, 1), (0, 2), (1, 2)):
            along, to = (np.moveaxis(x, (one, other), (0, 1)) for x in (volume, out))
            mixed = along[1:, 1:] - along[1:, :-1] - along[:-1, 1:] + along[:-1, :-1]
            mixed = mixed * (2 / (self.spacing[one] * self.spacing[other]) ** 2)
            to[1:, 1:] += mixed
            to[:-1, :-1] += mixed
            to[1:, :-1] -= mixed
            to[:-1, 1:] -= mixed
        return out

    def bands(self, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
        """What of `gradient` couples a place with itself, its neighbour and the next but one.

        Along the first axis, three arrays (N, 1, 1); along the others only the diagonal.
        """
        n, unit = shape[0], self.spacing[0] ** -4
        bands = np.zeros((3, n, 1, 1))
        for first in range(n - 2):
            bands[0, first : first + 3, 0, 0] += unit * np.array([1, 4, 1])
            bands[1, first : first + 2] -= 2 * unit
            bands[2, first] += unit
        for axis in (1, 2):
            bands[0] += 6 * self.spacing[axis] ** -4 * (shape[axis] > 2)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            mixed = 8 / (self.spacing[one] * self.spacing[other]) ** 2
            bands[0] += mixed * (min(shape[one], shape[other]) > 1)
        return bands[0], bands[1], bands[2]


class Pentadiagonal:
    """Symmetric, positive definite systems along the first axis, with two neighbours at each side.

    Parameters
    ----------
    bands
        Three arrays that broadcast to (N, …): the diagonal, and row i's coupling with i + 1 and
        i + 2.

    Examples
    --------
    >>> system = Pentadiagonal((np.full((3, 1), 4.0), np.full((3, 1), 1.0), np.zeros((3, 1))))
    >>> system.solve(np.array([[5.0], [6.0], [5.0]])).round(6).ravel().tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, bands: tuple[Any, Any, Any]) -> None:
        diagonal, near, far = np.broadcast_arrays(*bands)
        n = len(diagonal)
        self._pivot = np.array(diagonal, dtype=np.float64)
        self._near, self._far = np.zeros_like(self._pivot), np.zeros_like(self._pivot)
        for i in range(n):
            coupling = near[i]
            if i > 0:
                self._pivot[i] -= self._near[i - 1] ** 2 * self._pivot[i - 1]
                coupling = coupling - self._far[i - 1] * self._near[i - 1] * self._pivot[i - 1]
            if i > 1:
                self._pivot[i] -= self._far[i - 2] ** 2 * self._pivot[i - 2]
            if i + 1 < n:
                self._near[i] = coupling / self._pivot[i]
            if i + 2 < n:
                self._far[i] = far[i] / self._pivot[i]

    def solve(self, right: Array) -> Array:
        """Solution (N, …) for a right-hand side (N, …)."""
        x, n = np.array(right, dtype=np.float64), len(right)
        for i in range(1, n):
            x[i] -= self._near[i - 1] * x[i - 1]
            if i > 1:
                x[i] -= self._far[i - 2] * x[i - 2]
        x /= self._pivot
        for i in range(n - 2, -1, -1):
            x[i] -= self._near[i] * x[i + 1]
            if i + 2 < n:
                x[i] -= self._far[i] * x[i + 2]
        return x


def barrier(stretch: Array) -> tuple[Array, Array, Array]:
    """A cost that grows without bound where a line would fold, and its first two derivatives.

    Nearly nothing for small values, infinite at ±1 (cf. Ruthotto et al. 2012).

    Parameters
    ----------
    stretch
        Change of the displacement from one face to the next, in voxels; between -1 and 1.

    Examples
    --------
    >>> cost, slope, curvature = barrier(np.array([0.0, 0.1, 0.9]))
    >>> cost.round(4).tolist()
    [0.0, 0.0001, 3.4532]
    """
    square = stretch * stretch
    left = 1 - square
    cost = square * square / left
    slope = 2 * stretch * (1 / left**2 - 1)
    curvature = 2 * (1 / left**2 - 1) + 8 * square / left**3
    return cost, slope, curvature
