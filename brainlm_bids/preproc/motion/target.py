"""The reference that volumes are aligned with, on any device.

A reference volume (X, Y, Z) with its affine (RAS+ mm) becomes a `Target`: points in and around the
head with their values and derivatives.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brainlm_bids.preproc.affine import about, apply, invert, voxel_sizes

FloatArray = NDArray[np.float64]
Volume = NDArray[np.float32]

SMOOTHING_FWHM_MM = 5.0
COARSE_FWHM_MM = 10.0
# Enough for 0.05 mm at 2 % noise; more points cost time in proportion and gain little.
N_POINTS = 12_000
MAX_ITERATIONS = 40
# An update that moves a point at 50 mm from the centre by less than this ends the search.
TOLERANCE_MM = 2e-3
HEAD_RADIUS_MM = 50.0
# Below this correlation with the reference a volume is tried again from blurred images.
GOOD_CORRELATION = 0.98
# The same update from that correlation on, where a hundredth of a small one is left after it.
GOOD_TOLERANCE_MM = 0.02
# A search begins with a part of the points, and goes on with all after an update as small as this.
N_ROUGH_POINTS = 3_000
ROUGH_MM = 0.5


@dataclass(frozen=True)
class Target:
    """What is computed once from the reference: sampled points, their values, and how they change.

    Attributes
    ----------
    points
        (N, 3) voxel indices.
    centre
        (3,) RAS+ mm, the point that rotations are about.
    design
        (N, 7) the value at each point, and its change per mm of shift and per rad of rotation.
    normal
        (7, 7) the products of the columns of `design`.
    affine
        (4, 4) voxel to RAS+ mm.
    smoothing
        (3,) standard deviation of the Gaussian, in voxels.
    guard
        (3,) voxels left out at every face.
    """

    points: FloatArray  # (N, 3) voxel indices
    centre: FloatArray  # (3,) world mm, rotations are about it
    design: FloatArray  # (N, 7): value, its change per mm of shift, per rad of rotation
    normal: FloatArray
    affine: FloatArray
    smoothing: FloatArray  # (3,) standard deviation in voxels
    guard: FloatArray  # (3,) voxels left out at every face


def finite_volume(bold: NDArray[Any], t: int) -> Volume:
    """Return one volume of a run, with zeros in place of values that are not finite.

    Parameters
    ----------
    bold
        (X, Y, Z, T).
    t
        Index of the volume.

    Returns
    -------
    ndarray
        (X, Y, Z) float32.

    Examples
    --------
    >>> finite_volume(np.array([[[[1.0, np.nan]]]]), 1)
    array([[[0.]]], dtype=float32)
    """
    volume = np.array(bold[..., t], dtype=np.float32)
    if not np.isfinite(volume).all():
        np.nan_to_num(volume, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return volume


def _head(smooth: Volume) -> NDArray[np.bool_]:
    """The head and two voxels around it: the region with edges that an alignment can use."""
    low, high = np.percentile(smooth, [2, 98])
    if not high > low:
        raise ValueError("the reference volume is constant")
    mask: NDArray[np.bool_] = ndimage.binary_dilation(
        smooth > low + 0.15 * (high - low), iterations=2
    )
    return mask


def make_target(reference: NDArray[Any], affine: NDArray[Any], fwhm_mm: float) -> Target:
    """Smooth a reference and sample it.

    Parameters
    ----------
    reference
        (X, Y, Z); values that are not finite count as 0.
    affine
        (4, 4) voxel to RAS+ mm.
    fwhm_mm
        Full width at half maximum of the Gaussian, mm.

    Returns
    -------
    Target
        Points in and around the head, with their values and derivatives.

    Raises
    ------
    ValueError
        If the reference is constant.
    """
    affine = np.asarray(affine, dtype=np.float64)
    voxel_mm = voxel_sizes(affine)
    sigma_mm = fwhm_mm / np.sqrt(8 * np.log(2))
    smoothing = sigma_mm / voxel_mm
    clean = np.nan_to_num(np.asarray(reference, dtype=np.float32))
    smooth = ndimage.gaussian_filter(clean, smoothing, mode="nearest")
    shape = np.array(smooth.shape)
    # thin stacks keep half of their slices
    guard = np.minimum(1.5 * sigma_mm / voxel_mm, (shape - 1) / 4)
    voxels = np.argwhere(_head(smooth))
    voxels = voxels[np.all((voxels >= guard) & (voxels <= shape - 1 - guard), axis=1)]
    points = voxels[:: max(1, len(voxels) // N_POINTS)]
    index = tuple(points.T)
    slopes = np.stack([_slope(smooth, axis)[index] for axis in range(3)], axis=1)
    gradient = slopes @ invert(affine[:3, :3])
    world = apply(affine, points)
    values = smooth[index].astype(np.float64)
    centre = np.average(world, axis=0, weights=np.clip(values, 1e-6, None))
    turn = np.cross(world - centre, gradient)
    design = np.column_stack([values, gradient, turn])
    normal = design.T @ design
    return Target(points.astype(np.float64), centre, design, normal, affine, smoothing, guard)


def _slope(volume: Volume, axis: int) -> FloatArray:
    """Derivative of the cubic spline through the volume, per voxel, at the voxels."""
    if volume.shape[axis] < 3:
        return np.zeros(volume.shape)
    coefficients = ndimage.spline_filter1d(
        volume, order=3, axis=axis, output=np.float64, mode="mirror"
    )
    slope: FloatArray = ndimage.correlate1d(coefficients, [-0.5, 0, 0.5], axis=axis, mode="mirror")
    return slope


def roughly(target: Target) -> Target:
    """The same target with a part of its points, for the beginning of a search.

    Parameters
    ----------
    target
        See `make_target`.

    Returns
    -------
    Target
        With 3,000 points or a few more, or all where there are fewer.
    """
    some = slice(None, None, max(1, len(target.points) // N_ROUGH_POINTS))
    design = np.ascontiguousarray(target.design[some])
    return replace(target, points=target.points[some], design=design, normal=design.T @ design)


def step_mm(steps: FloatArray) -> FloatArray:
    """How far a step moves a point at 50 mm from the centre, at most.

    Parameters
    ----------
    steps
        (..., 6) translation in mm, then a rotation vector in rad.

    Returns
    -------
    ndarray
        (...) mm.

    Examples
    --------
    >>> step_mm(np.array([[3.0, 4.0, 0, 0, 0, 0.1]]))
    array([10.])
    """
    turn = HEAD_RADIUS_MM * np.linalg.norm(steps[..., 3:], axis=-1)
    return np.asarray(np.linalg.norm(steps[..., :3], axis=-1) + turn)


def arrived(steps: FloatArray, correlation: NDArray[np.float64] | float) -> NDArray[np.bool_]:
    """Whether a search ends with a step.

    Parameters
    ----------
    steps
        (..., 6) translation in mm, then a rotation vector in rad.
    correlation
        (...) of volume and reference before the step.

    Returns
    -------
    ndarray
        (...) bool.

    Examples
    --------
    >>> arrived(np.array([0.01, 0, 0, 0, 0, 0]), np.array([0.99, 0.9]))
    array([ True, False])
    """
    good = np.asarray(correlation) >= GOOD_CORRELATION
    return np.asarray(step_mm(steps) < np.where(good, GOOD_TOLERANCE_MM, TOLERANCE_MM))


def small_motion(step: FloatArray, centre: FloatArray) -> FloatArray:
    """Return a rigid motion about a centre as a matrix.

    Parameters
    ----------
    step
        (6,) translation in mm, then a rotation vector in rad.
    centre
        (3,) mm.

    Returns
    -------
    ndarray
        (4, 4).

    Examples
    --------
    >>> small_motion(np.array([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]), np.zeros(3))[:3, 3]
    array([1., 2., 3.])
    """
    return about(centre, Rotation.from_rotvec(step[3:]).as_matrix(), step[:3])
