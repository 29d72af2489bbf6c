"""Properties of a checkpoint: its label in file names, its licence, and whether it is published.

Published weights are recognised by their sha256, or by what the folder states; never by the name of
the folder, which is arbitrary.
"""

import re
from pathlib import Path

from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_text

# Published checkpoints and their folders in the repository of the weights on Hugging Face.
PUBLISHED = {"111M": "vitmae_111M", "650M": "vitmae_650M", "13M": "old_13M"}
DEMO = "demo"  # the checkpoint that comes with this package
# Of the published weights.
WEIGHTS_LICENCE_NAME = "CC BY-NC-ND 4.0"
WEIGHTS_LICENCE = f"{WEIGHTS_LICENCE_NAME} (https://creativecommons.org/licenses/by-nc-nd/4.0/)"
NOT_STATED = "not stated in the folder of the weights"
SUMS_FILE = "SHA256SUMS"  # written beside downloaded weights
ORIGIN_FILE = "origin.json"  # likewise: which published weights they are
_PUBLISHED_CARD = "cc-by-nc-nd-4.0"  # the licence of the published weights as their card has it


def model_label(name: str) -> str:
    """Return the label of a model in file names.

    Parameters
    ----------
    name
        A published checkpoint or the demo, `random:<architecture>`, or the name of a folder.

    Returns
    -------
    str
        Letters and digits.

    Raises
    ------
    UserError
        If the name has neither letters nor digits.

    Examples
    --------
    >>> [model_label(name) for name in ("111M", "demo", "random:tiny", "my_model-2")]
    ['brainlm111M', 'brainlmdemo', 'randomtiny', 'mymodel2']
    """
    if name in PUBLISHED or name == DEMO:
        return f"brainlm{name}"
    prefix, _, rest = name.rpartition("random:")
    label = re.sub(r"[^A-Za-z0-9]", "", rest)
    if not label:
        raise UserError(f"{name!r}: no letter or digit to name the model by; rename the folder")
    return f"random{label}" if prefix or name.startswith("random:") else label


def published_name(folder: Path, sha256: str, home: Path | None) -> str | None:
    """Identify the published checkpoint in a folder, if it is one.

    Parameters
    ----------
    folder
        Of the checkpoint.
    sha256
        Checksum of its weights.
    home
        The cache, with the checksums of downloaded weights.

    Returns
    -------
    str or None
        A key of `PUBLISHED`: the weights have the checksum of the download in the cache, or are
        unchanged since they were downloaded into the folder (or into one that it is a copy of).
    """
    for name, published in PUBLISHED.items():
        if home is not None and sha256 in recorded_sums(home / "models" / published).values():
            return name
    origin = _json(folder / ORIGIN_FILE)
    name = str(origin.get("Name"))
    return name if name in PUBLISHED and origin.get("Sha256") == sha256 else None


def stated_licence(folder: Path) -> str:
    """Read the licence from the folder of a checkpoint.

    In this order: the record of its training (training.json of this program), the model card
    (README.md with a header, also that of the parent folder, as in a clone of a repository of
    several models), config.json, and the first line of a LICENSE file.

    Parameters
    ----------
    folder
        Of the checkpoint.

    Returns
    -------
    str
        The licence, or that it is not stated.
    """
    started = _json(folder / "training.json").get("StartedFrom")
    candidates = [
        started.get("Licence") if isinstance(started, dict) else None,
        _card_licence(folder / "README.md"),
        _card_licence(folder.resolve().parent / "README.md"),
        _json(folder / "config.json").get("license"),
        _first_line(folder / "LICENSE"),
    ]
    for licence in candidates:
        if licence:
            return WEIGHTS_LICENCE if licence == _PUBLISHED_CARD else str(licence)
    return NOT_STATED


def recorded_sums(folder: Path) -> dict[str, str]:
    """Read the checksums that were recorded when weights were downloaded.

    Parameters
    ----------
    folder
        Of the weights.

    Returns
    -------
    dict
        File to sha256; empty if none were recorded.
    """
    try:
        lines = [line.split(maxsplit=1) for line in read_text(folder / SUMS_FILE).splitlines()]
    except UserError:
        return {}
    return {line[1].strip(): line[0] for line in lines if len(line) == 2}


def _card_licence(card: Path) -> str | None:
    """`license:` in the header of a model card."""
    try:
        text = read_text(card)
    except UserError:
        return None
    header = re.match(r"---\n(.*?)\n---", text, flags=re.DOTALL)
    stated = header and re.search(r"^license:\s*['\"]?([^'\"\n]+)", header[1], flags=re.MULTILINE)
    return stated[1].strip() if stated else None


def _first_line(file: Path) -> str | None:
    try:
        lines = [line.strip() for line in read_text(file).splitlines()]
    except UserError:
        return None
    return next((line for line in lines if line), None)


def _json(file: Path) -> dict[str, object]:
    try:
        return dict(read_json(file)) if file.is_file() else {}
    except UserError:
        return {}
