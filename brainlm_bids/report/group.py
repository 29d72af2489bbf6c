"""The report of a cohort: an output folder in, `group.html` out.

Everything comes from the group's tables, sidecars and figures, so that `--reports-only` can write
it again. Whatever was read is escaped; there is no script: the maps' colours are chosen with radio
buttons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids.bids.names import build, parse
from brainlm_bids.report.contents import (
    WEIGHTS_LICENCE,
    Fact,
    FigureFile,
    Row,
    Warn,
    _float,
    _read_json,
    _read_tsv,
    _stated,
    number,
)
from brainlm_bids.report.subject import environment, methods_text, write_page

FEATURES = (
    ("embedding", "Embedding"),
    ("connectivity", "Functional connectivity"),
    ("random_weights", "Random weights"),
)
METRICS = {
    "mse": "Mean squared error",
    "mae": "Mean absolute error",
    "r2": "r²",
    "pearson_r": "Pearson r",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC",
    "permutation_p": "Permutation p",
}
_SOURCES = {
    "model": "the model",
    "attention": "the model's attention",
    "series": "functional connectivity",
    "untrained": "random weights",
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
    """What one model's tables say of the cohort."""

    label: str
    about: list[Fact] = field(default_factory=list)
    warnings: list[Warn] = field(default_factory=list)
    metrics: list[tuple[str, ...]] = field(default_factory=list)
    maps: list[tuple[str, str]] = field(default_factory=list)
    networks: list[tuple[str, ...]] = field(default_factory=list)
    figures: dict[str, FigureFile] = field(default_factory=dict)
    decodings: list[Decoding] = field(default_factory=list)
    not_decoded: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    regressed_out: list[str] = field(default_factory=list)
    licence: str = WEIGHTS_LICENCE


@dataclass(frozen=True)
class _Files:
    """Where the group's files are."""

    output_dir: Path
    stem: str
    space: str
    atlas: str

    def table(self, desc: str, suffix: str) -> list[Row]:
        return _read_tsv(self._path(desc, suffix, ".tsv"))

    def sidecar(self, desc: str, suffix: str) -> dict[str, Any]:
        return _read_json(self._path(desc, suffix, ".json"))

    def _path(self, desc: str, suffix: str, extension: str) -> Path:
        entities = {"atlas": self.atlas, "desc": desc}
        return self.output_dir / str(build(self.stem, entities, suffix, extension))

    def models(self) -> list[str]:
        pattern = self._path("*", "embeddings", ".tsv").name
        return sorted(parse(path.name).get("desc") for path in self.output_dir.glob(pattern))

    def figure(self, desc: str, suffix: str, title: str, caption: str) -> FigureFile | None:
        name = build(self.stem, {"desc": desc}, suffix, ".svg")
        path = self.output_dir / "figures" / str(name)
        if not path.is_file():
            return None
        return FigureFile(desc, title, caption, path.relative_to(self.output_dir).as_posix())


def build_group_report(
    output_dir: Path, stem: str, space: str, atlas: str, *, version: str
) -> Path:
    """Write `output_dir/group.html` from what the folder holds; returns its path.

    stem: how the group's files begin. Files that are missing leave their part out.
    """
    files = _Files(Path(output_dir), stem, space, atlas)
    recordings = files.table("cohort", "recordings")
    name = build("", {"atlas": atlas, "desc": "cohort"}, "scaling", ".json")
    scaling = _read_json(files.output_dir / str(name))
    warnings = _stated([files.sidecar("cohort", "recordings")])
    models = [_model(files, label) for label in files.models()]
    page = (
        environment()
        .get_template("group.html.j2")
        .render(
            title=stem.replace("_", " · "),
            facts=_facts(recordings, scaling, models),
            warnings=sorted(warnings, key=lambda warning: warning.level),
            recordings=[_with_link(row, files.output_dir) for row in recordings],
            left_out=[row for row in recordings if row.get("reason") not in (None, "", "n/a")],
            scaling=scaling,
            figures=_cohort_figures(files),
            models=models,
            features=[title for _, title in FEATURES],
            version=version,
            series_methods=(files.output_dir / "logs" / "CITATION.md").is_file(),
            methods=methods_text(files.output_dir, "CITATION_group.md"),
            atlas=f"{atlas} in {space}",
        )
    )
    path = files.output_dir / "group.html"
    write_page(path, page)
    return path


