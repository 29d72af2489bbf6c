"""Lesion masks beside a T1w image: which are used, and the line about those that are not."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brainlm_bids.bids.anatomy import Anatomy
from brainlm_bids.bids.lesions import Lesions, lesions_of
from brainlm_bids.bids.names import parse

SHAPE, AFFINE = (20, 22, 20), np.diag([8.0, 8.0, 8.0, 1.0])
T1W = "sub-01_ses-a_acq-mprage_run-1_T1w.nii.gz"


def _save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def _ball() -> np.ndarray:
    data = np.zeros(SHAPE, np.uint8)
    data[8:11, 8:11, 8:11] = 1
    return data


@pytest.fixture
def t1w(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    return _save(tmp_path / "sub-01/ses-a/anat" / T1W, rng.normal(100, 5, SHAPE).astype(np.int16))


def _found(t1w: Path, root: Path) -> Lesions:
    return lesions_of(t1w, root)


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-a_label-lesion_mask.nii.gz",
        "sub-01_ses-a_acq-mprage_label-lesion_roi.nii.gz",
        "sub-01_ses-a_T1w_label-lesion_roi.nii.gz",
        "sub-01_ses-a_acq-mprage_run-1_T1w_label-lesion_roi.nii",
        "sub-01_ses-a_run-01_desc-lesion_mask.nii.gz",
        "sub-01_ses-a_space-orig_label-L_desc-T1lesion_mask.nii.gz",
    ],
)
def test_masks_of_the_image_are_found_by_any_of_their_names(
    t1w: Path, tmp_path: Path, name: str
) -> None:
    path = _save(t1w.parent / name, _ball())
    assert _found(t1w, tmp_path) == Lesions((path,), ())


def test_other_masks_are_none(t1w: Path, tmp_path: Path) -> None:
    for name in ("desc-brain_mask", "label-GM_mask", "desc-perilesion_mask", "desc-lesion_T1w"):
        _save(t1w.parent / f"sub-01_ses-a_{name}.nii.gz", _ball())
    assert _found(t1w, tmp_path) == Lesions()


def test_two_masks_and_one_of_derivatives_make_one_lesion(t1w: Path, tmp_path: Path) -> None:
    left = _save(t1w.parent / "sub-01_ses-a_label-lesion1_mask.nii.gz", _ball())
    right = _save(t1w.parent / "sub-01_ses-a_label-lesion2_mask.nii.gz", _ball())
    folder = tmp_path / "derivatives/lesion_masks/sub-01/ses-a/anat"
    third = _save(folder / "sub-01_ses-a_label-lesion_mask.nii.gz", _ball())
    # what this program or fMRIPrep writes elsewhere is not looked at
    _save(tmp_path / "derivatives/other/sub-01/ses-a/anat" / third.name, _ball())
    assert set(_found(t1w, tmp_path).paths) == {left, right, third}


@pytest.mark.parametrize(
    ("name", "data", "affine", "line"),
    [
        ("label-lesion", np.zeros(SHAPE, np.uint8), AFFINE, "the mask is empty"),
        ("label-lesion", np.ones(SHAPE, np.uint8), AFFINE, "the mask marks 100 % of its image"),
        ("label-lesion", 1 - _ball(), AFFINE, "are lesion and the rest exchanged?"),
        ("label-lesion", np.full(SHAPE, np.nan, np.float32), AFFINE, "the mask is empty"),
        ("label-lesion", np.stack([_ball()] * 2, -1), AFFINE, "is 4-D"),
        (
            *("label-lesion", _ball()),
            np.array([[8.0, 0, 0, 900], [0, 8, 0, 0], [0, 0, 8, 0], [0, 0, 0, 1]]),
            "lies outside of",
        ),
        ("space-MNI152NLin6Asym_label-lesion", _ball(), AFFINE, "not in that of the T1w image"),
        ("run-2_label-lesion", _ball(), AFFINE, f"not a mask of the T1w image that is used, {T1W}"),
    ],
)
def test_masks_that_cannot_be_used_are_named_in_one_line(
    t1w: Path, tmp_path: Path, name: str, data: np.ndarray, affine: np.ndarray, line: str
) -> None:
    path = _save(t1w.parent / f"sub-01_ses-a_{name}_mask.nii.gz", data, affine)
    found = _found(t1w, tmp_path)
    assert found.paths == ()
    (warning,) = found.warnings
    assert (warning.kind, warning.level) == ("lesion_mask_unused", "warning")
    assert path.name in warning.text and line in warning.text and "\n" not in warning.text


def test_a_damaged_mask_and_one_of_another_session_do_not_stop_the_run(
    t1w: Path, tmp_path: Path
) -> None:
    whole = _save(t1w.parent / "sub-01_ses-a_label-lesion_mask.nii.gz", _ball())
    whole.write_bytes(whole.read_bytes()[:-40])
    (whole.parent / "sub-01_ses-a_label-lesion_roi.nii.gz").write_bytes(b"")
    _save(tmp_path / "sub-01/ses-b/anat/sub-01_ses-b_label-lesion_mask.nii.gz", _ball())
    found = Anatomy([t1w], tmp_path, fallback=False).of(parse("sub-01_ses-a_task-x_bold.nii.gz"))
    assert (found.path, found.problem, found.lesions) == (t1w, None, ())
    assert [one.kind for one in found.warnings] == ["lesion_mask_unused"] * 3


def test_a_mask_on_another_grid_is_used_by_its_place(t1w: Path, tmp_path: Path) -> None:
    fine = np.zeros((40, 44, 40), np.float32)
    fine[16:22, 16:22, 16:22] = 0.9
    affine = np.diag([-4.0, 4.0, 4.0, 1.0])
    affine[0, 3] = 156
    path = _save(t1w.parent / "sub-01_ses-a_label-lesion_mask.nii.gz", fine, affine)
    assert _found(t1w, tmp_path).paths == (path,)
