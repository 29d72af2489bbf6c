"""The table of readouts and scalings on simulated cohorts: which one shows what a network knows.

    python -m benchmarks.readouts [--subjects 80] [--part age states …]

Age is planted in coupling and amplitude of one network, or in one of both; states are blocks in
which a network is active. The sources are those of `cohort.sources`, decoded by the functions of
the group level in the same five folds of subjects, and the network is the demo checkpoint.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.cohort.attentive import attentive_predictions
from brainlm_bids.cohort.bags import Bags
from brainlm_bids.cohort.decoding import Decoded, decode, decode_by
from brainlm_bids.cohort.folds import OUTER_FOLDS
from brainlm_bids.cohort.series_mlp import mlp_predictions
from brainlm_bids.cohort.sites import NO_SITES
from brainlm_bids.cohort.sources import COHORT, RECORDING, SOURCES, Source
from brainlm_bids.cohort.states import Block, block_volumes
from brainlm_bids.cohort.statistics import demeaned, pooled_statistics
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.states import embed_stretches
from brainlm_bids.parcels import scaling
from brainlm_bids.parcels.connectivity import fisher_z
from brainlm_bids.parcels.scaling import ScalingStats, recording_stats
from brainlm_bids.phantom.cohort import CohortOptions, Recording, draw_people, recordings

Array = NDArray[np.float64]
TR = 0.735
# as long as two windows of the model; blocks as long as one of the demo's time patches
AGE = CohortOptions(subjects=80, seconds=294.0, age_effect=0.9, seed=3)
STATES = CohortOptions(
    subjects=24, seconds=294.0, states=3, block=36.75, state_effect=0.8, age_effect=0.0, seed=4
)
PARTS = {
    "age": AGE,
    "age_coupling": replace(AGE, amplitude=0.0),
    "age_amplitude": replace(AGE, coupling=0.0),
    "states": STATES,
}
PERMUTATIONS = 99


@dataclass
class Material:
    """What units are decoded from: features by source, bags by features and scaling.

    Attributes
    ----------
    linear
        (features, readout, scaling) to a row per unit.
    tokens, series
        (features, scaling) to the files of the units' tokens, and scaling to their series.
    """

    folder: Path
    linear: dict[tuple[str, str, str], list[Array]] = field(default_factory=dict)
    tokens: dict[tuple[str, str], list[tuple[Path, ...]]] = field(default_factory=dict)
    series: dict[str, list[tuple[Array, ...]]] = field(default_factory=dict)

    def add(self, features: str, readout: str, scale: str, row: Array) -> None:
        """Append a unit's features."""
        self.linear.setdefault((features, readout, scale), []).append(np.asarray(row, np.float64))

    def keep(self, features: str, scale: str, tokens: NDArray[np.float16]) -> None:
        """Append a unit's tokens (W, L, D), as a file."""
        listed = self.tokens.setdefault((features, scale), [])
        path = self.folder / f"{features}_{scale}_{len(listed)}.npy"
        np.save(path, tokens)
        listed.append((path,))


def scaled(every: list[Recording]) -> Iterator[dict[str, Array]]:
    """Each recording's series under both scalings."""
    store = np.concatenate([demeaned(one.series, None) for one in every], axis=1)
    pooled = pooled_statistics([store])
    cohort = ScalingStats(pooled.median, pooled.iqr)
    for one in every:
        yield {
            RECORDING: scaling.scale(one.series, recording_stats(one.series))[0],
            COHORT: scaling.scale(one.series, cohort)[0],
        }


def models() -> dict[str, LoadedModel]:
    """The demo checkpoint, and the same network with random weights."""
    found = resources.find_model("demo", offline=True)
    assert found is not None and found.path is not None
    return {
        "embedding": load_model(found.path, seed=0),
        "untrained": load_model("random:demo", seed=1),
    }


# --- what is decoded -------------------------------------------------------------------------


def age_material(every: list[Recording], folder: Path) -> Material:
    """A unit per recording."""
    made, xyz = Material(folder), resources.parcels().xyz
    networks = models()
    for one, both in zip(every, scaled(every), strict=True):
        made.add("connectivity", "linear", "n/a", fisher_z(np.corrcoef(one.series.T)))
        made.add("motion", "linear", "n/a", np.array([one.displacement[1:].mean(), 1.0]))
        made.add("coordinates", "linear", "n/a", xyz.mean(axis=0))
        for scale, series in both.items():
            made.series.setdefault(scale, []).append((series.astype(np.float32),))
            for features, model in networks.items():
                found = embed(model, series.astype(np.float32), xyz, tr=TR, seed=0, tokens=True)
                assert found.tokens is not None
                tokens = found.tokens.reshape(len(found.tokens), -1, found.tokens.shape[-1])
                made.keep(features, scale, tokens)
                made.add(features, "cls", scale, found.recording)
                mean = np.nanmean(tokens.astype(np.float32), axis=(0, 1))
                made.add(features, "mean", scale, mean)
    return made


