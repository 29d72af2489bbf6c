"""Errors of disks, memory and limits: no fault of the program, and told in one line.

What comes in: an exception. What goes out: the file or folder, the reason, and what to do.
"""

import errno
import os
import stat
import tempfile
import time
from pathlib import Path

from brainlm_bids.temporary import PREFIX

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
# Those of them that reading never meets.
ONLY_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ETXTBSY})
# With which a disk, or the server of a network file system, does not give a file that is there.
LOST = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO, errno.ETIMEDOUT})
# What to do where a file cannot be read; otherwise as above.
CANNOT_READ = CANNOT_WRITE | dict.fromkeys((errno.EACCES, errno.EPERM), "change its permissions")
# The note in an error that was met while a file was written.
WRITING = "(while this file was written)"
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
        What cannot be written where the error names no file.

    >>> in_one_line(OSError(28, "No space left on device", "out/a.tsv"))
    'out/a.tsv: cannot be written (No space left on device); free some space'
    >>> in_one_line(OSError(5, "Input/output error"))
    'a file: cannot be read or written (Input/output error); see whether the disk is damaged'
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
        name = _name(error)
        done = _what_failed(error, name)
        remedies = CANNOT_READ if done == "read" else CANNOT_WRITE
        where = name or (otherwise if done == "written" else "a file")
        return f"{where}: cannot be {done} ({error.strerror}); {remedies[error.errno]}"
    if error.errno in LIMITS:
        return f"{error.strerror}; {LIMITS[error.errno]}"
    return None


def _name(error: OSError) -> str | None:
    """Of the file of an error, which may also be the number of an open one."""
    named = isinstance(error.filename, str | bytes | os.PathLike)
    return os.fsdecode(error.filename) if named else None


def _what_failed(error: OSError, name: str | None) -> str:
    """What was done with the file of an error: it was "read", "written", or one of the two.

    The system tells neither. Our writers do; of other files it is seen whether they can be read.
    """
    if error.errno in ONLY_WRITING or WRITING in getattr(error, "__notes__", ()):
        return "written"
    if name is None:
        return "read or written"
    try:
        _read_a_little(name)
    except FileNotFoundError:
        return "written"
    except OSError as found:
        return "read" if found.errno == error.errno and _is_there(name) else "read or written"
    return "read or written" if os.access(name, os.W_OK, effective_ids=True) else "written"


def _read_a_little(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # also of a pipe that nobody writes to
    try:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            os.scandir(handle).close()
        else:
            os.read(handle, 1)
    finally:
        os.close(handle)


def _is_there(path: str) -> bool:
    """Whether the folder of a file can be searched, so that it is the file that cannot be read."""
    try:
        os.lstat(path)
    except OSError as found:
        return found.errno != errno.EACCES
    return True


def name_written(error: OSError, path: Path) -> None:
    """Name the file that was being written in an error, unless the error is about another file.

    Parameters
    ----------
    error
        Whose number is in `CANNOT_WRITE`.
    path
        That was being written, by way of a temporary file beside it.
    """
    named = Path(_name(error) or path)
    ours = named == path or named in path.parents or named.name.startswith(PREFIX)
    if ours or error.errno in ONLY_WRITING:
        error.filename = str(path)
        error.add_note(WRITING)


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
        found = OSError(error.errno, error.strerror, str(folder))
        found.add_note(WRITING)
        return found
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
