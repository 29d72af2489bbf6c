"""Locks on file systems with and without locks: one holder at a time, and nobody waits for ever."""

import errno
import fcntl
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from brainlm_bids import locks
from brainlm_bids.errors import UserError
from brainlm_bids.locks import Held, acquire, count_on_one_machine, locked
from brainlm_bids.temporary import sweep


def none(descriptor: int, operation: int) -> None:
    raise OSError(NUMBER, "no locks here")


NUMBER = errno.ENOLCK


def add(path: Path, times: int, number: int | None) -> None:
    """Count in a file, which is wrong if others count between reading and writing."""
    global NUMBER
    if number is not None:
        NUMBER = number
        fcntl.flock = none
    for _ in range(times):
        with locked(path.with_suffix(".lock")):
            value = int(path.read_text())
            time.sleep(0.002)
            path.write_text(str(value + 1))


@pytest.mark.parametrize("number", [None, errno.ENOLCK, errno.EOPNOTSUPP])
def test_processes_take_turns(tmp_path: Path, number: int | None) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add, args=(count, 10, number)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert count.read_text() == "40"
    assert not (tmp_path / "count.lock.held").exists()


def hold(path: Path, number: int | None) -> None:
    global NUMBER
    if number is not None:
        NUMBER = number
        fcntl.flock = none
    lock = acquire(path)  # released when it is forgotten
    path.with_name("held").touch()
    time.sleep(60)
    lock.release()


@pytest.mark.parametrize("number", [None, errno.ENOLCK])
def test_a_lock_of_a_process_that_was_killed_counts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    if number is not None:
        monkeypatch.setattr(fcntl, "flock", none)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=hold, args=(tmp_path / "lock", number))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with (
        pytest.raises(Held, match=r"held this lock for 0\.1 s") as told,
        locked(tmp_path / "lock", 0.1),
    ):
        pass
    assert isinstance(told.value, UserError) and isinstance(told.value, TimeoutError)
    process.kill()
    process.join()
    with locked(tmp_path / "lock", 20):
        pass


def test_other_errors_of_locks_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"):
        acquire(tmp_path / "lock")


MOUNTED = """\
23 28 0:21 / /proc rw,relatime shared:12 - proc proc rw
61 28 254:1 / / rw,relatime - ext4 /dev/vda1 rw
70 61 0:52 / /scratch rw,relatime shared:1 - lustre 10.0.0.1@o2ib:/fs rw,{lustre},lazystatfs
71 61 0:53 / /home rw,relatime shared:2 master:1 - nfs nas:/home rw,vers=3,{nfs},addr=10.0.0.2
"""


@pytest.mark.parametrize(
    ("lustre", "nfs", "of_one"),
    [
        ("flock", "local_lock=none", []),
        ("localflock", "local_lock=none", [52]),
        ("flock", "local_lock=flock", [53]),
        ("flock", "local_lock=all", [53]),
        # flock() is mapped to locks of the server
        ("flock", "local_lock=posix", []),
        ("flock", "nolock", [53]),
    ],
)
def test_mounts_tell_how_far_locks_reach(lustre: str, nfs: str, of_one: list[int]) -> None:
    mounts = MOUNTED.format(lustre=lustre, nfs=nfs)
    found = [minor for minor in (21, 52, 53, 54) if count_on_one_machine(mounts, (0, minor))]
    assert found == of_one
    assert not count_on_one_machine(mounts, (254, 1))


def mounted_for_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file system of a folder look as if its locks counted on one machine alone."""
    device = folder.stat().st_dev
    text = f"70 61 {os.major(device)}:{os.minor(device)} / / rw - lustre fs rw,localflock\n"
    (folder / "mountinfo").write_text(text)
    monkeypatch.setattr(locks, "MOUNTS", folder / "mountinfo")


def test_where_locks_do_not_reach_others_a_file_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted_for_one(tmp_path, monkeypatch)
    with locked(tmp_path / "a.lock"):
        assert (tmp_path / "a.lock.held").exists()
        with (
            pytest.raises(Held, match="another call has held this lock"),
            locked(tmp_path / "a.lock", 0.1),
        ):
            pass
    assert not (tmp_path / "a.lock.held").exists()


def test_where_locks_do_not_reach_others_only_old_files_are_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine may be writing a file that looks as if nobody had locked it."""
    young, old = tmp_path / ".tmp-young", tmp_path / ".tmp-old"
    day = 24 * 3600
    for path, age in ((young, 60), (old, 2 * day)):
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    with monkeypatch.context() as context:
        mounted_for_one(tmp_path, context)
        assert sweep(tmp_path) == 1
    assert young.exists() and not old.exists()
    assert sweep(tmp_path) == 1  # where locks are seen by all, it is nobody's
