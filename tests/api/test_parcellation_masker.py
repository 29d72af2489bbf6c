"""`ParcellationMasker`: nilearn's means on full coverage, NaN beyond the image."""

from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nilearn.maskers import NiftiLabelsMasker
from sklearn.base import clone

from brainlm_bids import ParcellationMasker

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def _atlas(folder: Path) -> tuple[Path, np.ndarray]:
    labels = np.zeros((10, 10, 10), np.float64)
    labels[1:4, 1:9, 1:9], labels[5:7, 1:9, 1:9], labels[7:9, 1:9, 1:9] = 30, 4, 200
    path = folder / "space-MNI152NLin6Asym_atlas-Slabs_dseg.nii.gz"
    nb.Nifti1Image(labels, AFFINE).to_filename(path)
    (folder / "space-MNI152NLin6Asym_atlas-Slabs_dseg.tsv").write_text(
        "index\tname\n30\tthirty\n4\tfour\n200\ttwo hundred\n"
    )
    return path, labels


def test_means_are_nilearns(tmp_path: Path) -> None:
    path, labels = _atlas(tmp_path)
    data = np.random.default_rng(1).normal(100, 5, (10, 10, 10, 12)).astype(np.float32)
    image = nb.Nifti1Image(data, AFFINE)
    masker = ParcellationMasker(path)
    series = masker.fit_transform(image)
    nilearns = NiftiLabelsMasker(nb.Nifti1Image(labels.astype(np.int32), AFFINE), standardize=None)
    assert np.allclose(series, nilearns.fit_transform(image), rtol=1e-5)
    assert masker.region_names_ == ["four", "thirty", "two hundred"] and masker.n_elements_ == 3
    painted = np.asarray(masker.inverse_transform(np.array([1.0, 2.0, 3.0])).dataobj)
    assert set(painted[labels == 30]) == {2.0} and set(painted[labels == 0]) == {0.0}


def test_a_parcel_beyond_the_image_is_nan(tmp_path: Path) -> None:
    path, _ = _atlas(tmp_path)
    data = np.random.default_rng(2).normal(100, 5, (7, 10, 10, 12)).astype(np.float32)
    masker = ParcellationMasker(path).fit()
    series = masker.transform(nb.Nifti1Image(data, AFFINE))
    assert np.isnan(series).all(axis=0).tolist() == [False, False, True]
    far = AFFINE.copy()
    far[:3, 3] = 500
    with pytest.raises(ValueError, match=r"parcels of Slabs .* image in MNI152NLin6Asym"):
        masker.transform(nb.Nifti1Image(data, far))


def test_it_is_cloned_and_tells_what_it_cannot_find(tmp_path: Path) -> None:
    path, _ = _atlas(tmp_path)
    copy = clone(ParcellationMasker(path, detrend=True, t_r=2.0))
    assert (
        copy.get_params()["parcellation"] == path
        and copy.detrend
        and "atlas" not in (copy.get_params())
    )
    with pytest.raises(ValueError, match="no such file"):
        ParcellationMasker(tmp_path / "nothing.nii.gz").fit()
