"""Ids of participants in other spellings are matched where no other could be meant."""

from pathlib import Path

import pytest

from brainlm_bids.bids.identifiers import match_ids
from brainlm_bids.bids.participants import Variables, read_variables
from brainlm_bids.errors import UserError

STEMS = ("sub-01_task-rest", "sub-02_task-rest", "sub-A10_task-rest")


def _read(folder: Path, ids: list[str], **more: bool) -> Variables:
    rows = [f"{label}\t{10 * k}" for k, label in enumerate(ids, 1)]
    (folder / "participants.tsv").write_text("\n".join(["participant_id\tage", *rows]))
    return read_variables(folder, None, STEMS, **more)


@pytest.mark.parametrize(
    ("ids", "noticed"),
    [
        (["01", "02", "A10"], False),
        (["sub-01", "sub-02", "sub-A10"], False),
        (["1", "2", "A10"], True),
        (["1.0", "2.0", "a10"], True),
        (["SUB-01", "Sub-02", "sub-a10"], True),
        (["sub 01", "sub_02", "A 10"], True),
        (["sub01", "sub02", "subA10"], True),
        (["001", "002", "A-10"], True),
    ],
)
def test_other_spellings(tmp_path: Path, ids: list[str], noticed: bool) -> None:
    found = _read(tmp_path, ids)
    assert found.columns == {"age": ["10", "20", "30"]}
    assert [one.kind for one in found.notices] == ["participants_rows"] * noticed
    if noticed:
        assert "matched in another spelling" in found.notices[0].text


def test_what_could_be_two_people_is_not_matched() -> None:
    assert match_ids(["1", "01"], ["001"]) == {}
    assert match_ids(["01"], ["1", "001"]) == {}
    assert match_ids(["01", "1"], ["1", "2"]) == {"1": "1"}  # and 01 is not 1
    assert match_ids(["10", "1"], ["10", "1"]) == {"10": "10", "1": "1"}
    assert match_ids(["100"], ["1"]) == {} and match_ids(["A1"], ["B1"]) == {}


def test_ids_of_other_people_are_refused_if_a_column_was_asked_for(tmp_path: Path) -> None:
    message = (
        r"participants\.tsv: no participant_id matches a recording; those of the table are x1, x2, "
        r"those of the recordings sub-01, sub-02, sub-A10"
    )
    with pytest.raises(UserError, match=message):
        _read(tmp_path, ["x1", "x2"])
    found = _read(tmp_path, ["x1", "x2"], needed=False)
    assert found.columns == {"age": [None] * 3}
    assert [one.kind for one in found.notices] == ["participants_unclear"]


def test_levels_of_the_file_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "participants.json").write_text('{"age": {"Levels": {"10": "a", "20": "b"}}}')
    assert _read(tmp_path, ["01", "02"]).levels == {"age": ("10", "20")}
    (tmp_path / "participants.json").write_text("broken")
    assert _read(tmp_path, ["01", "02"]).levels == {}
