"""Columns of a table become targets."""

import pytest

from brainlm_bids.cohort import variables
from brainlm_bids.errors import UserError

PEOPLE = [f"sub-{k:02d}" for k in range(20)]


def test_numbers_are_regressed_and_words_classified() -> None:
    age = variables.make_target("age", [*map(str, range(19)), "n/a"], PEOPLE)
    assert age.is_regression
    assert age.rows.tolist() == list(range(19))
    assert "1 of 20" in age.notes[0]
    sex = variables.make_target("sex", ["m", "f"] * 10, PEOPLE)
    assert sex.classes == ("f", "m")
    assert sex.values.tolist() == [1, 0] * 10
    # two numbers are a code for two classes
    assert variables.make_target("dx", ["0", "1"] * 10, PEOPLE).classes == ("0", "1")
    rare = variables.make_target("hand", ["r"] * 9 + ["l"] * 9 + ["a", "a"], PEOPLE)
    assert rare.classes == ("l", "r")
    assert "'a'" in rare.notes[0]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (["3"] * 20, "same value '3'"),
        (["n/a"] * 20, "no value"),
        (["1", "2", "3", *["n/a"] * 17], "3 subjects"),
        (["a"] * 18 + ["b"] * 2, "too few subjects"),
        ([f"word{k}" for k in range(20)], "20 different words"),
    ],
)
def test_what_cannot_be_decoded_is_said(column: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        variables.make_target("x", column, PEOPLE)
