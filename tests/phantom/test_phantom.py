"""The phantom's truth must be that of its images: checked with code that is not the phantom's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.phantom import recovered, write_phantom
from brainlm_bids.phantom.acquisition import PARAMETERS, SWITCHES, Acquisition
from brainlm_bids.phantom.courses import (
    motion_parameters,
    noise_courses,
    parcel_series,
    rigid_matrices,
)
from brainlm_bids.phantom.head import load_warp, subject_warp
from brainlm_bids.phantom.oracle import median_correlations, true_nuisances
from brainlm_bids.phantom.scene import GREY_LEVEL, NOISE, Run, bold_affine, build_scene, volumes
from brainlm_bids.preproc.motion import realign as motion
from brainlm_bids.preproc.motion import splines
from brainlm_bids.resources import approximate_atlas, tissue_maps

QUIET = dict.fromkeys(SWITCHES, False)
N_STILL, N_MOVING = 20, 8


def transformed(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 3) through a matrix (4, 4)."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.fixture(scope="module")
def par() -> np.ndarray:
    """FSL's columns: rotations in rad, translations in mm; at rest, then moving."""
    table = np.zeros((N_STILL + N_MOVING, 6))
    rng = np.random.default_rng(3)
    table[N_STILL:, :3] = rng.uniform(-0.06, 0.06, (N_MOVING, 3))
    table[N_STILL:, 3:] = rng.uniform(-4, 4, (N_MOVING, 3))
    return table


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, par: np.ndarray) -> Path:
    """Parcel series and motion alone, no noise of any kind."""
    folder = tmp_path_factory.mktemp("quiet")
    np.savetxt(folder / "head.par", par)
    return write_phantom(
        folder / "data", n_subjects=1, n_volumes=len(par), motion=folder / "head.par", **QUIET
    )


def small(out: Path, n_sessions: int) -> Path:
    return write_phantom(
        out, n_subjects=1, n_sessions=n_sessions, n_runs=2, n_volumes=14, voxel=7.0, motion="high"
    )


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("noisy") / "data", 2)


def truth_of(data: Path) -> Path:
    return data / "derivatives" / "phantom" / "sub-01" / "func"


def parcel_of_voxel(data: Path) -> np.ndarray:
    """Label of every BOLD voxel all of whose neighbours have the same, 0 elsewhere."""
    geometry = np.load(next(truth_of(data).glob("*_geometry.npz")))
    labels, affine = approximate_atlas()
    points = geometry["mni_at_bold"].astype(float)
    voxels = np.rint(transformed(np.linalg.inv(affine), points.reshape(-1, 3))).astype(int)
    inside = ((voxels >= 0) & (voxels < labels.shape)).all(1)
    found = np.zeros(len(voxels), int)
    found[inside] = labels[tuple(voxels[inside].T)]
    found = found.reshape(points.shape[:3])
    alone = ndimage.minimum_filter(found, 3) == ndimage.maximum_filter(found, 3)
    return np.where(alone, found, 0)