def state_material(
    every: list[Recording], folder: Path
) -> tuple[Material, NDArray[np.int64], list[str]]:
    """A unit per block; and their states and subjects."""
    made, xyz, networks = Material(folder), resources.parcels().xyz, models()
    names = sorted({event.trial_type for one in every for event in one.events})
    truth: list[int] = []
    people: list[str] = []
    for one, both in zip(every, scaled(every), strict=True):
        blocks = [Block(*event) for event in one.events]
        places = block_volumes(blocks, delay=5.0, start=0.0, tr=TR, n_volumes=len(one.series))
        truth += [names.index(block.state) for block in blocks]
        people += [f"sub-{one.subject:03d}"] * len(blocks)
        for first, end in places:
            part = slice(int(first), int(end))
            made.add("connectivity", "linear", "n/a", fisher_z(np.corrcoef(one.series[part].T)))
            made.add("motion", "linear", "n/a", np.array([one.displacement[part].mean(), 1.0]))
            made.add("coordinates", "linear", "n/a", xyz.mean(axis=0))
            for scale, series in both.items():
                made.series.setdefault(scale, []).append((series[part].astype(np.float32),))
        for scale, series in both.items():
            for features, model in networks.items():
                found = embed_stretches(model, series.astype(np.float32), xyz, places, seed=0)
                for cls, mean, tokens in zip(found.cls, found.mean, found.tokens, strict=True):
                    made.add(features, "cls", scale, cls)
                    made.add(features, "mean", scale, mean)
                    made.keep(features, scale, tokens[None])
    return made, np.array(truth), people


def decoded(
    source: Source, made: Material, target: Array, people: list[str], n_classes: int
) -> Decoded:
    """One source, in five folds."""
    shared = {"n_classes": n_classes, "n_permutations": PERMUTATIONS, "seed": 0}
    if source.kind == "linear":
        rows = np.stack(made.linear[source.features, source.readout, source.scaling])
        return decode(
            rows, target, people, folds=NO_SITES.folds(people, OUTER_FOLDS, 1, 0), **shared
        )
    if source.kind == "mlp":
        bags = Bags(tuple(made.series[source.scaling]))
        work = mlp_predictions
    else:
        bags = Bags(tuple(made.tokens[source.features, source.scaling]))
        work = attentive_predictions

    def predictor(values, owners, split, n, seed):  # type: ignore[no-untyped-def]
        return work(bags, values, owners, split, n_classes=n, seed=seed)

    return decode_by(predictor, target, people, **shared)


def table(part: str, options: CohortOptions) -> None:
    """Print the rows of a part as Markdown."""
    people_of = draw_people(options)
    every = list(recordings(options, people_of))
    with tempfile.TemporaryDirectory() as folder:
        if options.states:
            made, truth, people = state_material(every, Path(folder))
            target, n_classes = truth.astype(float), options.states
        else:
            made = age_material(every, Path(folder))
            target, people = people_of.age, [f"sub-{k:03d}" for k in range(options.subjects)]
            n_classes = 0
        metrics = ("accuracy", "auc") if n_classes else ("pearson_r", "r2")
        print(f"\n{part}: {len(target)} units of {options.subjects} people\n")
        print(f"| features | readout | scaled by | {' | '.join(metrics)} | p | CPU s |")
        print("|---|---|---|---|---|---|---|")
        for source in SOURCES:
            started = time.process_time()
            found = decoded(source, made, target, people, n_classes)
            numbers = [
                f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})"
                for one in (found.scores[name] for name in metrics)
            ]
            seconds = time.process_time() - started
            print(
                f"| {source.features} | {source.readout} | {source.scaling} | "
                f"{' | '.join(numbers)} | {found.p:.2g} | {seconds:.0f} |",
                flush=True,
            )


def main() -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, help="instead of 80, or 24 with states")
    parser.add_argument("--part", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    given = parser.parse_args()
    for part in given.part:
        options = PARTS[part]
        if given.subjects:
            options = replace(options, subjects=given.subjects)
        table(part, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
