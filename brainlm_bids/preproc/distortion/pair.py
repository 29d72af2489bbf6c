"""The field from two echo-planar images of opposite polarity, which it distorts the opposite ways.

The displacement that brings both together is found by regularised Gauss–Newton, from coarse to fine
images: signal is conserved (a voxel that is stretched loses what it gains in size), the field
bends as little as the noise allows, no line folds, and the head may have moved between the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.preproc.affine import Matrix, apply, compose, invert, subgrid, voxel_sizes
from brainlm_bids.preproc.distortion.field import FieldMap, PhaseEncoding
from brainlm_bids.preproc.distortion.lines import CumulativeSignal
from brainlm_bids.preproc.distortion.opposed import Scene, State, converge, corrected
from brainlm_bids.preproc.motion.realign import reference_volume
from brainlm_bids.preproc.registration.brain import brain_mask_epi

Array = NDArray[np.float64]
Factor = tuple[int, int, int]

# Coarse images first; below 2.4 mm the field, which is smooth, gains nothing but costs time.
VOXELS_MM = (16.0, 8.0, 4.0, 2.4)
# Cosine of 10 degrees: beyond it the two images are distorted along different directions.
SAME_DIRECTION = 0.985
LEAST_SHARED = 0.25  # of the first image's head, in view of the second
# Of the brain at 3 T, s (Wansapura et al. 1999: 42 to 52 ms in grey, 45 to 48 in white matter).
T2_STAR = 0.045
LARGEST_DECAY = 1.0  # of a gradient echo; spin echoes come later
# What is left of the difference as gradient echoes, by what is left as spin echoes: simulated pairs
# of gradient echoes have 0.7 to 1.3, of spin echoes 1.7 (with a noise of 6 %) to 11.
SPIN_ECHO_AHEAD = 1.5
# Of the brain's signal; see `PairFieldMap.agrees`. Simulated pairs of one head have 0.07 or less,
# with noise of up to 6 % of grey matter; images of two heads 0.14 or more.
LARGEST_RESIDUAL = 0.1


@dataclass(frozen=True)
class PairFieldMap(FieldMap):
    """A field map from two images of opposite polarity, and how well it explains them.

    Attributes
    ----------
    motion
        (4, 4) how the head moved between the two: RAS+ mm of the first to those of the second. A
        motion along the phase axis cannot be told from a constant field, and counts as field.
    gain
        By which factor the second image was made brighter to match the first.
    gradient_echo
        Whether the images behave as gradient echoes do, not as spin echoes.
    residual_before
        Root mean square difference of the two images in the brain, as a fraction of their mean.
    residual_after
        The same after correction. If it is large, these are not two images of one head.
    """

    motion: Matrix
    gain: float
    gradient_echo: bool
    residual_before: float
    residual_after: float

    @property
    def agrees(self) -> bool:
        """Whether the two corrected images are alike, as two images of one head are."""
        return self.residual_after <= LARGEST_RESIDUAL


def field_of_pair(
    first: NDArray[Any],
    second: NDArray[Any],
    affine: Matrix,
    encoding_first: PhaseEncoding,
    encoding_second: PhaseEncoding,
    *,
    affine_second: Matrix | None = None,
    echo_time: float = 0.03,
) -> PairFieldMap:
    """Estimate the field from two echo-planar images that it distorts differently.

    Parameters
    ----------
    first, second
        (X, Y, Z), or (X, Y, Z, T) of which the realigned median is used. They may lie on different
        grids. Values that are not finite count as 0.
    affine
        (4, 4) of the first image, voxel to RAS+ mm.
    encoding_first, encoding_second
        Each in terms of its own array. The read-out times may differ, so the polarities need not be
        exactly opposite; the direction in the scanner must be the same.
    affine_second
        (4, 4) of the second image; None: that of the first.
    echo_time
        Of both images, s, should they be gradient echoes: where a field compresses the image, a
        gradient echo comes later and loses signal, which would be taken for a stretch. Both kinds
        of echo are tried. 0: they are spin echoes.

    Returns
    -------
    PairFieldMap
        On the grid and in the pose of the first image; its magnitude is the mean of both corrected
        images.

    Raises
    ------
    ValueError
        If the two were acquired with the same polarity or along different directions, one has no
        signal, or they show different places.
    UserError
        If there is no brain in the images.

    Notes
    -----
    Minimised is Σ(c₁ - g·c₂)² + λ·bending(b), where c is an image sampled where the field shows
    each voxel, times the change of the voxel's size; λ follows the noise that is left. A head
    motion of five parameters is estimated together with the field. For gradient echoes, the signal
    that delayed echoes lose is put back, with the brain's mean T2* at 3 T.

    References
    ----------
    Andersson JLR, Skare S, Ashburner J (2003). How to correct susceptibility distortions in
    spin-echo echo-planar images. NeuroImage 20:870.
    Holland D, Kuperman JM, Dale AM (2010). Efficient correction of inhomogeneous static magnetic
    field-induced distortion in echo planar imaging. NeuroImage 50:175.
    Ruthotto L, Kugel H, Olesch J, et al. (2012). Diffeomorphic susceptibility artifact correction
    of diffusion-weighted magnetic resonance images. Phys. Med. Biol. 57:5715.

    Examples
    --------
    >>> grid = np.indices((24, 32, 20)) - np.array([12, 16, 10]).reshape(3, 1, 1, 1)
    >>> head = 100.0 / (1 + np.exp((grid**2).sum(axis=0) / 4 - 16))
    >>> shifted = [np.roll(head, shift, axis=1) for shift in (1, -1)]
    >>> there, back = PhaseEncoding(1, 1, 0.05), PhaseEncoding(1, -1, 0.05)
    >>> found = field_of_pair(*shifted, np.diag([7.0, 7.0, 7.0, 1.0]), there, back)
    >>> float(found.hertz[12, 16, 10].round())
    20.0
    """
    affine = np.asarray(affine, dtype=np.float64)
    other = affine if affine_second is None else np.asarray(affine_second, dtype=np.float64)
    per_hertz = displacements_per_hertz(encoding_first, encoding_second, affine, other)
    images = [_still(first, affine, "first"), _still(second, other, "second")]
    unit = (abs(per_hertz[0]) + abs(per_hertz[1])) / 2
    factors = per_hertz[0] / unit, per_hertz[1] / unit
    # from here on the phase axis comes first
    order = [encoding_first.axis, *(k for k in range(3) if k != encoding_first.axis)]
    turned = np.ascontiguousarray(images[0].transpose(order))
    grid = affine[:, [*order, 3]]
    source = _Second(images[1], other, grid, turned.shape)
    _, seen = source.through(np.eye(4))
    if seen[turned > turned.mean()].mean() < LEAST_SHARED:
        raise ValueError("the two images of the pair do not show the same part of the head")
    fits = [_fitted(turned, source, grid, factors, 0.0)]
    if echo_time > 0:
        decay = min(echo_time / T2_STAR, LARGEST_DECAY)
        fits.append(_fitted(turned, source, grid, factors, decay))
    best = int(len(fits) > 1 and fits[1].after <= SPIN_ECHO_AHEAD * fits[0].after)
    fit, back = fits[best], np.argsort(order)
    hertz = _at_centres(fit.state.displacement) / unit
    return PairFieldMap(
        hertz=hertz.transpose(back).astype(np.float32),
        affine=affine,
        magnitude=fit.magnitude.transpose(back).astype(np.float32),
        brain_mask=fit.brain.transpose(back),
        motion=fit.state.motion,
        gain=fit.state.gain,
        gradient_echo=bool(best),
        residual_before=fit.before,
        residual_after=fit.after,
    )


@dataclass(frozen=True)
class _Fit:
    """What explains two images; arrays with the phase axis first."""

    state: State
    magnitude: Array
    brain: NDArray[np.bool_]
    before: float  # difference of the two images, see `PairFieldMap`
    after: float


def _fitted(
    first: Array, second: "_Second", affine: Matrix, factors: tuple[float, float], decay: float
) -> _Fit:
    """Displacement and motion, and how alike the images are with them."""
    found = _coarse_to_fine(first, second, affine, factors, decay)
    moved, seen = second.through(found.motion)
    moved *= found.gain
    one, two = (
        corrected(CumulativeSignal(image), factor, found.displacement, decay).image
        for image, factor in zip((first, moved), factors)
    )
    # what the head's motion took out of the second image's view, the first shows alone
    magnitude = np.maximum(np.where(seen > 0, (one + two) / 2, one), 0)
    brain = brain_mask_epi(magnitude, affine)
    both = brain & (seen > 0)
    before, after = _difference(first, moved, both), _difference(one, two, both)
    return _Fit(found, magnitude, brain, before, after)


def displacements_per_hertz(
    first: PhaseEncoding, second: PhaseEncoding, affine: Matrix, affine_second: Matrix
) -> tuple[float, float]:
    """How far 1 Hz moves each of two images, in voxels of the first along its phase axis.

    Parameters
    ----------
    first, second
        Each in terms of its own array.
    affine, affine_second
        (4, 4) of the two arrays.

    Raises
    ------
    ValueError
        If the directions are not parallel, or not opposite.

    Examples
    --------
    A second image whose array runs the other way, with the same letter:

    >>> there, mirrored = np.eye(4), np.diag([1.0, -1.0, 1.0, 1.0])
    >>> encoding = PhaseEncoding(1, 1, 0.05)
    >>> displacements_per_hertz(encoding, encoding, there, mirrored)
    (0.05, -0.05)
    """
    one = affine[:3, first.axis] * first.voxels(1.0)
    two = affine_second[:3, second.axis] * second.voxels(1.0)
    cosine = one @ two / (np.linalg.norm(one) * np.linalg.norm(two))
    if abs(cosine) < SAME_DIRECTION:
        raise ValueError(
            f"the two images are encoded along different directions ({first.direction} and "
            f"{second.direction}): a pair needs opposite polarities of one direction"
        )
    if cosine > 0:
        raise ValueError(
            f"the two images have the same polarity ({first.direction} and {second.direction} of "
            "their arrays): a pair needs opposite polarities"
        )
    length = voxel_sizes(affine)[first.axis]
    here = first.voxels(1.0)
    return here, float(-np.sign(here) * np.linalg.norm(two) / length)


def _still(image: NDArray[Any], affine: Matrix, name: str) -> Array:
    """One volume (X, Y, Z) of an image of one or several."""
    data = np.asarray(image)
    if data.ndim not in (3, 4) or 0 in data.shape:
        raise ValueError(f"the {name} image of the pair has the shape {data.shape}, not (X, Y, Z)")
    if data.ndim == 4:
        data = data[..., 0] if data.shape[3] == 1 else reference_volume(data, 0, affine=affine)
    data = np.nan_to_num(np.asarray(data, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if not data.max() > max(data.min(), 0.0):
        raise ValueError(f"the {name} image of the pair has no signal")
    return data


def _difference(one: Array, two: Array, mask: NDArray[np.bool_]) -> float:
    """Root mean square difference in a mask, as a fraction of the mean."""
    mean = float((one[mask] + two[mask]).mean() / 2)
    return float(np.sqrt(np.mean((one[mask] - two[mask]) ** 2)) / mean)


def _levels(spacing: Array) -> Iterator[Factor]:
    """By how much the voxels are enlarged along each axis, coarse first."""
    previous = None
    for size in VOXELS_MM:
        i, j, k = (max(1, round(size / length)) for length in spacing.tolist())
        factor = i, j, k
        if factor != previous:
            yield factor
        previous = factor


@dataclass(frozen=True)
class _Second:
    """The second image on its own grid, to be seen through a motion on that of the first."""

    image: Array
    affine: Matrix
    target: Matrix
    shape: tuple[int, int, int]

    @cached_property
    def coefficients(self) -> Array:
        return np.asarray(ndimage.spline_filter(self.image, order=3, mode="mirror"))

    def through(self, motion: Matrix) -> tuple[Array, Array]:
        """On the target's grid; and 1 where that lies in the field of view, else 0."""
        pull = compose(invert(self.affine), motion, self.target)
        seen = np.ones(self.shape, dtype=bool)
        grid = np.ogrid[tuple(slice(n) for n in self.shape)]
        for row, size in zip(pull[:3], self.image.shape):
            place = sum((a * x for a, x in zip(row, grid)), start=row[3])
            seen &= (place >= -0.5) & (place <= size - 0.5)
        places = pull[:3, :3], pull[:3, 3]
        moved = ndimage.affine_transform(
            self.coefficients, *places, self.shape, order=3, mode="mirror", prefilter=False
        )
        return np.where(seen, moved, 0.0), seen.astype(np.float64)


