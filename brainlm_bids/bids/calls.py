"""What an output folder records of the calls that wrote into it, in `logs/`.

A call has a name, its start and a random part; its files begin with it. The files are read back for
the reports, so that nothing there depends on when, or by whom, a report is written.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from brainlm_bids import __version__
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_text, write_json, write_text

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
