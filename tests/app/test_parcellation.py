"""Parcellations beside A424: known signals in labels, files in OUT, a finished cohort extended."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from numpy.typing import NDArray

from brainlm_bids.app.parcellations import find_parcellations
from brainlm_bids.bids.derivatives import find_derivatives
from brainlm_bids.bids.recordings import find_recordings
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_matrix, read_rows, read_tsv
from brainlm_bids.preproc.denoising.temporal import highpass_matrix
from brainlm_bids.settings import Settings

VOLUMES, TR, SIZE = 30, 2.0, 4.0
SPACE = "MNI152NLin6Asym"
STEM = "sub-01_task-rest"
SHAPE = (45, 54, 45)
AFFINE = np.array([[SIZE, 0, 0, -88], [0, SIZE, 0, -124], [0, 0, SIZE, -70], [0, 0, 0, 1.0]])
# label -> the corner of its block of 5 × 5 × 5 voxels of 4 mm, within A424's brain
BLOCKS = {3: (10, 20, 20), 40: (25, 20, 20), 700: (10, 30, 25), 1200: (25, 30, 25)}
EDGE = 5
Array = NDArray[np.float64]


def _courses() -> dict[int, Array]:
    rng = np.random.default_rng(7)
    return {label: 30 * rng.normal(size=VOLUMES) for label in BLOCKS}


def _block(label: int) -> tuple[slice, ...]:
    return tuple(slice(corner, corner + EDGE) for corner in BLOCKS[label])


def _labels(labels: Sequence[int] = tuple(BLOCKS)) -> Array:
    """Labels on the grid of the BOLD, whose blocks are filled by them whole."""
    data = np.zeros(SHAPE)
    for label in labels:
        data[_block(label)] = label
    return data


def _save_labels(path: Path, data: Array, affine: Array = AFFINE, kind: type = np.int32) -> Path:
    nb.Nifti1Image(data.astype(kind), affine).to_filename(path)
    return path


def _fmriprep(root: Path) -> Path:
    """Derivatives of one run in template space: a smooth brain, and a course in each block."""
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    rng = np.random.default_rng(1)
    centre = np.indices(SHAPE).reshape(3, -1).T @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    inside = (((centre - [0, -18, 8]) / [75, 95, 75]) ** 2).sum(axis=1).reshape(SHAPE) < 1
    data = 1000 + rng.normal(0, 5, (*SHAPE, VOLUMES))
    for label, course in _courses().items():
        data[_block(label)] = 1000 + course
    data[~inside] = 0
    name = f"{STEM}_space-{SPACE}"
    image = nb.Nifti1Image(data.astype(np.float32), AFFINE)
    image.header.set_zooms((SIZE, SIZE, SIZE, TR))
    image.to_filename(func / f"{name}_desc-preproc_bold.nii.gz")
    sidecar = {"RepetitionTime": TR, "TaskName": "rest"}
    (func / f"{name}_desc-preproc_bold.json").write_text(json.dumps(sidecar))
    _save_labels(func / f"{name}_desc-brain_mask.nii.gz", inside.astype(float), kind=np.uint8)
    table = {n: rng.normal(0, 0.01, VOLUMES) for n in ("trans_x", "trans_y", "trans_z")}
    table |= {n: rng.normal(0, 1e-4, VOLUMES) for n in ("rot_x", "rot_y", "rot_z")}
    table["framewise_displacement"] = np.r_[np.nan, rng.uniform(0, 0.2, VOLUMES - 1)]
    with (func / f"{STEM}_desc-confounds_timeseries.tsv").open("w") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(["n/a" if np.isnan(v) else f"{v:.9g}" for v in row])
    made = [{"Name": "fMRIPrep", "Version": "25.1.0"}]
    description = {"Name": "x", "BIDSVersion": "1.8.0", "GeneratedBy": made}
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


def _call(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    raw = folder / "raw"
    (raw / "sub-01").mkdir(parents=True, exist_ok=True)
    (raw / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.8.0"}')
    command = [sys.executable, "-m", "brainlm_bids", str(raw), str(folder / "out"), "participant"]
    command += ["-d", f"fmriprep={folder / 'fmriprep'}", "-w", str(folder / "work"), "--offline"]
    command += ["--atlas", "A424approx", "--model", "none", "--denoise", "none", *flags]
    environment = {k: v for k, v in os.environ.items() if k != "TEMPLATEFLOW_HOME"}
    command += ["--nprocs", "1"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _files(out: Path, *parts: str) -> dict[str, bytes]:
    found = (path for path in (out / "sub-01").rglob("*") if path.is_file())
    return {
        path.name: path.read_bytes() for path in found if any(part in path.name for part in parts)
    }


def _steps(folder: Path) -> dict[str, int]:
    """When each step of the run ended."""
    found = (folder / "work").rglob("resources.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with A424 and one parcellation, then a second parcellation added to it."""
    folder = tmp_path_factory.mktemp("parcellation")
    _fmriprep(folder / "fmriprep")
    blocks = _save_labels(folder / "Blocks_dseg.nii.gz", _labels(), kind=np.float32)
    # one block beyond the field of view, one parcel in the table alone
    first = folder / "First_dseg.tsv"
    first.write_text("index\tname\n0\tbackground\n40\tforty\n3\tthree\n41\tnowhere\n")
    data = _labels([3, 40])
    data[0, 0, :4] = 9
    _save_labels(folder / "First_dseg.nii.gz", data)
    done = _call(folder, "--parcellation", f"{blocks}:Blocks")
    assert done.returncode == 0, done.stderr[-3000:]
    before, steps = _files(folder / "out", ""), _steps(folder)
    second = str(folder / "First_dseg.nii.gz")
    done = _call(folder, "--parcellation", f"{blocks}:Blocks", "--parcellation", second)
    assert done.returncode == 0, done.stderr[-3000:]
    after = _files(folder / "out", "")
    assert all(_steps(folder)[name] == steps[name] for name in ("take", "decompose"))
    assert {name: after[name] for name in before} == before
    added = {name for name in after if name not in before}
    assert len(added) == 6 and all("_atlas-First_" in name for name in added)
    return folder


