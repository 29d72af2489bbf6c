"""How the recordings of a subject's page came to be: calls, settings, versions, inputs.

Everything is read from the records of the calls and from sidecars, nothing from the machine or the
clock: a page that is written again says the same. What differs between recordings has their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from brainlm_bids.bids.calls import Call, read_call
from brainlm_bids.report.contents import Run, Subject
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import as_list, joined
from brainlm_bids.settings import TABLE
from brainlm_bids.table import POSITIONAL, Setting

# Settings whose defaults depend on the machine, or on the folder in which the command is typed.
_OF_THE_MACHINE = frozenset({"nprocs", "work_dir"})


@dataclass(frozen=True)
class SettingShown:
    """A setting that is not the default, as text."""

    flag: str
    value: str
    default: str


@dataclass(frozen=True)
class CallShown:
    """A call that made something on the page.

    Attributes
    ----------
    call
        As its files describe it.
    level
        `participant` or `group`.
    where
        The recordings that it processed, in words; empty if it processed all of the page.
    settings
        Those that are not the default.
    """

    call: Call
    level: str
    where: str
    settings: tuple[SettingShown, ...]


@dataclass(frozen=True)
class Item:
    """A line of the inputs.

    Attributes
    ----------
    text
        A file, a name, or a version.
    notes
        Where it is from, its checksum.
    file
        Whether the text is the name of a file.
    where
        The recordings that it is of, in words; empty if it is of all.
    """

    text: str
    notes: tuple[str, ...] = ()
    file: bool = False
    where: str = ""


@dataclass(frozen=True)
class About:
    """The section About of a page.

    Attributes
    ----------
    written_by
        Version of the program that wrote the page.
    folder
        Facts about the folder: the programs that wrote into it, the version of BIDS.
    calls
        In the order of time.
    versions
        Of the software that computed, by name.
    inputs
        By what they are.
    """

    written_by: str
    folder: tuple[tuple[str, str], ...]
    calls: tuple[CallShown, ...]
    versions: tuple[tuple[str, tuple[Item, ...]], ...]
    inputs: tuple[tuple[str, tuple[Item, ...]], ...]


def about(output_dir: Path, subject: Subject, titles: Mapping[str, str], version: str) -> About:
    """What there is to say about the origin of a page.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    subject
        As gathered from it.
    titles
        What the page calls its recordings, by their names.
    version
        Of this program.
    """
    page = _Page(subject.runs, titles)
    return About(
        version,
        tuple(_folder(subject)),
        tuple(_calls(output_dir, subject, titles)),
        tuple(_versions(page)),
        tuple((name, items) for name, items in _inputs(page) if items),
    )


@dataclass(frozen=True)
class _Page:
    """The recordings of a page and what it calls them."""

    runs: Sequence[Run]
    titles: Mapping[str, str]

    def items(self, of_run: Callable[[Run], list[Item]]) -> tuple[Item, ...]:
        """What the recordings have, each once, with those that have it if not all do."""
        where: dict[Item, list[str]] = {}
        for run in self.runs:
            for one in dict.fromkeys(of_run(run)):
                where.setdefault(one, []).append(self.titles[run.name])
        every = len(self.runs)
        return tuple(
            one if len(names) == every else replace(one, where=in_words(names))
            for one, names in where.items()
        )


def _folder(subject: Subject) -> list[tuple[str, str]]:
    tools = as_list(subject.description.get("GeneratedBy"))
    rows = [
        ("Folder written by", f"{tool['Name']} {tool.get('Version', '')}".strip())
        for tool in tools
        if isinstance(tool, dict) and tool.get("Name")
    ]
    if subject.description.get("BIDSVersion"):
        rows.append(("BIDS", str(subject.description["BIDSVersion"])))
    return rows


# --- calls -----------------------------------------------------------------------------------


def _calls(output_dir: Path, subject: Subject, titles: Mapping[str, str]) -> list[CallShown]:
    """The calls that processed a recording of the page, successfully or not."""
    shown = []
    for table in subject.tables:
        made = dict.fromkeys(stem for stem, status in table.recordings if status != "cached")
        if not made:
            continue
        call = read_call(output_dir, table.call)
        every = set(titles) <= set(made)
        where = "" if every else in_words([titles.get(stem, stem) for stem in made])
        level = "group" if table.group else "participant"
        shown.append(CallShown(call, level, where, changed_settings(call.settings)))
    return shown


def changed_settings(settings: Mapping[str, Any]) -> tuple[SettingShown, ...]:
    """Settings of a call that are not the default; those that change results come first.

    Parameters
    ----------
    settings
        All that have a value, as a call records them.
    """
    folders = [Path(str(settings[name])) for name in ("bids_dir", "output_dir") if name in settings]
    rows = [
        row
        for name, row in TABLE.items()
        if name in settings and row.group != POSITIONAL and name not in _OF_THE_MACHINE
        if settings[name] != _plain(row.default)
    ]
    rows.sort(key=lambda row: row.changes == ("nothing",))
    return tuple(
        SettingShown(row.flag, _text(settings[row.name], folders), _default(row)) for row in rows
    )


def _plain(value: Any) -> Any:
    """A default as TOML has it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def _text(value: Any, folders: Sequence[Path]) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item, folders) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _relative(str(value), folders)


