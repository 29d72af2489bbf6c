"""The polarity of a correction: right and wrong signs are told apart by the white boundary."""

import numpy as np
import pytest
from distortion_scene import distorted
from registration_scene import Scene

from brainlm_bids.preproc.affine import apply, grid_points, invert
from brainlm_bids.preproc.distortion.contrast import Contrasts, contrasts, polarity_warnings
from brainlm_bids.preproc.distortion.field import Distortion


def _shift(scene: Scene, peak_mm: float) -> np.ndarray:
    """Voxels along j: a frontal and two temporal hills 16 mm wide (sd), MNI mm."""
    points = apply(invert(scene.truth), grid_points(scene.bold.shape, scene.bold_affine))
    centres = ((0, 56, -12), (42, 10, -28), (-42, 10, -28))
    hills = sum(np.exp(-((points - c) ** 2).sum(1) / 2 / 16.0**2) for c in np.array(centres))
    return (peak_mm / 3.5 * np.asarray(hills)).reshape(scene.bold.shape)


def _judged(scene: Scene, peak_mm: float, sign: int) -> Contrasts:
    shift = _shift(scene, peak_mm)
    seen = distorted(scene.bold, shift, 1)
    distortion = Distortion((sign * shift).astype(np.float32), 1, scene.bold_affine)
    return contrasts(
        scene.surface, seen, scene.bold_affine, scene.bold_brain, scene.truth, distortion
    )


@pytest.mark.parametrize("peak", [4.0, 8.0, -8.0])
def test_the_right_sign_sharpens_and_the_wrong_one_is_suspect(scene: Scene, peak: float) -> None:
    right, wrong = _judged(scene, peak, 1), _judged(scene, peak, -1)
    assert right.n_points == wrong.n_points > 300
    # across 2 to 4 mm the boundary blurs little, and the opposite sign is what tells
    assert abs(peak) < 8 or right.corrected > right.uncorrected + 0.03
    assert right.corrected > right.reversed + 0.05
    np.testing.assert_allclose(wrong.reversed, right.corrected)
    np.testing.assert_allclose(wrong.uncorrected, right.uncorrected)
    assert not polarity_warnings(right)
    (found,) = polarity_warnings(wrong)
    assert (found.kind, found.level) == ("polarity_suspect", "danger")


def test_a_small_distortion_is_not_judged(scene: Scene) -> None:
    assert _judged(scene, 1.0, -1) == Contrasts(0, 0.0, 0.0, 0.0)


def test_an_image_without_signal_is_not_sharp(scene: Scene) -> None:
    shift = np.full(scene.bold.shape, 2.0, np.float32)
    nothing = np.zeros_like(scene.bold)
    distortion = Distortion(shift, 1, scene.bold_affine)
    found = contrasts(
        scene.surface, nothing, scene.bold_affine, scene.bold_brain, scene.truth, distortion
    )
    assert (found.uncorrected, found.corrected, found.reversed) == (0, 0, 0)
    assert not found.suspect
