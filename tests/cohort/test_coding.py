"""Numbers, categories and codes for missing values in columns of tables of people."""

import numpy as np
import pytest

from brainlm_bids.cohort import variables
from brainlm_bids.cohort.coding import in_words, summary, understand
from brainlm_bids.cohort.decoding import decode
from brainlm_bids.cohort.plausibility import missing_codes
from brainlm_bids.errors import UserError

RNG = np.random.default_rng(0)
AGES = [str(age) for age in RNG.permutation(np.arange(20, 60))]
PEOPLE = [f"sub-{k:02d}" for k in range(40)]


@pytest.mark.parametrize(
    "word",
    ["n/a", "NA", "NaN", "", " ", ".", "-", "missing", "Unknown", "None", "#N/A", "N.A.", None],
)
def test_words_for_missing_values_are_left_out(word: str | None) -> None:
    target = variables.make_target("age", [*AGES[:39], word], PEOPLE)
    assert target.is_regression and target.rows.tolist() == list(range(39))
    matrix = variables.design([understand("age", [*AGES[:39], word])])
    assert matrix.shape == (40, 1)
    assert matrix[39, 0] == pytest.approx(np.mean([float(age) for age in AGES[:39]]))


@pytest.mark.parametrize("code", [-9999, -999, 999, -3, 9999.0, 777])
def test_codes_far_outside_are_missing_and_said(code: float) -> None:
    column = [*AGES[:37], *[str(code)] * 3]
    target = variables.make_target("age", column, PEOPLE)
    assert target.rows.tolist() == list(range(37)) and target.values.max() < 60
    assert f"{code:g} (in 3 recordings)" in target.doubts[0] and target.doubts[0] in target.notes
    matrix = variables.design([understand("age", column)])
    assert 20 <= matrix.min() <= matrix.max() < 60


@pytest.mark.parametrize(
    ("values", "codes", "doubtful"),
    [
        ([0, 2, 5, 10, -1], set(), {-1}),  # one below nothing
        ([0, 2, 5, 10, -3, -1], set(), {-1, -3}),
        ([*range(20, 60), -3, -1], {-3, -1}, set()),
        ([40, 55, 70, -3, -1], {-3, -1}, set()),
        ([20, 50, 90, 99], set(), set()),  # an old man
        ([20, 50, 90, 99, 99], set(), {99}),
        ([100, 700, 1400, 999], set(), set()),  # within the others
        ([-5, -2, 4, -3], set(), set()),
        ([1, 2, 1, 2, -9], {-9}, set()),
        ([-1, 1, -1, 1], set(), {-1}),
        ([-1, 0, 1, 0], set(), {-1}),
        ([-9999, -9999], set(), set()),
        ([1.5, 2.5, -9999], {-9999}, set()),
    ],
)
def test_what_counts_as_a_code(values: list[float], codes: set, doubtful: set) -> None:
    assert missing_codes(np.array(values, dtype=float)) == (codes, doubtful)


def test_decimal_commas() -> None:
    comma = [f"{float(age) + 0.5}".replace(".", ",") for age in AGES]
    target = variables.make_target("age", comma, PEOPLE)
    np.testing.assert_array_equal(target.values, [float(age) + 0.5 for age in AGES])
    with pytest.raises(UserError, match="decimal comma or separates thousands"):
        understand("volume", [f"{k},{k}50" for k in range(1, 9)])


@pytest.mark.parametrize("people", [12, 40])
def test_the_message_names_the_word_that_stands_in_the_way(people: int) -> None:
    column = [*AGES[: people - 1], "old"]
    message = rf"age: 'old' is not a number \(row of sub-{people - 1}\)"
    with pytest.raises(UserError, match=f"--target {message}"):
        variables.make_target("age", column, PEOPLE[:people])
    with pytest.raises(UserError, match=message):
        understand("age", column, PEOPLE[:people])
    words = [f"word{k}" for k in range(people)]
    with pytest.raises(UserError, match=f"{people} different words"):
        variables.make_target("name", words, PEOPLE[:people])
    with pytest.raises(UserError, match="hardly two recordings share one"):
        variables.design([understand("name", words)])


