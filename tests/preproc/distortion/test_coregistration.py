"""A distorted reference and its T1w image: the distortion is known, or its sign is wrong."""

from dataclasses import replace

import numpy as np
import pytest
from distorted_head import put
from registration_scene import Scene, make_scene

from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import apply
from brainlm_bids.preproc.distortion.contrast import polarity_warnings
from brainlm_bids.preproc.distortion.field import Distortion
from brainlm_bids.preproc.registration.quality import dice
from brainlm_bids.preproc.registration.transforms import resample_to

FINE = 6


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene()


@pytest.fixture(scope="module")
def shift(scene: Scene) -> np.ndarray:
    """In voxels: 10 mm at the frontal pole, 8 mm the other way at one temporal pole."""
    t1w_points = np.array([[2.0, 58.0, -12.0], [-44.0, 12.0, -26.0]])
    middles = apply(np.linalg.inv(scene.bold_affine), apply(scene.truth, t1w_points))
    grid = np.moveaxis(np.indices(scene.bold.shape), 0, -1)
    total = np.zeros(scene.bold.shape)
    for middle, peak in zip(middles, (2.9, -2.3)):
        total += peak * np.exp(-((grid - middle) ** 2).sum(axis=-1) / (2 * (18 / 3.5) ** 2))
    return total.astype(np.float32)


@pytest.fixture(scope="module")
def distorted(scene: Scene, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reference and brain as the run shows them, the signal of each part put where it is seen."""
    shape = scene.bold.shape
    fine = np.arange(-0.5 + 0.5 / FINE, shape[1] - 0.5, 1 / FINE)
    lines = np.stack(np.meshgrid(np.arange(shape[0]), fine, np.arange(shape[2]), indexing="ij"), -1)
    places = lines.reshape(-1, 3)

    def sampled(image: np.ndarray) -> np.ndarray:
        step = np.diag([1.0, 1 / FINE, 1.0, 1.0])
        step[1, 3] = fine[0]
        there = (shape[0], len(fine), shape[2])
        return resample_to(image, np.eye(4), there, step, np.eye(4)).ravel()

    seen = places.copy()
    seen[:, 1] += sampled(shift)
    images = [put(seen, sampled(image), shape) / FINE for image in (scene.bold, scene.bold_brain)]
    return images[0], images[1] > 0.5


def registered(
    scene: Scene, distorted: tuple[np.ndarray, np.ndarray], shift: np.ndarray, sign: int
) -> steps.Coregistration:
    return steps.coregister(
        distorted[0],
        scene.bold_affine,
        distorted[1],
        scene.t1w,
        scene.affine,
        scene.brain,
        distortion=Distortion(sign * shift, 1, scene.bold_affine),
    )


def test_the_undistorted_reference_is_registered_and_the_brain_is_where_the_run_shows_it(
    scene: Scene, distorted: tuple[np.ndarray, np.ndarray], shift: np.ndarray
) -> None:
    found = registered(scene, distorted, shift, 1)
    assert found.method == "boundary" and found.mask_source == "T1w"
    points = scene.surface.points
    errors = np.linalg.norm(apply(found.matrix, points) - apply(scene.truth, points), axis=1)
    assert errors.mean() < 0.6
    frontal = shift > 1.0
    there = resample_to(
        scene.brain, scene.affine, shift.shape, scene.bold_affine, np.linalg.inv(scene.truth), 0
    )
    carried = dice(found.brain_mask & frontal, distorted[1] & frontal)
    assert carried > 0.95
    assert dice((there > 0.5) & frontal, distorted[1] & frontal) < carried - 0.02
    assert found.contrasts is not None and found.contrasts.n_points > 300
    assert found.contrasts.corrected > found.contrasts.uncorrected > found.contrasts.reversed
    assert polarity_warnings(found.contrasts) == []


def test_the_wrong_sign_is_suspect(
    scene: Scene, distorted: tuple[np.ndarray, np.ndarray], shift: np.ndarray
) -> None:
    found = registered(scene, distorted, shift, -1)
    assert found.contrasts is not None
    assert [one.kind for one in polarity_warnings(found.contrasts)] == ["polarity_suspect"]
    assert not replace(found.contrasts, reversed=found.contrasts.corrected).suspect
