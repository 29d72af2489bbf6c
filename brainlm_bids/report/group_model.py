"""What the report of a cohort says about one model: metrics, maps, networks, decoding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.sources import default_of
from brainlm_bids.notices import Notice, from_json, gravest_first
from brainlm_bids.report import model_facts, network_facts
from brainlm_bids.report.figure_files import FigureFile, Sections, existing_figures, figure_file
from brainlm_bids.report.group_audit import Audit, gather_audit
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.states import States, gather_states
from brainlm_bids.report.values import Fact, Row, as_float, mean_sd, number, read_json, read_tsv
from brainlm_bids.report.verdict import best_of, ranked, source_of, verdict

_METRICS = {
    "mse": "Mean squared error",
    "mae": "Mean absolute error",
    "r2": "r²",
    "pearson_r": "Pearson r",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC",
}


@dataclass
class ReadoutLine:
    """One source of a decoding: a cell per metric, and the p value."""

    label: str
    role: str
    cells: list[str]
    default: bool
    best: bool


@dataclass
class Decoding:
    """One target: a line per source."""

    target: str
    about: str
    metrics: list[str]
    lines: list[ReadoutLine]
    verdict: str


@dataclass
class Model:
    """The results of one model for the cohort."""

    label: str
    about: list[Fact] = field(default_factory=list)
    warnings: list[Notice] = field(default_factory=list)
    metrics: list[tuple[str, ...]] = field(default_factory=list)
    maps: list[tuple[str, FigureFile]] = field(default_factory=list)
    networks: list[tuple[str, ...]] = field(default_factory=list)
    network_verdicts: list[str] = field(default_factory=list)
    figures: Sections = field(default_factory=dict)
    decodings: list[Decoding] = field(default_factory=list)
    not_decoded: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    regressed_out: list[str] = field(default_factory=list)
    readouts_left_out: str = ""
    audit: Audit | None = None
    sites: str = ""
    states: States | None = None
    licence: str = model_facts.NO_LICENCE


def gather_model(naming: Naming, label: str, shown: Collection[Notice]) -> Model:
    """Read what the group's files say about a model.

    Parameters
    ----------
    naming
        Of the group's files.
    label
        Label of the model.
    shown
        Warnings that the report shows elsewhere.
    """
    sidecar = read_json(naming.existing("group_embeddings", model=label, extension=".json"))
    about = model_facts.described(sidecar)
    model = Model(label)
    model.about = [
        Fact(key, str(value)) for key, value in about.items() if isinstance(value, str | bool)
    ]
    model.licence = model_facts.licence(about)
    of_metrics = read_json(naming.existing("group_metrics", model=label, extension=".json"))
    both = [*from_json(sidecar.get("Warnings")), *from_json(of_metrics.get("Warnings"))]
    warnings = gravest_first(both)
    model.warnings = [warning for warning in warnings if warning not in shown]
    maps = sidecar.get("Maps")
    for name, relative in maps.items() if isinstance(maps, dict) else ():
        path = Path(naming.output_dir) / str(relative)
        if path.is_file():
            model.maps.append((str(name), figure_file("embedding_map", path, naming)))
    model.metrics = _mean_metrics(read_tsv(naming.existing("group_metrics", model=label)))
    agreements = read_tsv(naming.existing("group_networks", model=label))
    model.networks = network_facts.cohort_rows(agreements)
    model.network_verdicts = network_facts.cohort_verdicts(agreements)
    model.figures = existing_figures(naming, "cohort_model", label)
    _add_decoding(model, naming)
    model.audit = gather_audit(naming, label)
    model.states = gather_states(naming, label)
    return model


def _mean_metrics(rows: list[Row]) -> list[tuple[str, ...]]:
    """(mask ratio, predictor, mean (sd) of mse, mae, r2, pearson_r over recordings)."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        key = row.get("mask_ratio", ""), row.get("predictor", "")
        groups.setdefault(key, []).append(row)
    keys = ("mse", "mae", "r2", "pearson_r")
    return [
        (number(ratio), predictor.replace("_", " "), *(mean_sd(group, key) for key in keys))
        for (ratio, predictor), group in groups.items()
    ]


def _add_decoding(model: Model, naming: Naming) -> None:
    rows = read_tsv(naming.existing("decoding", model=model.label))
    sidecar = read_json(naming.existing("decoding", model=model.label, extension=".json"))
    if rows and "features" not in rows[0]:
        text = "the table is one of an older version: run the group level again"
        model.not_decoded.append(("decoding", text))
        rows = []
    for target in dict.fromkeys(row["target"] for row in rows):
        lines = [row for row in rows if row["target"] == target]
        compared = mapping(mapping(sidecar.get("Comparisons")).get(target))
        unit = str(mapping(sidecar.get("Units")).get(target, "recording"))
        model.decodings.append(_decoding(target, unit, lines, compared))
    for attribute, key in (("not_decoded", "NotDecoded"), ("notes", "Notes")):
        texts = sidecar.get(key)
        for name, text in texts.items() if isinstance(texts, dict) else ():
            line = "; ".join(text) if isinstance(text, list) else str(text)
            getattr(model, attribute).append((str(name), line))
    model.regressed_out = [str(name) for name in sidecar.get("RegressedOut") or []]
    model.readouts_left_out = str(sidecar.get("ReadoutsLeftOut") or "")
    model.sites = _sites(sidecar)


def _decoding(target: str, unit: str, rows: Sequence[Row], compared: Mapping[str, Any]) -> Decoding:
    first = rows[0]
    about = (
        f"{first['type']}, {first['n_recordings']} recordings of {first['n_subjects']} "
        f"participants, each {unit} predicted once"
    )
    scores, _ = ranked(rows, compared)
    best, default = best_of(scores), default_of([one.source for one in scores])
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines = []
    for one in scores:
        own = {row["metric"]: row for row in rows if source_of(row) == one.source}
        cells = [_cell(own.get(metric, {})) for metric in metrics]
        cells.append(number(one.row.get("permutation_p"), 3))
        is_best = best is not None and one.source == best.source
        line = ReadoutLine(
            _sentence(one.source.label), one.source.role, cells, one.source == default, is_best
        )
        lines.append(line)
    titles = [*(_METRICS.get(metric, metric) for metric in metrics), "p"]
    return Decoding(target, about, titles, lines, verdict(rows, compared))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(row: Row) -> str:
    value = number(row.get("value"), 3)
    low, high = (as_float(row.get(side)) for side in ("low", "high"))
    if low is not None and high is not None:
        value += f" [{number(low, 3)}, {number(high, 3)}]"
    return value


def _sites(sidecar: Mapping[str, Any]) -> str:
    """What was done about sites, in a sentence each."""
    how, column = mapping(sidecar.get("Harmonization")), sidecar.get("FoldsBy")
    parts = []
    if how:
        kept = {name for names in mapping(how.get("Kept")).values() for name in names}
        keeping = f", keeping effects of {', '.join(sorted(kept))}" if kept else ""
        parts.append(
            f"Effects of {how.get('Column')} were removed from the features by ComBat, estimated "
            f"in the training folds{keeping}."
        )
    if column:
        parts.append(
            f"Each value of {column} was predicted by a model of the others: R² is relative to its "
            "own mean, and the other scores are those within it."
        )
    if parts:
        parts.append("Targets were permuted within sites.")
    return " ".join(parts)
