"""What a report says about one subject, gathered from the output folder alone.

Files and folders in, plain values out (`Subject`): figures found, numbers read from sidecars and
tables, warnings derived from them. A missing file or key leaves its line out; nothing is computed
that the files do not hold. Units: seconds, mm, degrees.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainlm_bids.bids.names import parse, with_prefix, without_prefix
from brainlm_bids.parcels.scaling import UKB_SD_DEMEANED, UKB_SD_ROBUST

WEIGHTS_LICENCE = "CC BY-NC-ND 4.0"

_STATUS_COLUMNS = (
    *("participant_id", "session", "task", "run", "source"),
    *("status", "reason", "seconds", "peak_memory_mb", "crash_file"),
)

Row = dict[str, str]


@dataclass(frozen=True)
class Warn:
    """A box that cannot be missed. `level` is "danger" (do not interpret) or "warn"."""

    kind: str
    level: str
    text: str


@dataclass(frozen=True)
class Fact:
    """One number of the summary: label, value as text, a short note, and whether it looks odd."""

    label: str
    value: str
    note: str = ""
    odd: bool = False


@dataclass(frozen=True)
class FigureFile:
    """A figure and where it is, relative to the output folder (POSIX)."""

    key: str
    title: str
    caption: str
    path: str
    interactive: bool = False


@dataclass(frozen=True)
class MetricRow:
    """One row of a model's metrics; `best` marks the best predictor of its mask ratio."""

    mask_ratio: str
    predictor: str
    values: tuple[str, ...]
    best: bool


@dataclass
class Model:
    """What one model made of one run."""

    label: str
    facts: list[Fact] = field(default_factory=list)
    metrics: list[MetricRow] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    figures: list[FigureFile] = field(default_factory=list)
    warnings: list[Warn] = field(default_factory=list)
    licence: str = WEIGHTS_LICENCE


@dataclass
class Run:
    """One run: its name (entities of the source), numbers, figures by section, models."""

    name: str
    entities: dict[str, str]
    facts: list[Fact] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    low_coverage: list[tuple[str, str]] = field(default_factory=list)
    figures: dict[str, FigureFile] = field(default_factory=dict)
    models: list[Model] = field(default_factory=list)
    warnings: list[Warn] = field(default_factory=list)
    spaces: list[str] = field(default_factory=list)


@dataclass
class Subject:
    """Everything that the report of one subject shows."""

    label: str
    anatomical: list[FigureFile] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    status: list[Row] = field(default_factory=list)
    crashes: dict[str, str] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> list[Row]:
        """Rows of the status table that need the reader's attention."""
        return [row for row in self.status if row.get("status") in {"failed", "skipped"}]


_RUN_FIGURES: dict[str, tuple[str, str]] = {
    "motion": (
        "Head motion",
        "Rigid-body parameters against the BOLD reference, framewise displacement (Power 2012) "
        "and standardised DVARS. Dashed lines are the thresholds above which a volume is marked "
        "as a motion outlier.",
    ),
    "carpet": (
        "Carpet",
        "Parcel series before and after denoising on one grey scale, sorted by network, the mean "
        "of each parcel taken off. Stripes that follow the motion trace and remain after "
        "denoising are residual motion.",
    ),
    "mask": (
        "Brain mask of the BOLD reference",
        "The outline should follow the edge of the brain and leave out eyes and scalp.",
    ),
    "coreg": (
        "Alignment of the BOLD reference",
        "Contours come from the fixed image. Point at the figure to fade to it and back; edges "
        "should not jump.",
    ),
    "aroma": (
        "Components and decisions",
        "Every dot is an independent component, its area the variance it explains; red ones were "
        "removed. Dashed lines are the limits of ICA-AROMA's decision.",
    ),
    "coverage": (
        "Coverage of the atlas",
        "The part of each parcel that lies in the field of view and the brain mask of this run.",
    ),
    "series": (
        "Parcel series given to the model",
        "Robustly scaled series at the sampling of the model, sorted by network.",
    ),
    "connectivity": (
        "Functional connectivity",
        "Pearson correlation of the denoised series: the baseline that any claim about the "
        "embeddings should be compared with.",
    ),
}
_MODEL_FIGURES: dict[str, tuple[str, str]] = {
    "reconstruction": (
        "Reconstruction",
        "What the model predicts for values while they were masked, and simple predictors on "
        "the same masks.",
    ),
    "embeddings": (
        "Embeddings",
        "One row per window: the CLS token of the encoder, nothing masked.",
    ),
    "networks": (
        "Networks",
        "Parcels grouped by the model, next to the published AA-7 networks, with controls.",
    ),
}
_ANAT_FIGURES: dict[str, tuple[str, str]] = {
    "mask": (
        "Brain mask of the T1w",
        "The outline should follow the edge of the brain and leave out skull and eyes.",
    ),
    "norm": (
        "T1w in template space",
        "Contours come from the template. Point at the figure to fade to the template and back.",
    ),
}


