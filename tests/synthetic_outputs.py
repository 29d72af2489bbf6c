"""Output folders as the participant level leaves them, written without computing anything.

Sidecars, tables, records and a status table of as many recordings as a test wants, with numbers
from a seeded generator; thousands in seconds. Series hold no values, figures are tiny.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids.bids.outputs import SERIES_STAGE, Naming, figure_table, record_path
from brainlm_bids.model.baselines import NAMES as BASELINES
from brainlm_bids.notices import Kind, notice, to_json
from brainlm_bids.parcels.scaling import UKB_SD_DEMEANED
from brainlm_bids.report.measures import static_measures
from brainlm_bids.report.status import COLUMNS
from brainlm_bids.resources import parcels

SPACE, ATLAS = "MNI152NLin6Asym", "A424"
MODEL = "brainlm111M"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"><path d="M0 10h40"/></svg>\n'
STATUS_TABLE = "20260101-000000_00000000_status.tsv"
FAILED = "the header has no repetition time"
SKIPPED = "19 volumes, fewer than 20"


@dataclass
class Synthetic:
    """What was written: all recordings, those with planted outliers, those without outputs."""

    folder: Path
    stems: list[str] = field(default_factory=list)
    planted: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def write_outputs(
    folder: Path,
    subjects: int,
    *,
    sessions: Sequence[str] = (),
    tasks: Sequence[str] = ("rest",),
    models: Sequence[str] = (MODEL,),
    failed: int = 0,
    skipped: int = 0,
    outliers: int = 0,
    figures: bool = False,
    seed: int = 0,
) -> Synthetic:
    """Write the outputs of subjects × sessions × tasks recordings.

    failed, skipped: further subjects of whom the status table alone knows. outliers: recordings
    with a planted mean FD of 2 mm (even ones) or a failed registration (odd ones). figures: all of
    a run's figures, not the small picture of the registration alone.
    """
    made = Synthetic(folder)
    rng = np.random.default_rng(seed)
    width = max(2, len(str(subjects + failed + skipped)))
    rows = []
    for number in range(1, subjects + 1):
        for session in sessions or ("",):
            for task in tasks:
                middle = f"_ses-{session}" if session else ""
                stem = f"sub-{number:0{width}d}{middle}_task-{task}"
                sidecar = _sidecar(rng)
                if len(made.planted) < outliers:
                    made.planted[stem] = _plant(sidecar, len(made.planted))
                write_recording(folder, stem, sidecar, rng, models=models, figures=figures)
                made.stems.append(stem)
                rows.append(status_row(stem, "done"))
    for number in range(subjects + 1, subjects + failed + skipped + 1):
        stem = f"sub-{number:0{width}d}_task-{tasks[0]}"
        is_failed = number <= subjects + failed
        (made.failed if is_failed else made.skipped).append(stem)
        status, reason = ("failed", FAILED) if is_failed else ("skipped", SKIPPED)
        rows.append(status_row(stem, status, reason))
    write_status(folder, rows)
    about = {"Name": "Synthetic", "BIDSVersion": "1.11.0", "DatasetType": "derivative"}
    about |= {"GeneratedBy": [{"Name": "brainlm-bids", "Version": "0"}]}
    _json(folder / "dataset_description.json", about)
    return made


def write_recording(
    folder: Path,
    stem: str,
    sidecar: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    models: Sequence[str] = (MODEL,),
    figures: bool = False,
) -> Naming:
    """Write the files of one recording, and the record that says that they are complete."""
    naming = Naming(str(folder), stem, SPACE, ATLAS)
    func = naming.path("denoised").parent
    func.mkdir(parents=True, exist_ok=True)
    naming.figure("motion").parent.mkdir(parents=True, exist_ok=True)
    missing = len(sidecar["MissingParcels"])
    robust = {**sidecar, "FilledParcels": [], "StandardDeviationRobust": rng.normal(0.8, 0.04)}
    components = int(rng.integers(20, 40))
    noise = int(components * rng.uniform(0.4, 0.6))
    counted = {"NumberOfComponents": components, "NumberOfNoiseComponents": noise}
    counted |= {"SmoothingFWHM": 6.0, "RandomSeed": 42}
    written = [
        _text(naming.path("denoised"), "\n"),
        _json(naming.path("denoised", extension=".json"), sidecar),
        _text(naming.path("robust"), "\n"),
        _json(naming.path("robust", extension=".json"), robust),
        _json(naming.path("aroma_metrics", extension=".json"), counted),
        _text(naming.path("coverage"), _coverage(missing)),
        _text(naming.path("image_quality"), _image_quality(rng)),
    ]
    small = naming.figure("thumbnail")
    small.write_bytes(tiny_png(int(rng.integers(40, 216))))
    written.append(small)
    keys = [key for key, row in figure_table().items() if figures and row["of"] in ("run", "model")]
    for key in keys:
        of_model = figure_table()[key]["of"] == "model"
        labels = models if of_model else ("",)
        written += [_text(naming.figure(key, model=label), SVG) for label in labels]
    for model in models:
        _write_model(naming, model, rng)
    listed = {path.relative_to(folder).as_posix(): path.stat().st_size for path in written}
    record = {"Configuration": "synthetic", "Outputs": listed}
    _json(record_path(folder, stem, SERIES_STAGE), record)
    return naming


def status_row(stem: str, status: str, reason: str = "", crash_file: str = "") -> dict[str, str]:
    """A row of the status table."""
    entities = dict(part.split("-", 1) for part in stem.split("_"))
    session = f"ses-{entities['ses']}" if "ses" in entities else ""
    folder = "/".join(part for part in (f"sub-{entities['sub']}", session, "func") if part)
    return {
        "participant_id": f"sub-{entities['sub']}",
        "session_id": session,
        "task": entities.get("task", ""),
        "run": entities.get("run", ""),
        "source": f"{folder}/{stem}_bold.nii.gz",
        "status": status,
        "reason": reason,
        "crash_file": crash_file,
        "recording": stem,
    }


def write_status(folder: Path, rows: Sequence[Mapping[str, str]], name: str = STATUS_TABLE) -> Path:
    """Write a status table."""
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(row.get(column) or "n/a" for column in COLUMNS) for row in rows]
    return _text(folder / "logs" / name, "\n".join(lines) + "\n")


@cache
def tiny_png(grey: int) -> bytes:
    """A grey picture of 2 × 1 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    header = (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    pixels = zlib.compress(bytes([0, grey, grey]))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


# --- numbers ---------------------------------------------------------------------------------


def _sidecar(rng: np.random.Generator) -> dict[str, Any]:
    """The sidecar of the denoised series of an ordinary recording."""
    names = parcels().names
    warnings = [notice(Kind.EMBEDDED_TEMPLATE, "The embedded template is used.")]
    return {
        "RepetitionTime": 0.8,
        "NumberOfVolumes": 400,
        "DummyVolumes": 2,
        "BadVolumes": [],
        "Coregistration": "boundary",
        "MeanFramewiseDisplacement": float(np.exp(rng.normal(np.log(0.12), 0.2))),
        "MaximumTranslation": float(rng.uniform(0.2, 1.0)),
        "MaximumRotation": float(rng.uniform(0.2, 1.0)),
        "MotionOutliers": int(rng.integers(0, 12)),
        "RegistrationContrast": float(rng.normal(7.0, 0.4)),
        "RegistrationCost": float(rng.normal(0.55, 0.03)),
        "BrainOverlap": float(rng.normal(0.94, 0.004)),
        "TemplateDice": float(rng.normal(0.97, 0.002)),
        "BrainAtImageEdge": float(rng.uniform(0.0, 200.0)),
        "TemplateCorrelation": float(rng.normal(0.75, 0.02)),
        "StandardDeviationDemeaned": float(rng.normal(UKB_SD_DEMEANED, 2.0)),
        "MissingParcels": dict.fromkeys(names[: int(rng.integers(0, 3))], 0.0),
        "Atlas": {"Name": ATLAS, "Space": SPACE},
        "Template": {"Name": SPACE},
        "Warnings": to_json(warnings[: int(rng.integers(0, 2))]),
    }


def _plant(sidecar: dict[str, Any], number: int) -> str:
    """Make a recording an outlier; returns the measure in which it is one."""
    if number % 2 == 0:
        sidecar["MeanFramewiseDisplacement"] = 2.0
        return "mean_fd"
    sidecar |= {"RegistrationContrast": 0.5}
    grave = notice(Kind.SUSPECT_REGISTRATION, "The registration has probably failed.")
    sidecar["Warnings"] = to_json([grave])
    return "registration_contrast"


@cache
def _coverage(missing: int) -> str:
    lines = ["index\tname\tn_voxels\tn_covered\tfraction"]
    for place, name in enumerate(parcels().names):
        covered = 0 if place < missing else 50
        lines.append(f"{place + 1}\t{name}\t50\t{covered}\t{covered / 50:g}")
    return "\n".join(lines) + "\n"


def _image_quality(rng: np.random.Generator) -> str:
    """The table of image quality, with the columns that are measures."""
    names = [one.column for one in static_measures() if one.output == "image_quality"]
    ordinary = {"tsnr": 60.0, "snr": 5.0, "fwhm_avg": 2.4, "fber": 900.0, "dvars_std": 1.1}
    numbers = [ordinary.get(name, 0.02) * rng.normal(1, 0.05) for name in names]
    lines = [names, [f"{number:.7g}" for number in numbers]]
    return "\n".join("\t".join(line) for line in lines) + "\n"


def _write_model(naming: Naming, model: str, rng: np.random.Generator) -> None:
    about = {"Model": {"label": model, "licence": "CC BY-NC-ND 4.0"}}
    _json(naming.path("embeddings", model=model, extension=".json"), about)
    windows = "onset\tduration\tcls_0000\n0\t147\t0.5\n147\t147\t0.6\n"
    _text(naming.path("embeddings", model=model), windows)
    own = rng.normal(0.4, 0.03)
    scores = {"model": own, "parcel_mean": -0.02, "time": 0.1, "ridge": own + 0.1}
    scores |= dict.fromkeys(set(BASELINES) - set(scores), own + 0.12)
    lines = ["mask_ratio\tpredictor\tmse\tmae\tr2\tpearson_r\tn_windows"]
    for ratio in (0.2, 0.75):
        for predictor in ("model", *BASELINES):
            r2 = scores[predictor] - 0.1 * (ratio - 0.2)
            lines.append(f"{ratio}\t{predictor}\t{1 - r2:.6f}\t0.5\t{r2:.6f}\t0.6\t2")
    _text(naming.path("metrics", model=model), "\n".join(lines) + "\n")


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _json(path: Path, values: Mapping[str, Any]) -> Path:
    return _text(path, json.dumps(values))
