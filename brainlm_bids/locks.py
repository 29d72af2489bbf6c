"""Locks of files that calls share, also on file systems that have none.

Processes take turns by `flock`, which the system releases when a process ends, however it ends.
Some network file systems do not support it, or have lost the service for it: there, a file that
exists is the lock, and one whose process has ended on the same machine does not count.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brainlm_bids.errors import UserError

# With which a file system says that it has no locks.
NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
# Seconds that a process waits for others.
PATIENCE = 300.0


class Held(UserError, TimeoutError):  # noqa: N818  (a state, not an error)
    """A lock that others hold for too long."""


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

    lock = FileLock(path, timeout=patience)
    try:
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        # beside the file that the attempt has made
        lock = SoftFileLock(path.with_name(f"{path.name}.held"), timeout=patience)
        lock.acquire()
    return lock


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