def gather(output_dir: Path, subject: str) -> Subject:
    """Read what the folder holds about one subject (label with or without "sub-")."""
    label = without_prefix("sub", subject)
    root = output_dir / with_prefix("sub", subject)
    figures = sorted((root / "figures").glob("*.svg"))
    found = Subject(label=label, description=_read_json(output_dir / "dataset_description.json"))
    found.anatomical = _anatomical(figures, output_dir)
    has_t1w = bool(found.anatomical) or any(root.glob("**/anat/*T1w*"))
    sources = sorted(path for path in root.glob("**/func/*") if path.suffix in {".tsv", ".json"})
    bold_figures = [path for path in figures if path.name.endswith("_bold.svg")]
    names = sorted({parse(path.name).source for path in [*sources, *bold_figures]})
    for name in names:
        files = [path for path in sources if parse(path.name).source == name]
        pictures = [path for path in bold_figures if parse(path.name).source == name]
        found.runs.append(_run(name, files, pictures, output_dir, has_t1w))
    found.status = _status(output_dir, label)
    found.crashes = _crashes(output_dir, found.failed)
    return found


def _anatomical(figures: list[Path], output_dir: Path) -> list[FigureFile]:
    found = []
    for path in figures:
        name = parse(path.name)
        desc = name.get("desc")
        if name.suffix != "T1w":
            continue
        title, caption = _ANAT_FIGURES.get(desc, (desc, ""))
        found.append(_figure(desc, title, caption, path, output_dir))
    return found


def _figure(key: str, title: str, caption: str, path: Path, output_dir: Path) -> FigureFile:
    where = path.relative_to(output_dir).as_posix()
    return FigureFile(key, title, caption, where, interactive=key in {"coreg", "norm"})


