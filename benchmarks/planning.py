"""Synthetic raw data sets of any number of subjects, for what planning costs.

    python -m benchmarks.planning FOLDER [--subjects N] [--sessions N]

writes one, if it is not there: per session a T1w image, a run and its single-band reference, each
with its sidecar, and per subject a table of sessions; 3,000 subjects of two sessions are 39,000
files. The images are tiny: planning reads headers and checksums, not what they show.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from brainlm_bids.app.participant import make_plan
from brainlm_bids.app.resources import find_resources, with_precision
from brainlm_bids.bids.inputs import Run, find_runs
from brainlm_bids.bids.outputs import read_record, record_path, write_record
from brainlm_bids.bids.source_files import SourceFiles
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


def main(argv: Sequence[str] | None = None) -> None:
    """Write the data set that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", type=int, default=SUBJECTS)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    given = parser.parse_args(sys.argv[1:] if argv is None else argv)
    print(write_data_set(given.folder, given.subjects, given.sessions))


if __name__ == "__main__":
    main()
