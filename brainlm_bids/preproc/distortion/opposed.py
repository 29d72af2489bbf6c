"""The displacement along one axis that brings two images together, which it moves in opposite ways.

One resolution of the search, by Gauss–Newton. Arrays are (N, X, Z) with the phase axis first;
displacements lie on the N + 1 faces between voxels, so that the signal between two displaced faces
is what the voxel between them shows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.preproc.affine import Matrix, compose, grid_points, invert, voxel_sizes
from brainlm_bids.preproc.distortion.least_squares import LeastSquares, Step
from brainlm_bids.preproc.distortion.lines import Array, Bending, CumulativeSignal
from brainlm_bids.preproc.motion.target import small_motion

ITERATIONS = 12
HALVINGS = 8
# Voxels, and mm in the head: what 99 % of the places move by when the search ends.
TOLERANCE = 0.01
# Bending against the variance of what is left, mm² (`benchmarks/accuracy_pairs`): less follows the
# noise, more flattens the steep fields near air.
BENDING = 1000.0
# Variance below which two images do not differ, as a fraction of the head's signal squared.
LEAST_VARIANCE = 1e-4
# Differences beyond this many standard deviations lose weight: signal that one image has lost.
OUTLYING = 20.0
# Standard deviations of a head's motion from one image to the next, mm and rad.
MOTION_SD = np.array([3.0, 3.0, 0.05, 0.05, 0.05])
# Beyond it the echo is lost, and nothing brings the signal back.
LEAST_STRETCH = 0.4
HEAD_RADIUS_MM = 50.0
# Above this fraction of the head's mean, a voxel counts as head.
HEAD_LEVEL = 0.3

Through = Callable[[Matrix], tuple[Array, Array]]


@dataclass(frozen=True)
class State:
    """What is known about two images.

    Attributes
    ----------
    displacement
        (N + 1, X, Z) at the faces, in voxels, for an image with a factor of 1.
    motion
        (4, 4) from RAS+ mm of the first image to those of the second.
    gain
        By which factor the second image has to be made brighter.
    """

    displacement: Array
    motion: Matrix
    gain: float


@dataclass(frozen=True)
class Scene:
    """Two images at one resolution.

    Attributes
    ----------
    first
        (N, X, Z), about 1 in the head.
    second_through
        A function of a motion: the second image on the grid of the first, and (N, X, Z) 1 where it
        has been measured, else 0.
    affine
        (4, 4) of this grid, phase axis first, voxel to RAS+ mm.
    centre
        (3,) RAS+ mm, the point that rotations are about.
    factors
        By which the displacement moves the two images.
    decay
        TE · R2*, see `corrected`.
    """

    first: Array
    second_through: Through
    affine: Matrix
    centre: NDArray[np.float64]
    factors: tuple[float, float]
    decay: float

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Of the voxels, mm."""
        x, y, z = voxel_sizes(self.affine).tolist()
        return x, y, z

    @cached_property
    def moments(self) -> tuple[Array, Array]:
        """(V, 3) places of the voxels about the centre, mm; (2, 3) directions across the axis."""
        places = grid_points(self.first.shape, self.affine) - self.centre
        across = self.affine[:3, 1:3].T / np.array(self.spacing[1:])[:, np.newaxis]
        return places, across

    @cached_property
    def first_signal(self) -> CumulativeSignal:
        """Of the first image, which is the same in every step."""
        return CumulativeSignal(self.first)

    def motion_columns(self, second: Array) -> Array:
        """(V, 5) change of the corrected second image: mm across the axis, rad about the centre."""
        places, across = self.moments
        # one slice has no slope across it
        slopes = [
            np.gradient(second, axis=k).ravel() if second.shape[k] > 1 else np.zeros(second.size)
            for k in range(3)
        ]
        gradient = np.stack(slopes, axis=1) @ invert(self.affine[:3, :3])
        return np.column_stack([gradient @ across.T, np.cross(places, gradient)])


@dataclass(frozen=True)
class Corrected:
    """An image without its distortion, and how it changes with what distorts it.

    Attributes
    ----------
    image
        (N, X, Z).
    above, below
        (N, X, Z) it changes by above times the change of the displacement of the voxel's face with
        the higher index, less below times that of the other.
    """

    image: Array
    above: Array
    below: Array


