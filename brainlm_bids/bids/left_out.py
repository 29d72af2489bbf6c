"""Files of a raw data set that look like BOLD runs and are not taken: why, and what to do.

A data set and what PyBIDS finds in it come in. Paths go out, each with its reason in one line, so
that no recording vanishes without a word.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.bids.names import (
    ENTITIES,
    alphanumeric,
    build,
    parse,
    with_prefix,
    without_punctuation,
)
from brainlm_bids.bids.tree import NIFTI, OTHER_IMAGES
from brainlm_bids.bids.valid_names import is_valid
from brainlm_bids.bounds import LARGEST_SETTINGS, content_of
from brainlm_bids.errors import UserError


class LeftOut(NamedTuple):
    """A file that is not taken, and the reason in one line."""

    path: Path
    reason: str


# --- what is there ---------------------------------------------------------------------------


def closed_reason(folder: Path) -> str:
    """What is wrong with a folder that cannot be listed, and what to do."""
    return f"{folder}: cannot be listed by user {os.getuid()}; change its permissions"


def lonely_reason(path: Path) -> str:
    """Why there is no run beside a file about one."""
    return f"{path.name}: there is no image {parse(path.name).stem}_bold.nii.gz beside it"


# --- .bidsignore -----------------------------------------------------------------------------


def read_bidsignore(bids_dir: Path) -> list[tuple[re.Pattern[str], bool]]:
    """Patterns of a data set's .bidsignore, and whether each ignores or takes back."""
    path = bids_dir / ".bidsignore"
    lines: list[str] = []
    with contextlib.suppress(OSError, UserError):  # one that cannot be read ignores nothing
        content = content_of(path, LARGEST_SETTINGS)
        lines = content.decode("utf-8-sig", errors="replace").splitlines()
    texts = [line.strip() for line in lines]
    return [
        (_pattern(text.removeprefix("!")), not text.startswith("!"))
        for text in texts
        if text and not text.startswith("#")
    ]


