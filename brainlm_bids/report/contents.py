"""What the report of a subject shows, gathered from the output folder alone.

A missing file or key leaves its line out; nothing is computed that the files do not hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brainlm_bids.bids.derivatives import identify
from brainlm_bids.bids.names import parse, with_prefix, without_prefix
from brainlm_bids.bids.outputs import Naming, is_a424
from brainlm_bids.notices import Notice, from_json, gravest_first
from brainlm_bids.report import model_facts, network_facts, run_facts
from brainlm_bids.report.figure_files import FigureFile, Sections, existing_figures
from brainlm_bids.report.model_facts import MetricRow
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.status import NOT_DONE, StatusTable, latest, read_crashes, status_tables
from brainlm_bids.report.values import Fact, Row, as_float, as_list, read_json, read_tsv


@dataclass
class Model:
    """The results of one model for one run."""

    label: str
    facts: list[Fact] = field(default_factory=list)
    metrics: list[MetricRow] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    networks: list[tuple[str, ...]] = field(default_factory=list)
    network_verdict: str = ""
    figures: list[FigureFile] = field(default_factory=list)
    warnings: list[Notice] = field(default_factory=list)
    licence: str = model_facts.NO_LICENCE
    sidecar: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """One run: its name (entities of the source), numbers, figures by section, models.

    `undrawn`: figures were left out that can be drawn.
    """

    name: str
    entities: dict[str, str]
    facts: list[Fact] = field(default_factory=list)
    registration: list[Fact] = field(default_factory=list)
    distortion: list[Fact] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    low_coverage: list[tuple[str, str]] = field(default_factory=list)
    at_risk: list[str] = field(default_factory=list)
    figures: Sections = field(default_factory=dict)
    undrawn: bool = False
    models: list[Model] = field(default_factory=list)
    warnings: list[Notice] = field(default_factory=list)
    spaces: list[str] = field(default_factory=list)
    sidecar: dict[str, Any] = field(default_factory=dict)


@dataclass
class Subject:
    """Everything that the report of one subject shows."""

    label: str
    anatomical: list[FigureFile] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    tables: list[StatusTable] = field(default_factory=list)
    crashes: dict[str, str] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> list[Row]:
        """The latest row of every run in the status tables."""
        return latest(self.tables)

    @property
    def failed(self) -> list[Row]:
        """Rows of the status table that need the reader's attention."""
        return [row for row in self.status if row["status"] in NOT_DONE]


def gather(output_dir: Path, subject: str) -> Subject:
    """Read what an output folder holds about a subject.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    subject
        Label, with or without "sub-".
    """
    label = without_prefix("sub", subject)
    root = output_dir / with_prefix("sub", label)
    figures = sorted((root / "figures").glob("*.svg"))
    tables = sorted(path for path in root.glob("**/func/*") if path.suffix in {".tsv", ".json"})
    anatomical = _anatomical(output_dir, figures)
    of_runs = [path for path in figures if parse(path.name).suffix == "bold"]
    names = sorted({parse(path.name).source for path in [*tables, *of_runs]})
    page = Subject(label, anatomical, tables=status_tables(output_dir, label))
    page.description = read_json(output_dir / "dataset_description.json")
    for name in names:
        files = _Files((path for path in tables if parse(path.name).source == name), output_dir)
        page.runs.append(_run(Naming(str(output_dir), name, "", ""), files))
    page.crashes = read_crashes(output_dir, page.failed)
    return page


def _anatomical(output_dir: Path, figures: list[Path]) -> list[FigureFile]:
    names = (parse(path.name) for path in figures)
    stems = sorted({name.source for name in names if name.suffix == "T1w"})
    found = []
    for stem in stems:
        sections = existing_figures(Naming(str(output_dir), stem, "", ""), "subject")
        found += [figure for figures in sections.values() for figure in figures]
    return found


