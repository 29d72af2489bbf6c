"""The nodes of the geometry: what they store, and what one bad volume does to a run."""

from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.bids.slices import SliceTable
from brainlm_bids.errors import RunSkipped
from brainlm_bids.interfaces import functional, images, payloads
from brainlm_bids.preproc.affine import apply, grid_points
from brainlm_bids.preproc.motion import realign as motion
from brainlm_bids.preproc.motion import splines, view
from brainlm_bids.preproc.steps import Motion

SHAPE = (36, 40, 26)
AFFINE = np.diag([-5.0, 5.0, 5.0, 1.0])
AFFINE[:3, 3] = [87.5, -97.5, -62.5]
WILD = 11


def _run(tmp_path: Path, wild: bool) -> tuple[Any, np.ndarray]:
    """A textured head in 24 volumes, one of them 25 mm out of place, realigned; and the run."""
    world = grid_points(SHAPE, AFFINE)
    parameters = np.random.default_rng(0).normal(0, 0.3, (24, 6)) * [1, 1, 1, 0.005, 0.005, 0.005]
    if wild:
        parameters[WILD, 2] = 25.0
    rng = np.random.default_rng(1)
    volumes = []
    for push in np.linalg.inv(motion.parameters_to_matrices(parameters, np.zeros(3))):
        x = apply(push, world)
        radius = np.sqrt(((x / [65, 80, 58]) ** 2).sum(axis=1))
        texture = 1000 + 200 * np.cos(x[:, 0] / 6) * np.cos(x[:, 1] / 8) * np.cos(x[:, 2] / 7)
        values = texture / (1 + np.exp(np.clip((radius - 1) * 30, -50, 50)))
        volumes.append((values + 10 * rng.standard_normal(len(x))).reshape(SHAPE))
    bold = np.stack(volumes, axis=3).round().clip(0).astype(np.int16)
    path = tmp_path / "bold.nii.gz"
    nb.Nifti1Image(bold, AFFINE).to_filename(path)
    folder = tmp_path / "realign"
    folder.mkdir()
    return functional.Realign(bold=str(path), dummy_scans=0).run(cwd=str(folder)).outputs, bold


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, np.ndarray]:
    return _run(tmp_path_factory.mktemp("wild"), wild=True)


def test_one_wild_volume_costs_the_run_no_brain(wild: Any, tmp_path: Path) -> None:
    calm = images.load_mask(_run(tmp_path, wild=False)[0].brain_mask)
    mask = images.load_mask(wild[0].brain_mask)
    assert (mask & calm).sum() >= 0.98 * calm.sum()
    found = payloads.load(Motion, wild[0].motion)
    assert abs(found.parameters[WILD, 2] - found.parameters[WILD - 1, 2] - 25) < 1
    seen = view.volumes_in_view(found.matrices, AFFINE, SHAPE)
    assert 0 < found.filled < 0.02
    # only what is always in view may be added to the brain
    np.testing.assert_array_equal(images.load_mask(wild[0].seen), seen == 24)
    # where the wild volume saw nothing, its values are those of its neighbours in time
    lost = mask & (seen == 23)
    series = images.load_image(wild[0].bold)[0][lost]
    expected = (series[:, WILD - 1] + series[:, WILD + 1]) / 2
    np.testing.assert_allclose(series[:, WILD], expected, atol=1.0)
    assert lost.sum() > 100


def test_the_realigned_run_takes_no_more_space_than_the_raw_one(wild: Any) -> None:
    image = nb.load(wild[0].bold)
    assert image.get_data_dtype() == np.int16
    stored = images.load_image(wild[0].bold)[0]
    bold = wild[1].astype(np.float32)
    found = payloads.load(Motion, wild[0].motion)
    exact = splines.resample(bold, AFFINE, found.matrices)
    mask = images.load_mask(wild[0].brain_mask) & (
        view.volumes_in_view(found.matrices, AFFINE, SHAPE) == 24
    )
    # a thousandth of the brain's median is the coarsest step; half of one is lost at most
    assert np.abs(stored - exact)[mask].max() < 0.51


def test_a_range_that_is_too_wide_is_stored_as_float(tmp_path: Path) -> None:
    data = np.array([[[0.0, 1e6, 0.25, 0.5]]], dtype=np.float32)
    path = images.save_image(tmp_path / "wide.nii", data, np.eye(4), coarsest_step=0.1)
    np.testing.assert_array_equal(images.load_image(path)[0], data)


def test_the_device_does_not_void_the_cache() -> None:
    hashes = [functional.Realign(device=d).inputs.get_hashval()[1] for d in ("cpu", "cuda")]
    assert hashes[0] == hashes[1]


