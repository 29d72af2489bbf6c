"""The benign forms: small simulated data sets of every route, which hard inputs are made from."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.phantom import write_phantom

TR, VOLUMES, DUMMIES = 2.0, 60, 2
ATLAS, TEMPLATE = "A424approx", "MNI152NLin2009aSym"
# What every call is given, so that it neither downloads nor embeds.
COMMON = ["--offline", "--atlas", ATLAS, "--template", TEMPLATE, "--model", "none"]
Array = NDArray[Any]


def description(folder: Path, **values: object) -> None:
    """The description of a data set."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"Name": folder.name, "BIDSVersion": "1.8.0", **values}
    (folder / "dataset_description.json").write_text(json.dumps(content))


# --- raw -------------------------------------------------------------------------------------


def raw_dataset(folder: Path, n_subjects: int = 1) -> None:
    """A phantom; the task of its first run is `benign`."""
    raw = folder / "raw"
    write_phantom(
        raw, n_subjects=n_subjects, n_volumes=VOLUMES, tr=TR, voxel=5.0, seed=3, non_steady=False
    )
    for path in sorted(raw.glob("sub-01/func/*_task-rest*")):
        path.rename(path.with_name(path.name.replace("task-rest", "task-benign")))


def benign_bold(folder: Path) -> nb.Nifti1Image:
    """The BOLD of the benign run."""
    return nb.load(next((folder / "raw" / "sub-01" / "func").glob("*task-benign_bold.nii.gz")))


def benign_t1w(folder: Path) -> Path:
    """The T1w image of the first subject."""
    return next((folder / "raw" / "sub-01" / "anat").glob("*_T1w.nii.gz"))


def bold_path(folder: Path, task: str, subject: str = "01") -> Path:
    """Where a raw run lies."""
    func = folder / "raw" / f"sub-{subject}" / "func"
    func.mkdir(parents=True, exist_ok=True)
    return func / f"sub-{subject}_task-{task}_bold.nii.gz"


def add_bold(
    folder: Path,
    task: str,
    image: nb.Nifti1Image | None = None,
    *,
    subject: str = "01",
    sidecar: dict[str, object] | bytes | None = None,
) -> Path:
    """Write a run; by default the benign one with its repetition time."""
    path = bold_path(folder, task, subject)
    (benign_bold(folder) if image is None else image).to_filename(path)
    content = {"TaskName": task, "RepetitionTime": TR} if sidecar is None else sidecar
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.with_name(path.name.replace(".nii.gz", ".json")).write_bytes(text)
    return path


def changed(image: nb.Nifti1Image, data: Array, affine: Array | None = None) -> nb.Nifti1Image:
    """An image with other values, and the header's repetition time."""
    new = nb.Nifti1Image(data, image.affine if affine is None else affine)
    if data.ndim == 4:
        new.header.set_zooms((*image.header.get_zooms()[:3], TR))
    new.header.set_xyzt_units("mm", "sec")
    return new


def values(image: nb.Nifti1Image) -> NDArray[np.float32]:
    """A copy of an image's values."""
    return np.asarray(image.dataobj, dtype=np.float32).copy()


def add_person(folder: Path, label: str, t1w: nb.Nifti1Image | None, *, anat: bool = True) -> None:
    """A subject of its own, with the benign BOLD and another T1w image."""
    add_bold(folder, "benign", subject=label)
    if not anat:
        return
    there = folder / "raw" / f"sub-{label}" / "anat"
    there.mkdir(parents=True, exist_ok=True)
    path = there / f"sub-{label}_T1w.nii.gz"
    if t1w is None:
        shutil.copy(benign_t1w(folder), path)
    else:
        t1w.to_filename(path)


# --- fMRIPrep --------------------------------------------------------------------------------

SPACE = "MNI152NLin6Asym"
SIZE = 6.0


def fmriprep_dataset(folder: Path) -> None:
    """An fMRIPrep folder with one run in template space, and a raw data set without images."""
    description(folder / "raw")
    (folder / "raw" / "sub-01").mkdir()
    made = [{"Name": "fMRIPrep", "Version": "25.1.0"}]
    description(folder / "fmriprep", DatasetType="derivative", GeneratedBy=made)
    add_fmriprep(folder, "benign")