def _default(row: Setting) -> str:
    return row.default_text or _text(_plain(row.default), ())


def _relative(text: str, folders: Sequence[Path]) -> str:
    """A path below one of some folders, relative to it; any other text as it is."""
    for folder in folders:
        if text.startswith("/") and Path(text).is_relative_to(folder):
            return Path(text).relative_to(folder).as_posix()
    return text


# --- versions and inputs -----------------------------------------------------------------------


def _versions(page: _Page) -> list[tuple[str, tuple[Item, ...]]]:
    """The versions in the sidecars: of this program, of Python, and of the libraries."""
    libraries = dict.fromkeys(
        str(name)
        for run in page.runs
        for sidecar in _sidecars(run)
        for name in mapping(sidecar.get("SoftwareVersions"))
    )
    found = [("brainlm-bids", page.items(_version_of("GeneratedBy", "Version")))]
    found += [(name, page.items(_version_of("SoftwareVersions", name))) for name in libraries]
    return [(name, items) for name, items in found if items]


def _sidecars(run: Run) -> list[Mapping[str, Any]]:
    return [run.sidecar, *(model.sidecar for model in run.models)]


def _version_of(field: str, name: str) -> Callable[[Run], list[Item]]:
    def of(run: Run) -> list[Item]:
        found = (mapping(sidecar.get(field)).get(name) for sidecar in _sidecars(run))
        return [Item(str(version)) for version in found if version]

    return of


def _inputs(page: _Page) -> list[tuple[str, tuple[Item, ...]]]:
    return [
        ("Files", page.items(_sources)),
        ("Processed from", page.items(_kinds)),
        ("Atlas", page.items(_resource("Atlas"))),
        ("Template", page.items(_resource("Template"))),
        ("Checkpoint", page.items(_checkpoints)),
    ]


def _sources(run: Run) -> list[Item]:
    """The files that the series were made from, relative to their data set."""
    found = []
    for source in as_list(run.sidecar.get("Sources")):
        scheme, _, rest = str(source).partition(":")
        name, _, path = rest.partition(":")
        if scheme != "bids" or not path:
            found.append(Item(PurePath(str(source)).name, file=True))
        else:
            found.append(Item(path, (f"data set {name}",) if name else ("this folder",), True))
    return found


def _kinds(run: Run) -> list[Item]:
    """Raw data, fMRIPrep with its version and space, or given series."""
    data = mapping(run.sidecar.get("InputData"))
    words = {"raw": "raw BOLD", "series": "parcel series that were given"}
    kind = str(data.get("Kind") or "")
    if not kind:
        return []
    text = " ".join([words.get(kind, kind), *filter(None, [str(data.get("Version") or "")])])
    return [Item(text, (f"BOLD in {data['Space']} space",) if data.get("Space") else ())]


def _resource(field: str) -> Callable[[Run], list[Item]]:
    """The atlas or the template, with its source and checksum."""

    def of(run: Run) -> list[Item]:
        found = run.sidecar.get(field)
        if isinstance(found, str) and found:
            return [Item(found)]
        name = mapping(found).get("Name")
        return [Item(str(name), notes_on(mapping(found), "Source", "SHA256"))] if name else []

    return of


def _checkpoints(run: Run) -> list[Item]:
    """The weights of each model."""
    return [
        Item(str(about["label"]), notes_on(about, "source", "sha256"))
        for model in run.models
        if (about := mapping(model.sidecar.get("Model"))).get("label")
    ]


def notes_on(values: Mapping[str, Any], source: str, checksum: str) -> tuple[str, ...]:
    """Where a resource is from, and its checksum.

    Parameters
    ----------
    values
        What a sidecar records of it.
    source, checksum
        Names of the fields.
    """
    notes = [str(values[source])] if values.get(source) else []
    if values.get(checksum):
        notes.append(f"sha256 {values[checksum]}")
    elif values.get("untrained") and not notes:
        notes.append("random weights")
    return tuple(notes)


def in_words(runs: Sequence[str]) -> str:
    """The names of some recordings in a sentence; of many, the first and their number.

    >>> in_words(["a", "b"]), in_words(["a", "b", "c", "d", "e"])
    ('a and b', 'a, b and 3 more')
    """
    if len(runs) <= 3:
        return joined(list(runs))
    return joined([*runs[:2], f"{len(runs) - 2} more"])
