"""The index of an output folder: `index.html`, `index.tsv` and `index.json`.

A call leaves a note of its recordings, and whoever holds the lock enters all notes that lie there:
the jobs of an array neither read the folder each, nor wait for one page per job. The rows of the
subjects of a note are made from their files; the others stay as they are. What results does not
depend on the order of the jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from brainlm_bids import files
from brainlm_bids.bids.dataset import NOT_IN_BIDS_YET, ignore
from brainlm_bids.bids.derivatives import OfParticipant
from brainlm_bids.bids.names import without_prefix
from brainlm_bids.locks import locked
from brainlm_bids.report.index_page import build_page
from brainlm_bids.report.index_table import (
    done_in_table,
    from_row,
    is_recording,
    read_table,
    status_row,
    to_row,
    write_table,
)
from brainlm_bids.report.places import INDEX, refresh
from brainlm_bids.report.recordings import RecordingSummary, gather_recordings
from brainlm_bids.report.status import COLUMNS
from brainlm_bids.report.values import Row, read_json

# Seconds that a call waits for others that write the index
PATIENCE = 300


def note_call(
    output_dir: Path,
    run_id: str,
    subjects: Sequence[str],
    rows: Sequence[Mapping[str, str | None]] = (),
) -> None:
    """Leave a note of a call's recordings for the index.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    run_id
        Of the call.
    subjects
        Whose files it may have changed, with or without "sub-".
    rows
        Of its status table.
    """
    kept = [{key: row.get(key) or "" for key in COLUMNS} for row in rows if is_recording(row)]
    values = {"Subjects": sorted(set(subjects)), "Rows": kept}
    files.write_json(_notes(output_dir) / f"{run_id}.json", values)


def update_index(output_dir: Path, subjects: Sequence[str], *, version: str) -> Path:
    """Enter the notes of finished calls, and let the pages of a call's subjects lead to the index.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    subjects
        Of the call, with or without "sub-".
    version
        Version of this program, shown in the page.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    locks.Held
        If other calls held the lock for too long; the notes stay, and the next call enters them.
    """
    page = output_dir / INDEX
    with _lock(output_dir):
        is_new, notes = not page.is_file(), _read_notes(output_dir)
        known = None if is_new else read_table(output_dir)
        if known is None:
            _write(output_dir, gather_recordings(output_dir), version)
        elif (entered := _entered(output_dir, known, list(notes.values()))) != known:
            _write(output_dir, entered, version)
        _remove(notes)
    refresh(output_dir, None if is_new else subjects)
    return page


def entered_as_done(output_dir: Path) -> set[str]:
    """Recordings that the index has as done; none where notes wait, or there is no such index."""
    if not (output_dir / INDEX).is_file() or any(_notes(output_dir).glob("*.json")):
        return set()
    return done_in_table(output_dir)


def rebuild_index(output_dir: Path, *, version: str) -> Path:
    """Make the index anew from all files of the folder.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    version
        Version of this program, shown in the page.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    locks.Held
        If other calls held the lock for too long.
    """
    with _lock(output_dir):
        notes = _read_notes(output_dir)  # their calls have written everything before them
        _write(output_dir, gather_recordings(output_dir), version)
        _remove(notes)
    refresh(output_dir)
    return output_dir / INDEX


# --- notes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Note:
    """Subjects and rows of the status table of a call."""

    subjects: frozenset[str]
    rows: tuple[Row, ...]


def _notes(output_dir: Path) -> Path:
    return output_dir / "logs" / "index"


def _read_notes(output_dir: Path) -> dict[Path, _Note]:
    """The notes that lie there, in the order of their calls; a broken one says nothing."""
    found = {}
    for path in sorted(_notes(output_dir).glob("*.json")):
        values = read_json(path)
        subjects, rows = values.get("Subjects", []), values.get("Rows", [])
        labels = frozenset(without_prefix("sub", str(one)) for one in subjects)
        found[path] = _Note(labels, tuple(row for row in rows if isinstance(row, dict)))
    return found


def _remove(notes: Mapping[Path, _Note]) -> None:
    for path in notes:
        path.unlink(missing_ok=True)


def _entered(
    output_dir: Path, known: Sequence[RecordingSummary], notes: Sequence[_Note]
) -> list[RecordingSummary]:
    """The recordings of the table, with those of the notes' subjects made anew."""
    labels = {label for note in notes for label in note.subjects}
    if not labels:
        return list(known)
    others, rows = [], {}
    for one in known:
        if without_prefix("sub", one.participant) in labels:
            rows[one.stem] = status_row(one)
        else:
            others.append(one)
    for note in notes:
        rows |= {row["recording"]: row for row in note.rows}
    made = gather_recordings(output_dir, OfParticipant(tuple(sorted(labels))), rows)
    return _as_read([*others, *made])


def _as_read(recordings: Sequence[RecordingSummary]) -> list[RecordingSummary]:
    """As they are read from the table again, so that the page is the same whoever writes it."""
    return sorted((from_row(to_row(one)) for one in recordings), key=lambda one: one.place)


def _lock(output_dir: Path) -> AbstractContextManager[None]:
    """The lock of the index: not that of the data set, which others need meanwhile."""
    return locked(output_dir / "logs" / ".index.lock", PATIENCE)


def _write(output_dir: Path, recordings: Sequence[RecordingSummary], version: str) -> None:
    recordings = _as_read(recordings)
    ignore(output_dir, NOT_IN_BIDS_YET)
    write_table(output_dir, recordings, version)
    files.write_text(output_dir / INDEX, build_page(output_dir, recordings, version=version))
