"""BOLD to T1w by the boundary of white matter. In: a T1w image without bias field and its brain
(X, Y, Z), a BOLD reference, a rigid pull that brings them near. Out: that pull, refined.

Boundary-based registration (Greve and Fischl 2009, NeuroImage 48:63): grey matter is brighter than
white matter in T2*-weighted images, so along normals of the white surface the BOLD signal rises.
Only differences across 4 mm are looked at: bias field, drop-out and the edges of masks do not pull.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

FloatArray = NDArray[np.float64]

N_POINTS = 20_000
# Half of the distance between the two samples of a point of the surface.
REACH_MM = 2.0
# Slope of the cost per percent of contrast: contrasts beyond 10 % count little more than that.
SLOPE = 0.1
SMOOTHING_MM = 0.7
# The rim of the brain's mask is no boundary of white matter.
RIM_MM = 4.0
# A rotation of 1 mm at this distance is as large a step as a shift of 1 mm.
RADIUS_MM = 50.0
LARGEST_STEP_MM = 10.0
# Mutual information leaves 1 to 3 mm; from 8 mm on the search may end in another fold.
LARGEST_CHANGE_MM = 8.0
FEWEST_POINTS = 1000


@dataclass(frozen=True)
class Surface:
    """Points (N, 3), RAS+ mm, between white and grey matter, and unit normals out of the white."""

    points: FloatArray
    normals: FloatArray


def white_surface(
    t1w: NDArray[Any], affine: FloatArray, brain: NDArray[np.bool_], seed: int = 0
) -> Surface:
    """Where a T1w image (X, Y, Z) crosses the level between grey and white matter.

    The level is the middle of the two brighter of three classes (Lloyd's k-means of the
    intensities). Of all crossings between neighbouring voxels, 20,000 are drawn with `seed`; there
    are none if the image has no contrast.
    """
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    smooth = ndimage.gaussian_filter(np.asarray(t1w, dtype=np.float32), SMOOTHING_MM / spacing)
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
    downhill = -np.stack(slopes, axis=1).astype(np.float64) @ np.linalg.inv(affine[:3, :3])
    length = np.linalg.norm(downhill, axis=1)
    steep = length > 0
    return Surface(_apply(affine, crossings[steep]), downhill[steep] / length[steep, np.newaxis])


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


def refine_rigid(
    surface: Surface,
    bold: NDArray[Any],
    affine: FloatArray,
    brain: NDArray[np.bool_],
    start: FloatArray,
) -> FloatArray | None:
    """The pull (4, 4), T1w world to BOLD world (RAS+ mm), at which the boundary is sharpest.

    Parameters
    ----------
    surface
        See `white_surface`.
    bold, brain
        The reference (X, Y, Z) and its brain, whose median tells signal from drop-out.
    affine
        Of `bold`, voxel to RAS+ mm.
    start
        (4, 4) pull that is right within 8 mm.

    Returns
    -------
    None where the boundary cannot be trusted: too little of it in view, grey matter not brighter
    than white, or an optimum more than 8 mm from the start.
    """
    bold = np.nan_to_num(np.asarray(bold, dtype=np.float32))
    floor = 0.2 * float(np.median(bold[brain]))
    to_voxel = np.linalg.inv(affine) @ start
    sides = [surface.points + side * REACH_MM * surface.normals for side in (-1, 1)]
    centre = surface.points.mean(axis=0) if len(surface.points) else np.zeros(3)

    def contrast(step: FloatArray) -> FloatArray:
        """(grey − white) / mean in percent at the points in view."""
        pull = to_voxel @ _small_motion(step, centre)
        white, grey = (
            ndimage.map_coordinates(bold, _apply(pull, side).T, order=1, cval=np.nan)
            for side in sides
        )
        total = white.astype(np.float64) + grey
        seen = total > floor  # NaN is not
        return np.asarray(200 * (grey - white)[seen] / total[seen])

    def cost(step: FloatArray) -> float:
        values = contrast(step)
        return float((1 - np.tanh(SLOPE * values)).mean()) if len(values) else 2.0

    if len(contrast(np.zeros(6))) < FEWEST_POINTS:
        return None
    found = optimize.minimize(
        cost,
        np.zeros(6),
        method="Powell",
        bounds=[(-LARGEST_STEP_MM, LARGEST_STEP_MM)] * 6,
        options={"xtol": 1e-2, "ftol": 1e-5, "maxiter": 20},
    )
    small = _small_motion(found.x, centre)
    change = np.linalg.norm(_apply(small, surface.points) - surface.points, axis=1).mean()
    if change > LARGEST_CHANGE_MM or np.median(contrast(found.x)) <= 0:
        return None
    return np.asarray(start @ small)


def _apply(matrix: FloatArray, points: FloatArray) -> FloatArray:
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def _small_motion(step: FloatArray, centre: FloatArray) -> FloatArray:
    """Three shifts (mm) and three turns (mm at `RADIUS_MM`) about a centre, as (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(step[3:] / RADIUS_MM).as_matrix()
    matrix[:3, 3] = centre + step[:3] - matrix[:3, :3] @ centre
    return matrix
