"""Confounds against nipype's functions, FSL's formula, and real fMRIPrep files."""

import doctest
import importlib.util
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brainlm_bids.preproc.denoising import confounds
from brainlm_bids.preproc.motion.realign import parameters_to_matrices


def parameters(n_volumes: int = 60, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).standard_normal((n_volumes, 6))
    return (steps * ([0.05] * 3 + [0.001] * 3)).cumsum(axis=0)


def brain_series(n_volumes: int = 60, n_voxels: int = 500, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n_volumes, n_voxels))
    noise[1:] += 0.4 * noise[:-1]
    return (rng.uniform(600, 1200, n_voxels) + 9 * noise).astype(np.float32)


def yule_walker(x: np.ndarray, order: int, rxx: None = None) -> np.ndarray:
    """nitime's AR_est_YW, that nipype calls without depending on it: biased autocovariances."""
    centred = x.astype(np.float64) - x.mean(dtype=np.float64)
    covariance = np.correlate(centred, centred, "full")[len(x) - 1 :] / len(x)
    return np.array([covariance[1] / covariance[0]])


def test_doctests() -> None:
    assert doctest.testmod(confounds).failed == 0


def test_framewise_displacement_is_nipypes(tmp_path: Path) -> None:
    from nipype.algorithms.confounds import FramewiseDisplacement

    values = parameters()
    np.savetxt(tmp_path / "run.par", values[:, [3, 4, 5, 0, 1, 2]], fmt="%.12f")
    result = FramewiseDisplacement(
        in_file=str(tmp_path / "run.par"),
        parameter_source="FSL",
        out_file=str(tmp_path / "fd.txt"),
        out_figure=str(tmp_path / "fd.pdf"),
    ).run()
    theirs = np.loadtxt(result.outputs.out_file, skiprows=1)
    ours = confounds.framewise_displacement(values)
    assert np.isnan(ours[0])
    np.testing.assert_allclose(ours[1:], theirs, atol=1e-6, rtol=0)


def test_dvars_are_nipypes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nipype.algorithms import confounds as theirs

    if importlib.util.find_spec("nitime") is None:
        monkeypatch.setattr(theirs, "_AR_est_YW", yule_walker)
    monkeypatch.setattr(confounds, "BLOCK_VOXELS", 128)
    series = brain_series()
    series[:, 7] = 800.0  # without variance
    image = series.T.reshape(10, 10, 5, -1)
    nib.Nifti1Image(image, np.eye(4)).to_filename(tmp_path / "bold.nii")
    nib.Nifti1Image(np.ones((10, 10, 5), np.uint8), np.eye(4)).to_filename(tmp_path / "mask.nii")
    standardised, plain, voxelwise = theirs.compute_dvars(
        str(tmp_path / "bold.nii"), str(tmp_path / "mask.nii"), remove_zerovariance=True
    )
    ours, ours_standardised, ours_voxelwise = confounds.dvars(series)
    assert np.isnan([ours[0], ours_standardised[0], ours_voxelwise[0]]).all()
    np.testing.assert_allclose(ours[1:], plain, rtol=1e-6)
    np.testing.assert_allclose(ours_standardised[1:], standardised, rtol=1e-6)
    np.testing.assert_allclose(ours_voxelwise[1:], voxelwise, rtol=1e-6)


def test_dvars_leave_out_what_is_not_finite() -> None:
    series = brain_series()
    broken = np.column_stack([series, np.full(len(series), np.nan)])
    np.testing.assert_allclose(confounds.dvars(broken)[1][1:], confounds.dvars(series)[1][1:])
    assert np.isnan(confounds.dvars(np.ones((10, 4)))[1]).all()


def test_rmsd_is_fsls() -> None:
    values, centre = parameters(), np.array([3.0, -20.0, 11.0])
    matrices = parameters_to_matrices(values, centre)
    ours = confounds.rmsd(matrices, values[:, :3])
    # FSL's rmsdiff, of the matrices from volume to reference
    push = np.linalg.inv(matrices)
    difference = push[1:] @ np.linalg.inv(push[:-1]) - np.eye(4)
    a, shift = difference[:, :3, :3], difference[:, :3, :3] @ centre + difference[:, :3, 3]
    trace = np.trace(a.transpose(0, 2, 1) @ a, axis1=1, axis2=2)
    theirs = np.sqrt(80.0**2 / 5 * trace + (shift**2).sum(axis=1))
    assert np.isnan(ours[0])
    np.testing.assert_allclose(ours[1:], theirs, atol=1e-9)


