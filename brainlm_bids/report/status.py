"""What the status tables of an output folder say about a subject's runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brainlm_bids.bids.names import GROUP, parse, without_prefix
from brainlm_bids.bids.timeseries import stem_of
from brainlm_bids.report.values import Row, read_tsv, without_na

COLUMNS = (
    *("participant_id", "session_id", "task", "run", "source"),
    *("status", "reason", "seconds", "peak_memory_mb", "crash_file", "distortion", "recording"),
)


_END = "_status.tsv"
# What needs the reader's attention.
NOT_DONE = frozenset({"failed", "skipped"})


@dataclass(frozen=True)
class StatusTable:
    """What the table of one call says about a subject.

    Attributes
    ----------
    call
        Name of the call.
    rows
        Of the subject.
    """

    call: str
    rows: tuple[Row, ...]

    @property
    def recordings(self) -> list[tuple[str, str]]:
        """Name and status of each recording."""
        return [(recording_name(row), row["status"]) for row in self.rows]

    @property
    def group(self) -> bool:
        """Whether the call was one of the group level: its rows name series, not images."""
        return any(of_group(row) for row in self.rows)


def status_tables(output_dir: Path, label: str) -> list[StatusTable]:
    """The tables of all calls that have a row of a subject, in the order of time.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    label
        Of the subject, without "sub-".
    """
    found = []
    for path in sorted((output_dir / "logs").glob(f"*{_END}")):
        # one for each job of an array: most are of other subjects, and not worth taking apart
        if not _mentions(path, label):
            continue
        rows = [
            dict.fromkeys(COLUMNS, "") | without_na(row)
            for row in read_tsv(path)
            if without_prefix("sub", row.get("participant_id", "")) == label
        ]
        if rows:
            found.append(StatusTable(path.name.removesuffix(_END), tuple(rows)))
    return found


def _mentions(path: Path, label: str) -> bool:
    try:
        return label.encode() in path.read_bytes()
    except OSError:
        return False


def latest(tables: Sequence[StatusTable]) -> list[Row]:
    """The latest row of every run; the tables are in the order of time."""
    rows = {
        tuple(row[column] for column in ("session_id", "task", "run", "source")): row
        for table in tables
        for row in table.rows
    }
    return [rows[key] for key in sorted(rows)]


def latest_rows(output_dir: Path) -> dict[str, Row]:
    """The latest row of every recording at participant level, by the name of the recording.

    Parameters
    ----------
    output_dir
        The folder of derivatives.

    Returns
    -------
    dict
        Recordings that have no output are there, too.
    """
    rows: dict[str, Row] = {}
    for path in sorted((output_dir / "logs").glob(f"*{_END}")):
        for row in read_tsv(path):
            known = dict.fromkeys(COLUMNS, "") | without_na(row)
            if known["source"] and not of_group(known):
                rows[recording_name(known)] = known
    return rows


def group_calls(output_dir: Path) -> list[str]:
    """Names of the calls of the group level, in the order of time.

    Those that found all recordings done already are left out, so that such a call changes no page.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    """
    found, every = [], []
    for path in sorted((output_dir / "logs").glob(f"*{_END}")):
        # those of the participant level name images, and there may be one for each job of an array
        if not (_mentions(path, "desc-denoised_timeseries") or _mentions(path, GROUP)):
            continue
        rows = [dict.fromkeys(COLUMNS, "") | without_na(row) for row in read_tsv(path)]
        of_cohort = [row for row in rows if of_group(row)]
        every += [path.name.removesuffix(_END)] if of_cohort else []
        # what is left out, or cannot be decoded, is so in every call
        if any(row["status"] not in ("cached", "skipped") for row in of_cohort):
            found.append(every[-1])
    return found or every[-1:]


def of_group(row: Row) -> bool:
    """Whether a row is of the group level: of a part of it, or of a series of the output folder."""
    if row.get("participant_id") == GROUP:
        return True
    name = parse(Path(row.get("source", "")).name)
    is_series = name.suffix == "timeseries" and name.get("desc") == "denoised"
    # a series of that name may be given; its row names its outputs
    return is_series and not row.get("recording")


def recording_name(row: Row) -> str:
    """How the names of a row's outputs begin; tables of earlier versions name the source alone."""
    if row.get("recording"):
        return row["recording"]
    source = Path(row.get("source", ""))
    name = parse(source.name)
    if not {"sub", "task"} <= set(name.entities):
        return stem_of(source)
    return parse(name.source).without("part", "echo").stem


def read_crashes(output_dir: Path, rows: list[Row]) -> dict[str, str]:
    """The end of each crash file inside the output folder, by its name in the status table."""
    crashes = {}
    for row in rows:
        name = row.get("crash_file", "")
        if not name:
            continue
        path = (output_dir / name).resolve()
        # a table could name any file of the machine
        if path.suffix == ".txt" and path.is_relative_to(output_dir.resolve()) and path.is_file():
            crashes[name] = path.read_text(encoding="utf-8", errors="replace")[-4000:]
    return crashes
