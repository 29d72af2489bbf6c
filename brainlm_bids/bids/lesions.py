"""Lesion masks of a T1w image: which ones there are, and why others are not used.

They lie beside the T1w image, as fMRIPrep expects them (`sub-01_T1w_label-lesion_roi.nii.gz`), or
under the same subject in a folder of `derivatives` that is named after lesions.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.bids.headers import look_at_lesion_mask
from brainlm_bids.bids.names import Name, matches, parse
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.errors import UserError
from brainlm_bids.notices import Kind, Notice, notice

SUFFIXES = frozenset({"mask", "roi"})
# Labels by which a mask is one of lesions: `label-lesion`, `desc-lesion`, `desc-T1lesion`, …
LABEL = re.compile(r"(t1w?)?lesions?\d*", re.IGNORECASE)
# Entities that say what a mask is, and those of no T1w image.
OWN = frozenset({"label", "desc", "space", "hemi", "res"})
# Spaces that are those of the T1w image itself.
T1W_SPACES = frozenset({"", "orig", "t1w", "individual", "subject", "native", "scanner"})


class Lesions(NamedTuple):
    """The lesion masks of a T1w image.

    Attributes
    ----------
    paths
        Those that can be used; the lesion is their union.
    warnings
        Why others are not used.
    """

    paths: tuple[Path, ...] = ()
    warnings: tuple[Notice, ...] = ()


def is_lesion_mask(name: Name) -> bool:
    """Whether a name is that of a lesion mask.

    >>> is_lesion_mask(parse("sub-01_T1w_label-lesion_roi.nii.gz"))
    True
    >>> is_lesion_mask(parse("sub-01_desc-brain_mask.nii.gz"))
    False
    """
    labels = (name.get("label"), name.get("desc"))
    return name.suffix in SUFFIXES and any(LABEL.fullmatch(label) for label in labels)


def lesions_of(
    t1w: Path,
    bids_dir: Path,
    orientation: str | None = None,
    sources: SourceFiles | None = None,
    masks: Sequence[Path] | None = None,
) -> Lesions:
    """Find the lesion masks of a T1w image.

    Parameters
    ----------
    t1w
        The image, which can be read.
    bids_dir
        The data set that it is in.
    orientation
        Where the axes of images lead whose headers do not record it.
    sources
        Reads the files.
    masks
        All of its subject, as `masks_in` lists them; None: they are looked for.
    """
    sources = sources or SourceFiles()
    found, warnings = [], []
    for path in masks_in(bids_dir, parse(t1w.name).subject) if masks is None else masks:
        problem = _problem(path, t1w, orientation, sources)
        if problem is None:
            found.append(path)
            continue
        text = f"{problem}. The registration goes on without this lesion mask."
        warnings.append(notice(Kind.LESION_MASK_UNUSED, text))
    return Lesions(tuple(found), tuple(warnings))


def masks_of(t1w: Path, masks: Iterable[Path]) -> list[Path]:
    """Those of the masks of a subject that by their names are of lesions of a T1w image."""
    return [path for path in masks if _misnamed(path, t1w) is None]


def masks_in(bids_dir: Path, subject: str) -> list[Path]:
    """All lesion masks of a subject such as `sub-01`, of whichever T1w image, sorted."""
    return sorted(_masks(subject, bids_dir))


def _masks(subject: str, bids_dir: Path) -> Iterator[Path]:
    derived = bids_dir / "derivatives"
    others = [name for name in _names_in(derived) if "lesion" in name.lower()]
    for folder in (bids_dir / subject, *(derived / name / subject for name in others)):
        sessions = [folder / name for name in _names_in(folder) if name.startswith("ses-")]
        for anat in (one / "anat" for one in (folder, *sessions)):
            for name in _names_in(anat):
                if ".nii" in name and is_lesion_mask(parse(name)):
                    yield anat / name


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:  # it is not there, is no folder, or may not be listed
        return []


def _problem(path: Path, t1w: Path, orientation: str | None, sources: SourceFiles) -> str | None:
    """Why a mask is not used, in one line; None if it is."""
    misnamed = _misnamed(path, t1w)
    if misnamed is not None:
        return misnamed
    if sources.knows(path) and sources.knows(t1w):
        return None  # it was used before
    try:
        sources.check(path, whole=True)
    except UserError as error:
        return str(error).rstrip(".")
    return look_at_lesion_mask(path, t1w, orientation).problem


def _misnamed(path: Path, t1w: Path) -> str | None:
    """Why a mask is not one of a T1w image, by its name; None if it is."""
    mask, image = parse(path.name), parse(t1w.name)
    space = mask.get("space")
    if space.lower() not in T1W_SPACES:
        return f"{path.name}: is in {space} space, not in that of the T1w image"
    named = {entity: [label] for entity, label in mask.entities.items() if entity not in OWN}
    if mask.get("ses") != image.get("ses") or not matches(image.entities, named):
        return f"{path.name}: is not a mask of the T1w image that is used, {t1w.name}"
    return None