def parcel_correlations(bold: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    present = np.unique(labels[labels > 0])
    return np.array(
        [np.corrcoef(bold[labels == k].mean(0), truth[:, k - 1])[0, 1] for k in present]
    )


def test_noise_free_parcels_follow_the_true_series(quiet: Path) -> None:
    image = nib.Nifti1Image.from_filename(next(quiet.glob("sub-01/func/*_bold.nii.gz")))
    bold = image.get_fdata(dtype=np.float32)
    table = next(truth_of(quiet).glob("*_desc-truth_timeseries.tsv"))
    truth = pd.read_csv(table, sep="\t").to_numpy()
    assert truth.shape == (N_STILL + N_MOVING, 424)
    labels = parcel_of_voxel(quiet)
    still = parcel_correlations(bold[..., :N_STILL], labels, truth[:N_STILL])
    assert len(still) > 60
    assert still.min() > 0.99

    # the true matrices take the motion out, and nothing else does
    matrices = np.load(next(truth_of(quiet).glob("*_geometry.npz")))["matrices"]
    undone = splines.resample(bold, image.affine, matrices)
    wrong = splines.resample(bold, image.affine, np.linalg.inv(matrices))
    reference = bold[..., :N_STILL].mean(-1)
    inside = labels > 0

    def residual(moved: np.ndarray) -> float:
        change = moved[inside][:, N_STILL:] / reference[inside][:, None] - 1
        return float(change.std())

    assert residual(undone) < 0.02 < 0.1 < residual(wrong)
    assert np.median(parcel_correlations(undone, labels, truth)) > 0.9


def test_matrices_are_those_of_the_par_file(quiet: Path, par: np.ndarray) -> None:
    folder = truth_of(quiet)
    sidecar = json.loads(next(folder.glob("*_desc-truth_motion.json")).read_text())
    centre = np.array(sidecar["CentreOfRotation"])
    geometry = np.load(next(folder.glob("*_geometry.npz")))
    for (a, b, c, *shift), matrix in zip(par, geometry["matrices"], strict=True):
        x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        np.testing.assert_allclose(matrix[:3, :3], x @ y @ z, atol=1e-9)
        np.testing.assert_allclose(transformed(matrix, centre), centre + shift, atol=1e-9)
    table = pd.read_csv(next(folder.glob("*_desc-truth_motion.tsv")), sep="\t")[PARAMETERS]
    np.testing.assert_allclose(table.to_numpy(), par[:, [3, 4, 5, 0, 1, 2]], atol=1e-7)
    # and what the pipeline's own convention makes of the written parameters
    ours = motion.parameters_to_matrices(table.to_numpy(), centre)
    np.testing.assert_allclose(ours, geometry["matrices"], atol=1e-5)


@pytest.mark.parametrize("session", [1, 2])
def test_t1w_shows_the_template_where_the_warp_says(noisy: Path, session: int) -> None:
    anat = noisy / "sub-01" / f"ses-{session:02d}" / "anat"
    image = nib.Nifti1Image.from_filename(next(anat.glob("*_T1w.nii.gz")))
    truth = noisy / "derivatives" / "phantom" / anat.relative_to(noisy)
    warp = load_warp(next(truth.glob("*_xfm.npz")))
    maps = tissue_maps()
    white = np.argwhere(maps.white_matter > 0.95)[::200]
    grey = np.argwhere(maps.grey_matter > 0.95)[::200]
    t1w = image.get_fdata(dtype=np.float32)

    def values(voxels: np.ndarray) -> np.ndarray:
        points = transformed(maps.affine, voxels)
        there = warp.to_t1w(points)
        assert np.linalg.norm(there - points, axis=1).mean() > 1  # the heads do differ
        np.testing.assert_allclose(warp.to_template(there), points, atol=1e-3)
        seen = transformed(np.linalg.inv(image.affine), there)
        return np.asarray(ndimage.map_coordinates(t1w, seen.T, order=1))

    # tissue tells at 90 % of the points only if the warp is right; the coil shades the rest
    between = (np.median(values(white)) + np.median(values(grey))) / 2
    assert (values(white) > between).mean() > 0.9
    assert (values(grey) < between).mean() > 0.9


def test_bold_lies_on_the_t1w_as_said(noisy: Path) -> None:
    for path in noisy.glob("derivatives/phantom/sub-01/ses-*/func/*_geometry.npz"):
        geometry = np.load(path)
        warp = load_warp(next((path.parents[1] / "anat").glob("*_xfm.npz")))
        voxel = np.array([15.0, 12.0, 9.0])
        world = transformed(geometry["bold_to_t1w"] @ geometry["affine"], voxel[None])
        expected = geometry["mni_at_bold"][15, 12, 9]
        np.testing.assert_allclose(warp.to_template(world)[0], expected, atol=1e-3)


def test_same_seed_same_bytes(noisy: Path, tmp_path: Path) -> None:
    again = small(tmp_path / "again", 1)  # a session fewer must not change the one that is left
    files = [path.relative_to(again) for path in again.rglob("*") if "ses-01" in path.parts]
    files = [path for path in files if (again / path).is_file()]
    assert len(files) > 15
    for path in files:
        assert (again / path).read_bytes() == (noisy / path).read_bytes(), path
    runs = sorted(noisy.rglob("*_bold.nii.gz"))
    assert len({path.read_bytes() for path in runs}) == len(runs) == 4


def test_valid_bids(noisy: Path, quiet: Path) -> None:
    command = Path(sys.executable).with_name("bids-validator-deno")
    if not command.is_file():
        pytest.skip("bids-validator-deno is not installed beside this Python")
    for data in (noisy, quiet, noisy / "derivatives" / "phantom"):
        done = subprocess.run(
            [str(command), str(data), "--format", "json", "--ignoreWarnings"],
            capture_output=True,
            text=True,
            check=False,
        )
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue.get("severity") == "error"] == []
        assert done.returncode == 0


# ------------------------------------------------------------------ what the switches do


