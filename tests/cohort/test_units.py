"""What is predicted once: subjects, sessions or recordings, with their features averaged."""

import numpy as np
import pytest

from brainlm_bids.cohort import variables
from brainlm_bids.cohort.decoding import decode
from brainlm_bids.cohort.units import group_units, unit_means

SUBJECTS = ["a", "a", "b", "b", "b", "c"]
SESSIONS = ["1", "2", "1", "1", "2", "1"]


@pytest.mark.parametrize(
    ("values", "unit", "units"),
    [
        ([1, 1, 2, 2, 2, 1], "subject", [(0, 1), (2, 3, 4), (5,)]),
        ([1, 3, 2, 2, 4, 1], "session", [(0,), (1,), (2, 3), (4,), (5,)]),
        ([1, 3, 2, 5, 4, 1], "recording", [(0,), (1,), (2,), (3,), (4,), (5,)]),
    ],
)
def test_what_varies_decides_what_is_predicted_once(
    values: list[float], unit: str, units: list[tuple[int, ...]]
) -> None:
    rows = [10 + k for k in range(6)]
    found = group_units(rows, values, SUBJECTS, SESSIONS)
    assert found == (unit, tuple(tuple(10 + k for k in members) for members in units))
    without = group_units(rows, values, SUBJECTS)
    assert without == (found if unit == "subject" else ("recording", tuple((k,) for k in rows)))


def test_recordings_without_a_value_belong_to_no_unit() -> None:
    subjects = [f"s{k // 2:02d}" for k in range(40)]
    ages = [str(20 + k // 2) for k in range(40)]
    ages[1] = ages[2] = ages[3] = "n/a"
    target = variables.make_target("age", ages, subjects, sessions=["1", "2"] * 20)
    assert target.unit == "subject" and len(target.units) == 19
    assert target.units[:2] == ((0,), (4, 5)) and target.places[:2] == ((0,), (1, 2))
    assert target.unit_values.tolist() == [20.0, *(20.0 + k for k in range(2, 20))]


def test_a_rare_class_is_in_no_unit() -> None:
    subjects = [f"s{k // 2:02d}" for k in range(24)]
    words = ["x", "x"] * 6 + ["y", "y"] * 5 + ["z", "z"]
    target = variables.make_target("dx", words, subjects)
    assert target.classes == ("x", "y") and len(target.units) == 11
    assert target.unit_values.tolist() == [0.0] * 6 + [1.0] * 5


def test_features_are_averaged_over_what_is_known() -> None:
    features = np.array([[1.0, 5.0], [3.0, np.nan], [7.0, np.nan], [9.0, np.nan]], np.float32)
    means = unit_means(features, [(0, 1), (2, 3)])
    np.testing.assert_array_equal(means, [[2.0, 5.0], [8.0, np.nan]])


def test_ten_copies_of_one_subject_change_nothing() -> None:
    """One subject was scanned eleven times with the same result: its unit is the same."""
    rng = np.random.default_rng(0)
    features, people = rng.normal(size=(30, 4)), [f"s{k:02d}" for k in range(30)]
    age = features[:, 0] + rng.normal(size=30)
    once = decode(features, age, people, seed=3)
    rows = [*range(30), *[4] * 10]
    _, units = group_units(range(40), age[rows].tolist(), [people[k] for k in rows])
    means = unit_means(features[rows], units)
    repeated = decode(means, age, people, seed=3)
    np.testing.assert_allclose(repeated.predictions, once.predictions, atol=1e-9)


def test_units_of_one_recording_are_its_features_and_what_is_not_finite_is_unknown() -> None:
    features = np.array([[1.0, np.nan], [np.inf, 2.0], [3.0, 4.0]], dtype=np.float32)
    found = unit_means(features, [(2,), (0,), (1,)])
    np.testing.assert_array_equal(found, [[3, 4], [1, np.nan], [np.nan, 2]])
    # as together with a unit of two
    np.testing.assert_array_equal(unit_means(features, [(2,), (0,), (1,), (0, 2)])[:3], found)
