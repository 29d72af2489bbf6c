"""Stores and architectures that the tests of training share."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from simulated_cohort import write_recording
from small_models import SMALL_IMAGE, P

from brainlm_bids import files
from brainlm_bids.bids import outputs
from brainlm_bids.model.config import ARCHITECTURES, ModelConfig, config_content
from brainlm_bids.resources import parcels
from brainlm_bids.training.store import Store, write_store

# Of few tokens: a step takes hundredths of a second.
IMAGE = replace(SMALL_IMAGE, patch_size=48, mask_ratio=0.5)
SERIES = replace(
    ARCHITECTURES["tiny"],
    num_timepoints_per_voxel=20,
    conv_kernel_size=3,
    num_hidden_layers=1,
    mask_ratio=0.5,
)


def write_config(file: Path, config: ModelConfig = SERIES) -> Path:
    file.write_text(json.dumps(config_content(config)))
    return file


def low_rank(
    n_subjects: int, n_volumes: int = 220, *, seed: int = 0, runs: int = 1, noise: float = 0.1
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Recordings in which one slow course moves all parcels, each by its own gain."""
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.5, 1.5, P)
    time = np.arange(n_volumes)
    for k in range(n_subjects):
        for run in range(runs):
            course = np.sin(2 * np.pi * (time / rng.uniform(300, 500) + rng.uniform()))
            series = course[:, None] * gain + noise * rng.standard_normal((n_volumes, P))
            series -= series.mean(axis=0)
            series /= np.subtract(*np.percentile(series, [75, 25], axis=0))
            name = f"sub-{k:02d}_task-rest_run-{run + 1}"
            yield name, f"sub-{k:02d}", series.astype(np.float32)


def small_store(folder: Path, n_subjects: int = 10, **keywords: float) -> Store:
    return write_store(folder, low_rank(n_subjects, **keywords))  # type: ignore[arg-type]


def output_folder(out: Path, n_subjects: int = 4, n_volumes: int = 210) -> dict[str, np.ndarray]:
    """An output folder with scaled series; returns them by the names of the runs."""
    written = {}
    for name, _, series in low_rank(n_subjects, n_volumes):
        naming = write_recording(out, name, series.astype(np.float64))
        path = files.write_series(naming.path("robust"), parcels().names, series)
        _, recorded = outputs.read_record(out, name, "series") or ("", {})
        written_files = [*(out / file for file in recorded), path]
        outputs.write_record(out, name, "series", f"made-{name}", written_files)
        written[name] = files.read_tsv(path)[1].astype(np.float32)
    return written
