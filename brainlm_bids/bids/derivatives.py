"""The files of an output folder, found by what they are.

An output folder that brainlm-bids has filled comes in. `Derivative` values go out: files with the
key of the table of outputs, the recording and the model that their names tell.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Protocol

from brainlm_bids.bids.names import GROUP, matches, parse, with_prefix
from brainlm_bids.bids.outputs import Naming, Output, output_table
from brainlm_bids.files import read_rows


@dataclass(frozen=True)
class Derivative:
    """One file of an output folder.

    Attributes
    ----------
    path
        Where it is.
    key
        What it is: a key of the table of outputs.
    naming
        The recording, space, atlas and scaling that its name tells.
    model
        Label of the model; empty for what no model made.
    formerly
        Whether it has the name that older versions gave it.
    """

    path: Path
    key: str
    naming: Naming
    model: str = ""
    formerly: bool = False


def identify(path: Path, output_dir: Path) -> Derivative | None:
    """What a file of an output folder is, by its name; None for files of other programs.

    A sidecar is identified as the file that it lies beside.

    >>> found = identify(Path("sub-1_task-a_model-demo_desc-windows_embeddings.tsv"), Path("/out"))
    >>> found.key, found.model, found.naming.stem
    ('embeddings', 'demo', 'sub-1_task-a')
    """
    name = parse(path.name)
    about = "recording" if "sub" in name.entities else name.subject
    matched = _matched(name.suffix, about, tuple(name.added.items()))
    if matched is None:
        return None
    row, labels, formerly = matched
    naming = Naming(
        str(output_dir),
        name.source,
        labels.get("space", ""),
        labels.get("atlas", ""),
        labels.get("scaling") or row.label("scaling"),
    )
    return Derivative(path, row.key, naming, labels.get("model", ""), formerly)


# The recordings of a cohort have files of the same kinds.
@lru_cache(1024)
def _matched(
    suffix: str, about: str, added: tuple[tuple[str, str], ...]
) -> tuple[Output, Mapping[str, str], bool] | None:
    """The row of the table that a name is of, the labels that it leaves open, whether it is older.

    added: what derivatives add to the name of their source.
    """
    for formerly in (False, True):
        for row in _rows(suffix, about, formerly):
            labels = _labels(row.formerly if formerly else row.entities, added)
            if labels is not None:
                return row, labels, formerly
    return None


@cache
def _rows(suffix: str, about: str, formerly: bool) -> list[Output]:
    """Rows of the table that a name may be of, those with the most fixed labels first."""

    def fixed(row: Output) -> int:
        patterns = row.formerly if formerly else row.entities
        return sum(len(re.sub(r"\{\w+\}", "", p.partition("-")[2])) for p in patterns)

    def possible(row: Output) -> bool:
        if row.suffix != suffix or (formerly and not row.formerly):
            return False
        if row.datatype:
            return about == "recording"
        return about == GROUP if row.source else about not in (GROUP, "recording")

    return sorted(filter(possible, output_table().values()), key=fixed, reverse=True)


def _labels(patterns: Sequence[str], added: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """The labels that a name has where a row of the table leaves them open; None: not its name.

    added: what derivatives add to the name of their source, of the name.
    """
    left, labels = dict(added), {}
    for pattern in patterns:
        entity, _, wanted = pattern.partition("-")
        label = left.pop(entity, "")
        if wanted == label and wanted:
            continue
        if not wanted:
            if entity == "model" and not label:
                return None
            labels[entity] = label
        elif "{" in wanted and (match := re.fullmatch(_expression(wanted), label)):
            labels |= {key: value or "" for key, value in match.groupdict().items()}
        else:
            return None
    return None if left else labels


def _expression(pattern: str) -> str:
    """A label of older versions, in which model and scaling were parts of one word."""
    expression = pattern.replace("{model}", "(?P<model>[A-Za-z0-9]+?)")
    return expression.replace("{scaling}", "(?P<scaling>cohort)?")


class Selection(Protocol):
    """Entities that a call is restricted to; an empty tuple selects everything."""

    @property
    def participant_label(self) -> tuple[str, ...]:
        """Participants, without `sub-`."""
        ...

    @property
    def session_label(self) -> tuple[str, ...]:
        """Sessions, without `ses-`."""
        ...

    @property
    def task_id(self) -> tuple[str, ...]:
        """Tasks."""
        ...

    @property
    def run_id(self) -> tuple[str, ...]:
        """Runs."""
        ...


@dataclass(frozen=True)
class OfParticipant:
    """The selection of everything of one participant."""

    participant_label: tuple[str, ...]
    session_label: tuple[str, ...] = ()
    task_id: tuple[str, ...] = ()
    run_id: tuple[str, ...] = ()


def selected(stem: str, chosen: Selection) -> bool:
    """Whether a recording is among the chosen ones."""
    wanted = {
        "sub": chosen.participant_label,
        "ses": chosen.session_label,
        "task": chosen.task_id,
        "run": chosen.run_id,
    }
    return matches(parse(stem).entities, wanted)


def find_derivatives(
    output_dir: Path, keys: Iterable[str], selection: Selection | None = None
) -> list[Derivative]:
    """All files of some kinds in an output folder, sorted by their paths.

    Parameters
    ----------
    output_dir
        The folder.
    keys
        Of the table of outputs (`brainlm_bids/data/outputs.toml`).
    selection
        Subjects, sessions, tasks and runs; None: all.

    Returns
    -------
    list of Derivative
        A file that is there under its present and its former name is given once.
    """
    found: dict[tuple[str, Naming, str], Derivative] = {}
    for path, key in _candidates(output_dir, keys, selection):
        one = identify(path, output_dir)
        if one is None or one.key != key:
            continue
        if selection is not None and not selected(one.naming.stem, selection):
            continue
        place = one.key, one.naming, one.model
        if place not in found or found[place].formerly:
            found[place] = one
    return sorted(found.values(), key=lambda one: one.path)


def _candidates(
    output_dir: Path, keys: Iterable[str], selection: Selection | None
) -> Iterator[tuple[Path, str]]:
    labels = () if selection is None else selection.participant_label
    # the folders of the selected subjects alone: each of many jobs asks for its own
    subjects = [with_prefix("sub", label) for label in labels] or ["sub-*"]
    for key in dict.fromkeys(keys):
        row = output_table()[key]
        ending = f"*_{row.suffix}{row.extension}"
        folders = [""]
        if row.datatype:
            folders = [f"{subject}/{part}" for subject in subjects for part in ("", "ses-*/")]
        for folder in folders:
            for path in output_dir.glob(f"{folder}{row.datatype}/{ending}".lstrip("/")):
                yield path, key


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table; columns of older versions get their present names.

    Raises
    ------
    UserError
        If the file is not a table.
    """
    rows = read_rows(path)
    if not rows or "session" not in rows[0] or "session_id" in rows[0]:
        return rows
    for row in rows:
        label = row["session"]
        row["session"] = label if label in ("", "n/a") else with_prefix("ses", label)
    return [
        {"session_id" if name == "session" else name: cell for name, cell in row.items()}
        for row in rows
    ]
