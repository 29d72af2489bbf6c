"""A process with mounts of its own: full disks and read-only folders, without a superuser."""

import ctypes
import os
import pickle
import subprocess
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.faults.fault import NotTried, Trial
from benchmarks.faults.measure import forked

NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER of Linux


def in_private(function: Callable[[], Sequence[Trial]]) -> Sequence[Trial]:
    """Run a function in a child process whose mounts nobody else sees.

    Raises
    ------
    NotTried
        If this system lets no user have mounts.
    """
    content, _ = forked(partial(_run, function))
    kind, value = pickle.loads(content) if content else ("crashed", "the process was killed")
    if kind == "refused":
        raise NotTried(f"no mounts of one's own on this system ({value})")
    if kind == "crashed":
        return [Trial(False, value, 0.0)]
    trials: Sequence[Trial] = value
    return trials


def _run(function: Callable[[], Sequence[Trial]], writer: int) -> None:
    try:
        try:
            _separate()
        except (OSError, subprocess.CalledProcessError) as error:
            result: tuple[str, object] = ("refused", str(error))
        else:
            try:
                result = ("tried", function())
            except BaseException:
                result = ("crashed", traceback.format_exc(limit=-3))
        with os.fdopen(writer, "wb") as stream:
            stream.write(pickle.dumps(result))
    finally:
        os._exit(0)


def _separate() -> None:
    """Leave the mounts of the parent; be root among one's own."""
    uid, gid = os.getuid(), os.getgid()
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(NEW_USER | NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _mount("--make-rprivate", "/")


def small_disk(folder: Path, kilobytes: int) -> None:
    """Mount a disk of that size on a folder; a second time, change its size."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.path.ismount(folder):
        _mount("-o", f"remount,size={kilobytes}k", str(folder))
    else:
        _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder))


def read_only(folder: Path) -> None:
    """Make a folder read-only for everybody, also for root."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("--bind", str(folder), str(folder))
    _mount("-o", "remount,bind,ro", str(folder))


def writable(folder: Path) -> None:
    """Undo `read_only`."""
    subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def hidden(folder: Path) -> None:
    """Mount an empty folder that nobody may write to over another one."""
    _mount("-t", "tmpfs", "-o", "ro,size=4k", "none", str(folder))


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)
