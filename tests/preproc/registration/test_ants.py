"""Registration: known transforms recovered, brains found, and images without one refused."""

import os
import time

# ITK reads it when its first filter is made
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

from pathlib import Path
from typing import Literal

import nibabel as nb
import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.registration import ants as registration
from brainlm_bids.preproc.registration import boundary

Head = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def head() -> Head:
    """The template that nilearn carries: T1w contrast, brain mask and affine at 4 mm."""
    image = load_mni152_template(resolution=4)
    mask = load_mni152_brain_mask(resolution=4).get_fdata() > 0.5
    return image.get_fdata().astype(np.float32), mask, image.affine


def _matrix(angles: list[float], shift: list[float], scale: float = 1.0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
    matrix[:3, 3] = shift
    return matrix


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _brain_points(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return _apply(affine, np.argwhere(mask))


def _moved(
    data: np.ndarray, affine: np.ndarray, matrix: np.ndarray, order: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The image after x_moving = matrix @ x_fixed, on an LAS grid of 4 mm, and its affine."""
    grid = np.diag([-4.0, 4.0, 4.0, 1.0])
    grid[:3, 3] = [100, -140, -90]
    pull = np.linalg.inv(matrix)
    return registration.resample_to(data, affine, (52, 62, 54), grid, pull, order), grid


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
    error = np.linalg.norm(_apply(found, points) - _apply(truth, points), axis=1)
    assert error.mean() <= 0.7
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)


def _registered(
    head: Head, image: np.ndarray, kind: Literal["T1w", "boldref"], path: Path
) -> np.ndarray:
    """Distances (P,), mm, to a known affine over the brain, of an image moved by it."""
    data, mask, affine = head
    truth = _matrix([5, 3, -4], [4, 10, -6], scale=1.06)
    moving, grid = _moved(image, affine, truth)
    moving_mask = _moved(mask, affine, truth, 0)[0] > 0.5
    registration.register_to_template(
        moving,
        grid,
        data,
        affine,
        moving_mask=moving_mask,
        template_mask=mask,
        out_file=path,
        seed=3,
        kind=kind,
    )
    # the file resamples the moving image into the template's space
    back = registration.resample_to(moving, grid, data.shape, affine, path)
    # less than 1, being interpolated twice at 4 mm
    assert np.corrcoef(back[mask], image[mask])[0, 1] > 0.8
    points = _brain_points(mask, affine)
    apart = registration.map_points(points, path) - _apply(truth, points)
    return np.linalg.norm(apart, axis=1)


def test_points_of_a_t1w_follow_a_known_affine(head: Head, tmp_path: Path) -> None:
    assert _registered(head, head[0], "T1w", tmp_path / "xfm.h5").mean() < 1.0


def test_points_of_a_boldref_follow_a_known_affine_and_repeat(head: Head, tmp_path: Path) -> None:
    data, mask, _ = head
    t2star = np.where(mask, 1.3 - data / data.max(), 0)
    files = [tmp_path / f"{name}_xfm.h5" for name in ("a", "b")]
    errors = [_registered(head, t2star, "boldref", path) for path in files]
    # at 4 mm the boundary is known to a quarter of a voxel
    assert errors[0].mean() < 1.0
    # the same seed and one thread: the same file
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_boldref_without_a_boundary_is_warped(
    head: Head, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """White matter is bright in it: the boundary is refused, mutual information takes over."""
    errors = _registered(head, head[0], "boldref", tmp_path / "xfm.h5")
    assert "no clear boundary" in caplog.text
    assert errors.mean() < 2.0


def test_a_field_and_an_affine_are_one_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    field = boundary.Field(rng.normal(0, 4, (9, 10, 9, 3)), np.array([-100.0, -130.0, -90.0]))
    matrix = _matrix([5, 3, -4], [4, 10, -6], scale=1.06)
    grid = np.diag([-2.0, 2.0, 2.0, 1.0])
    grid[:3, 3] = [90, -126, -72]
    path = registration._composite(
        matrix, *registration._sampled(field, (91, 109, 91), grid), str(tmp_path)
    )
    points = rng.uniform(-65, 65, (200, 3))
    expected = _apply(matrix, points + field.displacement(points))
    assert np.abs(field.displacement(points)).max() > 2
    np.testing.assert_allclose(registration.map_points(points, path), expected, atol=0.15)


def test_resampling_by_matrix_and_function_agree_with_closed_form() -> None:
    affine = np.diag([-2.0, 3.0, 2.5, 1.0])
    affine[:3, 3] = [20, -30, -10]
    ramp = (np.indices((20, 20, 20)).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]) @ [
        1,
        2,
        3,
    ]
    reference = np.eye(4)
    pull = _matrix([3, 5, 7], [1.0, 2.0, 3.0])
    out = registration.resample_to(ramp.reshape(20, 20, 20), affine, (5, 6, 7), reference, pull)
    points = np.indices((5, 6, 7)).reshape(3, -1).T
    np.testing.assert_allclose(out.ravel(), _apply(pull, points) @ [1, 2, 3], rtol=1e-4, atol=1e-3)
    called = registration.resample_to(
        ramp.reshape(20, 20, 20), affine, (5, 6, 7), reference, lambda p: _apply(pull, p)
    )
    np.testing.assert_array_equal(out, called)


def test_slabs_do_not_matter(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _, affine = head
    pull = _matrix([3, 5, 7], [1.0, 2.0, 3.0])
    whole = registration.resample_to(data, affine, (40, 40, 40), affine, pull, 3)
    monkeypatch.setattr(registration, "SLAB_POINTS", 4000)
    slabs = registration.resample_to(data, affine, (40, 40, 40), affine, pull, 3)
    np.testing.assert_array_equal(whole, slabs)


@pytest.mark.parametrize("size", [4, 24, 48])
@pytest.mark.parametrize("kind", ["constant", "nan", "noise", "offset", "smooth"])
def test_images_without_a_brain_are_refused(kind: str, size: int) -> None:
    shape = (size, size, size)
    rng = np.random.default_rng(0)
    data = {
        "constant": np.full(shape, 7.0),
        "nan": np.full(shape, np.nan),
        "noise": np.abs(rng.normal(size=shape)),
        "offset": 100 + rng.normal(size=shape),
        "smooth": 10 + ndimage.gaussian_filter(rng.normal(size=shape), 2),
    }[kind]
    with pytest.raises(UserError, match="no brain found"):
        registration.brain_mask_epi(data, np.diag([3.0, 3.0, 3.0, 1.0]))


def test_brain_of_an_epi_like_image(head: Head) -> None:
    data, mask, affine = head
    rng = np.random.default_rng(0)
    image = np.where(mask, 1.3 - data / data.max(), 0) + np.abs(rng.normal(0, 0.03, mask.shape))
    image[0, 0, 0] = np.nan
    found = registration.brain_mask_epi(image, affine)
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.95


def test_a_stripped_brain_is_recognised_and_a_head_is_not(head: Head) -> None:
    data, mask, affine = head
    stripped = np.where(mask, data, 0)
    stripped[24, 30, 24] = 0
    found, method = registration.brain_mask_t1w(stripped, affine)
    assert method == "skull-stripped"
    assert found[24, 30, 24]
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.99
    skin = ndimage.binary_dilation(mask, iterations=4)
    assert registration._stripped_brain(np.where(skin, 1 + data, 0), affine) is None
    assert registration._stripped_brain(data + 1, affine) is None


def test_without_the_network_a_threshold_is_used(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, mask, affine = head

    def fail(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
        raise RuntimeError("no weights")

    monkeypatch.setattr(registration, "_deepbet", fail)
    image = np.where(mask, data, 0.01 * data.max())
    found, method = registration.brain_mask_t1w(image, affine)
    assert method == "threshold"
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.9


def test_bias_field_is_removed(head: Head) -> None:
    data, mask, affine = head[0][::2, ::2, ::2], head[1][::2, ::2, ::2], head[2].copy()
    affine[:3, :3] *= 2
    # two tissues only, so that what varies within one is the field
    tissue = np.where(mask, np.where(data > np.median(data[mask]), 1.0, 0.6), 0)
    ramp = np.linspace(0.6, 1.4, mask.shape[1])[:, None]
    corrected = registration.bias_correct(tissue * ramp, affine, mask)
    white = tissue == 1.0
    before = (tissue * ramp)[white]
    after = corrected[white]
    assert corrected.dtype == np.float32
    assert after.std() / after.mean() < 0.4 * before.std() / before.mean()


def test_a_stored_transform_maps_as_before_and_is_small(tmp_path: Path) -> None:
    grid = np.diag([4.0, 4, 4, 1])
    grid[:3, 3] = [-80, -100, -60]
    wave = 3 * np.sin(np.indices((40, 48, 36)) / 6)  # mm
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([0.1, -0.05, 0.2]).as_matrix()
    matrix[:3, 3] = [1, -2, 3]
    made = registration._composite(matrix, np.moveaxis(wave, 0, -1), grid, str(tmp_path))
    files = [tmp_path / name for name in ("first.h5", "second.h5")]
    for file in files:
        registration._store(made, file)
        time.sleep(1.1)  # HDF5 counts seconds
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_size < made.stat().st_size / 4
    index = np.random.default_rng(0).integers(0, (40, 48, 36), (500, 3))
    points = index * 4.0 + grid[:3, 3]
    moved = points + wave[:, *index.T].T
    expected = moved @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(registration.map_points(points, files[0]), expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_brain_meets_the_template(shared: Path, tmp_path: Path) -> None:
    def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
        image = nb.Nifti1Image.from_filename(path)
        return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine)

    folder = shared / "templateflow" / "tpl-MNI152NLin6Asym"
    template, affine = load(folder / "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz")
    name = "tpl-MNI152NLin6Asym_res-02_desc-brain_mask.nii.gz"
    template_mask = load(folder / name)[0] > 0.5
    data, t1w_affine = load(shared / "data/studyforrest/sub-02/anat/sub-02_T1w.nii.gz")
    mask, method = registration.brain_mask_t1w(data, t1w_affine)
    assert method == "deepbet"
    transform = registration.register_to_template(
        data,
        t1w_affine,
        template,
        affine,
        moving_mask=mask,
        template_mask=template_mask,
        out_file=tmp_path / "xfm.h5",
        seed=1,
    )
    warped = registration.resample_to(mask, t1w_affine, template.shape, affine, transform) > 0.5
    assert 2 * (warped & template_mask).sum() / (warped.sum() + template_mask.sum()) > 0.93
