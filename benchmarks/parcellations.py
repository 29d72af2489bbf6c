"""What two parcellations beside A424 cost: CPU time of whole calls with and without them.

    python -m benchmarks.parcellations [FOLDER] [--voxel 3] [--volumes 150] [--fmriprep]

A simulated subject is processed with A424 alone and with further parcels: 400 and 1,000, each the
nearest of so many random voxels of the grey matter, on the 2 mm grid, as Schaefer's are. The CPU
seconds of all processes of each call are compared, and those of each step are printed. With
--fmriprep the run comes from fMRIPrep's derivatives, in template space at 2 mm, where the other
steps are the fewest: the ratio is then at its largest.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from scipy.spatial import cKDTree

from brainlm_bids.phantom import write_phantom
from brainlm_bids.resources import approximate_atlas

PARCELS = (400, 1000)
LARGEST = 1.15


def write_parcels(folder: Path, seed: int = 0) -> list[Path]:
    """Images of labels: grey matter split by the nearest of so many of its voxels."""
    labels, affine = approximate_atlas()
    inside = np.argwhere(labels > 0)
    rng = np.random.default_rng(seed)
    paths = []
    for n_parcels in PARCELS:
        centres = inside[rng.choice(len(inside), n_parcels, replace=False)]
        data = np.zeros(labels.shape, np.int16)
        data[tuple(inside.T)] = cKDTree(centres).query(inside)[1] + 1
        path = folder / f"tpl-MNI152NLin6Asym_atlas-Random{n_parcels}_dseg.nii.gz"
        nb.Nifti1Image(data, affine).to_filename(path)
        paths.append(path)
    return paths


def write_fmriprep(folder: Path, n_volumes: int, tr: float = 2.0) -> Path:
    """fMRIPrep's derivatives of one run of noise in template space, at 2 mm."""
    func = folder / "sub-01" / "func"
    func.mkdir(parents=True)
    labels, affine = approximate_atlas()
    mask = labels > 0
    rng = np.random.default_rng(0)
    data = np.zeros((*mask.shape, n_volumes), np.int16)
    data[mask] = rng.normal(1000, 20, (int(mask.sum()), n_volumes))
    stem = "sub-01_task-rest_space-MNI152NLin6Asym_res-2"
    image = nb.Nifti1Image(data, affine)
    image.header.set_zooms((2.0, 2.0, 2.0, tr))
    image.to_filename(func / f"{stem}_desc-preproc_bold.nii.gz")
    nb.Nifti1Image(mask.astype(np.uint8), affine).to_filename(
        func / f"{stem}_desc-brain_mask.nii.gz"
    )
    text = json.dumps({"RepetitionTime": tr, "TaskName": "rest"})
    (func / f"{stem}_desc-preproc_bold.json").write_text(text)
    names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "framewise_displacement")
    with (func / "sub-01_task-rest_desc-confounds_timeseries.tsv").open("w") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerow(names)
        writer.writerows(np.abs(rng.normal(0, 1e-3, (n_volumes, len(names)))).tolist())
    made = {"Name": "x", "BIDSVersion": "1.8.0", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    (folder / "dataset_description.json").write_text(json.dumps(made))
    return folder


def call(bids: Path, folder: Path, *flags: str) -> float:
    """CPU seconds of a call of the participant level."""
    command = [sys.executable, "-m", "brainlm_bids", str(bids), str(folder / "out"), "participant"]
    command += ["-w", str(folder / "work"), "--offline", "--model", "none", "--nprocs", "1"]
    command += ["--atlas", "A424approx", "--template", "MNI152NLin2009aSym", *flags]
    # in one process, whose time is all that there is
    plugin = folder.with_suffix(".yml")
    plugin.write_text("plugin: Linear\n")
    command += ["--use-plugin", str(plugin)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {key: value for key, value in os.environ.items() if key != "TEMPLATEFLOW_HOME"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_of_steps(work: Path) -> dict[str, float]:
    """Seconds of the nodes of a call, by their names."""
    return {
        path.parent.name: json.loads(path.read_text())["seconds"]
        for path in sorted(work.rglob("resources.json"))
    }


def main(folder: Path, options: Any) -> int:
    """Measure, print, and return 1 if two parcellations cost more than they may."""
    bids = folder / "bids"
    flags: list[str] = []
    if options.fmriprep:
        (bids / "sub-01").mkdir(parents=True)
        (bids / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
        flags = ["-d", f"fmriprep={write_fmriprep(folder / 'fmriprep', options.volumes)}"]
    else:
        write_phantom(bids, n_subjects=1, n_volumes=options.volumes, tr=2.0, voxel=options.voxel)
    parcels = [str(path) for path in write_parcels(folder)]
    more = ["--parcellation", *parcels]
    alone = call(bids, folder / "alone", *flags)
    both = call(bids, folder / "both", *flags, *more)
    steps = [seconds_of_steps(folder / name / "work") for name in ("alone", "both")]
    for name in steps[1]:
        print(f"{name}\t{steps[0].get(name, 0.0):.2f} s\t{steps[1][name]:.2f} s")
    ratio = both / alone
    print(f"A424 alone: {alone:.1f} CPU s; with two parcellations: {both:.1f} CPU s; {ratio:.3f}")
    return int(ratio > LARGEST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--voxel", type=float, default=3.0)
    parser.add_argument("--volumes", type=int, default=150)
    parser.add_argument("--fmriprep", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(given.folder or Path(temporary), given))
