"""Spatial ICA, against planted components, closed forms and a real run."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, stats

from benchmarks.planted import brain, plant, slow
from brainlm_bids.preproc.denoising import aroma, dimension, ica, mixture


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|r| of the columns of a with those of b."""
    return np.abs(np.corrcoef(a.T, b.T)[: a.shape[1], a.shape[1] :])


@pytest.mark.parametrize("seed", range(10))
def test_planted_components_are_found_and_classified(seed: int) -> None:
    series, courses, maps, parameters = plant(seed)
    masks = brain()
    inside = masks["mask"]
    samples = dimension.effective_samples(series, inside)
    n_components = dimension.estimate_dimension(series, n_effective=samples)
    assert 7 <= n_components <= 8

    result = ica.spatial_ica(series, n_components, seed)
    assert result.converged
    assert result.n_starts == 1
    kept = mixture.threshold_maps(result.maps)
    edge_fract, csf_fract = aroma.edge_csf_fractions(
        kept, masks["csf"][inside], masks["edge"][inside], masks["out"][inside]
    )
    noise, reasons = aroma.classify(
        aroma.max_rp_corr(result.mixing, parameters, seed),
        edge_fract,
        csf_fract,
        aroma.high_frequency_content(result.mixing, 2.0),
    )
    in_time = correlation(courses, result.mixing)
    found = in_time.argmax(axis=1)
    assert len(set(found)) == 7
    assert in_time.max(axis=1).min() > 0.9
    assert correlation(maps.T, result.maps[found].T).diagonal().min() > 0.6
    np.testing.assert_array_equal(noise[found], [True] * 3 + [False] * 4)
    assert "motion and edge" in reasons[found[0]]
    assert "csf_fract" in reasons[found[1]]
    assert reasons[found[2]].startswith("HFC")
    assert {reasons[i] for i in found[3:]} == {"below every threshold"}

    cleaned = aroma.removal_matrix(result.mixing, noise, "nonaggr") @ series
    left = [np.abs(ols(courses, cleaned)[i] @ maps[i]) for i in range(7)]
    before = [np.abs(ols(courses, series)[i] @ maps[i]) for i in range(7)]
    share = np.array(left) / np.array(before)
    assert (share[:3] < 0.1).all()
    assert (share[3:] > 0.9).all()


