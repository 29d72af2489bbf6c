"""What is found in the headers of BOLD and T1w images before a run is planned."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.bids.anatomy import Anatomy
from brainlm_bids.bids.headers import look_at_cifti, look_at_image, look_at_t1w
from brainlm_bids.bids.inputs import find_runs
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.runs import Run
from brainlm_bids.settings import Settings

SIZES = (9.0, 9.0, 9.0)
BOLD = (10, 10, 10, 30)


def _image(
    shape: tuple[int, ...] = BOLD, dtype: object = np.int16, tr: float = 2.0, unit: str = "sec"
) -> nb.Nifti1Image:
    image = nb.Nifti1Image(np.zeros(shape, dtype), np.diag([*SIZES, 1.0]))
    image.header.set_xyzt_units("mm", unit)
    if len(shape) == 4:
        image.header.set_zooms((*SIZES, tr))
    return image


def _saved(image: nb.Nifti1Image, path: Path, change: Callable[..., None] | None = None) -> Path:
    """The image in a file, with a header that is changed after nibabel has made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if change is not None:
        header = image.header.copy()
        change(header)
        image = nb.Nifti1Image(image.dataobj, None, header)
    image.to_filename(path)
    return path


def _no_codes(header: nb.Nifti1Header) -> None:
    header["sform_code"] = header["qform_code"] = 0


def _mirrored_qform(header: nb.Nifti1Header) -> None:
    header.set_qform(np.diag([-9.0, 9, 9, 1]), 1)


def _shifted_qform(header: nb.Nifti1Header) -> None:
    shifted = np.diag([*SIZES, 1.0])
    shifted[1, 3] = 4
    header.set_qform(shifted, 1)


def _no_rotation(header: nb.Nifti1Header) -> None:
    header["sform_code"], header["qform_code"] = 0, 1
    header["quatern_b"] = header["quatern_c"] = 0.9


def _flat(header: nb.Nifti1Header) -> None:
    header["srow_z"] = 0


def _tiny(header: nb.Nifti1Header) -> None:
    for row in "xyz":
        header[f"srow_{row}"] /= 100


@pytest.mark.parametrize(
    ("image", "change", "line"),
    [
        (_image(dtype=np.complex64), None, "its values are complex; give their magnitude"),
        (_image(dtype=np.dtype([(c, "u1") for c in "RGB"])), None, "colours"),
        (_image((10, 10, 10)), None, "is 3-D"),
        (_image((10, 10, 10, 30, 2)), None, "is 5-D"),
        (_image((10, 10, 1, 30)), None, "too small for a brain"),
        (_image(), _no_codes, "--assume-orientation LAS"),
        (_image(), _no_rotation, ""),
        (_image(), _flat, "singular"),
        (_image(), _tiny, "0.09 × 0.09 × 0.09 mm are not those of an MRI scan"),
    ],
)
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_bold_that_is_refused(
    tmp_path: Path,
    image: nb.Nifti1Image,
    change: Callable[..., None] | None,
    line: str,
    extension: str,
) -> None:
    path = _saved(image, tmp_path / f"sub-1_task-x_bold{extension}", change)
    look = look_at_image(path, 2.0)
    assert look.problem is not None
    assert look.problem.startswith(path.name)
    assert line in look.problem
    assert "\n" not in look.problem


@pytest.mark.parametrize(
    ("image", "change", "kinds"),
    [
        (_image(), None, []),
        (_image((10, 10, 10, 1, 30)), None, []),
        (_image((10, 10, 10, 30, 1)), None, []),
        (_image(dtype=np.uint8), None, []),
        (_image(dtype=np.float64), None, []),
        (_image(), _shifted_qform, ["affines_disagree"]),
        (_image(), _mirrored_qform, ["orientation_contradicted"]),
        (_image(tr=2000.0), None, []),
        (_image(tr=2000.0, unit="msec"), None, []),
        (_image(tr=1.0, unit="unknown"), None, []),
        (_image(tr=0.0), None, []),
        (_image(tr=0.8), None, ["tr_mismatch"]),
    ],
)
def test_bold_that_is_understood(
    tmp_path: Path,
    image: nb.Nifti1Image,
    change: Callable[..., None] | None,
    kinds: list[str],
) -> None:
    look = look_at_image(_saved(image, tmp_path / "sub-1_task-x_bold.nii", change), 2.0)
    assert (look.problem, look.skip) == (None, None)
    assert [one.kind for one in look.warnings] == kinds


def test_fmriprep_images_need_their_own_orientation(tmp_path: Path) -> None:
    path = _saved(_image(), tmp_path / "bold.nii", _no_codes)
    problem = look_at_image(path, 2.0, raw=False).problem
    assert problem is not None
    assert "--assume-orientation" not in problem
    assert "correct the header" in problem


