"""Resampling in time, against closed forms."""

import numpy as np
import pytest
from scipy import signal

from brainlm_bids.parcels.sampling import (
    UKB_LAG_ONE,
    UKB_TR,
    at_rate,
    band_warnings,
    power_above,
    resample_series,
)


@pytest.mark.parametrize(("tr", "target"), [(2.0, 0.735), (0.72, 0.735), (0.8, 0.735), (0.4, 1.0)])
def test_a_sinusoid_stays_that_sinusoid(tr: float, target: float) -> None:
    time = np.arange(300) * tr
    frequencies = np.array([0.01, 0.05, 0.1])  # Hz, the band of resting-state BOLD
    series = np.sin(2 * np.pi * frequencies * time[:, None] + 0.3)
    found = resample_series(series, tr, target)
    n_out = int(np.floor(299 * tr / target)) + 1
    assert found.shape == (n_out, 3)
    new_time = np.arange(n_out) * target
    expected = np.sin(2 * np.pi * frequencies * new_time[:, None] + 0.3)
    margin = int(15 * max(tr, target) / target)
    assert np.abs(found - expected)[margin:-margin].max() < 2e-3
    assert np.abs(found[0] - series[0]).max() < 1e-9  # t = 0 is the same volume


def test_what_is_above_the_new_nyquist_does_not_fold_back() -> None:
    time = np.arange(600) * 0.4
    fast = np.sin(2 * np.pi * 0.9 * time)[:, None]  # folds to 0.1 Hz at 1 s if it is only picked
    found = resample_series(fast, 0.4, 1.0)
    assert np.abs(found[15:-15]).max() < 1e-3
    assert np.abs(np.interp(np.arange(240), time, fast[:, 0])).max() > 0.3


def test_lines_and_constants_are_kept_to_the_ends() -> None:
    time = np.arange(60) * 2.0
    series = np.stack([np.full(60, 7.0), 3 + 0.5 * time], axis=1)
    found = resample_series(series, 2.0, 0.735)
    new_time = np.arange(len(found)) * 0.735
    assert np.allclose(found[:, 0], 7.0, atol=1e-9)
    inner = slice(40, -40)
    assert np.allclose(found[inner, 1], 3 + 0.5 * new_time[inner], atol=1e-3)
    assert np.allclose(found[:, 1], 3 + 0.5 * new_time, atol=0.01)


def test_a_column_without_data_stays_without_data() -> None:
    series = np.random.default_rng(0).normal(size=(50, 3))
    series[:, 1] = np.nan
    found = resample_series(series, 2.0, 0.735)
    assert np.isnan(found[:, 1]).all()
    assert np.isfinite(found[:, [0, 2]]).all()


def test_the_last_volume_is_reached_and_not_passed() -> None:
    assert len(resample_series(np.zeros((101, 1)), 1.0, 0.5)) == 201
    assert len(resample_series(np.zeros((101, 1)), 0.1, 0.3)) == 34
    assert len(resample_series(np.zeros((1, 1)), 2.0, 0.735)) == 1
    assert np.isfinite(resample_series(np.ones((2, 1)), 2.0, 0.735)).all()


def test_three_percent_decide() -> None:
    series = np.zeros((50, 1))
    for tr in (0.735, 0.72):
        assert at_rate(series, tr, 0.735) == (series, tr)
    for tr in (0.71, 2.0):
        resampled, new_tr = at_rate(series, tr, 0.735)
        assert (len(resampled), new_tr) == (int(49 * tr / 0.735) + 1, 0.735)


@pytest.mark.parametrize("frequency", [0.05, 0.1, 0.25, 0.5])
def test_power_above_a_frequency_is_that_of_the_autoregression(frequency: float) -> None:
    """Against the spectrum of a long simulated series."""
    noise = np.random.default_rng(0).normal(size=200_000)
    series = signal.lfilter([1.0], [1.0, -UKB_LAG_ONE], noise)
    frequencies, power = signal.welch(series, 1 / UKB_TR, nperseg=1024)
    share = power[frequencies > frequency].sum() / power.sum()
    assert power_above(frequency) == pytest.approx(share, abs=0.01)


def test_a_third_of_the_power_is_missing_at_two_seconds() -> None:
    (warning,) = band_warnings(2.0)
    assert "above 0.25 Hz (a repetition time of 2 s). About 33%" in warning.text
    assert band_warnings(0.735) == band_warnings(0.72) == band_warnings(0.8) == []
    assert "About 10%" in band_warnings(1.0)[0].text
    assert "above 0.1 Hz (the low-pass filter)" in band_warnings(0.735, 10.0)[0].text
    assert "0.25 Hz (a repetition" in band_warnings(2.0, 3.0)[0].text
