"""Registration of BOLD and T1w image at the boundary of white matter.

A linear pull (4, 4) that brings a BOLD reference near a T1w image without bias field (or a
template) is refined as a rigid or an affine one, and by a smooth field of displacements.

Boundary-based registration (Greve and Fischl 2009, NeuroImage 48:63) uses that grey matter is
brighter than white matter in T2*-weighted images, so that the BOLD signal rises along the normals
of the white surface. Only differences across a few millimetres count: bias field, drop-out and the
edges of masks have no influence. All pulls carry RAS+ mm of the T1w image to those of the BOLD
reference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from brainlm_bids.preproc.affine import about, apply, compose, invert, subgrid, voxel_sizes
from brainlm_bids.preproc.registration import spline
from brainlm_bids.preproc.registration.transforms import Chain, PointMap

FloatArray = NDArray[np.float64]

N_POINTS = 20_000
# Half of the distance between the two samples of a point of the surface: the last, and one with
# which an affine is found from further away.
REACH_MM = 2.0
WIDE_REACH_MM = 4.0
# Slope of the cost per percent of contrast: contrasts beyond 10 % count little more than that.
SLOPE = 0.1
# Below this share of the brain's median there is no signal to compare.
FLOOR = 0.2
SMOOTHING_MM = 0.7
# The rim of the brain's mask is no boundary of white matter.
RIM_MM = 4.0
# A turn or a stretch of 1 mm at this distance is as large a step as a shift of 1 mm.
RADIUS_MM = 50.0
LARGEST_STEP_MM = 10.0
# Mutual information leaves 1 to 3 mm (affine: 4 to 6); much more ends in another fold.
LARGEST_CHANGE_MM = {"rigid": 8.0, "affine": 15.0}
FEWEST_POINTS = 1000
# Of the field: distance of its control points, and the weight of its bending. With more freedom
# the phantom, whose folds are the template's, is met better, and a real brain worse.
CONTROL_MM = 25.0
BENDING = 0.01
FIELD_ITERATIONS = 60


@dataclass(frozen=True)
class Surface:
    """Points between white and grey matter.

    Attributes
    ----------
    points
        (N, 3) RAS+ mm.
    normals
        (N, 3) unit vectors from white to grey matter.
    """

    points: FloatArray
    normals: FloatArray


def white_surface(
    t1w: NDArray[Any], affine: FloatArray, brain: NDArray[np.bool_], seed: int = 0
) -> Surface:
    """Find where a T1w image crosses the level between grey and white matter.

    The level is the middle of the two brighter of three classes (Lloyd's k-means of the
    intensities).

    Parameters
    ----------
    t1w
        (X, Y, Z) without bias field.
    affine
        (4, 4) voxel to RAS+ mm.
    brain
        (X, Y, Z) mask.
    seed
        Seed of the draw: of all crossings between neighbouring voxels, 20,000 are used.

    Returns
    -------
    Surface
        Points and normals; none if the image has no contrast.
    """
    spacing = voxel_sizes(affine)
    sigma = SMOOTHING_MM / spacing
    if not brain.any():
        return Surface(np.empty((0, 3)), np.empty((0, 3)))
    # as far from the brain as its smoothed values depend on, nothing else matters
    box, corner = _box(brain, np.ceil(4 * sigma).astype(int) + 2)
    brain, affine = brain[box], subgrid(affine, corner)
    smooth = ndimage.gaussian_filter(np.asarray(t1w[box], dtype=np.float32), sigma)
    inner = ndimage.distance_transform_edt(brain, sampling=spacing) > RIM_MM
    if not inner.any():
        return Surface(np.empty((0, 3)), np.empty((0, 3)))
    level = _white_level(smooth[brain])
    crossings = np.concatenate([_crossings(smooth, inner, level, axis) for axis in range(3)])
    if len(crossings) > N_POINTS:
        drawn = np.random.default_rng(seed).choice(len(crossings), N_POINTS, replace=False)
        crossings = crossings[np.sort(drawn)]
    slopes = [
        ndimage.map_coordinates(ndimage.sobel(smooth, axis), crossings.T, order=1)
        for axis in range(3)
    ]
    downhill = -np.stack(slopes, axis=1).astype(np.float64) @ invert(affine[:3, :3])
    length = np.linalg.norm(downhill, axis=1)
    steep = length > 0
    return Surface(apply(affine, crossings[steep]), downhill[steep] / length[steep, np.newaxis])


def _box(
    mask: NDArray[np.bool_], margin: NDArray[np.int64]
) -> tuple[tuple[slice, ...], NDArray[np.int64]]:
    """Slices of the box around a mask (X, Y, Z) with a margin, and its first voxel."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    low = [max(part.start - width, 0) for part, width in zip(found, margin)]
    box = tuple(slice(a, part.stop + width) for a, part, width in zip(low, found, margin))
    return box, np.array(low)


