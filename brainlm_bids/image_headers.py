"""What the header of an image records: type, shape, affine and times, understood or refused.

An image of nibabel comes in, of which no value is read. Out come the grid as the rest of the
package expects it (three axes in space and one in time, an affine to RAS+ millimetres), or a
UserError of one line, to which the caller adds the name of the file.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError

Matrix = NDArray[np.float64]

# Edges of voxels of human MRI, mm, with room on both sides: 0.4 (anatomy at 7 T) to 8 mm.
VOXEL_MM = (0.3, 10.0)
# Extents of images that hold a human brain, mm: in the two longest directions a newborn's fits, and
# the longest is that of a head with its neck. The third is short where a few slices are acquired.
LEAST_EXTENT_MM, LARGEST_EXTENT_MM, LEAST_SLAB_MM = 80.0, 450.0, 12.0
LEAST_VOXELS = 4  # along each axis
# Deviation from right angles between axes, in degrees, that rounded headers have.
LARGEST_SHEAR_DEGREES = 1.0
# Volume of a voxel, of that with right angles: below, its axes lie in one plane.
LEAST_VOLUME = 1e-3
# Displacement by which sform and qform may differ: rounding, and far less than a voxel.
SAME_PLACE_MM = 0.5
# A turn by more than this exchanges axes.
LARGEST_TURN_DEGREES = 45.0
TIME_UNITS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_SPACE_UNITS = {"meter": 1e3, "micron": 1e-3}  # in mm; others are taken as mm
# Of an image whose last voxel is (1, 1, 1).
_CORNERS = np.array(list(product((0.0, 1.0), repeat=3)))
_DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


class OrientationMissingError(UserError):
    """The header does not record which way the axes run."""


class Grid(NamedTuple):
    """Where the voxels of an image lie.

    Attributes
    ----------
    shape
        (X, Y, Z) or (X, Y, Z, T), without the axes of length 1 that converters leave.
    affine
        (4, 4) voxel to RAS+ mm.
    """

    shape: tuple[int, ...]
    affine: Matrix


class Disagreement(NamedTuple):
    """How the two affines of a NIfTI header, sform and qform, differ.

    Attributes
    ----------
    millimetres
        The largest displacement of a corner of the image.
    flipped
        Whether one is a mirror image of the other, or its axes run in other directions.
    """

    millimetres: float
    flipped: bool


def read_grid(image: Any, orientation: str | None = None) -> Grid:
    """Shape and affine of an image.

    Parameters
    ----------
    image
        An image of nibabel.
    orientation
        Where its axes lead, for example "LAS" (to the left, to the front, upwards), if the header
        does not record it; the middle of the image is then the origin.

    Raises
    ------
    OrientationMissingError
        If neither the header nor `orientation` tells it.
    UserError
        If the affine is not a map between voxels and millimetres.
    """
    shape = squeezed(image.shape)
    if orientation is not None and not has_orientation(image):
        affine = _assumed(image, shape, orientation)
    else:
        affine = _recorded(image)
    if not all(map(math.isfinite, affine.ravel().tolist())):
        raise UserError("its affine holds values that are not finite; correct the header")
    sizes = _voxel_sizes(affine)
    if min(sizes) == 0 or abs(_volume(affine)) < LEAST_VOLUME * math.prod(sizes):
        raise UserError("its affine is singular (voxels without a volume); correct the header")
    affine = affine.copy()
    affine[:3] *= _millimetres(image, sizes)
    return Grid(shape, affine)


def has_orientation(image: Any) -> bool:
    """Whether the header records which way the axes run: in NIfTI, one of two codes above 0."""
    header = image.header
    if not hasattr(header, "get_sform"):
        # Analyze files have no place for it, those of FreeSurfer and MINC always record it
        return "analyze" not in type(image).__name__.lower()
    return int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the axes of length 1 beyond the third.

    >>> squeezed((64, 64, 30, 1, 200)), squeezed((256, 256, 180, 1))
    ((64, 64, 30, 200), (256, 256, 180))
    """
    return (*map(int, shape[:3]), *(int(n) for n in shape[3:] if n != 1))


