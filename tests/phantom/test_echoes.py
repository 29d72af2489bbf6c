"""Echoes of the phantom: what decays, what grows with the echo time, and what does neither."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brainlm_bids.errors import UserError
from brainlm_bids.phantom import write_phantom
from brainlm_bids.phantom.acquisition import FIELD_MAP_KINDS, SWITCHES
from brainlm_bids.phantom.scene import GREY_LEVEL, NOISE

TIMES = (0.012, 0.028, 0.044)
SMALL = {"n_subjects": 1, "n_volumes": 8, "voxel": 8.0, "motion": "none", "seed": 4}
QUIET = dict.fromkeys(SWITCHES, False)


def made(folder: Path, **on: object) -> Path:
    return write_phantom(folder / "data", **SMALL, **(QUIET | on), echoes=TIMES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    return made(folder, coil_shading=True, dropout=True, distortion=8.0)


@pytest.fixture(scope="module")
def pulsating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pulsating")
    return made(folder, coil_shading=True, dropout=True, distortion=8.0, cardiac=True)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(
        tmp_path_factory.mktemp("everything") / "data",
        **SMALL | {"n_volumes": 3, "n_sessions": 1},
        **{"echoes": TIMES, "distortion": 8.0, "fieldmaps": FIELD_MAP_KINDS, "sbref": True},
        **{"slices": "interleaved", "multiband": 2, "lesion": True},
    )


def data_of(folder: Path, pattern: str) -> np.ndarray:
    return nib.Nifti1Image.from_filename(next(folder.rglob(pattern))).get_fdata()


def series(folder: Path) -> np.ndarray:
    """(echoes, X, Y, Z, T)."""
    return np.stack([data_of(folder, f"*_echo-{k}_bold.nii.gz") for k in (1, 2, 3)])


def tissue(folder: Path) -> np.ndarray:
    """What is tissue, and is not displaced."""
    still = np.abs(data_of(folder, "*boldref_desc-truth_fieldmap.nii.gz")) < 1
    return (data_of(folder, "*_desc-tissue_dseg.nii.gz") > 0) & still


def test_the_signal_decays_with_the_true_t2star(plain: Path) -> None:
    truth = data_of(plain, "*_desc-truth_T2starmap.nii.gz")
    inside = tissue(plain)
    means = np.log(series(plain).mean(-1)[:, inside])
    slope = np.polyfit(TIMES, means, 1)[0]
    np.testing.assert_allclose(-1 / slope, truth[inside], rtol=0.05)
    assert truth[inside].min() < 0.035 and np.percentile(truth[inside], 98) > 0.08
    grey = (data_of(plain, "*_desc-tissue_dseg.nii.gz") == 1) & inside
    assert 0.04 < np.median(truth[grey]) < 0.06 and np.log(truth[grey]).std() > 0.05
    for k, time in enumerate(TIMES):
        sidecar = json.loads(next(plain.rglob(f"*_echo-{k + 1}_bold.json")).read_text())
        assert sidecar["EchoTime"] == time


def test_oxygenation_grows_with_the_echo_time_and_pulsation_does_not(
    plain: Path, pulsating: Path
) -> None:
    inside = tissue(plain)
    values = series(plain)[:, inside]
    change = values / values.mean(-1, keepdims=True) - 1
    clear = change[1].std(-1) > np.percentile(change[1].std(-1), 80)
    for k in (0, 2):
        slope = (change[k] * change[1])[clear].sum(-1) / (change[1] ** 2)[clear].sum(-1)
        # neighbours of unlike decay mix in a voxel
        assert np.median(slope) == pytest.approx(TIMES[k] / TIMES[1], rel=0.03)
    added = (series(pulsating)[:, inside] - values) / values.mean(-1, keepdims=True)
    clear = added[1].std(-1) > np.percentile(added[1].std(-1), 95)
    for k in (0, 2):
        slope = (added[k] * added[1])[clear].sum(-1) / (added[1] ** 2)[clear].sum(-1)
        assert np.median(slope) == pytest.approx(1, rel=0.12)


def test_echoes_have_noise_of_their_own(tmp_path: Path, plain: Path) -> None:
    noisy = made(tmp_path, coil_shading=True, dropout=True, distortion=8.0, thermal_noise=True)
    inside = tissue(plain)
    noise = (series(noisy) - series(plain))[:, inside].reshape(3, -1)
    np.testing.assert_allclose(noise.std(1), NOISE * GREY_LEVEL, rtol=0.05)
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.05


def test_everything_at_once_is_valid_bids(everything: Path) -> None:
    names = {path.name for path in everything.rglob("*.nii.gz")}
    for k in (1, 2, 3):
        stem = f"sub-01_ses-01_task-rest_echo-{k}"
        assert {f"{stem}_bold.nii.gz", f"{stem}_sbref.nii.gz"} < names
    said = json.loads(next(everything.rglob("*acq-phasediff_phasediff.json")).read_text())
    assert len(said["IntendedFor"]) == 6
    command = Path(sys.executable).with_name("bids-validator-deno")
    if not command.is_file():
        pytest.skip("bids-validator-deno is not installed beside this Python")
    for data in (everything, everything / "derivatives" / "phantom"):
        line = [str(command), str(data), "--format", "json", "--ignoreWarnings"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue.get("severity") == "error"] == []


@pytest.mark.parametrize("times", [(0.03,), (0.03, 0.02), (12.0, 28.0), (0.0, 0.02)])
def test_bad_echo_times(tmp_path: Path, times: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="echo times must be two or more"):
        write_phantom(tmp_path / "out", echoes=times)
    assert not (tmp_path / "out").exists()
