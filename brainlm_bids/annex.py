"""Files of git-annex and DataLad that are not there: which they are, and what gets them.

Paths come in. Keys of git-annex, folders of repositories and command lines go out. Nothing is run
here, and nothing is read but links and the first bytes of files.

git-annex keeps contents in `.git/annex/objects`. A file of the data set is a link to its content,
or, in a data set with unlocked files, a small file (a pointer) until the content is fetched.
"""

import contextlib
import errno
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_OBJECTS = "/annex/objects/"
_LONGEST_POINTER = 32 * 1024  # bytes, as in git-annex
_MOST_LINKS = 40  # that a path may lead through, as in Linux


def link_into_annex(path: Path) -> Path | None:
    """The link that leads to a content of git-annex; another path where `path` is a link to it.

    >>> link_into_annex(Path("/nowhere")) is None
    True
    """
    for _ in range(_MOST_LINKS):
        try:
            target = str(path.readlink())
        except OSError:  # no link
            return None
        if _OBJECTS in target:
            return path
        path = Path(os.path.normpath(path.parent.resolve() / target))
    return None


def pointer_key(content: bytes) -> str | None:
    """The key in a pointer file; None for another content.

    >>> pointer_key(b"/annex/objects/MD5E-s3--764e.tsv")
    'MD5E-s3--764e.tsv'
    >>> pointer_key(b"participant_id") is None
    True
    """
    if not content.startswith(_OBJECTS.encode()) or len(content) > _LONGEST_POINTER:
        return None
    first = content.split(b"\n", 1)[0].decode(errors="replace").strip()
    return first.rpartition("/")[2] or None


def annex_key(path: Path) -> str | None:
    """The key of git-annex that names the content of a file, by its link or its pointer.

    None for a file of another kind, and for an unlocked one whose content is there.
    """
    link = link_into_annex(path)
    return _key_of_pointer(path) if link is None else link.readlink().name


def _key_of_pointer(path: Path) -> str | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a data set has many small files
    except OSError:
        return None
    try:
        start = os.read(handle, len(_OBJECTS))
        if start == _OBJECTS.encode():
            start += os.read(handle, _LONGEST_POINTER)
    except OSError:  # a folder
        return None
    finally:
        os.close(handle)
    return pointer_key(start)


def size_of_key(key: str) -> int | None:
    """Bytes of the content that a key names; None for a key without a size.

    >>> size_of_key("MD5E-s2000000--44c0.nii.gz"), size_of_key("URL--http&c%%example.org")
    (2000000, None)
    """
    for field in key.partition("--")[0].split("-")[1:]:
        if field.startswith("s") and field[1:].isdecimal():
            return int(field[1:])
    return None


def is_absent(path: Path) -> bool:
    """Whether a file is one of git-annex whose content was not fetched."""
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            path.stat()
            return False
    except OSError as error:
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
        return gone and link_into_annex(path) is not None
    # a file that is larger than any pointer need not be opened
    is_small = stat.S_ISREG(found.st_mode) and found.st_size <= _LONGEST_POINTER
    return is_small and _key_of_pointer(path) is not None


def absent_among(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The files whose contents were not fetched, each once."""
    return tuple(path for path in dict.fromkeys(paths) if is_absent(path))


def annexed_place(path: Path) -> Path:
    """Where a file lies in its repository: not a link to it, and in no folder that is a link."""
    link = link_into_annex(path) or path
    return link.parent.resolve() / link.name


def repository(path: Path) -> Path | None:
    """The top folder of the git repository that a file lies in; None outside of any."""
    return next((folder for folder in path.parents if (folder / ".git").exists()), None)


def by_repository(paths: Iterable[Path]) -> dict[Path, list[str]]:
    """Top folder of each repository -> its files among those, relative to it, each once."""
    found: dict[Path, dict[str, None]] = {}
    for path in map(annexed_place, paths):
        top = repository(path)
        if top is not None:
            found.setdefault(top, {})[path.relative_to(top).as_posix()] = None
    return {top: list(names) for top, names in found.items()}


def get_command(paths: Iterable[Path], *options: str) -> str:
    """The command line that gets the contents of files, to be pasted into a shell; empty without.

    Parameters
    ----------
    paths
        Files in one repository or several; those outside of any are left out.
    *options
        Of `datalad get`.
    """
    return " && ".join(
        shlex.join(["datalad", "-C", str(top), "get", *options, *names])
        for top, names in by_repository(paths).items()
    )


# --- in words --------------------------------------------------------------------------------


def how_to_get(path: Path) -> str:
    """What is wrong with a file whose content is not there, and what to do, in one line."""
    command = get_command([path])
    if command:
        return f"has not been fetched (git-annex); get it: {command}"
    return outside_of_repository(path)


def outside_of_repository(path: Path) -> str:
    """What to do about an annexed file whose repository is not visible, as within a container."""
    link = link_into_annex(path)
    where = "it is a pointer of git-annex"
    if link is not None:
        target = os.path.normpath(link.parent.resolve() / link.readlink())
        where = f"it is a link into {target.partition(_OBJECTS)[0]}{_OBJECTS.rstrip('/')}"
    return (
        f"has not been fetched ({where}, and there is no such repository here); get it with "
        "`datalad get` where the data set is, or give the container all of it with its folder .git"
    )


def not_fetched(name: str, absent: Iterable[Path]) -> str:
    """What to say of a run some of whose files were not fetched, with the command that gets them.

    Parameters
    ----------
    name
        Of the run.
    absent
        Its files that are not there; one at least.
    """
    files = list(absent)
    outside = [path for path in files if repository(annexed_place(path)) is None]
    if outside:
        return f"{outside[0]}: {outside_of_repository(outside[0])}"
    what = "a file of it has" if len(files) == 1 else f"{len(files)} of its files have"
    return f"{name}: {what} not been fetched; give --datalad-get, or run: {get_command(files)}"


# --- subdatasets -----------------------------------------------------------------------------


def missing_subdatasets(folder: Path) -> list[Path]:
    """Subdatasets in a folder, or around it, that were never installed, so that they are empty.

    A folder in such a subdataset does not exist; its nearest folder that does is looked at.
    """
    real = folder.resolve()
    top = real if (real / ".git").exists() else repository(real)
    if top is None:
        return []
    return [
        path for path in _uninstalled(top) if path.is_relative_to(real) or real.is_relative_to(path)
    ]


def _uninstalled(top: Path) -> Iterator[Path]:
    """Registered subdatasets of a repository, and of those in it, that hold nothing."""
    for path in _registered(top):
        if (path / ".git").exists():
            yield from _uninstalled(path)
        elif not path.is_dir() or not any(path.iterdir()):
            yield path


def _registered(top: Path) -> Iterator[Path]:
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = (top / ".gitmodules").read_text(errors="replace").splitlines()
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and name.strip() == "path" and value.strip():
            yield top / value.strip().strip('"')


def not_installed(path: Path) -> str:
    """What to say of a subdataset that was never installed, with the command that installs it."""
    return (
        f"{path.name}: is a subdataset that is not installed; give --datalad-get, or run: "
        f"{get_command([path], '-n')}"
    )