def _facts(recordings: list[Row], scaling: dict[str, Any], models: list[Model]) -> list[Fact]:
    inside = [row for row in recordings if row.get("status") == "included"]
    subjects = {row.get("participant_id") for row in inside}
    out = len(recordings) - len(inside)
    facts = [
        Fact("Recordings", str(len(inside)), f"of {len(recordings)}"),
        Fact("Participants", str(len(subjects))),
        Fact("Left out", str(out), "see below" if out else "", bool(out)),
    ]
    for key, label, unit in (("mean_fd", "Mean FD", " mm"), ("coverage", "Coverage", "")):
        values = [v for row in inside if (v := _float(row.get(key))) is not None]
        if values:
            span = f"{min(values):.2g} to {max(values):.2g}{unit}"
            facts.append(Fact(label, f"{np.median(values):.2g}{unit}", f"median; {span}"))
    if "NumberOfRecordings" in scaling:
        volumes = scaling.get("VolumesPerRecording")
        each = "all volumes" if volumes == "all" else f"the first {volumes} volumes"
        text = f"{scaling['NumberOfRecordings']} recordings"
        facts.append(Fact("Scaling rests on", text, f"{each} of each"))
    facts.append(Fact("Models", str(len(models)), ", ".join(model.label for model in models)))
    return facts


def _with_link(row: Row, output_dir: Path) -> dict[str, str]:
    """A recording's row, with its subject's report if there is one."""
    shown = {key: "" if value == "n/a" else value for key, value in row.items()}
    for key in ("mean_fd", "coverage", "sd_demeaned"):
        shown[key] = number(row.get(key), 3)
    page = f"{row.get('participant_id', '')}.html"
    return {**shown, "report": page if (output_dir / page).is_file() else ""}


def _cohort_figures(files: _Files) -> dict[str, FigureFile | None]:
    quality = (
        "Motion, coverage and length of all recordings; those left out are red. A bump far from "
        "the others is worth a look before the tables are used."
    )
    scale = (
        "Left: the interquartile range of each parcel over the cohort, by network; bars are "
        "medians. The dashed line is what BrainLM's training data imply. Middle: the standard "
        "deviation of each recording's demeaned series in grand-mean units; beside UK Biobank it "
        "says whether the signal has the size that the model knows. Right: the same after "
        "scaling. Recordings far to one side look louder or quieter to the model than the others."
    )
    return {
        "quality": files.figure("cohortquality", "recordings", "Recordings at a glance", quality),
        "scaling": files.figure("cohort", "scaling", "Scale beside BrainLM's training data", scale),
    }


# --- one model -------------------------------------------------------------------------------


def _model(files: _Files, label: str) -> Model:
    sidecar = files.sidecar(label, "embeddings")
    about = sidecar.get("Model")
    about = about if isinstance(about, dict) else {}
    model = Model(label)
    model.about = [
        Fact(key, str(value)) for key, value in about.items() if isinstance(value, str | bool)
    ]
    model.licence = str(about.get("licence") or WEIGHTS_LICENCE)
    if about.get("untrained"):
        text = f"Untrained model: {label} has random weights. Its numbers are a control."
        model.warnings.append(Warn("untrained", "danger", text))
    if about.get("warning"):
        model.warnings.append(Warn("model", "danger", f"{label}: {about['warning']}."))
    maps = sidecar.get("Maps")
    model.maps = [
        (str(name), str(path))
        for name, path in (maps.items() if isinstance(maps, dict) else ())
        if (files.output_dir / str(path)).is_file()
    ]
    model.metrics = _mean_metrics(files.table(label, "metrics"))
    model.networks = _mean_networks(files.table(label, "networks"))
    model.figures = _model_figures(files, label)
    _add_decoding(model, files)
    return model


def _model_figures(files: _Files, label: str) -> dict[str, FigureFile]:
    wanted = {
        "consensus": (
            f"{label}consensus",
            "networks",
            "Consensus networks",
            "Each parcel has the network that most participants' recordings give it; everybody "
            "has one vote.",
        ),
        "probability": (
            f"{label}probability",
            "networks",
            "Probability of each network",
            "Share of participants whose recordings give the parcel this network.",
        ),
        "decoding": (
            f"{label}scores",
            "decoding",
            "Decoding",
            "Dots: score of the predictions for participants who were left out; lines: 95 % "
            "intervals over participants; dotted: what one knows without features. In small "
            "samples chance lies below that line: judge by p, which comes from shuffled targets.",
        ),
    }
    found = {key: files.figure(*arguments) for key, arguments in wanted.items()}
    return {key: figure for key, figure in found.items() if figure is not None}


