"""BIDS file names, made and taken apart. No other module knows how a name is spelt.

A name is a row of entities (`sub-01`, `task-rest`, …), a suffix and an extension. A derivative
keeps the entities of its source word for word (`run-1` stays `run-1`) and adds its own.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

# All entities, in the order of BIDS 1.11 (rules/entities.yaml of its schema). Not in BIDS yet:
# from, to, mode (proposal 14: transforms), model (proposal 39), stat and hash (of a set of
# parameters; as XCP-D has them), scaling.
ENTITIES = (
    *("sub", "tpl", "ses", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce"),
    *("trc", "stain", "rec", "dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "proc"),
    *("hemi", "from", "to", "mode", "space", "split", "recording", "chunk", "atlas", "seg"),
    *("scale", "res", "den", "label", "model", "scaling", "stat", "hash", "desc"),
)
# Those that a derivative adds to the name of its source.
ADDED = frozenset(
    {
        *("cohort", "hemi", "from", "to", "mode", "space", "atlas", "seg", "scale", "res", "den"),
        *("label", "model", "scaling", "stat", "hash", "desc"),
    }
)
# In place of a subject, in the names of what describes a whole cohort.
GROUP = "group"
# Bytes of a run's name: file systems allow 255, and the names of its outputs are longer.
_LONGEST_STEM = 130


@dataclass(frozen=True)
class Name:
    """A file name taken apart.

    Attributes
    ----------
    parts
        What stands between the underscores before the suffix, word for word.
    suffix
        Such as `bold`; empty for a name that ends with an entity.
    extension
        From the first dot on: `.nii.gz`.
    """

    parts: tuple[str, ...]
    suffix: str = ""
    extension: str = ""

    def __str__(self) -> str:
        return self.bare + self.extension

    @cached_property
    def _labels(self) -> dict[str, str]:
        return dict(part.split("-", 1) for part in self.parts if "-" in part)

    @property
    def entities(self) -> dict[str, str]:
        """Labels by entity, in the order and the spelling of the name; a dictionary of its own.

        >>> parse("sub-01_task-rest_run-1_bold.nii.gz").entities
        {'sub': '01', 'task': 'rest', 'run': '1'}
        """
        return dict(self._labels)

    def get(self, entity: str, default: str = "") -> str:
        """The label of an entity; `default` where the name has none."""
        return self._labels.get(entity, default)

    @property
    def stem(self) -> str:
        """The name without suffix and extension."""
        return "_".join(self.parts)

    def without(self, *entities: str) -> "Name":
        """The name less some entities.

        >>> parse("sub-01_task-rest_echo-1_bold.nii.gz").without("echo").stem
        'sub-01_task-rest'
        """
        parts = tuple(part for part in self.parts if part.partition("-")[0] not in entities)
        return replace(self, parts=parts)

    @property
    def source(self) -> str:
        """The stem of the raw file: what derivatives add is left out.

        >>> parse("sub-01_task-rest_space-T1w_desc-preproc_bold.nii.gz").source
        'sub-01_task-rest'
        """
        return "_".join(part for part in self.parts if part.partition("-")[0] not in ADDED)

    @property
    def added(self) -> dict[str, str]:
        """The entities that derivatives add.

        >>> parse("sub-01_task-rest_space-T1w_desc-preproc_bold.nii.gz").added
        {'space': 'T1w', 'desc': 'preproc'}
        """
        return {entity: label for entity, label in self._labels.items() if entity in ADDED}

    @property
    def bare(self) -> str:
        """The name without extension."""
        return "_".join([*self.parts, self.suffix] if self.suffix else self.parts)

    @property
    def subject(self) -> str:
        """The first part: `sub-01`, or `group`."""
        return self.parts[0] if self.parts else ""


# A name is asked for dozens of times while its recording is looked at, and not afterwards.
@lru_cache(4096)
def parse(name: str) -> Name:
    """Take a file name, or a stem, apart.

    Parameters
    ----------
    name
        A name without folders. Words that are no entity are kept; a name need not be valid BIDS.

    Examples
    --------
    >>> parse("sub-01_task-rest_space-T1w_desc-brain_mask.nii.gz").suffix
    'mask'
    >>> parse("sub-01_task-rest").parts
    ('sub-01', 'task-rest')
    """
    head, dot, extension = name.partition(".")
    *parts, suffix = head.split("_")
    if "-" in suffix:  # a stem
        parts, suffix = [*parts, suffix], ""
    return Name(tuple(parts), suffix, dot + extension)


def in_words(name: str) -> str:
    """A name, or a stem, as people say it.

    >>> in_words("sub-02_ses-1_task-rest_run-01"), in_words("sub-02_acq-mp2rage_T1w.nii.gz")
    ('sub-02, session 1, rest, run 1', 'sub-02, acq-mp2rage, T1w')
    """
    taken = parse(name)
    said = []
    for part in taken.parts:
        entity, _, label = part.partition("-")
        number = label.lstrip("0") or label
        forms = {"ses": f"session {label}", "task": label, "run": f"run {number}"}
        said.append(forms.get(entity, part))
    return ", ".join([*said, taken.suffix] if taken.suffix else said)


def build(source: str, entities: Mapping[str, str], suffix: str = "", extension: str = "") -> Name:
    """The name of a derivative: the source's parts word for word, and entities in BIDS' order.

    Parameters
    ----------
    source
        The stem of the raw file, or `group`, or empty for a file about the data set.
    entities
        Labels by entity. Those without a label are left out.

    Raises
    ------
    ValueError
        For an entity that is not in `ENTITIES`.

    Examples
    --------
    >>> str(build("sub-01_run-1", {"desc": "robust", "space": "T1w"}, "timeseries", ".tsv"))
    'sub-01_run-1_space-T1w_desc-robust_timeseries.tsv'
    """
    parts = source.split("_") if source else []
    for entity, label in entities.items():
        if label:
            parts.insert(_place(entity, parts), f"{entity}-{label}")
    return Name(tuple(parts), suffix, extension)


def _place(entity: str, parts: Sequence[str]) -> int:
    """Where an entity goes: behind the last part that comes before it."""
    if entity not in ENTITIES:
        raise ValueError(f"{entity!r} is no entity; known are {', '.join(ENTITIES)}")
    before = (GROUP, *ENTITIES[: ENTITIES.index(entity)])
    return max(
        (k for k, part in enumerate(parts, 1) if part.partition("-")[0] in before), default=0
    )


def sidecar_of(path: Path) -> Path:
    """Where the JSON file beside a file is.

    >>> sidecar_of(Path("sub-01_bold.nii.gz")).name
    'sub-01_bold.json'
    """
    return path.with_name(str(replace(parse(path.name), extension=".json")))


def without_prefix(entity: str, label: str) -> str:
    """A label without its entity, however it was given.

    >>> without_prefix("sub", "sub-01"), without_prefix("sub", "01")
    ('01', '01')
    """
    return label.removeprefix(f"{entity}-")


def with_prefix(entity: str, label: str) -> str:
    """A label with its entity, however it was given.

    >>> with_prefix("sub", "sub-01"), with_prefix("sub", "01")
    ('sub-01', 'sub-01')
    """
    return f"{entity}-{without_prefix(entity, label)}"


def session_id(entities: Mapping[str, str]) -> str | None:
    """The session as BIDS' tables write it; None where there are none.

    >>> session_id({"sub": "01", "ses": "a"})
    'ses-a'
    """
    return with_prefix("ses", entities["ses"]) if "ses" in entities else None


def matches(entities: Mapping[str, str], wanted: Mapping[str, Iterable[str]]) -> bool:
    """Whether the labels of a name are among the wanted ones.

    Parameters
    ----------
    entities
        Of the name.
    wanted
        Labels by entity, with or without its prefix; none: all. Runs are compared as numbers.

    Examples
    --------
    >>> matches({"sub": "01", "run": "01"}, {"sub": ["sub-01"], "task": [], "run": ["1"]})
    True
    """
    for entity, labels in wanted.items():
        plain = {_comparable(entity, without_prefix(entity, label)) for label in labels}
        if plain and _comparable(entity, entities.get(entity, "")) not in plain:
            return False
    return True


def _comparable(entity: str, label: str) -> str:
    return str(int(label)) if entity == "run" and label.isdecimal() else label


def alphanumeric(text: str) -> str:
    """The letters and digits of a text: what a label may hold.

    >>> alphanumeric("my checkpoint_2")
    'mycheckpoint2'
    """
    return re.sub(r"[^A-Za-z0-9]", "", text)


def without_punctuation(stem: str) -> str:
    """A name as in the graph, where all punctuation is the same.

    >>> without_punctuation("sub-01_task-a.b")
    'sub_01_task_a_b'
    """
    return re.sub(r"\W", "_", stem)


def why_unusable(stem: str) -> str | None:
    r"""Why outputs cannot be named after a run; None if they can.

    >>> why_unusable("sub-01_task-rest"), why_unusable("sub-01_task-a\x1bb")
    (None, 'its name holds a character that cannot be shown; rename it')
    """
    if not stem.isprintable():
        return "its name holds a character that cannot be shown; rename it"
    if any(part.endswith("-") for part in stem.split("_")):
        return "its name has an entity without a label; rename it"
    n_bytes = len(os.fsencode(stem))
    if n_bytes > _LONGEST_STEM:
        return (
            f"its name is too long for those of its outputs ({n_bytes} bytes, at most "
            f"{_LONGEST_STEM}); rename it"
        )
    return None


def common_stem(stems: Iterable[str]) -> str:
    """The stem of files about several runs: with their task, if they have one in common.

    >>> common_stem(["sub-01_task-rest", "sub-02_task-rest"])
    'group_task-rest'
    >>> common_stem(["sub-01_task-rest", "sub-01_task-nback"])
    'group'
    """
    tasks = {parse(stem).get("task") for stem in stems}
    task = tasks.pop() if len(tasks) == 1 else ""
    return str(build(GROUP, {"task": task}))
