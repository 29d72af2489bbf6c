"""What an output folder records of the calls that wrote into it, in `logs/`.

A call has a name, its start and a random part; its files begin with it. The files are read back for
the reports, so that nothing there depends on when, or by whom, a report is written.
"""

from __future__ import annotations

import contextlib
import shlex
import time
import tomllib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from brainlm_bids import __version__
from brainlm_bids.errors import Stopped, UserError
from brainlm_bids.files import read_json, read_text, write_json, write_text
from brainlm_bids.temporary import sweep

_STARTED = "%Y%m%d-%H%M%S"  # of a call's name
_SETTINGS, _RECORD = "_config.toml", "_call.json"


@dataclass(frozen=True)
class Call:
    """A call as its files describe it.

    Attributes
    ----------
    name
        Of the call, the beginning of the names of its files.
    command
        As it was typed; empty where an earlier version did not record it.
    started
        Date and time, with the offset from UTC where it is recorded; empty for a name without one.
    version
        Of this program; empty where it is not recorded.
    settings
        All settings that have a value, as `--config-file` reads them.
    """

    name: str
    command: str = ""
    started: str = ""
    version: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


def new_name() -> str:
    """Name a new call: the time of its start, and a part that distinguishes it from others."""
    return f"{time.strftime(_STARTED)}_{uuid.uuid4().hex[:8]}"


def started(name: str) -> datetime | None:
    """When a call began, by its name, in the time zone of the machine that ran it.

    >>> started("20261130-110652_b1514c87").isoformat(" ")
    '2026-11-30 11:06:52'
    >>> started("mine") is None
    True
    """
    try:
        return datetime.strptime(name.partition("_")[0], _STARTED)
    except ValueError:
        return None


def record_call(output_dir: Path, name: str, command: Sequence[str], toml: str) -> None:
    """Write what there is to know about a call when it begins.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    name
        Of the call.
    command
        The words of the command line; none for a call from Python.
    toml
        The settings, as `--config-file` reads them.
    """
    logs, began = output_dir / "logs", started(name)
    write_text(logs / f"{name}{_SETTINGS}", toml)
    values = {
        "Command": shlex.join(command) or None,
        "Started": began and began.astimezone().isoformat(),
        "Version": __version__,
    }
    write_json(logs / f"{name}{_RECORD}", values)


def read_call(output_dir: Path, name: str) -> Call:
    """Read back a call; what is missing or damaged is empty.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    name
        Of the call.
    """
    logs, began = output_dir / "logs", started(name)
    record, settings = _record(logs / f"{name}{_RECORD}"), _settings(logs / f"{name}{_SETTINGS}")
    written = str(record.get("Started") or "") or (began.isoformat() if began else "")
    return Call(
        name,
        str(record.get("Command") or ""),
        written.replace("T", " "),
        str(record.get("Version") or ""),
        settings,
    )


def _record(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except UserError:
        return {}


def _settings(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except (UserError, tomllib.TOMLDecodeError):
        return {}


# --- calls of the tools of `brainlm`: also how each ended ------------------------------------

FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that wrote into a folder.

    Attributes
    ----------
    command
        As it was typed; empty for a call from Python.
    started, ended
        Date and time, with the offset from UTC; `ended` is empty where the process was killed, or
        is still at work.
    version
        Of this program.
    outcome
        "finished", "failed" or "stopped"; empty without an end.
    reason
        Why it failed or what stopped it.
    facts
        Whatever else the tool recorded.
    """

    command: str = ""
    started: str = ""
    ended: str = ""
    version: str = ""
    outcome: str = ""
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)


@contextlib.contextmanager
def recorded(folder: Path, command: Sequence[str], **facts: Any) -> Iterator[dict[str, Any]]:
    """Record a call of a tool from its start to its end, in `logs/` of the folder.

    What a killed call left half-written is removed.

    Parameters
    ----------
    folder
        Where the tool writes.
    command
        The words of the command line; none for a call from Python.
    **facts
        Further fields.

    Yields
    ------
    dict
        What is recorded; the call may add fields, such as an Outcome of its own.
    """
    sweep(folder)
    path = folder / "logs" / f"{new_name()}{_RECORD}"
    values: dict[str, Any] = {
        "Command": shlex.join(command) or None,
        "Started": _now(),
        "Version": __version__,
        **facts,
    }
    write_json(path, values)
    try:
        yield values
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        by = "SIGTERM" if isinstance(error, Stopped) else "Ctrl-C"
        outcome = (STOPPED, by) if interrupted else (FAILED, str(error))
        values["Outcome"], values["Reason"] = outcome
        raise
    finally:
        values["Ended"] = _now()
        values.setdefault("Outcome", FINISHED)
        with contextlib.suppress(OSError, UserError):  # a full disk: the error is on its way
            write_json(path, values)


def _now() -> str:
    return datetime.now().astimezone().isoformat()


def tool_calls(folder: Path) -> list[ToolCall]:
    """The calls that wrote into a folder, the first one first; damaged records are left out.

    Parameters
    ----------
    folder
        The results of a tool.
    """
    records = [_record(path) for path in sorted((folder / "logs").glob(f"*{_RECORD}"))]
    known = [record for record in records if _time(record.get("Started")) is not None]
    return [_tool_call(one) for one in sorted(known, key=lambda one: _time(one["Started"]))]


def _time(text: object) -> Any:
    """The point in time that a record names; None for what is none."""
    try:
        return datetime.fromisoformat(str(text)).astimezone()
    except ValueError:
        return None


def _tool_call(record: Mapping[str, Any]) -> ToolCall:
    names = ("Command", "Started", "Ended", "Version", "Outcome", "Reason")
    command, begin, end, version, outcome, reason = (str(record.get(x) or "") for x in names)
    facts = {key: value for key, value in record.items() if key not in names}
    began, ended = (_shown(one) for one in (begin, end))
    return ToolCall(command, began, ended, version, outcome, reason, facts)


def _shown(text: str) -> str:
    """A time as it was recorded, without fractions of a second; empty for what is none."""
    return "" if _time(text) is None else datetime.fromisoformat(text).isoformat(" ", "seconds")