def _coarse_to_fine(
    first: Array, second: _Second, affine: Matrix, factors: tuple[float, float], decay: float
) -> State:
    """Displacement at the faces of the full grid, in its voxels, and motion."""
    bright = first > first.mean()
    scale = float(first[bright].mean())
    centre = apply(affine, np.argwhere(bright)).mean(axis=0)
    state = State(np.zeros((2, 1, 1)), np.eye(4), 1.0)
    before = first.shape
    for factor in _levels(voxel_sizes(affine)):

        def through(motion: Matrix, factor: Factor = factor) -> tuple[Array, Array]:
            image, seen = second.through(motion)
            # blocks that are only partly in view are too dark
            whole = _shrunk(seen, factor) > 1 - 1e-6
            return _shrunk(image / scale, factor), whole.astype(np.float64)

        scene = Scene(
            first=_shrunk(first / scale, factor),
            second_through=through,
            affine=subgrid(affine, (np.array(factor) - 1) / 2, factor),
            centre=centre,
            factors=factors,
            decay=decay,
        )
        displacement = _enlarged(state.displacement, before, factor, scene.first.shape)
        state = converge(scene, replace(state, displacement=displacement))
        before = factor
    displacement = _enlarged(state.displacement, before, (1, 1, 1), first.shape)
    return replace(state, displacement=displacement)