def corrected(
    signal: CumulativeSignal, factor: float, displacement: Array, decay: float
) -> Corrected:
    """Undo the distortion of an image.

    The signal between two displaced faces belongs to the voxel between the faces. With gradient
    echoes, where a field stretches a line by j, the echo comes at TE / j in place of TE, and the
    signal differs by the factor exp(-TE · R2* · (1 / j - 1)) besides (Deichmann et al. 2002).

    Parameters
    ----------
    signal
        Of the image.
    factor
        By which the displacement moves it.
    displacement
        (N + 1, X, Z) at the faces, voxels.
    decay
        TE · R2* of gradient echoes; 0 for spin echoes.

    References
    ----------
    Deichmann R, Josephs O, Hutton C, Corfield DR, Turner R (2002). Compensation of
    susceptibility-induced BOLD sensitivity losses in echo-planar fMRI imaging. NeuroImage 15:120.
    """
    faces = np.arange(len(displacement), dtype=np.float64)[:, np.newaxis, np.newaxis]
    amount, density = signal(faces + factor * displacement)
    found, density = np.diff(amount, axis=0), factor * density
    stretch = 1 + factor * np.diff(displacement, axis=0)
    kept = np.maximum(stretch, LEAST_STRETCH)
    regained = np.exp(decay * (1 / kept - 1))
    # by the stretch itself, of both faces
    slope = -factor * decay / kept**2 * found * regained * (stretch > LEAST_STRETCH)
    return Corrected(
        image=found * regained,
        above=density[1:] * regained + slope,
        below=density[:-1] * regained + slope,
    )


def converge(scene: Scene, state: State) -> State:
    """Improve all that is known until it hardly changes.

    Parameters
    ----------
    scene
        The images.
    state
        Where to start; the displacement must not fold.

    Returns
    -------
    State
        The displacement does not fold.
    """
    measured, seen = scene.second_through(state.motion)
    head = np.concatenate([scene.first[:1], scene.first]) > HEAD_LEVEL
    for _ in range(ITERATIONS):
        signals = scene.first_signal, CumulativeSignal(measured)
        squares, gain = _linearised(scene, signals, seen, state)
        step = squares.solution()
        before, state = state, _searched(scene, squares, signals, replace(state, gain=gain), step)
        if state.displacement is before.displacement:
            break
        moved = _moved(state.motion, before.motion)
        if moved > TOLERANCE / 5:
            measured, seen = scene.second_through(state.motion)
        change = np.abs(state.displacement - before.displacement)[head]
        typical = np.percentile(change, 99) if change.size else 0.0
        if max(typical, moved) < TOLERANCE:
            break
    return state


def _moved(one: Matrix, other: Matrix) -> float:
    """About how far a motion carries the head's surface from where another carries it, mm."""
    difference = one @ invert(other)
    turn = np.linalg.norm(difference[:3, :3] - np.eye(3)) / np.sqrt(2)
    return float(np.linalg.norm(difference[:3, 3]) + HEAD_RADIUS_MM * turn)


def _linearised(
    scene: Scene, signals: tuple[CumulativeSignal, CumulativeSignal], seen: Array, state: State
) -> tuple[LeastSquares, float]:
    """The least squares about a state, and the gain there."""
    one, two = (
        corrected(signal, factor, state.displacement, scene.decay)
        for signal, factor in zip(signals, scene.factors)
    )
    sums = [float((seen * part.image**2).sum()) for part in (one, two)]
    gain = float(np.sqrt(sums[0] / max(sums[1], 1e-12)))
    first, second = 1 / np.sqrt(gain), np.sqrt(gain)
    residual = first * one.image - second * two.image
    head = (first * one.image + second * two.image > 2 * HEAD_LEVEL) & (seen > 0)
    left = np.abs(residual[head]) if head.any() else np.abs(residual)
    variance = max(float(1.4826 * np.median(left)) ** 2, LEAST_VARIANCE)
    squares = LeastSquares(
        displacement=state.displacement,
        residual=residual,
        above=first * one.above - second * two.above,
        below=first * one.below - second * two.below,
        columns=-scene.motion_columns(second * two.image),
        weight=seen / (1 + residual**2 / (OUTLYING**2 * variance)),
        ridge=variance / MOTION_SD**2,
        bending=Bending(scene.spacing),
        smoothness=BENDING * variance * scene.spacing[0] ** 2,
        largest_factor=max(abs(factor) for factor in scene.factors),
    )
    return squares, gain


def _searched(
    scene: Scene,
    squares: LeastSquares,
    signals: tuple[CumulativeSignal, CumulativeSignal],
    state: State,
    step: Step,
) -> State:
    """The state after as much of a step as lowers the cost; the state itself if nothing does."""
    first, second = 1 / np.sqrt(state.gain), np.sqrt(state.gain)
    there, beside = step
    aside = (squares.columns @ beside).reshape(squares.residual.shape)
    before = squares.cost(state.displacement, squares.residual)
    length = 1.0
    for _ in range(HALVINGS):
        displacement = state.displacement + length * there
        one, two = (
            corrected(signal, factor, displacement, scene.decay).image
            for signal, factor in zip(signals, scene.factors)
        )
        residual = first * one - second * two + length * aside
        ridge = length**2 * float(squares.ridge @ beside**2) / 2
        if squares.cost(displacement, residual) + ridge < before:
            shift = length * beside[:2] @ scene.moments[1]
            turn = small_motion(np.append(shift, length * beside[2:]), scene.centre)
            return State(displacement, compose(state.motion, turn), state.gain)
        length /= 2
    return state