def _white_level(values: NDArray[np.float32]) -> float:
    values = values[:: max(1, len(values) // 200_000)].astype(np.float64)
    centres = np.percentile(values, [10, 50, 90])
    for _ in range(50):
        edges = (centres[1:] + centres[:-1]) / 2
        members = np.searchsorted(edges, values)
        counts = np.maximum(np.bincount(members, minlength=3), 1)
        moved = np.bincount(members, values, minlength=3) / counts
        if np.allclose(moved, centres, rtol=1e-4):
            break
        centres = moved
    return float(centres[1:].mean())


def _crossings(
    image: NDArray[np.float32], inner: NDArray[np.bool_], level: float, axis: int
) -> FloatArray:
    """Voxel coordinates (N, 3) where the line between two neighbours meets the level."""
    low = tuple(slice(None, -1) if n == axis else slice(None) for n in range(3))
    high = tuple(slice(1, None) if n == axis else slice(None) for n in range(3))
    first, second = image[low], image[high]
    crossing = ((first >= level) != (second >= level)) & inner[low] & inner[high]
    points = np.argwhere(crossing).astype(np.float64)
    first, second = first[crossing], second[crossing]
    points[:, axis] += (level - first) / (second - first)
    return points


def refine(
    surface: Surface,
    bold: NDArray[Any],
    affine: FloatArray,
    brain: NDArray[np.bool_],
    start: FloatArray,
    kind: Literal["rigid", "affine"] = "rigid",
) -> FloatArray | None:
    """Find the pull at which the boundary is sharpest.

    Parameters
    ----------
    surface
        See `white_surface`.
    bold, brain
        The reference (X, Y, Z) and its brain, whose median separates signal from drop-out.
    affine
        (4, 4) of `bold`, voxel to RAS+ mm.
    start
        (4, 4) pull that is right within 8 mm.
    kind
        "rigid": `start` is rigid and so is the result; "affine": with stretches and shears.

    Returns
    -------
    ndarray or None
        (4, 4) RAS+ mm. None if the boundary cannot be trusted: too little of it is in view, grey
        matter is not brighter than white, or the optimum is too far from the start.

    References
    ----------
    Greve DN, Fischl B (2009). Accurate and robust brain image alignment using boundary-based
    registration. NeuroImage 48:63.
    """
    seen = _Bold(bold, affine, brain)
    if len(surface.points) == 0:
        return None
    centre = surface.points.mean(axis=0)
    small = _small_rigid if kind == "rigid" else _small_affine
    reaches = [REACH_MM] if kind == "rigid" else [WIDE_REACH_MM, REACH_MM]
    matrix = start
    for reach in reaches:
        if len(seen.contrast(matrix, surface, reach)) < FEWEST_POINTS:
            return None
        matrix = _sharpest(seen, surface, matrix, centre, small, reach)
    moved, before = apply(matrix, surface.points), apply(start, surface.points)
    change = np.linalg.norm(moved - before, axis=1).mean()
    contrast = seen.contrast(matrix, surface, REACH_MM)
    if change > LARGEST_CHANGE_MM[kind] or len(contrast) == 0 or np.median(contrast) <= 0:
        return None
    return matrix


def contrasts(
    surface: Surface,
    bold: NDArray[Any],
    affine: FloatArray,
    brain: NDArray[np.bool_],
    pull: PointMap | FloatArray,
) -> FloatArray:
    """Contrast of grey to white matter in a BOLD reference, along a surface.

    Parameters
    ----------
    surface, bold, affine, brain
        As for `refine`.
    pull
        Points (P, 3) of the surface's space to those of the reference, or a matrix (4, 4).

    Returns
    -------
    ndarray
        (P,) Q = 200 (grey - white) / (grey + white), %, at the points where there is signal.
    """
    values = contrasts_at(surface, bold, affine, brain, pull)
    return np.asarray(values[np.isfinite(values)])


def contrasts_at(
    surface: Surface,
    bold: NDArray[Any],
    affine: FloatArray,
    brain: NDArray[np.bool_],
    pull: PointMap | FloatArray,
) -> FloatArray:
    """As `contrasts`, at all points (N,) of the surface: NaN where there is no signal."""
    return _Bold(bold, affine, brain).contrast_at(pull, surface, REACH_MM)


def mean_cost(contrasts: FloatArray) -> float:
    """The cost that `refine` minimises, of contrasts (P,) in %.

    >>> mean_cost(np.array([0.0]))
    1.0
    """
    return float((1 - np.tanh(SLOPE * contrasts)).mean())


class _Bold:
    """A BOLD reference, sampled at points of the T1w image."""

    def __init__(self, bold: NDArray[Any], affine: FloatArray, brain: NDArray[np.bool_]) -> None:
        self.data = np.nan_to_num(np.asarray(bold, dtype=np.float32))
        self.to_voxel = invert(affine)
        self.floor = FLOOR * float(np.median(self.data[brain])) if brain.any() else np.inf

    def sample(self, pull: PointMap | FloatArray, points: FloatArray) -> FloatArray:
        """Trilinear values (N,) at points (N, 3) after a pull, NaN out of view."""
        voxels = apply(self.to_voxel, Chain((pull,))(points))
        values = ndimage.map_coordinates(self.data, voxels.T, order=1, cval=np.nan)
        return np.asarray(values, dtype=np.float64)

    def contrast(self, pull: PointMap | FloatArray, surface: Surface, reach: float) -> FloatArray:
        """(grey − white) / mean in percent, at the points where there is signal."""
        values = self.contrast_at(pull, surface, reach)
        return np.asarray(values[np.isfinite(values)])

    def contrast_at(
        self, pull: PointMap | FloatArray, surface: Surface, reach: float
    ) -> FloatArray:
        """The same at all points (N,), NaN where there is no signal."""
        white, grey = (
            self.sample(pull, surface.points + side * reach * surface.normals) for side in (-1, 1)
        )
        total = np.where(white + grey > self.floor, white + grey, np.nan)  # NaN is not
        return np.asarray(200 * (grey - white) / total)


def _sharpest(
    seen: _Bold,
    surface: Surface,
    start: FloatArray,
    centre: FloatArray,
    small: Callable[[FloatArray, FloatArray], FloatArray],
    reach: float,
) -> FloatArray:
    def cost(step: FloatArray) -> float:
        contrast = seen.contrast(start @ small(step, centre), surface, reach)
        return mean_cost(contrast) if len(contrast) else 2.0

    n_parameters = 6 if small is _small_rigid else 12
    found = optimize.minimize(
        cost,
        np.zeros(n_parameters),
        method="Powell",
        bounds=[(-LARGEST_STEP_MM, LARGEST_STEP_MM)] * n_parameters,
        options={"xtol": 1e-2, "ftol": 1e-5, "maxiter": 20},
    )
    return np.asarray(start @ small(found.x, centre))


def _small_rigid(step: FloatArray, centre: FloatArray) -> FloatArray:
    """Three shifts (mm) and three rotations (mm at `RADIUS_MM`) about a centre, as (4, 4)."""
    return about(centre, Rotation.from_rotvec(step[3:6] / RADIUS_MM).as_matrix(), step[:3])


def _small_affine(step: FloatArray, centre: FloatArray) -> FloatArray:
    """As `_small_rigid`, after three stretches and three shears (mm at `RADIUS_MM`)."""
    xx, yy, zz, xy, xz, yz = step[6:] / RADIUS_MM
    stretch = np.eye(3) + np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return compose(_small_rigid(step, centre), about(centre, stretch))


# --- a smooth field --------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A smooth field of displacements: a cubic B-spline.

    Attributes
    ----------
    control
        (X, Y, Z, 3) displacements of the control points, mm. They lie `CONTROL_MM` apart.
    origin
        (3,) position of the first control point, RAS+ mm.
    """

    control: FloatArray
    origin: FloatArray

    def displacement(self, points: FloatArray) -> FloatArray:
        """Displacements at points.

        Parameters
        ----------
        points
            (N, 3) RAS+ mm of the T1w image.

        Returns
        -------
        ndarray
            (N, 3) mm.

        Examples
        --------
        >>> field = Field(np.full((5, 5, 5, 3), 1.0), np.full(3, -50.0))
        >>> field.displacement(np.zeros((1, 3))).round(6)
        array([[1., 1., 1.]])
        """
        basis = spline.basis(points, self.origin, self.control.shape[:3], CONTROL_MM)
        return np.asarray(basis @ self.control.reshape(-1, 3))


def refine_field(
    surface: Surface,
    bold: NDArray[Any],
    affine: FloatArray,
    brain: NDArray[np.bool_],
    matrix: FloatArray,
) -> Field:
    """Find the smooth field u for which x -> matrix @ (x + u(x)) sharpens the boundary further.

    L-BFGS minimises the cost of `refine` plus the bending energy of the control points.

    Parameters
    ----------
    surface, bold, affine, brain
        As for `refine`.
    matrix
        (4, 4) pull that `refine` returned.

    Returns
    -------
    Field
        Displacements in the space of the T1w image.
    """
    seen = _Bold(bold, affine, brain)
    low, high = surface.points.min(axis=0), surface.points.max(axis=0)
    # one cell of margin, and one more for the spline's support
    origin = low - 2 * CONTROL_MM
    shape = tuple(int(n) for n in np.ceil((high - low) / CONTROL_MM).astype(int) + 5)
    basis = spline.basis(surface.points, origin, shape, CONTROL_MM)
    bending = spline.bending(shape)
    slopes = np.stack(np.gradient(seen.data))
    to_voxel = seen.to_voxel @ matrix

    def cost(flat: FloatArray) -> tuple[float, FloatArray]:
        control = flat.reshape(-1, 3)
        points = surface.points + basis @ control
        sides = [points + side * REACH_MM * surface.normals for side in (-1, 1)]
        white, grey = (seen.sample(matrix, side) for side in sides)
        lit = white + grey > seen.floor
        white, grey = np.where(lit, white, 1.0), np.where(lit, grey, 1.0)
        total, n_lit = white + grey, max(int(lit.sum()), 1)
        bounded = np.tanh(SLOPE * 200 * (grey - white) / total)
        rate = -400 * SLOPE * lit * (1 - bounded**2) / total**2 / n_lit
        pull_white, pull_grey = (_slopes_at(slopes, to_voxel, side) for side in sides)
        by_point = rate[:, None] * (white[:, None] * pull_grey - grey[:, None] * pull_white)
        stiff = bending @ control
        energy = BENDING * float((control * stiff).sum()) / len(control)
        gradient = basis.T @ by_point + 2 * BENDING * stiff / len(control)
        return float((1 - bounded)[lit].sum()) / n_lit + energy, gradient.ravel()

    found = optimize.minimize(
        cost,
        np.zeros(3 * int(np.prod(shape))),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": FIELD_ITERATIONS},
    )
    return Field(found.x.reshape(*shape, 3), origin)


def _slopes_at(slopes: NDArray[np.float32], to_voxel: FloatArray, points: FloatArray) -> FloatArray:
    """Change of the image (N, 3) per mm that points (N, 3) move."""
    voxels = apply(to_voxel, points).T
    sampled = [ndimage.map_coordinates(slope, voxels, order=1) for slope in slopes]
    return np.asarray(np.stack(sampled, axis=1) @ to_voxel[:3, :3])
