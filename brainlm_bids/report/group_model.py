"""What the report of a cohort says about one model: metrics, maps, networks, decoding."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.notices import Notice, from_json, gravest_first
from brainlm_bids.report import model_facts, network_facts
from brainlm_bids.report.embedding_map import EmbeddingMap, gather_map
from brainlm_bids.report.figure_files import FigureFile, Sections, existing_figures, figure_file
from brainlm_bids.report.group_audit import Audit, gather_audit
from brainlm_bids.report.group_decoding import Decodings, gather_decodings
from brainlm_bids.report.group_reconstruction import MetricLine, cohort_metrics
from brainlm_bids.report.states import States, gather_states
from brainlm_bids.report.values import Fact, read_json, read_tsv


@dataclass
class Model:
    """The results of one model for the cohort."""

    label: str
    about: list[Fact] = field(default_factory=list)
    warnings: list[Notice] = field(default_factory=list)
    metrics: list[MetricLine] = field(default_factory=list)
    metric_verdicts: list[str] = field(default_factory=list)
    map: EmbeddingMap | None = None
    maps: list[tuple[str, FigureFile]] = field(default_factory=list)
    networks: list[tuple[str, ...]] = field(default_factory=list)
    best_networks: frozenset[int] = frozenset()
    network_verdicts: list[str] = field(default_factory=list)
    figures: Sections = field(default_factory=dict)
    decodings: Decodings = field(default_factory=Decodings)
    audit: Audit | None = None
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
    metrics = read_tsv(naming.existing("group_metrics", model=label))
    model.map = gather_map(naming, label)
    model.metrics, model.metric_verdicts = cohort_metrics(metrics)
    agreements = read_tsv(naming.existing("group_networks", model=label))
    model.networks = network_facts.cohort_rows(agreements)
    model.best_networks = network_facts.cohort_best(agreements)
    model.network_verdicts = network_facts.cohort_verdicts(agreements)
    model.figures = existing_figures(naming, "cohort_model", label)
    model.decodings = gather_decodings(naming, label)
    model.audit = gather_audit(naming, label)
    model.states = gather_states(naming, label)
    return model
