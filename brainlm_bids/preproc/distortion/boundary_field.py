"""The distortion of a run without a field map: what a T1w image and the run's own edges tell.

Two things are compared along the axis of phase encoding alone: the run with what is expected of it
(`expected`), by their correlation within small windows, with the signal that a distortion piles up
or spreads out; and the contrast of grey to white matter at the boundary between them (`boundary`).
A smooth shift, a cubic B-spline that may be anything near the air of the skull's base and nothing
far from it (`risk`), makes both as good as it can.

The windows alone are led astray by a millimetre or two where signal is lost, in any direction. So
shifts below 1 mm are not believed, and those below 3 mm not wholly. And whether anything is
believed is judged by the boundary, which a shift along another axis of the image, the control, does
not sharpen.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from brainlm_bids.preproc.affine import Matrix, apply, invert, voxel_sizes
from brainlm_bids.preproc.distortion.contrast import sharpness
from brainlm_bids.preproc.distortion.field import Distortion
from brainlm_bids.preproc.distortion.local_fit import LocalFit, slope_adjoint
from brainlm_bids.preproc.registration import boundary, spline

Mask = NDArray[np.bool_]
Volume = NDArray[np.float32]

CONTROL_MM = 18.0
BENDING = 0.0015
# Around the places that may move, for the windows.
MARGIN_VOXELS = 6
# Voxels and points that may hardly move tell nothing.
LEAST_FREEDOM, LEAST_FREEDOM_OF_POINTS = 0.05, 0.2
# The brain with what surrounds it.
RIM_MM = 3.0
# L-BFGS works with costs of about 1.
COST_SCALE = 100.0
# A shift is believed from nothing to wholly between these.
DOUBTED_MM, BELIEVED_MM = 1.0, 3.0
# The contrast tanh(Q / 10 %) must improve by so much on average, and by so many times as much as
# along the control axis.
LEAST_GAIN = 0.003
TIMES_CONTROL = 2.0
# A distortion that moves no more of the brain than this share by 2 mm is none.
MOVED_MM, LEAST_MOVED = 2.0, 0.002
LARGEST_MM = 30.0
LARGEST_FOLDED = 0.01


class Level(NamedTuple):
    """One pass: blur and window (sd, voxels), weight of the boundary, steps of the optimiser."""

    blur: float
    window: float
    boundary: float
    steps: int


LEVELS = (Level(2.0, 4.0, 0.5, 25), Level(0.0, 2.5, 1.0, 25))


@dataclass(frozen=True)
class Scene:
    """A run, what is expected of it, and where it may be distorted, all on the grid of the run.

    Attributes
    ----------
    image
        (X, Y, Z) the reference without the shading of the coils.
    affine
        (4, 4) voxel to RAS+ mm.
    brain
        (X, Y, Z) of the run.
    expected, distance
        (X, Y, Z) see `expected.Expected`.
    freedom
        (X, Y, Z) 0 where the run is not distorted, up to 1 where it may be.
    surface
        Points between white and grey matter, RAS+ mm of the run without distortion.
    """

    image: Volume
    affine: Matrix
    brain: Mask
    expected: Volume
    distance: Volume
    freedom: Volume
    surface: boundary.Surface


@dataclass(frozen=True)
class Evidence:
    """What speaks for a distortion that was found without a field map.

    Attributes
    ----------
    gain, control_gain
        By how much the sharpness of the boundary, mean tanh(Q / 10 %), improves in the regions that
        may be distorted: along the axis of phase encoding, and with the same freedom along another
        axis of the image, where nothing should be found.
    moved
        Share of the brain that is moved by more than 2 mm.
    largest
        mm, in the brain.
    folded
        Share of the brain where the image would be folded.
    """

    gain: float
    control_gain: float
    moved: float
    largest: float
    folded: float

    @property
    def refusal(self) -> str:
        """Why the distortion is not believed, in one line; empty if it is.

        >>> Evidence(0.02, 0.001, 0.05, 7.0, 0.0).refusal
        ''
        """
        if self.moved < LEAST_MOVED:
            return f"no distortion of more than {MOVED_MM:g} mm was found"
        needed = max(LEAST_GAIN, TIMES_CONTROL * self.control_gain)
        if self.gain < needed:
            return (
                "the boundary of white matter does not become clearly sharper (by "
                f"{self.gain:.3f}, and {needed:.3f} is needed: along another axis of the image it "
                f"became sharper by {self.control_gain:.3f})"
            )
        if self.largest > LARGEST_MM or self.folded > LARGEST_FOLDED:
            return (
                f"what was found is implausible: up to {self.largest:.0f} mm, and "
                f"{100 * self.folded:.0f} % of the brain folded"
            )
        return ""


def find(scene: Scene, axis: int) -> tuple[Distortion, Evidence]:
    """Find the distortion of a run along an axis, and what speaks for it.

    Parameters
    ----------
    scene
        The run and what is expected of it.
    axis
        Of phase encoding: 0, 1 or 2 of the array.

    Returns
    -------
    Distortion, Evidence
        The distortion is to be used only if the evidence has no refusal.
    """
    found = _estimated(scene, axis)
    # in the plane of the slices, if the phase encoding is
    other = {0: 1, 1: 0, 2: 1}[axis]
    control = _estimated(scene, other)
    gain, control_gain = (_gain(scene, one) for one in (found, control))
    sizes = np.abs(found.millimetres)
    inside = scene.brain & (scene.distance < 0)
    size, folds = sizes[inside], found.jacobian()[inside] <= 0
    if not inside.any():
        return found, Evidence(gain, control_gain, 0.0, 0.0, 0.0)
    moved = float((size > MOVED_MM).mean())
    return found, Evidence(gain, control_gain, moved, float(size.max()), float(folds.mean()))


def _gain(scene: Scene, found: Distortion) -> float:
    """By how much a distortion improves the sharpness of the boundary where it may be."""
    near = _free_points(scene)
    given = near, scene.image, scene.affine, scene.brain
    with_it = boundary.contrasts_at(*given, found)
    without = boundary.contrasts_at(*given, np.eye(4))
    return sharpness(with_it) - sharpness(without)


def _free_points(scene: Scene) -> boundary.Surface:
    voxels = apply(invert(scene.affine), scene.surface.points).T
    free = ndimage.map_coordinates(scene.freedom, voxels, order=1) > LEAST_FREEDOM_OF_POINTS
    return boundary.Surface(scene.surface.points[free], scene.surface.normals[free])


def believed(millimetres: Volume) -> Volume:
    """Shifts (X, Y, Z) in mm without what is within the error of the method.

    >>> believed(np.array([0.9, 2.0, 4.0], np.float32))
    array([0., 1., 4.], dtype=float32)
    """
    share = np.clip((np.abs(millimetres) - DOUBTED_MM) / (BELIEVED_MM - DOUBTED_MM), 0, 1)
    return np.asarray(millimetres * share**2 * (3 - 2 * share), dtype=np.float32)


# --- estimation -------------------------------------------------------------------------------


def _estimated(scene: Scene, axis: int) -> Distortion:
    size = voxel_sizes(scene.affine)[axis]
    shift = np.zeros(scene.image.shape, np.float32)
    around = (scene.distance < RIM_MM) & (scene.freedom > LEAST_FREEDOM)
    if around.any():
        box = _box(around)
        shift[box] = believed(_Problem(scene, box, around, axis).solved()) / size
    return Distortion(shift, axis, scene.affine)


def _box(mask: Mask) -> tuple[slice, slice, slice]:
    places = np.argwhere(mask)
    low, high = places.min(axis=0) - MARGIN_VOXELS, places.max(axis=0) + MARGIN_VOXELS + 1
    first, second, third = (
        slice(max(int(a), 0), min(int(b), n)) for a, b, n in zip(low, high, mask.shape, strict=True)
    )
    return first, second, third


class _Problem:
    """The cost of a shift along one axis, in a box of the run."""

    def __init__(
        self, scene: Scene, box: tuple[slice, slice, slice], around: Mask, axis: int
    ) -> None:
        self.axis = axis
        self.size = float(voxel_sizes(scene.affine)[axis])
        self.around = around[box].astype(np.float32)
        self.freedom = scene.freedom[box]
        level = float(np.median(scene.image[scene.brain]))
        self.image = (scene.image[box] / level).astype(np.float32)
        self.expected = (scene.expected[box] / level).astype(np.float32)
        sizes = voxel_sizes(scene.affine)
        counts = [int(np.ceil((n - 1) * s / CONTROL_MM)) + 3 for n, s in zip(self.shape, sizes)]
        self.control = counts[0], counts[1], counts[2]
        self.by_axis = [
            spline.weights(np.abs(np.arange(n)[:, None] * s / CONTROL_MM + 1 - np.arange(k)))
            for n, s, k in zip(self.shape, sizes, counts)
        ]
        self.bending = spline.bending(self.control) / np.prod(self.control)
        self.points, self.normals = self._points(scene, [part.start for part in box])
        free = ndimage.map_coordinates(self.freedom, self.points.T, order=1)
        basis = spline.basis(self.points * sizes, np.full(3, -CONTROL_MM), self.control, CONTROL_MM)
        self.at_points = basis.multiply((free / self.size)[:, None]).tocsr()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    def _points(self, scene: Scene, low: list[int]) -> tuple[NDArray[np.float64], ...]:
        """Points of the boundary in voxels of the box, and steps (N, 3) to their grey sides."""
        near, to_voxel = _free_points(scene), invert(scene.affine)
        points = apply(to_voxel, near.points) - low
        inside = ((points > 1) & (points < np.array(self.shape) - 2)).all(axis=1)
        steps = boundary.REACH_MM * near.normals @ to_voxel[:3, :3].T
        return points[inside], steps[inside]

    def solved(self) -> Volume:
        """The shift (X, Y, Z) of the box in mm at which the cost is least."""
        control = np.zeros(int(np.prod(self.control)))
        for level in LEVELS:
            image = self._blurred(self.image, level)
            slope = np.asarray(np.gradient(image, axis=self.axis), dtype=np.float32)
            expected = self._blurred(self.expected, level)
            fit = LocalFit(expected, self.around, level.window)
            control = optimize.minimize(
                self.cost,
                control,
                (image, slope, fit, level),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": level.steps},
            ).x
        return self.shift(control) * np.float32(self.size)

    def _blurred(self, image: Volume, level: Level) -> Volume:
        if level.blur == 0:
            return image
        return np.asarray(ndimage.gaussian_filter(image, level.blur, mode="nearest"))

    def shift(self, control: NDArray[np.float64]) -> Volume:
        """Voxels (X, Y, Z) that control points (K,) in mm amount to."""
        smooth: NDArray[Any] = control.reshape(self.control)
        for weights in self.by_axis:  # each takes the first axis away and adds one at the end
            smooth = np.tensordot(smooth, weights, (0, 1))
        return np.asarray(self.freedom * smooth / self.size, dtype=np.float32)

    def by_control(self, gradient: Volume) -> NDArray[np.float64]:
        """What a gradient (X, Y, Z) by voxels of shift is by control points (K,)."""
        summed: NDArray[Any] = self.freedom * gradient / self.size
        for weights in self.by_axis:
            summed = np.tensordot(summed, weights, (0, 0))
        return np.asarray(summed.ravel(), dtype=np.float64)

    def cost(
        self,
        control: NDArray[np.float64],
        image: Volume,
        slope: Volume,
        fit: LocalFit,
        level: Level,
    ) -> tuple[float, NDArray[np.float64]]:
        shift = self.shift(control)
        places = np.indices(self.shape, dtype=np.float32)
        places[self.axis] += shift
        seen, slope_seen = (
            ndimage.map_coordinates(one, places, order=1, mode="nearest", output=np.float32)
            for one in (image, slope)
        )
        stretch = 1 + np.gradient(shift, axis=self.axis)
        kept = np.maximum(stretch, 0.1)
        misfit, by_value = fit.misfit(seen * kept)
        by_shift = by_value * slope_seen * kept
        by_shift += slope_adjoint(by_value * seen * (stretch > 0.1), self.axis)
        blunt, by_point = self._blunt(self.at_points @ control, image, slope)
        stiff = BENDING * (self.bending @ control)
        gradient = self.by_control(by_shift) + level.boundary * by_point + 2 * stiff
        total = misfit + level.boundary * blunt + float(control @ stiff)
        return COST_SCALE * total, COST_SCALE * gradient

    def _blunt(
        self, moved: NDArray[np.float64], image: Volume, slope: Volume
    ) -> tuple[float, NDArray[np.float64]]:
        """Mean of 1 - tanh(Q / 10 %) with points moved by voxels (N,), and its gradient (K,)."""
        if not len(moved):
            return 0.0, np.zeros(int(np.prod(self.control)))
        values = []
        for side in (-1, 1):
            places = (self.points + side * self.normals).T
            places[self.axis] += moved
            values += [ndimage.map_coordinates(one, places, order=1) for one in (image, slope)]
        white, white_slope, grey, grey_slope = values
        lit = white + grey > 2 * boundary.FLOOR
        white, grey = np.where(lit, white, 1.0), np.where(lit, grey, 1.0)
        total = white + grey
        sharp = np.tanh(boundary.SLOPE * 200 * (grey - white) / total)
        rate = -400 * boundary.SLOPE * lit * (1 - sharp**2) / total**2
        by_point = rate * (white * grey_slope - grey * white_slope) / len(moved)
        return float(np.where(lit, 1 - sharp, 1.0).mean()), self.at_points.T @ by_point