def _recorded(image: Any) -> Matrix:
    if not has_orientation(image):
        raise OrientationMissingError(
            "its header does not record which way the axes run (sform_code and qform_code are "
            "both 0), so left and right cannot be told apart"
        )
    return np.asarray(image.affine, dtype=np.float64)


def _assumed(image: Any, shape: tuple[int, ...], orientation: str) -> Matrix:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(orientation):
        row, sign = _DIRECTIONS[letter]
        affine[row, axis] = sign * abs(float(image.header.get_zooms()[axis]))
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape[:3]) - 1) / 2
    return affine


def _millimetres(image: Any, sizes: Sequence[float]) -> float:
    """The header's unit of length in mm.

    Millimetres where only these make sense: most programs ignore the unit.
    """
    factor = _SPACE_UNITS.get(_units(image)[0], 1.0)
    if factor == 1.0:
        return factor
    scaled = [size * factor for size in sizes]
    return factor if _are_possible(scaled) or not _are_possible(sizes) else 1.0


def _units(image: Any) -> tuple[str, str]:
    """Of length and time, by nibabel's names."""
    try:
        length, time = image.header.get_xyzt_units()
    except (AttributeError, KeyError):  # not NIfTI, or a number that stands for no unit
        return "unknown", "unknown"
    return str(length), str(time)


def _are_possible(sizes: Sequence[float]) -> bool:
    return min(sizes) >= VOXEL_MM[0] and max(sizes) <= VOXEL_MM[1]


# Of each image of a cohort a handful of numbers is asked for, for which numpy takes ten times as
# long as Python's own numbers.


def _axes(affine: Matrix) -> list[list[float]]:
    """The columns of an affine: where a step along each axis of the array leads, mm."""
    columns: list[list[float]] = affine[:3, :3].T.tolist()
    return columns


def _voxel_sizes(affine: Matrix) -> tuple[float, float, float]:
    """Edges of the voxels, mm; infinite or NaN where the affine is.

    >>> _voxel_sizes(np.diag([3.0, -3.0, 3.5, 1.0]))
    (3.0, 3.0, 3.5)
    """
    x, y, z = (math.sqrt(i * i + j * j + k * k) for i, j, k in _axes(affine))
    return x, y, z


def _volume(affine: Matrix) -> float:
    """Of a voxel, mm³; below 0 where the axes are left-handed."""
    (a, b, c), (d, e, f), (g, h, i) = _axes(affine)
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def largest_distance(one: Matrix, other: Matrix, shape: Sequence[int]) -> float:
    """How far apart two affines put a corner of an image at most, mm.

    Parameters
    ----------
    one, other
        (4, 4) voxel to mm.
    shape
        Of the image; what is beyond the third axis is ignored.

    Examples
    --------
    >>> largest_distance(np.eye(4), np.diag([1.0, 1.0, 1.5, 1.0]), (64, 64, 31))
    15.0
    """
    corners = _CORNERS * [n - 1 for n in shape[:3]]
    moved = corners @ (one[:3, :3] - other[:3, :3]).T + (one[:3, 3] - other[:3, 3])
    return float(np.sqrt(np.add.reduce(moved * moved, axis=1).max()))


def check_stored(image: Any) -> None:
    """Raise UserError if the stored values are not one number per voxel."""
    dtype = image.get_data_dtype()
    if dtype.kind == "c":
        raise UserError("its values are complex; give their magnitude (part-mag)")
    if dtype.fields is not None or dtype.kind not in "iufb":
        raise UserError("its voxels hold colours (RGB), not intensities; convert the scan again")


