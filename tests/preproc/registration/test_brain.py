"""Brains found, images without one refused, a bias field removed."""

import numpy as np
import pytest
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.registration import brain

Head = tuple[np.ndarray, np.ndarray, np.ndarray]


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
        brain.brain_mask_epi(data, np.diag([3.0, 3.0, 3.0, 1.0]))


def test_brain_of_an_epi_like_image(head: Head) -> None:
    data, mask, affine = head
    rng = np.random.default_rng(0)
    image = np.where(mask, 1.3 - data / data.max(), 0) + np.abs(rng.normal(0, 0.03, mask.shape))
    image[0, 0, 0] = np.nan
    found = brain.brain_mask_epi(image, affine)
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.95


def test_a_stripped_brain_is_recognised_and_a_head_is_not(head: Head) -> None:
    data, mask, affine = head
    stripped = np.where(mask, data, 0)
    stripped[24, 30, 24] = 0
    found, method = brain.brain_mask_t1w(stripped, affine)
    assert method == "skull-stripped"
    assert found[24, 30, 24]
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.99
    skin = ndimage.binary_dilation(mask, iterations=4)
    assert brain._stripped_brain(np.where(skin, 1 + data, 0), affine) is None
    assert brain._stripped_brain(data + 1, affine) is None


@pytest.mark.parametrize("scale", [0.6, 0.72, 1.0])
def test_a_small_head_in_empty_air_is_no_brain(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An infant's head, whose air is 0, has the volume of an adult's brain without its skull."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    away = np.linalg.norm(3 * (np.indices((70, 70, 70)) - 34.5), axis=0) / scale
    inside, fluid = away < 66, (away > 61) & (away < 66)
    image = np.where(inside, np.where(fluid, 10.0, 100.0), 0) + 1.0 * inside
    skin = (away > 74) & (away < 84)
    head = np.where(skin, 95.0, np.where(away < 84, np.maximum(image, 4.0), 0))
    monkeypatch.setattr(brain, "_deepbet", lambda *_: inside)
    found, method = brain.brain_mask_t1w(head, affine)
    assert method == "deepbet"
    np.testing.assert_array_equal(found, inside)
    # dark fluid is no bone, whatever the network makes of it
    for seen in (away < 60, away < 20):
        monkeypatch.setattr(brain, "_deepbet", lambda *_, seen=seen: seen)
        found, method = brain.brain_mask_t1w(image, affine)
        assert method == "skull-stripped"
        np.testing.assert_array_equal(found, inside)


def test_without_the_network_a_threshold_is_used(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, mask, affine = head

    def fail(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
        raise RuntimeError("no weights")

    monkeypatch.setattr(brain, "_deepbet", fail)
    image = np.where(mask, data, 0.01 * data.max())
    found, method = brain.brain_mask_t1w(image, affine)
    assert method == "threshold"
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.9


@pytest.mark.parametrize("offset", [0.0, 1000.0, -300.0])
def test_a_constant_changes_neither_brain_nor_intensities(
    head: Head, monkeypatch: pytest.MonkeyPatch, offset: float
) -> None:
    data, mask, affine = head
    seen = []

    def stub(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
        seen.append(data)
        return mask

    monkeypatch.setattr(brain, "_deepbet", stub)
    # with a skull, so that it is no stripped brain
    image = (600 * data / data.max() + 200 * ndimage.binary_dilation(mask, iterations=4)).round()
    image *= np.linspace(0.8, 1.2, image.shape[1])[:, None]
    plain = steps.prepare_t1w(image, affine)
    shifted = steps.prepare_t1w(image + offset, affine)
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-3)
    np.testing.assert_array_equal(shifted.brain_mask, plain.brain_mask)
    np.testing.assert_allclose(shifted.t1w, plain.t1w, atol=0.1)


def test_bias_field_is_removed(head: Head) -> None:
    data, mask, affine = head[0][::2, ::2, ::2], head[1][::2, ::2, ::2], head[2].copy()
    affine[:3, :3] *= 2
    # two tissues only, so that what varies within one is the field
    tissue = np.where(mask, np.where(data > np.median(data[mask]), 1.0, 0.6), 0)
    ramp = np.linspace(0.6, 1.4, mask.shape[1])[:, None]
    corrected = brain.bias_correct(tissue * ramp, affine, mask)
    white = tissue == 1.0
    before = (tissue * ramp)[white]
    after = corrected[white]
    assert corrected.dtype == np.float32
    assert after.std() / after.mean() < 0.4 * before.std() / before.mean()
