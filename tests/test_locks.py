"""Locks on file systems with and without locks: one holder at a time, and nobody waits for ever."""

import errno
import fcntl
import multiprocessing
import time
from pathlib import Path

import pytest

from brainlm_bids.errors import UserError
from brainlm_bids.locks import Held, acquire, locked


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
