"""Rows of the table of settings, and the table made from the fields of a dataclass."""

import dataclasses
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from brainlm_bids.values import Option

# What a setting can change: the parcel series of a run, the results of a model, those of a cohort.
SERIES, MODEL, COHORT, NOTHING = "series", "model", "cohort", "nothing"
CHANGES = (SERIES, MODEL, COHORT, NOTHING)
REQUIRED = dataclasses.MISSING  # in place of a default

POSITIONAL, DATA, PREPROCESSING = "arguments", "input data", "preprocessing"
BRAINLM, GROUP_LEVEL, EXECUTION = "BrainLM", "group level (the cohort)", "execution"
SECTIONS = (DATA, PREPROCESSING, BRAINLM, GROUP_LEVEL, EXECUTION)  # of the help, in this order


@dataclass(frozen=True, kw_only=True)
class Setting(Option):
    """A row of the table.

    Parameters
    ----------
    group
        The section of the help that lists it.
    changes
        Which results depend on it.
    by_content
        Whether these follow the contents of the files that it selects, and not its words: then
        the files are hashed.
    file
        Whether it names a file, which must exist.
    written
        Whether the program writes into the folder that it names.
    in_fmriprep
        Whether fMRIPrep has the same flag with the same meaning.
    prefix
        What is removed from the front of a label.
    """

    group: str
    changes: tuple[str, ...]
    by_content: bool = False
    file: bool = False
    written: bool = False
    in_fmriprep: bool = False
    prefix: str = ""

    def read(self, text: str) -> Any:
        """One item from text, as in `Option`; labels lose their prefix."""
        return super().read(text.removeprefix(self.prefix))


def setting(
    default: Any, group: str, changes: str | tuple[str, ...], *, help: str, **more: Any
) -> Any:
    """A field of `Settings`: its default, and the columns of its row (see `Setting`).

    Raises
    ------
    ValueError
        If it changes something that does not exist, or its group does not.
    """
    changed = (changes,) if isinstance(changes, str) else changes
    if not changed or not set(changed) <= set(CHANGES) or (NOTHING in changed and len(changed) > 1):
        raise ValueError(f"changes must be some of {CHANGES}, not {changes!r}")
    if group not in (POSITIONAL, *SECTIONS):
        raise ValueError(f"{group!r} is no group of settings")
    row = {"group": group, "changes": changed, "help": help, **more}
    return dataclasses.field(default=default, metadata={"row": row})


def rows_of(table: type) -> dict[str, Setting]:
    """The rows of a dataclass whose fields were made by `setting`, by name.

    Raises
    ------
    TypeError
        If a field is a plain one, which does not say what it changes.
    """
    hints = get_type_hints(table)
    rows = {}
    for field in dataclasses.fields(table):
        if "row" not in field.metadata:
            raise TypeError(f"the setting {field.name} does not say what it changes")
        kind, several = _kind_of(hints[field.name])
        default = None if field.default is REQUIRED else field.default
        rows[field.name] = Setting(
            name=field.name,
            kind=kind,
            several=several,
            default=default,
            **field.metadata["row"],
        )
    return rows


def _kind_of(hint: Any) -> tuple[type, bool]:
    """(type of an item, whether there are several), of an annotation."""
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    if get_origin(hint) is UnionType:
        return next(kind for kind in get_args(hint) if kind is not NoneType), False
    return hint, False
