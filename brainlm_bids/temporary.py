"""Temporary files and folders that do not outlive the process that writes them.

A process that is killed removes nothing. So each temporary file is locked while it is written, and
the system releases the lock when the process ends, however it ends. What lies there unlocked was
left behind: a later call removes it. Calls that run at the same time, also on other machines, do
not touch each other's files. Where locks do not reach other machines, what nobody has written to
for a day was left behind.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from multiprocessing import util
from pathlib import Path

from brainlm_bids.locks import reach_others

PREFIX = ".tmp-"
# Where a file system has no locks that all machines see, only time tells that nobody writes any
# more; seconds.
ABANDONED_AFTER = 24 * 3600
# What distinguishes our folders in a folder that all programs of a machine share.
OURS = "brainlm-bids"
# Where temporary files lie if the path of a socket in $TMPDIR would be too long: Linux takes 107
# letters, of which the names that multiprocessing makes need 33.
SHORT, LONGEST = "/tmp", 74
# Lies in `logs` while a call writes into an output folder.
MARK = "call"


@contextlib.contextmanager
def temporary_file(folder: Path, name: str) -> Iterator[Path]:
    """Give the path of a new, empty file; it is removed at the end, unless it was renamed.

    Parameters
    ----------
    folder
        Where it lies, which exists.
    name
        End of its name: libraries look at the extension.
    """
    path, handle = _locked(partial(_new_file, folder, name))
    try:
        yield path
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Give the path of a new folder; it is removed at the end, with what is in it.

    Parameters
    ----------
    parent
        Where it lies, which exists.
    name
        End of its name.
    """
    path, handle = _locked(partial(_new_folder, parent, name))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def _new_file(folder: Path, name: str) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(dir=folder, prefix=PREFIX, suffix=f"-{name}")
    except OSError as error:
        error.filename = str(folder / name)  # not a name that nobody knows
        raise


def _new_folder(parent: Path, name: str) -> tuple[int, str]:
    path = tempfile.mkdtemp(dir=parent, prefix=PREFIX, suffix=f"-{name}")
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY), path


def _locked(new: Callable[[], tuple[int, str]]) -> tuple[Path, int]:
    """A new file or folder that is locked as long as its handle is open."""
    while True:
        handle, name = new()
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        path = Path(name)
        if path.exists():
            return path, handle
        os.close(handle)  # another call saw it before it was locked, and removed it


def sweep(folder: Path, pattern: str = f"{PREFIX}*") -> int:
    """Remove what processes that ended left behind in a folder, and in those below it.

    Parameters
    ----------
    folder
        The folder; it need not exist.
    pattern
        Of the names.

    Returns
    -------
    int
        How many files and folders were removed.
    """
    return remove_abandoned(folder.rglob(pattern))


def remove_abandoned(paths: Iterable[Path]) -> int:
    """Remove those temporary files and folders that nobody writes any more; returns how many."""
    return sum(map(_removed, sorted(paths)))


def _removed(path: Path) -> bool:
    is_folder = path.is_dir() and not path.is_symlink()
    kind = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR
    try:
        handle = os.open(path, kind | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # gone by now, or of another user
        return False
    try:
        if not _is_abandoned(handle, path):
            return False
        if is_folder:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return not path.exists()
    except OSError:
        return False
    finally:
        os.close(handle)


def _is_abandoned(handle: int, path: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return _is_old(handle)
    return reach_others(path) or _is_old(handle)


def _is_old(handle: int) -> bool:
    # a time far in the future is that of a clock that was put right since
    return abs(time.time() - os.fstat(handle).st_mtime) > ABANDONED_AFTER


@contextlib.contextmanager
def tidied(output_dir: Path) -> Iterator[None]:
    """Mark an output folder while a call writes into it; tidy up after calls that were killed.

    A call that ends in order leaves neither its mark nor anything temporary, so that the whole
    folder is searched only where a mark is left.

    Parameters
    ----------
    output_dir
        The folder, which exists.
    """
    logs = output_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with temporary_file(logs, MARK):
        marks = [path for path in logs.glob(f"{PREFIX}*-{MARK}") if _may_be_taken(path)]
        if marks:
            sweep(output_dir)
        yield


def _may_be_taken(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _is_abandoned(handle, path)
    finally:
        os.close(handle)


# --- the temporary files of libraries --------------------------------------------------------


@contextlib.contextmanager
def scratch() -> Iterator[None]:
    """Give this process and its children a folder of their own for temporary files.

    It lies where they would lie otherwise ($TMPDIR, or /tmp), is removed when this process ends,
    and by the next call if this process is killed.
    """
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    folder = str(_of_this_process(os.getpid(), tempfile.gettempdir()))
    try:
        # the socket of the process that workers are forked from, whose path must be short
        is_short = len(folder) < LONGEST
        tempfile.tempdir = folder if is_short else str(_of_this_process(os.getpid(), SHORT))
        util.get_temp_dir()
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        yield
    finally:
        tempfile.tempdir = before
        os.environ.pop("TMPDIR", None)
        if variable is not None:
            os.environ["TMPDIR"] = variable


@lru_cache
def _of_this_process(pid: int, parent: str) -> Path:
    remove_abandoned(Path(parent).glob(f"{PREFIX}*-{OURS}"))
    path, _ = _locked(partial(_new_folder, Path(parent), OURS))  # until the process ends
    # after the module's own, at -100, which removes the folder of that socket
    util.Finalize(None, _end, args=(pid, path), exitpriority=-200)
    return path


def _end(pid: int, path: Path) -> None:
    if os.getpid() == pid:
        shutil.rmtree(path, ignore_errors=True)
