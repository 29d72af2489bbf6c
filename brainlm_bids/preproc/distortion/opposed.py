"""The displacement along one axis that brings two images together, which it moves in opposite ways.

One resolution of the search, by Gauss–Newton. Arrays are (N, X, Z) with the phase axis first;
displacements lie on the N + 1 faces between voxels, so that the signal between two displaced faces
is what the voxel between them shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.preproc.affine import Matrix, compose, grid_points, invert, voxel_sizes
from brainlm_bids.preproc.distortion.lines import (
    Array,
    Bending,
    CumulativeSignal,
    Pentadiagonal,
    barrier,
)
from brainlm_bids.preproc.motion.target import small_motion

ITERATIONS = 12
CG_ITERATIONS = 30
CG_TOLERANCE = 1e-2  # of the norm of the gradient, as the preconditioner measures it
HALVINGS = 8
# Voxels, and mm in the head: what 99 % of the places move by when the search ends.
TOLERANCE = 0.01
# Bending against the variance of what is left, mm² (`benchmarks/accuracy_pairs`): less follows the
# noise, more flattens the steep fields near air.
BENDING = 1000.0
# Variance below which two images do not differ, as a fraction of the head's signal squared.
LEAST_VARIANCE = 1e-4
BARRIER = 1e-3
# Differences beyond this many standard deviations lose weight: signal that one image has lost.
OUTLYING = 20.0
# Standard deviations of a head's motion from one image to the next, mm and rad.
MOTION_SD = np.array([3.0, 3.0, 0.05, 0.05, 0.05])
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
    """

    first: Array
    second_through: Through
    affine: Matrix
    centre: NDArray[np.float64]
    factors: tuple[float, float]

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Of the voxels, mm."""
        x, y, z = voxel_sizes(self.affine).tolist()
        return x, y, z

    @cached_property
    def bending(self) -> Bending:
        """Of a displacement on this grid."""
        return Bending(self.spacing)

    @cached_property
    def faces(self) -> Array:
        """(N + 1, 1, 1) places of the faces."""
        return np.arange(len(self.first) + 1, dtype=np.float64)[:, np.newaxis, np.newaxis]

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

    def stretch(self, displacement: Array) -> Array:
        """(N, X, Z) by how much the more displaced of the two images changes its voxels' size."""
        return max(abs(self.factors[0]), abs(self.factors[1])) * np.diff(displacement, axis=0)

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
class Linear:
    """Least squares about one state: residual + slopes of the displacement + columns of the motion.

    Attributes
    ----------
    residual
        (N, X, Z) first minus second, corrected.
    slopes
        (N + 1, X, Z) the residual of voxel i changes by slopes[i + 1] and -slopes[i] times the
        change of the displacements of its faces.
    columns
        (V, 5) its change with the motion.
    weight
        (N, X, Z).
    variance
        Of the residual in the head.
    """

    scene: Scene
    displacement: Array
    residual: Array
    slopes: Array
    columns: Array
    weight: Array
    variance: float

    @cached_property
    def smoothness(self) -> float:
        """Weight of the bending of a displacement in voxels."""
        return BENDING * self.variance * self.scene.spacing[0] ** 2

    @cached_property
    def ridge(self) -> Array:
        """(5,) what a motion costs, as it is small in most pairs."""
        return np.asarray(self.variance / MOTION_SD**2)

    @cached_property
    def fold(self) -> tuple[Array, Array]:
        """Slope and curvature of the barrier by the change of a face's displacement."""
        factor = max(abs(x) for x in self.scene.factors)
        _, slope, curvature = barrier(self.scene.stretch(self.displacement))
        return BARRIER * factor * slope, BARRIER * factor**2 * curvature

    def cost(self, displacement: Array, residual: Array) -> float:
        """What is minimised, at another displacement with its residual; infinite if it folds."""
        stretch = self.scene.stretch(displacement)
        if not np.abs(stretch).max() < 1:
            return np.inf
        bend = (displacement * self.scene.bending.gradient(displacement)).sum()
        fold = BARRIER * barrier(stretch)[0].sum()
        return float(((self.weight * residual**2).sum() + self.smoothness * bend) / 2 + fold)

    def downhill(self) -> tuple[Array, Array]:
        """The negative derivative by the displacement, and by the motion (from none)."""
        weighted = self.weight * self.residual
        there = _by_faces(self.slopes, weighted) + _by_faces(
            np.ones_like(self.slopes), self.fold[0]
        )
        there += self.smoothness * self.scene.bending.gradient(self.displacement)
        return -there, -(weighted.ravel() @ self.columns)

    def product(self, step: Array, turn: Array) -> tuple[Array, Array]:
        """The matrix of second derivatives times a change."""
        change = np.diff(self.slopes * step, axis=0)
        weighted = self.weight * (change + (self.columns @ turn).reshape(change.shape))
        there = _by_faces(self.slopes, weighted)
        there += self.smoothness * self.scene.bending.gradient(step)
        fold = self.fold[1] * np.diff(step, axis=0)
        there[1:] += fold
        there[:-1] -= fold
        return there, weighted.ravel() @ self.columns + self.ridge * turn

    def preconditioner(self) -> Callable[[Array, Array], tuple[Array, Array]]:
        """Solve for every line by itself, and for the motion by itself."""
        shape = self.displacement.shape
        diagonal, near, far = (
            self.smoothness * np.broadcast_to(band, shape)
            for band in self.scene.bending.bands(shape)
        )
        fold = self.fold[1]
        diagonal[1:] += self.weight * self.slopes[1:] ** 2 + fold
        diagonal[:-1] += self.weight * self.slopes[:-1] ** 2 + fold
        near[:-1] -= self.weight * self.slopes[1:] * self.slopes[:-1] + fold
        diagonal += 1e-6 * diagonal.mean()
        lines = Pentadiagonal((diagonal, near, far))
        turns = self.columns.T @ (self.weight.reshape(-1, 1) * self.columns) + np.diag(self.ridge)
        inverse = invert(turns)
        return lambda step, turn: (lines.solve(step), inverse @ turn)

    def solution(self) -> tuple[Array, Array]:
        """The step of Gauss–Newton, by preconditioned conjugate gradients."""
        solve = self.preconditioner()
        rest = self.downhill()
        found = (np.zeros_like(rest[0]), np.zeros_like(rest[1]))
        better = solve(*rest)
        way, start = better, _inner(rest, better)
        size = start
        for _ in range(CG_ITERATIONS):
            if not size > CG_TOLERANCE**2 * start:
                break
            ahead = self.product(*way)
            length = size / _inner(way, ahead)
            found = _along(found, length, way)
            rest = _along(rest, -length, ahead)
            better = solve(*rest)
            size, before = _inner(rest, better), size
            way = _along(better, size / before, way)
        return found