def _mean_metrics(rows: list[Row]) -> list[tuple[str, ...]]:
    """(mask ratio, predictor, mean (sd) of mse, mae, r2, pearson_r over recordings)."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        key = row.get("mask_ratio", ""), row.get("predictor", "")
        groups.setdefault(key, []).append(row)
    keys = ("mse", "mae", "r2", "pearson_r")
    return [
        (number(ratio), predictor.replace("_", " "), *(_mean_sd(own, key) for key in keys))
        for (ratio, predictor), own in groups.items()
    ]


def _mean_sd(rows: Sequence[Row], key: str) -> str:
    values = [v for row in rows if (v := _float(row.get(key))) is not None]
    if not values:
        return "n/a"
    return f"{np.mean(values):.3f} ({np.std(values):.3f})"


def _mean_networks(rows: list[Row]) -> list[tuple[str, ...]]:
    """(what, accuracy, ARI, kNN accuracy, chance): of the consensus, and over recordings."""
    keys = ("accuracy", "adjusted_rand", "knn_accuracy", "majority")
    lines = []
    for kind in ("consensus", "recordings"):
        own = [
            row
            for row in rows
            if (row.get("participant_id") == "consensus") == (kind == "consensus")
        ]
        for features in dict.fromkeys(row.get("features", "") for row in own):
            chosen = [row for row in own if row.get("features") == features]
            name = f"{kind}, {_SOURCES.get(features, features)}"
            if kind == "consensus":
                cells = tuple(_three(chosen[0].get(key)) for key in keys)
            else:
                cells = tuple(_mean_sd(chosen, key) for key in keys)
            lines.append((name, *cells))
    return lines


def _three(value: object) -> str:
    found = _float(value)
    return "–" if found is None else f"{found:.3f}"


def _add_decoding(model: Model, files: _Files) -> None:
    rows, sidecar = files.table(model.label, "decoding"), files.sidecar(model.label, "decoding")
    for target in dict.fromkeys(row["target"] for row in rows):
        own = [row for row in rows if row["target"] == target]
        first = own[0]
        about = (
            f"{first['type']}, {first['n_recordings']} recordings of {first['n_subjects']} "
            f"participants, {first['n_repeats']} repeats"
        )
        lines = [(METRICS.get(row["metric"], row["metric"]), _cells(row)) for row in own]
        model.decodings.append(Decoding(target, about, lines, _verdict(own)))
    for attribute, key in (("not_decoded", "NotDecoded"), ("notes", "Notes")):
        said = sidecar.get(key)
        for name, text in said.items() if isinstance(said, dict) else ():
            joined = "; ".join(text) if isinstance(text, list) else str(text)
            getattr(model, attribute).append((str(name), joined))
    model.regressed_out = [str(name) for name in sidecar.get("RegressedOut") or []]


def _cells(row: Row) -> list[str]:
    cells = []
    for name, _ in FEATURES:
        value = number(row.get(name), 3)
        low, high = (_float(row.get(f"{name}{side}")) for side in ("_low", "_high"))
        if low is not None and high is not None:
            value += f" [{number(low, 3)}, {number(high, 3)}]"
        cells.append(value)
    return cells


def _verdict(rows: list[Row]) -> str:
    """What the three columns say, in one sentence."""
    by_metric = {row["metric"]: row for row in rows}
    p = {name: _float(by_metric["permutation_p"].get(name)) for name, _ in FEATURES}
    score = by_metric.get("pearson_r") or by_metric["auc"]
    found = {name: _float(score.get(name)) for name, _ in FEATURES}
    if p["embedding"] is None or p["embedding"] >= 0.05:
        return "The embedding does not predict it better than chance (p ≥ 0.05 or unknown)."
    better = found["embedding"] or 0.0
    rivals = [
        title.lower()
        for name, title in FEATURES[1:]
        if (p[name] or 1.0) < 0.05 and (found[name] or 0.0) >= better
    ]
    if rivals:
        return f"The embedding predicts it, and no better than {' and '.join(rivals)}."
    return (
        "The embedding predicts it, with the best score of the three; whether it is better than "
        "the others, overlapping intervals cannot say."
    )
