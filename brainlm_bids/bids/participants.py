"""Tables of people: a row per participant, or per participant and session.

Tables come in; columns of variables go out, a text per recording, and notices of rows that could
not be used as they are. One bad row costs the values of its participant, never the table.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from brainlm_bids.bids.identifiers import match_ids
from brainlm_bids.bids.names import parse, with_prefix, without_prefix
from brainlm_bids.bounds import check_columns
from brainlm_bids.cells import is_missing
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_text, reading
from brainlm_bids.notices import Kind, Notice, notice

Columns = dict[str, list[str | None]]
PARTICIPANT, SESSION = "participant_id", "session_id"
# Names that people give to the column of sessions. It is one only if its labels are sessions of the
# recordings; BIDS' own name always is.
OTHER_SESSIONS = ("session", "ses", "ses_id", "visit", "visit_id", "timepoint", "wave")


class Variables(NamedTuple):
    """Columns of tables of people.

    Attributes
    ----------
    columns
        By name, a text per recording; None where the tables say nothing of a recording, or
        contradict themselves.
    notices
        What is wrong with rows of the tables.
    levels
        Values that a JSON file beside a table declares as categories, by the name of the column.
    measured
        Columns of numbers, because such a file gives their `Units` and no `Levels`.
    """

    columns: Columns
    notices: tuple[Notice, ...]
    levels: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    measured: frozenset[str] = frozenset()


class _Table(NamedTuple):
    """A table as read: the rows of each participant, with the session that they are about."""

    path: Path
    names: list[str]
    rows: dict[str, list[tuple[str | None, Mapping[str, str]]]]
    notices: list[Notice]


def read_variables(
    bids_dir: Path | None, phenotype: Path | None, stems: Sequence[str], *, needed: bool = True
) -> Variables:
    """Columns of participants.tsv and of a phenotype file, a value per recording.

    Rows are matched by participant and, where the table has a column of sessions and the recording
    a session, by that. Several rows about the same recording count as one if they agree; a value
    about which they do not is left out. A column in both files is that of the phenotype file.

    Parameters
    ----------
    bids_dir
        The folder that participants.tsv is looked for in, if any.
    phenotype
        Another table.
    stems
        Names of the recordings.
    needed
        Whether a column was asked for. Otherwise a table that cannot be read is only a notice.

    Raises
    ------
    UserError
        For a file that is no such table, if it is needed.
    """
    participants = None if bids_dir is None else bids_dir / "participants.tsv"
    # a link to what was never fetched is a table that cannot be read, not the lack of one
    if participants is not None and not (participants.exists() or participants.is_symlink()):
        participants = None
    paths = [path for path in (participants, phenotype) if path is not None]
    columns: Columns = {}
    levels: dict[str, tuple[str, ...]] = {}
    measured: set[str] = set()
    notices: list[Notice] = []
    for path in paths:
        try:
            table = _read(path, stems)
        except UserError as error:
            if needed:
                raise
            text = f"{error}; no column of it was asked for, so it is not used."
            notices.append(notice(Kind.PARTICIPANTS_UNCLEAR, text))
            continue
        ours = list(dict.fromkeys(parse(stem).entities.get("sub", "") for stem in stems))
        unmatched = _rename(table, ours)
        if unmatched and needed and path == paths[-1]:
            raise UserError(unmatched)
        if unmatched:
            table.notices.append(notice(Kind.PARTICIPANTS_UNCLEAR, f"{unmatched}."))
        columns |= _matched(table, stems)
        declared = _declarations(path)
        levels |= {name: _levels(declared.get(name, {})) for name in table.names}
        measured -= set(table.names)
        measured |= {name for name in table.names if _has_unit(declared.get(name, {}))}
        notices += table.notices
    return Variables(
        columns,
        tuple(notices),
        {name: of for name, of in levels.items() if of},
        frozenset(measured),
    )


def _declarations(path: Path) -> dict[str, dict[str, Any]]:
    """What the JSON file beside a table says of columns; nothing, if it cannot be read."""
    sidecar = path.with_suffix(".json")
    try:
        content = read_json(sidecar) if sidecar.is_file() else {}
    except UserError:
        return {}
    return {name: one for name, one in content.items() if isinstance(one, dict)}


def _levels(declared: Mapping[str, Any]) -> tuple[str, ...]:
    levels = declared.get("Levels")
    return tuple(map(str, levels)) if isinstance(levels, dict | list) else ()


def _has_unit(declared: Mapping[str, Any]) -> bool:
    unit = declared.get("Units")
    return isinstance(unit, str) and not is_missing(unit) and not _levels(declared)


# --- reading ---------------------------------------------------------------------------------


def _read(path: Path, stems: Sequence[str]) -> _Table:
    text = read_text(path)
    check_columns(path, text.encode(errors="replace"))
    with reading(path):
        lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
        cells = [[cell.strip() for cell in line] for line in lines]
    filled = [line for line in cells if any(line)]
    header, body = (filled or [[]])[0], filled[1:]
    if PARTICIPANT not in header or not body:
        raise UserError(f"{path}: has no column {PARTICIPANT}, or no rows")
    twice = next((name for name, n in Counter(header).items() if name and n > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two columns are called {twice!r}")
    table = _Table(path, header, {}, [])
    by = _session_column(header, body, stems)
    _add_rows(table, body, None if by is None else header[by])
    names = [name for name in header if name and name != PARTICIPANT]
    return table._replace(names=[name for name in names if by is None or name != header[by]])


def _add_rows(table: _Table, body: Sequence[Sequence[str]], sessions: str | None) -> None:
    """Sort the rows by participant; notices tell of those that cannot be."""
    width = len(table.names)
    long, nameless = [], 0
    for line in body:
        if any(line[width:]):
            long.append(line[0])
            continue
        # spreadsheets leave out what is empty at the end of a row
        row = dict(zip(table.names, [*line, *[""] * (width - len(line))], strict=False))
        if is_missing(row[PARTICIPANT]):
            nameless += 1
            continue
        session = "" if sessions is None else row[sessions]
        label = None if is_missing(session) else without_prefix("ses", session)
        participant = without_prefix("sub", row[PARTICIPANT])
        table.rows.setdefault(participant, []).append((label, row))
    if long:
        text = f"{table.path}: rows with more cells than columns are not used: {_some(long)}."
        table.notices.append(notice(Kind.PARTICIPANTS_UNCLEAR, text))
    if nameless:
        text = f"{table.path}: {nameless} rows without {PARTICIPANT} are not used."
        table.notices.append(notice(Kind.PARTICIPANTS_ROWS, text))


def _session_column(
    header: Sequence[str], body: Sequence[Sequence[str]], stems: Sequence[str]
) -> int | None:
    """The place of the column that tells the session of a row."""
    if SESSION in header:
        return header.index(SESSION)
    known = {parse(stem).entities.get("ses") for stem in stems}
    for name in OTHER_SESSIONS:
        place = header.index(name) if name in header else None
        if place is not None:
            labels = {without_prefix("ses", line[place]) for line in body if len(line) > place}
            if labels & known:
                return place
    return None


# --- matching --------------------------------------------------------------------------------


def _rename(table: _Table, ours: Sequence[str]) -> str:
    """Give the participants of a table the labels that the recordings have for them.

    Returns what is wrong if none of them is known; a notice tells of ids in another spelling.
    """
    theirs = list(table.rows)
    found = match_ids(ours, theirs)
    if not found:
        return (
            f"{table.path}: no {PARTICIPANT} matches a recording; those of the table are "
            f"{_some(theirs)}, those of the recordings {_some(ours, 'sub')}"
        )
    other = {label: spelled for label, spelled in found.items() if label != spelled}
    for label, spelled in other.items():
        table.rows[label] = table.rows.pop(spelled)
    if other:
        pairs = _some(f"{spelled!r} is sub-{label}" for label, spelled in other.items())
        text = f"{table.path}: participants are matched in another spelling: {pairs}."
        table.notices.append(notice(Kind.PARTICIPANTS_ROWS, text))
    return ""


def _matched(table: _Table, stems: Sequence[str]) -> Columns:
    columns: Columns = {name: [] for name in table.names}
    repeated: list[str] = []
    unclear: dict[str, set[str]] = {}
    for stem in stems:
        entities = parse(stem).entities
        participant, session = entities.get("sub", ""), entities.get("ses")
        rows = _rows_about(table, participant, session)
        if len(rows) > 1:
            repeated.append(participant)
        for name in table.names:
            values = list(dict.fromkeys(row[name] for row in rows))
            told = [value for value in values if not is_missing(value)]
            if len(told) > 1:
                unclear.setdefault(participant, set()).add(name)
            columns[name].append(None if len(told) > 1 else next(iter(told or values), None))
    _tell(table, [one for one in repeated if one not in unclear], unclear)
    return columns


def _rows_about(table: _Table, participant: str, session: str | None) -> list[Mapping[str, str]]:
    """The rows about a recording: of its session or of none, if there are sessions."""
    rows = table.rows.get(participant, [])
    if session is None:
        return [row for _, row in rows]
    return [row for label, row in rows if label in (None, session)]


def _tell(table: _Table, repeated: Sequence[str], unclear: Mapping[str, set[str]]) -> None:
    if repeated:
        text = f"{table.path}: more than one row, which agree, for {_some(repeated, 'sub')}."
        table.notices.append(notice(Kind.PARTICIPANTS_ROWS, text))
    if unclear:
        concerned = sorted(set().union(*unclear.values()))
        text = (
            f"{table.path}: the rows of {_some(unclear, 'sub')} contradict each other in "
            f"{_some(concerned)}; these values are left out. Give one row per participant, or per "
            f"participant and {SESSION}."
        )
        table.notices.append(notice(Kind.PARTICIPANTS_UNCLEAR, text))


def _some(labels: Iterable[str], entity: str = "") -> str:
    """The first few of some labels, each once, and how many more there are.

    >>> _some("abcdef")
    'a, b, c, d and 2 more'
    """
    every = list(dict.fromkeys(labels))
    shown = [with_prefix(entity, label) if entity else label for label in every[:4]]
    more = f" and {len(every) - 4} more" if len(every) > 4 else ""
    return ", ".join(shown) + more
