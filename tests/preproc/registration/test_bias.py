"""Bias fields that are known, and those of ITK's filter."""

import numpy as np
import pytest

from brainlm_bids.preproc.registration import bias
from brainlm_bids.preproc.registration.transforms import to_ants

Head = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def tissues(head: Head) -> tuple[np.ndarray, np.ndarray]:
    """A brain of three tissues with a little noise, and its mask."""
    data, mask = head[0], head[1]
    levels = np.percentile(data[mask], [25, 60])
    image = np.array([40.0, 70.0, 100.0])[np.digitize(data, levels)]
    image *= 1 + 0.02 * np.random.default_rng(0).standard_normal(data.shape)
    return np.where(mask, image, 0), mask


def _smooth(shape: tuple[int, ...]) -> np.ndarray:
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return np.asarray(0.3 * y - 0.2 * x * y + 0.2 * z**2)


def _off(found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    return float((found - truth)[mask].std())


@pytest.mark.parametrize("step", [1, 2])
def test_a_known_field_is_found(tissues: tuple[np.ndarray, np.ndarray], step: int) -> None:
    image, mask = tissues
    truth = _smooth(mask.shape)
    found = bias.log_field(image * np.exp(truth), mask, step)
    assert found.dtype == np.float32
    assert _off(found, truth, mask) < 0.12 * truth[mask].std()


def test_the_field_is_that_of_itk(
    tissues: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ants

    monkeypatch.setattr(bias, "ITERATIONS", (30, 30, 30))
    image, mask = tissues
    shaded = image * np.exp(_smooth(mask.shape))
    theirs = ants.n4_bias_field_correction(
        to_ants(shaded, np.eye(4)),
        mask=to_ants(mask, np.eye(4)),
        shrink_factor=2,
        convergence={"iters": [30, 30, 30], "tol": 1e-5},
        return_bias_field=True,
    ).numpy()
    found = bias.log_field(shaded, mask, 2)
    assert _off(found, np.log(theirs), mask) < 0.01
    assert abs(float(np.median((found - np.log(theirs))[mask]))) < 0.02


def test_units_do_not_matter(tissues: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = tissues
    shaded = image * np.exp(_smooth(mask.shape))
    shapes = [bias.log_field(factor * shaded, mask, 3) for factor in (1e-6, 1.0, 1e6)]
    for one in shapes:
        assert _off(one - one[mask].mean(), shapes[1] - shapes[1][mask].mean(), mask) < 1e-3


@pytest.mark.parametrize("values", [0.0, 7.0, -3.0])
def test_nothing_is_found_where_nothing_is(values: float) -> None:
    image = np.full((6, 5, 1), values)
    assert not bias.log_field(image, np.ones(image.shape, bool), 2).any()
    assert not bias.log_field(image + 1, np.zeros(image.shape, bool), 2).any()