class _Files:
    """The tables and sidecars of one run, by desc and suffix; the last name wins."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths: dict[tuple[str, str, str], Path] = {}
        self.spaces: set[str] = set()
        for path in paths:
            name = parse(path.name)
            self.paths[name.get("desc"), name.suffix, path.suffix] = path
            if name.get("atlas"):
                self.spaces.add(f"{name.get('atlas')} in {name.get('space', 'unknown space')}")

    def json(self, desc: str, suffix: str) -> dict[str, Any]:
        path = self.paths.get((desc, suffix, ".json"))
        return _read_json(path) if path else {}

    def tsv(self, desc: str, suffix: str) -> list[Row]:
        path = self.paths.get((desc, suffix, ".tsv"))
        return _read_tsv(path) if path else []

    def models(self) -> list[str]:
        """Labels of the models; other files of a model carry more than its label in `desc`."""
        embedded = {desc for desc, suffix, _ in self.paths if suffix == "embeddings"}
        about = {desc: self.json(desc, "embeddings").get("Model") for desc in embedded}
        return sorted(
            desc
            for desc, model in about.items()
            if not isinstance(model, dict) or model.get("label", desc) == desc
        )


def _run(
    name: str, paths: list[Path], pictures: list[Path], output_dir: Path, has_t1w: bool
) -> Run:
    files = _Files(paths)
    run = Run(name=name, entities=parse(name).entities, spaces=sorted(files.spaces))
    denoised = files.json("denoised", "timeseries")
    robust = files.json("robust", "timeseries")
    confounds = files.tsv("confounds", "timeseries")
    merged = {**files.json("confounds", "timeseries"), **denoised}
    aroma, coverage = files.tsv("aroma", "metrics"), files.tsv("coverage", "metrics")
    for path in pictures:
        desc = parse(path.name).get("desc")
        if desc in _RUN_FIGURES:
            run.figures[desc] = _figure(desc, *_RUN_FIGURES[desc], path, output_dir)
    run.filled = [str(parcel) for parcel in _listed(robust.get("FilledParcels"))]
    run.facts = [
        *_acquisition_facts(merged, confounds),
        *_motion_facts(merged, confounds),
        *_aroma_facts(aroma),
        *_parcel_facts(coverage, run.filled, "FilledParcels" in robust),
        *_scale_facts(denoised, robust),
        *_option_facts(merged),
    ]
    run.low_coverage = _low_coverage(coverage)
    run.models = _models(files, pictures, output_dir)
    run.warnings = _run_warnings(files, denoised, robust, aroma, run, has_t1w)
    return run


def _acquisition_facts(sidecar: Mapping[str, Any], confounds: list[Row]) -> list[Fact]:
    tr = sidecar.get("RepetitionTime")
    if tr is None and sidecar.get("SamplingFrequency"):
        tr = 1 / float(sidecar["SamplingFrequency"])
    volumes = sidecar.get("NumberOfVolumes", len(confounds) or None)
    dummy = sidecar.get("DummyVolumes")
    facts = []
    if tr is not None:
        facts.append(Fact("Repetition time", f"{number(tr)} s"))
    if volumes is not None:
        length = f"{float(volumes) * float(tr) / 60:.1f} min" if tr is not None else ""
        facts.append(Fact("Volumes", str(volumes), length))
    if dummy is not None:
        facts.append(Fact("Dummy volumes", str(dummy), "left out of the series"))
    return facts


def _motion_facts(sidecar: Mapping[str, Any], confounds: list[Row]) -> list[Fact]:
    displacement = _column(confounds, "framewise_displacement")
    mean = sidecar.get("MeanFramewiseDisplacement", _mean(displacement))
    translation = sidecar.get("MaximumTranslation", _largest(confounds, "trans", 1.0))
    rotation = sidecar.get("MaximumRotation", _largest(confounds, "rot", 180 / math.pi))
    outliers = sum(1 for key in (confounds[0] if confounds else {}) if "motion_outlier" in key)
    facts = []
    if mean is not None:
        facts.append(Fact("Mean framewise displacement", f"{number(mean, 3)} mm"))
    if translation is not None:
        facts.append(Fact("Largest translation", f"{number(translation, 3)} mm"))
    if rotation is not None:
        facts.append(Fact("Largest rotation", f"{number(rotation, 3)}°"))
    if confounds:
        share = 100 * outliers / len(confounds)
        facts.append(Fact("Motion outliers", str(outliers), f"{share:.0f} % of the volumes"))
    return facts


def _aroma_facts(aroma: list[Row]) -> list[Fact]:
    if not aroma:
        return []
    removed = [row for row in aroma if row.get("classification") == "noise"]
    variance = sum(_float(row.get("variance")) or 0.0 for row in removed)
    total = sum(_float(row.get("variance")) or 0.0 for row in aroma)
    note = f"{100 * variance / total:.0f} % of their variance" if total > 0 else ""
    odd = len(removed) in {0, len(aroma)}
    return [Fact("Components removed", f"{len(removed)} of {len(aroma)}", note, odd)]


def _parcel_facts(coverage: list[Row], filled: list[str], known: bool) -> list[Fact]:
    facts = []
    if coverage:
        fractions = [_float(row.get("fraction")) or 0.0 for row in coverage]
        covered = sum(1 for fraction in fractions if fraction > 0)
        half = sum(1 for fraction in fractions if 0 < fraction < 0.5)
        note = f"{half} of them by less than half" if half else "all by at least half"
        value = f"{covered} of {len(fractions)}"
        facts.append(Fact("Parcels covered", value, note, covered < len(fractions)))
    if known:
        facts.append(
            Fact("Parcels filled", str(len(filled)), "with the median, for the model", bool(filled))
        )
    return facts


def _scale_ratios(
    denoised: Mapping[str, Any], robust: Mapping[str, Any]
) -> list[tuple[str, float, float]]:
    """What is compared with BrainLM's training data: its name, this run's value, the norm."""
    both = {**denoised, **robust}
    values = (
        ("sd of the parcels", _float(both.get("StandardDeviationDemeaned")), UKB_SD_DEMEANED),
        ("sd of the scaled series", _float(both.get("StandardDeviationRobust")), UKB_SD_ROBUST),
    )
    return [(label, value, norm) for label, value, norm in values if value is not None]


def _far_off(value: float, norm: float) -> bool:
    # a factor of two is our own mark for "look at this", not a published limit
    return not 0.5 <= value / norm <= 2.0


def _scale_facts(denoised: Mapping[str, Any], robust: Mapping[str, Any]) -> list[Fact]:
    facts = []
    for label, value, norm in _scale_ratios(denoised, robust):
        note = f"{value / norm:.2f} × the {norm:.3g} of BrainLM’s training data"
        facts.append(Fact(label, number(value), note, _far_off(value, norm)))
    return facts


def _scale_warnings(denoised: Mapping[str, Any], robust: Mapping[str, Any]) -> list[Warn]:
    return [
        Warn(
            "scale",
            "warn",
            f"The {label} is {number(value)}, {value / norm:.2f} times the {norm:.3g} of the UK "
            "Biobank runs that BrainLM was trained on: it has not seen series of this scale.",
        )
        for label, value, norm in _scale_ratios(denoised, robust)
        if _far_off(value, norm)
    ]


def _option_facts(sidecar: Mapping[str, Any]) -> list[Fact]:
    labels = (
        ("Atlas", "Atlas"),
        ("Template", "Template"),
        ("Denoising", "Denoising"),
        ("Denoise", "Denoising"),
        ("HighPassCutoff", "High-pass (s)"),
        ("LowPassCutoff", "Low-pass"),
        ("Registration", "Registration"),
        ("ScalingStatistics", "Scaling statistics"),
    )
    facts = []
    for key, label in labels:
        value = sidecar.get(key)
        if isinstance(value, dict):
            value = value.get("label") or value.get("Label") or value.get("name")
        if isinstance(value, str | int | float) and str(value):
            facts.append(Fact(label, str(value)))
    return facts


def _low_coverage(coverage: list[Row]) -> list[tuple[str, str]]:
    rows = [(_float(row.get("fraction")) or 0.0, row) for row in coverage]
    low = sorted((pair for pair in rows if pair[0] < 0.5), key=lambda pair: pair[0])
    return [(row.get("name") or row.get("index") or "?", f"{part:.2f}") for part, row in low]


def _models(files: _Files, pictures: list[Path], output_dir: Path) -> list[Model]:
    drawn: dict[str, list[FigureFile]] = {}
    for path in pictures:
        desc = parse(path.name).get("desc")
        for key, text in _MODEL_FIGURES.items():
            if desc.endswith(key) and desc != key:
                figure = _figure(key, *text, path, output_dir)
                drawn.setdefault(desc.removesuffix(key), []).append(figure)
    order = list(_MODEL_FIGURES)
    models = []
    for label in sorted({*files.models(), *drawn}):
        sidecar = files.json(label, "embeddings") or files.json(label, "metrics")
        model = Model(label=label, figures=drawn.get(label, []))
        model.figures.sort(key=lambda figure: order.index(figure.key))
        windows = files.tsv(label, "embeddings")
        model.facts = _model_facts(sidecar, windows)
        model.metrics, model.verdicts = _metrics(files.tsv(label, "metrics"))
        about = sidecar.get("Model")
        about = about if isinstance(about, dict) else {}
        usual = "none (random weights)" if about.get("untrained") else WEIGHTS_LICENCE
        model.licence = str(about.get("licence") or about.get("license") or usual)
        model.warnings = _model_warnings(label, about, sidecar, windows)
        models.append(model)
    return models


def _model_facts(sidecar: Mapping[str, Any], windows: list[Row]) -> list[Fact]:
    about = sidecar.get("Model")
    about = about if isinstance(about, dict) else {}
    first = ("label", "family", "source", "sha256", "untrained", "licence")
    keys = [key for key in first if key in about]
    keys += [key for key in about if key not in first]
    facts = [
        Fact(key, "yes" if value is True else "no" if value is False else str(value))
        for key in keys
        if isinstance(value := about[key], str | int | float)
    ]
    if windows:
        width = sum(1 for key in windows[0] if key not in {"onset", "duration"})
        note = f"{width} numbers each" if width else ""
        facts.append(Fact("windows", str(len(windows)), note))
    return facts


def _metrics(rows: list[Row]) -> tuple[list[MetricRow], list[str]]:
    """The metrics as a table with its best rows marked, and a sentence about each outcome."""
    table: list[MetricRow] = []
    verdicts: dict[str, list[str]] = {}
    for ratio in sorted({row.get("mask_ratio", "") for row in rows}, key=lambda r: _float(r) or 0):
        group = [row for row in rows if row.get("mask_ratio", "") == ratio]
        scores = {row.get("predictor", ""): _float(row.get("r2")) for row in group}
        known = {name: score for name, score in scores.items() if score is not None}
        best = max(known.values()) if known else None
        for row in group:
            name = row.get("predictor", "")
            values = tuple(_score(row.get(key)) for key in ("mse", "mae", "r2", "pearson_r"))
            values += (number(row.get("n_windows")),)
            table.append(MetricRow(number(ratio), name, values, known.get(name) == best))
        if "model" in known and len(known) > 1:
            verdicts.setdefault(_verdict(known), []).append(number(ratio))
    sentences = [
        f"With {_and(ratios)} of the values masked, the model {verdict}."
        for verdict, ratios in verdicts.items()
    ]
    return table, sentences


def _score(value: object) -> str:
    """A score with four decimals, so that the columns of a table line up."""
    found = _float(value)
    return "n/a" if found is None else f"{found:.4f}"


def _verdict(scores: Mapping[str, float]) -> str:
    names = {"parcel_mean": "the parcel mean", "ridge": "ridge regression"}
    others = {names.get(name, name): s for name, s in scores.items() if name != "model"}
    beaten = [name for name, score in others.items() if scores["model"] > score]
    better = [name for name, score in others.items() if scores["model"] <= score]
    if not better:
        return f"predicts better than {_and(beaten)}"
    if not beaten:
        return f"predicts no better than {_and(better)}"
    return f"predicts better than {_and(beaten)} but not than {_and(better)}"


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# --- warnings ----------------------------------------------------------------------------------

_DANGER = re.compile(r"approx|untrained|random|demo|all .*component|every .*component", re.I)


def _stated(sidecars: Iterable[Mapping[str, Any]]) -> list[Warn]:
    """The warnings that the sidecars carry, each once."""
    texts = dict.fromkeys(
        str(text) for sidecar in sidecars for text in _listed(sidecar.get("Warnings"))
    )
    return [Warn("stated", "danger" if _DANGER.search(text) else "warn", text) for text in texts]


def _missing(warnings: list[Warn], pattern: str) -> bool:
    return not any(re.search(pattern, warning.text, re.I) for warning in warnings)


def _run_warnings(
    files: _Files,
    denoised: Mapping[str, Any],
    robust: Mapping[str, Any],
    aroma: list[Row],
    run: Run,
    has_t1w: bool,
) -> list[Warn]:
    found = _stated([files.json("confounds", "timeseries"), denoised, robust])
    approximate = any("approx" in space.lower() for space in files.spaces)
    if approximate and _missing(found, "approx"):
        text = (
            "Approximate atlas: the parcels are the nearest published centroids, not A424 itself. "
            "They agree with A424 in about half of the voxels; do not compare these numbers with "
            "others, nor interpret the model's output."
        )
        found.append(Warn("atlas", "danger", text))
    noise = [row for row in aroma if row.get("classification") == "noise"]
    if aroma and len(noise) == len(aroma) and _missing(found, "all .*component|every .*component"):
        text = f"All {len(aroma)} components were classified as noise: check this run by eye."
        found.append(Warn("components", "danger", text))
    if not has_t1w and "coreg" in run.figures and _missing(found, "T1w"):
        text = (
            "No T1w image: the BOLD reference was registered straight to the template. "
            "Look at the alignment before trusting the parcels."
        )
        found.append(Warn("t1w", "warn", text))
    if run.filled and _missing(found, "filled"):
        count = len(run.filled)
        text = (
            f"{count} parcel{'s have' if count > 1 else ' has'} no data in this run; the model "
            "was given the median instead."
        )
        found.append(Warn("filled", "warn", text))
    found += _scale_warnings(denoised, robust)
    return sorted(found, key=lambda warning: warning.level)


def _model_warnings(
    label: str, about: Mapping[str, Any], sidecar: Mapping[str, Any], windows: list[Row]
) -> list[Warn]:
    found = _stated([sidecar])
    if about.get("untrained") and _missing(found, "untrained|random"):
        text = (
            f"Untrained model: {label} has random weights. Its output is a control; it says "
            "nothing about this brain that the input series do not."
        )
        found.append(Warn("untrained", "danger", text))
    padded = sidecar.get("PaddedVolumes") or sidecar.get("Padded")
    if padded and _missing(found, "pad"):
        amount = "" if padded is True else f" by {padded} volumes"
        text = f"Short run: it was padded{amount} to fill one window of the model."
        found.append(Warn("padded", "warn", text))
    return sorted(found, key=lambda warning: warning.level)


# --- status of the runs ------------------------------------------------------------------------


def _status(output_dir: Path, label: str) -> list[Row]:
    """The last known row of every run of this subject (status tables sort by their run id)."""
    rows: dict[tuple[str, ...], Row] = {}
    for path in sorted((output_dir / "logs").glob("*_status.tsv")):
        for row in _read_tsv(path):
            if without_prefix("sub", row.get("participant_id", "")) != label:
                continue
            key = tuple(row.get(column, "") for column in ("session", "task", "run", "source"))
            rows[key] = dict.fromkeys(_STATUS_COLUMNS, "") | _without_na(row)
    return [rows[key] for key in sorted(rows)]


def _without_na(row: Row) -> Row:
    return {key: "" if value == "n/a" else value for key, value in row.items()}


def _crashes(output_dir: Path, rows: list[Row]) -> dict[str, str]:
    """The end of each crash file that lies in the output folder, by the name in the table."""
    found = {}
    for row in rows:
        name = row.get("crash_file", "")
        if not name:
            continue
        path = (output_dir / name).resolve()
        # a table could name any file of the machine
        if path.suffix == ".txt" and path.is_relative_to(output_dir.resolve()) and path.is_file():
            found[name] = path.read_text(encoding="utf-8", errors="replace")[-4000:]
    return found


# --- small readers -----------------------------------------------------------------------------


def number(value: object, digits: int = 4) -> str:
    """A number with up to `digits` significant digits; what is no number as it stands.

    >>> number("0.12345"), number(float("nan")), number(490)
    ('0.1235', 'n/a', '490')
    """
    found = _float(value)
    if found is None:
        return str(value) if isinstance(value, str) and value else "n/a"
    if found == int(found) and abs(found) < 1e9:
        return str(int(found))
    return f"{found:.{digits}g}"


def _float(value: object) -> float | None:
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _listed(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value in (None, "") else [value]


def _column(rows: list[Row], name: str) -> list[float]:
    found = (_float(row.get(name)) for row in rows)
    return [value for value in found if value is not None]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _largest(rows: list[Row], kind: str, factor: float) -> float | None:
    values = [abs(v) for axis in "xyz" for v in _column(rows, f"{kind}_{axis}")]
    return factor * max(values) if values else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_tsv(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [{str(k): v or "" for k, v in row.items() if k is not None} for row in rows]
