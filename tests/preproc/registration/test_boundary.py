"""Boundary-based registration: a known pose found to a tenth of a voxel, nonsense refused."""

import numpy as np
import pytest
from nilearn.datasets import load_mni152_wm_template
from registration_scene import Scene, pose
from scipy import ndimage

from brainlm_bids.preproc.registration import boundary
from brainlm_bids.preproc.registration.transforms import resample_to


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _error(scene: Scene, found: np.ndarray) -> float:
    points = np.argwhere(scene.brain)[::50] @ scene.affine[:3, :3].T + scene.affine[:3, 3]
    apart = (found - scene.truth)[:3]
    return float(np.linalg.norm(points @ apart[:, :3].T + apart[:, 3], axis=1).mean())


@pytest.mark.parametrize("off", [[1, 1, -1], [3, -2, 2], [-2, 4, -3]])
def test_a_known_pose_is_found(scene: Scene, off: list[float]) -> None:
    start = scene.truth @ pose([0.5 * x for x in off], off)
    found = boundary.refine(scene.surface, scene.bold, scene.bold_affine, scene.bold_brain, start)
    assert _error(scene, start) > 1.5
    assert found is not None
    assert _error(scene, found) < 0.2
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-9)


def test_an_affine_and_a_field_are_found(scene: Scene) -> None:
    """Bent by a field of another kind than ours, and 5 % smaller: found to half a voxel."""

    def bend(points: np.ndarray) -> np.ndarray:
        return points + 3 * np.sin(points[:, [1, 2, 0]] / 30)

    squeeze = scene.truth @ np.diag([0.95, 1.0, 1.05, 1.0])
    image = np.where(scene.brain, 1.4 * scene.t1w.max() - scene.t1w, 0)
    image = ndimage.gaussian_filter(image, 0.7)
    shape = scene.bold.shape

    def back(world: np.ndarray) -> np.ndarray:
        target = _apply(np.linalg.inv(squeeze), world)
        found = target.copy()
        for _ in range(20):
            found += target - bend(found)
        return found

    bold = resample_to(image, scene.affine, shape, scene.bold_affine, back)
    brain = resample_to(scene.brain, scene.affine, shape, scene.bold_affine, back) > 0.5
    given = bold, scene.bold_affine, brain
    matrix = boundary.refine(scene.surface, *given, scene.truth, "affine")
    assert matrix is not None
    field = boundary.refine_field(scene.surface, *given, matrix)
    points = _apply(scene.affine, np.argwhere(scene.brain)[::50])
    wanted = _apply(squeeze, bend(points))

    def error(found: np.ndarray) -> float:
        seen = _apply(np.linalg.inv(scene.bold_affine), wanted)
        inside = ((seen >= 0) & (seen <= np.array(shape) - 1)).all(axis=1)
        return float(np.median(np.linalg.norm(found - wanted, axis=1)[inside]))

    assert error(_apply(scene.truth, points)) > 3.5
    linear = error(_apply(matrix, points))
    assert linear < 3.0
    assert error(_apply(matrix, points + field.displacement(points))) < min(0.75 * linear, 1.75)


def test_the_surface_lies_between_grey_and_white(scene: Scene) -> None:
    points, normals = scene.surface.points, scene.surface.normals
    assert len(points) == boundary.N_POINTS
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0)
    white = load_mni152_wm_template(resolution=2)
    share = [
        ndimage.map_coordinates(
            white.get_fdata(),
            np.linalg.solve(white.affine[:3, :3], (points + d * normals - white.affine[:3, 3]).T),
            order=1,
        ).mean()
        for d in (-2.0, 0.0, 2.0)
    ]
    assert share[0] > share[1] + 0.2 > share[2] + 0.4


def test_what_has_no_boundary_is_refused(scene: Scene) -> None:
    def refined(bold: np.ndarray, surface: boundary.Surface = scene.surface) -> np.ndarray | None:
        return boundary.refine(surface, bold, scene.bold_affine, scene.bold_brain, scene.truth)

    inside = scene.bold_brain
    t1w_like = np.where(inside, 2 * np.median(scene.bold[inside]) - scene.bold, 0)
    assert refined(ndimage.gaussian_filter(t1w_like, 0.5)) is None
    assert refined(np.zeros_like(scene.bold)) is None
    far = scene.truth.copy()
    far[:3, 3] += 400
    assert boundary.refine(scene.surface, scene.bold, scene.bold_affine, inside, far) is None
    flat = boundary.white_surface(np.ones_like(scene.t1w), scene.affine, scene.brain)
    assert refined(scene.bold, flat) is None
    none = boundary.white_surface(scene.t1w, scene.affine, np.zeros_like(scene.brain))
    assert refined(scene.bold, none) is None
