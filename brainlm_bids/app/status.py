"""The status table: a row per recording, on the last screen and in `logs/<run id>_status.tsv`.

What comes in: what became of each recording; crash files and `resources.json` of Nipype's nodes.
What goes out: the same table twice.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Self

from brainlm_bids import files
from brainlm_bids.bids.names import GROUP, session_id, with_prefix
from brainlm_bids.messages import tell
from brainlm_bids.remaining import in_words
from brainlm_bids.system_errors import in_one_line
from brainlm_bids.workflows.plans import StagePlan

DONE, CACHED, SKIPPED, FAILED = "done", "cached", "skipped", "failed"
EXIT_OK, EXIT_FAILED = 0, 1
LISTED = 50  # recordings on the last screen; of more, those that were left out
_ERROR = re.compile(r"^\s*(?:[\w.]+\.)?(\w*(?:Error|Exception|Skipped|Interrupt))(?::\s*(.*))?$")
# An error of the system as Python words it.
_SYSTEM = re.compile(r"\[Errno (?P<number>\d+)\] (?P<text>.+?)(?:: '(?P<path>.+)')?$")
_OURS = ("UserError", "RunSkipped")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a recording, or of a part of the cohort.

    Parameters
    ----------
    status : str
        done, cached, skipped or failed.
    reason : str
        In one line; empty if all is done.
    seconds, peak_memory_mb : float or None
        What its nodes used; None if none of them ran.
    crash_file : Path or None
        Of the node that failed.
    unfinished : tuple of StagePlan
        Stages that were to be computed and are not complete.
    """

    status: str
    reason: str = ""
    seconds: float | None = None
    peak_memory_mb: float | None = None
    crash_file: Path | None = None
    unfinished: tuple[StagePlan, ...] = ()


@dataclass(frozen=True)
class Row:
    """One recording in the status table."""

    participant_id: str | None
    session_id: str | None
    task: str | None
    run: str | None
    source: str
    status: str
    reason: str
    seconds: float | None
    peak_memory_mb: float | None
    crash_file: str | None
    distortion: str | None = None
    recording: str | None = None

    @classmethod
    def of_recording(
        cls,
        entities: Mapping[str, str],
        source: str,
        outcome: Outcome,
        distortion: str | None = None,
        recording: str | None = None,
    ) -> Self:
        """The row of a recording.

        Parameters
        ----------
        entities : mapping of str to str
            Of its name.
        source : str
            Its file, relative to the folder that it was read from.
        distortion : str or None
            What was done about its distortion, in one line.
        recording : str or None
            How the names of its outputs begin; None at group level.
        """
        cells = _outcome_cells(outcome)
        return cls(
            with_prefix("sub", entities["sub"]) if "sub" in entities else None,
            session_id(entities),
            entities.get("task"),
            entities.get("run"),
            source,
            *cells,
            distortion,
            recording,
        )

    @classmethod
    def of_group(cls, part: str, outcome: Outcome) -> Self:
        """The row of a part of the cohort: statistics, the tables of a model."""
        return cls(GROUP, None, None, None, part, *_outcome_cells(outcome))


def _outcome_cells(
    outcome: Outcome,
) -> tuple[str, str, float | None, float | None, str | None]:
    crash = None if outcome.crash_file is None else str(outcome.crash_file)
    return outcome.status, outcome.reason, outcome.seconds, outcome.peak_memory_mb, crash


def exit_code(rows: Iterable[Row]) -> int:
    """1 if a row failed."""
    return EXIT_FAILED if any(row.status == FAILED for row in rows) else EXIT_OK


def write_status(output_dir: Path, run_id: str, rows: Sequence[Row]) -> None:
    """Write the status table of a call."""
    names = [field.name for field in fields(Row)]
    table = [astuple(row) for row in rows]
    columns = [list(column) for column in zip(*table, strict=True)]
    files.write_tsv(status_table(output_dir, run_id), names, columns)


def print_table(
    rows: Sequence[Row], output_dir: Path, run_id: str, seconds: float, page: str = "index"
) -> None:
    """The last screen: a line per recording, how many of each status there are, where to look.

    Parameters
    ----------
    rows : sequence of Row
        Of all recordings.
    output_dir : Path
        Of the call.
    run_id : str
        Of the call.
    seconds : float
        That the call has taken.
    page : str
        Name of the page to begin with; without it, the first report.
    """
    shown = rows if len(rows) <= LISTED else [r for r in rows if r.status in (SKIPPED, FAILED)]
    repeated = [text for text, n in Counter(row.reason for row in shown).items() if text and n > 1]
    lines = [_line(row, repeated) for row in shown]
    lines += [f"[{number}] {text}" for number, text in enumerate(repeated, start=1)]
    counts = Counter(row.status for row in rows)
    known = (DONE, CACHED, SKIPPED, FAILED)
    said = ", ".join(f"{counts[status]} {status}" for status in known if counts[status])
    memory = max((row.peak_memory_mb or 0.0 for row in rows), default=0.0)
    used = f", at most {memory / 1000:.1f} GB of memory in a step" if memory else ""
    lines.append(f"brainlm-bids: {said} in {in_words(seconds)}{used}; outputs in {output_dir}")
    lines.append(f"status table: {status_table(output_dir, run_id)}")
    subjects = sorted({row.participant_id for row in rows if row.participant_id})
    tell("\n".join([*lines, *_page(output_dir, page, *subjects)]))