def simulated(*on: str, moving: bool = False) -> tuple[np.ndarray, Run]:
    """BOLD (V, T) at 8 mm with the named switches on; all draws are the same between calls."""
    acquisition = Acquisition(16, 2.0, 8.0, "none", 1, QUIET | dict.fromkeys(on, True))
    rng = np.random.default_rng(5)
    warp = subject_warp(rng)
    affine = bold_affine(acquisition.shape, 8.0, np.array([0.0, -18.0, 22.0]))
    parameters = np.zeros((16, 6))
    parameters[8:, 2] = 3.0 * moving
    run = Run(
        build_scene(warp, np.eye(4), affine, acquisition),
        affine,
        rigid_matrices(parameters, np.zeros(3)),
        parcel_series(rng, 16, 2.0),
        noise_courses(acquisition, rng),
        acquisition,
    )
    rng = np.random.default_rng(6)
    return np.stack([v.ravel() for v in volumes(run, rng)], axis=1), run


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return simulated()[0]


@pytest.mark.parametrize("name", ["drift", "respiration", "cardiac", "global_signal"])
def test_noise_follows_its_course(plain: np.ndarray, name: str) -> None:
    bold, run = simulated(name)
    change = bold - plain
    assert list(run.courses) == ([name] if name != "drift" else ["drift_linear", "drift_slow"])
    design = np.column_stack(list(run.courses.values()))
    fitted = design @ np.linalg.lstsq(design, change.T, rcond=None)[0]
    assert 1 - ((change.T - fitted) ** 2).sum() / (change**2).sum() > 0.98
    assert 0.0005 < change.std() / plain[plain > 2000].mean() < 0.03


def test_noise_of_the_scanner(plain: np.ndarray) -> None:
    bright = plain.mean(1) > 2000
    noise = (simulated("thermal_noise")[0] - plain)[bright]
    assert noise.std() == pytest.approx(NOISE * GREY_LEVEL, rel=0.03)
    assert abs(noise.mean()) < 2

    first = simulated("non_steady")[0][bright] / plain[bright]
    assert np.all(np.median(first, axis=0)[:1] > 1.1)
    assert np.abs(first[:, 6:] - 1).mean() < 1e-3

    shaded = simulated("coil_shading")[0][bright] / plain[bright]
    assert shaded.std(1).max() < 1e-4 < 0.05 < shaded[:, 0].std()

    lost = simulated("dropout")[0][bright].mean(1) / plain[bright].mean(1)
    assert lost.min() < 0.5 < 0.97 < np.median(lost)


def test_spin_history_comes_with_motion_only(plain: np.ndarray) -> None:
    np.testing.assert_array_equal(simulated("spin_history")[0], plain)
    moved = simulated(moving=True)[0]
    ratio = simulated("spin_history", moving=True)[0][moved[:, 8] > 2000]
    ratio = ratio / moved[moved[:, 8] > 2000]
    np.testing.assert_allclose(ratio[:, :8], 1)
    # 3 mm through slices of 8 mm, a tenth at most; then 0.3 of it is left in each volume
    np.testing.assert_allclose(ratio[:, 8], 1 - 0.1 * 3 / 8, atol=1e-5)
    np.testing.assert_allclose(ratio[:, 9], 1 - 0.1 * 0.3 * 3 / 8, atol=1e-5)


@pytest.mark.parametrize("kind, millimetres, degrees", [("low", 0.4, 0.4), ("high", 2.6, 2.0)])
def test_kinds_of_motion(kind: str, millimetres: float, degrees: float) -> None:
    acquisition = Acquisition(200, 2.0, 3.5, kind, 1, QUIET)
    trace = motion_parameters(acquisition, np.random.default_rng(0))
    np.testing.assert_array_equal(trace[0], 0)
    assert np.abs(trace[:, :3]).max() == pytest.approx(millimetres)
    assert np.degrees(np.abs(trace[:, 3:]).max()) == pytest.approx(degrees)


# ------------------------------------------------------------------ the score


