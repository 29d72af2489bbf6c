"""Distortion without a field map: half of a known one is found, and none where there is none."""

import numpy as np
import pytest
from distortion_scene import distorted
from registration_scene import Scene

from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import apply, grid_points, invert
from brainlm_bids.preproc.distortion.boundary_field import Evidence, believed
from brainlm_bids.preproc.distortion.local_fit import LocalFit, slope_adjoint


def _hills(scene: Scene, peak_mm: float) -> np.ndarray:
    """mm along j: a frontal and two temporal hills 18 mm wide (sd), of different signs."""
    points = apply(invert(scene.truth), grid_points(scene.bold.shape, scene.bold_affine))
    total = np.zeros(len(points))
    for centre, sign in (((0, 54, -16), 1), ((42, 12, -30), -0.8), ((-42, 12, -30), -0.8)):
        total += sign * np.exp(-((points - np.array(centre)) ** 2).sum(1) / 2 / 18.0**2)
    return peak_mm * total.reshape(scene.bold.shape)


def _found(scene: Scene, image: np.ndarray, lesion: np.ndarray | None = None) -> steps.Unwarped:
    return steps.unwarp_by_boundary(
        image,
        scene.bold_affine,
        scene.bold_brain,
        scene.t1w,
        scene.affine,
        scene.brain,
        scene.truth,
        lambda points: points,
        1,
        t1w_lesion=lesion,
    )


def test_the_error_of_a_known_distortion_is_halved(scene: Scene) -> None:
    truth = _hills(scene, 10.0)
    found = _found(scene, distorted(scene.bold, truth / 3.5, 1))
    assert found.refused == ""
    assert found.distortion is not None and found.distortion.axis == 1
    brain = scene.bold_brain
    error = np.abs(found.distortion.millimetres - truth)[brain]
    size = np.abs(truth)[brain]
    assert error[size > 4].mean() < 0.5 * size[size > 4].mean()
    assert (error - size)[size < 4].mean() < 0.0
    assert found.evidence.gain > 3 * found.evidence.control_gain
    judged = found.contrasts
    assert judged is not None
    assert judged.corrected > judged.uncorrected + 0.05 > judged.reversed + 0.05
    # the brain of the run is where the run shows it
    assert found.brain_mask.sum() > 0.8 * brain.sum()


def test_an_undistorted_run_is_refused(scene: Scene) -> None:
    """Also where a lesion, which looks like nothing that is expected, lies in the frontal lobe."""
    points = grid_points(scene.t1w.shape, scene.affine)
    lesion = (np.linalg.norm(points - [20, 45, 0], axis=1) < 14).reshape(scene.t1w.shape)
    there = apply(invert(scene.truth), grid_points(scene.bold.shape, scene.bold_affine))
    dark = (np.linalg.norm(there - [20, 45, 0], axis=1) < 12).reshape(scene.bold.shape)
    found = _found(scene, np.where(dark, 0.3 * scene.bold, scene.bold), lesion)
    assert found.refused
    assert found.distortion is None and found.contrasts is None
    np.testing.assert_array_equal(found.brain_mask, scene.bold_brain)


def test_small_shifts_are_not_believed() -> None:
    np.testing.assert_allclose(
        believed(np.array([-5.0, -3.0, -1.0, 0.5, 2.0, 8.0], np.float32)), [-5, -3, 0, 0, 1, 8]
    )


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (Evidence(0.05, 0.0, 0.0, 1.0, 0.0), "no distortion"),
        (Evidence(0.001, 0.0, 0.1, 6.0, 0.0), "clearly sharper"),
        (Evidence(0.02, 0.015, 0.1, 6.0, 0.0), "clearly sharper"),
        (Evidence(0.02, 0.0, 0.1, 45.0, 0.0), "implausible"),
        (Evidence(0.02, 0.0, 0.1, 9.0, 0.1), "implausible"),
        (Evidence(0.02, 0.001, 0.1, 9.0, 0.0), ""),
    ],
)
def test_what_is_refused_and_why(evidence: Evidence, words: str) -> None:
    assert words in evidence.refusal
    assert bool(evidence.refusal) == bool(words)


def test_the_gradient_of_the_local_fit() -> None:
    rng = np.random.default_rng(1)
    expected, image, around = (rng.random((6, 7, 8)).astype(np.float32) for _ in range(3))
    fit = LocalFit(expected, around, 1.5)
    gradient = fit.misfit(image)[1]
    # the windows are symmetric but at the rim, where they see the nearest voxel
    inner = (3, 3, 4)
    step = np.zeros_like(image)
    step[inner] = 1e-2
    slope = (fit.misfit(image + step)[0] - fit.misfit(image - step)[0]) / 2e-2
    assert gradient[inner] == pytest.approx(slope, rel=0.1)


def test_the_transpose_of_the_slope() -> None:
    rng = np.random.default_rng(0)
    for axis in range(3):
        values = rng.random((4, 5, 6)).astype(np.float32)
        other = rng.random((4, 5, 6)).astype(np.float32)
        left = (np.gradient(values, axis=axis) * other).sum()
        assert left == pytest.approx((values * slope_adjoint(other, axis)).sum(), rel=1e-4)
