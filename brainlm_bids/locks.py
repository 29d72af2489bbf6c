"""Locks of files that calls share, also on file systems that have none.

Processes take turns by `flock`, which the system releases when a process ends, however it ends.
Some network file systems do not support it, have lost the service for it, or are mounted so that
it counts on one machine alone: there, a file that exists is the lock, and one whose process has
ended on the same machine does not count.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brainlm_bids.errors import UserError

# With which a file system says that it has no locks.
NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
# Options of a mount of Lustre or NFS with which `flock` is not seen by other machines:
# mount.lustre(8), nfs(5).
ONE_MACHINE = frozenset({"localflock", "nolock", "local_lock=all", "local_lock=flock"})
# Where Linux lists what is mounted, and how: proc(5).
MOUNTS = Path("/proc/self/mountinfo")
# Seconds that a process waits for others.
PATIENCE = 300.0


class Held(UserError, TimeoutError):  # noqa: N818  (a state, not an error)
    """A lock that others hold for too long."""


def count_on_one_machine(mounts: str, device: tuple[int, int]) -> bool:
    """Whether the locks of a file system are not seen by other machines that have mounted it.

    Parameters
    ----------
    mounts
        Text of `/proc/self/mountinfo`.
    device
        Major and minor number of the file system.

    References
    ----------
    proc(5), "/proc/pid/mountinfo"

    >>> mounts = "36 35 0:52 / /scratch rw,relatime shared:1 - lustre mgs:/fs rw,localflock"
    >>> count_on_one_machine(mounts, (0, 52))
    True
    >>> count_on_one_machine(mounts.replace("local", ""), (0, 52))
    False
    """
    for line in mounts.splitlines():
        words = line.split()
        if words[2:3] == [f"{device[0]}:{device[1]}"] and "-" in words:
            options = {*words[5].split(","), *words[-1].split(",")}
            return bool(options & ONE_MACHINE)
    return False


def reach_others(path: Path) -> bool:
    """Whether `flock` on a file or folder that exists is seen by all machines that share it."""
    try:
        device = path.stat().st_dev
        mounts = MOUNTS.read_text(errors="replace")
    except OSError:  # no Linux
        return True
    return not count_on_one_machine(mounts, (os.major(device), os.minor(device)))


def acquire(path: Path, patience: float = PATIENCE) -> Any:
    """Take a lock, for as long as its `release` is not called.

    Parameters
    ----------
    path
        Of the lock, in a folder that exists.
    patience
        Seconds to wait for others; -1 for ever.

    Returns
    -------
    FileLock or SoftFileLock
        Held.

    Raises
    ------
    filelock.Timeout
        If another process holds it for longer.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    if reach_others(path.parent):
        lock = FileLock(path, timeout=patience)
        try:
            lock.acquire()
        except Timeout:
            raise
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        else:
            return lock
    # beside the file that an attempt has made
    soft = SoftFileLock(path.with_name(f"{path.name}.held"), timeout=patience)
    soft.acquire()
    return soft


@contextlib.contextmanager
def locked(path: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a lock.

    Raises
    ------
    Held
        If another process holds it for longer than `patience` seconds.
    """
    from filelock import Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = acquire(path, patience)
    except Timeout as error:
        raise Held(
            f"{error.lock_file}: another call has held this lock for {patience:g} s, although it "
            "is needed for milliseconds; end that call if it hangs, or remove the file if there "
            "is none, and repeat this one"
        ) from None
    try:
        yield
    finally:
        lock.release()
