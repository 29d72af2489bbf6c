"""Tables of people: a row per visit, doubled, blank and contradicting rows, broken tables."""

import json
from pathlib import Path

import pytest

from brainlm_bids.bids.participants import Variables, read_variables
from brainlm_bids.errors import UserError

ONE = ("sub-01_task-rest", "sub-02_task-rest")
VISITS = ("sub-01_ses-a_task-rest", "sub-01_ses-b_task-rest", "sub-02_ses-a_task-rest")


def _read(folder: Path, text: str, stems: tuple[str, ...] = ONE, **more: bool) -> Variables:
    (folder / "participants.tsv").write_text(text)
    return read_variables(folder, None, stems, **more)


def _kinds(found: Variables) -> list[str]:
    return [one.kind for one in found.notices]


@pytest.mark.parametrize("column", ["session_id", "ses", "visit"])
def test_a_row_per_visit_is_matched_by_session(tmp_path: Path, column: str) -> None:
    text = f"participant_id\t{column}\tmood\n01\tses-a\t3\nsub-01\tb\t5\n02\tb\t7\n"
    found = _read(tmp_path, text, VISITS)
    assert found == Variables({"mood": ["3", "5", None]}, ())


def test_a_column_of_visits_that_are_no_sessions_is_a_variable(tmp_path: Path) -> None:
    found = _read(tmp_path, "participant_id\tvisit\n01\tfirst\n02\tsecond\n", VISITS)
    assert found.columns == {"visit": ["first", "first", "second"]}


def test_rows_per_visit_of_recordings_without_sessions(tmp_path: Path) -> None:
    """What the visits agree about is used; what they do not is left out, and it is said."""
    text = (
        "participant_id\tsession_id\tage\tsex\n"
        "01\ta\t30\tF\n01\tb\t31\tn/a\n02\ta\t40\tM\n03\ta\t1\tM\n03\tb\t2\tM\n"
    )
    found = _read(tmp_path, text)
    assert found.columns == {"age": [None, "40"], "sex": ["F", "M"]}
    assert _kinds(found) == ["participants_unclear"]
    assert "the rows of sub-01 contradict each other in age;" in found.notices[0].text


def test_a_session_left_blank_holds_for_all_of_them(tmp_path: Path) -> None:
    text = "participant_id\tsession_id\tmood\tsex\n01\ta\t3\tn/a\n01\tb\t5\t\n01\tn/a\tn/a\tF\n"
    found = _read(tmp_path, text, VISITS)
    assert found.columns == {"mood": ["3", "5", None], "sex": ["F", "F", None]}


def test_doubled_rows_count_once(tmp_path: Path) -> None:
    found = _read(tmp_path, "participant_id\tage\n01\t30\nsub-01\t30\n02\t40\n")
    assert found.columns == {"age": ["30", "40"]}
    assert _kinds(found) == ["participants_rows"]
    assert "more than one row, which agree, for sub-01." in found.notices[0].text


def test_contradicting_rows_cost_their_participant_alone(tmp_path: Path) -> None:
    found = _read(tmp_path, "participant_id\tage\tsex\n01\t30\tF\n01\t31\tF\n02\t40\tM\n")
    assert found.columns == {"age": [None, "40"], "sex": ["F", "M"]}
    assert _kinds(found) == ["participants_unclear"]


@pytest.mark.parametrize(
    "text",
    [
        "participant_id\tage\n01\t30\n\n\t\n \t \n02\t40\n\n",  # blank rows
        "participant_id\tage\r\n01\t30\r\n02\t40\r\n",
        "\ufeffparticipant_id\tage\n01\t30\n02\t40",
        "participant_id \tage\t\n01\t30\t\n 02\t40\n",  # an empty last column, blanks
        "age\tparticipant_id\n30\t01\n40\t02\n",
    ],
)
def test_as_spreadsheets_save_them(tmp_path: Path, text: str) -> None:
    assert _read(tmp_path, text) == Variables({"age": ["30", "40"]}, ())


def test_rows_that_are_cut_short_or_too_long(tmp_path: Path) -> None:
    text = "participant_id\tage\tsex\n01\t30\n02\t40\tM\textra\n\t20\tF\n"
    found = _read(tmp_path, text)
    assert found.columns == {"age": ["30", None], "sex": ["", None]}
    assert _kinds(found) == ["participants_unclear", "participants_rows"]


@pytest.mark.parametrize("text", ["", "\n\n", "subject\tage\n1\t2\n", "participant_id\tage\n"])
def test_a_broken_table_is_refused_only_if_it_is_needed(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"participants.tsv: has no column participant_id"):
        _read(tmp_path, text)
    found = _read(tmp_path, text, needed=False)
    assert (found.columns, _kinds(found)) == ({}, ["participants_unclear"])
    (tmp_path / "participants.tsv").write_bytes(b"participant_id\tname\n01\tM\xfcller\n")
    found = read_variables(tmp_path, None, ONE, needed=False)
    assert "is not UTF-8" in found.notices[0].text


def test_a_table_that_was_never_fetched(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").symlink_to("nowhere")
    with pytest.raises(UserError, match="is a link to nowhere, which is not there"):
        read_variables(tmp_path, None, ONE)
    assert read_variables(tmp_path, None, ONE, needed=False).columns == {}


def test_a_phenotype_file_replaces_columns(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\n01\t30\tF\n")
    phenotype = tmp_path / "pheno.tsv"
    phenotype.write_text("participant_id\tage\n01\t31\n")
    assert read_variables(tmp_path, phenotype, ONE).columns == {
        "age": ["31", None],
        "sex": ["F", None],
    }
    with pytest.raises(UserError, match="no such file"):
        read_variables(None, tmp_path / "none.tsv", ONE)


def test_levels_and_units_of_participants_json(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tdx\tage\tsex\tiq\n01\t1\t30\t2\t9\n"
    )
    declared = {
        "dx": {"Levels": {"1": "patient", "2": "control"}, "Units": "none"},
        "age": {"Description": "age at the scan", "Units": "year"},
        "iq": {"Units": "n/a"},
        "sex": {"Levels": []},
    }
    (tmp_path / "participants.json").write_text(json.dumps(declared))
    found = read_variables(tmp_path, None, ONE)
    assert found.levels == {"dx": ("1", "2")}
    assert found.measured == {"age"}