@pytest.mark.parametrize(("n_volumes", "tr"), [(156, 2.0), (490, 0.735), (20, 1.0), (64, 2.0)])
def test_cosines_are_nipypes(n_volumes: int, tr: float) -> None:
    from nipype.algorithms.confounds import _cosine_drift

    theirs = _cosine_drift(128.0, np.arange(n_volumes) * tr)[:, :-1]
    ours = confounds.cosine_drift(n_volumes, tr)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def table(n_volumes: int = 156, n_dummy: int = 2, **changes: object) -> dict[str, np.ndarray]:
    values = parameters(n_volumes)
    values[50:, 0] += 2.0  # one jump
    arguments: dict = {
        "parameters": values,
        "matrices": parameters_to_matrices(values, np.zeros(3)),
        "global_signal": np.arange(n_volumes) + 100.0,
        "csf": np.ones(n_volumes),
        "white_matter": np.ones(n_volumes),
        "series": brain_series(n_volumes, 200),
        "n_dummy": n_dummy,
        "tr": 2.0,
    }
    return confounds.confounds_table(**(arguments | changes))


def test_table_has_one_value_per_volume_and_expansions() -> None:
    columns = table()
    assert all(c.shape == (156,) and c.dtype == np.float64 for c in columns.values())
    np.testing.assert_allclose(columns["global_signal_derivative1"][1:], 1.0)
    assert np.isnan(columns["global_signal_derivative1"][0])
    np.testing.assert_allclose(columns["trans_x_power2"], columns["trans_x"] ** 2)
    np.testing.assert_allclose(
        columns["rot_z_derivative1_power2"][1:], np.diff(columns["rot_z"]) ** 2
    )


def test_one_hot_columns() -> None:
    columns = table()
    names = [name for name in columns if name.startswith("non_steady_state_outlier")]
    assert names == ["non_steady_state_outlier00", "non_steady_state_outlier01"]
    assert [int(np.argmax(columns[name])) for name in names] == [0, 1]
    spikes = {int(np.argmax(c)) for n, c in columns.items() if n.startswith("motion_outlier")}
    assert 50 in spikes
    expected = (columns["framewise_displacement"] > 0.5) | (columns["std_dvars"] > 1.5)
    assert spikes == set(np.flatnonzero(expected[2:]) + 2)
    assert not [
        n for n in table(fd_spike_threshold=99, dvars_spike_threshold=99) if "motion_o" in n
    ]


def test_cosines_begin_after_the_dummy_volumes() -> None:
    columns = table(n_dummy=3)
    cosines = np.column_stack([c for n, c in columns.items() if n.startswith("cosine")])
    assert np.all(cosines[:3] == 0)
    np.testing.assert_allclose(cosines[3:], confounds.cosine_drift(153, 2.0))


def test_without_tissue_and_matrices() -> None:
    columns = table(csf=None, white_matter=None, matrices=None)
    assert not {"csf", "white_matter", "rmsd"} & columns.keys()


def test_lengths_are_checked() -> None:
    with pytest.raises(ValueError, match="csf"):
        table(csf=np.ones(10))


@pytest.mark.shared
def test_names_and_order_are_fmripreps(shared: Path) -> None:
    folder = shared / "data" / "fmriprep-confounds-examples"
    header = (folder / "test-v21_desc-confounds_timeseries.tsv").open().readline().split()
    families = ("cosine", "non_steady", "motion_outlier")
    plain = [name for name in table() if not name.startswith(families)]
    assert set(plain) <= set(header)
    # fMRIPrep lists a signal's derivative and squares in varying order: compare the signals
    signals = [n for n in plain if "derivative" not in n and "power" not in n]
    assert signals == [n for n in header if n in signals]
    kinds = [n.rstrip("0123456789") for n in table()]
    theirs = [n.rstrip("0123456789") for n in header if "comp_cor" not in n]
    order = ("rmsd", "cosine", "non_steady_state_outlier", "trans_x", "motion_outlier")
    assert sorted(order, key=kinds.index) == sorted(order, key=theirs.index) == list(order)


@pytest.mark.shared
def test_fd_of_a_real_fmriprep_table(shared: Path) -> None:
    pd = pytest.importorskip("pandas")
    folder = shared / "data" / "fmriprep-confounds-examples"
    file = folder / "test-v21_desc-confounds_timeseries.tsv"
    real = pd.read_csv(file, sep="\t", na_values="n/a")
    ours = confounds.framewise_displacement(real[list(confounds.MOTION_NAMES)].to_numpy())
    theirs = real["framewise_displacement"].to_numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
