"""Temporary files of processes that were killed are removed; those of others stay."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainlm_bids import files, temporary

WRITES = """
import sys, time
from pathlib import Path
from brainlm_bids import files, temporary
out = Path(sys.argv[1])
with temporary.tidied(out), files.atomically(out / "sub-01" / "a.tsv") as one:
    one.write_text("half")
    with temporary.temporary_folder(out, "store") as folder:
        (folder / "b").write_text("half")
        print("ready", flush=True)
        time.sleep(60)
"""


def _writer(out: Path) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", WRITES, str(out)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def _left(out: Path) -> list[str]:
    return sorted(path.name.split("-", 2)[2] for path in out.rglob(".tmp-*"))


def test_what_a_killed_process_leaves_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    killed, lives = _writer(tmp_path), _writer(tmp_path)
    try:
        assert _left(tmp_path) == sorted(["a.tsv", "call", "store"] * 2)
        with temporary.tidied(tmp_path):
            assert len(_left(tmp_path)) == 7  # nobody was killed
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        with temporary.tidied(tmp_path):
            assert _left(tmp_path) == sorted(["a.tsv", "call", "call", "store"])
        assert _left(tmp_path) == ["a.tsv", "call", "store"]
    finally:
        lives.kill()
        lives.wait()
    with temporary.tidied(tmp_path):
        pass
    assert _left(tmp_path) == []


def test_a_folder_without_a_mark_is_not_searched(tmp_path: Path) -> None:
    """Calls that ended in order left nothing: a large folder is not walked for them."""
    (tmp_path / ".tmp-x-y").touch()
    with temporary.tidied(tmp_path):
        assert (tmp_path / ".tmp-x-y").exists()
    assert temporary.sweep(tmp_path) == 1 and not (tmp_path / ".tmp-x-y").exists()


def test_without_locks_time_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(temporary.fcntl, "flock", no_locks)
    (tmp_path / ".tmp-new-a").touch()
    old = tmp_path / ".tmp-old-a"
    old.touch()
    os.utime(old, (0, time.time() - 2 * temporary.ABANDONED_AFTER))
    future, soon = tmp_path / ".tmp-future-a", tmp_path / ".tmp-soon-a"
    for path, days in ((future, 365), (soon, 0.5)):  # of clocks that are ahead, by much and little
        path.touch()
        os.utime(path, (0, time.time() + days * 24 * 3600))
    assert files.write_text(tmp_path / "b", "x").read_text() == "x"
    assert temporary.sweep(tmp_path) == 2 and _left(tmp_path) == ["a", "a"]
    assert soon.exists()


def test_one_that_was_removed_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []

    def late(handle: int, how: int) -> None:
        if not removed:
            (path,) = tmp_path.glob(".tmp-*")
            path.unlink()
            removed.append(path)

    monkeypatch.setattr(temporary.fcntl, "flock", late)
    with temporary.temporary_file(tmp_path, "a") as path:
        assert path.exists() and path not in removed


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / ".tmp-x-y").symlink_to(tmp_path / "kept")
    (tmp_path / "in" / ".tmp-x-z").symlink_to(tmp_path / "kept" / "file")
    temporary.sweep(tmp_path / "in")
    assert (tmp_path / "kept" / "file").exists()


SCRATCH = """
import os, sys, tempfile, time, multiprocessing
from brainlm_bids import temporary
with temporary.scratch():
    assert tempfile.gettempdir() == os.environ["TMPDIR"] != sys.argv[1]
    context = multiprocessing.get_context("forkserver")
    with context.Pool(1) as pool:
        assert pool.map(abs, [-1]) == [1]
        folder = tempfile.mkdtemp()
        print("ready", flush=True)
        time.sleep(float(sys.argv[2]))
assert tempfile.gettempdir() == os.environ["TMPDIR"] == sys.argv[1]
"""


def test_temporary_files_of_libraries_are_in_a_folder_of_the_call(tmp_path: Path) -> None:
    top = tmp_path / "t"
    top.mkdir()
    environment = os.environ | {"TMPDIR": str(top)}
    words = [sys.executable, "-c", SCRATCH, str(top)]
    killed = subprocess.Popen([*words, "60"], stdout=subprocess.PIPE, env=environment)
    assert killed.stdout is not None and killed.stdout.readline() == b"ready\n"
    killed.kill()
    killed.wait()
    assert len(list(top.iterdir())) == 1
    done = subprocess.run([*words, "0"], capture_output=True, env=environment, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert list(top.iterdir()) == []
    shutil.rmtree(top)
