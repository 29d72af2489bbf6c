"""The models of a page: a table of what is recorded of their weights, and the warnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlm_bids.bids.derivatives import find_derivatives
from brainlm_bids.notices import from_json, gravest_first
from brainlm_bids.report.model_facts import licence
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.tools.parts import Cell, Section, Table, Warned, row, warned


def untrained_models(models: Mapping[str, Any]) -> list[str]:
    """Labels of the models with random weights.

    Parameters
    ----------
    models
        The field Models of a sidecar.
    """
    return [str(label) for label, one in models.items() if mapping(one).get("untrained")]


def models_section(models: Mapping[str, Any]) -> Section:
    """A section with a row per model: its source, its checksum, its licence.

    Parameters
    ----------
    models
        The field Models of a sidecar, or several joined.
    """
    rows = []
    for label, values in models.items():
        one = mapping(values)
        kind = "untrained" if one.get("untrained") else "trained"
        shown = (one.get("source"), str(one.get("sha256") or "none"), licence(one))
        rows.append(row([Cell(str(label)), Cell(kind), *(Cell(str(v or "n/a")) for v in shown)]))
    header = ("Model", "Weights", "Source", "SHA-256", "Licence")
    table = Table("The models and the licences of their weights.", header, tuple(rows))
    return Section("Models", "models", tables=[table])


def not_tabled(folder: Path, key: str, tabled: Iterable[object]) -> list[str]:
    """A sentence on recordings that have results but are in no table over recordings.

    Parameters
    ----------
    folder
        The results.
    key
        Key of the results of one recording in the table of outputs.
    tabled
        The recordings of all tables.
    """
    known = {one.naming.stem for one in find_derivatives(folder, [key])}
    other = sorted(known - {str(name) for name in tabled})
    if not other:
        return []
    are = "recording of this folder is" if len(other) == 1 else "recordings of this folder are"
    return [
        f"{len(other)} {are} in no table, since the last call did not ask for it: "
        f"{', '.join(other)}. A call for all recordings together computes none again."
    ]


def warnings_of(sidecars: Sequence[Mapping[str, Any]]) -> list[Warned]:
    """The warnings of some sidecars with their advice, each once, the gravest first.

    Parameters
    ----------
    sidecars
        Of the results.
    """
    found = [one for sidecar in sidecars for one in from_json(sidecar.get("Warnings"))]
    return warned(gravest_first(found))
