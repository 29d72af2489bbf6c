"""The images of a data set that a query selects: by their names, or with PyBIDS' filters.

Paths and a query come in. Paths go out. PyBIDS takes seconds to import and a millisecond for each
file: it is asked where a filter file needs its entities and its rules, or an index of it is kept.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from brainlm_bids.bids.names import parse
from brainlm_bids.bids.selection import Query
from brainlm_bids.bids.tree import NIFTI, NO_RAW_DATA
from brainlm_bids.bids.valid_names import validator
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings

if TYPE_CHECKING:
    from bids import BIDSLayout

# Folders that PyBIDS takes as data types.
_DATATYPES = frozenset(
    "anat beh dwi eeg fmap func ieeg meg micr motion mrs nirs perf pet".split()  # noqa: SIM905
)


class Index(Protocol):
    """Images of a data set by kind."""

    def get(self, query: Query, filters: Query | None) -> list[Path]:
        """The images of a kind, sorted; filters: what a filter file adds to the query."""


class Scanned:
    """Images that were found in the folders of a data set.

    Parameters
    ----------
    paths
        Of NIfTI images.
    settings
        Of the call.
    """

    def __init__(self, paths: Sequence[Path], settings: Settings) -> None:
        self._paths = sorted(paths)
        self._settings = settings
        self._layout: BIDSLayout | None = None
        self._kinds = [(parse(path.name).suffix, self._datatype(path)) for path in self._paths]

    def _datatype(self, path: Path) -> str:
        folders = path.relative_to(self._settings.bids_dir).parts[:-1]
        return next((name for name in folders if name in _DATATYPES), "")

    def get(self, query: Query, filters: Query | None) -> list[Path]:
        """The images of a kind."""
        if not filters:
            wanted = (query.get("suffix"), query.get("datatype"))
            return [
                path
                for path, kind in zip(self._paths, self._kinds, strict=True)
                if all(a is None or a == b for a, b in zip(wanted, kind, strict=True))
            ]
        root = self._settings.bids_dir
        if self._layout is None:
            self._layout = _layout_of(self._paths, root)
        found = _ask(self._layout, query | filters, self._settings)
        return sorted(root / path.relative_to("/") for path in found)


class Kept:
    """Images in PyBIDS' index, which `--bids-database-dir` keeps."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._layout = _kept_layout(settings)

    def get(self, query: Query, filters: Query | None) -> list[Path]:
        """The images of a kind."""
        return sorted(_ask(self._layout, query | (filters or {}), self._settings))


def _ask(layout: "BIDSLayout", query: Mapping[str, object], settings: Settings) -> list[Path]:
    merged: dict[str, Any] = {"extension": list(NIFTI), **query}
    try:
        found = layout.get(return_type="filename", invalid_filters="allow", **merged)
    except (ValueError, TypeError) as error:
        raise UserError(f"--bids-filter-file {settings.bids_filter_file}: {error}") from error
    return [Path(path) for path in found]


def _layout_of(paths: Iterable[Path], root: Path) -> "BIDSLayout":
    """PyBIDS' layout of these files alone.

    It sees them as if the data set were at `/`: its patterns are searched in whole paths, so that a
    folder `func` above the data set would be taken as the data type of every file.
    """
    from bids import BIDSLayout, BIDSLayoutIndexer

    class OfPaths(BIDSLayoutIndexer):
        def _index_dir(self, path: Any, config: Any, force: Any = None) -> Any:
            entities = {name: one for each in config for name, one in each.entities.items()}
            places = (Path("/") / one.relative_to(root) for one in paths)
            indexed = [self._index_file(place, entities) for place in places]
            return [file for file, _ in indexed], [tag for _, tags in indexed for tag in tags]

    return BIDSLayout(root, validate=False, indexer=OfPaths(index_metadata=False))


def _kept_layout(settings: Settings) -> "BIDSLayout":
    from bids import BIDSLayout, BIDSLayoutIndexer

    # Sidecars are read run by run: PyBIDS stops at the first broken one, and takes three times as
    # long.
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


def _ignored(settings: Settings) -> Iterator[re.Pattern[str]]:
    """Folders that hold no raw data. The index serves other calls too, so it has every subject."""
    yield from (re.compile(f"^/{name}(/|$)") for name in NO_RAW_DATA)
    yield re.compile(r"/\.")
    if settings.output_dir.is_relative_to(settings.bids_dir):
        relative = settings.output_dir.relative_to(settings.bids_dir)
        yield re.compile("^/" + re.escape(relative.as_posix()) + "(/|$)")
