"""The report of one subject: an output folder in, `sub-<label>.html` out.

Everything comes from the folder, so that `--reports-only` can write the report again. Whatever was
read is escaped; figures are linked by relative paths, as in fMRIPrep's reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from brainlm_bids.bids.derivatives import OfParticipant
from brainlm_bids.notices import Notice, gravest_first
from brainlm_bids.report import figure_files
from brainlm_bids.report.contents import Run, Subject, gather
from brainlm_bids.report.figure_files import FigureFile
from brainlm_bids.report.methods import methods
from brainlm_bids.report.page import anchor, recording_anchor, render
from brainlm_bids.report.places import publish
from brainlm_bids.report.run_records import gather_runs

# It is shown without a figure too: it lists the parcels without data.
_ALWAYS_SHOWN = "Parcels"


def build_report(output_dir: Path, subject: str, *, version: str) -> Path:
    """Write the report of a subject from what the output folder holds.

    Files that are missing leave their part out. The report appears whole or not at all.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    subject
        Label, with or without "sub-".
    version
        Version of this program, shown in the report.

    Returns
    -------
    Path
        The report, `output_dir/sub-<label>.html`.
    """
    output_dir = Path(output_dir)
    page = gather(output_dir, subject)
    text = render(
        "report.html.j2",
        subject=page,
        runs=[_section(run) for run in page.runs],
        alarms=_alarms(page),
        methods=_methods(output_dir, page.label),
        about=_about(page, version),
    )
    return publish(output_dir, page.label, text)


def _methods(output_dir: Path, label: str) -> Markup:
    """How the runs of a subject were processed; empty where none is finished."""
    runs = gather_runs(output_dir, OfParticipant((label,)))
    return Markup(methods(runs).section() if runs else "")


@dataclass(frozen=True)
class _Section:
    """A run on the page: its anchor, its title, and its figures below their headings."""

    anchor: str
    title: str
    run: Run
    parts: list[tuple[str, str, list[FigureFile]]]


def _section(run: Run) -> _Section:
    name = recording_anchor(run.name)
    entities = {key: value for key, value in run.entities.items() if key != "sub"}
    title = " · ".join(f"{key} {value}" for key, value in entities.items())
    parts = [
        (heading, f"{name}-{anchor(heading)}", run.figures.get(heading, []))
        for heading in figure_files.sections("run")
        if heading in run.figures or heading == _ALWAYS_SHOWN
    ]
    return _Section(name, title, run, parts)


def _alarms(subject: Subject) -> list[tuple[Notice, list[str]]]:
    """Every warning once, with the runs that it concerns; the gravest first."""
    runs: dict[Notice, list[str]] = {}
    for run in subject.runs:
        for warning in [*run.warnings, *(w for model in run.models for w in model.warnings)]:
            where = runs.setdefault(warning, [])
            if run.name not in where:
                where.append(run.name)
    return [(warning, runs[warning]) for warning in gravest_first(runs)]


def _about(subject: Subject, version: str) -> list[tuple[str, str]]:
    """Versions of the program, of the programs that wrote the folder, and of BIDS."""
    rows = [("brainlm-bids", version)]
    tools = subject.description.get("GeneratedBy")
    rows += [
        ("Folder written by", f"{tool['Name']} {tool.get('Version', '')}".strip())
        for tool in (tools if isinstance(tools, list) else [])
        if isinstance(tool, dict) and tool.get("Name")
    ]
    if subject.description.get("BIDSVersion"):
        rows.append(("BIDS", str(subject.description["BIDSVersion"])))
    return rows
