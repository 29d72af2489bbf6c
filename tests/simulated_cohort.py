"""A cohort whose truth is known, written as the participant level would have written it.

Series of 424 parcels in which the strength of the default mode network follows a target.
"""

import json
from pathlib import Path

import numpy as np

from brainlm_bids import files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.notices import Notice, to_json

SPACE, ATLAS, NETWORK = "MNI152NLin2009aSym", "A424approx", 5
TR, VOLUMES, DUMMIES = 0.735, 60, 2


def simulated_series(rng: np.random.Generator, strength: float) -> np.ndarray:
    """(T, 424) in grand-mean units: noise, a course per network, the default mode's by strength."""
    networks = resources.parcels().network_index
    courses = rng.standard_normal((VOLUMES, 8))
    gain = np.where(networks == NETWORK, strength, 0.6)
    series = courses[:, networks] * gain + rng.standard_normal((VOLUMES, len(networks)))
    series *= rng.uniform(20, 60, len(networks))
    return 10000 + rng.uniform(-500, 500, len(networks)) + series


def write_cohort(
    folder: Path, n_subjects: int, seed: int = 7, *, runs: tuple[str, ...] = ("",)
) -> tuple[Path, Path]:
    """Write raw/participants.tsv and out/; returns both folders.

    age is the planted target; noise is age shuffled; sex is the sign of the planted strength; site
    is constant.
    """
    rng = np.random.default_rng(seed)
    raw, out = folder / "raw", folder / "out"
    raw.mkdir(parents=True)
    labels = [f"{k + 1:02d}" for k in range(n_subjects)]
    age = rng.uniform(20, 80, n_subjects).round(1)
    strength = 0.2 + 1.6 * (age - 20) / 60
    write_participants(raw, labels, age, rng.permutation(age))
    text = {"Name": "simulated", "BIDSVersion": "1.11.0", "DatasetType": "derivative"}
    files.write_json(out / "dataset_description.json", text)
    for label, value in zip(labels, strength, strict=True):
        for run in runs:
            stem = f"sub-{label}_task-rest{run}"
            write_recording(out, stem, simulated_series(rng, value), mean_fd=rng.uniform(0.05, 0.3))
    return raw, out


def write_participants(raw: Path, labels: list[str], age: np.ndarray, noise: np.ndarray) -> None:
    middle = np.median(age)
    columns = {
        "participant_id": [f"sub-{label}" for label in labels],
        "age": age.tolist(),
        "noise": noise.tolist(),
        "group": ["old" if value > middle else "young" for value in age],
        "scanner": ["one"] * len(labels),
    }
    files.write_tsv(raw / "participants.tsv", list(columns), list(columns.values()))


def write_recording(
    out: Path,
    stem: str,
    steady: np.ndarray,
    *,
    mean_fd: float = 0.1,
    warnings: tuple[Notice, ...] = (),
) -> Naming:
    """Denoised series, coverage, connectivity, sidecars and the record of one run."""
    naming = Naming(str(out), stem, SPACE, ATLAS)
    parcels = resources.parcels()
    names = list(parcels.names)
    series = np.vstack([np.full((DUMMIES, len(names)), np.nan), steady])
    missing = np.isnan(steady).any(axis=0)
    demeaned = steady[:, ~missing] - steady[:, ~missing].mean(axis=0)
    sidecar = {
        "RepetitionTime": TR,
        "DummyVolumes": DUMMIES,
        "NumberOfVolumes": len(series),
        "MeanFramewiseDisplacement": mean_fd,
        "StandardDeviationDemeaned": float(demeaned.std()),
        "MissingParcels": [name for name, none in zip(names, missing, strict=True) if none],
        "Denoising": "nonaggr",
        "Atlas": {"Name": ATLAS},
        "Template": {"Name": SPACE},
        "Configuration": f"simulated-{stem}",
        "Warnings": to_json(warnings),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.corrcoef(steady.T)
    covered = np.where(missing, 0, 50)
    coverage = [parcels.index.tolist(), names, [50] * len(names), covered.tolist()]
    header = ["index", "name", "n_voxels", "n_covered", "fraction"]
    written = [
        files.write_series(naming.path("denoised"), names, series),
        files.write_json(
            naming.path("denoised", extension=".json"), naming.sidecar("denoised", sidecar)
        ),
        files.write_matrix(naming.path("pearson"), names, correlation),
        files.write_tsv(naming.path("coverage"), header, [*coverage, (covered / 50).tolist()]),
    ]
    outputs.write_record(out, stem, "series", sidecar["Configuration"], written)
    return naming


def read_rows(path: Path) -> list[dict[str, str]]:
    return files.read_rows(path)


def read_json(path: Path) -> dict:
    return dict(json.loads(path.read_text()))
