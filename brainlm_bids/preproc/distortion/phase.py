"""Field maps from the phase of gradient echoes, or from a field that the scanner computed.

The phase of a gradient echo turns with the field: by 2 pi x Hz x echo time. It is known up to
multiples of 2 pi, and in units that differ between scanners.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.affine import Matrix, subgrid, voxel_sizes
from brainlm_bids.preproc.distortion.continuation import continued
from brainlm_bids.preproc.distortion.field import FieldMap
from brainlm_bids.preproc.distortion.shading import without_shading
from brainlm_bids.preproc.registration.brain import brain_mask_epi, brain_mask_flat

# Proton's gyromagnetic ratio over 2 pi (CODATA 2018).
HERTZ_PER_TESLA = 42.577478518e6
HERTZ_PER_UNIT = {"Hz": 1.0, "rad/s": 1 / (2 * np.pi), "T": HERTZ_PER_TESLA}
# Noise outside of the head fills the whole turn. If an image spans less of it than that (its
# background is blank), its scale is not certain; for radians and degrees, which are far smaller
# than all other scales, half of a turn is enough.
LEAST_SPAN = 0.9
LEAST_SPAN_SMALL = 0.5
# Rounded slopes and limits, such as 3.142 for pi.
SPAN_TOLERANCE = 0.005
# Difference of the echo times, s: shorter or longer ones are mistakes, such as milliseconds.
ECHO_DIFFERENCES = (1e-4, 0.05)
# Beyond this field, Hz, in a tenth of the brain, it is not in the units that it is said to be in:
# 500 Hz move an echo-planar image by 10 to 30 voxels.
LARGEST_HERTZ = 1000.0
# An image of which so many voxels are exactly 0 is blank there: it was masked.
BLANK_SHARE = 0.05
# Finer voxels are averaged to about this size, and the image is cut this far from the brain.
FINEST_MM = 2.5
MARGIN_MM = 20.0
# By how much, Hz, a single voxel may differ from its surroundings without being taken for an error.
USUAL_HERTZ = 5.0

Mask = NDArray[np.bool_]


class Scale(NamedTuple):
    """How a scanner stores phase: a full turn, from `lowest` on, and which value is no phase."""

    name: str
    lowest: float
    turn: float
    zero: float = 0.0
    least_span: float = LEAST_SPAN


# Siemens stores -pi to pi in 12 bits, which converters keep, centre, or double; Philips and GE
# export radians, thousandths of a radian, or 12 bits with a slope.
_SCALES = (
    Scale("-pi to pi", -np.pi, 2 * np.pi, least_span=LEAST_SPAN_SMALL),
    Scale("0 to 2 pi", 0.0, 2 * np.pi, least_span=LEAST_SPAN_SMALL),
    Scale("-180 to 180", -180.0, 360.0, least_span=LEAST_SPAN_SMALL),
    Scale("0 to 360", 0.0, 360.0, least_span=LEAST_SPAN_SMALL),
    Scale("-2048 to 2047", -2048.0, 4096.0),
    Scale("0 to 4095", 0.0, 4096.0, zero=2048.0),
    Scale("-3142 to 3142", -1000 * np.pi, 2000 * np.pi),
    Scale("-4096 to 4095", -4096.0, 8192.0),
)


def in_radians(*phases: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Bring images of phase from the scanner's units to radians.

    Parameters
    ----------
    *phases
        (X, Y, Z) each, all of one scale: that which their values span.

    Returns
    -------
    list of ndarray
        float32, in radians.

    Raises
    ------
    UserError
        If the values span none of the scales that scanners use.

    Examples
    --------
    >>> ramp = np.linspace(-4096, 4094, 4096).reshape(16, 16, 16)
    >>> radians = in_radians(ramp)[0]
    >>> radians.min().round(3), radians.max().round(3)
    (np.float32(-3.142), np.float32(3.14))
    """
    finite = [np.where(np.isfinite(phase), phase, 0).astype(np.float64) for phase in phases]
    low, high = min(phase.min() for phase in finite), max(phase.max() for phase in finite)
    for scale in _SCALES:
        slack = SPAN_TOLERANCE * scale.turn
        within = low >= scale.lowest - slack and high <= scale.lowest + scale.turn + slack
        if within and high - low >= scale.least_span * scale.turn:
            unit = 2 * np.pi / scale.turn
            return [np.asarray((p - scale.zero) * unit, dtype=np.float32) for p in finite]
    raise UserError(
        f"the phase goes from {low:.6g} to {high:.6g}, which is none of the ranges in which "
        f"scanners store it ({', '.join(scale.name for scale in _SCALES)}): its unit is not known"
    )


