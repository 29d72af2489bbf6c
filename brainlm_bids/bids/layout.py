"""The files of a raw BIDS data set that a call selects, found with PyBIDS.

A data set and a selection come in; paths go out. Nothing is written into the data set.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from brainlm_bids.bids.dataset import read_description
from brainlm_bids.bids.left_out import (
    NO_RAW_DATA,
    LeftOut,
    is_ignored,
    lonely_reason,
    look_for_bold,
    one_of_each,
    read_bidsignore,
    why_left_out,
    why_never,
)
from brainlm_bids.bids.names import with_prefix
from brainlm_bids.bids.selection import Query, is_selected, read_filters, wanted_labels
from brainlm_bids.bids.valid_names import is_valid, validator
from brainlm_bids.errors import UserError
from brainlm_bids.files import check_readable
from brainlm_bids.settings import Settings
from brainlm_bids.values import did_you_mean

if TYPE_CHECKING:
    from bids import BIDSLayout


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
    layout = _index(settings)
    filters = read_filters(settings.bids_filter_file)
    wanted = wanted_labels(settings)
    indexed = _of_participants(_query(layout, {}, "bold", {"suffix": "bold"}, settings), settings)
    asked = indexed
    if "bold" in filters:
        asked = indexed & set(_query(layout, filters, "bold", {"suffix": "bold"}, settings))
    asked = {path for path in asked if is_selected(path.name, wanted)}
    there = look_for_bold(settings.bids_dir, settings.output_dir, settings.participant_label)
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
        _query(layout, filters, name, query | _subjects(settings), settings)
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


def _index(settings: Settings) -> "BIDSLayout":
    from bids import BIDSLayout, BIDSLayoutIndexer

    if not settings.skip_bids_validation:
        _check_description(settings.bids_dir)
    # Sidecars are read run by run below: PyBIDS stops at the first broken one, and takes three
    # times as long.
    indexer = BIDSLayoutIndexer(ignore=list(_ignored(settings)), index_metadata=False)
    if not settings.skip_bids_validation:
        indexer.validator = validator()
    try:
        return BIDSLayout(
            settings.bids_dir,
            validate=False,  # of the description, which PyBIDS wants to be UTF-8
            indexer=indexer,
            database_path=settings.bids_database_dir,
        )
    except (ValueError, TypeError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{settings.bids_dir}: not readable as BIDS: {first}") from error


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


def _ignored(settings: Settings) -> Iterator[str | re.Pattern[str]]:
    """Folders that hold no raw data, and the subjects that nobody asked for."""
    yield from (re.compile(f"^/{name}(/|$)") for name in NO_RAW_DATA)
    yield re.compile(r"/\.")
    if settings.output_dir.is_relative_to(settings.bids_dir):
        relative = settings.output_dir.relative_to(settings.bids_dir)
        yield re.compile("^/" + re.escape(relative.as_posix()) + "(/|$)")
    # A kept index serves other calls too, so it holds every subject.
    if settings.participant_label and settings.bids_database_dir is None:
        labels = "|".join(re.escape(label) for label in settings.participant_label)
        yield re.compile(rf"^/sub-(?!(?:{labels})(?:/|$))")


def _of_participants(paths: Iterable[Path], settings: Settings) -> set[Path]:
    """Those in the folders of the participants; PyBIDS knows a label only up to a first hyphen."""
    folders = {with_prefix("sub", label) for label in settings.participant_label}
    if not folders:
        return set(paths)
    return {path for path in paths if path.relative_to(settings.bids_dir).parts[0] in folders}


def _subjects(settings: Settings) -> Query:
    if not settings.participant_label:
        return {}
    return {"subject": list(settings.participant_label)}


def _query(
    layout: "BIDSLayout",
    filters: dict[str, Query],
    name: str,
    query: Query,
    settings: Settings,
) -> list[Path]:
    extensions = [".nii.gz", ".nii"]
    merged = {"extension": extensions, **query, **filters.get(name, {})}
    try:
        found = layout.get(return_type="filename", invalid_filters="allow", **merged)
    except (ValueError, TypeError) as error:
        raise UserError(f"--bids-filter-file {settings.bids_filter_file}: {error}") from error
    return sorted(Path(path) for path in found)