def _by_faces(slopes: Array, values: Array) -> Array:
    """The transpose of the difference of neighbouring faces, times slopes."""
    out = np.zeros_like(slopes)
    out[1:] = slopes[1:] * values
    out[:-1] -= slopes[:-1] * values
    return out


def _inner(one: tuple[Array, Array], other: tuple[Array, Array]) -> float:
    return float((one[0] * other[0]).sum() + one[1] @ other[1])


def _along(
    start: tuple[Array, Array], length: float, way: tuple[Array, Array]
) -> tuple[Array, Array]:
    return start[0] + length * way[0], start[1] + length * way[1]


def corrected(
    scene: Scene, signals: tuple[CumulativeSignal, CumulativeSignal], displacement: Array
) -> tuple[Array, Array, Array, Array]:
    """Both images (N, X, Z) without their distortion, and their densities (N + 1, X, Z)."""
    (one, slope_one), (two, slope_two) = (
        signal(scene.faces + factor * displacement)
        for signal, factor in zip(signals, scene.factors)
    )
    return np.diff(one, axis=0), np.diff(two, axis=0), slope_one, slope_two


def converge(scene: Scene, state: State) -> State:
    """Improve displacement, motion and gain until they hardly change.

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
    displacement, motion, gain = state.displacement, state.motion, state.gain
    measured, seen = scene.second_through(motion)
    for _ in range(ITERATIONS):
        signals = scene.first_signal, CumulativeSignal(measured)
        linear, gain = _linearised(scene, signals, seen, displacement)
        step, turn = linear.solution()
        length, displacement = _searched(linear, signals, gain, step, turn)
        if not length:
            break
        moved = length * np.hypot(
            np.linalg.norm(turn[:2]), HEAD_RADIUS_MM * np.linalg.norm(turn[2:])
        )
        if moved > TOLERANCE / 5:
            shift = turn[:2] @ scene.moments[1]
            motion = compose(
                motion, small_motion(length * np.append(shift, turn[2:]), scene.centre)
            )
            measured, seen = scene.second_through(motion)
        head = scene.first > HEAD_LEVEL
        typical = np.percentile(np.abs(length * step[1:][head]), 99) if head.any() else 0.0
        if max(typical, moved) < TOLERANCE:
            break
    return State(displacement, motion, gain)


def _linearised(
    scene: Scene,
    signals: tuple[CumulativeSignal, CumulativeSignal],
    seen: Array,
    displacement: Array,
) -> tuple[Linear, float]:
    """The least squares about a displacement, and the gain there."""
    one, two, slope_one, slope_two = corrected(scene, signals, displacement)
    gain = float(np.sqrt((seen * one**2).sum() / max((seen * two**2).sum(), 1e-12)))
    half = np.sqrt(gain)
    residual = one / half - two * half
    head = (one / half + two * half > 2 * HEAD_LEVEL) & (seen > 0)
    left = np.abs(residual[head]) if head.any() else np.abs(residual)
    variance = max(float(1.4826 * np.median(left)) ** 2, LEAST_VARIANCE)
    linear = Linear(
        scene=scene,
        displacement=displacement,
        residual=residual,
        slopes=scene.factors[0] * slope_one / half - scene.factors[1] * slope_two * half,
        columns=-scene.motion_columns(two * half),
        weight=seen / (1 + residual**2 / (OUTLYING**2 * variance)),
        variance=variance,
    )
    return linear, gain


def _searched(
    linear: Linear,
    signals: tuple[CumulativeSignal, CumulativeSignal],
    gain: float,
    step: Array,
    turn: Array,
) -> tuple[float, Array]:
    """How much of a step lowers the cost (0: nothing does), and the displacement there."""
    half, scene = np.sqrt(gain), linear.scene
    moving = (linear.columns @ turn).reshape(linear.residual.shape)
    before = linear.cost(linear.displacement, linear.residual)
    length = 1.0
    for _ in range(HALVINGS):
        tried = linear.displacement + length * step
        one, two, *_ = corrected(scene, signals, tried)
        residual = one / half - two * half + length * moving
        ridge = length**2 * float(linear.ridge @ turn**2) / 2
        if linear.cost(tried, residual) + ridge < before:
            return length, tried
        length /= 2
    return 0.0, linear.displacement
