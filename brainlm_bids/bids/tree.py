"""What the folders of a raw data set hold: its images, and whatever looks like a BOLD run.

A data set comes in and paths go out. Each folder is listed once, so that the time grows with the
number of files alone; of a call about some participants only their folders are listed.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.bids.names import parse, with_prefix

# Folders of a data set that hold no raw data.
NO_RAW_DATA = ("code", "stimuli", "sourcedata", "models", "derivatives", "phenotype")
NIFTI = (".nii", ".nii.gz")
OTHER_IMAGES = (".img", ".mgz", ".mgh", ".nii.bz2", ".nii.xz", ".nii.zst", ".mnc")
_BOLD = tuple(f"_bold{extension}" for extension in (*NIFTI, *OTHER_IMAGES))
# Levels of folders in a data set, more than any has: a link may lead anywhere.
_LEVELS = 12
_ABOUT_BOLD = ("_bold.json", "_events.tsv")

# Device and number of a folder: the same folder under two names has the same.
_Identity = tuple[int, int]


class OnDisk(NamedTuple):
    """What a folder holds.

    Attributes
    ----------
    images
        Files that end as NIfTI images do.
    bold
        Images that are named like BOLD runs, whatever else is wrong with them.
    lonely
        Sidecars and tables of events in folders `func` that hold no image of such a run.
    closed
        Folders that this user may not list.
    """

    images: list[Path]
    bold: list[Path]
    lonely: list[Path]
    closed: list[Path]


def look_around(bids_dir: Path, output_dir: Path, participants: Sequence[str]) -> OnDisk:
    """The images of a data set, and all that looks like BOLD runs, or like what belongs to one.

    Parameters
    ----------
    bids_dir
        The data set. Folders without raw data, and hidden ones, are left out. In other data sets
        within it nothing looks like a run, but their images are listed.
    output_dir
        Left out, too.
    participants
        Only the folders of these; everything if empty.
    """
    wanted = {with_prefix("sub", label) for label in participants}
    found = OnDisk([], [], [], [])
    above = frozenset(_identities(bids_dir))
    entries = [(name, True) for name in sorted(wanted)] or _entries(bids_dir, found)
    for name, is_folder in entries:
        if is_folder and name not in NO_RAW_DATA:
            _search(bids_dir / name, output_dir, found, above, _LEVELS, ours=True)
    _take(bids_dir, [one for one in entries if not one[1]], found, ours=True)
    return found


def _identities(bids_dir: Path) -> Iterator[_Identity]:
    """Of the data set and the folders that it lies in: a link to one of them is a circle."""
    top = bids_dir.resolve()
    for folder in (top, *top.parents):
        with contextlib.suppress(OSError):
            yield folder.stat().st_dev, folder.stat().st_ino


def _search(
    folder: Path,
    output_dir: Path,
    found: OnDisk,
    above: frozenset[_Identity],
    levels: int,
    *,
    ours: bool,
) -> None:
    """List a folder and those in it, so many levels; ours: it is not of another data set."""
    if folder == output_dir or levels == 0:
        return
    entries = _entries(folder, found)
    try:
        stat = folder.stat()
    except OSError:  # it has vanished since
        return
    if (stat.st_dev, stat.st_ino) in above:
        return  # a link in a circle
    names = [name for name, _ in entries]
    ours = ours and "dataset_description.json" not in names
    _take(folder, entries, found, ours=ours)
    if ours and folder.name == "func":
        found.lonely.extend(folder / name for name in _lonely(names))
    above |= {(stat.st_dev, stat.st_ino)}
    for name, is_folder in entries:
        if is_folder:
            _search(folder / name, output_dir, found, above, levels - 1, ours=ours)


def _take(folder: Path, entries: Sequence[tuple[str, bool]], found: OnDisk, *, ours: bool) -> None:
    for name, is_folder in entries:
        if name.endswith(NIFTI) and not is_folder:
            found.images.append(folder / name)
        if ours and name.lower().endswith(_BOLD):
            found.bold.append(folder / name)


def _entries(folder: Path, found: OnDisk) -> list[tuple[str, bool]]:
    """Names in a folder, hidden ones left out, and whether each is a folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted((one.name, _is_folder(one)) for one in entries if one.name[0] != ".")
    except OSError:
        found.closed.append(folder)
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _lonely(names: Sequence[str]) -> Iterator[str]:
    """The first of the files about a run of which there is no image."""
    there = set(names)
    about = [
        name
        for name in names
        if name.endswith(_ABOUT_BOLD)
        and not any(f"{name.rpartition('_')[0]}_bold{extension}" in there for extension in NIFTI)
    ]
    if not about:
        return
    extensions = (*NIFTI, *OTHER_IMAGES)
    images = [
        parse(name).entities.items()
        for name in names
        if name.lower().endswith(extensions) and parse(name).suffix not in ("sbref", "boldref")
    ]
    told = set()
    for name in about:
        entities, stem = parse(name).entities, parse(name).stem
        if stem not in told and not any(entities.items() <= one for one in images):
            told.add(stem)
            yield name