def field_of_phases(
    phases: Sequence[NDArray[Any]],
    echo_times: tuple[float, float],
    affine: Matrix,
    magnitude: NDArray[Any],
    *,
    seed: int = 42,
) -> FieldMap:
    """Compute the field from the phase of two gradient echoes.

    Parameters
    ----------
    phases
        One image (X, Y, Z), the phase of the later echo less that of the earlier one; or two, of
        the echoes. In any of the units in which scanners store phase.
    echo_times
        Of the two echoes, s. A phase difference is that of the later less the earlier one,
        whichever comes first here.
    affine
        (4, 4) voxel to RAS+ mm.
    magnitude
        (X, Y, Z) of the echoes, on the same grid.
    seed
        Of the unwrapping.

    Returns
    -------
    FieldMap
        In Hz; its median over the brain is within half of a turn of the phase.

    Raises
    ------
    UserError
        If the phase is in unknown units, the echo times cannot be right, or there is no brain in
        the magnitude.

    References
    ----------
    Jezzard P, Balaban RS (1995). Correction for geometric distortion in echo planar images from B0
    field variations. Magn. Reson. Med. 34:65.
    """
    between = echo_times[1] - echo_times[0]
    shortest, longest = ECHO_DIFFERENCES
    if not shortest <= abs(between) <= longest:
        raise UserError(
            f"echo times of {echo_times[0]:g} and {echo_times[1]:g} s are {abs(between):g} s "
            f"apart, not {shortest:g} to {longest:g} s: are they in seconds?"
        )
    radians = in_radians(*phases)
    if len(radians) == 1:
        difference, between = radians[0], abs(between)
    else:
        difference = phase_difference(*radians)
    flat, brain = _brain(magnitude, affine)
    measured = np.all([_is_measured(phase) for phase in phases], axis=0) & brain
    if not measured.any():
        raise UserError("the phase is empty: it has no values in the brain")
    turns = unwrapped(difference, measured, seed) / np.float32(2 * np.pi)
    period = 1 / between
    return _field_map(turns * period, measured, flat, magnitude, affine, abs(period))


