"""The masker and the images: series from images, images from values of parcels."""

import gzip
import warnings
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from brainlm_bids import A424Masker, BrainLM, resources, to_img


@pytest.fixture(scope="module")
def image() -> nb.Nifti1Image:
    rng = np.random.default_rng(1)
    affine = np.array([[4.0, 0, 0, -88], [0, 4, 0, -124], [0, 0, 4, -70], [0, 0, 0, 1]])
    smooth = rng.normal(size=(46, 55, 46, 30)).cumsum(axis=0).cumsum(axis=1).cumsum(axis=2)
    made = nb.Nifti1Image((smooth + 1000).astype(np.float32), affine)
    made.header.set_xyzt_units("mm", "sec")
    made.header.set_zooms((4.0, 4.0, 4.0, 1.5))
    return made


def test_masker_agrees_with_nilearn(image: nb.Nifti1Image) -> None:
    from nilearn.maskers import NiftiLabelsMasker

    masker = A424Masker("A424approx")
    ours = masker.fit_transform(image)
    assert ours.shape == (30, 424) and masker.t_r_ == 1.5 and masker.coverage_.shape == (424,)
    theirs = NiftiLabelsMasker(
        masker.labels_img_, resampling_target="labels", standardize=None
    ).fit_transform(image)
    present = np.unique(np.asarray(masker.labels_img_.dataobj))[1:] - 1
    whole = present[masker.coverage_[present] == 1]
    place = np.searchsorted(present, whole)
    r = [np.corrcoef(ours[:, a], theirs[:, b])[0, 1] for a, b in zip(whole, place, strict=True)]
    assert np.min(r) > 0.999


def test_masker_keeps_424_columns_and_leaves_out_parcels_that_are_hardly_seen(
    image: nb.Nifti1Image,
) -> None:
    cut = nb.Nifti1Image(np.asarray(image.dataobj)[:, :, 19:], image.affine.copy())
    cut.affine[2, 3] += 19 * 4
    masker, every = A424Masker("A424approx"), A424Masker("A424approx", min_parcel_coverage=0)
    series, all_seen = masker.fit_transform(cut), every.fit_transform(cut)
    np.testing.assert_array_equal(masker.coverage_, every.coverage_)
    missing, hardly = masker.coverage_ == 0, masker.coverage_ < 0.5
    assert missing.any() and (hardly & ~missing).any()
    for values, absent in ((series, hardly), (all_seen, missing)):
        assert values.shape == (30, 424)
        np.testing.assert_array_equal(np.isnan(values), np.tile(absent, (30, 1)))
    np.testing.assert_array_equal(series[:, ~hardly], all_seen[:, ~hardly])
    # what the limit is for: such series are not those of their parcels
    whole = every.fit_transform(image)
    r = [np.corrcoef(all_seen[:, k], whole[:, k])[0, 1] for k in range(424)]
    assert np.median(np.array(r)[hardly & ~missing]) < np.median(np.array(r)[~hardly])
    for wrong in (50, -0.1, "half", None):
        with pytest.raises(ValueError, match="expected a number from 0 to 1"):
            A424Masker("A424approx", min_parcel_coverage=wrong).fit(cut)


def _moved(image: nb.Nifti1Image, by: float) -> nb.Nifti1Image:
    affine = image.affine.copy()
    affine[0, 3] += by
    return nb.Nifti1Image(image.dataobj, affine)


