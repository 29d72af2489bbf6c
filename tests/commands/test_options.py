"""The page of options is that of the table, and no setting is missing on it."""

import subprocess
import sys
from pathlib import Path

import pytest

from brainlm_bids.commands import options
from brainlm_bids.settings import TABLE
from brainlm_bids.table import POSITIONAL

PAGE = Path(__file__).resolve().parents[2] / "docs" / "options.md"


@pytest.mark.skipif(not PAGE.parent.is_dir(), reason="the documentation is not in the image")
def test_the_committed_page_is_that_of_the_table() -> None:
    command = [sys.executable, "-m", "brainlm_bids.commands.options"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == PAGE.read_text(encoding="utf-8"), (
        "the page is out of date: python -m brainlm_bids.commands.options > docs/options.md"
    )


def test_every_setting_has_a_row() -> None:
    lines = options.page().splitlines()
    for row in TABLE.values():
        flag = row.name.upper() if row.group == POSITIONAL else row.flag
        found = [line for line in lines if f"`{flag}`" in line.split(" | ")[0]]
        assert len(found) == 1, flag
        assert found[0].count(" | ") == 4
        cells = found[0].removeprefix("| ").removesuffix(" |").split(" | ")
        assert cells[3] == ", ".join(row.changes)
        assert cells[4] == row.help
        assert row.group == POSITIONAL or cells[2].strip("`") == row.shown_default()


def test_what_a_setting_may_be_is_shown() -> None:
    page = options.page()
    assert "| `--high-pass` | number of seconds from 1 to 10000 | `100 s` | series |" in page
    assert "| `--pooling` | `cls`, `mean`, `max` | `cls` | model |" in page
    assert "| `--mask-ratio` | one or more: number between 0 and 1 | `0.2 0.75 0.9` |" in page
    assert "| `--atlas` | `A424\\|A424approx\\|FILE` |" in page