class _Files:
    """The tables and sidecars of one run, by what they are: keys of the table of outputs."""

    def __init__(self, paths: Iterable[Path], output_dir: Path) -> None:
        self.paths: dict[tuple[str, str, str, str], Path] = {}
        self.spaces: set[str] = set()
        for path in paths:
            one = identify(path, output_dir)
            if one is None:
                continue
            place = one.key, one.model, one.naming.scaling, path.suffix
            # further parcellations are listed; the page is about BrainLM's
            if is_a424(one.naming.atlas) and (not one.formerly or place not in self.paths):
                self.paths[place] = path
            if one.naming.atlas:
                space = one.naming.space or "unknown space"
                self.spaces.add(f"{one.naming.atlas} in {space}")

    def json(self, key: str, model: str = "", scaling: str = "") -> dict[str, Any]:
        path = self.paths.get((key, model, scaling, ".json"))
        return read_json(path) if path else {}

    def tsv(self, key: str, model: str = "", scaling: str = "") -> list[Row]:
        path = self.paths.get((key, model, scaling, ".tsv"))
        return read_tsv(path) if path else []

    def models(self) -> list[tuple[str, str]]:
        """The models by their labels, and the scaling of the series that they were given."""
        embedded = (place for place in self.paths if place[0] == "embeddings")
        return sorted({(model, scaling) for _, model, scaling, _ in embedded})


def _run(naming: Naming, files: _Files) -> Run:
    denoised, robust = files.json("denoised"), files.json("robust")
    # what both sidecars say, the denoised one says of the run itself
    sidecar = {**robust, **files.json("confounds"), **denoised}
    if "MotionOutliers" not in sidecar:  # older sidecars did not count them
        sidecar |= run_facts.counted_outliers(files.tsv("confounds"))
    components, coverage = files.tsv("aroma_metrics"), files.tsv("coverage")
    run = Run(naming.stem, parse(naming.stem).entities, spaces=sorted(files.spaces))
    run.figures = existing_figures(naming, "run")
    run.undrawn = bool(robust) and not naming.existing_figure("series").is_file()
    run.filled = [str(parcel) for parcel in as_list(robust.get("FilledParcels"))]
    run.facts = [
        *run_facts.acquisition(sidecar),
        *run_facts.motion(sidecar),
        *run_facts.image_quality(files.tsv("image_quality")),
        *run_facts.components(components),
        *run_facts.parcels(
            coverage,
            run.filled if "FilledParcels" in robust else None,
            as_float(denoised.get("MinimumParcelCoverage")),
        ),
        *run_facts.scale(sidecar),
        *run_facts.options(sidecar),
    ]
    run.registration = run_facts.registration(sidecar)
    run.distortion = run_facts.distortion(sidecar)
    run.at_risk = run_facts.parcels_at_risk(sidecar)
    run.low_coverage = run_facts.low_coverage(coverage)
    run.models = [_model(naming, files, *model) for model in files.models()]
    run.warnings = _warnings(denoised, robust)
    run.sidecar = denoised or robust
    return run


def _model(naming: Naming, files: _Files, model: str, scaling: str) -> Model:
    sidecar = files.json("embeddings", model, scaling)
    windows = files.tsv("embeddings", model, scaling)
    label = f"{model}, series scaled with the cohort" if scaling else model
    about = model_facts.described(sidecar)
    figures = existing_figures(replace(naming, scaling=scaling), "model", model)
    table, verdicts = model_facts.metrics(files.tsv("metrics", model, scaling))
    scores = mapping(files.json("networks", model, scaling).get("Scores"))
    limit = mapping(scores.get(network_facts.LIMIT))
    return Model(
        label,
        model_facts.facts(about, windows),
        table,
        verdicts,
        network_facts.rows(scores),
        network_facts.verdict(mapping(scores.get("model")), limit, "Networks from the model"),
        [figure for section in figures.values() for figure in section],
        _warnings(sidecar),
        model_facts.licence(about),
        sidecar,
    )


def _warnings(*sidecars: dict[str, Any]) -> list[Notice]:
    """The warnings in some sidecars, each once, the gravest first."""
    return gravest_first(one for values in sidecars for one in from_json(values.get("Warnings")))
