"""Which images of a session were measured for which runs, as sidecars declare it.

`B0FieldIdentifier` of field maps and `B0FieldSource` of runs, and the older `IntendedFor`, come in.
Paths and labels go out that can be compared.
"""

from pathlib import Path
from typing import Any

from brainlm_bids.bids.names import parse

# A run and its field maps name it without these: all echoes and parts of a run are one.
_PARTS_OF_A_RUN = ("echo", "part")


def labels(value: object) -> tuple[str, ...]:
    """Labels of a field that holds one, or a list of them.

    >>> labels("pepolar0"), labels(["a", "b"]), labels(None)
    (('pepolar0',), ('a', 'b'), ())
    """
    listed = value if isinstance(value, list | tuple) else [value]
    return tuple(one.strip() for one in listed if isinstance(one, str) and one.strip())


def intended_path(text: str, subject: str) -> str:
    """The path, relative to the data set, that an entry of `IntendedFor` stands for.

    Parameters
    ----------
    text
        A BIDS URI, or a path relative to the subject's folder (as BIDS had it before), or to the
        data set.
    subject
        Such as `sub-01`.

    Examples
    --------
    >>> intended_path("ses-1/func/sub-01_ses-1_task-rest_bold.nii.gz", "sub-01")
    'sub-01/ses-1/func/sub-01_ses-1_task-rest_bold.nii.gz'
    >>> intended_path("bids:raw:sub-01/func/sub-01_task-rest_bold.nii.gz", "sub-01")
    'sub-01/func/sub-01_task-rest_bold.nii.gz'
    """
    path = text.strip().replace("\\", "/")
    if path.startswith("bids:"):
        path = path.split(":", 2)[-1]
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if subject in parts:
        last = len(parts) - 1 - parts[::-1].index(subject)
        return "/".join(parts[last:])
    if parts and parts[0].startswith("sub-") and len(parts) > 1:
        return "/".join(parts)
    return "/".join([subject, *parts])


def intended_paths(metadata: dict[str, Any], subject: str) -> tuple[str, ...]:
    """All paths that an image is intended for."""
    return tuple(intended_path(one, subject) for one in labels(metadata.get("IntendedFor")))


def is_same_run(path: str, other: str) -> bool:
    """Whether two paths name the same run, whatever their echo, part and compression.

    >>> is_same_run("func/sub-1_task-a_bold.nii", "func/sub-1_task-a_echo-2_bold.nii.gz")
    True
    """
    return _key(path) == _key(other)


def _key(path: str) -> tuple[str, frozenset[str], str]:
    folder, _, name = path.rpartition("/")
    parsed = parse(name)
    parts = [part for part in parsed.parts if part.partition("-")[0] not in _PARTS_OF_A_RUN]
    return folder, frozenset(parts), parsed.suffix


def exists(path: str, root: Path) -> bool:
    """Whether there is such a file, compressed or not; one that was never fetched counts.

    >>> exists("sub-01/func/sub-01_task-rest_bold.nii.gz", Path("/nowhere"))
    False
    """
    stem = path.removesuffix(".gz").removesuffix(".nii")
    files = [root / path, *(root / f"{stem}{extension}" for extension in (".nii.gz", ".nii"))]
    return any(file.exists() or file.is_symlink() for file in files)
