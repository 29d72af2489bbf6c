"""What the folder of a tool records about itself: what was asked, of which data, by which call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlm_bids.bids.calls import ToolCall, tool_calls
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.tools.parts import Cell, Table, TableRow, row
from brainlm_bids.report.values import read_json

FORECAST, PERTURB, FINETUNE, PRETRAIN = "forecast", "perturb", "finetune", "pretrain"
TOOLS = (FORECAST, PERTURB, FINETUNE, PRETRAIN)
UNFINISHED = "not finished, or still at work"


@dataclass(frozen=True)
class Run:
    """The folder of a tool.

    Attributes
    ----------
    folder
        Where it is.
    tool
        Which tool wrote it: forecast, perturb, finetune or pretrain.
    record
        experiment.json, or config/run.json of a pretraining.
    calls
        Those that wrote into it, the first one first.
    """

    folder: Path
    tool: str
    record: Mapping[str, Any]
    calls: Sequence[ToolCall]

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The settings of the tool."""
        return mapping(self.record.get("Parameters"))

    @property
    def last(self) -> ToolCall | None:
        """The last call."""
        return self.calls[-1] if self.calls else None

    @property
    def finished(self) -> bool:
        """Whether the last call came to its end; taken for granted where none is recorded."""
        return self.last is None or self.last.outcome == "finished"

    @property
    def source(self) -> Path | None:
        """The folder or the file that the results derive from."""
        if self.tool == PRETRAIN:
            store = self.record.get("StoreFolder")
            path = Path(str(store)) if store else None
            inside = path is not None and path.parent.name == "training_store"
            return path.parent.parent if path is not None and inside else path
        given = self.parameters.get("data" if self.tool == FINETUNE else "input")
        return Path(str(given)) if given else None


def runs_of(folder: Path) -> list[Run]:
    """The tools that wrote into a folder, in the order of `TOOLS`."""
    experiment = read_json(folder / "experiment.json")
    command = str(experiment.get("Command", "")).removeprefix("brainlm ")
    calls = tool_calls(folder)
    found = []
    if command in TOOLS:
        found.append(Run(folder, command, experiment, _of(calls, command)))
    training = read_json(folder / "config" / "run.json")
    if "StartedFrom" in training:
        found.append(Run(folder, PRETRAIN, training, _of(calls, PRETRAIN)))
    return found


def _of(calls: Sequence[ToolCall], tool: str) -> list[ToolCall]:
    return [call for call in calls if call.facts.get("Tool", tool) == tool]


def index_of(run: Run) -> str:
    """The index of the data set that the results derive from, as a link; empty without one."""
    source = run.source
    if source is None:
        return ""
    path = source / "index.html"
    return Path(os.path.relpath(path, run.folder)).as_posix() if path.is_file() else ""


def about(run: Run) -> list[tuple[str, str]]:
    """Rows of the section About: command, time, version, input."""
    call = run.last
    made = mapping(run.record.get("GeneratedBy")) or {
        "Version": mapping(run.record.get("Versions")).get("brainlm-bids")
    }
    version = (call.version if call else "") or str(made.get("Version") or "")
    rows = [
        ("Command", (call.command if call else "") or f"brainlm {run.tool} (words not recorded)"),
        ("Started", call.started if call else "not recorded"),
        ("Ended", (call.ended or UNFINISHED) if call else "not recorded"),
        ("brainlm-bids", version),
        ("Input", str(run.source or "not recorded")),
    ]
    versions = mapping(run.record.get("Versions"))
    rows += [(str(k), str(v)) for k, v in sorted(versions.items()) if k != "brainlm-bids"]
    return rows


def settings_table(run: Run) -> Table:
    """All settings of the tool."""
    rows = tuple(
        TableRow((Cell(name.replace("_", " ")), Cell(_shown(value))))
        for name, value in sorted(run.parameters.items())
        if name not in ("input", "data", "results", "run_dir")
    )
    return Table("All settings, defaults included.", ("Setting", "Value"), rows, folded=True)


def calls_table(run: Run) -> Table:
    """The calls that wrote into the folder."""
    rows = []
    for number, call in enumerate(run.calls, start=1):
        how = call.outcome or UNFINISHED
        how += f": {call.reason}" if call.reason else ""
        shown = (call.started, call.ended or "n/a", how, call.command or "from Python")
        rows.append(row([number, *(Cell(text) for text in shown)]))
    header = ("Call", "Started", "Ended", "Outcome", "Command")
    return Table("The calls that wrote into this folder.", header, tuple(rows), folded=True)


def _shown(value: object) -> str:
    if value is None or value == []:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def unfinished(run: Run) -> str:
    """A sentence on a call that did not come to its end; empty for one that did."""
    call = run.last
    if call is None or run.finished:
        return ""
    what = {"failed": "failed", "stopped": "was stopped"}.get(call.outcome, "has not ended")
    reason = f" ({call.reason})" if call.reason else ""
    hint = "" if call.outcome else ", or is still at work"
    return (
        f"The last call {what}{reason}{hint}: this page shows what was complete by then. The same "
        "command continues where it stopped."
    )