def is_ignored(path: Path, bids_dir: Path, rules: Sequence[tuple[re.Pattern[str], bool]]) -> bool:
    """Whether .bidsignore names a file: the last pattern that fits decides, as in git."""
    if not rules:  # of each of thousands of images
        return False
    relative = path.relative_to(bids_dir).as_posix()
    ignored = False
    for pattern, ignores in rules:
        if pattern.fullmatch(relative):
            ignored = ignores
    return ignored


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of .gitignore as an expression for paths of files.

    >>> bool(_pattern("extra/").fullmatch("sub-01/extra/a_bold.nii"))
    True
    >>> bool(_pattern("/*_bold.nii").fullmatch("sub-01/a_bold.nii"))
    False
    """
    anchored = "/" in text.rstrip("/")
    folder = text.endswith("/")
    expression = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", text.strip("/")):
        known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        if part.startswith("[") and part.endswith("]"):
            expression += part.replace("[!", "[^")
        else:
            expression += known.get(part, re.escape(part))
    before = "" if anchored else "(?:.*/)?"
    after = "/.*" if folder else "(?:/.*)?"
    try:
        return re.compile(before + expression + after)
    except re.error:  # an empty set of characters, for example
        return re.compile(before + re.escape(text.strip("/")) + after)


# --- why a file is not taken -----------------------------------------------------------------


def why_never(path: Path) -> str | None:
    """Why a file that looks like a BOLD run can never be one, and what to do; None if it can."""
    extension = _extension(path)
    labels = parse(path.name).entities
    if path.is_dir():
        return f"{path.name}: is a folder that is named like an image; move the image out of it"
    if extension not in NIFTI:
        return f"{path.name}: {extension} is not NIfTI; convert it to .nii.gz"
    if "sub" not in labels:
        return f"{path.name}: its name has no sub-<label>; rename it"
    if {"space", "desc"} & set(labels):
        return (
            f"{path.name}: is a derivative, not raw data; give its data set as "
            "--derivatives fmriprep=PATH, or move it into derivatives"
        )
    return None


def why_left_out(path: Path, bids_dir: Path) -> str:
    """Why a file that could be a BOLD run is not taken as one, and what to do."""
    extension = _extension(path)
    fault = _fault_of_name(path, extension) or _fault_of_place(path, bids_dir)
    proposal = _proposal(path, extension)
    return (
        f"{path.name}: {fault or 'its name is not valid BIDS'}; {proposal}or give "
        "--skip-bids-validation"
    )


def _extension(path: Path) -> str:
    name = path.name.lower()
    extensions = (*NIFTI[::-1], *OTHER_IMAGES)
    return next((text for text in extensions if name.endswith(text)), path.suffix)


def _fault_of_name(path: Path, extension: str) -> str | None:
    name = parse(path.name)
    labels = name.entities
    word = next((part for part in name.parts if "-" not in part), None)
    odd = next(
        (f"{k}-{v}" for k, v in labels.items() if not re.fullmatch("[0-9a-zA-Z+]+", v)), None
    )
    if "task" not in labels:
        return "its name has no task-<label>, which BIDS requires"
    if odd is not None:
        return f"BIDS allows only letters and digits in a label, unlike {odd}"
    if word is not None:
        return f"{word!r} in its name is no entity with a label"
    unknown = next((entity for entity in labels if entity not in ENTITIES), None)
    if unknown is not None:
        return f"{unknown!r} in its name is no entity of BIDS"
    if not path.name.endswith(f"_bold{extension}"):
        return f"BIDS names end in _bold{extension}, in lower case"
    known = [entity for entity in ENTITIES if entity in labels]
    if known != list(labels):
        return f"BIDS has the entities in the order {', '.join(known)}"
    return None


def _fault_of_place(path: Path, bids_dir: Path) -> str | None:
    expected = expected_folder(path)
    folder = path.parent.relative_to(bids_dir)
    if folder == expected:
        return None
    return f"it lies in {folder.as_posix()}, and BIDS expects it in {expected.as_posix()}"


def expected_folder(path: Path) -> Path:
    """Where BIDS expects a BOLD image, by its name."""
    labels = parse(path.name).entities
    parts = [with_prefix(entity, labels[entity]) for entity in ("sub", "ses") if entity in labels]
    return Path(*parts, "func")


def _proposal(path: Path, extension: str) -> str:
    """A valid name that is near to that of a file; nothing where there is none."""
    entities: dict[str, str] = {}
    last = ""
    for part in parse(path.name).parts:
        entity, dash, label = part.partition("-")
        if dash and entity.lower() in ENTITIES:
            last = entity.lower()
            entities[last] = alphanumeric(label)
        elif last:
            entities[last] += alphanumeric(part)
    entities.setdefault("task", "rest")
    proposed = Path(str(build("", entities, "bold", extension)))
    place = expected_folder(proposed) / proposed
    if not is_valid(Path("/") / place, Path("/")):
        return ""
    if proposed.name == path.name:
        return f"move it there (as {place.as_posix()}), "
    return f"rename it, with its sidecars, for example to {proposed.name}, "


# --- files about one run ---------------------------------------------------------------------


def one_of_each(paths: Iterable[Path], root: Path) -> tuple[list[Path], list[LeftOut]]:
    """One image of every run, and the others: uncompressed duplicates, and copies elsewhere.

    Of several, the one in BIDS' own folder is taken, and the compressed one of those: programs that
    need uncompressed images write theirs beside it, and some change it.
    """
    by_run: dict[str, list[Path]] = {}
    for path in paths:
        by_run.setdefault(without_punctuation(parse(path.name).source), []).append(path)
    left_out = []
    for same in by_run.values():
        same.sort(key=lambda path: _preference(path, root))
        left_out += [LeftOut(path, _twin(path, same[0], root)) for path in same[1:]]
    return sorted(same[0] for same in by_run.values()), left_out


def _preference(path: Path, root: Path) -> tuple[bool, bool, str]:
    elsewhere = path.parent.relative_to(root) != expected_folder(path)
    return elsewhere, path.suffix != ".gz", path.as_posix()


def _twin(path: Path, taken: Path, root: Path) -> str:
    other = taken.relative_to(root).as_posix()
    if parse(path.name).source == parse(taken.name).source:
        return f"{path.name}: the same run as {other}, which is used; remove or rename one of them"
    return f"{path.name}: differs from {other} in punctuation alone; rename one of them"


def combined_of(name: str, stems: Iterable[str]) -> str | None:
    """The run that an echo, or a part of a complex image, belongs to, if that is there, too."""
    parts = [part for part in parse(name).parts if part.partition("-")[0] not in ("echo", "part")]
    combined = "_".join(parts)
    return combined if combined in set(stems) else None
