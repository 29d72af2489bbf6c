"""The recipe of the demo checkpoint, `brainlm_bids/data/demo`: everything from one seed.

    python -m benchmarks.demo_checkpoint train FOLDER            cohort, `brainlm pretrain`
    python -m benchmarks.demo_checkpoint publish FOLDER TARGET --series phantom=FILE … real=FILE …

`publish` writes the best checkpoint in float16 with its model card: the curve, and how well it
predicts what was hidden in recordings that it never saw, beside its untrained twin, the mean of a
parcel and ridge regression. A FILE is a `desc-robust_timeseries.tsv` of `brainlm-bids`.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import demo_cohort

SEED = 1
N_SUBJECTS = 600
EPOCHS = 12
WINDOWS_PER_RECORDING = 2
BATCH = 2
LEARNING_RATE = 4e-3
# The original draws all weights with sd 0.02: the signal then enters at a twentieth of the size of
# the positions, and thousands of steps pass before it is noticed. Larger from the start, it takes
# tens.
SIGNAL_GAIN = 15.0
RATIOS = (0.2, 0.5, 0.75)
N_SCORED = 8  # simulated recordings of the test split


def train(folder: Path) -> int:
    """Cohort, start and training; the same command again goes on where it stopped."""
    import torch

    from brainlm_bids.model.checkpoint import random_network
    from brainlm_bids.model.config import ARCHITECTURES
    from brainlm_bids.training.pretrain import pretrain
    from brainlm_bids.training.saving import save_checkpoint
    from brainlm_bids.training.setup import PretrainOptions
    from brainlm_bids.training.store import is_store, write_store

    config = ARCHITECTURES["demo"]
    if not is_store(folder / "store"):
        write_store(folder / "store", demo_cohort.recordings(N_SUBJECTS, SEED))
    if not (folder / "start").is_dir():
        network = random_network(config, SEED)
        with torch.no_grad():
            network.vit.embeddings.signal_embedding_projection.weight.mul_(SIGNAL_GAIN)
        about = {"Untrained": True, "SignalGain": SIGNAL_GAIN, "RandomSeed": SEED}
        save_checkpoint(folder / "start", network, about)
    return pretrain(
        PretrainOptions(
            data=folder / "store",
            run_dir=folder / "run",
            start_from=str(folder / "start"),
            seed=SEED,
            epochs=EPOCHS,
            windows_per_recording=WINDOWS_PER_RECORDING,
            batch=BATCH,
            learning_rate=LEARNING_RATE,
            baseline_windows=8,
        )
    )


def publish(folder: Path, target: Path, series: Mapping[str, Sequence[Path]]) -> None:
    """Write the best checkpoint in float16 (TARGET/model.safetensors) and its model card."""
    from safetensors.torch import load_file, save_file

    run = folder / "run"
    target.mkdir(parents=True, exist_ok=True)
    weights = load_file(run / "best" / "model.safetensors")
    half = {key: value.half().contiguous() for key, value in weights.items()}
    save_file(half, target / "model.safetensors", metadata={"format": "pt"})
    (target / "model.safetensors").chmod(0o644)
    config = json.loads((run / "best" / "config.json").read_text())
    config["torch_dtype"] = "float16"
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("curves.tsv", "curves.png"):
        shutil.copy(run / name, target / name)
    groups = {"simulated, test split": list(_test_series(folder))}
    for name, files in series.items():
        groups[name] = [_read(file) for file in files]
    scores = {name: score(target, some) for name, some in groups.items()}
    counts = {name: len(some) for name, some in groups.items()}
    (target / "README.md").write_text(_card(run, scores, counts))


def _test_series(folder: Path) -> Iterator[NDArray[np.floating]]:
    """The first recordings of the split that training never touched."""
    from brainlm_bids.files import read_rows
    from brainlm_bids.training.store import open_store

    rows = read_rows(folder / "run" / "recordings.tsv")
    names = [row["recording"] for row in rows if row["split"] == "test"][:N_SCORED]
    store = open_store(folder / "store")
    for i, one in enumerate(store.recordings):
        if one.name in names:
            yield np.array(store.series(i))


def _read(file: Path) -> NDArray[np.floating]:
    from brainlm_bids.files import read_tsv

    return read_tsv(file)[1]


def score(
    checkpoint: Path, series: Sequence[NDArray[np.floating]]
) -> dict[float, dict[str, float]]:
    """Mask ratio -> predictor -> R² of hidden values, the mean over recordings."""
    from brainlm_bids.model.checkpoint import load_model, untrained_twin
    from brainlm_bids.model.reconstruction import reconstruct
    from brainlm_bids.resources import parcels

    model, xyz = load_model(checkpoint, seed=SEED), parcels().xyz
    twin = untrained_twin(model, SEED)
    found: dict[float, dict[str, float]] = {}
    for ratio in RATIOS:
        rows = []
        for one in series:
            made = reconstruct(model, one, xyz, mask_ratio=ratio, seed=SEED).metrics
            control = reconstruct(
                twin, one, xyz, mask_ratio=ratio, seed=SEED, with_baselines=False
            ).metrics
            rows.append(
                {
                    "demo": made["model"]["r2"],
                    "untrained": control["model"]["r2"],
                    "mean": made["parcel_mean"]["r2"],
                    "ridge": made["ridge"]["r2"],
                }
            )
        found[ratio] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return found


def _card(
    run: Path, scores: Mapping[str, Mapping[float, Mapping[str, float]]], counts: Mapping[str, int]
) -> str:
    from brainlm_bids.files import read_rows

    made = json.loads((run / "config" / "run.json").read_text())
    curve = read_rows(run / "curves.tsv")
    best = min(curve, key=lambda row: float(row["validation_mse"]))
    table = list(_table(scores, counts))
    return CARD.format(
        n_subjects=N_SUBJECTS,
        seed=SEED,
        epochs=EPOCHS,
        batch=BATCH,
        rate=LEARNING_RATE,
        gain=SIGNAL_GAIN,
        windows=WINDOWS_PER_RECORDING,
        minutes=sum(_seconds(row) for row in curve) / 60,
        best=best["epoch"],
        r2=float(best["validation_r2"]),
        ridge=float(best["ridge_r2"]),
        compared=float(best["compared_r2"]),
        versions=", ".join(f"{k} {v}" for k, v in made["Versions"].items()),
        table="\n".join(table),
    )


def _seconds(epoch: Mapping[str, str]) -> float:
    """What an epoch took: its windows, and its validation."""
    n_windows = BATCH * float(epoch["step"]) / float(epoch["epoch"])
    return n_windows / float(epoch["windows_per_second"]) + float(epoch["seconds_validating"])


def _table(
    scores: Mapping[str, Mapping[float, Mapping[str, float]]], counts: Mapping[str, int]
) -> Iterable[str]:
    yield "| recordings | masked | demo | untrained twin | parcel's mean | ridge |"
    yield "|---|---|---|---|---|---|"
    for name, by_ratio in scores.items():
        for ratio, row in by_ratio.items():
            numbers = " | ".join(f"{value:.3f}" for value in row.values())
            yield f"| {name} ({counts[name]}) | {ratio:g} | {numbers} |"


CARD = """\
# The demo checkpoint