def ols(design: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Regression coefficients of demeaned data on demeaned columns."""
    return np.linalg.lstsq(design - design.mean(0), data - data.mean(0), rcond=None)[0]


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, ica.Components]:
    series, *_ = plant(3)
    return series, ica.spatial_ica(series, 7, 42)


def test_components_are_ordered_signed_and_repeatable(
    planted: tuple[np.ndarray, ica.Components],
) -> None:
    series, first = planted
    assert first.mixing.shape == (150, 7)
    assert first.maps.shape == (7, series.shape[1])
    assert first.maps.dtype == np.float32
    assert (np.diff(first.explained_variance) <= 0).all()
    assert 0.1 < first.explained_variance.sum() < 1
    assert (stats.skew(first.maps, axis=1) > 0).all()
    np.testing.assert_allclose(first.mixing.mean(axis=0), 0, atol=1e-10)
    again = ica.spatial_ica(series, 7, 42)
    assert again.mixing.tobytes() == first.mixing.tobytes()
    assert again.maps.tobytes() == first.maps.tobytes()
    other = ica.spatial_ica(series, 7, 43)
    assert correlation(first.mixing, other.mixing).max(axis=1).min() > 0.999


def test_maps_are_regression_z_scores(planted: tuple[np.ndarray, ica.Components]) -> None:
    series, result = planted
    x = ica.normalise_variance(series).astype(np.float64)
    design = np.column_stack([np.ones(150), result.mixing])
    inverse = np.linalg.inv(design.T @ design)
    for voxel in (0, 1234, 9000):
        beta = inverse @ design.T @ x[:, voxel]
        residual = x[:, voxel] - design @ beta
        variance = residual @ residual / (150 - 8)
        z = beta / np.sqrt(variance * np.diag(inverse))
        np.testing.assert_allclose(result.maps[:, voxel], z[1:], rtol=2e-3, atol=2e-3)


def test_explained_variance_is_that_of_the_fit(planted: tuple[np.ndarray, ica.Components]) -> None:
    series, result = planted
    x = ica.normalise_variance(series).astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    residual = x - result.mixing @ ols(result.mixing, x)
    expected = 1 - np.sum(residual**2) / np.sum(x**2)
    assert result.explained_variance.sum() == pytest.approx(expected, rel=0.02)


def test_noise_is_normalised_and_structure_is_not() -> None:
    rng = np.random.default_rng(0)
    course = slow(rng, 100)
    gain = rng.uniform(1, 100, 3000)
    amplitude = np.where(np.arange(3000) < 200, 20.0, 0.0)
    series = gain * (rng.standard_normal((100, 3000)) + course[:, None] * amplitude)
    series[:, -2:] = 7.0, np.nan
    x = ica.normalise_variance(series)
    deviation = x.std(axis=0)
    np.testing.assert_array_equal(deviation[-2:], 0)
    assert np.median(deviation[:200]) > 10 * np.median(deviation[200:-2])
    assert np.ptp(deviation[200:-2]) < 0.5 * np.median(deviation[200:-2])


def test_failed_starts_are_counted(planted: tuple[np.ndarray, ica.Components]) -> None:
    series, converged = planted
    result = ica.spatial_ica(series, 7, 42, max_iter=2, max_starts=3)
    assert not result.converged
    assert (result.n_starts, result.n_iter) == (3, 2)
    assert result.mixing.shape == converged.mixing.shape
    assert np.isfinite(result.maps).all()


def test_impossible_numbers_of_components() -> None:
    rng = np.random.default_rng(0)
    series = rng.standard_normal((20, 500))
    for impossible in (0, 20):
        with pytest.raises(ValueError, match="components"):
            ica.spatial_ica(series, impossible, 0)
    flat = rng.standard_normal((20, 2)) @ rng.standard_normal((2, 500))
    with pytest.raises(ValueError, match="independent time courses"):
        ica.spatial_ica(flat, 5, 0)


@pytest.mark.shared
def test_the_task_is_a_component_of_a_real_run(shared: Path) -> None:
    nib = pytest.importorskip("nibabel")
    func = shared / "data/studyforrest/sub-02/func"
    name = "sub-02_task-objectcategories_run-1"
    image = nib.load(func / f"{name}_bold.nii.gz")
    bold = image.get_fdata(dtype=np.float32)
    mean = bold.mean(axis=-1)
    mask = ndimage.binary_opening(mean > 0.3 * np.percentile(mean, 98), iterations=2)
    sigma = 6 / np.sqrt(8 * np.log(2)) / np.array(image.header.get_zooms()[:3])
    series = np.stack(
        [ndimage.gaussian_filter(bold[..., t], sigma, truncate=3)[mask] for t in range(156)]
    )
    del bold
    trend = np.vander(np.linspace(-1, 1, 156), 4)
    series -= (trend[:, :3] @ ols(trend[:, :3], series)).astype(np.float32)
    samples = dimension.effective_samples(series, mask)
    n_components = dimension.estimate_dimension(series, n_effective=samples)
    assert 15 <= n_components < 52
    result = ica.spatial_ica(series, n_components, 42)
    assert result.converged

    lines = (func / f"{name}_events.tsv").read_text().splitlines()
    onsets = np.array([float(line.split("\t")[0]) for line in lines[1:]])
    boxcar = np.zeros(156)
    boxcar[(onsets // 2.0).astype(int)] = 1.0
    delayed = ndimage.gaussian_filter1d(np.roll(boxcar, 3), 1.5)
    best = correlation(delayed[:, None], result.mixing)[0]
    assert best.max() > 0.7
    assert aroma.high_frequency_content(result.mixing, 2.0)[best.argmax()] < 0.25