def fabricate(data: Path, out: Path, r: float) -> str:
    """Derivatives of one run with planted errors: 0.3 mm after volume 2, series at r."""
    geometry_file = next(data.rglob("*ses-01*run-1_desc-truth_geometry.npz"))
    name = geometry_file.name.removesuffix("_desc-truth_geometry.npz")
    folder = out / geometry_file.parent.relative_to(data / "derivatives" / "phantom")
    folder.mkdir(parents=True)
    matrices = np.load(geometry_file)["matrices"].copy()
    matrices[3:, 0, 3] += 0.3
    matrices[:2, 0, 3] += 50  # before the steady state: must not count
    # a reference of another pose, rotations about another point: neither may matter
    pose = motion.parameters_to_matrices(np.array([[1, -2, 3, 0.02, 0.01, -0.03]]), np.ones(3))[0]
    centre = np.array([3.0, -20.0, 11.0])
    parameters = motion.matrices_to_parameters(matrices @ pose, centre)
    table = folder / f"{name}_desc-confounds_timeseries.tsv"
    pd.DataFrame(parameters, columns=PARAMETERS).to_csv(table, sep="\t", index=False)
    table.with_suffix(".json").write_text(json.dumps({"CentreOfRotation": centre.tolist()}))

    true_file = next(geometry_file.parent.glob(f"{name}_*desc-truth_timeseries.tsv"))
    frame = pd.read_csv(true_file, sep="\t")
    steady = frame.to_numpy()[3:]
    steady = steady - steady.mean(0)
    steady /= np.linalg.norm(steady, axis=0)
    noise = np.random.default_rng(0).normal(size=steady.shape)
    noise -= noise.mean(0) + steady * (steady * noise).sum(0)
    noise /= np.linalg.norm(noise - noise.mean(0), axis=0)
    series = 50 + 7 * (r * steady + np.sqrt(1 - r**2) * noise)
    series[:, [5, 17]] = np.nan
    frame.iloc[3:] = series
    frame.iloc[:2] = 1e6  # before the steady state: must not count, whatever is there
    frame.iloc[2] = np.nan
    stem = f"{name}_space-MNI152NLin6Asym_atlas-A424_desc-denoised_timeseries.tsv"
    frame.to_csv(folder / stem, sep="\t", index=False, na_rep="n/a")
    return name


def test_recovered_finds_what_was_planted(noisy: Path, tmp_path: Path) -> None:
    name = fabricate(noisy, tmp_path, 0.8)
    rows = {row["run"]: row for row in recovered(tmp_path, noisy)}
    assert len(rows) == 4
    found = rows.pop(name)
    assert found["motion_error_mm"] == pytest.approx(0.3 * 11 / 12, abs=1e-3)
    assert found["series_r"] == pytest.approx(0.8, abs=1e-6)
    assert 0.3 < found["motion_mm"] < 8
    assert 0.1 < found["oracle_r"] < 1
    for row in rows.values():
        assert np.isnan(row["motion_error_mm"]) and np.isnan(row["series_r"])


def test_correlations_without_nuisances_miss_signal_that_was_removed() -> None:
    rng = np.random.default_rng(0)
    true, nuisance = rng.normal(size=(200, 30)), rng.normal(size=(200, 4))
    found = true + 4 * nuisance[:, :1]
    found[:, 3] = np.nan
    found[5] = np.nan
    found[:2] = 1e6
    plain, clean = median_correlations(found, true, nuisance, 2)
    assert plain == pytest.approx(1 / np.sqrt(17), abs=0.06)
    assert clean == pytest.approx(1, abs=1e-9)
    half = np.where(np.arange(200)[:, None] % 2, true, 0.0)
    plain, clean = median_correlations(half, true, nuisance, 2)
    assert clean == pytest.approx(np.sqrt(0.5), abs=0.05)
    steps = np.diff(nuisance[:, :1], axis=0, prepend=nuisance[:1, :1])
    both = true_nuisances(nuisance, np.repeat(nuisance[:, :1], 6, axis=1))
    assert both.shape == (200, 28)
    np.testing.assert_allclose(
        both[:, [4, 10, 16, 22]][1:],
        np.hstack([nuisance[:, :1], steps, nuisance[:, :1] ** 2, steps**2])[1:],
    )


def test_recovered_says_what_does_not_fit(noisy: Path, tmp_path: Path) -> None:
    fabricate(noisy, tmp_path, 0.5)
    sidecar = next(tmp_path.rglob("*_desc-confounds_timeseries.json"))
    sidecar.write_text("{}")
    with pytest.raises(UserError, match="CentreOfRotation"):
        recovered(tmp_path, noisy)
    shutil.rmtree(tmp_path / "sub-01")
    fabricate(noisy, tmp_path, 0.5)
    table = next(tmp_path.rglob("*_desc-denoised_timeseries.tsv"))
    table.write_text("\n".join(table.read_text().splitlines()[:-2]) + "\n")
    with pytest.raises(UserError, match="denoised"):
        recovered(tmp_path, noisy)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"n_subjects": 0}, "at least one subject"),
        ({"n_volumes": 2}, "three volumes"),
        ({"voxel": 50.0}, "between 1 and 10"),
        ({"motion": "wild"}, "neither none, low"),
        ({"motion": "short.par"}, "3 rows"),
        ({"motion": "words.par"}, "not an FSL"),
    ],
)
def test_bad_requests_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.par").write_text("0 0 0 0 0 0\n" * 3)
    Path("words.par").write_text("a b\n")
    with pytest.raises(UserError, match=said):
        write_phantom(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="not an empty folder"):
        write_phantom(tmp_path)
