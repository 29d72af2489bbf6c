"""Runs without volumes: parcel series that others made, and fMRIPrep's grayordinates."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.app.context import start_of
from brainlm_bids.bids.given import given_timeseries
from brainlm_bids.bids.timeseries import read_timeseries, stem_of
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_tsv
from brainlm_bids.parcels.operator import label_means
from brainlm_bids.parcels.scaling import recording_stats, scale
from brainlm_bids.settings import Settings

VOLUMES, TR = 60, 0.735
NAMES = resources.parcels().names
Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def series() -> Array:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(VOLUMES, 5)) @ rng.normal(size=(5, 424))
    values += 100 + rng.normal(size=(VOLUMES, 424))
    values[:, 7] = np.nan
    return values


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    description = {"Name": "raw", "BIDSVersion": "1.8.0"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    return folder


def _call(raw: Path, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "brainlm_bids",
        str(raw),
        str(out),
        "participant",
    ]
    command += ["-w", str(out.parent / "work"), "--offline", "--nprocs", "1", *flags]
    environment = {k: v for k, v in os.environ.items() if k != "TEMPLATEFLOW_HOME"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_files_of_all_kinds_are_read(series: Array, tmp_path: Path) -> None:
    shuffled = np.random.default_rng(1).permutation(424)
    table = pd.DataFrame(series[:, shuffled], columns=[NAMES[k] for k in shuffled])
    table.to_csv(tmp_path / "a.tsv", sep="\t", index=False, na_rep="n/a")
    pd.DataFrame(series).to_csv(tmp_path / "b.csv", index=False, na_rep="nan")
    np.savetxt(tmp_path / "c.dat", series)
    np.save(tmp_path / "d.npy", series)
    for name in ("a.tsv", "b.csv", "c.dat", "d.npy"):
        found = read_timeseries(tmp_path / name, NAMES)
        assert np.allclose(found.values, series, equal_nan=True) and found.tr is None, name
    (tmp_path / "d.json").write_text('{"RepetitionTime": 1.5}')
    assert read_timeseries(tmp_path / "d.npy", NAMES).tr == 1.5


def _write_ptseries(path: Path, series: Array, tr: float) -> NDArray[np.float32]:
    """A CIFTI parcel series, and the values that are in it."""
    vertices = {"CIFTI_STRUCTURE_CORTEX_LEFT": 424}
    parcels = nb.cifti2.ParcelsAxis(
        [f"{name}_ROI" for name in NAMES],
        [[] for _ in NAMES],
        [{"CIFTI_STRUCTURE_CORTEX_LEFT": np.array([k])} for k in range(424)],
        np.eye(4),
        (2, 2, 2),
        vertices,
    )
    data = np.nan_to_num(series).astype(np.float32)
    time = nb.cifti2.SeriesAxis(0, tr, len(data))
    nb.Cifti2Image(data, header=(time, parcels)).to_filename(path)
    return data


def test_a_cifti_parcel_series_is_read(series: Array, tmp_path: Path) -> None:
    path = tmp_path / "x.ptseries.nii"
    data = _write_ptseries(path, series, TR)
    found = read_timeseries(path, NAMES)
    assert np.allclose(found.values, data) and found.tr == pytest.approx(TR)


def test_what_is_no_series_of_a424_is_said(series: Array, tmp_path: Path) -> None:
    cases = {
        "short.npy": (series[:, :423], "expected (volumes, 424), a column for each parcel"),
        "turned.npy": (series.T, "transpose it"),
    }
    for name, (values, said) in cases.items():
        np.save(tmp_path / name, values)
        with pytest.raises(UserError, match=re.escape(said)):
            read_timeseries(tmp_path / name, NAMES)
    other = pd.DataFrame(series, columns=[f"Schaefer_{k}" for k in range(424)])
    other.to_csv(tmp_path / "other.tsv", sep="\t", index=False)
    with pytest.raises(UserError, match="'Schaefer_0' is no parcel of A424"):
        read_timeseries(tmp_path / "other.tsv", NAMES)
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"broken\.npy: cannot be read"):
        read_timeseries(tmp_path / "broken.npy", NAMES)


@pytest.mark.parametrize(
    ("sidecar", "given", "line"),
    [
        ({"RepetitionTime": 735}, None, "735 is not a time in seconds; 735 ms are 0.735 s"),
        ({"SamplingFrequency": 0.001}, None, "1000 is not a time in seconds; 1000 ms are 1 s"),
        ({"RepetitionTime": 735}, 0.735, None),
        ({"RepetitionTime": 0.735}, None, None),
        ({}, None, "--timeseries-tr SECONDS"),
    ],
)
def test_a_repetition_time_that_cannot_be_meant_is_the_problem_of_its_series(
    series: Array, tmp_path: Path, sidecar: dict[str, float], given: float | None, line: str | None
) -> None:
    path = tmp_path / "sub-01_task-rest.npy"
    np.save(path, series)
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    settings = Settings(tmp_path, tmp_path / "out", timeseries=(path,), timeseries_tr=given)
    (run,) = given_timeseries(settings, NAMES)
    assert run.problem is None if line is None else line in (run.problem or "")


def test_halfpipes_sampling_frequency_is_a_time_and_is_not_used(
    series: Array, tmp_path: Path
) -> None:
    for name, tr in (("sub-01_task-rest", 0.5), ("sub-01_task-rest_feature-a_timeseries", None)):
        np.save(tmp_path / f"{name}.npy", series)
        (tmp_path / f"{name}.json").write_text('{"SamplingFrequency": 2.0}')
        assert read_timeseries(tmp_path / f"{name}.npy", NAMES).tr == tr


@pytest.mark.parametrize(
    ("recorded", "given", "used"),
    [(0.8, 2.0, 2.0), (2.0, 2.0, 2.0), (0.8, None, 0.8), (800.0, 0.8, 0.8), (None, 2.0, 2.0)],
)
def test_repetition_times_that_contradict_each_other_are_warned_about(
    series: Array, tmp_path: Path, recorded: float | None, given: float | None, used: float
) -> None:
    path = tmp_path / "sub-01_task-rest.npy"
    np.save(path, series)
    if recorded is not None:
        path.with_suffix(".json").write_text(json.dumps({"RepetitionTime": recorded}))
    settings = Settings(tmp_path, tmp_path / "out", timeseries=(path,), timeseries_tr=given)
    (run,) = given_timeseries(settings, NAMES)
    assert (run.problem, run.tr) == (None, used)
    warned = [(one.kind, "0.8 s; the 2 s of --timeseries-tr" in one.text) for one in run.warnings]
    assert warned == ([("tr_mismatch", True)] if (recorded, given) == (0.8, 2.0) else [])


def test_the_time_of_a_cifti_series_and_of_its_sidecar_are_compared(
    series: Array, tmp_path: Path
) -> None:
    path = tmp_path / "sub-01_task-rest.ptseries.nii"
    _write_ptseries(path, series, 2.0)
    (tmp_path / "sub-01_task-rest.json").write_text(json.dumps({"RepetitionTime": 0.8}))
    settings = Settings(tmp_path, tmp_path / "out", timeseries=(path,))
    (run,) = given_timeseries(settings, NAMES)
    (warning,) = run.warnings
    assert run.tr == 0.8 and "in the image header is 2 s; the 0.8 s of the sidecar" in warning.text


@pytest.mark.parametrize(
    ("recorded", "start"), [(6.975, 6.975), (None, 0.0), ("soon", 0.0), (float("nan"), 0.0)]
)
def test_a_given_series_begins_when_its_sidecar_says(
    series: Array, tmp_path: Path, recorded: object, start: float
) -> None:
    path = tmp_path / "sub-01_task-rest.npy"
    np.save(path, series)
    about = {"RepetitionTime": 0.735, "StartTime": recorded}
    path.with_suffix(".json").write_text(json.dumps(about))
    settings = Settings(tmp_path, tmp_path / "out", timeseries=(path,))
    (run,) = given_timeseries(settings, NAMES)
    assert start_of(run) == start


def test_runs_are_named_after_files() -> None:
    name = "sub-01_ses-2_task-rest_run-1_space-MNI152NLin6Asym_atlas-A424_timeseries.ptseries.nii"
    assert stem_of(Path(name)) == "sub-01_ses-2_task-rest_run-1"
    assert stem_of(Path("patient 7.dat")) == "sub-patient7_task-unknown"


def test_given_series_go_through_scaling_and_the_model(
    series: Array, raw: Path, tmp_path: Path, shared: Path
) -> None:
    files = [tmp_path / "sub-07_task-rest_timeseries.npy", tmp_path / "bad.npy"]
    np.save(files[0], series)
    np.save(files[1], series[:, :400])
    out = tmp_path / "out"
    flags = ["--timeseries", *map(str, files), "--timeseries-tr", str(TR)]
    flags += ["--atlas", str(shared / "atlas" / "A424+2mm.nii.gz"), "--model", "random:tiny"]
    done = _call(raw, out, *flags)
    assert done.returncode == 1 and "expected (volumes, 424)" in done.stdout + done.stderr
    stem = "sub-07_task-rest_space-MNI152NLin6Asym_atlas-A424_desc-"
    func = out / "sub-07" / "func"
    names, robust = read_tsv(func / f"{stem}robust_timeseries.tsv")
    expected, filled = scale(series, recording_stats(series))
    assert tuple(names) == NAMES and np.flatnonzero(filled).tolist() == [7]
    assert np.allclose(robust, expected, rtol=1e-5, atol=1e-6)
    said = read_json(func / f"{stem}denoised_timeseries.json")
    assert said["Denoising"] == "none, as given" and said["Sources"] == [files[0].as_uri()]
    assert said["HighPassCutoff"] is None and said["SliceTimingCorrected"] is None
    assert said["MissingParcels"] == {NAMES[7]: None}
    assert (
        func / f"{stem}windows_embeddings.tsv".replace("_desc", "_model-randomtiny_desc")
    ).is_file()
    assert (out / "sub-07.html").is_file()
    missing = _call(raw, tmp_path / "o2", *flags[:2], *flags[5:])
    assert missing.returncode == 1 and "--timeseries-tr SECONDS" in missing.stdout + missing.stderr


def test_means_by_label_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 425, size=3000)
    labels[labels == 9] = 0
    values = rng.normal(size=(11, 3000))
    covered = rng.random(3000) > 0.3
    means, coverage = label_means(values, labels, covered)
    for parcel in range(424):
        own = (labels == parcel + 1) & covered
        assert coverage.n_covered[parcel] == own.sum()
        expected = values[:, own].mean(axis=1) if own.any() else np.full(11, np.nan)
        assert np.allclose(means[:, parcel], expected, equal_nan=True)
    assert np.isnan(means[:, 8]).all()
    limited, unchanged = label_means(values, labels, covered, 0.7)
    np.testing.assert_array_equal(unchanged.fraction, coverage.fraction)
    hardly = np.array(
        [np.mean(covered[labels == k + 1]) < 0.7 if k != 8 else 1 for k in range(424)]
    )
    assert 100 < hardly.sum() < 324
    np.testing.assert_array_equal(limited, np.where(hardly, np.nan, means))


def test_grayordinates_of_fmriprep(series: Array, raw: Path, tmp_path: Path, shared: Path) -> None:
    """Each grayordinate follows its parcel: the parcels must come back, filtered."""
    from brainlm_bids.preproc.denoising.temporal import highpass_matrix

    labels = nb.load(shared / "atlas" / "A424.dlabel.nii")
    index = np.asarray(labels.dataobj).ravel().astype(int)
    rng = np.random.default_rng(1)
    parcels = np.concatenate([np.zeros((VOLUMES, 1)), np.nan_to_num(series)], axis=1)
    data = parcels[:, index] + 0.1 * rng.normal(size=(VOLUMES, len(index)))
    data[:, index == 8] = 0
    for parcel, share in ((20, 0.6), (21, 0.4)):  # without data, in that share of the parcel
        points = np.flatnonzero(index == parcel + 1)
        data[:, points[: round(share * len(points))]] = 0
    root = tmp_path / "fmriprep"
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    stem = func / "sub-01_task-rest"
    axes = (nb.cifti2.SeriesAxis(0, TR, VOLUMES), labels.header.get_axis(1))
    image = nb.Cifti2Image(data.astype(np.float32), header=axes)
    image.to_filename(f"{stem}_space-fsLR_den-91k_bold.dtseries.nii")
    sidecar = Path(f"{stem}_space-fsLR_den-91k_bold.json")
    sidecar.write_text(json.dumps({"RepetitionTime": TR, "SliceTimingCorrected": True}))
    columns = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    table = pd.DataFrame(rng.normal(0, 1e-3, size=(VOLUMES, 6)), columns=columns)
    table["framewise_displacement"] = 0.1
    table.to_csv(f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False)
    made = {"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.1.0"}]}
    (root / "dataset_description.json").write_text(json.dumps(made))
    out = tmp_path / "out"
    flags = ["-d", f"fmriprep={root}", "--model", "none"]
    flags += ["--atlas", str(shared / "atlas" / "A424+2mm.nii.gz")]
    flags += ["--cifti-atlas", str(shared / "atlas" / "A424.dlabel.nii")]
    refused = _call(raw, out, *flags, "--input-space", "fsLR")
    assert refused.returncode == 1 and "ICA-AROMA needs voxels" in refused.stdout + refused.stderr
    done = _call(raw, out, *flags, "--denoise", "none")
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.asarray(read_tsv(next(out.rglob("*desc-denoised_timeseries.tsv")))[1])
    matrix = highpass_matrix(VOLUMES, TR, 100.0)
    for parcel in (0, 100, 300, 423):
        truth = matrix @ (series[:, parcel] - series[:, parcel].mean())
        assert np.corrcoef(found[:, parcel], truth)[0, 1] > 0.99
    said = read_json(next(out.rglob("*desc-denoised_timeseries.json")))
    assert said["SliceTimingCorrected"] is True and said["MinimumParcelCoverage"] == 0.5
    assert said["MissingParcels"] == {NAMES[7]: 0, NAMES[20]: pytest.approx(0.4, abs=0.02)}
    robust = read_json(next(out.rglob("*desc-robust_timeseries.json")))
    assert robust["FilledParcels"] == [NAMES[7], NAMES[20]]
    assert [one["Text"] for one in robust["Warnings"] if one["Kind"] == "filled_parcels"] == [
        "2 parcels were replaced by their median for the model: 1 without data or variation, 1 of "
        "which less than 50 % lies in the brain of the run."
    ]
    names, values = read_tsv(next(out.rglob("*desc-quality_metrics.tsv")))
    quality = dict(zip(names, values[0], strict=True))
    absent = read_json(next(out.rglob("*desc-quality_metrics.json")))["NotAvailable"]
    assert {name for name in names if np.isnan(quality[name])} == set(absent)
    assert quality["size_t"] == VOLUMES and "grayordinates" in absent["snr"]
    assert 0 < quality["gcor"] < 1 and quality["fd_mean"] == pytest.approx(0.1)
    assert {"carpetplot", "confoundcorr"} <= {
        path.name.partition("_desc-")[2].partition("_")[0] for path in out.rglob("figures/*")
    }
    page = (out / "sub-01.html").read_text()
    assert "Parcels hardly covered" in page and "less than 50" in page