def test_an_image_elsewhere_is_refused_or_warned_about(image: nb.Nifti1Image) -> None:
    masker = A424Masker("A424approx").fit()
    with pytest.raises(ValueError, match=r"only 0% .* is the image in MNI152NLin6Asym"):
        masker.transform(_moved(image, 500))
    half = _moved(image, 125)
    with pytest.warns(UserWarning, match=r"only \d+% of the parcels"):
        masker.transform(half)
    half.header.set_xyzt_units("mm", "sec")
    with pytest.warns(UserWarning, match="only"):
        out = BrainLM.from_pretrained("random:tiny", offline=True).embed(half, tr=1.5)
    assert any(note.startswith("only") for note in out.provenance["notes"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masker.transform(image)


def test_parameters_of_nilearn(image: nb.Nifti1Image) -> None:
    rng = np.random.default_rng(2)
    confounds = rng.normal(size=(30, 2))
    plain = A424Masker("A424approx").fit_transform(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        masker = A424Masker("A424approx", standardize="zscore_sample", detrend=True, dtype="f4")
        series = masker.fit_transform(image, confounds=confounds, sample_mask=np.arange(5, 30))
    assert series.shape == (25, 424) and series.dtype == np.float32
    np.testing.assert_allclose(np.nanmean(series, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.nanstd(series, axis=0, ddof=1), 1, atol=1e-5)
    smooth = A424Masker("A424approx", low_pass=0.1).fit_transform(image)
    assert np.nanstd(np.diff(smooth, axis=0)) < np.nanstd(np.diff(plain, axis=0))
    unknown = nb.Nifti1Image(image.dataobj, image.affine)
    unknown.header.set_xyzt_units("mm", "unknown")
    with pytest.raises(ValueError, match="t_r="):
        A424Masker("A424approx", low_pass=0.1).fit_transform(unknown)


def test_lists_and_single_volumes(image: nb.Nifti1Image) -> None:
    masker = A424Masker("A424approx")
    image, short = image.slicer[..., :12], image.slicer[..., :10]
    whole = masker.fit_transform(image)
    both = masker.fit_transform([image, short], sample_mask=[None, np.arange(4)])
    np.testing.assert_array_equal(both[0], whole)
    assert both[1].shape == (4, 424)
    assert masker.coverage_.shape == (2, 424) and masker.t_r_ == [1.5, 1.5]
    first = image.slicer[..., 0]
    np.testing.assert_allclose(masker.transform(first), whole[0], rtol=1e-6)
    table = A424Masker("A424approx").set_output(transform="pandas").fit_transform(first)
    assert table.shape == (1, 424) and list(table) == list(resources.parcels().names)
    joined = masker.transform([first, image.slicer[..., 1]])
    np.testing.assert_allclose(joined, whole[:2], rtol=1e-6)
    with pytest.raises(ValueError, match="a list of 2"):
        masker.transform([image, short], confounds=[np.ones((30, 1))])


def test_damaged_images_are_refused_in_one_line(image: nb.Nifti1Image, tmp_path: Path) -> None:
    masker = A424Masker("A424approx").fit()
    whole = tmp_path / "whole_bold.nii.gz"
    image.to_filename(whole)
    content = gzip.decompress(whole.read_bytes())
    damaged = {
        "cut_bold.nii": content[: len(content) // 2],
        "cut_bold.nii.gz": whole.read_bytes()[:100_000],
        "text_bold.nii": b"no image",
        "empty_bold.nii": b"",
    }
    for name, written in damaged.items():
        (tmp_path / name).write_bytes(written)
    for name in [*damaged, "absent_bold.nii"]:
        reason = {"empty_bold.nii": "is empty", "absent_bold.nii": "there is no such file"}
        reason["cut_bold.nii"] = "its header claims .*, but the file holds 7 MB"
        expected = f"{name}: {reason.get(name, 'cannot be read')}"
        with pytest.raises(ValueError, match=expected) as refused:
            masker.transform(tmp_path / name)
        assert "\n" not in str(refused.value)


def test_values_to_an_image_and_back() -> None:
    values = pd.Series(np.arange(424.0), index=resources.parcels().names)
    painted = to_img(values.sample(frac=1, random_state=0), atlas="A424approx")
    masker = A424Masker("A424approx").fit()
    np.testing.assert_array_equal(
        painted.get_fdata(), masker.inverse_transform(values.to_numpy()).get_fdata()
    )
    with pytest.raises(ValueError, match="no parcel"):
        to_img(values.rename({values.index[0]: "x"}), atlas="A424approx")
    with pytest.raises(ValueError, match="424 values"):
        to_img(np.zeros(423))


def test_the_approximation_in_place_of_the_atlas_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINLM_BIDS_HOME", str(tmp_path))
    with pytest.warns(UserWarning, match="approximation"):
        assert A424Masker(offline=True).fit().atlas_.label == "A424approx"
    with pytest.warns(UserWarning, match="approximation"):
        to_img(np.zeros(424), offline=True)
