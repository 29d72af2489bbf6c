"""A measured field without its noise, continued smoothly to where it was not measured."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from brainlm_bids.preproc.affine import Matrix, voxel_sizes

# Waves of 2 pi times this length keep half of their height where the signal is good; those of 30 mm
# keep 97 %.
SMOOTHING_MM = 2.0
# Beyond this distance from where it was measured a field levels off, instead of going on rising.
LEVELLING_MM = 20.0
# Tukey's biweight: residuals beyond this many standard deviations do not count.
BIWEIGHT = 4.685
ROBUST_ROUNDS = 4
# Of the equations' solution, relative to the first residual, and how many steps it may take: at the
# end, and in each round of weighting, which starts from the last.
TOLERANCE = 1e-3
LARGEST_STEPS = 60
ROUND_STEPS = 20
# Of float32, relative to the field: a residual below is none.
ROUNDING = 1e-6


def continued(
    field: NDArray[Any],
    weights: NDArray[Any],
    affine: Matrix,
    *,
    deviation: float = 0.0,
    period: float | None = None,
) -> NDArray[np.float32]:
    """Smooth a field where it was measured, and continue it where it was not.

    The result f minimises sum w (f - field)² + a⁴ |D²f|² + (a²/b)² |Df|², with the lengths
    a = `SMOOTHING_MM` and b = `LEVELLING_MM`: it bends as little as it can, has no jump at the rim
    of what was measured, and levels off far from it. Values that do not fit their surroundings are
    left out, by repeated weighting.

    Parameters
    ----------
    field
        (X, Y, Z).
    weights
        (X, Y, Z) how far each value can be trusted, 0 to 1; 0 where it was not measured.
    affine
        (4, 4) voxel to RAS+ mm.
    deviation
        Of single values from their surroundings that is no reason to leave them out, in the units
        of the field: what noise and steep slopes do to good values.
    period
        If the field is known up to multiples of this number, single values that are wrong by
        multiples of it are set right. None: it is not.

    Returns
    -------
    ndarray
        (X, Y, Z) float32.

    Raises
    ------
    ValueError
        If no weight is positive.

    Examples
    --------
    >>> field = np.full((9, 9, 9), 7.0)
    >>> weights = np.zeros(field.shape)
    >>> weights[3:6, 3:6, 3:6] = 1.0
    >>> bool(np.allclose(continued(field, weights, np.diag([3.0, 3, 3, 1])), 7.0, atol=1e-3))
    True
    """
    weights = np.asarray(weights, dtype=np.float32)
    known = weights > 0
    if not known.any():
        raise ValueError("the field was measured nowhere")
    field = np.where(known, field, 0).astype(np.float32)
    centre = np.float32(np.median(field[known]))
    penalty = _penalty(field.shape, affine)
    smooth, trust = np.full(field.shape, centre, dtype=np.float32), weights
    for _ in range(ROBUST_ROUNDS):
        smooth = _solve(field, trust, penalty, smooth, ROUND_STEPS)
        residual = field - smooth
        if period is not None:
            turns = np.where(known, period * np.round(residual / period), 0).astype(np.float32)
            field, residual = field - turns, residual - turns
        trust = weights * _biweight(residual * np.sqrt(weights), known, deviation)
    return _solve(field, trust, penalty, smooth, LARGEST_STEPS)


def _penalty(shape: tuple[int, ...], affine: Matrix) -> NDArray[np.float32]:
    """What a wave costs, (X, Y, Z), by its place in the cosine transform."""
    squared = np.zeros(shape)
    for axis, (number, size) in enumerate(zip(shape, voxel_sizes(affine))):
        # of the second difference, with a mirror at both ends
        waves = (2 - 2 * np.cos(np.pi * np.arange(number) / number)) / size**2
        squared += waves.reshape([-1 if k == axis else 1 for k in range(3)])
    tension = (SMOOTHING_MM**2 / LEVELLING_MM) ** 2
    return np.asarray(SMOOTHING_MM**4 * squared**2 + tension * squared, dtype=np.float32)


def _biweight(
    standard: NDArray[np.float32], known: NDArray[np.bool_], least: float
) -> NDArray[np.float32]:
    """Tukey's biweight (X, Y, Z) of residuals of one variance, with the least deviation."""
    deviation = max(1.4826 * float(np.median(np.abs(standard[known]))), least)
    if deviation <= 0:
        return np.ones_like(standard)
    return np.asarray(np.maximum(1 - (standard / (BIWEIGHT * deviation)) ** 2, 0) ** 2)


def _solve(
    field: NDArray[np.float32],
    weights: NDArray[np.float32],
    penalty: NDArray[np.float32],
    start: NDArray[np.float32],
    largest_steps: int,
) -> NDArray[np.float32]:
    """Conjugate gradients for (weights + penalty) f = weights field, from a first guess.

    The unknowns are the waves of the cosine transform, of which the penalty is a factor each.
    """
    found = _waves(start)
    residual = _waves(weights * (field - start)) - penalty * found
    enough = TOLERANCE * float(np.linalg.norm(residual)) + ROUNDING * float(np.linalg.norm(field))
    inverse = 1 / (float(weights.mean()) + penalty)
    step = np.asarray(inverse * residual, dtype=np.float32)
    direction, product = step, float(np.vdot(residual, step))
    for _ in range(largest_steps):
        if float(np.linalg.norm(residual)) <= enough:
            break
        moved = _waves(weights * _image(direction)) + penalty * direction
        length = np.float32(product / float(np.vdot(direction, moved)))
        found += length * direction
        residual -= length * moved
        step = np.asarray(inverse * residual, dtype=np.float32)
        before, product = product, float(np.vdot(residual, step))
        direction = np.asarray(step + np.float32(product / before) * direction)
    return _image(found)


def _waves(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(fft.dctn(image, norm="ortho"))


def _image(waves: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(fft.idctn(waves, norm="ortho"))