def check_head(grid: Grid, *, whole: bool = False) -> None:
    """Raise UserError if an image cannot be one of a human head.

    Parameters
    ----------
    grid
        Of the image.
    whole
        Whether it has to hold the whole brain, as a T1w image has to.

    Examples
    --------
    >>> check_head(Grid((64, 64, 33, 200), np.diag([3.0, 3.0, 3.5, 1.0])))
    """
    shape, sizes = grid.shape[:3], _voxel_sizes(grid.affine)
    if not _are_possible(sizes):
        raise UserError(
            f"voxels of {_by(sizes)} mm are not those of an MRI scan of a person "
            f"({VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} mm); correct the voxel sizes in the header"
        )
    extents = sorted(size * n for size, n in zip(sizes, shape, strict=True))
    least = LEAST_EXTENT_MM if whole else LEAST_SLAB_MM
    if min(shape) < LEAST_VOXELS or extents[0] < least or extents[1] < LEAST_EXTENT_MM:
        kind = "does not hold a whole brain" if whole else "is too small for a brain"
        raise UserError(f"{_about(grid)} {kind}; are its shape and voxel sizes right?")
    if extents[2] > LARGEST_EXTENT_MM:
        raise UserError(
            f"{_about(grid)} is larger than any head; are its shape and voxel sizes right, "
            "and its axes in the order x, y, slices, time?"
        )
    shear = _shear_degrees(grid.affine)
    if shear > LARGEST_SHEAR_DEGREES:
        raise UserError(
            f"the axes of its affine deviate by {shear:.1f}° from right angles; resample it onto "
            "a grid with right angles, or correct the header"
        )


def _about(grid: Grid) -> str:
    return f"the image ({_by(grid.shape[:3])} voxels of {_by(_voxel_sizes(grid.affine))} mm)"


def _by(values: Iterable[float]) -> str:
    return " × ".join(f"{value:.4g}" for value in values)


def _shear_degrees(affine: Matrix) -> float:
    axes, sizes = _axes(affine), _voxel_sizes(affine)
    cosines = [
        abs(sum(x * y for x, y in zip(axes[i], axes[j], strict=True))) / (sizes[i] * sizes[j])
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    return math.degrees(math.asin(min(max(cosines), 1.0)))


def disagreement(image: Any) -> Disagreement | None:
    """How sform and qform differ; None where they do not, or only one of them is set.

    nibabel, FSL and fMRIPrep use the sform if both are set. If the sform alone is set, the voxel
    sizes of the header take the place of the qform.
    """
    header = image.header
    if not hasattr(header, "get_sform") or int(header["sform_code"]) <= 0:
        return None
    sform = np.asarray(header.get_sform(), dtype=np.float64)
    qform = _second_form(header, sform)
    if qform is None:
        return None
    moved = largest_distance(sform, qform, image.shape)
    if not moved > SAME_PLACE_MM:
        return None
    return Disagreement(moved, _turn_degrees(sform, qform) > LARGEST_TURN_DEGREES)


def _second_form(header: Any, sform: Matrix) -> Matrix | None:
    if int(header["qform_code"]) > 0:
        try:
            return np.asarray(header.get_qform(), dtype=np.float64)
        except ValueError:  # no rotation: it is not used
            return None
    zooms = [abs(float(zoom)) for zoom in header.get_zooms()[:3]]
    if not all(zoom > 0 for zoom in zooms):
        return None
    scaled = sform.copy()
    scaled[:3, :3] *= [z / s for z, s in zip(zooms, _positive_sizes(sform), strict=True)]
    return scaled


def _positive_sizes(affine: Matrix) -> list[float]:
    """Edges of the voxels, mm, by which one may divide."""
    return [max(size, 1e-9) for size in _voxel_sizes(affine)]


def _turn_degrees(one: Matrix, other: Matrix) -> float:
    """The angle between the axes of two affines; 180 where one is a mirror image."""
    a, b = (matrix[:3, :3] / _positive_sizes(matrix) for matrix in (one, other))
    if np.linalg.det(a) * np.linalg.det(b) < 0:
        return 180.0
    return float(np.degrees(np.arccos(((np.trace(a @ np.linalg.pinv(b)) - 1) / 2).clip(-1, 1))))


def repetition_time(image: Any) -> float | None:
    """Seconds between volumes as the header records them; None where it does not."""
    zooms, unit = image.header.get_zooms(), _units(image)[1]
    if len(zooms) != 4 or not zooms[3] > 0 or unit not in TIME_UNITS:
        return None
    return float(zooms[3]) * TIME_UNITS[unit]
