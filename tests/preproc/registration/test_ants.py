"""Registration: known transforms are recovered."""

from pathlib import Path
from typing import Literal

import nibabel as nb
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from brainlm_bids.preproc.affine import apply
from brainlm_bids.preproc.registration import ants as registration
from brainlm_bids.preproc.registration import boundary, brain, transforms

Head = tuple[np.ndarray, np.ndarray, np.ndarray]


def _matrix(angles: list[float], shift: list[float], scale: float = 1.0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
    matrix[:3, 3] = shift
    return matrix


def _brain_points(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return apply(affine, np.argwhere(mask))


def _moved(
    data: np.ndarray, affine: np.ndarray, matrix: np.ndarray, order: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The image after x_moving = matrix @ x_fixed, on an LAS grid of 4 mm, and its affine."""
    grid = np.diag([-4.0, 4.0, 4.0, 1.0])
    grid[:3, 3] = [100, -140, -90]
    pull = np.linalg.inv(matrix)
    return transforms.resample_to(data, affine, (52, 62, 54), grid, pull, order), grid


@pytest.mark.parametrize("slices", [slice(None), slice(20, 48)], ids=["whole", "partial"])
def test_rigid_is_recovered_across_contrasts(head: Head, slices: slice) -> None:
    data, mask, affine = head
    truth = _matrix([4, -3, 5], [6, -8, 5])
    # grey matter brighter than white, CSF brightest, as in T2*
    t2 = np.where(mask, 1.3 - data / data.max(), 0)
    moving, grid = _moved(t2, affine, truth)
    moving_mask = _moved(mask, affine, truth, 0)[0] > 0.5
    moving += np.abs(np.random.default_rng(0).normal(0, 0.02, moving.shape))
    grid = grid.copy()
    grid[:3, 3] += grid[:3, 2] * (slices.start or 0)
    found = registration.register_rigid(
        data,
        affine,
        moving[:, :, slices],
        grid,
        fixed_mask=mask,
        moving_mask=moving_mask[:, :, slices],
        seed=1,
    )
    points = _brain_points(mask, affine)
    error = np.linalg.norm(apply(found, points) - apply(truth, points), axis=1)
    assert error.mean() <= 0.7
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)


def _registered(
    head: Head, image: np.ndarray, kind: Literal["T1w", "boldref"]
) -> tuple[np.ndarray, transforms.ItkTransform]:
    """Distances (P,), mm, to a known affine over the brain, of an image moved by it."""
    data, mask, affine = head
    truth = _matrix([5, 3, -4], [4, 10, -6], scale=1.06)
    moving, grid = _moved(image, affine, truth)
    moving_mask = _moved(mask, affine, truth, 0)[0] > 0.5
    transform = registration.register_to_template(
        moving,
        grid,
        data,
        affine,
        moving_mask=moving_mask,
        template_mask=mask,
        seed=3,
        kind=kind,
    )
    # it resamples the moving image into the template's space
    back = transforms.resample_to(moving, grid, data.shape, affine, transform)
    # less than 1, being interpolated twice at 4 mm
    assert np.corrcoef(back[mask], image[mask])[0, 1] > 0.8
    points = _brain_points(mask, affine)
    return np.linalg.norm(transform(points) - apply(truth, points), axis=1), transform


def test_points_of_a_t1w_follow_a_known_affine(head: Head) -> None:
    assert _registered(head, head[0], "T1w")[0].mean() < 1.0


def test_points_of_a_boldref_follow_a_known_affine_and_repeat(head: Head) -> None:
    data, mask, _ = head
    t2star = np.where(mask, 1.3 - data / data.max(), 0)
    (errors, first), (_, second) = (_registered(head, t2star, "boldref") for _ in range(2))
    # at 4 mm the boundary is known to a quarter of a voxel
    assert errors.mean() < 1.0
    # the same seed and one thread: the same bytes
    assert first == second


def test_a_boldref_without_a_boundary_is_warped(
    head: Head, caplog: pytest.LogCaptureFixture
) -> None:
    """White matter is bright in it: the boundary is refused, mutual information takes over."""
    errors, _ = _registered(head, head[0], "boldref")
    assert "no clear boundary" in caplog.text
    assert errors.mean() < 2.0


def test_a_field_and_an_affine_are_one_transform() -> None:
    rng = np.random.default_rng(0)
    field = boundary.Field(rng.normal(0, 4, (9, 10, 9, 3)), np.array([-100.0, -130.0, -90.0]))
    matrix = _matrix([5, 3, -4], [4, 10, -6], scale=1.06)
    grid = np.diag([-2.0, 2.0, 2.0, 1.0])
    grid[:3, 3] = [90, -126, -72]
    sampled = registration._sampled(field, (91, 109, 91), grid)
    transform = transforms.ItkTransform.from_field(matrix, *sampled)
    points = rng.uniform(-65, 65, (200, 3))
    expected = apply(matrix, points + field.displacement(points))
    assert np.abs(field.displacement(points)).max() > 2
    np.testing.assert_allclose(transform(points), expected, atol=0.15)


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_brain_meets_the_template(shared: Path) -> None:
    def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
        image = nb.Nifti1Image.from_filename(path)
        return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine)

    folder = shared / "templateflow" / "tpl-MNI152NLin6Asym"
    template, affine = load(folder / "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz")
    name = "tpl-MNI152NLin6Asym_res-02_desc-brain_mask.nii.gz"
    template_mask = load(folder / name)[0] > 0.5
    data, t1w_affine = load(shared / "data/studyforrest/sub-02/anat/sub-02_T1w.nii.gz")
    mask, method = brain.brain_mask_t1w(data, t1w_affine)
    assert method == "deepbet"
    transform = registration.register_to_template(
        data,
        t1w_affine,
        template,
        affine,
        moving_mask=mask,
        template_mask=template_mask,
        seed=1,
    )
    warped = transforms.resample_to(mask, t1w_affine, template.shape, affine, transform) > 0.5
    assert 2 * (warped & template_mask).sum() / (warped.sum() + template_mask.sum()) > 0.93
