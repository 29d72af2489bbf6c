"""The lock of an output folder: nobody waits for ever, and a killed call holds nothing."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainlm_bids.bids import dataset
from brainlm_bids.bids.dataset import ignore
from brainlm_bids.errors import UserError
from brainlm_bids.temporary import temporary_file

HOLDS = """
import sys, time
from pathlib import Path
from brainlm_bids.bids.dataset import dataset_lock
with dataset_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_that_is_not_let_go_is_told_and_one_of_a_killed_call_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "LOCK_S", 0.2)
    words = [sys.executable, "-c", HOLDS, str(tmp_path)]
    other = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=r"\.lock: another call has held this lock for 0.2 s"):
            dataset.ignore(tmp_path, ["x"])
    finally:
        other.kill()
        other.wait()
    began = time.monotonic()
    dataset.ignore(tmp_path, ["x"])
    assert "x" in (tmp_path / ".bidsignore").read_text() and time.monotonic() - began < 1


def test_the_lock_clears_what_a_killed_holder_has_left(tmp_path: Path) -> None:
    """Commands that only read an output folder note things there, and search it no further."""
    left = tmp_path / ".tmp-0abc-.bidsignore"
    left.touch()
    with temporary_file(tmp_path, "index.html") as written:  # by a call that lives
        ignore(tmp_path, ["brainlm_store"])
        assert written.exists()
    assert not left.exists()
    assert "brainlm_store" in (tmp_path / ".bidsignore").read_text()
