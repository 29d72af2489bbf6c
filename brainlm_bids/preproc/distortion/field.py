"""What an inhomogeneous magnetic field does to a run: its points are seen elsewhere.

A field map (Hz) and the phase encoding of a run give a `Distortion`: the shift, in voxels along one
axis, from where tissue lies to where an echo-planar image shows it. As a map of points it is the
last link of the chain template → T1w → BOLD reference → its image, so that the parcels' points move
and nothing is interpolated once more.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from brainlm_bids.preproc.affine import Matrix, Points, apply, invert, voxel_sizes

AXES = "ijk"
# The inverse is found by fixed point; a field without folds halves the error in each step or so.
INVERSION_STEPS = 30
INVERSION_TOLERANCE = 1e-3  # voxels


@dataclass(frozen=True)
class PhaseEncoding:
    """The direction in which a field distorts an echo-planar image, and how far.

    Attributes
    ----------
    axis
        Of the stored array: 0, 1 or 2.
    sign
        1 where a positive frequency moves the image towards larger indices ("j"), -1 for "j-".
    readout
        Total read-out time, s, as BIDS defines it: a field of 1/readout Hz moves one voxel.
    """

    axis: int
    sign: int
    readout: float

    @classmethod
    def from_bids(cls, direction: str, readout: float) -> "PhaseEncoding":
        """Read BIDS' `PhaseEncodingDirection`, which names axes of the array, not of the body.

        Parameters
        ----------
        direction
            One of i, i-, j, j-, k, k-.
        readout
            Total read-out time, s.

        Raises
        ------
        ValueError
            If the direction is none of these, or the time is not positive.

        Examples
        --------
        >>> PhaseEncoding.from_bids("j-", 0.05).voxels(40.0)
        -2.0
        """
        if direction.rstrip("-") not in tuple(AXES) or len(direction) > 2:
            raise ValueError(f"phase encoding {direction!r} is none of i, i-, j, j-, k, k-")
        if not readout > 0:
            raise ValueError(f"a total read-out time of {readout} s is not positive")
        return cls(AXES.index(direction[0]), -1 if direction.endswith("-") else 1, float(readout))

    @property
    def direction(self) -> str:
        """As BIDS spells it.

        >>> PhaseEncoding(1, -1, 0.05).direction
        'j-'
        """
        return AXES[self.axis] + ("-" if self.sign < 0 else "")

    def voxels(self, hertz: Any) -> Any:
        """Shift in voxels of a field in Hz, a number or an array."""
        return self.sign * self.readout * hertz

    def hertz(self, voxels: Any) -> Any:
        """The field, in Hz, of a shift in voxels: the inverse of `voxels`."""
        return self.sign * voxels / self.readout


@dataclass(frozen=True)
class FieldMap:
    """A map of the magnetic field's inhomogeneity, and an image that shows where it lies.

    Attributes
    ----------
    hertz
        (X, Y, Z) float32; continued smoothly where it was not measured.
    affine
        (4, 4) voxel to RAS+ mm.
    magnitude
        (X, Y, Z) an undistorted image of the head on the same grid, for registration to the run.
    brain_mask
        (X, Y, Z) where the field was measured.
    """

    hertz: NDArray[np.float32]
    affine: Matrix
    magnitude: NDArray[np.float32]
    brain_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Distortion:
    """Where an echo-planar image shows what lies at a point: a map of points, RAS+ mm.

    Attributes
    ----------
    shift
        (X, Y, Z) float32, voxels along `axis`, on the grid of the run's reference: from where
        tissue lies to where the image shows it. Continued by its rim outside of the grid.
    axis
        Of the array: 0, 1 or 2.
    affine
        (4, 4) of the reference, voxel to RAS+ mm.

    Examples
    --------
    >>> there = Distortion(np.full((4, 4, 4), 2.0, np.float32), 1, np.diag([3.0, 3.0, 3.0, 1.0]))
    >>> there(np.array([[3.0, 3.0, 3.0]]))
    array([[3., 9., 3.]])
    >>> there.inverse(np.array([[3.0, 9.0, 3.0]])).round(6)
    array([[3., 3., 3.]])
    """

    shift: NDArray[np.float32]
    axis: int
    affine: Matrix = field(repr=False)

    @property
    def direction(self) -> NDArray[np.float64]:
        """(3,) mm in RAS+ that one voxel of shift amounts to."""
        return np.asarray(self.affine[:3, self.axis], dtype=np.float64)

    @property
    def millimetres(self) -> NDArray[np.float32]:
        """(X, Y, Z) the shift in mm, positive towards larger indices."""
        return np.asarray(self.shift * np.float32(voxel_sizes(self.affine)[self.axis]))

    def __call__(self, points: Points) -> Points:
        """Where the image shows what lies at points (P, 3)."""
        return np.asarray(points + self._voxels(points)[:, np.newaxis] * self.direction)

    def inverse(self, points: Points) -> Points:
        """Where that lies which the image shows at points (P, 3), by fixed point.

        Where the image is stretched the steps are shortened as Newton's are, or they would grow
        where it is stretched to more than twice its size.
        """
        points = np.asarray(points, dtype=np.float64)
        shift = self._voxels(points)
        stretch = np.maximum(self.jacobian(), 1)
        for _ in range(INVERSION_STEPS):
            there = points - shift[:, np.newaxis] * self.direction
            change = (self._voxels(there) - shift) / self._sampled(stretch, there)
            shift += change
            if np.abs(change).max(initial=0.0) < INVERSION_TOLERANCE:
                break
        return np.asarray(points - shift[:, np.newaxis] * self.direction)

    def jacobian(self) -> NDArray[np.float32]:
        """(X, Y, Z) by how much the image is stretched where tissue lies; folded where <= 0.

        An undistorted image is the distorted one, sampled at the shifted places, times this.
        """
        return np.asarray(1 + np.gradient(self.shift, axis=self.axis), dtype=np.float32)

    def undistorted(self, image: ArrayLike, order: int = 1) -> NDArray[np.float32]:
        """Show an image of the run, (X, Y, Z), as it is without distortion.

        Parameters
        ----------
        image
            On the grid of the reference.
        order
            Of the spline; 0 takes the nearest voxel and leaves the intensity as it is, for masks.

        Returns
        -------
        ndarray
            float32 of the same shape, 0 out of view.
        """
        data = np.asarray(image, dtype=np.float32)
        places = np.indices(data.shape, dtype=np.float32)
        places[self.axis] += self.shift
        moved = ndimage.map_coordinates(data, places, order=order, output=np.float32)
        return moved if order == 0 else np.asarray(moved * np.maximum(self.jacobian(), 0))

    def _voxels(self, points: Points) -> NDArray[np.float64]:
        """Shift (P,) in voxels of what lies at points (P, 3)."""
        return self._sampled(self.shift, points)

    def _sampled(self, image: NDArray[np.float32], points: Points) -> NDArray[np.float64]:
        """Values (P,) of an image on the grid at points (P, 3)."""
        places = apply(invert(self.affine), points).T
        return np.asarray(
            ndimage.map_coordinates(image, places, order=1, mode="nearest", output=np.float64)
        )


def distortion_of(
    hertz: NDArray[np.floating], affine: Matrix, encoding: PhaseEncoding
) -> Distortion:
    """The distortion of a run by a field on the grid of its own reference.

    Parameters
    ----------
    hertz
        (X, Y, Z).
    affine
        (4, 4), voxel to RAS+ mm.
    encoding
        Of the run.

    Examples
    --------
    >>> field = np.full((2, 2, 2), 20.0)
    >>> float(distortion_of(field, np.eye(4), PhaseEncoding(0, -1, 0.05)).shift[0, 0, 0])
    -1.0
    """
    return Distortion(np.asarray(encoding.voxels(hertz), dtype=np.float32), encoding.axis, affine)
