"""What to do about warnings: every kind has an advice, and the report has a place for it."""

import re

import pytest

from brainlm_bids.bids.outputs import figure_table
from brainlm_bids.commands.bids_app import CONFIG_FILE
from brainlm_bids.notices import Kind
from brainlm_bids.report.advice import SECTIONS, Advice, advice_on, advice_table
from brainlm_bids.settings import TABLE


def test_every_kind_has_a_title_a_place_and_an_advice() -> None:
    assert list(advice_table()) == [kind.value for kind in Kind], "in the order of the kinds"
    titles = [one.title for one in advice_table().values()]
    assert len(set(titles)) == len(titles)
    for kind, one in advice_table().items():
        assert one.section in SECTIONS, kind
        assert 0 < len(one.title) <= 40 and not one.title.endswith("."), kind
        assert one.advice.endswith(".") and one.advice.count("`") % 2 == 0, kind
        assert one.advice[0].isupper(), kind


def test_sections_of_figures_are_places_of_warnings() -> None:
    """But for those that nothing can be warned about."""
    of_subject = {row["section"] for row in figure_table().values() if row["of"] == "run"}
    assert {"Registration", "Motion", "ICA-AROMA", "Parcels"} <= of_subject & set(SECTIONS)


def test_flags_in_the_advice_exist() -> None:
    flags = {row.flag for row in (*TABLE.values(), CONFIG_FILE)}
    for kind, one in advice_table().items():
        for flag in re.findall(r"--[a-z][a-z0-9-]+", one.advice):
            assert flag in flags, (kind, flag)


@pytest.mark.parametrize("kind", ["of_the_future", ""])
def test_an_unknown_kind_has_no_advice(kind: str) -> None:
    assert advice_on(kind) == Advice(kind.replace("_", " "), "Recording", "")
