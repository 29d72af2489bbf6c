"""Numbers, categories and codes for missing values in columns of tables of people."""

import numpy as np
import pytest

from brainlm_bids.cohort import variables
from brainlm_bids.cohort.coding import missing_codes, understand
from brainlm_bids.cohort.decoding import decode
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
        ("x", {"levels": ["-9"]}, "number"),
        ("x", {}, "number"),
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
    # what was assumed without a reason is a warning that tells how to change it
    assert bool(coded.doubts) == (name == "x" and kind == "number")
    assert all("x:category decides" in doubt for doubt in coded.doubts)


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
