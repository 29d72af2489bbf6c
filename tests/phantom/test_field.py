"""The phantom's field: closed form, and what the pipeline's own distortion says of its images."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.phantom import write_phantom
from brainlm_bids.phantom.acquisition import SWITCHES
from brainlm_bids.phantom.field import READOUT, Distortion, Field, PhaseEncoding, subject_field
from brainlm_bids.phantom.head import drawn_pose, subject_warp
from brainlm_bids.phantom.scene import View, bold_affine
from brainlm_bids.preproc.distortion import field as kernel

QUIET = dict.fromkeys(SWITCHES, False)
KINDS = ("phasediff", "phases", "field", "pair")
SMALL = {"n_subjects": 1, "n_runs": 2, "n_volumes": 3, "voxel": 6.0, "motion": "none", "seed": 4}
PEAK = 9.0


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("straight") / "data", **SMALL, **QUIET)


@pytest.fixture(scope="module")
def bent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bent") / "data"
    return write_phantom(folder, **SMALL, **QUIET, distortion=PEAK, fieldmaps=KINDS)


def image(data: Path, pattern: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_filename(next(iter(sorted(data.rglob(pattern)))))


def sidecar(data: Path, pattern: str) -> dict:
    return json.loads(next(iter(sorted(data.rglob(pattern)))).read_text())


# ------------------------------------------------------------------ closed form


@pytest.fixture
def one_gaussian() -> Field:
    return Field(np.array([[5.0, 10.0, -8.0]]), np.array([20.0]), np.array([70.0]))


def test_what_is_shown_is_where_it_is_seen(one_gaussian: Field) -> None:
    rng = np.random.default_rng(0)
    affine = np.diag([-3.5, 3.5, 3.5, 1.0])
    distortion = Distortion.of(
        one_gaussian, drawn_pose(rng, 20, 5), affine, PhaseEncoding.from_bids("j-")
    )
    motion = drawn_pose(rng, 5, 3)
    points = rng.uniform(-60, 60, (3, 500))
    hertz, density = distortion.sources(points, motion)
    lies = points - hertz * distortion.step[:, None]
    np.testing.assert_allclose(distortion.seen(lies, motion), points, atol=1e-3)
    # one voxel per 25 Hz towards smaller indices, whatever the pose of the head
    moved = distortion.seen(lies, motion) - lies
    np.testing.assert_allclose(moved[1], -hertz / 25 * 3.5, atol=1e-3)
    np.testing.assert_array_equal(moved[[0, 2]], 0)
    # the density is that of the map of points
    step = np.array([[0.0], [0.01], [0.0]])
    there = distortion.sources(points + step, motion, hertz)[0] * distortion.step[1]
    slope = 1 - (there - hertz * distortion.step[1]) / 0.01
    np.testing.assert_allclose(density, slope, atol=5e-3)
    assert density.min() < 0.9 < 1.1 < density.max()


@pytest.mark.parametrize("direction", ["i", "i-", "j", "j-", "k", "k-"])
def test_signal_is_conserved_and_the_kernel_undoes_it(one_gaussian: Field, direction: str) -> None:
    voxel, shape = 4.0, (40, 44, 36)
    affine = bold_affine(shape, voxel, np.zeros(3))
    encoding = PhaseEncoding.from_bids(direction)
    assert encoding.direction == direction
    rng = np.random.default_rng(1)
    blob = np.zeros(shape)
    blob[10:30, 12:32, 9:27] = rng.uniform(500, 1500, (20, 20, 18))
    blob = ndimage.gaussian_filter(blob, 1.2)
    distortion = Distortion.of(one_gaussian, np.eye(4), affine, encoding)
    still = View(affine, shape, np.eye(4), None)(blob, np.eye(4))
    shown = View(affine, shape, np.eye(4), distortion)(blob, np.eye(4)).reshape(shape)
    still = still.reshape(shape)
    # lines along the axis keep their sum, single voxels do not
    lines, kept = shown.sum(encoding.axis), still.sum(encoding.axis)
    inside = kept > 0.3 * kept.max()
    np.testing.assert_allclose(lines[inside], kept[inside], rtol=0.01)
    world = nib.affines.apply_affine(affine, np.indices(shape).reshape(3, -1).T).T
    hertz = one_gaussian.hertz(world).reshape(shape)

    def left(sign: int) -> float:
        said = kernel.PhaseEncoding(encoding.axis, sign, READOUT)
        undone = kernel.distortion_of(hertz, affine, said).undistorted(shown, order=3)
        return float(np.abs(undone - still)[5:-5, 5:-5, 5:-5].mean())

    before = np.abs(shown - still)[5:-5, 5:-5, 5:-5].mean()
    assert left(encoding.sign) < 0.15 * before < before < left(-encoding.sign)


def test_the_peak_is_what_was_asked_for_at_frontal_and_temporal_poles() -> None:
    anatomy = subject_warp(np.random.default_rng(2))
    field = subject_field(np.random.default_rng(3), anatomy, 60.0)
    voxels = np.argwhere(np.ones((20, 24, 20))) * 7.0 - [66, 100, 60]
    values = field.hertz(anatomy.to_t1w(voxels).T)
    assert np.abs(values).max() < 1.3 * 60  # outside of the brain it may be higher
    poles = anatomy.to_t1w(np.array([[0, 56, -12], [44, 14, -30], [-44, 14, -30], [0, -90, 20.0]]))
    frontal, right, left, occipital = field.hertz(poles.T)
    assert frontal > 35 and max(right, left) < -25 and abs(occipital) < 12


# ------------------------------------------------------------------ the data set


def test_truth_and_sidecars_of_a_run(bent: Path, straight: Path) -> None:
    said = sidecar(bent, "*_bold.json")
    assert said["PhaseEncodingDirection"] == "j" and said["TotalReadoutTime"] == READOUT
    ours = sorted(
        sidecar(bent, f"*_{k}.json")["B0FieldIdentifier"] for k in ("phasediff", "phase1")
    )
    assert set(ours) < set(said["B0FieldSource"]) and len(said["B0FieldSource"]) == 4
    truth = image(bent, "*boldref_desc-truth_fieldmap.nii.gz")
    hertz = truth.get_fdata()
    bold = image(bent, "*_bold.nii.gz")
    shown = bold.get_fdata().mean(-1)
    still = image(straight, "*_bold.nii.gz").get_fdata().mean(-1)
    np.testing.assert_array_equal(truth.affine, bold.affine)
    tissue = image(bent, "*_desc-tissue_dseg.nii.gz").get_fdata() > 0
    moved = hertz * READOUT * SMALL["voxel"]
    assert 0.8 * PEAK < np.abs(moved[tissue]).max() < 1.15 * PEAK
    encoding = kernel.PhaseEncoding.from_bids(said["PhaseEncodingDirection"], READOUT)
    undone = kernel.distortion_of(hertz, truth.affine, encoding).undistorted(shown, order=3)
    far = tissue & (np.abs(moved) > 4)
    assert far.sum() > 50
    error = [np.abs(each - still)[far].mean() for each in (undone, shown)]
    assert error[0] < 0.3 * error[1]
    table = pd.read_csv(next(bent.rglob("*_displacement.tsv")), sep="\t")
    assert len(table) == 424 and 0.7 * PEAK < table["max_absolute"].max() <= 1.02 * PEAK
    assert table["mean"].min() < -3 and table["mean"].max() > 3


def test_runs_of_a_person_share_the_field(bent: Path) -> None:
    warped = []
    for run in (1, 2):
        truth = image(bent, f"*run-{run}_*boldref_desc-truth_fieldmap.nii.gz")
        pose = np.load(next(bent.rglob(f"*run-{run}_desc-truth_geometry.npz")))["bold_to_t1w"]
        points = np.random.default_rng(0).uniform(-40, 40, (3, 300))
        points[2] = np.abs(points[2])
        places = np.linalg.inv(pose @ truth.affine) @ np.vstack([points, np.ones(300)])
        warped.append(ndimage.map_coordinates(truth.get_fdata(), places[:3], order=3))
    np.testing.assert_allclose(warped[0], warped[1], atol=0.3)
    assert warped[0].std() > 2


def test_a_field_changes_nothing_else(bent: Path, straight: Path) -> None:
    changed = ("_bold.", "_desc-oracle_", "README.md", ".bidsignore")
    for path in straight.rglob("*"):
        if path.is_file():
            same = path.read_bytes() == (bent / path.relative_to(straight)).read_bytes()
            assert same == (not any(word in path.name for word in changed)) or (
                path.name == "README.md" and path.parent != straight
            ), path
    assert "PhaseEncodingDirection" not in sidecar(straight, "*_bold.json")
    assert not list(straight.rglob("*field*")) + list(straight.rglob("*displacement*"))


def test_the_oracle_looks_where_tissue_is_seen(bent: Path, straight: Path) -> None:
    table = pd.read_csv(next(bent.rglob("*_displacement.tsv")), sep="\t")
    far = (table["mean_absolute"] > 5).to_numpy()
    assert far.sum() > 5

    def steady(data: Path) -> np.ndarray:
        found = pd.read_csv(next(data.rglob("*run-1*_desc-oracle_timeseries.tsv")), sep="\t")
        return found.to_numpy()[:, far]

    # the signal is stretched or squeezed, but its tissue is the same
    ratio = steady(bent) / steady(straight)
    assert np.abs(ratio - np.median(ratio, axis=0)).max() < 0.004
    np.testing.assert_allclose(np.median(ratio, axis=0), 1, atol=0.5)


# ------------------------------------------------------------------ field maps


def head_of(magnitude: np.ndarray) -> np.ndarray:
    return ndimage.binary_erosion(magnitude > 0.3 * np.percentile(magnitude, 98), iterations=2)


def test_phases_hold_the_field(bent: Path) -> None:
    units = image(bent, "*_phasediff.nii.gz")
    raw = np.asarray(units.dataobj)
    assert raw.min() >= -4096 and raw.max() <= 4095 and np.abs(raw).max() > 4000
    said = sidecar(bent, "*_phasediff.json")
    delay = said["EchoTime2"] - said["EchoTime1"]
    truth = image(bent, "*acq-phasediff_desc-truth_fieldmap.nii.gz")
    np.testing.assert_array_equal(truth.affine, units.affine)
    inside = head_of(image(bent, "*acq-phasediff_magnitude1.nii.gz").get_fdata())
    left = np.exp(1j * (raw * np.pi / 4096 - 2 * np.pi * truth.get_fdata() * delay))
    assert 0.002 < np.angle(left[inside]).std() < 0.05

    phases = [image(bent, f"*_phase{k}.nii.gz") for k in (1, 2)]
    times = [sidecar(bent, f"*_phase{k}.json")["EchoTime"] for k in (1, 2)]
    assert times[0] < times[1]
    difference = (phases[1].get_fdata() - phases[0].get_fdata()) * np.pi / 4096
    truth = image(bent, "*acq-phases_desc-truth_fieldmap.nii.gz").get_fdata()
    inside = head_of(image(bent, "*acq-phases_magnitude1.nii.gz").get_fdata())
    left = np.exp(1j * (difference - 2 * np.pi * truth * (times[1] - times[0])))
    assert 0.002 < np.angle(left[inside]).std() < 0.05
    assert np.abs(difference[inside]).max() > np.pi  # each wraps on its own

    hertz = image(bent, "*acq-field_fieldmap.nii.gz").get_fdata()
    truth = image(bent, "*acq-field_desc-truth_fieldmap.nii.gz").get_fdata()
    inside = head_of(image(bent, "*acq-field_magnitude.nii.gz").get_fdata())
    assert 0.02 < (hertz - truth)[inside].std() < 1
    assert sidecar(bent, "*acq-field_fieldmap.json")["Units"] == "Hz"


def test_a_pair_is_distorted_both_ways(bent: Path) -> None:
    truth = image(bent, "*acq-pair_desc-truth_fieldmap.nii.gz")
    means, undone = [], []
    for name, direction in (("PA", "j"), ("AP", "j-")):
        said = sidecar(bent, f"*dir-{name}_epi.json")
        assert said["PhaseEncodingDirection"] == direction
        encoding = kernel.PhaseEncoding.from_bids(direction, said["TotalReadoutTime"])
        means.append(image(bent, f"*dir-{name}_epi.nii.gz").get_fdata().mean(-1))
        distortion = kernel.distortion_of(truth.get_fdata(), truth.affine, encoding)
        undone.append(distortion.undistorted(means[-1], order=3))
    far = np.abs(truth.get_fdata()) * READOUT * SMALL["voxel"] > 4
    far &= undone[0] > 1000
    apart, together = (np.abs(a - b)[far].mean() for a, b in (means, undone))
    assert together < 0.25 * apart


def test_field_maps_lie_in_a_pose_of_their_own_on_the_same_head(bent: Path) -> None:
    grids = [image(bent, f"*acq-{kind}_desc-truth_fieldmap.nii.gz").affine for kind in KINDS]
    grids.append(image(bent, "*_bold.nii.gz").affine)
    assert len({grid.tobytes() for grid in grids}) == 5
    said = sidecar(bent, "*acq-pair_dir-PA_epi.json")
    assert said["IntendedFor"] == [
        f"bids::sub-01/func/sub-01_task-rest_run-{run}_bold.nii.gz" for run in (1, 2)
    ]


def test_valid_bids(bent: Path) -> None:
    command = Path(sys.executable).with_name("bids-validator-deno")
    if not command.is_file():
        pytest.skip("bids-validator-deno is not installed beside this Python")
    for data in (bent, bent / "derivatives" / "phantom"):
        line = [str(command), str(data), "--format", "json", "--ignoreWarnings"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue.get("severity") == "error"] == []


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"distortion": 20.0}, "between 0 and 14"),
        ({"phase_encoding": "y"}, "none of i, i-"),
        ({"fieldmaps": ["fieldmap"]}, "none of phasediff"),
    ],
)
def test_bad_requests_write_nothing(tmp_path: Path, wrong: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        write_phantom(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
