"""The files of a raw BIDS data set that a call selects.

A data set and a selection come in; paths go out. Nothing is written into the data set.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.bids.dataset import read_description
from brainlm_bids.bids.filtered import Index, Kept, Scanned
from brainlm_bids.bids.left_out import (
    LeftOut,
    is_ignored,
    lonely_reason,
    one_of_each,
    read_bidsignore,
    why_left_out,
    why_never,
)
from brainlm_bids.bids.names import with_prefix
from brainlm_bids.bids.selection import Query, is_selected, read_filters, wanted_labels
from brainlm_bids.bids.tree import OnDisk, look_around
from brainlm_bids.bids.valid_names import is_valid
from brainlm_bids.errors import UserError
from brainlm_bids.files import check_readable
from brainlm_bids.settings import Settings
from brainlm_bids.values import did_you_mean

BOLD: Query = {"suffix": "bold"}
# Images beside the runs, by fMRIPrep's names for them in filter files.
OTHERS: dict[str, Query] = {
    "t1w": {"suffix": "T1w"},
    "fmap": {"datatype": "fmap"},
    "sbref": {"suffix": "sbref", "datatype": "func"},
}


class Selected(NamedTuple):
    """Files of the selection.

    Attributes
    ----------
    bold, t1w, fmap, sbref
        Sorted by their paths.
    left_out
        What looks like a run of the selection and is not taken.
    closed
        Folders that cannot be listed.
    every_bold
        Names of all that looks like a BOLD run of these participants.
    indexed
        BOLD images of these participants, whether they are of the selection or not.
    """

    bold: list[Path]
    t1w: list[Path]
    fmap: list[Path]
    sbref: list[Path]
    left_out: list[LeftOut]
    closed: list[Path]
    every_bold: list[str]
    indexed: list[Path]


def find_files(settings: Settings) -> Selected:
    """The BOLD runs of the selection, and the other images of their subjects.

    Raises
    ------
    UserError
        If BIDS_DIR is not a BIDS data set, or a requested participant does not exist.
    """
    _check_labels(settings)
    filters = read_filters(settings.bids_filter_file)
    wanted = wanted_labels(settings)
    there = look_around(settings.bids_dir, settings.output_dir, settings.participant_label)
    index = _index(settings, there)
    indexed = _of_participants(index.get(BOLD, None), settings)
    asked = indexed & set(index.get(BOLD, filters["bold"])) if "bold" in filters else indexed
    asked = {path for path in asked if is_selected(path.name, wanted)}
    rules = [] if settings.skip_bids_validation else read_bidsignore(settings.bids_dir)
    ignored = {path for path in (*asked, *there.bold) if is_ignored(path, settings.bids_dir, rules)}
    usable = sorted(path for path in asked - ignored if why_never(path) is None)
    bold, left_out = one_of_each(usable, settings.bids_dir)
    for path in sorted((asked | (set(there.bold) - indexed)) - set(usable)):
        if is_selected(path.name, wanted):
            left_out.append(LeftOut(path, _why(path, path in ignored, settings)))
    left_out += [
        LeftOut(path, lonely_reason(path))
        for path in there.lonely
        if is_selected(path.name, wanted)
    ]
    t1w, fmap, sbref = (
        sorted(_of_participants(index.get(query, filters.get(name)), settings))
        for name, query in OTHERS.items()
    )
    fmap, sbref, others = (
        [path for path in sorted(found) if not is_ignored(path, settings.bids_dir, rules)]
        for found in (fmap, sbref, indexed)
    )
    names = sorted({path.name for path in (*indexed, *there.bold)})
    return Selected(bold, t1w, fmap, sbref, left_out, there.closed, names, others)


def _why(path: Path, ignored: bool, settings: Settings) -> str:
    if ignored:
        return (
            f"{path.name}: .bidsignore names it; remove the pattern, or give --skip-bids-validation"
        )
    if settings.bids_database_dir is not None and is_valid(path, settings.bids_dir):
        return (
            f"{path.name}: is not in the index that --bids-database-dir keeps; delete the folder "
            "of the index, so that it is made again"
        )
    return why_never(path) or why_left_out(path, settings.bids_dir)


def _check_labels(settings: Settings) -> None:
    for label in settings.participant_label:
        if not (settings.bids_dir / f"sub-{label}").is_dir():
            there = [path.name[len("sub-") :] for path in settings.bids_dir.glob("sub-*")]
            raise UserError(
                f"--participant-label {label}: there is no folder sub-{label} in "
                f"{settings.bids_dir}{did_you_mean(label, there)}"
            )


def _index(settings: Settings, there: OnDisk) -> Index:
    """Images whose names are valid; all if they need not be."""
    if not settings.skip_bids_validation:
        _check_description(settings.bids_dir)
    if settings.bids_database_dir is not None:
        return Kept(settings)
    root = settings.bids_dir
    skip = settings.skip_bids_validation
    return Scanned([path for path in there.images if skip or is_valid(path, root)], settings)


def _check_description(bids_dir: Path) -> None:
    path = bids_dir / "dataset_description.json"
    if not path.exists() and not path.is_symlink():
        raise UserError(
            f"{bids_dir}: there is no dataset_description.json; is this the top of a BIDS data "
            "set? (--skip-bids-validation goes on without)"
        )
    if not read_description(bids_dir):
        check_readable(path)
        raise UserError(
            f"{path}: is not a valid JSON object; repair it, or go on without "
            "(--skip-bids-validation)"
        )


def _of_participants(paths: Iterable[Path], settings: Settings) -> set[Path]:
    """Those in the folders of the participants, which a kept index does not tell apart."""
    folders = {with_prefix("sub", label) for label in settings.participant_label}
    if not folders:
        return set(paths)
    return {path for path in paths if path.relative_to(settings.bids_dir).parts[0] in folders}
