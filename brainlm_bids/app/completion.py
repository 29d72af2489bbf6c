"""`logs/complete/`: a file for each session, or participant without sessions, that is complete.

Workflow engines look for files that must be there, and know nothing of runs. A series or a report
says of one run, or of none, that it was computed; these files are there while all are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainlm_bids import files
from brainlm_bids.app.status import CACHED, DONE, FAILED
from brainlm_bids.bids.names import session_id, with_prefix
from brainlm_bids.bids.runs import Run
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings

if TYPE_CHECKING:
    from brainlm_bids.report.recordings import RecordingSummary

FOLDER = Path("logs", "complete")
COLUMNS = ("recording", "status")
Session = tuple[str, str]  # sub-01, ses-1; the second is empty where there are no sessions


def withdraw(output_dir: Path, runs: Iterable[Run]) -> None:
    """Remove the files of sessions of which runs are about to be computed.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    runs
        To be computed.
    """
    for run in runs:
        entities = run.entities
        if "sub" in entities:
            session = (with_prefix("sub", entities["sub"]), session_id(entities) or "")
            _file(output_dir, session).unlink(missing_ok=True)


def is_told(output_dir: Path, rows: Iterable[Mapping[str, str | None]]) -> bool:
    """Whether the sessions of a call are complete, and an earlier one got to its end with them.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    rows
        Of the call's status table.
    """
    sessions = {(row["participant_id"] or "", row["session_id"] or "") for row in rows}
    return all(_file(output_dir, one).exists() for one in sessions if one[0])


def tell_complete(settings: Settings, rows: Sequence[Mapping[str, str | None]]) -> None:
    """Bring the files of the sessions of a call up to date.

    Parameters
    ----------
    settings
        Of the call.
    rows
        Of its status table.
    """
    from brainlm_bids.report.index_table import read_table

    chosen = (settings.task_id, settings.run_id, settings.bids_filter_file, settings.timeseries)
    # a call about a part says nothing about the rest; one about all, that what it does not list
    # has been taken out of the data set
    others = (read_table(settings.output_dir) or []) if any(chosen) else []
    enter(settings.output_dir, rows, others)


def enter(
    output_dir: Path,
    rows: Sequence[Mapping[str, str | None]],
    known: Sequence[RecordingSummary],
) -> None:
    """Write the files of the sessions of a call that are complete, and remove those of the others.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    rows
        Of the call's status table.
    known
        Recordings that other calls have been about.
    """
    told = {row["recording"] for row in rows}
    sessions: dict[Session, list[tuple[str, str]]] = {}
    for row in rows:
        session = (row["participant_id"] or "", row["session_id"] or "")
        # what was there already is as good as what was computed now
        status = DONE if row["status"] == CACHED else row["status"] or ""
        sessions.setdefault(session, []).append((row["recording"] or "", status))
    for one in known:
        if one.stem not in told and (one.participant, one.session) in sessions:
            sessions[one.participant, one.session].append((one.stem, one.status))
    for session, recordings in sessions.items():
        path = _file(output_dir, session)
        if is_complete(status for _, status in recordings):
            _write(path, sorted(recordings))
        elif session[0]:
            path.unlink(missing_ok=True)


def _write(path: Path, recordings: Sequence[tuple[str, str]]) -> None:
    """Write the file of a session, unless it is there: a complete cohort has thousands."""
    with contextlib.suppress(UserError):
        if [(row["recording"], row["status"]) for row in files.read_rows(path)] == recordings:
            return
    files.write_tsv(path, COLUMNS, zip(*recordings, strict=True))


def is_complete(statuses: Iterable[str]) -> bool:
    """Whether recordings with these statuses leave nothing to do, and something was done.

    >>> is_complete(["done", "skipped"]), is_complete(["done", "failed"]), is_complete(["skipped"])
    (True, False, False)
    """
    found = set(statuses)
    return FAILED not in found and DONE in found


def _file(output_dir: Path, session: Session) -> Path:
    return output_dir / FOLDER / f"{'_'.join(part for part in session if part)}.tsv"
