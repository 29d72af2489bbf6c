"""The non-linear registration: known warps found, nothing made of nothing, no folds."""

import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage

from brainlm_bids.preproc.registration import diffeomorphic

Brain = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def brain() -> Brain:
    """The brain that nilearn carries, at 4 mm, and where it is."""
    mask = load_mni152_brain_mask(resolution=4).get_fdata() > 0.5
    data = np.where(mask, load_mni152_template(resolution=4).get_fdata(), 0)
    return data.astype(np.float32), ndimage.binary_dilation(mask, iterations=2)


def _smooth_field(shape: tuple[int, ...], seed: int, largest: float) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((3, *shape))
    field = np.stack([ndimage.gaussian_filter(n, 8, mode="wrap") for n in noise])
    return field * largest / np.abs(field).max()


def _warped(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(image, np.indices(image.shape) + field, order=3)


def _inverse(field: np.ndarray) -> np.ndarray:
    grid, inverse = np.indices(field.shape[1:]), -field
    for _ in range(50):
        inverse = -np.stack(
            [ndimage.map_coordinates(u, grid + inverse, order=3, mode="nearest") for u in field]
        )
    return inverse


def test_a_known_smooth_warp_is_found_whatever_the_units(brain: Brain) -> None:
    image, where = brain
    truth = _smooth_field(image.shape, seed=3, largest=2.0)
    # image(x) = moving(x + truth(x))
    moving = _warped(image, _inverse(truth))
    found = diffeomorphic.register(image, 370 * moving, where)
    error = np.linalg.norm(found - truth, axis=0)[image > 0]
    assert np.median(np.linalg.norm(truth, axis=0)[image > 0]) > 0.6
    assert np.median(error) < 0.2
    assert np.percentile(error, 95) < 0.5
    assert diffeomorphic.jacobian(found).min() > 0
    # the way back, found by itself, undoes the way there
    back = diffeomorphic.register(moving, image, where)
    there = np.indices(image.shape) + found
    again = there + np.stack([ndimage.map_coordinates(b, there, order=1) for b in back])
    apart = np.linalg.norm(again - np.indices(image.shape), axis=0)[image > 0]
    assert np.median(apart) < 0.15


def test_the_same_image_stays_where_it_is_and_repeats(brain: Brain) -> None:
    image, where = brain
    assert np.abs(diffeomorphic.register(image, image, where)).max() < 0.01
    moving = _warped(image, _smooth_field(image.shape, seed=1, largest=1.0))
    first, second = (diffeomorphic.register(image, moving, where) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_unlike_images_do_not_fold(brain: Brain) -> None:
    image, where = brain
    other = np.random.default_rng(0).standard_normal(image.shape)
    found = diffeomorphic.register(image, ndimage.gaussian_filter(other, 1.5), where)
    assert diffeomorphic.jacobian(found).min() > 0
    flat = diffeomorphic.register(image, np.zeros_like(image), where)
    np.testing.assert_allclose(flat, 0, atol=1e-6)


def test_jacobian_of_a_known_map() -> None:
    x, y, z = np.indices((8, 9, 10), dtype=np.float32)
    determinant = diffeomorphic.jacobian(np.stack([0.5 * x, -0.25 * y + x, 0 * z]))
    np.testing.assert_allclose(determinant, 1.5 * 0.75, rtol=1e-5)
    assert diffeomorphic.jacobian(np.stack([-2 * x, 0 * y, 0 * z])).max() < 0
