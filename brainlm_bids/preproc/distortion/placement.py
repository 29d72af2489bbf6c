"""Bring a field map to a run: where it lies in the run's reference, and whether it fits.

The head may lie elsewhere in the field map than in the run, and the two images differ by the very
distortion that is to be found. So the reference is corrected by the field where it is thought to
lie, and registered to the magnitude of the field map, which tells better where it lies.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.preproc.affine import (
    Matrix,
    apply,
    compose,
    invert,
)
from brainlm_bids.preproc.distortion.field import (
    Distortion,
    FieldMap,
    PhaseEncoding,
    distortion_of,
)
from brainlm_bids.preproc.distortion.shading import without_shading
from brainlm_bids.preproc.registration.ants import register_rigid
from brainlm_bids.preproc.registration.brain import brain_mask_flat
from brainlm_bids.preproc.registration.quality import dice
from brainlm_bids.preproc.registration.transforms import resample_to

Mask = NDArray[np.bool_]

# The search for the place of the field map ends when a round moves the brain by less than this.
SETTLED_MM = 0.5
ROUNDS = 3
# Beyond these a field map does not belong to the run: it shows another head, lies elsewhere, or
# covers too little of it. Simulated heads agree by 0.15 or more with themselves, and by 0.075 or
# less with one another.
LEAST_AGREEMENT = 0.08
LEAST_OVERLAP = 0.8
LEAST_MEASURED = 0.7
# Larger displacements in the brain are no echo-planar image's: mistaken units or times.
LARGEST_MM = 40.0
# Where the correction moves the brain by more than this, in so many voxels at least, the run must
# not agree clearly less with it than without it.
MOVED_MM = 2.0
FEWEST_MOVED = 600
CLEARLY_LESS = 0.8
# Classes of intensity of each image, equally full.
N_CLASSES = 24
# An image is squeezed to a tenth at most; what lies beyond is a fold, whose order is not known.
LEAST_STRETCH = 0.1


@dataclass(frozen=True)
class Fit:
    """How well a field map fits a run.

    Attributes
    ----------
    agreement
        Of the corrected reference with the magnitude of the field map, in the brains of both: the
        share of information that they have in common, 0 to 1, see `shared_information`.
    overlap
        Dice coefficient of the two brains.
    measured
        Share of the run's brain in which the field was measured.
    moved_mm
        Distance between the places of the head in the field map and in the run: the largest in the
        brain.
    largest_mm
        Largest displacement in the brain.
    folded
        Voxels of the brain in which the image is folded.
    corrected, uncorrected, reversed
        The agreement where the brain is displaced by more than 2 mm: with the correction, without
        it, and with that of the opposite polarity. None where hardly anything is displaced so far.
    pair_before, pair_after
        Difference of two images of opposite polarity before and after their own correction, as a
        fraction of the brain's signal; None for other field maps.
    """

    agreement: float
    overlap: float
    measured: float
    moved_mm: float
    largest_mm: float
    folded: int
    corrected: float | None = None
    uncorrected: float | None = None
    reversed: float | None = None
    pair_before: float | None = None
    pair_after: float | None = None


def place(
    field_map: FieldMap,
    boldref: NDArray[Any],
    affine: Matrix,
    brain_mask: Mask,
    encoding: PhaseEncoding,
    *,
    seed: int,
) -> tuple[Distortion, Fit]:
    """Find the distortion of a run by a field that was measured beside it.

    Parameters
    ----------
    field_map
        On a grid of its own.
    boldref
        (X, Y, Z) the reference of the run.
    affine
        (4, 4) of the run, voxel to RAS+ mm.
    brain_mask
        (X, Y, Z) of the run.
    encoding
        Of the run.
    seed
        Of the points at which images are compared.

    Returns
    -------
    Distortion
        On the grid of the reference, without folds.
    Fit
        Numbers to judge it by.

    Raises
    ------
    UserError
        If the two cannot be registered.
    """
    flat = without_shading(boldref, affine, brain_mask)
    run = _Run(flat, affine, brain_mask_flat(flat, affine, brain_mask), encoding, seed)
    magnitude = without_shading(field_map.magnitude, field_map.affine, field_map.brain_mask)
    head = FieldMap(field_map.hertz, field_map.affine, magnitude, field_map.brain_mask)
    pose = np.eye(4)
    for _ in range(ROUNDS):
        before, pose = pose, _pose(head, pose, run)
        if _largest_move(compose(invert(before), pose), run) < SETTLED_MM:
            break
    return _judged(head, pose, run)


@dataclass(frozen=True)
class _Run:
    """Reference without shading, its affine, brain, phase encoding, and the seed."""

    flat: NDArray[np.float32]
    affine: Matrix
    brain: Mask
    encoding: PhaseEncoding
    seed: int


def _pose(head: FieldMap, before: Matrix, run: _Run) -> Matrix:
    """(4, 4) from the run to the field map, by the run as it is corrected at an earlier pose."""
    distortion = _unfolded(_sampled(head, before, run))
    matrix = register_rigid(
        head.magnitude,
        head.affine,
        distortion.undistorted(run.flat),
        run.affine,
        fixed_mask=head.brain_mask,
        moving_mask=distortion.undistorted(run.brain, 0) > 0.5,
        seed=run.seed,
    )
    return invert(matrix)


def _sampled(head: FieldMap, pose: Matrix, run: _Run) -> Distortion:
    """The run's distortion by a field map at a pose (run to field map)."""
    to_map = compose(pose, run.affine)
    voxels = apply(invert(head.affine), apply(to_map, np.indices(run.flat.shape).reshape(3, -1).T))
    hertz = ndimage.map_coordinates(head.hertz, voxels.T, order=1, mode="nearest")
    return distortion_of(hertz.reshape(run.flat.shape), run.affine, run.encoding)


