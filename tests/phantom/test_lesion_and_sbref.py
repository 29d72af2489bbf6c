"""Lesion and single-band reference of the phantom: each changes what it is about alone."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from brainlm_bids.phantom import write_phantom
from brainlm_bids.phantom.acquisition import SWITCHES
from brainlm_bids.phantom.head import subject_warp
from brainlm_bids.phantom.lesion import LEVEL, drawn_lesion, with_lesion
from brainlm_bids.phantom.scene import GREY_LEVEL, NOISE, SINGLE_BAND_NOISE

SMALL = {"n_subjects": 1, "n_volumes": 6, "voxel": 7.0, "motion": "none", "seed": 4}
ON = {"thermal_noise", "coil_shading", "non_steady"}
SWITCHED = {name: name in ON for name in SWITCHES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "data"
    return write_phantom(folder, **SMALL, **SWITCHED, distortion=8.0)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "data"
    return write_phantom(folder, **SMALL, **SWITCHED, distortion=8.0, sbref=True, lesion=True)


def data_of(folder: Path, pattern: str) -> np.ndarray:
    return nib.Nifti1Image.from_filename(next(folder.rglob(pattern))).get_fdata()


def test_nothing_else_changes(whole: Path, damaged: Path) -> None:
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    changed = {str(f) for f in files if (whole / f).read_bytes() != (damaged / f).read_bytes()}
    assert changed == {"README.md", "sub-01/anat/sub-01_T1w.nii.gz"}
    new = {str(path.relative_to(damaged)) for path in damaged.rglob("*") if path.is_file()}
    assert new - {str(f) for f in files} == {
        ".bidsignore",
        *(f"sub-01/anat/sub-01_label-lesion_mask{end}" for end in (".nii.gz", ".json")),
        *(f"sub-01/func/sub-01_task-rest_sbref{end}" for end in (".nii.gz", ".json")),
    }


def test_the_mask_shows_where_the_t1w_was_changed(whole: Path, damaged: Path) -> None:
    mask = data_of(damaged, "*_label-lesion_mask.nii.gz") > 0
    before, after = (data_of(data, "*_T1w.nii.gz") for data in (whole, damaged))
    assert 20 < mask.sum() * 1.25**3 / 1000 < 90
    rim = ndimage.binary_dilation(mask, iterations=4)
    np.testing.assert_array_equal(after[~rim], before[~rim])
    inside = ndimage.binary_erosion(mask, iterations=4)
    assert np.median(after[inside]) < 0.5 * np.median(before[inside])


def test_a_lesion_replaces_tissue() -> None:
    lesion = drawn_lesion(np.random.default_rng(0), subject_warp(np.random.default_rng(1)))
    away = np.array([[0.0, 60, -60], [0, 0, 0], [0, 0, 0]])
    share = lesion.share(lesion.middle[:, None] + away)
    np.testing.assert_array_equal(share, [1, 0, 0])
    np.testing.assert_allclose(with_lesion(np.full(3, 0.9), share), [LEVEL, 0.9, 0.9], rtol=1e-6)


def test_a_reference_has_the_run_s_geometry_less_noise_and_more_contrast(damaged: Path) -> None:
    bold, sbref = data_of(damaged, "*_bold.nii.gz"), data_of(damaged, "*_sbref.nii.gz")
    tissue = data_of(damaged, "*_desc-tissue_dseg.nii.gz")
    steady = bold[..., -1]
    contrast = [image[tissue == 3].mean() / image[tissue == 2].mean() for image in (sbref, steady)]
    assert contrast[0] > 1.2 * contrast[1]
    # volume 0 has the same magnetisation, place and coil: the difference is noise and the signal
    difference = (sbref - bold[..., 0])[tissue == 2]
    expected = GREY_LEVEL * NOISE * np.sqrt(1 + SINGLE_BAND_NOISE**2)
    assert difference.std() == pytest.approx(expected, rel=0.15)
    assert abs(difference.mean()) < 15
