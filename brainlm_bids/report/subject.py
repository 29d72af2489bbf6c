"""The report of one subject: an output folder in, `sub-<label>.html` out.

Everything comes from the folder, so that `--reports-only` can write it again. Whatever was read
is escaped; figures are referred to by relative paths, as fMRIPrep does.
"""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from brainlm_bids.report.contents import Run, Subject, Warn, gather

_SECTIONS = (
    ("Motion", ("motion", "carpet")),
    ("Registration", ("mask", "coreg")),
    ("ICA-AROMA", ("aroma",)),
    ("Parcels", ("coverage", "series", "connectivity")),
)


def build_report(
    output_dir: Path, subject: str, *, version: str, methods: str | None = None
) -> Path:
    """Write `output_dir/sub-<label>.html` from what the folder holds; returns its path.

    `subject` with or without "sub-"; `version` of this program, shown in the report; `methods`,
    Markdown: how this subject was processed (None: what `logs/CITATION.md` says). Files that
    are missing leave their part out. The file appears whole or not at all.
    """
    output_dir = Path(output_dir)
    found = gather(output_dir, subject)
    path = output_dir / f"sub-{found.label}.html"
    text = (
        environment()
        .get_template("report.html.j2")
        .render(
            subject=found,
            runs=[_Section(index, run) for index, run in enumerate(found.runs, start=1)],
            alarms=_alarms(found),
            methods=methods_text(output_dir, "CITATION.md")
            if methods is None
            else markdown(methods),
            about=_about(found, version),
        )
    )
    write_page(path, text)
    return path


def write_page(path: Path, text: str) -> None:
    """Write a page whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class _Section:
    """A run as the template wants it: an anchor, and figures grouped under headings."""

    def __init__(self, index: int, run: Run) -> None:
        self.anchor = f"run-{index}"
        self.run = run
        self.title = " · ".join(
            f"{key} {value}" for key, value in run.entities.items() if key != "sub"
        )
        self.parts = []
        for heading, keys in _SECTIONS:
            figures = [run.figures[key] for key in keys if key in run.figures]
            if figures or heading == "Parcels":
                self.parts.append((heading, f"{self.anchor}-{heading.lower()}", figures))


def _alarms(subject: Subject) -> list[tuple[Warn, list[str]]]:
    """Every warning once, with the runs that it concerns; the grave ones first."""
    runs: dict[Warn, list[str]] = {}
    for run in subject.runs:
        for warning in [*run.warnings, *(w for model in run.models for w in model.warnings)]:
            where = runs.setdefault(warning, [])
            if run.name not in where:
                where.append(run.name)
    return sorted(runs.items(), key=lambda item: item[0].level)


def _about(subject: Subject, version: str) -> list[tuple[str, str]]:
    """Program, what wrote the folder, and the version of BIDS."""
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


def environment() -> jinja2.Environment:
    """The templates' surroundings: everything escaped, the style as `css`."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_data),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["href"] = lambda path: "./" + quote(str(path))
    made.globals["css"] = Markup(_data("report.css"))
    return made


def _data(name: str) -> str:
    return (resources.files("brainlm_bids") / "data" / name).read_text(encoding="utf-8")


def methods_text(output_dir: Path, name: str) -> Markup:
    """The text of a Markdown file in logs as HTML, escaped; empty if there is none."""
    path = output_dir / "logs" / name
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return Markup("")
    return markdown(text)


def markdown(text: str) -> Markup:
    """Paragraphs, headings and lists of Markdown as HTML, escaped."""
    return Markup("\n").join(_block(block) for block in re.split(r"\n\s*\n", text.strip()))


_LINK = re.compile(r"https?://[^\s&<>\"']+[^\s&<>\"'.,;)]")


def _block(block: str) -> Markup:
    """One paragraph, heading or list of Markdown."""
    heading = re.fullmatch(r"(#{1,4})\s+(.+)", block.strip())
    if heading and heading[1] == "#":
        # the section of the page has this title already
        return Markup("")
    if heading:
        # the page has its own first two levels
        level = min(len(heading[1]) + 2, 5)
        return Markup("<h{0}>{1}</h{0}>").format(level, heading[2])
    lines = block.strip().splitlines()
    if all(re.match(r"(-|\d+\.)\s", line) for line in lines):
        items = Markup("").join(
            Markup("<li>{}</li>").format(_inline(re.sub(r"^(-|\d+\.)\s+", "", line)))
            for line in lines
        )
        tag = "ol" if lines[0][0].isdigit() else "ul"
        return Markup("<{0}>{1}</{0}>").format(Markup(tag), items)
    return Markup("<p>{}</p>").format(_inline(" ".join(lines)))


def _inline(text: str) -> Markup:
    safe = str(escape(text))
    safe = re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", safe)
    return Markup(_LINK.sub(lambda m: f'<a href="{m[0]}" rel="noopener">{m[0]}</a>', safe))
