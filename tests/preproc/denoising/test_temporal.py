"""Filters against slow loops over FSL's definitions, and against what a filter must do."""

import numpy as np
import pytest

from brainlm_bids.preproc.denoising import temporal


def slow_highpass(x: np.ndarray, sigma: float) -> np.ndarray:
    """fslmaths -bptf with a high-pass only: a weighted line through every volume's neighbours."""
    out = np.empty(len(x))
    reach = int(sigma * 3)
    for t in range(len(x)):
        near = np.arange(max(t - reach, 0), min(t + reach, len(x) - 1) + 1)
        root = np.exp(-0.25 * ((near - t) / sigma) ** 2)
        line = np.column_stack([np.ones(len(near)), near - t]) * root[:, None]
        level = np.linalg.lstsq(line, x[near] * root, rcond=None)[0][0]
        out[t] = x[t] - level
    return out - out.mean()


def slow_lowpass(x: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(sigma * 5) + 2
    padded = np.concatenate([np.full(reach, x[0]), x, np.full(reach, x[-1])])
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    return np.array([kernel @ padded[t : t + 2 * reach + 1] for t in range(len(x))])


@pytest.mark.parametrize(
    ("n_volumes", "tr", "cutoff"),
    [(490, 0.735, 100.0), (156, 2.0, 100.0), (60, 3.0, 100.0), (20, 2.0, 100.0), (80, 2.0, 31.0)],
)
def test_highpass_is_fsls(n_volumes: int, tr: float, cutoff: float) -> None:
    x = np.random.default_rng(0).standard_normal(n_volumes).cumsum() + 10000
    fast = temporal.highpass_matrix(n_volumes, tr, cutoff) @ x
    np.testing.assert_allclose(fast, slow_highpass(x, cutoff / (2 * tr)), atol=1e-9, rtol=0)


def test_highpass_removes_lines_and_keeps_fast_signal() -> None:
    matrix = temporal.highpass_matrix(490, 0.735)
    time = np.arange(490) * 0.735
    assert np.abs(matrix @ (10000 + 3 * time)).max() < 1e-7
    # amplitude response of FSL's filter: half near 0.004 Hz, all of it at 0.05 Hz
    for frequency, gain in ((0.004, 0.53), (0.008, 0.96), (0.05, 1.0)):
        wave = np.sin(2 * np.pi * frequency * time)
        middle = slice(150, 340)
        kept = (matrix @ wave)[middle].std() / wave[middle].std()
        assert kept == pytest.approx(gain, abs=0.05)


def test_highpass_of_windows_that_hold_one_volume() -> None:
    matrix = temporal.highpass_matrix(10, 10.0, 2.0)
    np.testing.assert_allclose(matrix, np.eye(10) - 0.1, atol=1e-12)


@pytest.mark.parametrize(("tr", "cutoff"), [(0.735, 5.6), (2.0, 10.0), (2.0, 500.0)])
def test_lowpass_is_fsls(tr: float, cutoff: float) -> None:
    x = np.random.default_rng(1).standard_normal(120).cumsum() + 500
    fast = temporal.gaussian_lowpass_matrix(120, tr, cutoff) @ x
    np.testing.assert_allclose(fast, slow_lowpass(x, cutoff / (2 * tr)), atol=1e-9, rtol=0)


@pytest.mark.parametrize("arguments", [(0, 2.0, 100.0), (10, 0.0, 100.0), (10, 2.0, -1.0)])
def test_impossible_filters(arguments: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="no filter"):
        temporal.highpass_matrix(*arguments)


def test_grand_mean_of_image_and_series_agree() -> None:
    bold = np.random.default_rng(2).uniform(500, 900, (5, 6, 4, 7)).astype(np.float32)
    mask = np.zeros((5, 6, 4), dtype=bool)
    mask[1:4, 2:5, 1:3] = True
    factor = temporal.grand_mean_factor(bold, mask)
    assert np.median(bold[mask] * factor) == pytest.approx(10000, rel=1e-6)
    assert temporal.grand_mean_factor(bold[mask].T) == pytest.approx(factor)
    assert temporal.grand_mean_factor(bold.reshape(-1, 7).T, mask.ravel()) == pytest.approx(factor)


@pytest.mark.parametrize("level", [0.0, np.nan])
def test_no_brain_to_scale_by(level: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        temporal.grand_mean_factor(np.full((4, 3), level))


def test_empty_mask() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        temporal.grand_mean_factor(np.ones((4, 4, 4, 5)), np.zeros((4, 4, 4), dtype=bool))
