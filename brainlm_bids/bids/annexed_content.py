"""The keys by which git-annex names the contents of files, whether these are there or not."""

import hashlib
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.annex import annex_key, pointer_key, repository, size_of_key

# Backends of git-annex whose keys are checksums that Python can compute.
_CHECKSUMS = ("MD5", "SHA1", "SHA224", "SHA256", "SHA384", "SHA512")
_LONGEST_POINTER = 4096  # bytes
_REMEMBERED = 100  # folders: those of a session, and above it


class Place(NamedTuple):
    """Where a folder is.

    Attributes
    ----------
    folder
        Its path, of which no part is a link.
    top
        The folder of the git repository that it is in; None outside of any.
    """

    folder: Path
    top: Path | None


class Places:
    """Where folders are, each looked up once, and what lies above several of them, too."""

    def __init__(self) -> None:
        self.of = lru_cache(_REMEMBERED)(self._find)

    def _find(self, folder: Path) -> Place:
        if folder == folder.parent or folder.name == ".." or folder.is_symlink():
            real = folder.resolve()
            place = Place(real, repository(real))
        else:
            above = self.of(folder.parent)
            place = Place(above.folder / folder.name, above.top)
        return Place(place.folder, place.folder) if (place.folder / ".git").exists() else place


def content_key(path: Path, places: Places | None = None) -> str:
    """The key of a file's content; empty where git-annex has none for what is there.

    A link tells it. For an unlocked file it is that of git's index, if the content is what the key
    names: the file may have been changed since.

    Parameters
    ----------
    path
        Of the file.
    places
        Of the folders that have been asked for.
    """
    key = annex_key(path)
    if key is not None:
        return key
    folder, top = (places or Places()).of(path.parent)
    if top is None or not (top / ".git" / "annex").is_dir():
        return ""
    place = folder / path.name
    key = pointer_key(_in_index(top, place.relative_to(top).as_posix()))
    return key if key is not None and _holds(place, key) else ""


def _in_index(top: Path, name: str) -> bytes:
    """The content of a file in git's index; empty for one that is too large to be a pointer."""
    command = ["git", "-C", str(top), "cat-file"]
    try:
        size = _output([*command, "-s", f":{name}"])
        small = size.strip().isdigit() and int(size) <= _LONGEST_POINTER
        return _output([*command, "-p", f":{name}"]) if small else b""
    except OSError:  # no git
        return b""


def _output(command: list[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=False).stdout


def _holds(path: Path, key: str) -> bool:
    """Whether a file holds what a key names; False where that cannot be told."""
    if size_of_key(key) != path.stat().st_size:
        return False
    backend = key.partition("-")[0].removesuffix("E")
    if backend not in _CHECKSUMS:
        return False
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, backend.lower()).hexdigest()
    return key.partition("--")[2].partition(".")[0] == digest
