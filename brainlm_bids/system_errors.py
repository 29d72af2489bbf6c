"""Errors of disks, memory and limits: no fault of the program, and told in one line.

What comes in: an exception. What goes out: the file or folder, the reason, and what to do.
"""

import errno
import os
import tempfile
import time
from pathlib import Path

# Bytes that are written to find out whether a disk takes anything: less than any image.
PROBE = 2**20
_FREE = "free some space"
_OPEN = "raise the limit of open files (ulimit -n)"
_NETWORK = "the file system lost it; see whether it is mounted"
# Why a file cannot be written although the program is right, and what to do.
CANNOT_WRITE = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: f"{_FREE}, or have the quota raised",
    errno.EFBIG: "raise the largest size of a file (ulimit -f)",
    errno.EROFS: "mount it writable, or give another folder",
    errno.EACCES: "change its permissions, or give another folder",
    errno.EPERM: "change its permissions, or give another folder",
    errno.EIO: "see whether the disk is damaged",
    errno.ENAMETOOLONG: "give a folder with a shorter name",
    errno.ESTALE: _NETWORK,
    errno.ENOTCONN: _NETWORK,
    errno.EREMOTEIO: _NETWORK,
    errno.ETIMEDOUT: _NETWORK,
    errno.EBUSY: "another program holds it",
    errno.ETXTBSY: "another program holds it",
}
# With which only writing is refused; with the others, reading may be.
ONLY_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ETXTBSY})
# With which network file systems refuse for a moment, and seconds between attempts.
FOR_A_MOMENT = frozenset({errno.EBUSY, errno.ESTALE, errno.ETXTBSY, errno.EAGAIN, errno.EINTR})
PAUSES = 0.1, 0.5, 2.0
# How the message of `tempfile` begins.
_NO_TEMPORARY = "No usable temporary directory found"
# What the system refuses whatever the file is.
LIMITS = {
    errno.EMFILE: _OPEN,
    errno.ENFILE: _OPEN,
    errno.ENOMEM: "give more memory, or use fewer processes (--nprocs)",
    errno.EAGAIN: "allow more processes (ulimit -u), or use fewer (--nprocs)",
}


def in_one_line(error: BaseException, otherwise: str = "a file") -> str | None:
    """What the system refused, and what to do; None for an error of another kind.

    Parameters
    ----------
    error
        Any.
    otherwise
        What the error is about where it names no file.

    >>> in_one_line(OSError(28, "No space left on device", "out/a.tsv"))
    'out/a.tsv: cannot be written (No space left on device); free some space'
    >>> in_one_line(OSError(5, "Input/output error", "in/a.tsv"))
    'in/a.tsv: cannot be read or written (Input/output error); see whether the disk is damaged'
    >>> in_one_line(OSError(24, "Too many open files"))
    'Too many open files; raise the limit of open files (ulimit -n)'
    >>> in_one_line(KeyError("x")) is None
    True
    """
    if isinstance(error, MemoryError):
        return f"out of memory; {LIMITS[errno.ENOMEM]}"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if str(error.strerror).startswith(_NO_TEMPORARY):
        return f"{error.strerror}; name one with the variable TMPDIR"
    if error.errno in CANNOT_WRITE:
        where = error.filename or otherwise
        deed = _deed(error.errno, Path(os.fsdecode(where)))
        return f"{where}: cannot be {deed} ({error.strerror}); {CANNOT_WRITE[error.errno]}"
    if error.errno in LIMITS:
        return f"{error.strerror}; {LIMITS[error.errno]}"
    return None


def _deed(number: int, where: Path) -> str:
    """What the system refused to do with a file, as far as its error and permissions tell."""
    if number in ONLY_WRITING:
        return "written"
    if number not in (errno.EACCES, errno.EPERM):
        return "read or written"
    if os.access(where, os.F_OK) and not os.access(where, os.R_OK):
        return "read"
    # a folder that may not be searched hides whether the file exists
    return "written" if os.access(where.parent, os.X_OK) else "read or written"


def refusal(folder: Path, size: int = PROBE) -> OSError | None:
    """The error with which a folder refuses a new file, found by writing one; None without one.

    Libraries tell a full disk or a quota in ways of their own, or not at all.

    Parameters
    ----------
    folder
        That exists.
    size
        Bytes to write.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(size))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return OSError(error.errno, error.strerror, str(folder))
    return None


def put_in_place(path: Path, target: Path) -> None:
    """Rename a file, and try it again if a network file system refuses it for a moment.

    Parameters
    ----------
    path, target
        In one folder; a file that is there is replaced.
    """
    for pause in PAUSES:
        try:
            path.replace(target)
        except OSError as error:
            if error.errno not in FOR_A_MOMENT:
                raise
        else:
            return
        time.sleep(pause)
        if target.exists() and not path.exists():
            return  # the answer was lost, not the request
    path.replace(target)