def fmriprep_signal() -> nb.Nifti1Image:
    """A run in template space: smooth activity within an ellipsoid of the brain's size."""
    rng = np.random.default_rng(0)
    shape = tuple(int(n / SIZE) for n in (180, 216, 180))
    affine = np.diag([SIZE, SIZE, SIZE, 1.0])
    affine[:3, 3] = -SIZE * (np.array(shape) - 1) / 2 + [0, -18, 8]
    index = np.argwhere(np.ones(shape, dtype=bool))
    points = index @ affine[:3, :3].T + affine[:3, 3]
    centres = rng.uniform(-60, 60, size=(30, 3))
    courses = np.cumsum(rng.normal(size=(30, VOLUMES)), axis=1)
    maps = np.exp(-((points[:, None] - centres) ** 2).sum(axis=2) / (2 * 18.0**2))
    inside = ((points / [68, 88, 70] - [0, -0.2, 0.1]) ** 2).sum(axis=1) < 1
    data = (1000 + 10 * maps @ courses) * inside[:, None]
    data += rng.normal(0, 2.0, data.shape) * inside[:, None]
    image = nb.Nifti1Image(data.reshape(*shape, VOLUMES).astype(np.float32), affine)
    image.header.set_zooms((SIZE, SIZE, SIZE, TR))
    image.header.set_xyzt_units("mm", "sec")
    return image


def add_fmriprep(
    folder: Path,
    task: str,
    image: nb.Nifti1Image | None = None,
    *,
    confounds: dict[str, Array] | bytes | None = None,
    space: str = SPACE,
    mask: nb.Nifti1Image | bytes | None = None,
) -> Path:
    """Write a run as fMRIPrep would; returns the name that its files begin with."""
    func = folder / "fmriprep" / "sub-01" / "func"
    func.mkdir(parents=True, exist_ok=True)
    stem = func / f"sub-01_task-{task}"
    image = fmriprep_signal() if image is None else image
    name = f"{stem}_space-{space}_desc-preproc_bold" if space else f"{stem}_desc-preproc_bold"
    image.to_filename(f"{name}.nii.gz")
    Path(f"{name}.json").write_text(json.dumps({"RepetitionTime": TR, "TaskName": task}))
    path = Path(name.replace("preproc_bold", "brain_mask") + ".nii.gz")
    if isinstance(mask, bytes):
        path.write_bytes(mask)
    else:
        inside = (values(fmriprep_signal())[..., -1] > 0).astype(np.uint8)
        (nb.Nifti1Image(inside, image.affine) if mask is None else mask).to_filename(path)
    table = Path(f"{stem}_desc-confounds_timeseries.tsv")
    if isinstance(confounds, bytes):
        table.write_bytes(confounds)
    else:
        write_confounds(table, fmriprep_confounds() if confounds is None else confounds)
    return stem


def fmriprep_confounds(n: int = VOLUMES) -> dict[str, Array]:
    """The columns of fMRIPrep's table that are used."""
    rng = np.random.default_rng(1)
    table = {f"trans_{axis}": rng.normal(0, 0.02, n) for axis in "xyz"}
    table |= {f"rot_{axis}": rng.normal(0, 5e-4, n) for axis in "xyz"}
    table |= {name: rng.normal(size=n) for name in ("global_signal", "csf", "white_matter")}
    table["framewise_displacement"] = np.r_[np.nan, rng.uniform(0, 0.2, n - 1)]
    table["std_dvars"] = np.r_[np.nan, rng.uniform(0.9, 1.1, n - 1)]
    return table


def write_confounds(path: Path, table: dict[str, Array]) -> None:
    """A table of confounds; n/a for NaN."""
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(["n/a" if np.isnan(value) else f"{value:.9g}" for value in row])


# --- series ----------------------------------------------------------------------------------

SERIES_TR, SERIES_VOLUMES = 0.735, 120


def names() -> tuple[str, ...]:
    """The names of the parcels of A424."""
    return resources.parcels().names


def series() -> NDArray[np.float64]:
    """(T, 424) a parcel series, each parcel its own mean and scale."""
    rng = np.random.default_rng(5)
    activity = rng.normal(size=(SERIES_VOLUMES, 6)) @ rng.normal(size=(6, 424))
    noise = rng.normal(size=(SERIES_VOLUMES, 424))
    return 1000 + 10 * rng.normal(size=424) + (activity + noise) * rng.uniform(5, 20, 424)


def series_dataset(folder: Path) -> None:
    """A folder for series, with the benign one; its data set has a description."""
    description(folder / "raw")
    (folder / "series").mkdir()
    add_series(folder, "benign", lines(list(names()), series()))


def lines(header: list[str], table: Array, separator: str = "\t") -> bytes:
    """A table as text."""
    rows = [separator.join(header)] if header else []
    rows += [separator.join("n/a" if np.isnan(v) else f"{v:.8g}" for v in row) for row in table]
    return ("\n".join(rows) + "\n").encode()


def add_series(
    folder: Path, label: str, content: bytes, ending: str = ".tsv", tr: object = SERIES_TR
) -> Path:
    """Write a series, and its repetition time beside it."""
    path = folder / "series" / f"sub-{label}_task-rest_timeseries{ending}"
    path.write_bytes(content)
    if tr is not None:
        beside = path.with_name(path.name.removesuffix(ending) + ".json")
        beside.write_text(json.dumps({"RepetitionTime": tr}))
    return path
