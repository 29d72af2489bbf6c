"""Hostile files are refused or harmless; the harness calls a fault what is one."""

import time
from pathlib import Path

import pytest
from hypothesis import strategies as st

from benchmarks.faults import fuzzing, hostile, measure, names, network, page
from benchmarks.faults.__main__ import chosen, main, table
from benchmarks.faults.fault import Fault, Result, Trial
from brainlm_bids.errors import UserError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "faults.md"


@pytest.mark.parametrize("row", hostile.ROWS, ids=lambda row: row.name)
def test_hostile_files(
    row: hostile.Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "MOST_SECONDS", 10.0)  # other tests run at the same time
    (fault,) = chosen([f"hostile/{row.name}"])
    wrong = [trial.told for trial in fault.tried(tmp_path, 1.0) if not trial.held]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "fault",
    [names.FAULTS[0], pytest.param(names.FAULTS[1], marks=pytest.mark.slow)],
    ids=lambda fault: fault.name,
)
def test_hostile_names(fault: Fault, tmp_path: Path) -> None:
    wrong = [trial.told for trial in fault.tried(tmp_path, 1.0) if not trial.held]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("fault", network.FAULTS, ids=lambda fault: fault.name)
def test_bad_networks(fault: Fault, tmp_path: Path) -> None:
    wrong = [trial.told for trial in fault.tried(tmp_path, 1.0) if not trial.held]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("parser", fuzzing.PARSERS, ids=lambda parser: parser.name)
def test_parsers_do_not_crash(parser: fuzzing.Parser, tmp_path: Path) -> None:
    trial = fuzzing.batch(parser, tmp_path, 1)
    assert trial.held, trial.told


def test_a_crash_of_a_parser_is_told(tmp_path: Path) -> None:
    def read(folder: Path, value: int) -> None:
        if value > 10:
            raise KeyError(value)

    parser = fuzzing.Parser("numbers", "numbers", st.integers, read)
    trial = fuzzing.batch(parser, tmp_path, 1)
    assert not trial.held and "KeyError" in trial.told


def _refuses() -> None:
    raise UserError("a.nii: is damaged")


def _says_two_lines() -> None:
    raise UserError("a\nb")


def _crashes() -> None:
    raise KeyError("x")


def _takes_memory() -> None:
    kept = bytearray(300 << 20)
    kept[:: 1 << 12] = b"x" * len(kept[:: 1 << 12])


@pytest.mark.parametrize(
    ("function", "must_refuse", "held"),
    [
        (_refuses, True, True),
        (_refuses, False, True),
        (lambda: None, False, True),
        (lambda: None, True, False),
        (_says_two_lines, True, False),
        (_crashes, False, False),
        (_takes_memory, False, False),
        (lambda: time.sleep(1.2), False, False),
    ],
)
def test_the_judge(function, must_refuse: bool, held: bool) -> None:  # type: ignore[no-untyped-def]
    assert measure.in_own_process(function, must_refuse=must_refuse).held is held


def _result(name: str, *held: bool) -> Result:
    trials = [Trial(one, "told | why", 0.5, 12.0) for one in held]
    return Result(Fault(name, "about", "least", lambda folder, seconds: trials), trials, 1.0)


def test_rows_of_a_page_are_renewed_and_others_stay() -> None:
    old = "# Page\n\n" + page.markdown([_result("b", True), _result("c", True)]) + "\nEnd.\n"
    new = page.renewed(old, [_result("c", True, False), _result("a", True)], ["a", "b", "c"])
    rows = [line for line in new.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == ["a", "b", "c"]
    assert "1 of 1" in rows[1] and "**fails**: 1 of 2" in rows[2]
    assert new.startswith("# Page\n\n") and new.endswith("\nEnd.\n")
    assert page.tsv([_result("c", True, False)]).splitlines()[1].split("\t")[:3] == ["c", "2", "1"]


def test_the_command_writes_its_tables(tmp_path: Path) -> None:
    assert main(["--only", "hostile/tsv-t", "--out", str(tmp_path)]) == 0
    assert len((tmp_path / "faults.tsv").read_text().splitlines()) > 1
    assert "hostile/tsv-t" in (tmp_path / "faults.md").read_text()


def test_the_documentation_has_a_row_for_every_fault() -> None:
    """Written by `python -m benchmarks.faults --page docs/faults.md`."""
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [fault.name for fault in table()]
    assert not [row for row in rows if "**fails**" in row]