def _unfolded(distortion: Distortion) -> Distortion:
    return replace(distortion, shift=unfolded(distortion.shift, distortion.axis))


def misfit(fit: Fit) -> str:
    """Why a field map does not belong to a run, in one line; empty if it does.

    Examples
    --------
    >>> misfit(Fit(0.15, 0.95, 0.97, 2.0, 9.0, 0))
    ''
    >>> misfit(Fit(0.15, 0.95, 0.4, 2.0, 9.0, 0))
    'it covers 40 % of the brain of the run, not at least 70 %'
    """
    if fit.measured < LEAST_MEASURED:
        return (
            f"it covers {100 * fit.measured:.0f} % of the brain of the run, not at least "
            f"{100 * LEAST_MEASURED:.0f} %"
        )
    if fit.overlap < LEAST_OVERLAP:
        return (
            f"its brain and that of the run overlap by {fit.overlap:.2f} (Dice), not by at least "
            f"{LEAST_OVERLAP:g}: it lies elsewhere, or shows another head"
        )
    if fit.agreement < LEAST_AGREEMENT:
        return (
            f"its magnitude and the run share {100 * fit.agreement:.1f} % of their information, "
            f"not at least {100 * LEAST_AGREEMENT:.0f} %: it probably shows another head"
        )
    if fit.largest_mm > LARGEST_MM:
        return (
            f"it would move the brain by up to {fit.largest_mm:.0f} mm, which no echo-planar image "
            "does: its units, echo times or the read-out time of the run are wrong"
        )
    return _made_worse(fit)


def _made_worse(fit: Fit) -> str:
    """What to say where a run agrees less with its field map after correction than before."""
    if fit.corrected is None or fit.uncorrected is None or fit.reversed is None:
        return ""
    if fit.corrected >= CLEARLY_LESS * fit.uncorrected:
        return ""
    text = (
        "the run agrees with the magnitude of the field map less with the correction "
        f"({100 * fit.corrected:.1f} %) than without it ({100 * fit.uncorrected:.1f} %)"
    )
    if fit.reversed > fit.uncorrected:
        return (
            f"{text}, and most with that of the opposite polarity ({100 * fit.reversed:.1f} %): is "
            "the PhaseEncodingDirection of the run right?"
        )
    return text


