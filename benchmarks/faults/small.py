"""The cheapest inputs that go through whole calls of the program."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.faults.processes import start

N_PARCELS = 424
RESOURCES = ("--offline", "--atlas", "A424approx")
QUICK = (*RESOURCES, "--nprocs", "1", "--figures", "none", "--mask-ratio", "0.75")
MODEL = ("--model", "random:tiny")


def series(folder: Path, n_subjects: int, n_volumes: int = 70) -> Path:
    """Parcel series of some subjects that differ, and participants.tsv with their age."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["participant_id\tage"]
    for subject in range(1, n_subjects + 1):
        steps = rng.normal(size=(n_volumes, N_PARCELS))
        values = 100 + 0.1 * np.cumsum(steps, 0) + rng.normal(size=(n_volumes, N_PARCELS))
        np.save(folder / f"sub-{subject:03d}_task-rest_timeseries.npy", values)
        lines.append(f"sub-{subject:03d}\t{20 + 7 * subject % 50}")
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n")
    return folder


def participant(raw: Path, folder: Path, *more: str) -> list[str]:
    """The words of a participant call about the series of a folder."""
    files = sorted(str(path) for path in raw.glob("*_timeseries.npy"))
    words = [str(raw), str(folder / "out"), "participant", "-w", str(folder / "work"), *QUICK]
    return [*words, "--timeseries", *files, "--timeseries-tr", "2", *more]


def group(raw: Path, folder: Path, *more: str) -> list[str]:
    """The words of a group call about an output folder."""
    return [str(raw), str(folder / "out"), "group", "-w", str(folder / "work"), *QUICK, *more]


def done(words: Sequence[str], folder: Path, module: str = "brainlm_bids") -> None:
    """Run a call that nothing disturbs; RuntimeError if it fails."""
    call = start(words, folder, module)
    code = call.end()
    if code:
        raise RuntimeError(f"exit code {code} undisturbed: {call.text()[-600:]}")


def architecture(path: Path) -> Path:
    """The config.json of a network whose training steps take hundredths of a second."""
    from brainlm_bids.model.config import ARCHITECTURES, BrainLMConfig, config_content

    tiny = ARCHITECTURES["tiny"]
    assert isinstance(tiny, BrainLMConfig)
    small = replace(
        tiny,
        num_timepoints_per_voxel=20,
        conv_kernel_size=3,
        num_hidden_layers=1,
        mask_ratio=0.5,
    )
    path.write_text(json.dumps(config_content(small)))
    return path
