"""Calls keep the index of their folder up to date: participants, one by one, and the group."""

from pathlib import Path

import numpy as np
import pytest

from brainlm_bids import files
from brainlm_bids.commands import bids_app
from brainlm_bids.parcels import N_PARCELS

FILES = ("index.html", "index.tsv", "index.json")


def _series(folder: Path, label: str, volumes: int) -> str:
    path = folder / f"sub-{label}_task-rest_timeseries.npy"
    rng = np.random.default_rng(int(label))
    np.save(path, 10000 + 40 * rng.normal(size=(volumes, N_PARCELS)))
    return str(path)


def _call(tmp_path: Path, out: Path, level: str, *flags: str) -> int:
    bids = tmp_path / "bids"
    bids.mkdir(exist_ok=True)
    always = ["--atlas", "A424approx", "--template", "MNI152NLin2009aSym", "--offline"]
    always += ["--model", "none", "--nprocs", "1", "-w", str(tmp_path / "work" / out.name)]
    return bids_app.main([str(bids), str(out), level, *always, *flags])


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """Two series, and one that is too short."""
    return [
        _series(tmp_path, label, volumes) for label, volumes in (("1", 60), ("2", 70), ("3", 9))
    ]


def test_calls_one_by_one_leave_the_index_of_one_call(tmp_path: Path, given: list[str]) -> None:
    together, apart = tmp_path / "together", tmp_path / "apart"
    series = ("--timeseries-tr", "2")
    _call(tmp_path, together, "participant", "--timeseries", *given, *series)
    rows = {row["recording"]: row for row in files.read_rows(together / "index.tsv")}
    assert {stem: row["status"] for stem, row in rows.items()} == {
        "sub-1_task-rest": "done",
        "sub-2_task-rest": "done",
        "sub-3_task-rest": rows["sub-3_task-rest"]["status"],
    }
    assert rows["sub-3_task-rest"]["status"] in ("failed", "skipped")
    assert "9" in rows["sub-3_task-rest"]["reason"]
    assert rows["sub-2_task-rest"]["report"] == "sub-2.html#task-rest"
    assert 'href="./index.html"' in (together / "sub-1.html").read_text()
    for one in reversed(given):
        _call(tmp_path, apart, "participant", "--timeseries", one, *series)
    for name in FILES:
        assert (apart / name).read_bytes() == (together / name).read_bytes(), name
    # a repeated call finds everything complete, and the pages written again are the same
    before = {name: (together / name).read_bytes() for name in FILES}
    _call(tmp_path, together, "participant", "--timeseries", *given, *series)
    _call(tmp_path, together, "participant", "--timeseries", *given, *series, "--reports-only")
    assert {name: (together / name).read_bytes() for name in FILES} == before
    # the group level tells what it included, and its page is linked
    assert _call(tmp_path, together, "group") == 0
    rows = {row["recording"]: row for row in files.read_rows(together / "index.tsv")}
    assert {stem: row["cohort_status"] for stem, row in rows.items()} == {
        "sub-1_task-rest": "included",
        "sub-2_task-rest": "included",
        "sub-3_task-rest": "n/a",
    }
    assert rows["sub-3_task-rest"]["status"] == "skipped", "its own status, not the group's"
    assert 'href="./group.html"' in (together / "index.html").read_text()
