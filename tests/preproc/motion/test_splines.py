"""Splines by matrix products and slices, against scipy's, one point after the other."""

import numpy as np
import pytest
from scipy import ndimage

from brainlm_bids.preproc.affine import about, in_voxels
from brainlm_bids.preproc.motion import splines
from brainlm_bids.preproc.motion.realign import parameters_to_matrices

AFFINE = np.diag([-3.0, 3.0, 3.5, 1.0])


def noise(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1000, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(24, 31, 9), (40, 3, 2), (1, 6, 5)])
@pytest.mark.parametrize("smoothing", [None, np.array([0.7, 0.9, 0.4])])
def test_coefficients_are_those_of_scipy(
    shape: tuple[int, int, int], smoothing: np.ndarray | None
) -> None:
    volume = noise(shape)
    smooth = volume.astype(float)
    if smoothing is not None:
        smooth = ndimage.gaussian_filter(smooth, smoothing, mode="nearest")
    expected = ndimage.spline_filter(smooth, order=3, mode="mirror")
    for given in (volume, np.asfortranarray(volume)):
        found = splines.coefficients(given, splines.spline_filters(shape, smoothing))
        np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("shape", [(40, 44, 21), (120, 97, 3), (7, 9, 5), (30, 1, 3)])
@pytest.mark.parametrize(
    ("mm", "degrees"), [(0.0, 0.0), (0.3, 0.3), (3.0, 2.0), (9.0, 5.0), (40.0, 30.0), (900.0, 1.0)]
)
def test_values_are_those_of_scipy(
    shape: tuple[int, int, int], mm: float, degrees: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the volume ends, and far beyond; with and without blocks that end in a slice."""
    spline = noise(shape)
    parameters = np.array([[mm, -0.7 * mm, 0.4 * mm, *np.radians([degrees, -degrees, degrees])]])
    centre = AFFINE[:3, :3] @ np.array(shape) / 2
    pull = in_voxels(parameters_to_matrices(parameters, centre), AFFINE)[0]
    expected = ndimage.affine_transform(
        spline.astype(float), pull[:3, :3], pull[:3, 3], order=3, mode="mirror", prefilter=False
    )
    for points in (1024, 8192):
        monkeypatch.setattr(splines, "BLOCK_POINTS", points)
        np.testing.assert_allclose(splines.pulled(spline, pull), expected, atol=0.01)


def test_head_motion_is_resampled_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a head does in the scanner never takes the slow way; a quarter of a turn does."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ndimage, "affine_transform", refuse)
    spline, centre = noise((64, 64, 36)), np.array([-95.0, 95.0, 60.0])
    moved = parameters_to_matrices(np.array([[3.0, -3.0, 4.0, 0.03, -0.03, 0.03]]), centre)[0]
    assert np.isfinite(splines.pulled(spline, in_voxels(moved, AFFINE))).all()
    turned = about(centre, np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    with pytest.raises(AssertionError):
        splines.pulled(spline, in_voxels(turned, AFFINE))
