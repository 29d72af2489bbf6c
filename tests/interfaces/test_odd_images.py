"""Odd headers and voxels without numbers: what the nodes make of them is what they were before."""

import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.interfaces import fmriprep, functional, images, payloads
from brainlm_bids.parcels.operator import build_operator, parcellate
from brainlm_bids.preproc import affine as affines
from brainlm_bids.preproc.denoising.ica import smooth_series
from brainlm_bids.preproc.steps import Motion, extract_preprocessed, realign, take_preprocessed
from tests.test_image_headers import ALL_CODES

SHAPE, VOLUMES = (22, 26, 20), 24
SIZES = np.array([8.0, 7.5, 8.5])
POINTS = np.random.default_rng(0).uniform(-45, 45, (40 * 12, 3))  # mm; 12 in each of 40 parcels
LABELS = np.repeat(np.arange(1, 41), 12)
CONFOUNDS = {f"{kind}_{axis}": np.zeros(VOLUMES) for kind in ("trans", "rot") for axis in "xyz"}


def _affine(oblique: bool = False) -> NDArray[np.float64]:
    affine = np.diag([*SIZES, 1.0])
    if oblique:
        turn = np.linalg.qr(np.eye(3) + 0.2 * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]]))[0]
        affine[:3, :3] = turn * np.sign(turn.diagonal()) @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
    return affine


def _head(affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """A head (X, Y, Z, T) whose signal is smooth in space and different everywhere."""
    x = affines.grid_points(SHAPE, affine)
    rng = np.random.default_rng(1)
    centres, courses = rng.uniform(-60, 60, (25, 3)), rng.normal(size=(25, VOLUMES))
    maps = np.exp(-((x[:, None] - centres) ** 2).sum(axis=2) / (2 * 22.0**2))
    radius = np.sqrt(((x / [62, 78, 60]) ** 2).sum(axis=1))
    head = 1 / (1 + np.exp(np.clip((radius - 1) * 20, -50, 50)))
    values = head[:, None] * (1000 + 25 * maps @ courses) + rng.normal(0, 1, (len(x), VOLUMES))
    return values.reshape(*SHAPE, VOLUMES).astype(np.float32)


def _parcels(bold: NDArray[Any], affine: NDArray[Any], mask: NDArray[np.bool_]) -> Any:
    where = affines.world_to_voxel(POINTS, affine)
    operator, coverage = build_operator(LABELS, where, mask.shape, mask, 40)
    return parcellate(operator, bold), coverage


def _median_r(one: NDArray[Any], other: NDArray[Any]) -> float:
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(one.T, other.T, strict=True)]
    return float(np.median(r))


@pytest.fixture(scope="module", params=[False, True], ids=["straight", "oblique"])
def benign(request: pytest.FixtureRequest) -> tuple[nb.Nifti1Image, NDArray[np.float64]]:
    affine = _affine(request.param)
    bold = _head(affine)
    return nb.Nifti1Image(bold, affine), _parcels(bold, affine, np.ones(SHAPE, bool))[0]


@pytest.mark.parametrize("code", ALL_CODES)
def test_a_run_stored_in_any_orientation_has_the_same_parcels(
    benign: tuple[nb.Nifti1Image, NDArray[np.float64]], code: str, tmp_path: Path
) -> None:
    image, truth = benign
    stored = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(code)))
    stored.to_filename(tmp_path / "bold.nii")
    data, affine = images.load_image(str(tmp_path / "bold.nii"))
    series, _ = _parcels(data, affine, np.ones(data.shape[:3], bool))
    assert _median_r(series, truth) > 0.9999


@pytest.mark.parametrize("code", ["RAS", "LAS", "LPS", "PIR", "SRA"])
def test_an_assumed_orientation_gives_the_same_parcels(code: str, tmp_path: Path) -> None:
    affine = _affine()
    image = nb.Nifti1Image(_head(affine), affine)
    truth, _ = _parcels(image.get_fdata(), affine, np.ones(SHAPE, bool))
    stored = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(code)))
    header = stored.header.copy()
    header["sform_code"] = header["qform_code"] = 0
    nb.Nifti1Image(stored.dataobj, None, header).to_filename(tmp_path / "bold.nii")
    data, assumed = images.load_image(str(tmp_path / "bold.nii"), code)
    series, _ = _parcels(data, assumed, np.ones(data.shape[:3], bool))
    assert _median_r(series, truth) > 0.9999
    with pytest.raises(UserError, match=r"bold\.nii: its header does not record"):
        images.load_image(str(tmp_path / "bold.nii"))


