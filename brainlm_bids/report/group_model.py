"""What the report of a cohort says about one model: metrics, maps, networks, decoding."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.figures.palette import FEATURES, NETWORK_FEATURES
from brainlm_bids.notices import Notice, from_json, gravest_first
from brainlm_bids.report import model_facts
from brainlm_bids.report.figure_files import FigureFile, Sections, existing_figures, figure_file
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Fact, Row, as_float, number, read_json, read_tsv
from brainlm_bids.report.verdict import verdict

_METRICS = {
    "mse": "Mean squared error",
    "mae": "Mean absolute error",
    "r2": "r²",
    "pearson_r": "Pearson r",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC",
    "permutation_p": "Permutation p",
}


@dataclass
class Decoding:
    """One target: a line per metric with a cell for each kind of features."""

    target: str
    about: str
    lines: list[tuple[str, list[str]]]
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
    figures: Sections = field(default_factory=dict)
    decodings: list[Decoding] = field(default_factory=list)
    not_decoded: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    regressed_out: list[str] = field(default_factory=list)
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
    warnings = gravest_first(from_json(sidecar.get("Warnings")))
    model.warnings = [warning for warning in warnings if warning not in shown]
    maps = sidecar.get("Maps")
    for name, relative in maps.items() if isinstance(maps, dict) else ():
        path = Path(naming.output_dir) / str(relative)
        if path.is_file():
            model.maps.append((str(name), figure_file("embedding_map", path, naming)))
    model.metrics = _mean_metrics(read_tsv(naming.existing("group_metrics", model=label)))
    model.networks = _mean_networks(read_tsv(naming.existing("group_networks", model=label)))
    model.figures = existing_figures(naming, "cohort_model", label)
    _add_decoding(model, naming)
    return model


def _mean_metrics(rows: list[Row]) -> list[tuple[str, ...]]:
    """(mask ratio, predictor, mean (sd) of mse, mae, r2, pearson_r over recordings)."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        key = row.get("mask_ratio", ""), row.get("predictor", "")
        groups.setdefault(key, []).append(row)
    keys = ("mse", "mae", "r2", "pearson_r")
    return [
        (number(ratio), predictor.replace("_", " "), *(_mean_sd(group, key) for key in keys))
        for (ratio, predictor), group in groups.items()
    ]


def _mean_sd(rows: Sequence[Row], key: str) -> str:
    values = [v for row in rows if (v := as_float(row.get(key))) is not None]
    if not values:
        return "n/a"
    return f"{np.mean(values):.3f} ({np.std(values):.3f})"


def _mean_networks(rows: list[Row]) -> list[tuple[str, ...]]:
    """(what, accuracy, ARI, kNN accuracy, chance): of the consensus, and over recordings."""
    keys = ("accuracy", "adjusted_rand", "knn_accuracy", "majority")
    lines = []
    for kind in ("consensus", "recordings"):
        group = [
            row
            for row in rows
            if (row.get("participant_id") == "consensus") == (kind == "consensus")
        ]
        for features in dict.fromkeys(row.get("features", "") for row in group):
            chosen = [row for row in group if row.get("features", "") == features]
            name = f"{kind}, {NETWORK_FEATURES.get(features, features)}"
            if kind == "consensus":
                cells = tuple(_three_decimals(chosen[0].get(key)) for key in keys)
            else:
                cells = tuple(_mean_sd(chosen, key) for key in keys)
            lines.append((name, *cells))
    return lines


def _three_decimals(value: object) -> str:
    converted = as_float(value)
    return "–" if converted is None else f"{converted:.3f}"


def _add_decoding(model: Model, naming: Naming) -> None:
    rows = read_tsv(naming.existing("decoding", model=model.label))
    sidecar = read_json(naming.existing("decoding", model=model.label, extension=".json"))
    for target in dict.fromkeys(row["target"] for row in rows):
        lines = [row for row in rows if row["target"] == target]
        first = lines[0]
        about = (
            f"{first['type']}, {first['n_recordings']} recordings of {first['n_subjects']} "
            f"participants, {first['n_repeats']} repeats"
        )
        cells = [(_METRICS.get(row["metric"], row["metric"]), _cells(row)) for row in lines]
        compared = mapping(mapping(sidecar.get("Comparisons")).get(target))
        model.decodings.append(Decoding(target, about, cells, verdict(lines, compared)))
    for attribute, key in (("not_decoded", "NotDecoded"), ("notes", "Notes")):
        texts = sidecar.get(key)
        for name, text in texts.items() if isinstance(texts, dict) else ():
            line = "; ".join(text) if isinstance(text, list) else str(text)
            getattr(model, attribute).append((str(name), line))
    model.regressed_out = [str(name) for name in sidecar.get("RegressedOut") or []]


def _cells(row: Row) -> list[str]:
    cells = []
    for name, _, _ in FEATURES:
        value = number(row.get(name), 3)
        low, high = (as_float(row.get(f"{name}{side}")) for side in ("_low", "_high"))
        if low is not None and high is not None:
            value += f" [{number(low, 3)}, {number(high, 3)}]"
        cells.append(value)
    return cells
