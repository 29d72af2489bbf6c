"""Warnings as data: kinds are unique, documented, and survive the way through a sidecar."""

import json
import re
from pathlib import Path

from brainlm_bids.notices import Kind, Notice, from_json, notice, to_json
from brainlm_bids.report.advice import advice_table

PAGE = Path(__file__).parents[1] / "docs" / "outputs.md"


def test_a_warning_is_read_as_it_was_written() -> None:
    written = [notice(kind, f"About {kind}.") for kind in Kind]
    assert from_json(json.loads(json.dumps(to_json(written)))) == written


def test_kinds_of_a_later_version_and_damaged_fields_are_kept() -> None:
    later = [{"Kind": "of_the_future", "Level": "note", "Text": "New."}]
    assert from_json(later) == [Notice("of_the_future", "note", "New.")]
    assert from_json(None) == from_json("") == from_json([]) == []
    assert [one.text for one in from_json(["a", 3])] == ["a", "3"]
    assert from_json("a")[0].kind == Kind.UNCLASSIFIED


def test_the_page_of_outputs_lists_all_kinds() -> None:
    pattern = r"^\| `(\w+)` \| (\w+) \| (.+?) \| (.+) \|$"
    rows = re.findall(pattern, PAGE.read_text(), re.MULTILINE)
    advice = advice_table()
    assert rows == [(k.value, k.level.value, k.meaning, advice[k.value].advice) for k in Kind]
