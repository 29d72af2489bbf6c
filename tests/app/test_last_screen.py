"""The last screen: what became of each recording, and where to look."""

from pathlib import Path

import pytest

from brainlm_bids.app.status import LISTED, Outcome, Row, print_table, tell_reports

DANGER = "an approximation of the atlas is used, so compare nothing with results from it"


def _row(number: int, status: str = "done", reason: str = "", memory: float = 900.0) -> Row:
    source = f"sub-{number:03}/func/sub-{number:03}_task-rest_bold.nii.gz"
    outcome = Outcome(status, reason, 61.0, memory)
    return Row.of_recording({"sub": f"{number:03}", "task": "rest"}, source, outcome)


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


def test_a_row_each_and_what_all_of_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [_row(1), _row(2, "failed", "cannot be read"), _row(3, memory=1234.0)]
    (tmp_path / "sub-002.html").touch()
    print_table(rows, tmp_path, "now", 3725.0)
    assert _lines(capsys) == [
        "done     sub-001/func/sub-001_task-rest_bold.nii.gz  61 s, 900 MB",
        "failed   sub-002/func/sub-002_task-rest_bold.nii.gz  61 s, 900 MB  cannot be read",
        "done     sub-003/func/sub-003_task-rest_bold.nii.gz  61 s, 1234 MB",
        "brainlm-bids: 2 done, 1 failed in 1 h 2 min, at most 1.2 GB of memory in a step; "
        f"outputs in {tmp_path}",
        f"status table: {tmp_path}/logs/now_status.tsv",
        f"report: {tmp_path}/sub-002.html",
    ]
    (tmp_path / "index.html").touch()
    print_table(rows, tmp_path, "now", 5.0)
    assert _lines(capsys)[-1] == f"report: {tmp_path}/index.html"


def test_what_holds_for_several_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table([_row(k, reason=DANGER) for k in (1, 2)], tmp_path, "now", 5.0)
    lines = _lines(capsys)
    assert [line[-3:] for line in lines[:2]] == ["[1]", "[1]"]
    assert lines[2] == f"[1] {DANGER}"


def test_of_many_only_those_that_were_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [_row(k) for k in range(LISTED)] + [_row(998, "skipped", "too short")]
    print_table(rows, tmp_path, "now", 5.0)
    lines = _lines(capsys)
    assert lines[0].startswith("skipped  sub-998/") and lines[0].endswith("too short")
    assert lines[1].startswith(f"brainlm-bids: {LISTED} done, 1 skipped in 5 s")


def test_reports_that_were_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sub-1.html").touch()
    tell_reports(tmp_path, 2, 3.0, "index", "sub-1")
    assert _lines(capsys) == ["brainlm-bids: 2 reports in 3 s", f"report: {tmp_path}/sub-1.html"]
