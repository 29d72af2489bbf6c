"""Field maps of a head that lies elsewhere, of another head, of a part of it, of the wrong sign."""

from dataclasses import replace

import numpy as np
import pytest
from distorted_head import READOUT, Head, centres, grid, moved

from brainlm_bids.preproc import steps
from brainlm_bids.preproc.distortion.field import FieldMap, PhaseEncoding
from brainlm_bids.preproc.distortion.placement import unfolded
from brainlm_bids.preproc.registration.brain import brain_mask_epi

HEAD = Head(peak=55.0)


def field_map(head: Head, pose: bool = True) -> FieldMap:
    """On a grid of its own, in another place of the scanner."""
    own, shape = grid("RAS", 5.0)
    points = centres(own, shape)
    magnitude = head.magnitude(own, shape).astype(np.float32)
    elsewhere = moved(own, [3, -2, 4], [4, -3, 5]) if pose else own
    hertz = head.hertz(points).reshape(shape).astype(np.float32)
    return FieldMap(hertz, elsewhere, magnitude, magnitude > 0)


def run(direction: str, orientation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference with noise, its affine, and the displacements (mm, NaN outside of the brain)."""
    affine, shape = grid(orientation, 5.0)
    image = HEAD.epi(affine, shape, direction)
    image += np.random.default_rng(1).normal(0, 8, shape)
    points = centres(affine, shape)
    sign = -1 if direction.endswith("-") else 1
    millimetres = sign * HEAD.hertz(points) * READOUT * 5.0
    inside = HEAD.radius(points) < 0.97
    return np.abs(image), affine, np.where(inside, millimetres, np.nan).reshape(shape)


def found(direction: str, orientation: str, measured: FieldMap) -> steps.Undistorted:
    image, affine, _ = run(direction, orientation)
    encoding = PhaseEncoding.from_bids(direction, READOUT)
    return steps.undistort(image, affine, brain_mask_epi(image, affine), encoding, measured)


@pytest.mark.parametrize(
    ("direction", "orientation"), [("j-", "LAS"), ("i", "RAS"), ("k-", "PIR"), ("j", "oblique")]
)
def test_a_field_map_of_a_head_elsewhere_is_brought_to_the_run(
    direction: str, orientation: str
) -> None:
    result = found(direction, orientation, field_map(HEAD))
    assert result.distortion is not None and not result.refused, result.refused
    truth = run(direction, orientation)[2]
    brain = np.isfinite(truth)
    assert np.nanmax(np.abs(truth)) > 10
    errors = np.abs(result.distortion.millimetres - truth)[brain]
    assert errors.mean() < 0.3 and np.percentile(errors, 95) < 1.0
    fit = result.fit
    assert fit is not None and fit.corrected is not None
    assert fit.corrected > 1.1 * fit.uncorrected > 1.1 * fit.reversed
    assert fit.measured > 0.9 and fit.folded == 0
    assert fit.largest_mm == pytest.approx(np.nanmax(np.abs(truth)), abs=1.0)
    assert 5 < fit.moved_mm < 16
    # the reference and the brain go back to where they are
    own = HEAD.radius(centres(*grid(orientation, 5.0))).reshape(brain.shape)
    assert result.brain_mask[own < 0.9].mean() > 0.97 and not result.brain_mask[own > 1.15].any()


def test_a_wrong_sign_is_refused_and_named() -> None:
    measured = field_map(HEAD)
    result = found("j", "LAS", replace(measured, hertz=-measured.hertz))
    assert result.distortion is None
    assert "PhaseEncodingDirection" in result.refused


def test_another_head_is_refused() -> None:
    result = found("j", "LAS", field_map(replace(HEAD, seed=5)))
    assert result.distortion is None and "another head" in result.refused
    image = run("j", "LAS")[0]
    np.testing.assert_allclose(result.boldref, image, rtol=1e-6)


def test_a_part_of_the_head_is_refused() -> None:
    measured = field_map(HEAD)
    low = np.indices(measured.hertz.shape)[2] < 15
    part = replace(
        measured,
        magnitude=np.where(low, measured.magnitude, 0).astype(np.float32),
        brain_mask=measured.brain_mask & low,
    )
    result = found("j", "LAS", part)
    assert result.distortion is None and "covers" in result.refused


def test_impossible_displacements_are_refused() -> None:
    """As of read-out times or echo times in other units: ten times the field."""
    measured = field_map(HEAD)
    result = found("j", "LAS", replace(measured, hertz=10 * measured.hertz))
    assert result.distortion is None and result.refused


def test_folds_are_opened() -> None:
    rng = np.random.default_rng(0)
    shift = np.cumsum(rng.normal(0, 0.8, (4, 40, 3)), axis=1).astype(np.float32)
    index = np.arange(40).reshape(1, -1, 1)
    assert (np.diff(shift + index, axis=1) < 0).any()
    opened = unfolded(shift, 1)
    assert np.diff(opened + index, axis=1).min() >= 0.1 - 1e-4
    # what was in order stays as it was
    order = (np.maximum.accumulate(shift + 0.9 * index, axis=1) == shift + 0.9 * index) & (
        np.flip(np.minimum.accumulate(np.flip(shift + 0.9 * index, 1), axis=1), 1)
        == shift + 0.9 * index
    )
    assert order.any()
    np.testing.assert_allclose(opened[order], shift[order], atol=1e-4)
