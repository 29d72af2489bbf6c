"""The files of source data sets as planning reads them: headers and sidecars, whole or not.

A run, its reference and its field map ask for the same files many times; each is read once.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from brainlm_bids.annex import annex_key, is_absent
from brainlm_bids.bids.annexed_content import Places, content_key
from brainlm_bids.bids.known_inputs import HEADER_BYTES, Known, KnownInputs, look_at
from brainlm_bids.bids.sidecars import Sidecars
from brainlm_bids.bids.tree import NIFTI
from brainlm_bids.files import reading
from brainlm_bids.image_files import checked_start, examined, open_image

# Headers that are remembered: more than the images of a session.
_REMEMBERED = 100
# Of NIfTI-1: its header, with the first byte that tells of extensions.
_START, _MAGIC = HEADER_BYTES + 4, slice(344, 348)


@dataclass(frozen=True)
class Head:
    """The header of a NIfTI-1 image, with what an image of nibabel tells of it.

    To make nibabel's image takes four times as long.
    """

    header: Any = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the stored array."""
        return tuple(self.header.get_data_shape())

    @cached_property
    def affine(self) -> Any:
        """(4, 4) voxel to mm: the sform if it is set, else the qform."""
        return self.header.get_best_affine()

    def get_data_dtype(self) -> Any:
        """Type of the stored values."""
        return self.header.get_data_dtype()

    @property
    def least_bytes(self) -> int:
        """Where the last voxel ends."""
        size = math.prod(self.shape) * self.get_data_dtype().itemsize
        return int(self.header.get_data_offset()) + size


def read_head(path: Path, start: bytes = b"") -> Any:
    """The header of an image: a `Head`, or nibabel's image where the format is another.

    Parameters
    ----------
    path
        Of the image.
    start
        What it begins with, if that has been read and checked.

    Raises
    ------
    Exception
        As nibabel does, of whatever kind.
    """
    found = _nifti1((start or checked_start(path))[:_START])
    return open_image(path) if found is None else found


def _nifti1(start: bytes) -> Head | None:
    """The header of a plain NIfTI-1 file; None for others, and for one in which anything is odd."""
    import nibabel as nb

    try:
        sizes = (HEADER_BYTES.to_bytes(4, order) for order in ("little", "big"))
        plain = (
            start[:4] in sizes and start[_MAGIC] == b"n+1\0" and start[HEADER_BYTES:] == bytes(4)
        )
        return Head(nb.Nifti1Header(start[:HEADER_BYTES])) if plain else None
    except Exception:  # nibabel says what is wrong
        return None


class SourceFiles:
    """Reads headers and sidecars once, and nothing of a file that a record vouches for.

    Parameters
    ----------
    records
        What is recorded of the files; None: nothing.
    """

    def __init__(self, records: KnownInputs | None = None) -> None:
        self._records = records
        self._known: dict[Path, Known] = {}
        self._present: set[Path] = set()
        self._beside: dict[Path, str] = {}
        self._sidecars: dict[Path, Sidecars] = {}
        # of images that have been checked: their first bytes; then the headers of NIfTI-1 files
        self._starts: dict[Path, bytes] = {}
        self._headers: dict[Path, bytes] = {}
        self._read = lru_cache(_REMEMBERED)(self._read_head)
        self._key_of = partial(content_key, places=Places())
        self.tables_of_times = lru_cache(_REMEMBERED)(_tables_of_times)

    def recall(self, stem: str) -> None:
        """Look up what is recorded of the files of a recording."""
        if self._records is not None:
            self._known |= self._records.recall(stem)
            self._beside |= self._records.beside(stem)

    def note(self, stem: str, paths: Iterable[Path], beside: Iterable[Path] = ()) -> None:
        """Record the files of a recording, all of which have a checksum by now.

        beside: images that they were chosen from.
        """
        if self._records is not None:
            known = {path: self._known[path] for path in paths}
            keys = {path: self._key_of(path) for path in beside if path not in known}
            keys = {path: key for path, key in keys.items() if key}
            self._records.note(stem, known, keys)

    def knows(self, path: Path) -> bool:
        """Whether a file is as it was when it was last read."""
        return path in self._known

    def absent_among(self, paths: Iterable[Path]) -> tuple[Path, ...]:
        """The files whose contents git-annex has not fetched, each once."""
        return tuple(path for path in dict.fromkeys(paths) if self.is_absent(path))

    def is_absent(self, path: Path) -> bool:
        """Whether a file is one of git-annex whose content was not fetched."""
        if path in self._known or path in self._present:
            return False
        if not is_absent(path):  # one that is absent may be fetched
            self._present.add(path)
            return False
        return path not in self._beside or annex_key(path) != self._beside[path]

    def head(self, path: Path) -> Any:
        """The header of an image; see `read_head`."""
        known = self._known.get(path)
        header = self._headers.get(path) if known is None else known.header
        return _head_of(header) if header else self._read(path)

    def _read_head(self, path: Path) -> Any:
        head = read_head(path, self._starts.pop(path, b""))
        if isinstance(head, Head):
            self._headers[path] = bytes(head.header.binaryblock)
        return head

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file's content. Raises UserError, naming it."""
        if path not in self._known:
            self._known[path] = look_at(path, self._header(path), self._key_of)
            if self._records is not None:
                self._records.compare(path, self._known[path])
        return self._known[path].sha256

    def _header(self, path: Path) -> bytes:
        if not path.name.endswith(NIFTI):
            return b""
        with reading(path):
            if path not in self._headers:
                self._read(path)
        return self._headers.get(path, b"")

    def sidecars(self, path: Path, root: Path) -> tuple[Path, ...]:
        """JSON files that hold for an image of a data set, the most general first."""
        return self._of(root).of(path)

    def metadata(self, path: Path, root: Path) -> dict[str, Any]:
        """The merged sidecars of an image of a data set; UserError names a broken one."""
        return self._of(root).metadata(path)

    def _of(self, root: Path) -> Sidecars:
        if root not in self._sidecars:
            self._sidecars[root] = Sidecars(root)
        return self._sidecars[root]

    def check(self, path: Path, *, whole: bool = False) -> int:
        """Raise UserError where a file cannot be used, as `check_image` does; its size."""
        known = self._known.get(path)
        if known is not None:
            return known.identity.size
        found = examined(path, whole=whole)
        if path not in self._headers:
            self._starts[path] = found.start
        return found.size

    def check_last_voxel(self, path: Path, size: int) -> None:
        """Raise UserError if an image ends before its last voxel.

        Parameters
        ----------
        path
            Of the image.
        size
            Bytes of it, decompressed, that were read without an error.
        """
        if path in self._known:
            return
        with reading(path):
            head = self.head(path)
            if not isinstance(head, Head) or size < head.least_bytes:
                open_image(path).dataobj[..., -1]


def _tables_of_times(folder: Path) -> list[Path]:
    """The tables `…_scans.tsv` in a folder."""
    try:
        names = sorted(one for one in os.listdir(folder) if one.endswith("_scans.tsv"))  # noqa: PTH208
    except OSError:  # it is not there, or may not be listed
        return []
    return [folder / name for name in names]


@lru_cache(_REMEMBERED)
def _head_of(header: bytes) -> Head:
    import nibabel as nb

    return Head(nb.Nifti1Header(header, check=False))  # it was checked before it was recorded
