"""Image quality: the numbers of MRIQC's and nipype's functions, and of AFNI's definitions."""

import importlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage, stats

from brainlm_bids.preproc import image_quality as measures
from brainlm_bids.preproc.denoising.confounds import framewise_displacement
from brainlm_bids.preproc.steps import Motion, measure_grayordinates, measure_image
from brainlm_bids.preproc.tissue import Tissue, spread_voxels, tissue_of_voxels

SHAPE, N_VOLUMES = (24, 26, 14), 61


def head() -> np.ndarray:
    grid = np.indices(SHAPE) - (np.array(SHAPE)[:, None, None, None] - 1) / 2
    return ((grid / np.array([8.0, 9.0, 5.5])[:, None, None, None]) ** 2).sum(axis=0) < 1


def run(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A run (X, Y, Z, T) with noise, a ghost and background, and the mask of its brain."""
    rng, mask = np.random.default_rng(seed), head()
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.0)
    image = mask * (900 + 400 * texture)
    image += 0.04 * np.roll(image, SHAPE[1] // 2, axis=1)
    drift = 1 + 0.01 * np.sin(np.arange(N_VOLUMES) / 9)
    noise = rng.normal(scale=12, size=(*SHAPE, N_VOLUMES))
    bold = np.abs(image[..., None] * drift + noise).astype(np.float32)
    bold[10:14, 12, 6, 30] += 700
    return bold, mask


def still(**more: Any) -> Motion:
    parameters = np.cumsum(np.random.default_rng(1).normal(scale=0.01, size=(N_VOLUMES, 6)), axis=0)
    parameters[:, 3:] /= 50
    return Motion(**{"n_dummy": 0, "parameters": parameters} | more)


def measured(bold: np.ndarray, mask: np.ndarray, motion: Motion, **more: Any) -> Any:
    tissue = np.where(mask, Tissue.CORTEX, 0)
    displacement = framewise_displacement(motion.parameters)
    affine = np.diag([3.0, 3.0, 4.0, 1.0])
    return measure_image(bold, affine, mask, motion, tissue, displacement, 2.0, **more)


@pytest.mark.parametrize("seed", [0, 1])
def test_measures_of_the_mean_are_mriqcs(seed: int) -> None:
    anatomical = pytest.importorskip("mriqc.qc.anatomical", reason="MRIQC is not installed")
    functional = importlib.import_module("mriqc.qc.functional")
    bold, mask = run(seed)
    found, voxels = measured(bold, mask, still())
    mean = voxels.mean
    regions = {"fg": mask.astype(np.uint8), "bg": (~mask).astype(np.uint8)}
    of_brain = anatomical.summary_stats(mean, regions)["fg"]
    expected = {
        "snr": anatomical.snr(of_brain["median"], of_brain["stdv"], of_brain["n"]),
        "fber": anatomical.fber(mean, mask.astype(np.uint8)),
        "efc": anatomical.efc(mean),
        "gsr_x": functional.gsr(mean, mask.astype(np.uint8), direction="x"),
        "gsr_y": functional.gsr(mean, mask.astype(np.uint8), direction="y"),
    }
    for name, value in expected.items():
        # fber and efc are rounded there
        assert getattr(found, name) == pytest.approx(value, rel=1e-4, abs=6e-5), name
    # the ghost was put along y
    assert found.gsr_y > 3 * abs(found.gsr_x)


def test_measures_of_time_are_nipypes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nipype.algorithms import confounds as theirs

    from benchmarks.accuracy_denoising import yule_walker

    monkeypatch.setattr(theirs, "_AR_est_YW", yule_walker)
    monkeypatch.chdir(tmp_path)
    bold, mask = run()
    motion = still()
    nib.Nifti1Image(bold, np.eye(4)).to_filename("bold.nii")
    nib.Nifti1Image(mask.astype(np.uint8), np.eye(4)).to_filename("mask.nii")
    np.savetxt("motion.par", motion.parameters)
    theirs.TSNR(in_file="bold.nii").run()
    ratios = nib.load("tsnr.nii.gz").get_fdata()
    standardised, plain, voxelwise = theirs.compute_dvars(
        "bold.nii", "mask.nii", remove_zerovariance=True
    )
    theirs.FramewiseDisplacement(in_file="motion.par", parameter_source="SPM").run()
    displacement = np.loadtxt("fd_power_2012.txt", skiprows=1)

    found, voxels = measured(bold, mask, motion)
    assert found.tsnr == pytest.approx(np.median(ratios[mask]), rel=1e-5)
    ours = measures.temporal_snr(voxels.mean, voxels.deviation)
    np.testing.assert_allclose(ours, ratios, rtol=1e-3)
    assert found.dvars_std == pytest.approx(standardised.mean(), rel=1e-5)
    assert found.dvars_nstd == pytest.approx(plain.mean(), rel=1e-5)
    assert found.dvars_vstd == pytest.approx(voxelwise.mean(), rel=1e-5)
    above = (displacement > 0.2).sum()
    assert found.fd_mean == pytest.approx(displacement.mean(), rel=1e-6)
    assert found.fd_num == above
    assert found.fd_perc == pytest.approx(100 * above / (len(displacement) + 1))
    assert found.fd_p50 <= found.fd_p95 <= found.fd_max == pytest.approx(displacement.max())


def test_outliers_and_quality_index_are_afnis() -> None:
    bold, mask = run()
    series = bold[mask].T
    # 3dToutcount and 3dTqual, voxel by voxel and volume by volume as their help describes them
    alpha = stats.norm.isf(0.001 / N_VOLUMES)
    outlying = np.zeros(series.shape, dtype=bool)
    for v, course in enumerate(series.T):
        middle = np.median(course)
        mad = np.median(np.abs(course - middle))
        outlying[:, v] = np.abs(course - middle) > alpha * np.sqrt(np.pi / 2) * mad
    found, _ = measured(bold, mask, still())
    assert found.aor == pytest.approx(outlying.mean())
    assert outlying[30].sum() >= 4
    typical = np.median(series, axis=0)
    index = [1 - stats.spearmanr(volume, typical).statistic for volume in series]
    assert found.aqi == pytest.approx(np.mean(index), rel=1e-6)
    np.testing.assert_allclose(
        measures.quality_index(np.round(series, -2)).mean(),
        np.mean(
            [
                1 - stats.spearmanr(v, np.median(np.round(series, -2), axis=0)).statistic
                for v in np.round(series, -2)
            ]
        ),
        rtol=1e-6,
    )


def test_global_correlation_is_the_mean_of_all_correlations() -> None:
    bold, mask = run()
    series = bold[mask].T[:, :300]
    assert measures.global_correlation(series) == pytest.approx(np.corrcoef(series.T).mean())
    constant = np.column_stack([series, np.full((N_VOLUMES, 300), 5.0)])
    assert measures.global_correlation(constant) == pytest.approx(np.corrcoef(series.T).mean() / 4)


def test_smoothness_is_that_of_smoothed_noise() -> None:
    sigma = np.array([1.0, 1.5, 2.0])
    noise = np.random.default_rng(3).normal(size=(70, 70, 70))
    smooth = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    widths = measures.smoothness(500 + 80 * smooth, np.ones(smooth.shape, dtype=bool))
    np.testing.assert_allclose(widths, sigma * np.sqrt(8 * np.log(2)), rtol=0.04)
    # differences across the edge of the mask do not count
    mask = np.zeros(smooth.shape, dtype=bool)
    mask[10:60, 10:60, 10:60] = True
    widths = measures.smoothness(np.where(mask, smooth, 9999.0), mask)
    np.testing.assert_allclose(widths, sigma * np.sqrt(8 * np.log(2)), rtol=0.12)
    assert np.isnan(measures.smoothness(np.ones(smooth.shape), mask)).all()


def test_dummies_and_bad_volumes_take_no_part() -> None:
    bold, mask = run()
    clean, _ = measured(bold[..., :40], mask, still(parameters=still().parameters[:40]))
    spoilt = np.concatenate([3 * bold[..., :2], bold[..., :40], 9 * bold[..., :3]], axis=3)
    parameters = np.concatenate(
        [np.ones((2, 6)), still().parameters[:40], np.full((3, 6), 7.0)], axis=0
    )
    reasons = np.array([""] * 42 + ["too bright"] * 3)
    found, _ = measured(spoilt, mask, still(n_dummy=2, parameters=parameters, reasons=reasons))
    assert found.size_t == clean.size_t == 40
    assert found.dummy_trs == 2
    for name, value in vars(clean).items():
        if name != "dummy_trs":
            assert getattr(found, name) == pytest.approx(value, rel=1e-5), name


def test_what_depends_on_the_acquisition_is_unknown_of_a_resampled_run() -> None:
    bold, mask = run()
    own, other = measured(bold, mask, still())[0], measured(bold, mask, still(), acquired=False)[0]
    absent = {name for name, value in vars(other).items() if value is None}
    assert absent == {"efc", "fber", "gsr_x", "gsr_y", "fwhm_x", "fwhm_y", "fwhm_z", "fwhm_avg"}
    assert other.tsnr == own.tsnr and other.gcor == own.gcor
    assert None not in vars(own).values()


def test_grayordinates_have_the_measures_of_time() -> None:
    bold, mask = run()
    series = bold[mask].T
    labels = np.where(np.arange(series.shape[1]) % 2, 7, 400)
    unused = np.column_stack([series, np.zeros(N_VOLUMES)])
    displacement = framewise_displacement(still().parameters)
    found, voxels = measure_grayordinates(unused, np.append(labels, 3), still(), displacement, 2.0)
    whole, _ = measured(bold, mask, still())
    for name in ("tsnr", "aor", "aqi", "gcor", "dvars_std", "fd_mean", "size_t"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-5), name
    assert found.gsr_x is None and found.snr is None and voxels.mean is None
    # a bad volume without numbers costs no grayordinate
    spoilt = np.concatenate([unused, np.full((1, unused.shape[1]), np.nan)])
    parameters = np.concatenate([still().parameters, np.zeros((1, 6))])
    reasons = np.array([""] * N_VOLUMES + ["missing"])
    motion = still(parameters=parameters, reasons=reasons)
    displacement = np.append(displacement, 7.0)
    again, _ = measure_grayordinates(spoilt, np.append(labels, 3), motion, displacement, 2.0)
    for name, value in vars(found).items():
        assert value is None or getattr(again, name) == pytest.approx(value, rel=1e-5), name
    assert np.unique(voxels.tissue).tolist() == [1, 3]


def test_empty_background_and_small_values_give_no_wrong_number() -> None:
    bold, mask = run()
    bold[~mask] = 0
    found, _ = measured(bold, mask, still())
    assert found.fber is None  # MRIQC writes -1
    # a run in other units has the same ratios; rounding its values would not leave any
    other, _ = measured(bold / 1e4, mask, still())
    for name in ("snr", "tsnr", "gcor", "efc", "gsr_y", "dvars_nstd"):
        assert getattr(other, name) == pytest.approx(getattr(found, name), rel=2e-3, abs=1e-6), name


def test_voxels_have_the_tissue_of_most_points_and_all_tissues_are_shown() -> None:
    places = np.array([[0.4, 0, 0], [0, 0.2, 0], [-0.3, 0, 0], [1.2, 1, 0], [5.0, 0, 0]])
    codes = np.array([Tissue.CORTEX, Tissue.CSF, Tissue.CSF, Tissue.WHITE_MATTER, Tissue.CORTEX])
    tissue = tissue_of_voxels(places, codes, (2, 2, 1))
    assert tissue[..., 0].tolist() == [[Tissue.CSF, 0], [0, Tissue.WHITE_MATTER]]
    many = np.repeat([Tissue.CORTEX, 0, Tissue.WHITE_MATTER, Tissue.CSF], [20_000, 500, 9_000, 10])
    chosen = spread_voxels(many)
    counts = np.bincount(many[chosen], minlength=6)
    assert counts[0] == 0 and counts[Tissue.CSF] == 10
    assert 400 < len(chosen) < 440
    assert (np.diff(chosen) > 0).all()