def unfolded(shift: NDArray[np.floating], axis: int) -> NDArray[np.float32]:
    """The nearest shift that leaves the order of voxels along an axis.

    Parameters
    ----------
    shift
        (X, Y, Z) in voxels along the axis.
    axis
        0, 1 or 2.

    Returns
    -------
    ndarray
        float32; as it was where nothing is folded.

    Examples
    --------
    >>> shift = np.zeros((1, 6, 1), np.float32)
    >>> bool((unfolded(shift, 1) == shift).all())
    True
    >>> shift[0, :, 0] = [0, 0, 2.0, 0, 0, 0]
    >>> where = np.arange(6) + unfolded(shift, 1)[0, :, 0]
    >>> bool((np.diff(where) >= 0.1 - 1e-6).all())
    True
    """
    index = np.arange(shift.shape[axis], dtype=np.float32).reshape(
        [-1 if k == axis else 1 for k in range(3)]
    )
    # isotonic regression in the largest deviation: the mean of the two monotone envelopes
    place = np.asarray(shift + index * np.float32(1 - LEAST_STRETCH), dtype=np.float32)
    lower = np.maximum.accumulate(place, axis=axis)
    upper = np.flip(np.minimum.accumulate(np.flip(place, axis), axis=axis), axis)
    smooth = (lower + upper) / 2
    changed = (lower > place) | (upper < place)
    return np.where(changed, smooth - index * np.float32(1 - LEAST_STRETCH), shift)


def _largest_move(matrix: Matrix, run: _Run) -> float:
    """By how much a matrix moves the brain of the run, mm: the largest of some points."""
    points = apply(run.affine, np.argwhere(run.brain)[::97])
    return float(np.linalg.norm(apply(matrix, points) - points, axis=1).max())


def _judged(head: FieldMap, pose: Matrix, run: _Run) -> tuple[Distortion, Fit]:
    """The distortion at a pose, and how well it fits."""
    sampled = _sampled(head, pose, run)
    distortion, flat = _unfolded(sampled), run.flat
    grid = flat.shape, run.affine, pose
    magnitude = resample_to(head.magnitude, head.affine, *grid)
    brain = resample_to(head.brain_mask, head.affine, *grid, 0) > 0.5
    own = distortion.undistorted(run.brain, 0) > 0.5
    straight = distortion.undistorted(flat)
    both, either = brain & own, brain | own
    millimetres = np.abs(distortion.millimetres)
    moved = either & (millimetres > MOVED_MM)
    agreements: list[float | None] = [None, None, None]
    if moved.sum() >= FEWEST_MOVED:
        back = _unfolded(replace(sampled, shift=-sampled.shift)).undistorted(flat)
        seen = magnitude[moved]
        agreements = [shared_information(seen, image[moved]) for image in (straight, flat, back)]
    fit = Fit(
        shared_information(magnitude[both], straight[both]),
        dice(brain, own),
        float(brain[own].mean()) if own.any() else 0.0,
        _largest_move(pose, run),
        float(millimetres[either].max(initial=0.0)),
        int(((sampled.jacobian() <= 0) & either).sum()),
        *agreements,
    )
    return distortion, fit


def shared_information(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """How much two images tell of each other, whatever their contrasts.

    Parameters
    ----------
    first, second
        (N,) intensities at the same places.

    Returns
    -------
    float
        Twice the mutual information over the sum of the entropies, in classes that are equally
        full: 0 if they tell nothing, 1 if each follows from the other.

    Examples
    --------
    >>> ramp = np.linspace(0, 1, 10_000)
    >>> shared_information(ramp, -(ramp**3)) > 0.99
    True
    >>> shared_information(ramp, np.random.default_rng(0).random(10_000)) < 0.02
    True
    """
    if len(first) < N_CLASSES**2:
        return 0.0
    shares = np.linspace(0, 1, N_CLASSES + 1)[1:-1]
    ranks = [np.searchsorted(np.quantile(one, shares), one) for one in (first, second)]
    counts = np.bincount(ranks[0] * N_CLASSES + ranks[1], minlength=N_CLASSES**2)
    joint = counts.reshape(N_CLASSES, N_CLASSES) / counts.sum()
    sides = _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))
    return 2 * (1 - _entropy(joint) / sides) if sides > 0 else 0.0


def _entropy(shares: NDArray[np.floating]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())
