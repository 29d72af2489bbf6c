"""Events: the nearest table that holds for a run, read as BIDS means it; broken ones say where."""

from pathlib import Path

import pytest

from brainlm_bids.bids.events import Event, find_events, read_events
from brainlm_bids.errors import UserError

STEM = "sub-01_ses-a_task-faces_run-2"
HEADER = "onset\tduration\ttrial_type\n"


def written(path: Path, text: str = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_table_of_the_run_wins_over_inherited_ones(tmp_path: Path) -> None:
    assert find_events(STEM, tmp_path) is None
    of_all = written(tmp_path / "task-faces_events.tsv")
    assert find_events(STEM, tmp_path) == of_all
    of_subject = written(tmp_path / "sub-01" / "sub-01_task-faces_events.tsv")
    assert find_events(STEM, tmp_path) == of_subject
    folder = tmp_path / "sub-01" / "ses-a" / "func"
    written(folder / "sub-01_ses-a_task-faces_run-1_events.tsv")
    written(folder / "sub-01_ses-a_task-rest_run-2_events.tsv")
    assert find_events(STEM, tmp_path) == of_subject
    own = written(folder / f"{STEM}_events.tsv")
    assert find_events(STEM, tmp_path) == own
    assert find_events(f"{STEM}_echo-1", tmp_path) == own


def test_events_are_read_in_order_without_those_that_are_no_state(tmp_path: Path) -> None:
    rows = "4.0\t1.5\tface\n0.0\tn/a\thouse\n2.0\t1.0\tn/a\n"
    path = written(tmp_path / "events.tsv", HEADER + rows)
    assert read_events(path, "trial_type") == [Event(0.0, 0.0, "house"), Event(4.0, 1.5, "face")]
    assert read_events(written(tmp_path / "none.tsv"), "trial_type") == []


@pytest.mark.parametrize(
    ("rows", "column", "problem"),
    [
        ("0.0\t1.0\tface\n", "condition", "has no column condition; it has onset, duration"),
        ("x\t1.0\tface\n", "trial_type", "line 2: the onset 'x' is not a number"),
        ("0.0\t1.0\ta\n1.0\tlong\tb\n", "trial_type", "line 3: the duration 'long' is not"),
        ("0.0\t-1.0\tface\n", "trial_type", "line 2: the duration -1.0 is negative"),
    ],
)
def test_a_broken_table_is_one_line(tmp_path: Path, rows: str, column: str, problem: str) -> None:
    path = written(tmp_path / "events.tsv", HEADER + rows)
    with pytest.raises(UserError, match=problem):
        read_events(path, column)
