"""What the status tables of an output folder say about a subject's runs."""

from __future__ import annotations

from pathlib import Path

from brainlm_bids.bids.names import without_prefix
from brainlm_bids.report.values import Row, read_tsv, without_na

COLUMNS = (
    *("participant_id", "session_id", "task", "run", "source"),
    *("status", "reason", "seconds", "peak_memory_mb", "crash_file", "distortion"),
)


def read_status(output_dir: Path, label: str) -> list[Row]:
    """The latest row of every run of a subject; the tables sort by the time of their call."""
    rows: dict[tuple[str, ...], Row] = {}
    for path in sorted((output_dir / "logs").glob("*_status.tsv")):
        for row in read_tsv(path):
            if without_prefix("sub", row.get("participant_id", "")) != label:
                continue
            key = tuple(row.get(column, "") for column in ("session_id", "task", "run", "source"))
            rows[key] = dict.fromkeys(COLUMNS, "") | without_na(row)
    return [rows[key] for key in sorted(rows)]


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
