"""Derivatives of thousands of recordings with a known truth, for the group level.

    python -m benchmarks.many_recordings FOLDER [--recordings N] [--variants V]

The program makes the layout itself: it processes V simulated series at both levels, with a model
of random weights, and their files are multiplied under new names. A recording has numbers of its
own in its series, embedding, motion and sidecars. Large files of which one is as good as another
for time and memory (matrices, reconstructions, label images, pages) are hard links to those of the
variant that is nearest to it, so that 10,000 recordings need 5 GB of disk; they are read in full.

FOLDER/bids/participants.tsv has the truth. `age` and `group` follow the strength of the default
mode network, which is planted in series, connectivity and embeddings; `noise` is age shuffled, and
must not be predicted.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.app.plan import cohort_inputs, plan_recording
from brainlm_bids.app.resources import find_resources, with_precision
from brainlm_bids.bids.cohort import all_recordings
from brainlm_bids.bids.outputs import (
    COHORT_SERIES_STAGE,
    SERIES_STAGE,
    model_stage,
    read_record,
    record_path,
)
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.commands.bids_app import main as brainlm_bids
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.graph import Stage

TR, VOLUMES = 0.735, 80
DEFAULT_MODE = 5  # of the seven networks
LARGE = 20_000  # bytes of a file from which it is linked
FLIPPED = 0.1  # share of the recordings in the wrong group
SITES = ("north", "east", "south", "west")
MODEL = "randomtiny"
OPTIONS = (
    *("--atlas", "A424approx", "--template", "MNI152NLin2009aSym", "--figures", "none"),
    *("--offline", "--nprocs", "1", "--omp-nthreads", "1"),
)


class _Own(NamedTuple):
    """What a recording has for itself: the strength planted in it, and where its numbers start."""

    strength: float
    rng: np.random.Generator


def write_cohort(folder: Path, n_recordings: int, variants: int = 16, seed: int = 0) -> Path:
    """Write the data set `folder`/bids and its derivatives `folder`/out; returns the latter.

    Parameters
    ----------
    folder
        New, or that of an earlier call, whose variants are used again.
    n_recordings
        One of each subject.
    variants
        Recordings that the program processes, of rising strength.
    seed
        Of all numbers.
    """
    rng, out = np.random.default_rng(seed), folder / "out"
    strength = rng.uniform(0, 1, n_recordings)
    people = _participants(folder / "bids", strength, rng)
    templates = _templates(folder, variants)
    ignored = shutil.ignore_patterns("sub-*", "group*", "figures", "index*", "records", "complete")
    shutil.copytree(folder / "templates", out, ignore=ignored)
    stems = [f"{label}_task-rest" for label in people]
    for stem, value in zip(stems, strength.tolist(), strict=True):
        _multiply(templates, out, stem, SERIES_STAGE, _Own(value, rng))
        _multiply(templates, out, stem, model_stage(MODEL), _Own(value, rng))
    columns = {
        "participant_id": people,
        "task": ["rest"] * n_recordings,
        "source": [f"{stem}_timeseries.tsv" for stem in stems],
        "status": ["done"] * n_recordings,
        "recording": stems,
    }
    for number, path in enumerate(sorted((out / "logs").glob("*_status.tsv"))):
        if number:  # the group level's
            path.unlink()
        else:
            files.write_tsv(path, list(columns), list(columns.values()))
    return out


def complete(settings: Settings, folder: Path) -> int:
    """Write what the models make under the cohort's statistics, as if they had been run.

    Parameters
    ----------
    settings
        Of the call at group level that is measured next.
    folder
        That of `write_cohort`, whose series a call with --model none has scaled.

    Returns
    -------
    int
        The number of recordings.
    """
    found = find_resources(settings)
    settings = with_precision(settings, found)
    recordings = all_recordings(settings.output_dir)
    templates = all_recordings(folder / "templates")
    sha256 = files.file_sha256(next(settings.output_dir.glob("atlas-*_scaling.tsv")))
    rng = np.random.default_rng(settings.random_seed)
    for one in recordings:
        plan = plan_recording(
            settings,
            Stage(one.stem, COHORT_SERIES_STAGE),
            cohort_inputs(settings, one, sha256),
            found.models,
            scaling="cohort",
        )
        own = _Own(float(one.sidecar["SimulatedStrength"]), rng)
        for model in plan.models:
            stage = model.stage.name
            _multiply(templates, settings.output_dir, one.stem, stage, own, model.configuration)
    return len(recordings)


# --- the variants ----------------------------------------------------------------------------


def simulated_series(rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """(T, 424) in grand-mean units: noise, a course per network, the default mode's by strength."""
    networks = resources.parcels().network_index
    courses = rng.standard_normal((VOLUMES, 8))
    gain = np.where(networks == DEFAULT_MODE, 0.2 + 1.6 * strength, 0.6)
    series = courses[:, networks] * gain + rng.standard_normal((VOLUMES, len(networks)))
    return 10000 + 40 * series


