"""`index.tsv` and `index.json`: a row for every recording of an output folder.

Recordings go out as texts and come back the same, so that a table which is changed row by row, in
any order, is the one that is made at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlm_bids import files
from brainlm_bids.bids.names import GROUP
from brainlm_bids.bids.quality import REGISTRATION_COLUMNS
from brainlm_bids.report.measured import DIGITS
from brainlm_bids.report.measures import (
    Range,
    fixed_limit,
    is_measure,
    measure,
    outliers,
    rule,
    static_measures,
)
from brainlm_bids.report.recordings import DONE, RecordingSummary, measures_of
from brainlm_bids.report.values import Row, as_float, read_json, read_tsv, without_na

TABLE, SIDECAR = "index.tsv", "index.json"
# Column -> what it holds. `outliers` follows from the numbers of all recordings.
_TEXTS = {
    "recording": "How the names of the recording's files begin",
    "participant_id": "Participant",
    "session_id": "Session",
    "task": "Task",
    "run": "Run",
    "space": "Template of the parcel series",
    "atlas": "Atlas of the parcel series",
    "status": "What became of the recording: done, failed or skipped",
    "reason": "Why it is not done, in one line",
    "crash_file": "Crash file of a recording that failed, relative to this folder",
    "cohort_status": "Whether the group level included the recording; n/a before the group level",
    "cohort_reason": "Why it did not",
    "warnings": "Kinds of the warnings in the sidecars of series and embeddings, the gravest first",
    "outliers": "Measures in which the recording is marked; see OutlierRule",
    "registered": "The image that was registered to the template: T1w or boldref; n/a if not known",
    "report": "The recording's section in the report of its subject",
    "thumbnail": "Small picture of the registration",
}


def to_row(one: RecordingSummary) -> Row:
    """A recording as texts, without its outliers; what it does not have is empty."""
    texts = {
        "recording": one.stem,
        "participant_id": one.participant,
        "session_id": one.session,
        "task": one.task,
        "run": one.run,
        "space": one.space,
        "atlas": one.atlas,
        "status": one.status,
        "reason": one.reason,
        "crash_file": one.crash_file,
        "cohort_status": one.cohort,
        "cohort_reason": one.cohort_reason,
        "warnings": ",".join(one.warnings),
        "registered": one.normalised if set(one.values) & set(REGISTRATION_COLUMNS) else "",
        "report": one.href,
        "thumbnail": one.thumbnail,
    }
    numbers = {key: f"{value:.{DIGITS}g}" for key, value in one.values.items()}
    return {key: " ".join(text.split()) for key, text in (texts | numbers).items()}


def from_row(row: Row) -> RecordingSummary:
    """A recording from its texts.

    >>> one = RecordingSummary("sub-01_task-a", "sub-01", values={"mean_fd": 0.1})
    >>> from_row(to_row(one)) == one
    True
    """
    row = dict.fromkeys(_TEXTS, "") | without_na(row)
    numbers = {key: as_float(text) for key, text in row.items() if is_measure(key)}
    page, _, section = row["report"].partition("#")
    return RecordingSummary(
        stem=row["recording"],
        participant=row["participant_id"],
        session=row["session_id"],
        task=row["task"],
        run=row["run"],
        space=row["space"],
        atlas=row["atlas"],
        status=row["status"],
        reason=row["reason"],
        crash_file=row["crash_file"],
        cohort=row["cohort_status"],
        cohort_reason=row["cohort_reason"],
        values={key: value for key, value in numbers.items() if value is not None},
        warnings=tuple(kind for kind in row["warnings"].split(",") if kind),
        normalised=row["registered"] or RecordingSummary.normalised,
        page=page,
        section=section,
        thumbnail=row["thumbnail"],
    )


def write_table(output_dir: Path, recordings: Sequence[RecordingSummary], version: str) -> None:
    """Write the table and its sidecar.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    recordings
        All of them, in their order.
    version
        Of this program.
    """
    shown = measures_of(recordings)
    marked = outliers(recordings, shown)
    rows = [
        to_row(one) | {"outliers": ",".join(reasons)}
        for one, reasons in zip(recordings, marked, strict=True)
    ]
    names = [*_TEXTS, *(one.key for one in shown)]
    columns = [[row.get(name) or None for row in rows] for name in names]
    files.write_tsv(output_dir / TABLE, names, columns)
    files.write_json(output_dir / SIDECAR, _sidecar(names, version))


def _sidecar(names: Sequence[str], version: str) -> dict[str, Any]:
    return {
        "Description": "Every recording of this folder: what became of it, and its numbers",
        "GeneratedBy": {"Name": "brainlm-bids", "Version": version},
        "OutlierRule": rule(),
        "Layout": layout(),
        **{name: _described(name) for name in names},
    }


def _described(name: str) -> dict[str, Any]:
    if name in _TEXTS:
        return {"Description": _TEXTS[name]}
    one = measure(name)
    about: dict[str, Any] = {"LongName": one.label, "Description": one.about}
    if one.unit:
        about["Units"] = one.unit
    for kind in ("T1w", "boldref"):
        limit = fixed_limit(one, kind)
        if limit is not None:
            about[f"Limit{'' if kind == 'T1w' else 'WithoutT1w'}"] = _limit(limit)
    if about.get("LimitWithoutT1w") == about.get("Limit"):
        about.pop("LimitWithoutT1w", None)
    return about


def _limit(limit: Range) -> dict[str, float]:
    known = {"Minimum": limit.low, "Maximum": limit.high}
    return {name: bound for name, bound in known.items() if bound is not None}


def layout() -> str:
    """A checksum of what a row may hold: a table of another version is made anew."""
    return files.sha256(*_TEXTS, *(one.key for one in static_measures()))[:16]


def read_table(output_dir: Path) -> list[RecordingSummary] | None:
    """The recordings of a folder's table.

    Parameters
    ----------
    output_dir
        The folder of derivatives.

    Returns
    -------
    list of RecordingSummary or None
        None where there is no table, or one that another version wrote, or a broken one.
    """
    rows = _rows_of_this_layout(output_dir)
    return [from_row(row) for row in rows] or None


def done_in_table(output_dir: Path) -> set[str]:
    """Names of the recordings that a folder's table has as done; none where `read_table` is None.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    """
    rows = _rows_of_this_layout(output_dir)
    return {row["recording"] for row in rows if row.get("status") == DONE}


def _rows_of_this_layout(output_dir: Path) -> list[Row]:
    if read_json(output_dir / SIDECAR).get("Layout") != layout():
        return []
    rows = read_tsv(output_dir / TABLE)
    return rows if rows and "recording" in rows[0] else []


def status_row(one: RecordingSummary) -> Row:
    """What the table says of a recording, as a row of the status tables."""
    return {"status": one.status, "reason": one.reason, "crash_file": one.crash_file}


def is_recording(row: Mapping[str, str | None]) -> bool:
    """Whether a row of a status table is of a recording, and not of a part of the cohort."""
    return bool(row.get("recording")) and row.get("participant_id") != GROUP