def test_series_are_those_of_the_blocks(finished: Path) -> None:
    naming = find_recordings(finished / "out", atlas="Blocks")[0].naming
    names, series = read_tsv(naming.path("denoised"))
    assert names == [f"Blocks_{label}" for label in sorted(BLOCKS)]
    highpass = highpass_matrix(VOLUMES, TR, 100.0)
    for column, course in zip(series.T, (_courses()[label] for label in sorted(BLOCKS))):
        wanted = highpass @ (course - course.mean())
        assert np.corrcoef(column, wanted)[0, 1] > 0.9999
    coverage = read_rows(naming.path("coverage"))
    assert [row["fraction"] for row in coverage] == ["1"] * 4
    assert [int(row["index"]) for row in coverage] == sorted(BLOCKS)
    assert np.allclose(read_matrix(naming.path("pearson"))[1], np.corrcoef(series.T), atol=1e-5)


def test_what_is_not_in_view_is_na_and_told(finished: Path) -> None:
    naming = find_recordings(finished / "out", atlas="First")[0].naming
    names, series = read_tsv(naming.path("denoised"))
    assert names == ["three", "First_9", "forty", "nowhere"]
    assert np.isnan(series).all(axis=0).tolist() == [False, True, False, True]
    said = read_json(naming.path("denoised", extension=".json"))
    assert said["MissingParcels"] == {"First_9": 0.0, "nowhere": 0.0}
    assert said["Atlas"]["Name"] == "First" and said["Atlas"]["Space"] == SPACE
    texts = [one["Text"] for one in said["Warnings"]]
    assert any("tells no space" in text for text in texts)
    assert any("have no voxel" in text for text in texts)
    assert any("have no name" in text for text in texts)
    assert not any("A424approx" in text for text in texts)


def test_whoever_asks_for_no_atlas_gets_a424(finished: Path) -> None:
    out = finished / "out"
    assert [one.naming.atlas for one in find_recordings(out)] == ["A424approx"]
    labels = {one.naming.atlas for one in find_derivatives(out, ["denoised"])}
    assert labels == {"A424approx", "Blocks", "First"}
    page = (out / "sub-01.html").read_text()
    assert "Blocks in MNI152NLin6Asym" in page and "424" in page


def test_the_parcellations_are_stored_and_all_is_valid_bids(finished: Path) -> None:
    out = finished / "out"
    folder = out / f"tpl-{SPACE}"
    stored = nb.load(folder / f"tpl-{SPACE}_atlas-First_dseg.nii.gz")
    assert sorted(np.unique(np.asarray(stored.dataobj))) == [0, 3, 9, 40]
    rows = read_rows(folder / f"tpl-{SPACE}_atlas-First_dseg.tsv")
    assert [(row["index"], row["name"]) for row in rows][:2] == [
        ("3", "three"),
        ("9", "First_9"),
    ]
    validator = Path(sys.executable).with_name("bids-validator-deno")
    command = [str(validator), str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [one for one in issues if one["severity"] == "error"] == []


def test_a_second_file_of_the_same_label_is_refused(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEMPLATEFLOW_HOME", raising=False)
    monkeypatch.setenv("HOME", str(finished))
    other = _save_labels(finished / "other.nii.gz", _labels([3]))
    for names, said in (
        ((f"{other}:Blocks",), "another parcellation called Blocks"),
        ((f"{other}:New", f"{finished / 'Blocks_dseg.nii.gz'}:new"), "would have the same names"),
        (("Schaefer100x7",), "--offline forbids a download"),
    ):
        settings = Settings(
            finished / "raw", finished / "out", finished / "work", offline=True, parcellation=names
        )
        with pytest.raises(UserError, match=said) as error:
            find_parcellations(settings, SPACE)
        assert str(error.value).startswith("--parcellation ") and "\n" not in str(error.value)