def _templates(folder: Path, variants: int) -> list[Recording]:
    """The variants, processed by the program at both levels if that has not been done."""
    out = folder / "templates"
    if not (out / "group.html").is_file():
        rng, names, given = np.random.default_rng(1), list(resources.parcels().names), []
        for k in range(variants):
            path = folder / "series" / f"sub-v{k:03d}_task-rest_timeseries.tsv"
            files.write_series(path, names, simulated_series(rng, (k + 0.5) / variants))
            files.write_json(path.with_suffix(".json"), {"RepetitionTime": TR})
            given.append(str(path))
        work = folder / "work_of_templates"
        words = [str(folder / "bids"), str(out), "participant", "group", "--timeseries", *given]
        if brainlm_bids([*words, "--model", "random:tiny", "-w", str(work), *OPTIONS]):
            raise RuntimeError(f"{out}: the variants could not be processed")
        shutil.rmtree(work)
    return all_recordings(out)


def _participants(bids: Path, strength: NDArray[np.float64], rng: np.random.Generator) -> list[str]:
    """Write the table of participants; returns their names."""
    n = len(strength)
    people = [f"sub-{k:05d}" for k in range(1, n + 1)]
    age = (20 + 60 * strength).round(1)
    old = (strength > 0.5) ^ (rng.uniform(size=n) < FLIPPED)
    columns: dict[str, list[Any]] = {
        "participant_id": people,
        "age": age.tolist(),
        "group": ["old" if one else "young" for one in old],
        "noise": rng.permutation(age).tolist(),
        "site": rng.choice(SITES, n).tolist(),
        "sex": rng.choice(["F", "M"], n).tolist(),
    }
    files.write_tsv(bids / "participants.tsv", list(columns), list(columns.values()))
    about = {"Name": "simulated", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    files.write_json(bids / "dataset_description.json", about)
    return people


# --- multiplying -----------------------------------------------------------------------------


def _multiply(
    templates: Sequence[Recording],
    out: Path,
    stem: str,
    stage: str,
    own: _Own,
    configuration: str = "",
) -> None:
    """The files of a stage of a recording, and its record.

    configuration: of the record; empty for that of the variant.
    """
    template = templates[min(int(own.strength * len(templates)), len(templates) - 1)]
    source = Path(template.naming.output_dir)
    record = read_record(source, template.stem, stage)
    if record is None:
        raise RuntimeError(f"{record_path(source, template.stem, stage)}: is not there")
    subject = stem.partition("_")[0]
    sizes = {}
    for name in record[1]:
        renamed = name.replace(template.participant, subject)
        path = out / renamed
        path.parent.mkdir(parents=True, exist_ok=True)
        content = _content(source / name, own)
        if content is None:
            os.link(source / name, path)
        else:
            path.write_text(content.replace(template.participant, subject))
        sizes[renamed] = path.stat().st_size
    values = {"Configuration": configuration or record[0], "Outputs": sizes}
    path = record_path(out, stem, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    # without waiting for the disk, as the program's own writer does
    path.write_text(json.dumps(values, indent=2))
    page = out / f"{subject}.html"
    if not page.exists():
        os.link(source / f"{template.participant}.html", page)


def _content(path: Path, own: _Own) -> str | None:
    """The content of a recording's own file; None for one that is linked to the variant's."""
    if path.name.endswith("_desc-denoised_timeseries.tsv"):
        names = resources.parcels().names
        rows = simulated_series(own.rng, own.strength).astype(np.float32)
        row = "\t".join(["%.7g"] * len(names)) + "\n"
        return "\t".join(names) + "\n" + "".join(row % tuple(line) for line in rows.tolist())
    if path.name.endswith("_desc-recording_embeddings.tsv"):
        return _embedding(path, own)
    if path.suffix not in (".json", ".tsv") or path.stat().st_size > LARGE:
        return None
    text = path.read_text()
    if not path.name.endswith("_desc-denoised_timeseries.json"):
        return text
    sidecar = json.loads(text)
    sidecar |= {
        "SimulatedStrength": own.strength,
        "MeanFramewiseDisplacement": float(own.rng.uniform(0.05, 0.3)),
    }
    return json.dumps(sidecar, indent=2)


def _embedding(path: Path, own: _Own) -> str:
    """The variant's, moved at random; in the first dimension by the strength."""
    header, values = path.read_text().splitlines()[:2]
    cells = values.split("\t")
    first = next(k for k, name in enumerate(header.split("\t")) if name[-4:].isdigit())
    moved = np.array(cells[first:], dtype=np.float64)
    moved += own.rng.standard_normal(len(moved))
    moved[0] += 3 * own.strength
    return "\n".join([header, "\t".join([*cells[:first], *(f"{x:.7g}" for x in moved)]), ""])


def main(argv: Sequence[str] | None = None) -> None:
    """Write what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recordings", type=int, default=10_000)
    parser.add_argument("--variants", type=int, default=16)
    given = parser.parse_args(argv)
    print(write_cohort(given.folder, given.recordings, given.variants))


if __name__ == "__main__":
    main()