def test_a_step_does_not_know_the_file_and_its_node_says_it(wild: Any, tmp_path: Path) -> None:
    path = tmp_path / "short_bold.nii.gz"
    nb.Nifti1Image(wild[1], AFFINE).to_filename(path)
    message = "short_bold.nii.gz: 24 volumes less 5 before the steady state leave fewer than 20"
    with pytest.raises(RunSkipped, match=message):
        functional.Realign(bold=str(path), dummy_scans=5).run(cwd=str(tmp_path))


def test_slices_are_brought_to_the_middle_of_the_volume_and_motion_stays_the_same(
    tmp_path: Path,
) -> None:
    times = np.linspace(0, 1.9, SHAPE[2])[np.argsort(np.arange(SHAPE[2]) % 2, kind="stable")]
    table, n_volumes = SliceTable(2, tuple(times.tolist())), 60
    x = grid_points(SHAPE, AFFINE).reshape(*SHAPE, 3)
    head = 1000 + 200 * np.cos(x[..., 0] / 6) * np.cos(x[..., 1] / 8) * np.cos(x[..., 2] / 7)
    head *= np.sqrt(((x / [65, 80, 58]) ** 2).sum(axis=-1)) < 1

    def signal(seconds: np.ndarray) -> np.ndarray:
        return np.sin(2 * np.pi * 0.06 * seconds)

    volumes = 2.0 * np.arange(n_volumes)
    bold = head[..., None] * (1 + 0.03 * signal(volumes + times[:, None]))
    bold[..., :2] *= 1.6  # before the steady state
    bold[..., 30] *= 8
    path = tmp_path / "bold.nii.gz"
    noise = np.random.default_rng(0).normal(0, 2, bold.shape)
    nb.Nifti1Image((bold + noise).astype(np.float32), AFFINE).to_filename(path)
    outputs = {}
    for name, more in {"with": {"slices": table, "tr": 2.0}, "without": {}}.items():
        folder = tmp_path / name
        folder.mkdir()
        node = functional.Realign(bold=str(path), dummy_scans=2, **more)
        outputs[name] = node.run(cwd=str(folder)).outputs
    motions = [payloads.load(Motion, one.motion) for one in outputs.values()]
    np.testing.assert_array_equal(motions[0].matrices, motions[1].matrices)
    mask = images.load_mask(outputs["with"].brain_mask) & (head > 0)
    kept = np.delete(np.arange(n_volumes), [0, 1, 30])
    truth = signal(volumes[kept] + table.reference)

    def errors(name: str) -> np.ndarray:
        series = images.load_image(outputs[name].bold)[0][mask][:, kept]
        means = np.array([series[np.nonzero(mask)[2] == k].mean(0) for k in range(5, 21)])
        return 1 - np.array([np.corrcoef(mean, truth)[0, 1] for mean in means])

    assert errors("with").max() < 0.003
    assert errors("without").max() > 0.04


def test_a_single_band_reference_becomes_the_reference_of_the_node_or_is_refused(
    wild: Any, tmp_path: Path
) -> None:
    volume = wild[1][..., 5].astype(np.float32)
    files = {"fits": 3 * volume, "complex": volume.astype(np.complex64)}
    files["several"] = np.stack([volume] * 2, axis=3)
    bold = tmp_path / "bold.nii.gz"
    nb.Nifti1Image(wild[1], AFFINE).to_filename(bold)
    found = {}
    for name, values in files.items():
        path, folder = tmp_path / f"{name}_sbref.nii.gz", tmp_path / name
        nb.Nifti1Image(values, AFFINE).to_filename(path)
        folder.mkdir()
        node = functional.Realign(bold=str(bold), dummy_scans=0, sbref=str(path), seed=1)
        found[name] = node.run(cwd=str(folder)).outputs
    motions = {name: payloads.load(Motion, one.motion) for name, one in found.items()}
    assert motions["fits"].reference == "sbref"
    # this volume did not move from itself
    points = np.argwhere(images.load_mask(found["fits"].brain_mask))[::50] @ AFFINE[:3, :3]
    points = points + AFFINE[:3, 3]
    moved = apply(motions["fits"].matrices[5], points) - points
    assert np.linalg.norm(moved, axis=1).max() < 0.1
    ratio = images.load_image(found["fits"].boldref)[0] / (3 * volume).clip(1)
    inside = images.load_mask(found["fits"].brain_mask)
    assert np.ptp(ratio[inside]) < 1e-3 and 0.3 < np.median(ratio[inside]) < 0.37
    assert "its values are complex" in motions["complex"].sbref_refused
    assert "(36, 40, 26, 2)" in motions["several"].sbref_refused
    for name in ("complex", "several"):
        assert motions[name].reference == "median of volumes"
        np.testing.assert_array_equal(
            motions[name].matrices, payloads.load(Motion, wild[0].motion).matrices
        )
