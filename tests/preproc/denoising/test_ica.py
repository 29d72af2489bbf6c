"""ICA-AROMA against planted components, closed forms, slow loops and ica-aroma-py."""

import random
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage, stats

from benchmarks import denoising, simulator
from benchmarks.planted import brain, motion, plant, slow, smooth
from brainlm_bids.interfaces.derivatives import WriteFunctional
from brainlm_bids.preproc.denoising import ica


@pytest.fixture(scope="module")
def aroma() -> Any:
    """The functions of ica-aroma-py, a port of the original code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ica_aroma_py.services import ICA_AROMA_functions
    return ICA_AROMA_functions


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|r| of the columns of a with those of b."""
    return np.abs(np.corrcoef(a.T, b.T)[: a.shape[1], a.shape[1] :])


@pytest.mark.parametrize("seed", range(10))
def test_planted_components_are_found_and_classified(seed: int) -> None:
    series, courses, maps, parameters = plant(seed)
    masks = brain()
    inside = masks["mask"]
    samples = ica.effective_samples(series, inside)
    n_components = ica.estimate_dimension(series, n_effective=samples)
    assert 7 <= n_components <= 8

    result = ica.spatial_ica(series, n_components, seed)
    assert result.converged
    assert result.n_starts == 1
    kept = ica.threshold_maps(result.maps)
    edge_fract, csf_fract = ica.edge_csf_fractions(
        kept, masks["csf"][inside], masks["edge"][inside], masks["out"][inside]
    )
    noise, reasons = ica.classify(
        ica.max_rp_corr(result.mixing, parameters, seed),
        edge_fract,
        csf_fract,
        ica.high_frequency_content(result.mixing, 2.0),
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

    cleaned = ica.denoise(series, result.mixing, noise, "nonaggr")
    left = [np.abs(ols(courses, cleaned)[i] @ maps[i]) for i in range(7)]
    before = [np.abs(ols(courses, series)[i] @ maps[i]) for i in range(7)]
    share = np.array(left) / np.array(before)
    assert (share[:3] < 0.1).all()
    assert (share[3:] > 0.9).all()


def ols(design: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Regression coefficients of demeaned data on demeaned columns."""
    return np.linalg.lstsq(design - design.mean(0), data - data.mean(0), rcond=None)[0]


# ---------------------------------------------------------------------------------- decomposition


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
    samples = ica.effective_samples(series, mask)
    assert abs(ica.estimate_dimension(series, n_effective=samples) - n_sources) <= 1
    assert ica.estimate_dimension(series, cap=3, n_effective=samples) <= 3


def test_effective_samples_follow_the_smoothness() -> None:
    rng = np.random.default_rng(0)
    mask = brain()["mask"]
    for sigma in (0.8, 1.0):
        expected = mask.sum() / (2.5 * (sigma * np.sqrt(8 * np.log(2))) ** 3)
        found = ica.effective_samples(smooth(rng, 40, mask, sigma), mask)
        # the kernel is sampled at whole voxels, and a third of the noise goes with the signal
        assert found == pytest.approx(expected, rel=0.25)
    white = rng.standard_normal((40, mask.sum()))
    assert 0.9 * mask.sum() < ica.effective_samples(white, mask) <= mask.sum()
    with pytest.raises(ValueError, match="voxels in the mask"):
        ica.effective_samples(white[:, 1:], mask)


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
    assert ica.dimension_from_eigenvalues(values, n, 38) == best
    # eigenvalues that a filter has removed do not count
    assert ica.dimension_from_eigenvalues(np.r_[values, 1e-9, 0.0], n, 38) == best


def test_caps() -> None:
    assert [ica.default_cap(n) for n in (2, 60, 156, 490)] == [1, 20, 52, 70]


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, ica.ICA]:
    series, *_ = plant(3)
    return series, ica.spatial_ica(series, 7, 42)


def test_components_are_ordered_signed_and_repeatable(planted: tuple[np.ndarray, ica.ICA]) -> None:
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


def test_maps_are_regression_z_scores(planted: tuple[np.ndarray, ica.ICA]) -> None:
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


def test_explained_variance_is_that_of_the_fit(planted: tuple[np.ndarray, ica.ICA]) -> None:
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


def test_failed_starts_are_counted(planted: tuple[np.ndarray, ica.ICA]) -> None:
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


# --------------------------------------------------------------------------------------- threshold


def test_mixture_separates_activation_from_background() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0.3, 1.7, 30000).astype(np.float32)
    z[:1500] = 0.3 + rng.gamma(16.0, 0.6, 1500)
    z[1500:2500] = 0.3 - rng.gamma(16.0, 0.7, 1000)
    kept = ica.threshold_maps(z[None])[0]
    up, down = kept > 0, kept < 0
    np.testing.assert_array_equal(kept[kept != 0], z[kept != 0])
    # Bayes' rule with the true densities gives the limits
    x = np.linspace(-20, 20, 40001)
    background = 27500 * stats.norm.pdf(x, 0.3, 1.7)
    active = 1500 * stats.gamma.pdf(x - 0.3, 16, scale=0.6)
    active += 1000 * stats.gamma.pdf(0.3 - x, 16, scale=0.7)
    wrong = active > background
    assert z[up].min() == pytest.approx(x[wrong & (x > 0)].min(), abs=0.25)
    assert z[down].max() == pytest.approx(x[wrong & (x < 0)].max(), abs=0.25)


def test_pure_background_keeps_next_to_nothing() -> None:
    rng = np.random.default_rng(1)
    kept = ica.threshold_maps(rng.standard_normal((5, 20000)))
    # the fall-back (|z| > 2.3: 2.1 % of a normal distribution) is the most that can remain
    assert ((kept != 0).mean(axis=1) < 0.03).all()


def test_maps_without_a_mixture_fall_back_to_2_3() -> None:
    few = np.array([[0.0, 2.2, 2.4, -2.2, -2.4, 5.0]])
    np.testing.assert_allclose(ica.threshold_maps(few), [[0, 0, 2.4, 0, -2.4, 5.0]], rtol=1e-6)
    np.testing.assert_array_equal(ica.threshold_maps(np.zeros((2, 500))), 0)
    assert not ica.threshold_maps(np.full((1, 500), 1.5)).any()


# ---------------------------------------------------------------------------------------- features


def aroma_subsets(seed: int, n_volumes: int) -> np.ndarray:
    """The subsets that ica-aroma-py draws (random.Random.sample, 1000 times)."""
    rng = random.Random(seed)
    n = round(0.9 * n_volumes)
    return np.array([rng.sample(population=range(n_volumes), k=n) for _ in range(1000)])


@pytest.mark.parametrize("n_volumes", [47, 150])
def test_max_rp_corr_equals_the_port(aroma: Any, tmp_path: Path, n_volumes: int) -> None:
    rng = np.random.default_rng(n_volumes)
    parameters = motion(rng, n_volumes) + np.array([0, 3, -2, 0.1, 0.2, 5])
    mixing = rng.standard_normal((n_volumes, 6)) + 0.4
    mixing[:, 1] = parameters[:, 2] + 0.02 * rng.standard_normal(n_volumes)
    mixing[:, 2] = np.roll(np.diff(parameters[:, 4], prepend=0) * 10, 1)
    mixing[:, 3] = np.abs(parameters[:, 0])
    np.savetxt(tmp_path / "mix", mixing)
    np.savetxt(tmp_path / "mc", parameters)
    expected = aroma.feature_time_series(tmp_path / "mix", tmp_path / "mc", seed=7)
    found = ica.max_rp_corr(mixing, parameters, 0, subsets=aroma_subsets(7, n_volumes))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert expected[1] > 0.9
    # own subsets: two means over 1000 draws differ by at most √2 × 0.05 / √1000 × 4
    np.testing.assert_allclose(ica.max_rp_corr(mixing, parameters, 1), expected, atol=0.01)
    own = ica.max_rp_corr(mixing, parameters, 1)
    np.testing.assert_array_equal(own, ica.max_rp_corr(mixing, parameters, 1))


def test_parameters_without_movement_correlate_with_nothing() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((60, 3))
    np.testing.assert_array_equal(ica.max_rp_corr(mixing, np.zeros((60, 6)), 0, n_splits=5), 0)
    one = np.zeros((60, 6))
    one[:, 2] = mixing[:, 1]
    assert ica.max_rp_corr(mixing, one, 0, n_splits=5)[1] == pytest.approx(1)
    with pytest.raises(ValueError, match="volumes"):
        ica.max_rp_corr(mixing, one[1:], 0)


def test_fractions_equal_the_port_and_a_loop(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ica_aroma_py.services.ICA_AROMA_nodes import FeatureSpatial
    rng = np.random.default_rng(0)
    shape = (8, 9, 10)
    maps = rng.standard_normal((5, *shape)) * (rng.random((5, *shape)) > 0.7)
    masks = [rng.random(shape) > cut for cut in (0.8, 0.6, 0.9)]
    csf = masks[0]
    masks[1] &= ~csf
    maps[3] = 0
    maps[4] *= csf
    files = {}
    for name, mask in zip(("csf", "edge", "out"), masks, strict=True):
        files[f"mask_{name}"] = str(tmp_path / f"{name}.nii")
        image = nib.Nifti1Image(mask.astype(np.uint8), np.eye(4))
        image.to_filename(files[f"mask_{name}"])
    nib.Nifti1Image(np.moveaxis(maps, 0, -1), np.eye(4)).to_filename(tmp_path / "maps.nii")
    node = FeatureSpatial(in_file=str(tmp_path / "maps.nii"), **files)
    outputs = node.run(cwd=str(tmp_path)).outputs

    edge_fract, csf_fract = ica.edge_csf_fractions(maps.reshape(5, -1), *[m.ravel() for m in masks])
    np.testing.assert_allclose(edge_fract, outputs.edge_fract, atol=1e-9)
    np.testing.assert_allclose(csf_fract, outputs.csf_fract, atol=1e-9)
    assert (edge_fract[3], csf_fract[3]) == (0, 0)
    assert (edge_fract[4], csf_fract[4]) == (0, pytest.approx(1))
    sums = [sum(abs(v) for v, m in zip(maps[0][maps[0] != 0], mask[maps[0] != 0]) if m)
            for mask in (*masks, np.ones(shape, bool))]  # fmt: skip
    assert csf_fract[0] == pytest.approx(sums[0] / sums[3])
    assert edge_fract[0] == pytest.approx((sums[1] + sums[2]) / (sums[3] - sums[0]))
    with pytest.raises(ValueError, match="voxels"):
        ica.edge_csf_fractions(maps.reshape(5, -1), *[m.ravel()[1:] for m in masks])


@pytest.mark.parametrize("tr", [0.735, 2.0])
@pytest.mark.parametrize("n_volumes", [151, 490])
def test_high_frequency_content_equals_the_port(
    aroma: Any, tmp_path: Path, n_volumes: int, tr: float
) -> None:
    rng = np.random.default_rng(0)
    mixing = ndimage.gaussian_filter1d(rng.standard_normal((n_volumes, 30)), 0.6, axis=0)
    mixing -= mixing.mean(axis=0)
    padded = np.vstack([mixing, np.zeros((n_volumes % 2, 30))])
    # melodic_FTmix: without the DC row, by a plain sum
    n = padded.shape[0]
    phase = np.exp(-2j * np.pi * np.outer(np.arange(1, n // 2 + 1), np.arange(n)) / n)
    np.savetxt(tmp_path / "ft", np.abs(phase @ padded) ** 2)
    expected = aroma.feature_frequency(tmp_path / "ft", tr)
    np.testing.assert_array_equal(ica.high_frequency_content(mixing, tr), expected)


def test_high_frequency_content_of_sinusoids() -> None:
    n, tr = 200, 1.0
    time = np.arange(n) * tr

    def wave(bin_: int, power: float) -> np.ndarray:
        return np.sqrt(power) * np.sin(2 * np.pi * bin_ / (n * tr) * time)

    mixing = np.stack(
        [
            wave(20, 0.6) + wave(60, 0.4),  # 0.6 at 0.1 Hz is nearer to a half than 1
            wave(20, 0.2) + wave(60, 0.25) + wave(90, 0.55),  # 0.45 at 0.3 Hz is
            wave(1, 9.0) + wave(2, 9.0) + wave(70, 0.6) + wave(71, 0.4),  # none up to 0.01 Hz
            wave(10, 0.3) + wave(80, 0.7) + 50.0,  # nor the mean; 0.3 is as near as it gets
        ],
        axis=1,
    )
    frequency = np.array([0.1, 0.3, 0.35, 0.05])
    expected = (frequency - 0.01) / (0.5 - 0.01)
    np.testing.assert_allclose(ica.high_frequency_content(mixing, tr), expected, atol=1e-12)
    with pytest.raises(ValueError, match="no frequency"):
        ica.high_frequency_content(mixing, 60.0)


# ---------------------------------------------------------------------------------------- decision


def test_decision_equals_the_published_one(aroma: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = rng.random((4, 500)) * np.array([[1.0], [1.0], [0.15], [0.5]])
    correlation, edge, csf, high = features
    noise, reasons = ica.classify(correlation, edge, csf, high)
    indices = aroma.classification(str(tmp_path), correlation, edge, high, csf)
    np.testing.assert_array_equal(np.flatnonzero(noise), indices)
    assert 50 < noise.sum() < 450
    for bad, reason, values in zip(noise, reasons, features.T, strict=True):
        score = -19.9751070082159 + 9.95127547670627 * values[0] + 24.8333160239175 * values[1]
        assert ("csf_fract" in reason) == (values[2] > 0.10)
        assert ("HFC" in reason) == (values[3] > 0.35)
        assert ("motion and edge" in reason) == (score > 0)
        assert (reason == "below every threshold") == (not bad)


def test_thresholds_are_not_included() -> None:
    zero = np.zeros(2)
    noise, _ = ica.classify(zero, zero, np.array([0.10, 0.1001]), zero)
    np.testing.assert_array_equal(noise, [False, True])
    noise, _ = ica.classify(zero, zero, zero, np.array([0.35, 0.3501]))
    np.testing.assert_array_equal(noise, [False, True])


# ----------------------------------------------------------------------------------------- removal


@pytest.fixture
def regression() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((80, 5)) + rng.standard_normal((80, 1)) + 0.7
    series = 100 + mixing @ rng.standard_normal((5, 12)) + rng.standard_normal((80, 12))
    return series, mixing, np.array([True, False, True, False, False])


def test_removal_equals_a_regression_per_column(
    regression: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    series, mixing, noise = regression
    partial = ica.denoise(series, mixing, noise, "nonaggr")
    full = ica.denoise(series, mixing, noise, "aggr")
    centred = mixing - mixing.mean(axis=0)
    for p in range(series.shape[1]):
        # statsmodels' way: an intercept beside the time courses
        beta = np.linalg.solve(*_normal(np.column_stack([np.ones(80), mixing]), series[:, p]))
        expected = series[:, p] - centred[:, noise] @ beta[1:][noise]
        np.testing.assert_allclose(partial[:, p], expected, atol=1e-10)
        beta = np.linalg.solve(
            *_normal(np.column_stack([np.ones(80), mixing[:, noise]]), series[:, p])
        )
        np.testing.assert_allclose(
            full[:, p], series[:, p] - centred[:, noise] @ beta[1:], atol=1e-10
        )
    np.testing.assert_allclose(partial.mean(axis=0), series.mean(axis=0))
    assert np.abs(partial - full).max() > 0.1
    np.testing.assert_allclose(
        ica.removal_matrix(mixing, noise, "nonaggr") @ series, partial, atol=1e-10
    )


def _normal(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return design.T @ design, design.T @ y


def test_none_all_and_off_leave_a_copy(
    regression: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    series, mixing, noise = regression
    cases = [
        ("nonaggr", np.zeros(5, bool), "none"),
        ("nonaggr", np.ones(5, bool), "all"),
        ("aggr", np.ones(5, bool), "all"),
        ("none", noise, "some"),
    ]
    for mode, bad, state in cases:
        assert ica.removal_state(bad) == state
        result = ica.denoise(series, mixing, bad, mode)  # type: ignore[arg-type]
        np.testing.assert_array_equal(result, series)
        assert not np.shares_memory(result, series)
    with pytest.raises(ValueError, match="unknown mode"):
        ica.removal_matrix(mixing, noise, "orthaggr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decisions"):
        ica.removal_matrix(mixing, noise[1:], "aggr")


def test_missing_columns_stay_missing_and_alone(
    regression: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    series, mixing, noise = regression
    expected = ica.denoise(series, mixing, noise, "nonaggr")
    holed = series.astype(np.float32)
    holed[:, [2, 7]] = np.nan
    result = ica.denoise(holed, mixing, noise, "nonaggr")
    assert result.dtype == np.float32
    missing = np.isnan(result)
    np.testing.assert_array_equal(missing.all(axis=0), np.isin(np.arange(12), [2, 7]))
    np.testing.assert_array_equal(missing.any(axis=0), missing.all(axis=0))
    np.testing.assert_allclose(result[:, ~missing[0]], expected[:, ~missing[0]], rtol=1e-5)


@pytest.mark.parametrize(
    ("noise", "converged", "n_starts", "mode", "said"),
    [
        ([True, False], True, 1, "nonaggr", []),
        ([False, False], True, 1, "nonaggr", []),
        ([True, True], True, 1, "none", ["all 2 components were classified as noise"]),
        ([True, False], True, 2, "nonaggr", ["converged in start 2 only"]),
        ([True, True], False, 3, "none", ["all 2 components", "not converge in 3 starts"]),
    ],
)
def test_what_the_ica_could_not_do_is_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    noise: list[bool],
    converged: bool,
    n_starts: int,
    mode: str,
    said: list[str],
) -> None:
    np.savez(tmp_path / "components.npz", converged=converged, n_starts=n_starts)
    writer = WriteFunctional(components=str(tmp_path / "components.npz"))
    writer._naming = SimpleNamespace(stem="sub-01_task-rest")
    writer._notes, writer._mode = [], "nonaggr"
    writer._note_components({"noise": np.array(noise)})
    # a run from which nothing could be removed is marked as such
    assert writer._mode == mode
    assert len(caplog.messages) == len(said)
    for message, text in zip(caplog.messages, said, strict=True):
        assert message.startswith("sub-01_task-rest: ") and text in message
    assert len(writer._notes) == sum("only" not in text for text in said)


# ------------------------------------------------------------------- a simulator of another making


def test_denoised_parcels_keep_the_signal_of_a_simulated_run(tmp_path: Path) -> None:
    run = simulator.simulate(8, n_volumes=120)
    found = denoising.denoise(run, tmp_path)
    assert run.n_non_steady - 1 <= found.n_dummy <= run.n_non_steady + 3
    assert np.isnan(found.denoised[: found.n_dummy]).all()
    truth = run.series, run.oracle, denoising.simulated_nuisances(run), run.n_non_steady
    raw, clean = denoising.of_the_oracle(found.denoised, *truth)
    # bounds of the accuracy table: 0.95 and 0.85
    assert raw > 1.05
    assert clean > 0.9
    signal = found.global_signal, found.n_dummy, run.tr
    others = denoising.peers(found.raw, found.parameters, *signal)
    assert raw > 1.5 * denoising.of_the_oracle(others["nilearn, non-steady kept"], *truth)[0]
    noise, reasons = found.decisions["noise"], found.decisions["reason"]
    assert 0 < noise.sum() < noise.size / 2
    # heart beat in the ventricles and the edge that moves are there, and are what goes
    assert any("csf_fract" in reason for reason in reasons)
    assert any("motion and edge" in reason for reason in reasons)


# --------------------------------------------------------------------------------------- real data


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
    samples = ica.effective_samples(series, mask)
    n_components = ica.estimate_dimension(series, n_effective=samples)
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
    assert ica.high_frequency_content(result.mixing, 2.0)[best.argmax()] < 0.25
