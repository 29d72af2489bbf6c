"""What became of each run: rows of the status table, read from crash files and the work folder.

In: crash files and `resources.json` of Nipype's nodes. Out: one row per run, on the screen and in
`logs/<run id>_status.tsv`, saying the same.
"""

import json
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from brainlm_bids import files
from brainlm_bids.bids.inputs import Run
from brainlm_bids.interfaces.array_interface import RESOURCES_FILE

_ERROR = re.compile(r"^\s*(?:[\w.]+\.)?(\w*(?:Error|Exception|Skipped|Interrupt))(?::\s*(.*))?$")
_OURS = ("UserError", "RunSkipped")


@dataclass(frozen=True)
class Row:
    """One run in the status table."""

    participant_id: str
    session: str | None
    task: str | None
    run: str | None
    source: str
    status: str  # done, cached, skipped, failed
    reason: str
    seconds: float | None = None
    peak_memory_mb: float | None = None
    crash_file: str | None = None

    @classmethod
    def of(
        cls,
        run: Run,
        status: str,
        reason: str,
        seconds: float | None = None,
        memory: float | None = None,
        crash_file: str | None = None,
    ) -> "Row":
        """The row of a run."""
        names = run.entities
        return cls(
            f"sub-{names['sub']}",
            names.get("ses"),
            names.get("task"),
            names.get("run"),
            run.source.relative_to(run.bids_dir).as_posix(),
            status,
            reason,
            seconds,
            memory,
            crash_file,
        )


@dataclass(frozen=True)
class Crash:
    """Why a node failed."""

    reason: str
    path: Path
    skipped: bool


def read_crashes(folder: Path, names: Collection[str]) -> Crash | None:
    """The first crash among the nodes of these full names, with its reason in one line."""
    for path in sorted(folder.glob("crash-*.txt")) if folder.is_dir() else []:
        text = path.read_text(errors="replace")
        match = re.search(r"^Node: (\S+)", text, re.MULTILINE)
        if match and match.group(1) in names:
            kind, reason = crash_reason(text)
            node = match.group(1).rsplit(".", 1)[-1]
            if kind not in _OURS:
                reason = f"{kind} in {node}: {reason}"
            return Crash(reason, path, kind == "RunSkipped")
    return None


def crash_reason(text: str) -> tuple[str, str]:
    """(kind, message) of the error that ended a node; ours first, else the innermost.

    >>> crash_reason("Traceback:\\n\\tValueError: bad\\n\\n")
    ('ValueError', 'bad')
    """
    matches = [match for line in text.splitlines() if (match := _ERROR.match(line))]
    found = [(str(match[1]), (match[2] or "").strip()) for match in matches]
    found = [one for one in found if one[0] != "NodeExecutionError"]
    ours = [one for one in found if one[0] in _OURS]
    return (ours or found or [("Error", "see the crash file")])[-1]


def used_resources(work_dir: Path, names: Iterable[str]) -> tuple[float | None, float | None]:
    """Seconds (summed) and peak memory in MB (largest) of the nodes of these full names."""
    # Nipype gives every part of a node's name a folder
    notes = [work_dir.joinpath(*name.split("."), RESOURCES_FILE) for name in names]
    values = [json.loads(path.read_text()) for path in notes if path.is_file()]
    if not values:
        return None, None
    seconds = sum(value["seconds"] for value in values)
    return round(seconds, 1), round(max(value["peak_memory_mb"] for value in values), 1)


def write_status(path: Path, rows: Sequence[Row]) -> None:
    """Write the status table."""
    names = [field.name for field in fields(Row)]
    table = [astuple(row) for row in rows]
    files.write_tsv(path, names, [list(column) for column in zip(*table, strict=True)])


def print_table(rows: Sequence[Row], output_dir: Path) -> None:
    """The last screen: a line per run, and the sum."""
    for row in rows:
        used = "" if row.seconds is None else f"  {row.seconds:.0f} s, {row.peak_memory_mb:.0f} MB"
        reason = f"  {row.reason}" if row.reason else ""
        print(f"{row.status:8} {row.source}{used}{reason}", file=sys.stderr)
    counts = dict.fromkeys(("done", "cached", "skipped", "failed"), 0)
    for row in rows:
        counts[row.status] += 1
    text = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    print(f"brainlm-bids: {text}; outputs in {output_dir}", file=sys.stderr)
