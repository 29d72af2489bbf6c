"""The Boutiques descriptor of `brainlm-bids`, made from the table of settings.

Run `python -m brainlm_bids.commands.boutiques workflows/nipoppy/descriptor.json` after a change
of the table or of the version.
"""

import json
import sys
from math import inf
from pathlib import Path
from typing import Any

from brainlm_bids import __version__
from brainlm_bids.commands.bids_app import (
    CONFIG_FILE,
    EXIT_FAILED,
    EXIT_INTERNAL,
    NOTRACK,
)
from brainlm_bids.commands.parser import EXIT_USAGE
from brainlm_bids.settings import rows_in
from brainlm_bids.table import POSITIONAL, SECTIONS, Setting
from brainlm_bids.values import UNIT_NAMES, Bounds, Option

IMAGE = f"ghcr.io/brainlm-bids/brainlm-bids:{__version__}"
REPOSITORY = "https://github.com/brainlm-bids/brainlm-bids"


def descriptor() -> dict[str, Any]:
    """The descriptor, of the Boutiques schema 0.5.

    Returns
    -------
    dict
        An input for each setting of the table, under its name there, for `--config-file` and for
        `--notrack`.

    Examples
    --------
    >>> inputs = {one["id"]: one for one in descriptor()["inputs"]}
    >>> inputs["high_pass"]["command-line-flag"], inputs["high_pass"]["minimum"]
    ('--high-pass', 1.0)
    """
    places = list(rows_in(POSITIONAL))
    # a flag that takes several values would swallow arguments without one: these come first
    options = [CONFIG_FILE, NOTRACK, *(row for name in SECTIONS for row in rows_in(name))]
    inputs = [*(_argument(row) for row in places), *(_option(row) for row in options)]
    return {
        "schema-version": "0.5",
        "name": "brainlm-bids",
        "tool-version": __version__,
        "description": "From raw BIDS fMRI to A424 parcel series to BrainLM embeddings, "
        "reconstructions and network maps",
        "author": "The brainlm-bids developers",
        "url": REPOSITORY,
        "command-line": " ".join(["brainlm-bids", *(one["value-key"] for one in inputs)]),
        # /bin/sh would be started as a login shell, which forgets the image's PATH
        "shell": "/bin/bash",
        "container-image": {"type": "docker", "image": IMAGE},
        "inputs": inputs,
        "output-files": _outputs(),
        # of a participant with one or two runs (docs/scaling.md)
        "suggested-resources": {"cpu-cores": 1, "ram": 4, "walltime-estimate": 900},
        "error-codes": [
            {"code": EXIT_FAILED, "description": "At least one run failed; the others are done"},
            {"code": EXIT_USAGE, "description": "A wrong option or path, or nothing to do"},
            {"code": EXIT_INTERNAL, "description": "Internal error"},
        ],
        "tags": {"domain": ["neuroinformatics", "fmri"], "schema": "BIDS"},
    }


def _outputs() -> list[dict[str, Any]]:
    """The files by which an engine knows the outputs; a dry run writes none of them."""
    named = {
        "dataset_description": ("dataset_description.json", "Description of the derivatives"),
        "index": ("index.html", "Index of all recordings, with links to the reports"),
        "recordings": ("index.tsv", "Status and measures of every recording"),
        "citation": ("logs/CITATION.md", "Methods text with references"),
        "group_report": ("group.html", "Report of the group level"),
    }
    return [
        {
            "id": name,
            "name": path,
            "description": text,
            "path-template": f"[OUTPUT_DIR]/{path}",
            "optional": True,
        }
        for name, (path, text) in named.items()
    ]


def _argument(row: Setting) -> dict[str, Any]:
    """An input that is recognised by its place."""
    return {**_input(row), "optional": False}


def _option(row: Option) -> dict[str, Any]:
    """An input that has a flag."""
    if row.counted:  # -v, -vv
        short = row.spellings[0]
        several = [f"{short}{short[1:] * more}" for more in range(2)]
        return {**_input(row), "type": "String", "value-choices": several, "optional": True}
    return {**_input(row), "command-line-flag": row.flag, "optional": True}


def _input(row: Option) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": row.name,
        "name": row.name.replace("_", " "),
        "description": _description(row),
        "value-key": f"[{row.name.upper()}]",
        **_type(row),
    }
    if row.several:
        values |= {"list": True, "min-list-entries": 1}
    return values


def _description(row: Option) -> str:
    unit = UNIT_NAMES.get(row.unit or "", row.unit)
    default = row.shown_default()
    text = f"{row.help}, in {unit}" if unit and _is_number(row) else row.help
    # Boutiques would write a default-value into every command; the program knows its own
    return f"{text} (default: {default})" if default else text


def _is_number(row: Option) -> bool:
    return row.kind in (int, float) and row.convert is None and not row.counted


def _type(row: Option) -> dict[str, Any]:
    if row.kind is bool:
        return {"type": "Flag"}
    if _is_number(row):
        return {"type": "Number", "integer": row.kind is int, **_limits(row)}
    if row.kind is Path and not _is_made(row):
        return {"type": "File"}
    return {"type": "String", **({"value-choices": list(row.choices)} if row.choices else {})}


def _is_made(row: Option) -> bool:
    """Whether the path need not exist before the call."""
    return isinstance(row, Setting) and (row.written or row.name == "output_dir")


def _limits(row: Option) -> dict[str, Any]:
    if not row.bounds:
        return {}
    bounds = Bounds(row.bounds)
    limits: dict[str, Any] = {"minimum": bounds.low, "exclusive-minimum": row.bounds[0] == "("}
    if bounds.high != inf:
        limits |= {"maximum": bounds.high, "exclusive-maximum": row.bounds[-1] == ")"}
    return limits


def text() -> str:
    """The descriptor as it stands in the repository."""
    return json.dumps(descriptor(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Print the descriptor, or write it into the file that is given."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text(), encoding="utf-8")
    else:
        sys.stdout.write(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
