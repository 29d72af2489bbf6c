"""Transforms applied and stored, against closed forms."""

import time
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.affine import apply, invert
from brainlm_bids.preproc.registration import transforms

Head = tuple[np.ndarray, np.ndarray, np.ndarray]


def _matrix(angles: list[float], shift: list[float], scale: float = 1.0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
    matrix[:3, 3] = shift
    return matrix


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
    out = transforms.resample_to(ramp.reshape(20, 20, 20), affine, (5, 6, 7), reference, pull)
    points = np.indices((5, 6, 7)).reshape(3, -1).T
    np.testing.assert_allclose(out.ravel(), apply(pull, points) @ [1, 2, 3], rtol=1e-4, atol=1e-3)
    called = transforms.resample_to(
        ramp.reshape(20, 20, 20), affine, (5, 6, 7), reference, lambda p: apply(pull, p)
    )
    np.testing.assert_array_equal(out, called)


def test_slabs_do_not_matter(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _, affine = head
    pull = _matrix([3, 5, 7], [1.0, 2.0, 3.0])
    whole = transforms.resample_to(data, affine, (40, 40, 40), affine, pull, 3)
    monkeypatch.setattr(transforms, "SLAB_POINTS", 4000)
    slabs = transforms.resample_to(data, affine, (40, 40, 40), affine, pull, 3)
    np.testing.assert_array_equal(whole, slabs)


def test_a_field_is_stored_small_and_repeats() -> None:
    grid = np.diag([4.0, 4, 4, 1])
    grid[:3, 3] = [-80, -100, -60]
    wave = 3 * np.sin(np.indices((40, 48, 36)) / 6)  # mm
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([0.1, -0.05, 0.2]).as_matrix()
    matrix[:3, 3] = [1, -2, 3]
    made = []
    for _ in range(2):
        made.append(transforms.ItkTransform.from_field(matrix, np.moveaxis(wave, 0, -1), grid))
        time.sleep(1.1)  # HDF5 counts seconds
    assert made[0] == made[1]
    assert len(made[0].content) < wave.size * 4 / 4
    index = np.random.default_rng(0).integers(0, (40, 48, 36), (500, 3))
    moved = index * 4.0 + grid[:3, 3] + wave[:, *index.T].T
    found = made[0](index * 4.0 + grid[:3, 3])
    np.testing.assert_allclose(found, apply(matrix, moved), atol=1e-3)


def test_a_matrix_survives_the_way_through_itk(tmp_path: Path) -> None:
    matrix = _matrix([3, 5, 7], [1.0, 2.0, 3.0])
    path = tmp_path / "matrix.txt"
    path.write_bytes(transforms.ItkTransform.from_matrix(matrix).content)
    found = transforms.ItkTransform.from_file(path)
    np.testing.assert_allclose(found.matrix(), matrix, atol=1e-12)
    np.testing.assert_allclose(found.rigid(), matrix, atol=1e-12)
    points = np.random.default_rng(0).uniform(-90, 90, (50, 3))
    np.testing.assert_allclose(found(points), apply(matrix, points), atol=1e-5)
    there_and_back = transforms.Chain((found, invert(matrix)))
    np.testing.assert_allclose(there_and_back(points), points, atol=1e-5)
    assert found(np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("keep", [0, 8, 600, -100])
def test_a_damaged_transform_is_refused_before_itk_reads_it(tmp_path: Path, keep: int) -> None:
    """ITK ends the process for some of these."""
    field = np.random.default_rng(0).normal(size=(6, 6, 6, 3))
    whole = {
        "warp.h5": transforms.ItkTransform.from_field(np.eye(4), field, np.diag([4.0, 4, 4, 1])),
        "affine.txt": transforms.ItkTransform.from_matrix(np.eye(4)),
    }
    for name, transform in whole.items():
        path = tmp_path / name
        path.write_bytes(transform.content)
        assert transforms.ItkTransform.from_file(path) == transform
        if name == "affine.txt" and keep:
            path.write_bytes(b"x" + transform.content)
        else:
            path.write_bytes(transform.content[:keep])
        with pytest.raises(UserError, match=rf"{name}: is not a transform as ITK writes it"):
            transforms.ItkTransform.from_file(path)
