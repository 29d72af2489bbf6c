"""The files of a raw BIDS data set that a call selects, found with PyBIDS.

A data set and a selection come in; paths go out. Nothing is written into the data set.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from brainlm_bids.bids.dataset import read_description
from brainlm_bids.bids.names import matches, parse, without_prefix
from brainlm_bids.errors import UserError
from brainlm_bids.files import check_readable, read_json
from brainlm_bids.settings import Settings
from brainlm_bids.values import did_you_mean

if TYPE_CHECKING:
    from bids import BIDSLayout

# Entities as PyBIDS calls them, with labels; or the content of --bids-filter-file for one kind.
Query = dict[str, object]


class Selected(NamedTuple):
    """Files of the selection.

    Attributes
    ----------
    bold, t1w
        Sorted by their paths.
    every_bold
        Names of all BOLD files of the data set, where none is selected.
    """

    bold: list[Path]
    t1w: list[Path]
    every_bold: list[str]


def find_files(settings: Settings) -> Selected:
    """The BOLD runs of the selection, and the T1w images of their subjects.

    Raises
    ------
    UserError
        If BIDS_DIR is not a BIDS data set, or a requested participant does not exist.
    """
    _check_labels(settings)
    layout = _index(settings)
    filters = _read_filters(settings.bids_filter_file)
    bold = _query(layout, filters, "bold", {"suffix": "bold", **_selection(settings)}, settings)
    if not bold:
        every = _query(layout, {}, "bold", {"suffix": "bold"}, replace(settings, run_id=()))
        return Selected([], [], [path.name for path in every])
    t1w = _query(layout, filters, "t1w", {"suffix": "T1w", **_subjects(settings)}, settings)
    return Selected(bold, t1w, [])


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
    indexer = BIDSLayoutIndexer(
        validate=not settings.skip_bids_validation,
        ignore=list(_ignored(settings)),
        index_metadata=False,
    )
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
    if not path.is_file():
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
    yield from ("code", "stimuli", "sourcedata", "models", "derivatives", "phenotype")
    yield re.compile(r"/\.")
    if settings.output_dir.is_relative_to(settings.bids_dir):
        relative = settings.output_dir.relative_to(settings.bids_dir)
        yield re.compile("^/" + re.escape(relative.as_posix()) + "(/|$)")
    # A kept index serves other calls too, so it holds every subject.
    if settings.participant_label and settings.bids_database_dir is None:
        labels = "|".join(re.escape(label) for label in settings.participant_label)
        yield re.compile(rf"^/sub-(?!(?:{labels})(?:/|$))")


def _subjects(settings: Settings) -> Query:
    if not settings.participant_label:
        return {}
    return {"subject": list(settings.participant_label)}


def _selection(settings: Settings) -> Query:
    chosen = _subjects(settings)
    for key, entity, labels in (
        ("session", "ses", settings.session_label),
        ("task", "task", settings.task_id),
    ):
        if labels:
            chosen[key] = [without_prefix(entity, label) for label in labels]
    return chosen


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
    paths = sorted(Path(path) for path in found)
    if name == "bold" and settings.run_id:
        # not in the query: runs are compared as numbers, --run-id 1 means run-1 and run-01
        wanted = {"run": settings.run_id}
        paths = [path for path in paths if matches(parse(path.name).entities, wanted)]
    return paths


def _read_filters(path: Path | None) -> dict[str, Query]:
    if path is None:
        return {}
    try:
        filters = read_json(path)
    except UserError as error:
        raise UserError(f"--bids-filter-file {error}") from None
    if not all(isinstance(value, dict) for value in filters.values()):
        raise UserError(f'--bids-filter-file {path}: expected {{"bold": {{…}}, "t1w": {{…}}}}')
    unknown = sorted(set(filters) - {"bold", "t1w"})
    if unknown:
        raise UserError(f'--bids-filter-file {path}: {unknown[0]!r} is neither "bold" nor "t1w"')
    return filters