A small BrainLM of the 13M's family that this project pretrained itself on **simulated** recordings,
so that the whole program can be tried without a download: `--model demo`. It has never seen a
brain. What it says of one is worth nothing; every output made with it says `demo`. Apache-2.0.

| what | value |
|---|---|
| architecture | `demo` of `model/config.py`: width 64, 2 + 2 layers, patches of 50 volumes |
| weights | float16, `model.safetensors` |
| data | {n_subjects} simulated recordings of 360 s (`benchmarks/demo_cohort.py`), split 80/10/10 |
| training | half of the tokens hidden, {epochs} epochs of {windows} windows a recording |
| optimiser | AdamW, batches of {batch}, peak learning rate {rate:g} |
| start | as the original's, but the signal's projection {gain:g} times as large |
| seed | {seed}, of cohort, split, start, windows and masks |
| made with | {versions} |
| time | {minutes:.0f} min, one process of one thread on a shared machine of two cores |
| curve | `curves.tsv`, `curves.png`; best epoch {best}: validation R² {r2:.3f} |
| beside ridge | on the windows where both were computed: demo {compared:.3f}, ridge {ridge:.3f} |

R² of hidden values in recordings that it never saw, the mean over recordings (whose number is in
parentheses). Ridge knows all of the recording that is not hidden; the demo knows one window.

{table}

To make it again: `python -m benchmarks.demo_checkpoint train FOLDER`, then `… publish FOLDER
brainlm_bids/data/demo --series …`.
"""


def _named(texts: Sequence[str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for text in texts:
        name, _, file = text.partition("=")
        groups.setdefault(name, []).append(Path(file))
    return groups


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train").add_argument("folder", type=Path)
    out = commands.add_parser("publish")
    out.add_argument("folder", type=Path)
    out.add_argument("target", type=Path)
    out.add_argument("--series", nargs="*", default=[], metavar="NAME=FILE")
    options: Any = parser.parse_args(arguments)
    if options.command == "train":
        return train(options.folder)
    publish(options.folder, options.target, _named(options.series))
    return 0


if __name__ == "__main__":
    sys.exit(main())
