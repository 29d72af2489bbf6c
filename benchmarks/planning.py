"""Planning of large data sets: synthetic ones, what planning them costs, and peers beside it.

    python -m benchmarks.planning write FOLDER [--subjects N] [--sessions N]
    python -m benchmarks.planning complete BIDS OUT --like OUT [options of brainlm-bids]
    python -m benchmarks.planning compare FOLDER

`write` makes a raw data set, if it is not there: per session a T1w image, a run and its single-band
reference, each with its sidecar, and per subject a table of sessions; 3,000 subjects of two
sessions are 39,000 files. The images are tiny: planning reads headers and checksums, not what they
show. `complete` makes all of its runs complete, with files copied from a recording of another
output folder, so that a call can be timed that resumes. `compare` lists the runs of a data set with
our scan, with a full index of PyBIDS, and with bids2table (if it is installed), each in a process
of its own: CPU seconds of the process, and its growth in memory.
"""

import argparse
import gzip
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.process import measured
from brainlm_bids.app.planning import make_plan
from brainlm_bids.app.resources import find_resources, with_precision
from brainlm_bids.bids.inputs import find_runs
from brainlm_bids.bids.outputs import read_record, record_path, write_record
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.commands.bids_app import parse
from brainlm_bids.settings import Settings

SUBJECTS, SESSIONS = 3000, 2
TR = 2.0
SMALL = 20_000  # bytes of a file of outputs that is copied whole
RUN = {
    "RepetitionTime": TR,
    "TaskName": "rest",
    "EchoTime": 0.03,
    "PhaseEncodingDirection": "j-",
    "TotalReadoutTime": 0.05,
}


