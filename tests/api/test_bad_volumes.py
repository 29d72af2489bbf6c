"""Rows without data in a series that was handed in cost these rows, not the recording."""

import numpy as np
import pytest

from brainlm_bids.api.preparation import SeriesOptions, prepare
from brainlm_bids.api.series import read_series


@pytest.mark.parametrize("value", [np.nan, 0.0])
@pytest.mark.parametrize("already_scaled", [False, True])
def test_censored_rows_are_interpolated_and_noted(value: float, already_scaled: bool) -> None:
    whole = np.random.default_rng(0).normal(size=(100, 424)) / 1.35
    series = whole.copy()
    series[[20, 50, 51]] = value
    options = SeriesOptions(already_scaled=already_scaled)
    made, truth = (prepare(read_series(one, tr=0.735), options) for one in (series, whole))
    assert made.provenance["bad_volumes"] == [20, 50, 51]
    assert not made.provenance["filled_parcels"]
    assert any("cannot be used" in note for note in made.provenance["notes"])
    good = np.delete(np.arange(100), [20, 50, 51])
    assert np.corrcoef(made.values[good].ravel(), truth.values[good].ravel())[0, 1] > 0.99
    assert truth.provenance["bad_volumes"] == []


def test_more_than_a_fifth_of_missing_rows_is_refused() -> None:
    series = np.random.default_rng(0).normal(size=(100, 424))
    series[10:31] = np.nan
    with pytest.raises(ValueError, match=r"21 of 100 volumes cannot be used \(missing: 10-30\)"):
        prepare(read_series(series, tr=0.735), SeriesOptions())
