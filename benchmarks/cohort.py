"""Memory and time of the statistics over a cohort of 10,000 recordings of 490 × 424.

    python -m benchmarks.cohort [--recordings 10000] [--folder DIR]

The work is done by the group level's own interfaces, each in a process of its own whose largest
resident memory is taken from the kernel. 64 recordings are simulated and written as TSV; the cohort
is made of them again and again (links to the same store, so that the disk holds 53 MB instead of
8 GB). Collecting is measured on those 64, since it holds one group of 64 at a time, whatever the
size of the cohort; pooling is measured on all. Peers: reading the same files once with the same
reader, and numpy on the stacked array of a tenth of the cohort, which is what fits into memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TOGETHER, VOLUMES, PARCELS = 64, 490, 424
LIMIT_MB = 1500


def write_recordings(folder: Path, n: int) -> list[dict[str, str]]:
    """Series as the participant level leaves them, without what the statistics do not read."""
    from brainlm_bids import files, resources
    from brainlm_bids.bids import outputs

    rng = np.random.default_rng(0)
    names = list(resources.parcels().names)
    spread = rng.uniform(20, 60, PARCELS)
    namings = []
    for k in range(n):
        naming = outputs.Naming(str(folder), f"sub-{k:05d}_task-rest", "MNI152NLin6Asym", "A424")
        series = 10000 + spread * rng.standard_t(5, (VOLUMES, PARCELS))
        files.write_series(naming.path("denoised"), names, series)
        sidecar = {"RepetitionTime": 0.735, "DummyVolumes": 0}
        files.write_json(naming.path("denoised", extension=".json"), sidecar)
        namings.append({f: getattr(naming, f) for f in ("output_dir", "stem", "space", "atlas")})
    return namings


# --- what is measured, each in a process of its own ------------------------------------------


def read_once(folder: Path, namings: list[dict[str, str]]) -> None:
    from brainlm_bids import files
    from brainlm_bids.bids import outputs

    for values in namings:
        files.read_tsv(outputs.Naming(**values).path("denoised"))


def collect(folder: Path, namings: list[dict[str, str]]) -> None:
    from brainlm_bids.interfaces.group import CollectSeries

    CollectSeries(namings=namings, model_tr=0.735, first=None).run(cwd=str(folder))


def pool(folder: Path, n_stores: int) -> None:
    from brainlm_bids.interfaces.group import PoolStatistics

    stores, reports = [], []
    for k in range(n_stores):
        link = folder / f"store_{k:05d}.npy"
        link.unlink(missing_ok=True)
        link.symlink_to(folder / "store.npy")
        stores.append(str(link))
        report = {
            f"sub-{k * TOGETHER + i:06d}_task-rest": {"n_volumes": VOLUMES} for i in range(64)
        }
        path = folder / f"report_{k:05d}.json"
        path.write_text(json.dumps(report))
        reports.append(str(path))
    names = {"output_dir": str(folder), "stem": "group", "space": "x", "atlas": "A424"}
    PoolStatistics(
        naming=names, stores=stores, reports=reports, sidecar={}, configuration="benchmark"
    ).run(cwd=str(folder))


def stacked(folder: Path, n_stores: int) -> None:
    store = np.load(folder / "store.npy")
    np.percentile(np.concatenate([store] * n_stores, axis=1), [25, 50, 75], axis=1)


TASKS = {"read_once": read_once, "collect": collect, "pool": pool, "stacked": stacked}


def measure(task: str, folder: Path, argument: Any) -> tuple[float, float]:
    """Seconds of CPU (others may use the machine), and the process' largest memory in MB."""
    command = [sys.executable, "-m", "benchmarks.cohort", "--task", task, "--folder", str(folder)]
    done = subprocess.run(
        command, input=json.dumps(argument), capture_output=True, text=True, check=True
    )
    seconds, kilobytes = done.stdout.split()[-2:]
    return float(seconds), float(kilobytes) / 1024


def child(task: str, folder: Path) -> None:
    # what a process of the app has imported already
    from brainlm_bids import resources
    from brainlm_bids.cohort import statistics
    from brainlm_bids.interfaces import group
    from brainlm_bids.parcels import sampling

    assert group and statistics and sampling and resources.parcels()
    argument = json.loads(sys.stdin.read())
    started = time.process_time()
    TASKS[task](folder, argument)
    seconds = time.process_time() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def report(folder: Path, n_recordings: int) -> bool:
    """Print the table; whether the limit of memory is kept."""
    namings = write_recordings(folder, TOGETHER)
    n_stores = -(-n_recordings // TOGETHER)
    read = measure("read_once", folder, namings)
    collected = measure("collect", folder, namings)
    tenth = max(1, n_stores // 10)
    pooled_tenth = measure("pool", folder, tenth)
    pooled = measure("pool", folder, n_stores)
    numpy_tenth = measure("stacked", folder, tenth)
    print(f"{n_stores * TOGETHER} recordings of {VOLUMES} × {PARCELS}, {n_stores} stores")
    print("measured                               CPU seconds   peak MB")
    for name, (seconds, megabytes) in (
        (f"reading {TOGETHER} files once", read),
        (f"collecting {TOGETHER} recordings", collected),
        (f"pooling {tenth * TOGETHER} recordings", pooled_tenth),
        (f"numpy, stacked, {tenth * TOGETHER} recordings", numpy_tenth),
        (f"pooling {n_stores * TOGETHER} recordings", pooled),
    ):
        print(f"{name:40} {seconds:8.1f} {megabytes:9.0f}")
    total, reading = collected[0] * n_stores + pooled[0], read[0] * n_stores
    peak = max(collected[1], pooled[1])
    print(f"the whole cohort, one process: {total:.0f} s (collecting × {n_stores}, and pooling)")
    print(f"reading all files once:        {reading:.0f} s; ratio {total / reading:.2f}")
    print(f"pooling against numpy on the stacked array: {pooled_tenth[0] / numpy_tenth[0]:.2f} × ")
    print(f"peak {peak:.0f} MB, limit {LIMIT_MB}: {'kept' if peak <= LIMIT_MB else 'MISSED'}")
    return peak <= LIMIT_MB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--task", choices=sorted(TASKS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task is not None:
        child(given.task, given.folder)
        return 0
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        return 0 if report(Path(folder), given.recordings) else 1


if __name__ == "__main__":
    sys.exit(main())
