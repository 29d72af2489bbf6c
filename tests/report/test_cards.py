"""Cards of a recording: verdicts by limits, and the guide that lists them."""

import re
from pathlib import Path

import pytest

from brainlm_bids.report.cards import BAD, FINE, LOOK, card_table, cards
from brainlm_bids.report.measures import is_measure


def test_cards_are_about_measures() -> None:
    for key, limits in card_table().items():
        assert key == "r2_model" or key == "tsnr" or is_measure(key), key
        assert limits.title and limits.part
        if limits.look is not None:
            assert limits.source, f"{key}: where does the limit come from?"


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.1, FINE), (0.2, FINE), (0.21, LOOK), (0.5, LOOK), (0.51, BAD)]
)
def test_a_card_has_the_verdict_of_its_limits(value: float, verdict: str) -> None:
    (card,) = cards({"mean_fd": value}, {}, "T1w")
    assert card.verdict == verdict and card.words.startswith(
        {"fine": "✓", "look": "!"}.get(verdict, "✗")
    )
    assert card.limit == "fine up to 0.2 mm, not good above 0.5 mm (a convention)"


@pytest.mark.parametrize(("value", "verdict"), [(0.3, FINE), (0.05, LOOK), (-0.1, BAD)])
def test_a_model_is_judged_beside_the_best_baseline(value: float, verdict: str) -> None:
    key = "r2_m_masked20"
    values = {key: value, f"{key}_ridge": 0.4, f"{key}_time": 0.2, "r2_m_masked75": -1.0}
    (card,) = cards(values, {}, "T1w")
    assert card.title == "Reconstruction by m" and card.verdict == verdict
    assert "without the model: 0.4 (ridge)" in card.about


def test_the_registration_is_one_card_by_the_limits_of_its_numbers() -> None:
    good = {"registration_contrast": 9.0, "registration_cost": 0.4, "template_dice": 0.98}
    (card,) = cards(good, {}, "T1w")
    assert card.verdict == FINE and card.value == "3 of 3 within limits"
    (card,) = cards(good | {"registration_cost": 0.9}, {}, "T1w")
    assert card.verdict == BAD and card.value == "2 of 3 within limits"
    assert card.about == "beyond: Cost"
    # limits of a run without a T1w image are others
    (card,) = cards({"registration_contrast": 2.5}, {}, "boldref")
    assert card.verdict == FINE


def test_a_number_that_is_unusual_among_the_others_is_to_be_looked_at() -> None:
    (card,) = cards({"mean_fd": 0.15}, {"mean_fd": "unusually high (others: at most 0.1)"}, "T1w")
    assert card.verdict == LOOK and card.limit.startswith("unusually high")
    (card,) = cards({"sd_robust": 5.0}, {}, "T1w")
    assert card.verdict == LOOK and "0.415 to 1.66" in card.limit


def test_the_guide_lists_the_cards_in_their_order() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    table = guide[guide.index("{ #cards }") : guide.index("{ #standing }")]
    rows = re.findall(r"^\| (.+?) \| .+? \| (.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    listed = [row for row in rows if not row[0].startswith(("card", "---"))]
    shown = {key: row for key, row in card_table().items() if key == "r2_model" or is_measure(key)}
    assert [row[0] for row in listed] == ["Alignment", *(row.title for row in shown.values())]
    for (_, _, look, bad), row in zip(listed[1:], shown.values(), strict=True):
        if row.look and row.low is None:
            assert f" {row.look:g}" in look
        if row.bad is not None:
            assert f" {row.bad:g}" in bad