def tell_reports(output_dir: Path, number: int, seconds: float, *pages: str) -> None:
    """The last screen of a call that only writes reports.

    Parameters
    ----------
    output_dir : Path
        Of the call.
    number : int
        Of reports.
    seconds : float
        That the call has taken.
    *pages : str
        Names of pages to begin with: the first that there is.
    """
    written = f"{number} report{'' if number == 1 else 's'} in {in_words(seconds)}"
    tell("\n".join([f"brainlm-bids: {written}", *_page(output_dir, *pages)]))


def _line(row: Row, repeated: Sequence[str]) -> str:
    used = "" if row.seconds is None else f"  {row.seconds:.0f} s, {row.peak_memory_mb:.0f} MB"
    reason = f"[{repeated.index(row.reason) + 1}]" if row.reason in repeated else row.reason
    return f"{row.status:8} {row.source}{used}  {reason}".rstrip()


def _page(output_dir: Path, *names: str) -> list[str]:
    pages = [output_dir / f"{name}.html" for name in names]
    return [f"report: {page}" for page in pages if page.is_file()][:1]


def as_texts(rows: Sequence[Row]) -> list[dict[str, str | None]]:
    """The rows as the status table holds them, missing cells as None."""
    return [
        {name: None if value is None else str(value) for name, value in asdict(row).items()}
        for row in rows
    ]


def status_table(output_dir: Path, run_id: str) -> Path:
    """The status table of a call."""
    return output_dir / "logs" / f"{run_id}_status.tsv"


# --- crash files of Nipype ---------------------------------------------------------------------


@dataclass(frozen=True)
class Crash:
    """Why a node failed, or that it skipped its recording by a stated policy.

    `internal`: by an error of the program, not one that a user can mend.
    """

    reason: str
    path: Path
    skipped: bool
    internal: bool = False


def read_crashes(folder: Path, names: Collection[str]) -> Crash | None:
    """The first crash among some nodes (full names), with its reason in one line."""
    for path in sorted(folder.glob("crash-*.txt")) if folder.is_dir() else []:
        text = path.read_text(errors="replace")
        match = re.search(r"^Node: (\S+)", text, re.MULTILINE)
        if match and match.group(1) in names:
            kind, reason = crash_reason(text)
            node = match.group(1).rsplit(".", 1)[-1]
            refused = _refused(reason)
            internal = kind not in _OURS and refused is None
            if refused is not None:
                reason = f"{refused} ({node})"
            elif internal:
                reason = f"{kind} in {node}: {reason}"
            return Crash(reason, path, kind == "RunSkipped", internal)
    return None


def _refused(reason: str) -> str | None:
    """What the system refused a node, and what to do; None for errors of another kind."""
    found = _SYSTEM.match(reason)
    if found is None:
        return None
    error = OSError(int(found["number"]), found["text"], found["path"])
    plain = None if found["path"] is None else f"{found['path']}: {found['text']}"
    return in_one_line(error) or plain


def crash_reason(text: str) -> tuple[str, str]:
    r"""Return the kind and message of the error that ended a node.

    An error of this package takes precedence over the innermost one.

    >>> crash_reason("Traceback:\n\tValueError: bad\n\n")
    ('ValueError', 'bad')
    """
    matches = [match for line in text.splitlines() if (match := _ERROR.match(line))]
    errors = [(str(match[1]), (match[2] or "").strip()) for match in matches]
    errors = [error for error in errors if error[0] != "NodeExecutionError"]
    ours = [error for error in errors if error[0] in _OURS]
    return (ours or errors or [("Error", "see the crash file")])[-1]


def used_resources(work_dir: Path, names: Iterable[str]) -> tuple[float | None, float | None]:
    """Total seconds and largest peak memory (MB) of some nodes (full names)."""
    from brainlm_bids.interfaces.array_interface import RESOURCES_FILE

    # Nipype makes a folder of every part of a node's name
    paths = [work_dir.joinpath(*name.split("."), RESOURCES_FILE) for name in names]
    values = [json.loads(path.read_text()) for path in paths if path.is_file()]
    if not values:
        return None, None
    seconds = sum(value["seconds"] for value in values)
    return round(seconds, 1), round(max(value["peak_memory_mb"] for value in values), 1)