def write_data_set(root: Path, subjects: int = SUBJECTS, sessions: int = SESSIONS) -> Path:
    """Write a data set, if it is not there; images differ between runs, as real ones do."""
    if (root / "dataset_description.json").exists():
        return root
    bold, sbref = _image((10, 10, 10, 24), 9.0), _image((10, 10, 10), 9.0)
    t1w = _image((20, 20, 20), 9.0)
    for subject, session in _pairs(subjects, sessions):
        stem, label = f"{subject}_{session}", f"{subject}{session}".encode()
        folder = root / subject / session
        _write(folder / "anat", f"{stem}_T1w", t1w, label, {"EchoTime": 0.003})
        _write(folder / "func", f"{stem}_task-rest_bold", bold, label, RUN)
        _write(folder / "func", f"{stem}_task-rest_sbref", sbref, label, RUN)
    for number in range(subjects):
        subject = f"sub-{number:05d}"
        lines = ["session_id", *(f"ses-{k + 1}" for k in range(sessions))]
        (root / subject / f"{subject}_sessions.tsv").write_text("\n".join(lines) + "\n")
    description = {"Name": "synthetic", "BIDSVersion": "1.10.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


def _pairs(subjects: int, sessions: int) -> Iterator[tuple[str, str]]:
    for number in range(subjects):
        for k in range(sessions):
            yield f"sub-{number:05d}", f"ses-{k + 1}"


def _write(folder: Path, stem: str, image: bytes, label: bytes, sidecar: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # the label is the comment of the header (descrip), which makes the sums differ
    content = image[:148] + label.ljust(80, b"\0")[:80] + image[228:]
    (folder / f"{stem}.nii.gz").write_bytes(gzip.compress(content, 1, mtime=0))
    (folder / f"{stem}.json").write_text(json.dumps(sidecar))


def _image(shape: tuple[int, ...], voxel_mm: float) -> bytes:
    """A NIfTI file of zeros, which is where a head is."""
    import nibabel as nb

    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = -voxel_mm * (np.array(shape[:3]) - 1) / 2
    image = nb.Nifti1Image(np.zeros(shape, np.int16), affine)
    image.header.set_zooms((voxel_mm,) * 3 + (TR,) * (len(shape) - 3))
    image.header.set_xyzt_units("mm", "sec")
    return image.to_bytes()


def write_outputs(settings: Settings, like: Path) -> int:
    """Make every run of a call complete; returns how many there are.

    Parameters
    ----------
    settings
        Of the call.
    like
        An output folder of the same atlas, template and models, one of whose recordings is copied:
        small files as they are, and of others the beginning.
    """
    resources = find_resources(settings)
    settings = with_precision(settings, resources)
    sources = SourceFiles()
    records = sorted((like / "logs" / "records").glob("sub-*_series.json"))
    template = records[0].name.removesuffix("_series.json")
    runs = find_runs(settings, sources)
    for run in runs:
        plan = make_plan(settings, run, resources, sources)
        for stage in plan.stages.pending:
            recorded = read_record(like, template, stage.stage.name)
            if recorded is None:
                raise SystemExit(f"{like}: has no {record_path(like, template, stage.stage.name)}")
            made = [_copy(like, name, template, run, settings.output_dir) for name in recorded[1]]
            write_record(settings.output_dir, *stage.stage, stage.configuration, made)
        sources.note(run.stem, run.inputs)
    return len(runs)


def _copy(like: Path, name: str, template: str, run: Run, out: Path) -> Path:
    source = like / name
    session = f"ses-{run.session}" if source.parent.name == "func" else ""
    target = out / f"sub-{run.subject}" / session / source.parent.name
    target.mkdir(parents=True, exist_ok=True)
    path = target / source.name.replace(template, run.stem)
    content = source.read_bytes()
    path.write_bytes(content if len(content) < SMALL else content[:100])
    return path


# --- peers -----------------------------------------------------------------------------------


def _ours(root: Path) -> Iterator[int | None]:
    """Our scan: the runs, and the images beside them; nothing of their content."""
    from brainlm_bids.bids.layout import find_files

    settings = Settings(root, root.parent / "none", root.parent / "none")
    yield None
    yield len(find_files(settings).bold)


def _whole(root: Path) -> Iterator[int | None]:
    """All that is done before a run is planned: sidecars, headers, choice of images."""
    settings = Settings(root, root.parent / "none", root.parent / "none")
    yield None
    yield len(find_runs(settings))


def _pybids(root: Path) -> Iterator[int | None]:
    from bids import BIDSLayout, BIDSLayoutIndexer

    yield None
    indexer = BIDSLayoutIndexer(validate=True, index_metadata=False)
    layout = BIDSLayout(root, indexer=indexer)
    yield len(layout.get(suffix="bold", extension=".nii.gz", return_type="filename"))


def _bids2table(root: Path) -> Iterator[int | None]:
    import bids2table

    yield None
    table = bids2table.index_dataset(root)
    suffixes = zip(table["suffix"].to_pylist(), table["ext"].to_pylist(), strict=True)
    yield sum(pair == ("bold", ".nii.gz") for pair in suffixes)


def compare(root: Path) -> str:
    """Markdown: CPU seconds and memory of each way to list the runs of a data set."""
    ways: dict[str, Callable[[Path], Iterator[int | None]]] = {
        "brainlm-bids, scan": _ours,
        "brainlm-bids, with sidecars and headers": _whole,
        "PyBIDS, without sidecars": _pybids,
    }
    if importlib.util.find_spec("bids2table") is not None:
        ways["bids2table"] = _bids2table
    lines = ["| | runs | CPU time, s | ratio | memory, MB |", "|---|---:|---:|---:|---:|"]
    first = 0.0
    for name, way in ways.items():
        seconds, memory, runs = measured(way, root)
        first = first or seconds
        ratio = seconds / first
        lines.append(f"| {name} | {runs:,} | {seconds:.1f} | {ratio:.1f} | {1024 * memory:.0f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the first argument says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("write", "compare", "complete"):
        commands.add_parser(name).add_argument("folder", type=Path)
    write, complete = commands.choices["write"], commands.choices["complete"]
    write.add_argument("--subjects", type=int, default=SUBJECTS)
    write.add_argument("--sessions", type=int, default=SESSIONS)
    complete.add_argument("out", type=Path)
    complete.add_argument("--like", type=Path, required=True)
    given, more = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    if given.command == "write":
        print(write_data_set(given.folder, given.subjects, given.sessions))
    elif given.command == "compare":
        print(compare(given.folder))
    else:
        settings = parse([str(given.folder), str(given.out), "participant", *more])
        print(f"{write_outputs(settings, given.like)} runs are complete")


if __name__ == "__main__":
    main()
