"""Robust scaling: median 0 and interquartile range 1, and what happens to parcels without data."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.parcels.scaling import (
    ScalingStats,
    load_stats,
    recording_stats,
    save_stats,
    scale,
    scale_warnings,
)

P = 424


def _series(seed: int = 1, n_volumes: int = 211) -> NDArray[np.float64]:
    """(T, P), skewed, each parcel with its own level and spread."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(5, 200, P)
    values = 10000 + rng.uniform(-900, 900, P) + spread * rng.gamma(2.0, size=(n_volumes, P))
    return np.asarray(values, dtype=np.float64)


def test_own_statistics_give_median_0_and_iqr_1() -> None:
    series = _series()
    scaled, filled = scale(series, recording_stats(series))
    low, median, high = np.quantile(scaled, [0.25, 0.5, 0.75], axis=0)
    assert not filled.any()
    assert scaled.shape == (211, P)
    np.testing.assert_allclose(median, 0, atol=1e-9)
    np.testing.assert_allclose(high - low, 1, rtol=1e-9)


def test_closed_form() -> None:
    """0, 1, …, 100 times 3: mean 150, quartiles 75, 150, 225."""
    series = np.asarray(3 * np.arange(101.0)[:, None], dtype=np.float64)
    stats = recording_stats(series)
    scaled, _ = scale(series, stats)
    np.testing.assert_allclose([stats.median[0], stats.iqr[0]], [0, 150])
    np.testing.assert_allclose(scaled[:, 0], (series[:, 0] - 150) / 150)


def test_level_of_a_recording_does_not_matter() -> None:
    """Statistics are those of demeaned series, so they serve recordings of another level."""
    series = _series()
    stats = recording_stats(series)
    moved = scale(series + np.linspace(-500, 500, P), stats)[0]
    np.testing.assert_allclose(moved, scale(series, stats)[0], atol=1e-9)


def test_parcels_without_data_are_filled_and_listed() -> None:
    series = _series()
    good = scale(series, recording_stats(series))[0]
    series[:, 7] = np.nan
    series[:, 11] = 10000.1  # constant: its mean, and so its "variation", is rounding noise
    series[5, 13] = np.nan
    scaled, filled = scale(series, recording_stats(series))
    assert np.flatnonzero(filled).tolist() == [7, 11, 13]
    assert scaled.shape == (211, P)
    assert np.isfinite(scaled).all()
    assert (scaled[:, filled] == 0).all()
    np.testing.assert_array_equal(scaled[:, ~filled], good[:, ~filled])


@pytest.mark.parametrize("iqr", [0.0, np.nan, -1.0, np.inf])
def test_statistics_that_cannot_be_used_fill_the_parcel(iqr: float) -> None:
    series = _series()
    stats = recording_stats(series)
    stats.iqr[3] = iqr
    scaled, filled = scale(series, stats)
    assert np.flatnonzero(filled).tolist() == [3]
    assert (scaled[:, 3] == 0).all()


def test_constant_parcel_is_filled_under_the_statistics_of_others() -> None:
    stats = recording_stats(_series())
    series = _series(seed=2)
    series[:, 5] = 9000.0
    scaled, filled = scale(series, stats)
    assert np.flatnonzero(filled).tolist() == [5]
    assert (scaled[:, 5] == 0).all()


def test_no_parcel_with_data() -> None:
    series = np.full((50, P), np.nan)
    scaled, filled = scale(series, recording_stats(series))
    assert filled.all()
    assert (scaled == 0).all()


def test_input_is_not_changed() -> None:
    series = _series()
    before = series.copy()
    scale(series, recording_stats(series))
    np.testing.assert_array_equal(series, before)


def test_other_number_of_parcels_is_an_error() -> None:
    with pytest.raises(ValueError, match="423 parcels"):
        scale(_series()[:, 1:], recording_stats(_series()))


def _names() -> list[str]:
    return [f"parcel{i}" for i in range(P)]


def test_save_and_load_whatever_the_order_of_rows(tmp_path: Path) -> None:
    stats = recording_stats(_series())
    stats.median[9] = stats.iqr[9] = np.nan
    path = tmp_path / "scaling.tsv"
    save_stats(path, _names(), stats)
    header, *rows = path.read_text().splitlines()
    np.random.default_rng(3).shuffle(rows)
    path.write_text("\n".join([header, *rows]) + "\n")
    loaded = load_stats(path, _names())
    np.testing.assert_allclose(loaded.median, stats.median, rtol=1e-8)
    np.testing.assert_allclose(loaded.iqr, stats.iqr, rtol=1e-8)
    assert np.isnan(loaded.iqr[9])


def test_load_refuses_what_is_no_such_table(tmp_path: Path) -> None:
    path = tmp_path / "scaling.tsv"
    save_stats(path, _names()[:-1], ScalingStats(np.zeros(P - 1), np.ones(P - 1)))
    with pytest.raises(UserError, match=r"lacks 1 parcels.*parcel423"):
        load_stats(path, _names())
    path.write_text("")
    with pytest.raises(UserError, match=r"scaling\.tsv: lacks 1 parcels"):
        load_stats(path, ["a"])
    for text in ("name\tmean\tiqr\na\t1\t2\n", "name\tmedian\tiqr\na\tx\t2\n"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"scaling\.tsv: is not a TSV"):
            load_stats(path, ["a"])


def test_a_scale_that_differs_by_more_than_a_factor_of_two_is_a_warning() -> None:
    assert scale_warnings(41.44 / 1.99, 0.83 * 1.99) == []
    assert scale_warnings(None, None) == []
    small, large = scale_warnings(41.44 / 2.01, 0.83 * 2.01)
    assert (small.kind, large.kind) == ("scale_far_off", "scaled_far_off")
    assert "0.50 times the 41.4" in small.text and "2.01 times the 0.83" in large.text
