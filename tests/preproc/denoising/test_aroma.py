"""ICA-AROMA's features, decision and removal, against closed forms, loops and ica-aroma-py."""

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.planted import motion
from brainlm_bids.preproc.denoising import aroma


@pytest.fixture(scope="module")
def port() -> Any:
    """The functions of ica-aroma-py, a port of the original code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ica_aroma_py.services import ICA_AROMA_functions
    return ICA_AROMA_functions


def aroma_subsets(seed: int, n_volumes: int) -> np.ndarray:
    """The subsets that ica-aroma-py draws (random.Random.sample, 1000 times)."""
    rng = random.Random(seed)
    n = round(0.9 * n_volumes)
    return np.array([rng.sample(population=range(n_volumes), k=n) for _ in range(1000)])


@pytest.mark.parametrize("n_volumes", [47, 150])
def test_max_rp_corr_equals_the_port(port: Any, tmp_path: Path, n_volumes: int) -> None:
    rng = np.random.default_rng(n_volumes)
    parameters = motion(rng, n_volumes) + np.array([0, 3, -2, 0.1, 0.2, 5])
    mixing = rng.standard_normal((n_volumes, 6)) + 0.4
    mixing[:, 1] = parameters[:, 2] + 0.02 * rng.standard_normal(n_volumes)
    mixing[:, 2] = np.roll(np.diff(parameters[:, 4], prepend=0) * 10, 1)
    mixing[:, 3] = np.abs(parameters[:, 0])
    np.savetxt(tmp_path / "mix", mixing)
    np.savetxt(tmp_path / "mc", parameters)
    expected = port.feature_time_series(tmp_path / "mix", tmp_path / "mc", seed=7)
    found = aroma.max_rp_corr(mixing, parameters, 0, subsets=aroma_subsets(7, n_volumes))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert expected[1] > 0.9
    # own subsets: two means over 1000 draws differ by at most √2 × 0.05 / √1000 × 4
    np.testing.assert_allclose(aroma.max_rp_corr(mixing, parameters, 1), expected, atol=0.01)
    own = aroma.max_rp_corr(mixing, parameters, 1)
    np.testing.assert_array_equal(own, aroma.max_rp_corr(mixing, parameters, 1))


def test_parameters_without_movement_correlate_with_nothing() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((60, 3))
    np.testing.assert_array_equal(aroma.max_rp_corr(mixing, np.zeros((60, 6)), 0, n_splits=5), 0)
    one = np.zeros((60, 6))
    one[:, 2] = mixing[:, 1]
    assert aroma.max_rp_corr(mixing, one, 0, n_splits=5)[1] == pytest.approx(1)
    with pytest.raises(ValueError, match="volumes"):
        aroma.max_rp_corr(mixing, one[1:], 0)


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

    edge_fract, csf_fract = aroma.edge_csf_fractions(
        maps.reshape(5, -1), *[m.ravel() for m in masks]
    )
    np.testing.assert_allclose(edge_fract, outputs.edge_fract, atol=1e-9)
    np.testing.assert_allclose(csf_fract, outputs.csf_fract, atol=1e-9)
    assert (edge_fract[3], csf_fract[3]) == (0, 0)
    assert (edge_fract[4], csf_fract[4]) == (0, pytest.approx(1))
    sums = [sum(abs(v) for v, m in zip(maps[0][maps[0] != 0], mask[maps[0] != 0]) if m)
            for mask in (*masks, np.ones(shape, bool))]  # fmt: skip
    assert csf_fract[0] == pytest.approx(sums[0] / sums[3])
    assert edge_fract[0] == pytest.approx((sums[1] + sums[2]) / (sums[3] - sums[0]))
    with pytest.raises(ValueError, match="voxels"):
        aroma.edge_csf_fractions(maps.reshape(5, -1), *[m.ravel()[1:] for m in masks])


@pytest.mark.parametrize("tr", [0.735, 2.0])
@pytest.mark.parametrize("n_volumes", [151, 490])
def test_high_frequency_content_equals_the_port(
    port: Any, tmp_path: Path, n_volumes: int, tr: float
) -> None:
    rng = np.random.default_rng(0)
    mixing = ndimage.gaussian_filter1d(rng.standard_normal((n_volumes, 30)), 0.6, axis=0)
    mixing -= mixing.mean(axis=0)
    padded = np.vstack([mixing, np.zeros((n_volumes % 2, 30))])
    # melodic_FTmix: without the DC row, by a plain sum
    n = padded.shape[0]
    phase = np.exp(-2j * np.pi * np.outer(np.arange(1, n // 2 + 1), np.arange(n)) / n)
    np.savetxt(tmp_path / "ft", np.abs(phase @ padded) ** 2)
    expected = port.feature_frequency(tmp_path / "ft", tr)
    np.testing.assert_array_equal(aroma.high_frequency_content(mixing, tr), expected)


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
    np.testing.assert_allclose(aroma.high_frequency_content(mixing, tr), expected, atol=1e-12)
    with pytest.raises(ValueError, match="no frequency"):
        aroma.high_frequency_content(mixing, 60.0)


def test_decision_equals_the_published_one(port: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = rng.random((4, 500)) * np.array([[1.0], [1.0], [0.15], [0.5]])
    correlation, edge, csf, high = features
    noise, reasons = aroma.classify(correlation, edge, csf, high)
    indices = port.classification(str(tmp_path), correlation, edge, high, csf)
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
    noise, _ = aroma.classify(zero, zero, np.array([0.10, 0.1001]), zero)
    np.testing.assert_array_equal(noise, [False, True])
    noise, _ = aroma.classify(zero, zero, zero, np.array([0.35, 0.3501]))
    np.testing.assert_array_equal(noise, [False, True])


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
    partial = aroma.removal_matrix(mixing, noise, "nonaggr") @ series
    full = aroma.removal_matrix(mixing, noise, "aggr") @ series
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


def _normal(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return design.T @ design, design.T @ y


def test_none_all_and_off_remove_nothing(
    regression: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    _, mixing, noise = regression
    cases = [
        ("nonaggr", np.zeros(5, bool)),
        ("nonaggr", np.ones(5, bool)),
        ("aggr", np.ones(5, bool)),
        ("none", noise),
    ]
    for mode, bad in cases:
        removal = aroma.removal_matrix(mixing, bad, mode)  # type: ignore[arg-type]
        np.testing.assert_array_equal(removal, np.eye(80))
    with pytest.raises(ValueError, match="unknown mode"):
        aroma.removal_matrix(mixing, noise, "orthaggr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decisions"):
        aroma.removal_matrix(mixing, noise[1:], "aggr")
