"""The sign of the correction, for every direction and orientation, against a forward simulation."""

import itertools

import numpy as np
import pytest
from distorted_head import READOUT, Head, centres, grid, put
from scipy import ndimage

from brainlm_bids.preproc.distortion.field import Distortion, PhaseEncoding, distortion_of

DIRECTIONS = ("i", "i-", "j", "j-", "k", "k-")
ORIENTATIONS = ("LAS", "RAS", "PIR", "oblique")
COMBINATIONS = list(itertools.product(DIRECTIONS, ORIENTATIONS))


@pytest.mark.parametrize(("direction", "orientation"), COMBINATIONS)
def test_the_correction_undoes_what_the_scanner_did(direction: str, orientation: str) -> None:
    head, straight_head = Head(peak=55.0), Head(peak=0.0)
    affine, shape = grid(orientation, 6.0)
    seen = head.epi(affine, shape, direction)
    truth = straight_head.epi(affine, shape, direction)
    points = centres(affine, shape)
    hertz = head.hertz(points).reshape(shape)
    brain = (head.radius(points) < 0.93).reshape(shape)

    def apart(sign: int) -> float:
        encoding = PhaseEncoding.from_bids(direction, READOUT)
        found = distortion_of(sign * hertz, affine, encoding).undistorted(seen)
        return float(np.abs(found - truth)[brain & (np.abs(hertz) > 20)].mean())

    uncorrected = float(np.abs(seen - truth)[brain & (np.abs(hertz) > 20)].mean())
    assert apart(1) < 0.5 * uncorrected < 0.5 * apart(-1)


@pytest.mark.parametrize(("direction", "orientation"), COMBINATIONS)
def test_a_point_is_shown_where_its_signal_is(direction: str, orientation: str) -> None:
    """A drop of signal at a known place, in a field of 40 Hz that is there alone."""
    affine, shape = grid(orientation, 6.0)
    place = np.array([8.0, -14.0, 11.0])
    voxel = np.linalg.inv(affine[:3, :3]) @ (place - affine[:3, 3])
    step = np.zeros(3)
    step["ijk".index(direction[0])] = 40.0 * READOUT * (-1 if direction.endswith("-") else 1)
    image = put((voxel + step)[np.newaxis], np.array([1000.0]), shape)
    shown = affine[:3, :3] @ np.array(ndimage.center_of_mass(image)) + affine[:3, 3]
    distance = np.linalg.norm(centres(affine, shape) - place, axis=1)
    hertz = (40.0 * np.exp(-((distance / 40.0) ** 4))).reshape(shape)
    distortion = distortion_of(hertz, affine, PhaseEncoding.from_bids(direction, READOUT))
    np.testing.assert_allclose(distortion(place[np.newaxis])[0], shown, atol=0.3)
    np.testing.assert_allclose(distortion.inverse(shown[np.newaxis])[0], place, atol=0.3)


@pytest.mark.parametrize("slope", [-0.8, -0.4, 0.5, 1.0, 1.5])
def test_the_inverse_is_found_where_the_image_is_squeezed_or_stretched(slope: float) -> None:
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    index = np.arange(80.0)
    ramp = slope * np.clip(index - 40, -6, 6)
    shift = np.broadcast_to(ramp[np.newaxis, :, np.newaxis], (4, 80, 4)).astype(np.float32)
    distortion = Distortion(shift, 1, affine)
    points = np.column_stack([np.full(50, 4.0), np.linspace(90, 150, 50), np.full(50, 4.0)])
    np.testing.assert_allclose(distortion.inverse(distortion(points)), points, atol=0.05)