@pytest.mark.parametrize("shape", [(*SHAPE, 1, VOLUMES), (*SHAPE, VOLUMES, 1)])
@pytest.mark.parametrize("scaled", [False, True])
def test_axes_that_a_converter_left_are_taken_out(
    shape: tuple[int, ...], scaled: bool, tmp_path: Path
) -> None:
    data = np.random.default_rng(2).integers(0, 1000, (*SHAPE, VOLUMES)).astype(np.int16)
    stored = nb.Nifti1Image(data.reshape(shape), _affine())
    if scaled:
        stored = nb.Nifti1Image(data.reshape(shape) * 0.37, _affine())
        stored.set_data_dtype(np.int16)
    stored.to_filename(tmp_path / "bold.nii.gz")
    found, _ = images.load_image(str(tmp_path / "bold.nii.gz"))
    assert found.shape == (*SHAPE, VOLUMES)
    np.testing.assert_allclose(found, data * 0.37 if scaled else data, atol=0.02 * scaled)


def _with_holes(bold: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Voxels within the brain that lack a value in one volume, in all, or are infinite."""
    holes = np.zeros(SHAPE, dtype=bool)
    spoilt = bold.copy()
    for k, value in enumerate((np.nan, np.inf, -np.inf)):
        holes[8 + 2 * k, 10:13, 9:11] = True
        spoilt[8 + 2 * k, 10:13, 9:11, 3 if k == 0 else slice(None)] = value
    spoilt[0, :, :] = np.nan  # beside the head
    return spoilt, holes


def test_voxels_without_numbers_are_not_in_the_brain_and_spoil_no_other() -> None:
    affine = _affine()
    bold = _head(affine)
    spoilt, holes = _with_holes(bold)
    kept = spoilt.copy()
    clean, found = realign(bold, affine, n_dummy=0), realign(spoilt, affine, n_dummy=0)
    np.testing.assert_array_equal(spoilt, kept)
    assert found.motion.n_unusable == holes.sum()
    assert clean.motion.n_unusable == 0
    assert np.array_equal(found.brain_mask, clean.brain_mask & ~holes)
    # nor may they be added later, nor what lies beside them
    assert clean.seen is not None and found.seen is not None
    assert not found.seen[holes].any() and not found.seen[:2].any()
    assert (clean.seen & ~found.seen).any() and not (found.seen & ~clean.seen).any()
    assert np.isfinite(found.bold).all()
    one, coverage = _parcels(found.bold, affine, found.brain_mask)
    other, whole = _parcels(clean.bold, affine, clean.brain_mask)
    assert whole.n_covered.sum() - 40 < coverage.n_covered.sum() < whole.n_covered.sum()
    known = np.isfinite(one).all(axis=0)
    assert known.sum() >= 39
    assert _median_r(one[:, known], other[:, known]) > 0.999
    assert np.abs(found.motion.parameters - clean.motion.parameters)[:, :3].max() < 0.05
    in_place = realign(spoilt, affine, n_dummy=0, out=spoilt)
    np.testing.assert_allclose(in_place.bold, found.bold, atol=1e-3)


def test_a_volume_without_numbers_costs_no_voxels() -> None:
    spoilt, holes = _with_holes(_head(_affine()))
    spoilt[..., 7] = np.nan
    assert realign(spoilt, _affine(), n_dummy=0).motion.n_unusable == holes.sum()


@pytest.mark.parametrize("with_mask", [True, False])
def test_preprocessed_voxels_without_numbers_cost_voxels_alone(with_mask: bool) -> None:
    affine = _affine()
    bold = _head(affine)
    spoilt, holes = _with_holes(bold)
    brain = take_preprocessed(bold, affine, CONFOUNDS).brain_mask
    run = take_preprocessed(spoilt, affine, CONFOUNDS, brain_mask=brain if with_mask else None)
    assert run.motion.n_unusable == holes.sum()
    assert not run.brain_mask[holes].any()
    assert np.isfinite(run.boldref).all()
    where = affines.world_to_voxel(POINTS, affine)
    series = {}
    for name, data, mask in (("spoilt", spoilt, run.brain_mask), ("clean", bold, brain)):
        operator, _ = build_operator(LABELS, where, SHAPE, mask, 40)
        series[name] = extract_preprocessed(data, mask, operator, {}, run.motion).parcels
    known = np.isfinite(series["spoilt"]).all(axis=0)
    assert known.sum() >= 39
    assert _median_r(series["spoilt"][:, known], series["clean"][:, known]) > 0.999
    smooth = smooth_series(spoilt, affine, run.brain_mask, 6.0)
    assert np.isfinite(smooth).all()
    truth = smooth_series(bold, affine, run.brain_mask, 6.0)
    np.testing.assert_allclose(smooth, truth, rtol=1e-4)


def test_runs_that_do_not_change_are_refused() -> None:
    affine = _affine()
    frozen = np.repeat(_head(affine)[..., :1], VOLUMES, axis=3)
    for bold, why in (
        (frozen, "the same image"),
        (np.zeros((*SHAPE, VOLUMES), np.float32), "no image in it"),
        (np.full((*SHAPE, VOLUMES), np.nan, np.float32), "no image in it"),
    ):
        with pytest.raises(UserError, match=why):
            realign(bold, affine, n_dummy=0)
        with pytest.raises(UserError, match=why):
            take_preprocessed(bold, affine, CONFOUNDS)


def _save(path: Path, data: NDArray[Any], affine: NDArray[Any]) -> str:
    nb.Nifti1Image(data, affine).to_filename(path)
    return str(path)


def _table(path: Path) -> str:
    path.write_text("\n".join(["\t".join(CONFOUNDS), *["\t".join("0" * 6)] * VOLUMES]) + "\n")
    return str(path)


def test_masks_of_another_grid_or_without_a_brain_are_refused(tmp_path: Path) -> None:
    affine = _affine()
    head = _head(affine)
    bold, table = _save(tmp_path / "bold.nii", head, affine), _table(tmp_path / "confounds.tsv")
    brain = (head.mean(axis=3) > 500).astype(np.uint8)
    flipped = affine @ np.diag([-1.0, 1, 1, 1])
    for name, data, own, why in (
        ("empty", 0 * brain, affine, "mask is empty"),
        ("flipped", brain, flipped, "not that of the BOLD"),
        ("complex", brain.astype(np.complex64), affine, "complex"),
    ):
        mask = _save(tmp_path / f"{name}.nii", data, own)
        with pytest.raises(UserError, match=f"{name}.nii: .*{why}"):
            fmriprep.TakePreprocessed(bold=bold, confounds=table, mask=mask).run(cwd=str(tmp_path))


def test_fmriprep_bold_with_an_axis_too_many_is_passed_on_without_it(tmp_path: Path) -> None:
    affine = _affine()
    head = _head(affine)
    table = _table(tmp_path / "confounds.tsv")
    outputs = {}
    for name, data in (("plain", head), ("odd", head[:, :, :, None])):
        bold = _save(tmp_path / f"{name}.nii", data, affine)
        (folder := tmp_path / name).mkdir()
        take = fmriprep.TakePreprocessed(bold=bold, confounds=table)
        outputs[name] = take.run(cwd=str(folder)).outputs.bold
    assert outputs["plain"] == str(tmp_path / "plain.nii")
    assert nb.Nifti1Image.from_filename(outputs["odd"]).shape == head.shape
    assert np.array_equal(images.load_image(outputs["odd"])[0], head)


def test_a_raw_run_without_orientation_is_realigned_as_it_is_said_to_lie(tmp_path: Path) -> None:
    affine = _affine()
    header = nb.Nifti1Image(_head(affine), affine).header
    header["sform_code"] = header["qform_code"] = 0
    nb.Nifti1Image(_head(affine), None, header).to_filename(tmp_path / "bold.nii")
    node = functional.Realign(bold=str(tmp_path / "bold.nii"), dummy_scans=0, orientation="RAS")
    outputs = node.run(cwd=str(tmp_path / ".")).outputs
    assert np.allclose(images.load_affine(outputs.bold), affine)
    assert payloads.load(Motion, outputs.motion).n_unusable == 0


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<f4", "<f8"])
@pytest.mark.parametrize("shape", [(4, 5, 6, 7), (4, 5, 6, 1, 7)])
def test_a_run_has_the_values_that_nibabel_reads(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, suffix: str
) -> None:
    stored = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    image = nb.Nifti1Image(stored, np.diag([3.0, 3.0, 3.0, 1.0]))
    image.header.set_slope_inter(0.25, 5.0)
    path = tmp_path / f"bold{suffix}"
    image.to_filename(path)
    data, _ = images.load_image(str(path))
    assert data.dtype == np.float32 and data.flags.f_contiguous
    wanted = np.asarray(nb.Nifti1Image.from_filename(path).dataobj, dtype=np.float64)
    np.testing.assert_array_equal(data, wanted.reshape(data.shape).astype(np.float32))


def test_a_run_is_held_once_while_it_is_read(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 2000, (32, 32, 20, 60)).astype(np.int16)
    path = tmp_path / "bold.nii.gz"
    nb.Nifti1Image(stored, np.diag([3.0, 3.0, 3.0, 1.0])).to_filename(path)
    images.load_image(str(path))
    tracemalloc.start()
    try:
        data, _ = images.load_image(str(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * data.nbytes
