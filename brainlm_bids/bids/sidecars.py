"""Sidecars of images, by BIDS' inheritance: which hold for an image, and what they record.

Those of a session, of a subject and of a whole data set hold for many images: folders are listed,
and files that several images share are read, once.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from brainlm_bids.bids.names import Name, parse
from brainlm_bids.files import read_json

# Folders and files that are remembered: those of a session and all above it, many times over.
_REMEMBERED = 200


class Sidecars:
    """The sidecars in a data set.

    Parameters
    ----------
    root
        The data set.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._list = lru_cache(_REMEMBERED)(_sidecars_in)
        self._read = lru_cache(_REMEMBERED)(read_json)
        self._above = lru_cache(_REMEMBERED)(self._folders)
        self._found = lru_cache(_REMEMBERED)(self._find)
        self._merged = lru_cache(_REMEMBERED)(self._merge)

    def of(self, path: Path) -> tuple[Path, ...]:
        """JSON files that hold for an image, the most general first."""
        return self._found(path)

    def metadata(self, path: Path) -> dict[str, Any]:
        """The merged sidecars of an image, the nearest wins; UserError names a broken one."""
        return dict(self._merged(path))

    def _find(self, path: Path) -> tuple[Path, ...]:
        image = parse(path.name)
        labels = image.entities.items()
        found: list[Path] = []
        for folder in self._above(path.parent):
            held = [
                (len(name.entities), file.name, file)
                for file, name in self._list(folder)
                if name.suffix == image.suffix and name.entities.items() <= labels
            ]
            found += [file for *_, file in sorted(held)]
        return tuple(found)

    def _folders(self, folder: Path) -> list[Path]:
        """A folder and those above it in the data set, the top first; none if it is not in it."""
        folders = [folder, *folder.parents]
        if self._root not in folders:
            return []
        return folders[: folders.index(self._root) + 1][::-1]

    def _merge(self, path: Path) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for file in self.of(path):
            metadata |= self._read(file)
        return metadata


def _sidecars_in(folder: Path) -> list[tuple[Path, Name]]:
    try:
        with os.scandir(folder) as entries:
            names = [(one.name, parse(one.name)) for one in entries if one.name.endswith(".json")]
    except OSError:  # it is not there, or may not be listed
        return []
    return [(folder / text, name) for text, name in names if name.extension == ".json"]


def sidecars(path: Path, bids_dir: Path) -> tuple[Path, ...]:
    """JSON files that hold for an image by BIDS' inheritance, the most general first."""
    return Sidecars(bids_dir).of(path)


def read_metadata(path: Path, bids_dir: Path) -> dict[str, Any]:
    """The merged sidecars of an image, the nearest wins; UserError names a broken one."""
    return Sidecars(bids_dir).metadata(path)
