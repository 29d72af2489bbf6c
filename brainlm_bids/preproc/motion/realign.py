"""Head motion of a BOLD run (X, Y, Z, T) and its correction.

The motion is one rigid 4 × 4 pull matrix per volume, or parameters (T, 6) in mm and rad. The
realigned run is float32 on the grid of the reference. Runs may be anything that can be sliced by
volume; affines carry voxels to RAS+ mm.

A pull matrix M_t maps RAS+ world coordinates of the reference to those of volume t
(x_volume = M_t @ x_reference): the value at x in the realigned image is volume t sampled there.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brainlm_bids.preproc.affine import about, apply, in_voxels, invert
from brainlm_bids.preproc.motion import batches as motion_torch
from brainlm_bids.preproc.motion.target import (
    COARSE_FWHM_MM,
    GOOD_CORRELATION,
    HEAD_RADIUS_MM,
    MAX_ITERATIONS,
    SMOOTHING_FWHM_MM,
    TOLERANCE_MM,
    FloatArray,
    Target,
    Volume,
    finite_volume,
    make_target,
    small_motion,
)

# A volume counts as steady when its global signal is this close to what follows.
STEADY = 0.005
# Of the excess, from one volume to the next; T1 of 1.3 s, 30° and a TR of 0.7 s leave a half.
SLOWEST_DECAY = 0.7


def volumes_summary(bold: NDArray[Any], n_volumes: int = 40) -> FloatArray:
    """Global mean of the first volumes, from which dummy volumes are detected.

    Parameters
    ----------
    bold
        (X, Y, Z, T), raw.
    n_volumes
        How many volumes from the start are used.

    Returns
    -------
    ndarray
        (min(T, n_volumes),) means, the data clipped to [0, 99.8th percentile] as in niworkflows'
        ``NonsteadyStatesDetector``.

    Examples
    --------
    >>> volumes_summary(np.full((2, 2, 2, 3), 5.0))
    array([5., 5., 5.])
    """
    start = np.nan_to_num(np.asarray(bold[..., :n_volumes], dtype=np.float32))
    np.clip(start, 0.0, np.percentile(start, 99.8), out=start)
    return np.asarray(start.mean(axis=(0, 1, 2), dtype=np.float64))


def detect_dummy_volumes(global_signal: NDArray[Any]) -> int:
    """Count the leading volumes that were acquired before the steady state.

    Two rules apply one after the other. The first is that of fMRIPrep: the leading volumes whose
    modified z-score 0.6745·|x − median| / MAD exceeds 3.5 (Iglewicz and Hoaglin 1993). Drift and
    breathing hide from it smaller deviations, which would still ring in a temporal filter. So the
    approach to the steady state is continued as an exponential, and the volumes that follow count
    as long as it is above 0.5 %.

    Parameters
    ----------
    global_signal
        (T,) global mean, see `volumes_summary`; the first 40 volumes are used.

    Returns
    -------
    int
        How many volumes to leave out.

    References
    ----------
    Iglewicz B, Hoaglin D (1993). How to detect and handle outliers. ASQC Quality Press.

    Examples
    --------
    >>> detect_dummy_volumes(np.array([140.0, 110.0, 100.2, 99.9, 100.0, 100.1, 99.8, 100.0]))
    2
    """
    signal = np.asarray(global_signal, dtype=np.float64)[:40]
    distance = np.abs(signal - np.median(signal))
    # multiplied out: a series without any noise has MAD 0
    outlier = 0.6745 * distance > 3.5 * np.median(distance)
    n_outliers = int(np.cumprod(outlier).sum())
    return n_outliers + _approaching(signal / np.median(signal) - 1, n_outliers)


def _approaching(excess: FloatArray, n: int) -> int:
    """Count the volumes from n on that still exceed the steady state, by the decay before."""
    if not 0 < n < len(excess):
        return 0
    sign = np.sign(excess[0])
    seen = sign * excess[: n + 1]
    # least squares of e(t + 1) = decay · e(t): the first volumes, far above the noise, decide
    decay = np.clip(seen[:-1] @ seen[1:] / (seen[:-1] @ seen[:-1]), 0.0, SLOWEST_DECAY)
    # an approach that ends at once is no exponential: what was measured limits what is expected
    noise = np.median(np.abs(excess)) / 0.6745
    first = min(seen[n - 1] * decay, max(seen[n], 0.0) + noise)
    return int((first * decay ** np.arange(len(excess) - n) > STEADY).sum())


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
    differences of intensity. The search starts from the previous volume's result, or from no
    motion if that fits better.

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
    fine = make_target(reference, affine, SMOOTHING_FWHM_MM)
    # few runs need it
    coarse = lru_cache(maxsize=1)(lambda: make_target(reference, affine, COARSE_FWHM_MM))
    used = np.arange(bold.shape[3]) if chosen is None else chosen
    matrices = np.empty((len(used), 4, 4))
    previous = np.eye(4)
    for row, t in enumerate(used):
        previous = _align(finite_volume(bold, int(t)), fine, coarse, previous)
        matrices[row] = previous
    return matrices


def resample(
    bold: NDArray[Any], affine: NDArray[Any], matrices: NDArray[Any], *, out: Volume | None = None
) -> Volume:
    """Resample a run by its motion, with cubic splines.

    Parameters
    ----------
    bold
        (X, Y, Z, T).
    affine
        (4, 4) voxel to RAS+ mm.
    matrices
        (T, 4, 4) pull matrices of `realign`. A volume that did not move goes through the same
        interpolation as the others (and stays as it was, up to rounding).
    out
        float32 array of the shape of `bold` to write to; `bold` itself may be given, which
        saves a copy of the run.

    Returns
    -------
    ndarray
        (X, Y, Z, T) float32. Outside the field of view, a volume is continued by reflection about
        its outermost voxel centres: values there are not data (see `volumes_in_view` and
        `fill_unseen`).
    """
    if out is None:
        out = np.empty(bold.shape, dtype=np.float32)
    pulls = in_voxels(matrices, affine)
    for t, pull in enumerate(pulls):
        coefficients = _coefficients(finite_volume(bold, t))
        out[..., t] = ndimage.affine_transform(
            coefficients,
            pull[:3, :3],
            pull[:3, 3],
            output=np.float32,
            order=3,
            mode="mirror",
            prefilter=False,
        )
    return out


def volumes_in_view(
    matrices: NDArray[Any], affine: NDArray[Any], shape: tuple[int, int, int]
) -> NDArray[np.int32]:
    """Count the volumes that have each voxel of the reference in their field of view.

    Parameters
    ----------
    matrices
        (T, 4, 4) pull matrices.
    affine
        (4, 4) voxel to RAS+ mm.
    shape
        (X, Y, Z) of a volume.

    Returns
    -------
    ndarray
        (X, Y, Z) counts, 0 to T. A voxel's centre is in view up to the outer faces of the
        outermost voxels, not only up to their centres.

    Examples
    --------
    >>> volumes_in_view(np.tile(np.eye(4), (3, 1, 1)), np.eye(4), (1, 1, 2))
    array([[[3, 3]]], dtype=int32)
    """
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    count = np.zeros(shape, dtype=np.int32)
    for pull in in_voxels(matrices, affine):
        seen = np.ones(shape, dtype=bool)
        for axis, size in enumerate(shape):
            a, b, c, offset = pull[axis]
            position = (a * i + offset) + b * j + c * k
            seen &= (position >= -0.5) & (position <= size - 0.5)
        count += seen
    return count


def fill_unseen(
    realigned: Volume,
    matrices: NDArray[Any],
    affine: NDArray[Any],
    mask: NDArray[Any],
    good: NDArray[np.bool_] | None = None,
) -> float:
    """Replace, in place, values outside the field of view by interpolation in time.

    When the head has moved, some voxels of the reference lie outside the field of view of a volume,
    where `resample` continues the image by reflection. These values are interpolated linearly
    between the nearest volumes that have the voxel in view (at the ends of the run: copied from the
    nearest one).

    Parameters
    ----------
    realigned
        (X, Y, Z, T) float32, of `resample`; changed in place.
    matrices
        (T, 4, 4) pull matrices.
    affine
        (4, 4) voxel to RAS+ mm.
    mask
        (X, Y, Z) the voxels to fill, each in view at least once.
    good
        (T,) False for bad volumes, which nothing is taken from; None: all are good.

    Returns
    -------
    float
        The share of the values in the mask, of good volumes, that were replaced.
    """
    shape = mask.shape
    partly = mask & (volumes_in_view(matrices, affine, shape) < len(matrices))
    voxels = np.argwhere(partly)
    if not len(voxels):
        return 0.0
    seen = np.empty((len(matrices), len(voxels)), dtype=bool)
    upper = np.array(shape) - 0.5
    for t, pull in enumerate(in_voxels(matrices, affine)):
        position = apply(pull, voxels)
        seen[t] = ((position >= -0.5) & (position <= upper)).all(axis=1)
    times = np.arange(len(matrices))
    n_unseen, n_volumes = (~seen).sum(), len(matrices)
    if good is not None:
        n_unseen, n_volumes = (~seen[good]).sum(), good.sum()
        seen[~good] = False
        voxels, seen = voxels[seen.any(axis=0)], seen[:, seen.any(axis=0)]
    for voxel, known in zip(voxels, seen.T):
        series = realigned[tuple(voxel)]
        series[~known] = np.interp(times[~known], times[known], series[known])
    return float(n_unseen / (mask.sum() * n_volumes))


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


def _coefficients(volume: Volume) -> Volume:
    coefficients: Volume = ndimage.spline_filter(volume, order=3, output=np.float32, mode="mirror")
    return coefficients


def _align(
    volume: Volume, fine: Target, coarse: Callable[[], Target], previous: FloatArray
) -> FloatArray:
    """Pull matrix of one volume; starts over from blurred images if the first search fails."""
    coefficients = _coefficients(ndimage.gaussian_filter(volume, fine.smoothing, mode="nearest"))
    starts = [previous, np.eye(4)]
    fits = [_fit(coefficients, fine, start) for start in starts]
    best = int(fits[1][1] > fits[0][1])
    start = starts[best]
    matrix, correlation = _search(coefficients, fine, start, fits[best])
    if correlation >= GOOD_CORRELATION:
        return matrix
    target = coarse()
    blurred = _coefficients(ndimage.gaussian_filter(volume, target.smoothing, mode="nearest"))
    second, _ = _search(blurred, target, start)
    second, second_correlation = _search(coefficients, fine, second)
    return second if second_correlation > correlation else matrix


def _search(
    coefficients: Volume,
    target: Target,
    start: FloatArray,
    first: tuple[FloatArray, float] | None = None,
) -> tuple[FloatArray, float]:
    """Gauss–Newton from one start; `first` is the fit at the start, if it is known.

    Returns the matrix and the correlation reached there.
    """
    matrix = start
    step, correlation = first or _fit(coefficients, target, matrix)
    for _ in range(MAX_ITERATIONS - 1):
        matrix = matrix @ invert(small_motion(step, target.centre))
        if np.linalg.norm(step[:3]) + HEAD_RADIUS_MM * np.linalg.norm(step[3:]) < TOLERANCE_MM:
            break
        step, correlation = _fit(coefficients, target, matrix)
    return matrix, correlation


def _fit(coefficients: Volume, target: Target, matrix: FloatArray) -> tuple[FloatArray, float]:
    """One least-squares step.

    The volume seen through `matrix` is modelled as gain × (reference moved by a small motion).
    Returns that motion (3 mm, 3 rad; zeros if the points do not determine it) and the correlation
    of volume and reference before it.
    """
    position = apply(in_voxels(matrix, target.affine), target.points).T
    last = np.array(coefficients.shape)[:, None] - 1 - target.guard[:, None]
    inside = np.all((position >= target.guard[:, None]) & (position <= last), axis=0)
    if inside.sum() < len(inside) / 4:
        return np.zeros(6), -1.0
    design = target.design if inside.all() else target.design[inside]
    values = ndimage.map_coordinates(
        coefficients,
        position[:, inside],
        output=np.float64,
        order=3,
        mode="mirror",
        prefilter=False,
    )
    if not values.std() > 0:
        return np.zeros(6), -1.0
    correlation = float(np.corrcoef(values, design[:, 0])[0, 1])
    normal, right = design.T @ design, design.T @ values
    scale = np.sqrt(np.diag(normal)) + 1e-30
    weights = np.linalg.lstsq(normal / np.outer(scale, scale), right / scale, rcond=1e-9)[0] / scale
    if not weights[0] > 0:
        return np.zeros(6), correlation
    return weights[1:] / weights[0], correlation