@pytest.mark.parametrize(
    ("name", "given", "kind"),
    [
        ("site", {}, "category"),
        ("SITE_ID", {}, "category"),
        ("scannerID", {}, "category"),
        ("DX_GROUP", {}, "category"),
        ("sex", {}, "category"),
        ("x", {"levels": ["1", "2", "3", "4"]}, "category"),
        ("x", {"kind": "category"}, "category"),
        ("site", {"kind": "number"}, "number"),
        ("group_score", {}, "number"),
        ("x", {"levels": ["-9"]}, "category"),
        ("x", {}, "category"),
        ("education", {}, "number"),
        ("x", {"kind": "number"}, "number"),
    ],
)
def test_categories_that_are_coded_as_numbers(name: str, given: dict, kind: str) -> None:
    column = ["1", "2", "3", "4.0"] * 10
    coded = understand(name, column, **given)
    assert coded.kind == kind
    matrix = variables.design([coded])
    if kind == "category":
        np.testing.assert_array_equal(matrix, np.tile(np.eye(4)[:, 1:], (10, 1)))
        target = variables.make_target(name, column, PEOPLE, **given)
        assert target.classes == ("1", "2", "3", "4")
    else:
        np.testing.assert_array_equal(matrix[:, 0], [1, 2, 3, 4] * 10)
    # what was assumed from the values alone is a warning that tells how to change it
    assumed = name == "x" and given.get("levels") != ["1", "2", "3", "4"] and "kind" not in given
    assert bool(coded.doubts) == assumed
    assert all("x:category decides" in doubt for doubt in coded.doubts)


def test_whole_numbers_are_codes_if_several_people_have_each() -> None:
    column = ["1"] * 20 + ["2"] * 18 + ["3"] * 2
    few = understand("x", column, PEOPLE)
    assert few.kind == "number" and "taken as numbers, not as codes" in few.doubts[0]
    # ten recordings of a person are not several people
    people = [*["s1"] * 20, *["s2"] * 10, *["s3"] * 10]
    assert understand("x", ["1"] * 20 + ["2"] * 10 + ["3"] * 10, people).kind == "number"
    # eleven different ones are too many to be codes, unless the name has it
    many = [str(k % 11) for k in range(44)]
    assert understand("x", many).kind == "number" and not understand("x", many).doubts
    assert understand("site", many).kind == "category"
    assert understand("x", [f"{k % 4}.5" for k in range(40)]).kind == "number"


@pytest.mark.parametrize(("value", "said"), [("470", True), ("-60", True), ("95", False)])
def test_an_implausible_value_is_said(value: str, said: bool) -> None:
    coded = understand("weight", [*AGES[:39], value])
    assert coded.texts[39] == value
    assert any(f"{value} (in 1 recording) lies far outside" in one for one in coded.doubts) == said


def test_how_a_column_was_coded_in_words() -> None:
    sites = understand("site", ["2", "1", "1.0", None, "2", "2", "1"])
    about = summary(sites.kind, sites.texts)
    assert about == {"Kind": "category", "Levels": {"1": 3, "2": 3}, "Missing": 1}
    assert in_words(about) == "2 categories: 1 (3), 2 (3); 1 recording without a value"
    ages = understand("age", AGES)
    assert in_words(summary(ages.kind, ages.texts)) == "numbers from 20 to 59"
    many = [f"c{k:02d}" for k in range(40)]
    assert in_words(summary("category", many)).endswith("c10 (1), …")


def test_a_target_that_differs_by_site_alone_is_not_decoded_behind_its_codes() -> None:
    """A line through the codes 1 … 6 leaves what differs between sites; indicators do not."""
    rng = np.random.default_rng(1)
    site = np.repeat(np.arange(6), 40)
    of_site = np.array([0.0, 3, -2, 2, -3, 1])
    target = of_site[site] + rng.normal(size=240)
    features = rng.normal(size=(240, 30)) + np.eye(6)[site] @ rng.normal(size=(6, 30))
    codes = [str(code + 1) for code in site]
    people = [f"sub-{k:03d}" for k in range(240)]

    def r(kind: str | None) -> float:
        confounds = variables.design([understand("site", codes, kind=kind)])
        decoded = decode(features, target, people, confounds=confounds)
        return decoded.scores["pearson_r"].value

    assert r("number") > 0.4
    assert abs(r(None)) < 0.15
