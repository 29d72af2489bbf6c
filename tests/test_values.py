"""Options: units, bounds, and messages that say what was probably meant."""

import doctest

import pytest

from brainlm_bids import values
from brainlm_bids.errors import UserError
from brainlm_bids.settings import TABLE
from brainlm_bids.values import Bounds, did_you_mean


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("high_pass", "100", 100.0),
        ("high_pass", "1e2", 100.0),
        ("high_pass", "100s", 100.0),
        ("high_pass", "0.01Hz", 100.0),
        ("high_pass", "0.01 hz", 100.0),
        ("high_pass", "10mHz", 100.0),
        ("high_pass", "2min", 120.0),
        ("low_pass", "0.1Hz", 10.0),
        ("model_tr", "735ms", 0.735),
        ("timeseries_tr", "0.5 Hz", 2.0),
        ("mem", "8", 8.0),
        ("mem", "8G", 8.0),
        ("mem", "8GB", 8.0),
        ("mem", "8000MB", 8.0),
        ("mem", "8000M", 8.0),
        ("mem", "0.5T", 500.0),
        ("mem", "1GiB", 1.073741824),
        ("fd_spike_threshold", "0.5mm", 0.5),
        ("fd_spike_threshold", "500um", 0.5),
        ("fd_spike_threshold", "500 µm", 0.5),
        ("mask_ratio", ".5", 0.5),
        ("nprocs", "2", 2),
    ],
)
def test_units_are_understood(name: str, text: str, value: float) -> None:
    assert TABLE[name].read(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("high_pass", "0.01", "0.01? The unit is seconds: 100 is 0.01 Hz"),
        ("low_pass", "0.1", "0.1? The unit is seconds: 10 is 0.1 Hz"),
        ("timeseries_tr", "735", "735? The unit is seconds: 0.735 is 735 ms"),
        ("model_tr", "2000", "2000? The unit is seconds: 2 is 2000 ms"),
        ("low_pass", "0.008", "0.008? The unit is seconds: 125 is 0.008 Hz"),
        ("high_pass", "100000", "100000? The unit is seconds: 100 is 100000 ms"),
        ("timeseries_tr", "0", "'0' is not a number of seconds from 0.05 to 30"),
        ("fd_spike_threshold", "500", "500? The unit is millimetres: 0.5 is 500 micrometres"),
        ("max_mean_fd", "250", "250? The unit is millimetres: 0.25 is 250 micrometres"),
        ("min_coverage", "50", "50? It is a fraction: 0.5 is 50 %"),
        ("min_parcel_coverage", "100", "100? It is a fraction: 1 is 100 %"),
        ("mask_ratio", "75", "75? It is a fraction: 0.75 is 75 %"),
        ("high_pass", "0", "'0' is not a number of seconds from 1 to 10000"),
        ("high_pass", "0Hz", "'0Hz' is not a number of seconds from 1 to 10000"),
        ("high_pass", "0.5s", "'0.5s' is not a number of seconds from 1 to 10000"),
        ("high_pass", "100mm", "'100mm' is not a number of seconds from 1 to 10000"),
        ("high_pass", "nan", "'nan' is not a number of seconds from 1 to 10000"),
        ("high_pass", "inf", "'inf' is not a number of seconds from 1 to 10000"),
        ("high_pass", "1,5", "'1,5' is not a number of seconds from 1 to 10000"),
        ("mem", "8X", "'8X' is not a number of gigabytes above 0"),
        ("mask_ratio", "1", "'1' is not a number between 0 and 1"),
        ("mask_ratio", "50%", "'50%' is not a number between 0 and 1"),
        ("min_coverage", "2", "'2' is not a number from 0 to 1"),
        ("nprocs", "1.5", "'1.5' is not a whole number, 1 or more"),
        ("nprocs", "2s", "'2s' is not a whole number, 1 or more"),
        ("dummy_scans", "-1", "'-1' is not a whole number, 0 or more"),
        ("pooling", "men", "'men' is none of cls, mean, max"),
        ("device", "gpu", "'gpu' is none of auto, cpu, cuda"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        TABLE[name].read(text)
    assert str(caught.value) == message


def test_bounds_in_words() -> None:
    assert Bounds("(0, 60]").described("a number") == "a number above 0 and at most 60"
    assert Bounds("[0, 1)").described("a number") == "a number from 0 to below 1"


def test_nothing_is_suggested_where_nothing_is_close() -> None:
    assert did_you_mean("xyz", ["high_pass"]) == ""


def test_examples_run() -> None:
    assert doctest.testmod(values).failed == 0
