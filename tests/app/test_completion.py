"""A session's file is there while all of its recordings are done, and only then."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlm_bids import files
from brainlm_bids.app import completion
from brainlm_bids.commands import bids_app
from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.report.recordings import RecordingSummary


def row(session: str | None, task: str, status: str) -> dict[str, Any]:
    stem = "_".join(part for part in ("sub-01", session, f"task-{task}") if part)
    return {
        "participant_id": "sub-01",
        "session_id": session,
        "recording": stem,
        "status": status,
    }


def marks(folder: Path) -> dict[str, list[str]]:
    return {
        path.name: [line["status"] for line in files.read_rows(path)]
        for path in sorted((folder / completion.FOLDER).glob("*"))
    }


@pytest.mark.parametrize(
    ("statuses", "complete"),
    [
        (("done", "cached"), True),
        (("done", "skipped"), True),
        (("done", "failed"), False),
        (("failed", "cached"), False),
        (("skipped", "skipped"), False),  # nothing was computed
    ],
)
def test_one_failure_of_several_runs_is_enough(
    statuses: Sequence[str], complete: bool, tmp_path: Path
) -> None:
    rows = [row("ses-1", f"t{k}", status) for k, status in enumerate(statuses)]
    # a session beside it, whose name begins in the same way
    completion.enter(tmp_path, [*rows, row("ses-10", "rest", "done")], [])
    assert set(marks(tmp_path)) == {"sub-01_ses-10.tsv"} | (
        {"sub-01_ses-1.tsv"} if complete else set()
    )
    if complete:
        path = tmp_path / completion.FOLDER / "sub-01_ses-1.tsv"
        before, written = path.read_bytes(), path.stat().st_mtime_ns
        again = [{**one, "status": one["status"].replace("done", "cached")} for one in rows]
        completion.enter(tmp_path, again, [])
        assert path.stat().st_mtime_ns == written, "nothing is written where nothing was done"
        # the same bytes, in any order of runs and calls
        completion.enter(tmp_path, rows[:1], [])
        completion.enter(tmp_path, rows[::-1], [])
        assert path.read_bytes() == before


def test_a_call_about_one_task_knows_of_the_failure_of_another(tmp_path: Path) -> None:
    failed = RecordingSummary("sub-01_ses-1_task-b", "sub-01", "ses-1", status="failed")
    completion.enter(tmp_path, [row("ses-1", "a", "done")], [failed])
    assert marks(tmp_path) == {}
    other = RecordingSummary("sub-01_ses-2_task-b", "sub-01", "ses-2", status="failed")
    completion.enter(tmp_path, [row("ses-1", "a", "done")], [other])
    assert marks(tmp_path) == {"sub-01_ses-1.tsv": ["done"]}


class Series:
    """Given series of one subject, and calls on some of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        (folder / "bids").mkdir()

    def path(self, task: str) -> Path:
        return self.folder / f"sub-01_task-{task}_timeseries.npy"

    def write(self, task: str, columns: int = N_PARCELS, seed: int = 0) -> None:
        values = np.random.default_rng(seed).normal(10_000, 40, (60, columns))
        np.save(self.path(task), values)

    def call(self, *tasks: str) -> int:
        always = ["--timeseries-tr", "2", "--model", "none", "--offline", "--nprocs", "1"]
        always += ["--atlas", "A424approx", "-w", str(self.folder / "work")]
        words = [str(self.folder / "bids"), str(self.out), "participant", "--timeseries"]
        return bids_app.main([*words, *(str(self.path(task)) for task in tasks), *always])


def test_calls_write_it_and_take_it_back(tmp_path: Path) -> None:
    series = Series(tmp_path)
    out, write, call = series.out, series.write, series.call
    write("a")
    write("b", columns=423)
    assert call("a", "b") == 1
    assert marks(out) == {}
    assert call("a") == 0
    assert marks(out) == {}, "the other task still lacks"
    write("b")
    assert call("b") == 0
    assert marks(out) == {"sub-01.tsv": ["done", "done"]}
    # broken again: what was complete is not any more
    write("b", columns=423)
    assert call("a", "b") == 1
    assert marks(out) == {}


def test_the_next_call_writes_the_pages_of_one_that_was_killed_before_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All recordings are complete, and pages are those of before, or none."""
    series = Series(tmp_path)
    series.write("a")
    assert series.call("a") == 0
    page, mark = series.out / "sub-01.html", next((series.out / "logs/complete").iterdir())
    written = page.stat().st_mtime_ns
    assert series.call("a") == 0
    assert page.stat().st_mtime_ns == written  # there was nothing to do
    page.unlink()
    mark.unlink()  # as at the beginning of a call that computes
    capsys.readouterr()
    assert series.call("a") == 0
    assert "1 cached" in capsys.readouterr().err
    assert "task-a" in page.read_text()
    assert mark.exists()