def phase_difference(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> NDArray[np.float32]:
    """The phase of a second echo less that of a first, (X, Y, Z), in (-pi, pi].

    Examples
    --------
    >>> phase_difference(np.array([3.0]), np.array([-3.0])).round(3)
    array([0.283], dtype=float32)
    """
    return np.asarray(np.angle(np.exp(1j * second) * np.exp(-1j * first)), dtype=np.float32)


def unwrapped(radians: NDArray[np.floating], brain: Mask, seed: int = 42) -> NDArray[np.float32]:
    """Add turns to a phase so that it has no jumps, and its median is as near to 0 as can be.

    Parameters
    ----------
    radians
        (X, Y, Z), known up to multiples of 2 pi.
    brain
        (X, Y, Z) where it was measured, in one piece.
    seed
        Of the unwrapping.

    Returns
    -------
    ndarray
        (X, Y, Z) float32; 0 outside of the brain.

    References
    ----------
    Abdul-Rahman H, Gdeisat M, Burton D, Lalor M (2005). Fast three-dimensional phase-unwrapping
    algorithm based on sorting by reliability following a non-continuous path. Proc. SPIE 5856:32.

    Examples
    --------
    >>> ramp = np.broadcast_to(np.linspace(-9, 9, 19), (4, 4, 19))
    >>> wrapped = np.angle(np.exp(1j * ramp))
    >>> bool(np.allclose(unwrapped(wrapped, np.ones(ramp.shape, bool)), ramp, atol=1e-5))
    True
    """
    import skimage.restoration

    unwrap: Any = skimage.restoration.unwrap_phase  # it has no types, nor have masked arrays
    masked: Any = np.ma.array
    wrapped = np.angle(np.exp(1j * np.asarray(radians, dtype=np.float64)))
    phase = np.asarray(unwrap(masked(wrapped, mask=~brain), rng=seed).filled(0))
    turns = np.round(np.median(phase[brain]) / (2 * np.pi))
    return np.where(brain, phase - 2 * np.pi * turns, 0).astype(np.float32)


def field_in_hertz(
    field: NDArray[Any], units: str, affine: Matrix, magnitude: NDArray[Any]
) -> FieldMap:
    """Take a field that the scanner computed.

    Parameters
    ----------
    field
        (X, Y, Z).
    units
        Hz, rad/s or T.
    affine
        (4, 4) voxel to RAS+ mm.
    magnitude
        (X, Y, Z) on the same grid.

    Returns
    -------
    FieldMap
        In Hz.

    Raises
    ------
    UserError
        If the units are not known or cannot be right, or there is no brain in the magnitude.
    """
    if units not in HERTZ_PER_UNIT:
        raise UserError(f"a field in {units!r}: its units are none of {', '.join(HERTZ_PER_UNIT)}")
    hertz = np.asarray(field, dtype=np.float64) * HERTZ_PER_UNIT[units]
    flat, brain = _brain(magnitude, affine)
    measured = _is_measured(hertz) & brain
    usual = float(np.percentile(np.abs(hertz[measured]), 90)) if measured.any() else 0.0
    if usual > LARGEST_HERTZ:
        raise UserError(
            f"the field is beyond {usual:.4g} Hz in a tenth of the brain: it is not in {units}"
        )
    return _field_map(hertz, measured, flat, magnitude, affine, None)


def _brain(magnitude: NDArray[Any], affine: Matrix) -> tuple[NDArray[np.float32], Mask]:
    """The magnitude without the shading of the coils, and the brain in it."""
    magnitude = np.nan_to_num(np.asarray(magnitude, dtype=np.float32))
    rough = brain_mask_epi(magnitude, affine)
    flat = without_shading(magnitude, affine, rough)
    return flat, brain_mask_flat(flat, affine, rough)


def _is_measured(image: NDArray[Any]) -> Mask:
    """Where an image has values: finite ones, and not the zeros of a blank background."""
    zero = np.asarray(image) == 0
    known = np.isfinite(image)
    return np.asarray(known & ~zero if zero.mean() > BLANK_SHARE else known)


def _field_map(
    hertz: NDArray[Any],
    measured: Mask,
    flat: NDArray[np.float32],
    magnitude: NDArray[Any],
    affine: Matrix,
    period: float | None,
) -> FieldMap:
    """Smooth and continue what was measured: the less signal, the less it counts."""
    if not np.any(hertz[measured]):
        raise UserError("the field map is empty: it is 0 all over the brain")
    # the variance of a phase is one over the square of the signal
    signal = ndimage.uniform_filter(np.nan_to_num(flat), 3) / np.median(flat[measured])
    weights = np.where(measured, np.clip(signal, 0.01, 1) ** 2, 0)
    box, factor = _box(measured, affine)
    weights, known = _coarser(weights[box], factor), weights[box] > 0
    shares = _coarser(np.where(known, 1.0, 0.0), factor)
    hertz = _coarser(np.where(known, hertz[box], 0), factor) / np.maximum(shares, 1e-6)
    grid = subgrid(affine, [part.start for part in box] + (factor - 1) / 2, factor)
    smooth = continued(hertz, weights, grid, deviation=USUAL_HERTZ, period=period)
    image = _coarser(np.nan_to_num(np.asarray(magnitude, dtype=np.float32))[box], factor)
    return FieldMap(smooth, grid, image.astype(np.float32), shares >= 0.5)


def _box(measured: Mask, affine: Matrix) -> tuple[tuple[slice, ...], NDArray[np.intp]]:
    """The part of a grid about what was measured, and how many voxels to average along each axis.

    The field is smoother than the voxels of fine images, which would only cost time.
    """
    spacing = voxel_sizes(affine)
    factor = np.maximum(np.round(FINEST_MM / spacing), 1).astype(int)
    index, margin = np.argwhere(measured), np.ceil(MARGIN_MM / spacing).astype(int)
    low = np.maximum(index.min(axis=0) - margin, 0)
    high = np.minimum(index.max(axis=0) + margin + 1, measured.shape)
    size = np.maximum((high - low) // factor, 1) * factor
    return tuple(slice(int(a), int(a + n)) for a, n in zip(low, size)), factor


def _coarser(image: NDArray[Any], factor: NDArray[np.intp]) -> NDArray[Any]:
    """Means of blocks of voxels."""
    if (factor == 1).all():
        return image
    blocks = [n for size, f in zip(image.shape, factor) for n in (size // f, f)]
    return np.asarray(image.reshape(blocks).mean(axis=(1, 3, 5)))
