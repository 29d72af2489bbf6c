"""Whole bad volumes are found, and nothing else is.

Runs are small heads that move, drift, saturate and are noisy; what is bad in them is known.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.denoising.volumes import (
    check_share,
    described,
    fill_volumes,
    find_bad_rows,
    find_bad_volumes,
)

Array = NDArray[np.float64]
SHAPE = (20, 24, 16)
VOXEL_MM = 7.5


def distance() -> Array:
    """(X, Y, Z) from the centre; 1 at the skin."""
    grid = np.meshgrid(*(np.linspace(-1.15, 1.15, n) for n in SHAPE), indexing="ij")
    return np.sqrt((np.stack(grid) ** 2).sum(axis=0))


def head(seed: int) -> Array:
    """An ellipsoid with tissue of three intensities, ventricles, and a dark skull."""
    rng = np.random.default_rng(seed)
    radius = distance()
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.0)
    tissue = 800 + 250 * np.tanh(3 * texture / texture.std())
    tissue[radius < 0.25] = 1400
    tissue[(radius > 0.85) & (radius < 0.95)] = 150
    return np.where(radius < 1, tissue, 0.0)


def benign(seed: int, n_volumes: int = 60, *, spikes: bool = True) -> NDArray[np.float32]:
    """A run with everything that ordinary runs have, each as strong as it gets."""
    rng = np.random.default_rng(seed)
    still = head(seed)
    shifts = np.cumsum(rng.normal(0, 0.03, (n_volumes, 3)), axis=0)  # mm
    for _ in range(3):  # jumps of up to a centimetre, that stay or go back
        t = rng.integers(5, n_volumes - 1)
        shifts[t : rng.choice([t + 1, n_volumes])] += rng.uniform(-10, 10, 3)
    gain = 1 + rng.uniform(-0.2, 0.2) * np.linspace(0, 1, n_volumes)
    if spikes:
        gain[rng.integers(8, n_volumes, 4)] *= rng.choice([0.95, 1.05], 4)
    gain *= 1 + rng.uniform(0, 2.5) * np.exp(-np.arange(n_volumes) / rng.uniform(0.5, 1.2))
    task = 1 + 0.03 * (np.arange(n_volumes) // 8 % 2)
    active = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.0) > 0.02
    noise = rng.uniform(0.005, 0.05) * 800
    bold = np.empty((*SHAPE, n_volumes), dtype=np.float32)
    for t in range(n_volumes):
        volume = np.where(active, still * task[t], still) * gain[t]
        moved = ndimage.shift(volume, shifts[t] / VOXEL_MM, order=1)
        noisy = moved + noise * rng.normal(size=SHAPE) + 1j * noise * rng.normal(size=SHAPE)
        bold[..., t] = np.abs(noisy).round()  # Rician, stored as integers
    return bold


def test_ordinary_runs_have_no_bad_volume() -> None:
    for seed in range(25):
        bold = benign(seed, 40)
        assert described(find_bad_volumes(bold)) == "", seed
        # fMRIPrep fills what is out of view with 0, and its values are no integers
        masked = (bold * 1.7 + 0.3) * (head(seed) > 0)[..., None]
        assert described(find_bad_volumes(masked)) == "", seed
        # grayordinates: no background
        assert described(find_bad_volumes(bold[head(seed) > 0])) == "", seed


def test_bright_volumes_at_the_start_may_be_alike() -> None:
    """The second may be a little brighter than the first, and the steady state comes at once."""
    bold = benign(3, 40, spikes=False)
    for start in ([2.0, 2.0], [1.55, 1.6], [3.0, 2.0, 1.6]):
        bright = bold.copy()
        bright[..., : len(start)] = bold[..., 10:11] * np.array(start, np.float32)
        bright[..., : len(start)] += np.arange(len(start))  # no two are equal
        assert described(find_bad_volumes(bright)) == "", start


def test_noise_a_static_phantom_and_short_runs_have_no_bad_volume() -> None:
    rng = np.random.default_rng(0)
    still = head(0)[..., None]
    assert described(find_bad_volumes(still + rng.normal(0, 200, (*SHAPE, 30)))) == ""
    assert described(find_bad_volumes(still + rng.normal(0, 1e-3, (*SHAPE, 30)))) == ""
    assert described(find_bad_volumes(rng.normal(0, 1, (*SHAPE, 30)))) == ""
    assert described(find_bad_volumes(benign(1)[..., :2])) == ""


def test_nan_outside_of_the_brain_is_not_a_missing_volume() -> None:
    bold = benign(3)
    bold[head(3) == 0] = np.nan
    bold[10:12, 10:12, 10:12, 30:32] = np.nan
    assert described(find_bad_volumes(bold)) == ""
    bold[..., 40] = np.nan
    assert described(find_bad_volumes(bold)) == "missing: 40"


def _zero_tail(bold: Array) -> None:
    bold[..., 50:] = 0


def _repeated(bold: Array) -> None:
    bold[..., 31:36] = bold[..., 30:31]


def _repeated_and_resampled(bold: Array) -> None:
    bold[..., 31:36] = bold[..., 30:31] * (1 + 1e-5 * np.arange(5))


def _half_a_volume(bold: Array) -> None:
    bold[:, :, SHAPE[2] // 2 :, 59] = 0


def _noise_alone(bold: Array) -> None:
    bold[..., 20] = np.abs(np.random.default_rng(0).normal(0, 20, SHAPE))


def _static(bold: Array) -> None:
    level = bold[..., 20][distance() < 1].mean()
    bold[..., 20] = np.random.default_rng(0).uniform(0, 2 * level, SHAPE)


def _set(t: int, value: float) -> Callable[[Array], None]:
    def change(bold: Array) -> None:
        bold[..., t] = value

    return change


def _scaled(t: int, factor: float) -> Callable[[Array], None]:
    def change(bold: Array) -> None:
        bold[..., t] *= factor

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_zero_tail, "zero: 50-59"),
        (_set(30, 0), "zero: 30"),
        (_set(0, 0), "zero: 0"),
        (_set(30, np.nan), "missing: 30"),
        (_set(59, np.inf), "missing: 59"),
        (_set(12, 700), "constant: 12"),
        (_scaled(30, 8), "too bright: 30"),
        (_scaled(0, 40), "too bright: 0"),
        (_scaled(30, -1), "too dark: 30"),
        (_scaled(30, 0.05), "too dark: 30"),
        (_noise_alone, "too dark: 20"),
        (_repeated, "repeated: 31-35"),
        (_repeated_and_resampled, "repeated: 31-35"),
        (_half_a_volume, "incomplete: 59"),
        (_static, "unlike the others: 20"),
    ],
)
def test_bad_volumes_are_found_with_their_reason(
    change: Callable[[Array], None], expected: str
) -> None:
    for seed in (5, 6):
        bold = benign(seed)
        change(bold)
        assert described(find_bad_volumes(bold)) == expected
        brain = bold[head(seed) > 0]
        if expected != "incomplete: 59":
            assert described(find_bad_volumes(brain)) == expected


def test_several_kinds_in_one_run_are_all_found() -> None:
    bold = benign(8)
    bold[..., 55:] = 0
    bold[..., 10] *= 8
    bold[..., 22] = np.nan
    bold[..., 41] = bold[..., 40]
    found = described(find_bad_volumes(bold))
    assert found == "too bright: 10; missing: 22; repeated: 41; zero: 55-59"


def test_a_run_of_equal_volumes_is_refused() -> None:
    bold = np.repeat(benign(1)[..., :1], 40, axis=3)
    reasons = find_bad_volumes(bold)
    assert described(reasons) == "repeated: 1-39"
    with pytest.raises(UserError, match="39 of 40 volumes cannot be used"):
        check_share(reasons, 0.2)


def test_a_fifth_of_bad_volumes_is_allowed_and_no_more() -> None:
    reasons = np.array([""] * 40 + ["zero"] * 10)
    check_share(reasons, 0.2)
    with pytest.raises(UserError, match="10 of 49 volumes"):
        check_share(reasons[1:], 0.2)
    check_share(reasons[1:], 0.5)
    with pytest.raises(UserError, match="allows"):
        check_share(reasons, 0.0)


def series(seed: int, *, level: float) -> Array:
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter1d(rng.normal(size=(80, 424)), 1.5, axis=0)
    return level * rng.uniform(0.7, 1.3, 424) + 40 * values + 30 * rng.normal(size=(80, 1))


@pytest.mark.parametrize("level", [0.0, 10000.0])
def test_rows_of_a_series_with_and_without_its_mean(level: float) -> None:
    for seed in range(20):
        values = series(seed, level=level)
        values[:, 7] = np.nan  # a parcel without data
        values[30] += 400 * np.random.default_rng(seed).normal(size=424)  # a motion spike
        assert described(find_bad_rows(values)) == ""
        values[40] = np.nan
        values[41] = 0
        values[60:62] = values[59]
        assert described(find_bad_rows(values)) == "missing: 40; zero: 41; repeated: 60-61"


def test_a_smooth_series_has_no_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    values = ndimage.gaussian_filter1d(rng.normal(size=(400, 424)), 12, axis=0)
    values[:, :] += np.sin(np.arange(400) / 60)[:, None] * 10
    assert described(find_bad_rows(values)) == ""


def test_volumes_are_filled_linearly_and_copied_at_the_ends() -> None:
    rng = np.random.default_rng(0)
    ramp = rng.normal(size=(3, 4, 2, 1)) + rng.normal(size=(3, 4, 2, 1)) * np.arange(9)
    bold = ramp.astype(np.float32)
    good = np.array([0, 1, 1, 0, 0, 1, 1, 1, 0], dtype=bool)
    bold[..., ~good] = np.nan
    fill_volumes(bold, good)
    assert np.allclose(bold[..., 1:8], ramp[..., 1:8], atol=1e-5)
    assert np.array_equal(bold[..., 0], bold[..., 1])
    assert np.array_equal(bold[..., 8], bold[..., 7])


def test_slow_waves_with_an_offset_are_not_dark() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = np.cumsum(rng.normal(size=(80, 424)), axis=0) + rng.normal(3, 3, (1, 424))
        values[:, 7] = 0  # a filled parcel of a scaled series
        assert described(find_bad_rows(values)) == ""


def test_slow_waves_about_one_level_are_not_unlike() -> None:
    for seed in range(20):
        steps = np.random.default_rng(seed).normal(size=(260, 424))
        assert described(find_bad_rows(np.cumsum(steps, axis=0) + 10000)) == ""


def test_a_bright_row_of_a_series_of_raw_means_is_found() -> None:
    values = series(0, level=10000.0)
    values[30] *= 8
    assert described(find_bad_rows(values)) == "too bright: 30"
