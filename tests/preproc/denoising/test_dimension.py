"""The number of components, against planted sources and the criterion's definition."""

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.planted import brain, slow, smooth
from brainlm_bids.preproc.denoising import dimension


@pytest.mark.parametrize(("n_sources", "seed"), [(1, 0), (4, 1), (12, 2), (25, 3)])
@pytest.mark.parametrize("coloured", [0.0, 0.4])
def test_dimension_is_the_number_of_planted_sources(
    n_sources: int, seed: int, coloured: float
) -> None:
    rng = np.random.default_rng(seed)
    mask = brain()["mask"]
    noise = smooth(rng, 120, mask)
    if coloured:
        noise = ndimage.gaussian_filter1d(noise, coloured, axis=0)
    sources = smooth(rng, n_sources, mask, 2.0)
    sources = np.sign(sources) * np.maximum(np.abs(sources) - 1.0, 0.0)
    courses = np.stack([slow(rng, 120) for _ in range(n_sources)], axis=1)
    series = noise + 2.0 * courses @ sources
    samples = dimension.effective_samples(series, mask)
    assert abs(dimension.estimate_dimension(series, n_effective=samples) - n_sources) <= 1
    assert dimension.estimate_dimension(series, cap=3, n_effective=samples) <= 3


def test_effective_samples_follow_the_smoothness() -> None:
    rng = np.random.default_rng(0)
    mask = brain()["mask"]
    for sigma in (0.8, 1.0):
        expected = mask.sum() / (2.5 * (sigma * np.sqrt(8 * np.log(2))) ** 3)
        found = dimension.effective_samples(smooth(rng, 40, mask, sigma), mask)
        # the kernel is sampled at whole voxels, and a third of the noise goes with the signal
        assert found == pytest.approx(expected, rel=0.25)
    white = rng.standard_normal((40, mask.sum()))
    assert 0.9 * mask.sum() < dimension.effective_samples(white, mask) <= mask.sum()
    with pytest.raises(ValueError, match="voxels in the mask"):
        dimension.effective_samples(white[:, 1:], mask)


def test_minimum_description_length_equals_its_definition() -> None:
    rng = np.random.default_rng(3)
    values = np.sort(rng.gamma(30.0, 1 / 30, 40))[::-1] + np.r_[6.0, 3.0, 1.5, np.zeros(37)]
    n = 500

    def length(k: int) -> float:
        tail = values[k:]
        geometric = np.exp(np.mean(np.log(tail)))
        free = k * (2 * 40 - k + 1) / 2
        return -n / 2 * tail.size * np.log(geometric / tail.mean()) + 0.5 * free * np.log(n)

    best = min(range(1, 39), key=length)
    assert dimension.dimension_from_eigenvalues(values, n, 38) == best
    # eigenvalues that a filter has removed do not count
    assert dimension.dimension_from_eigenvalues(np.r_[values, 1e-9, 0.0], n, 38) == best


def test_caps() -> None:
    assert [dimension.default_cap(n) for n in (2, 60, 156, 490)] == [1, 20, 52, 70]