@pytest.mark.parametrize(
    ("shape", "dtype", "line"),
    [
        ((10, 10, 10), np.int16, None),
        ((10, 10, 10), np.uint8, None),
        ((10, 10, 10, 1), np.float32, None),
        ((10, 10, 10, 4), np.float32, "holds 4 volumes, not one T1w image"),
        ((10, 10, 3), np.int16, "does not hold a whole brain"),
        ((10, 10), np.int16, "2-D"),
        ((10, 10, 10), np.complex64, "complex"),
    ],
)
def test_t1w_images(
    tmp_path: Path, shape: tuple[int, ...], dtype: object, line: str | None
) -> None:
    problem = look_at_t1w(_saved(_image(shape, dtype), tmp_path / "T1w.nii")).problem
    assert problem is None if line is None else line in (problem or "")


def test_what_is_wrong_with_t1w_images_is_known_of_the_run(tmp_path: Path) -> None:
    several = _saved(_image((10, 10, 10, 4)), tmp_path / "sub-1_run-1_T1w.nii")
    flipped = _saved(_image((10, 10, 10)), tmp_path / "sub-1_run-2_T1w.nii", _mirrored_qform)
    run = parse("sub-1_task-x_bold.nii")
    alone = Anatomy([several], tmp_path, fallback=False).of(run)
    assert (alone.problem or "").startswith("sub-1_run-1_T1w.nii: holds 4 volumes")
    assert Anatomy([several], tmp_path, fallback=True).of(run).problem is None
    found = Anatomy([several, flipped], tmp_path, fallback=False).of(run)
    assert (found.path, found.problem) == (flipped, None)
    assert [one.kind for one in found.warnings] == ["t1w_damaged", "orientation_contradicted"]
    unknown = _saved(_image((10, 10, 10)), tmp_path / "sub-1_T1w.nii", _no_codes)
    assert "--assume-orientation" in (
        Anatomy([unknown], tmp_path, fallback=False).of(run).problem or ""
    )
    assumed = Anatomy([unknown], tmp_path, fallback=False, orientation="RAS").of(run)
    assert [one.kind for one in assumed.warnings] == ["orientation_assumed"]


def _data_set(root: Path, **settings: object) -> Run:
    (root / "bids").mkdir()
    description = {"Name": "x", "BIDSVersion": "1.10.0"}
    (root / "bids/dataset_description.json").write_text(json.dumps(description))
    stem = root / "bids/sub-01/func/sub-01_task-rest_bold"
    _saved(_image(), stem.with_suffix(".nii.gz"), _no_codes)
    values = {"RepetitionTime": 2.0, "TaskName": "rest"}
    stem.with_suffix(".json").write_text(json.dumps(values))
    (run,) = find_runs(Settings(root / "bids", root / "out", **settings))  # type: ignore[arg-type]
    return run


def test_an_orientation_that_the_user_gives_is_used_and_recorded(tmp_path: Path) -> None:
    run = _data_set(tmp_path, assume_orientation="LPS")
    assert run.problem is None
    assert [one.kind for one in run.warnings] == ["orientation_assumed"]
    assert "LPS is assumed" in run.warnings[0].text


def test_a_run_without_orientation_fails_with_a_way_on(tmp_path: Path) -> None:
    assert "--assume-orientation" in (_data_set(tmp_path).problem or "")


def _cifti(path: Path, n_volumes: int, step: float) -> Path:
    model = nb.cifti2.BrainModelAxis.from_surface([0, 1, 2], 4, "CORTEX_LEFT")
    axes = (nb.cifti2.SeriesAxis(0, step, n_volumes), model)
    nb.Cifti2Image(np.zeros((n_volumes, 3), np.float32), axes).to_filename(path)
    return path


def test_cifti_gets_the_same_looks(tmp_path: Path) -> None:
    name = "sub-1_space-fsLR_den-91k_bold.dtseries.nii"
    assert look_at_cifti(_cifti(tmp_path / name, 30, 2.0), 2.0) == (None, None, ())
    (warning,) = look_at_cifti(_cifti(tmp_path / name, 30, 1.0), 2.0).warnings
    assert warning.kind == "tr_mismatch"
    assert "10 volumes" in (look_at_cifti(_cifti(tmp_path / name, 10, 2.0), 2.0).skip or "")
    (tmp_path / name).write_bytes(b"no image")
    assert "cannot be read" in (look_at_cifti(tmp_path / name, 2.0).problem or "")
    _image().to_filename(tmp_path / "bold.nii")
    assert "not a CIFTI series" in (look_at_cifti(tmp_path / "bold.nii", 2.0).problem or "")