def _shrunk(image: Array, factor: Factor) -> Array:
    """Means over blocks of voxels; the rim is continued to whole blocks."""
    padded = np.pad(image, [(0, -n % k) for n, k in zip(image.shape, factor)], mode="edge")
    parts = [size for n, k in zip(padded.shape, factor) for size in (n // k, k)]
    return np.asarray(padded.reshape(parts).mean(axis=(1, 3, 5)))


def _enlarged(displacement: Array, before: Factor, factor: Factor, shape: tuple[int, ...]) -> Array:
    """A displacement at the faces of blocks of voxels, at those of smaller blocks.

    Linear, so that it folds nowhere if it did not before.
    """
    ratio = np.array(factor) / np.array(before)
    along = np.arange(shape[0] + 1) * ratio[0]
    across = [(np.arange(n) + 0.5) * r - 0.5 for n, r in zip(shape[1:], ratio[1:])]
    places = np.stack(np.meshgrid(along, *across, indexing="ij"))
    larger = ndimage.map_coordinates(displacement, places, order=1, mode="nearest")
    return np.asarray(larger / ratio[0])


def _at_centres(faces: Array) -> Array:
    """Values (N, X, Z) in the middle between faces (N + 1, X, Z), by cubic interpolation."""
    ends = 2 * faces[:1] - faces[1:2], 2 * faces[-1:] - faces[-2:-1]
    more = np.concatenate([ends[0], faces, ends[1]])
    return np.asarray((9 * (more[1:-2] + more[2:-1]) - more[:-3] - more[3:]) / 16)
