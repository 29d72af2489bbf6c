"""Head motion of a BOLD run (X, Y, Z, T) and its correction.

The motion is one rigid 4 × 4 pull matrix per volume, or parameters (T, 6) in mm and rad. The
realigned run is float32 on the grid of the reference. Runs may be anything that can be sliced by
volume; affines carry voxels to RAS+ mm.

A pull matrix M_t maps RAS+ world coordinates of the reference to those of volume t
(x_volume = M_t @ x_reference): the value at x in the realigned image is volume t sampled there.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brainlm_bids.preproc.affine import about, apply, in_voxels, invert
from brainlm_bids.preproc.motion import batches as motion_torch
from brainlm_bids.preproc.motion.splines import coefficients, resample, spline_filters
from brainlm_bids.preproc.motion.target import (
    COARSE_FWHM_MM,
    GOOD_CORRELATION,
    MAX_ITERATIONS,
    ROUGH_MM,
    SMOOTHING_FWHM_MM,
    FloatArray,
    Target,
    Volume,
    arrived,
    finite_volume,
    make_target,
    roughly,
    small_motion,
    step_mm,
)


def reference_volume(
    bold: NDArray[Any],
    n_dummy: int,
    n_average: int = 16,
    *,
    affine: NDArray[Any],
    device: str = "cpu",
    good: NDArray[np.bool_] | None = None,
) -> Volume:
    """Average of realigned steady-state volumes spread over the run.

    Parameters
    ----------
    bold
        (X, Y, Z, T), raw.
    n_dummy
        Leading volumes that are not used (unless there are no others).
    n_average
        How many volumes are averaged.
    affine
        (4, 4) voxel to RAS+ mm.
    device
        See `realign`.
    good
        (T,) False for volumes that are not used; None: all are good.

    Returns
    -------
    ndarray
        (X, Y, Z) float32, in the position of the volume that is most like the others, so that a
        volume with motion during its acquisition is not chosen. It is the median over volumes,
        so that such a volume does not enter the average either.
    """
    usable = np.arange(bold.shape[3]) if good is None else np.flatnonzero(good)
    steady = usable[usable >= n_dummy]
    usable = steady if steady.size else usable
    spread = np.linspace(usable[0], usable[-1], min(n_average, len(usable))).round()
    # the nearest usable volumes: these themselves where all are good
    chosen = np.unique([usable[np.argmin(np.abs(usable - t))] for t in spread])
    volumes = np.stack([finite_volume(bold, t) for t in chosen], axis=3)
    middle = np.median(volumes, axis=3, keepdims=True)
    typical = int(np.argmin(np.abs(volumes - middle).mean(axis=(0, 1, 2))))
    matrices = realign(volumes, affine, volumes[..., typical], device=device)
    return np.asarray(np.median(resample(volumes, affine, matrices), axis=3), dtype=np.float32)


def realign(
    bold: NDArray[Any],
    affine: NDArray[Any],
    reference: NDArray[Any],
    *,
    device: str = "cpu",
    chosen: NDArray[np.integer] | None = None,
) -> FloatArray:
    """Rigid motion of every volume against a reference, by Gauss–Newton.

    Both images are smoothed to 5 mm FWHM and compared at about 12,000 points in and around the
    head. The derivatives are those of the reference, computed once (inverse compositional
    alignment), so a volume's own noise does not bias them; one factor per volume accounts for
    differences of intensity. The search starts from the previous volume's result or, where that
    fits badly, from no motion if that fits better.

    Parameters
    ----------
    bold
        (X, Y, Z, T); values that are not finite count as 0.
    affine
        (4, 4) voxel to RAS+ mm; oblique, left-handed and anisotropic grids are fine.
    reference
        (X, Y, Z) on the same grid, see `reference_volume`.
    device
        "cpu", "cuda", or "auto" (CUDA if there is one). Without CUDA everything runs on the
        CPU; with it, volumes are processed in batches (`batches`), with results that differ by
        less than 0.01 mm.
    chosen
        (T',) indices of the volumes to align; None: all.

    Returns
    -------
    ndarray
        (T', 4, 4) float64 pull matrices, reference world to volume world.

    Raises
    ------
    ValueError
        If the shapes disagree, the reference is constant, or the device is unknown.

    References
    ----------
    Baker S, Matthews I (2004). Lucas-Kanade 20 years on: a unifying framework. IJCV 56:221.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {device!r}: choose auto, cpu or cuda")
    if bold.ndim != 4 or bold.shape[:3] != reference.shape:
        raise ValueError(f"bold {bold.shape} and reference {reference.shape} do not match")
    if motion_torch.usable_device(device) != "cpu":
        return motion_torch.realign(bold, affine, reference, "cuda", chosen)
    fine = _level(reference, affine, SMOOTHING_FWHM_MM)
    # few runs need it
    coarse = lru_cache(maxsize=1)(lambda: _level(reference, affine, COARSE_FWHM_MM))
    used = np.arange(bold.shape[3]) if chosen is None else chosen
    matrices = np.empty((len(used), 4, 4))
    previous = np.eye(4)
    for row, t in enumerate(used):
        previous = _align(finite_volume(bold, int(t)), fine, coarse, previous)
        matrices[row] = previous
    return matrices


def matrices_to_parameters(matrices: NDArray[Any], centre_mm: NDArray[Any]) -> FloatArray:
    """Six motion parameters per volume.

    Parameters
    ----------
    matrices
        (T, 4, 4) rigid pull matrices.
    centre_mm
        (3,) the point that rotations are about, RAS+ mm: the brain's centre of mass.

    Returns
    -------
    ndarray
        (T, 6). trans_x, trans_y, trans_z in mm: where that point moved to (positive: right,
        anterior, superior). rot_x, rot_y, rot_z in rad about the RAS axes, positive
        counter-clockwise seen from the positive end of the axis (positive rot_x lifts the nose,
        rot_y tips the head to its right, rot_z turns the nose to the left), with R = Rx · Ry · Rz
        as in FSL. FSL's own numbers have the same size (for small rotations, on a grid that is not
        oblique); signs differ with its image axes.

    Examples
    --------
    >>> quarter_turn = np.array([[[0, -1, 0, 0], [1, 0, 0, 5], [0, 0, 1, 0], [0, 0, 0, 1.0]]])
    >>> matrices_to_parameters(quarter_turn, np.array([10.0, 0, 0])).round(4) + 0.0
    array([[-10.    ,  15.    ,   0.    ,   0.    ,   0.    ,   1.5708]])
    """
    matrices = np.asarray(matrices, dtype=np.float64)
    centre = np.asarray(centre_mm, dtype=np.float64)
    translations = apply(matrices, centre) - centre
    rotations = Rotation.from_matrix(matrices[:, :3, :3]).as_euler("XYZ")
    return np.hstack([translations, rotations])


def parameters_to_matrices(parameters: NDArray[Any], centre_mm: NDArray[Any]) -> FloatArray:
    """Pull matrices of motion parameters: the inverse of `matrices_to_parameters`.

    Parameters
    ----------
    parameters
        (T, 6) translations in mm, then rotations in rad.
    centre_mm
        (3,) the point that rotations are about, RAS+ mm.

    Returns
    -------
    ndarray
        (T, 4, 4).

    Examples
    --------
    >>> parameters_to_matrices(np.array([[1.0, 2, 3, 0, 0, 0]]), np.zeros(3))[0, :3, 3]
    array([1., 2., 3.])
    """
    parameters = np.asarray(parameters, dtype=np.float64)
    rotations = Rotation.from_euler("XYZ", parameters[:, 3:]).as_matrix()
    return about(centre_mm, rotations, parameters[:, :3])


class _Level(NamedTuple):
    """A target, a part of it, and the filters that volumes go through before they are compared."""

    target: Target
    rough: Target
    filters: tuple[NDArray[np.float32], ...]


def _level(reference: NDArray[Any], affine: NDArray[Any], fwhm_mm: float) -> _Level:
    target = make_target(reference, affine, fwhm_mm)
    return _Level(target, roughly(target), spline_filters(reference.shape, target.smoothing))


def _align(
    volume: Volume, fine: _Level, coarse: Callable[[], _Level], previous: FloatArray
) -> FloatArray:
    """Pull matrix of one volume; starts over from blurred images if the first search fails."""
    spline = coefficients(volume, fine.filters)
    start, first = previous, _fit(spline, fine.rough, previous)
    if first[1] < GOOD_CORRELATION:
        still = _fit(spline, fine.rough, np.eye(4))
        start, first = (np.eye(4), still) if still[1] > first[1] else (start, first)
    matrix, correlation = _search(spline, fine, start, first)
    if correlation >= GOOD_CORRELATION:
        return matrix
    level = coarse()
    second, _ = _search(coefficients(volume, level.filters), level, start)
    second, second_correlation = _search(spline, fine, second)
    return second if second_correlation > correlation else matrix


def _search(
    spline: Volume,
    level: _Level,
    start: FloatArray,
    first: tuple[FloatArray, float] | None = None,
) -> tuple[FloatArray, float]:
    """Gauss–Newton from one start; `first` is the rough fit at the start, if it is known.

    Returns the matrix and the correlation reached there.
    """
    matrix, target = start, level.rough
    step, correlation = first or _fit(spline, target, matrix)
    for _ in range(MAX_ITERATIONS - 1):
        matrix = matrix @ invert(small_motion(step, target.centre))
        if target is level.target and arrived(step, correlation):
            break
        if step_mm(step) < ROUGH_MM:
            target = level.target
        step, correlation = _fit(spline, target, matrix)
    return matrix, correlation


def _fit(spline: Volume, target: Target, matrix: FloatArray) -> tuple[FloatArray, float]:
    """One least-squares step.

    The volume seen through `matrix` is modelled as gain × (reference moved by a small motion).
    Returns that motion (3 mm, 3 rad; zeros if the points do not determine it) and the correlation
    of volume and reference before it.
    """
    pull = in_voxels(matrix, target.affine)
    position = pull[:3, :3] @ target.points.T + pull[:3, 3:]
    last = np.array(spline.shape) - 1 - target.guard
    inside = _inside(position, target.guard, last)
    design, normal = target.design, target.normal
    if inside is not None:
        if inside.sum() < len(inside) / 4:
            return np.zeros(6), -1.0
        position, design = position[:, inside], design[inside]
        normal = design.T @ design
    values = ndimage.map_coordinates(
        spline, position, output=np.float64, order=3, mode="mirror", prefilter=False
    )
    correlation = _correlation(values, design[:, 0])
    if correlation is None:
        return np.zeros(6), -1.0
    scale = np.sqrt(np.diag(normal)) + 1e-30
    right = design.T @ values
    weights = np.linalg.lstsq(normal / np.outer(scale, scale), right / scale, rcond=1e-9)[0] / scale
    if not weights[0] > 0:
        return np.zeros(6), correlation
    return weights[1:] / weights[0], correlation


def _inside(position: FloatArray, first: FloatArray, last: FloatArray) -> NDArray[np.bool_] | None:
    """Which positions (3, N) lie between corners (3,) of a box; None: all do."""
    if (position.min(axis=1) >= first).all() and (position.max(axis=1) <= last).all():
        return None
    within = (position >= first[:, None]) & (position <= last[:, None])
    return np.asarray(within.all(axis=0))


def _correlation(values: FloatArray, reference: FloatArray) -> float | None:
    """Pearson's correlation; None if the values are all the same."""
    if not values.min() < values.max():
        return None
    values, reference = values - values.mean(), reference - reference.mean()
    spread = float((values @ values) * (reference @ reference))
    return float(values @ reference) / np.sqrt(spread) if spread > 0 else 0.0
