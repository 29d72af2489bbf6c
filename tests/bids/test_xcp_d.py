"""XCP-D's derivatives: its files, laid down from a known signal, give the series of that signal."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest
from methods_claims import check
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.signal import detrend

from brainlm_bids import resources
from brainlm_bids.bids.preprocessed import Candidate, find_preprocessed
from brainlm_bids.bids.xcp_d import XCP_D, filters_of, regressed
from brainlm_bids.files import read_json, read_rows, read_tsv
from brainlm_bids.preproc.registration.transforms import ItkTransform

Array = NDArray[np.float64]
SPACE, OTHER = "MNI152NLin6Asym", "MNI152NLin2009cAsym"
ACQUIRED, DROPPED, TR = 64, 4, 2.0
VOLUMES = ACQUIRED - DROPPED
CENSORED = [0, 1, 17, 30, 31, 32, 45]
KEPT = np.setdiff1d(np.arange(VOLUMES), CENSORED)
BAND = (0.01, 0.1)
# The world of the other template is ours, turned and stretched.
OTHER_OF_SPACE = np.array([[0.97, 0.03, 0, 2], [-0.03, 0.98, 0, -3], [0, 0, 1.02, 1], [0, 0, 0, 1]])


def _preprocessed(points: Array) -> Array:
    """What fMRIPrep made of a run at points (P, 3) of the template: (T, P), smooth in space."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(-60, 60, size=(30, 3))
    courses = np.cumsum(rng.normal(size=(VOLUMES, 30)), axis=0)
    courses[CENSORED] += 30 * rng.normal(size=(len(CENSORED), 30))
    maps = np.exp(-((points[:, None] - centres) ** 2).sum(axis=2) / (2 * 18.0**2))
    return (1000 + 10 * courses @ maps.T) * _inside(points)


def _inside(points: Array) -> NDArray[np.bool_]:
    return np.asarray(((points / [68, 88, 70] - [0, -0.2, 0.1]) ** 2).sum(axis=1) < 1)


def _cleaned(series: Array) -> Array:
    """What XCP-D makes of (T, V): interpolated at censored volumes, without trend, filtered."""
    from nilearn.signal import butterworth

    result = np.zeros(series.shape)
    inside = (series != 0).any(axis=0)
    series = series[:, inside]
    whole = CubicSpline(KEPT, series[KEPT], axis=0)(np.arange(VOLUMES).clip(KEPT[0], KEPT[-1]))
    whole = detrend(whole, axis=0)
    high, low = BAND
    result[:, inside] = butterworth(whole, 1 / TR, low_pass=low, high_pass=high, order=2)
    return result


def _grid() -> tuple[tuple[int, int, int], Array, Array]:
    shape, size = (36, 43, 36), 5.0
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = -size * (np.array(shape) - 1) / 2 + [0, -18, 8]
    index = np.argwhere(np.ones(shape, dtype=bool))
    return shape, affine, index @ affine[:3, :3].T + affine[:3, 3]


def _table(path: Path, columns: dict[str, Iterable[Any]]) -> None:
    with path.open("w") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _tables(func: Path, stem: str, *, filtered: str = "", hashed: str = "") -> None:
    """The tables beside a series, of all volumes that XCP-D did not leave out at the start."""
    rng = np.random.default_rng(1)
    end = f"_hash-{hashed}" if hashed else ""
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    motion = {f"{name}{end}": rng.normal(0, 1e-3, VOLUMES) for name in names}
    displacement = np.full(VOLUMES, 0.1)
    displacement[CENSORED] = 2.5
    motion[f"framewise_displacement{end}"] = displacement
    _table(func / f"{stem}{filtered}_motion.tsv", motion)
    outliers = np.isin(np.arange(VOLUMES), CENSORED).astype(int)
    _table(func / f"{stem}_outliers.tsv", {f"framewise_displacement{end}": outliers})
    design = ("global_signal", "csf", "trans_x", "motion_outlier00", "linear_trend")
    _table(
        func / f"{stem}_desc-preproc_design.tsv",
        {f"{name}{end}": rng.normal(size=VOLUMES) for name in design},
    )


def _quality(func: Path, name: str) -> None:
    row = {"sub": ["01"], "num_dummy_volumes": [DROPPED], "num_censored_volumes": [len(CENSORED)]}
    _table(func / f"{name}_desc-linc_qc.tsv", row)


def _sidecar(path: Path, *sources: str) -> None:
    band = {"High-pass cutoff (Hz)": BAND[0], "Low-pass cutoff (Hz)": BAND[1], "Filter order": 2}
    values = {
        "RepetitionTime": TR,
        "TaskName": "rest",
        "SliceTimingCorrected": False,
        "SoftwareFilters": {"Bandpass filter": band},
        "Sources": list(sources),
    }
    path.write_text(json.dumps(values))


def _preproc(name: str) -> str:
    return f"bids:preprocessed:sub-01/func/{name}_desc-preproc_bold.nii.gz"


def _volumes(func: Path, name: str, data: Array, desc: str = "denoised") -> None:
    """A series (T, P) on the grid; as after nilearn's masking, the header has a TR of 1 s."""
    shape, affine, _ = _grid()
    image = nb.Nifti1Image(data.T.reshape(*shape, -1).astype(np.float32), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((*image.header.get_zooms()[:3], 1.0))
    image.to_filename(func / f"{name}_desc-{desc}_bold.nii.gz")


def _description(root: Path, version: str = "26.1.1") -> None:
    made = [{"Name": "xcp_d", "Version": version}, {"Name": "fMRIPrep", "Version": "25.2.4"}]
    text = json.dumps({"Name": "XCP-D", "BIDSVersion": "1.10.0", "GeneratedBy": made})
    (root / "dataset_description.json").write_text(text)


def _write_volumes(root: Path) -> None:
    """One subject: a run in linc mode, smoothed, interpolated and joined series, 2009cAsym."""
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    _description(root)
    _, _, points = _grid()
    cleaned = _cleaned(_preprocessed(points))
    stem = "sub-01_task-rest_run-1"
    name = f"{stem}_space-{SPACE}_res-2"
    _volumes(func, name, cleaned[KEPT])
    _sidecar(func / f"{name}_desc-denoised_bold.json", _preproc(name))
    _volumes(func, name, -cleaned[KEPT], "denoisedSmoothed")
    _volumes(func, name, -cleaned, "interpolated")
    _tables(func, stem)
    _quality(func, name)
    joined = f"sub-01_task-rest_space-{SPACE}_res-2"
    _volumes(func, joined, np.concatenate([cleaned[KEPT], cleaned]))
    _sidecar(
        func / f"{joined}_desc-denoised_bold.json",
        *(
            f"bids::sub-01/func/sub-01_task-rest_{run}_space-{SPACE}_desc-denoised_bold.nii.gz"
            for run in ("run-1", "run-2")
        ),
    )
    _tables(func, "sub-01_task-rest")
    moved = (points - OTHER_OF_SPACE[:3, 3]) @ np.linalg.inv(OTHER_OF_SPACE[:3, :3]).T
    name = f"sub-01_task-nback_space-{OTHER}"
    _volumes(func, name, _cleaned(_preprocessed(moved))[KEPT])
    _sidecar(func / f"{name}_desc-denoised_bold.json", _preproc(name))
    _tables(func, "sub-01_task-nback", filtered="_desc-filtered")


def _halves(path: Path) -> Path:
    """Another parcellation: the left and the right half of the brain."""
    shape, affine, points = _grid()
    labels = np.where(points[:, 0] < 0, 1, 2) * _inside(points)
    nb.Nifti1Image(labels.reshape(shape).astype(np.int16), affine).to_filename(path)
    return path


def _write_fmriprep(root: Path) -> float:
    """What one of the runs was made from; the factor that brings it to a median of 10000."""
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    _, _, points = _grid()
    values = _preprocessed(points)
    bright = np.repeat(values[:1] * 1.5, DROPPED, axis=0)
    name = f"sub-01_task-rest_run-1_space-{SPACE}_res-2"
    _volumes(func, name, np.concatenate([bright, values]), "preproc")
    return float(10_000 / np.median(values[KEPT][:, _inside(points)]))


def _raw(folder: Path) -> Path:
    (folder / "sub-01" / "func").mkdir(parents=True)
    description = {"Name": "raw", "BIDSVersion": "1.8.0"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    return folder


def _call(
    raw: Path,
    xcp_d: Path,
    out: Path,
    *flags: str,
    home: Path | None = None,
    before: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brainlm_bids", str(raw), str(out), "participant"]
    command += ["-d", f"xcp_d={xcp_d}", *([f"fmriprep={before}"] if before else [])]
    command += ["-w", str(out.parent / "work"), "--offline"]
    command += ["--model", "none", "--nprocs", "1", *flags]
    environment = {k: v for k, v in os.environ.items() if k != "TEMPLATEFLOW_HOME"}
    if home is not None:
        environment["TEMPLATEFLOW_HOME"] = str(home)
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _templateflow(folder: Path) -> Path:
    import ants

    home = folder / f"tpl-{SPACE}"
    home.mkdir(parents=True)
    text = folder / "affine.txt"
    text.write_bytes(ItkTransform.from_matrix(OTHER_OF_SPACE).content)
    name = f"tpl-{SPACE}_from-{OTHER}_mode-image_xfm.h5"
    ants.write_transform(ants.read_transform(str(text)), str(home / name))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, float]:
    """XCP-D's folder, the outputs, and the factor of the run whose source is there."""
    folder = tmp_path_factory.mktemp("volumes")
    _write_volumes(folder / "xcp_d")
    flags = ["--atlas", "A424approx", "--max-bad-volumes", "0.3"]
    flags += ["--parcellation", str(_halves(folder / "halves.nii.gz"))]
    home, before = _templateflow(folder / "templateflow"), folder / "fmriprep"
    factor = _write_fmriprep(before)
    raw, out = _raw(folder / "raw"), folder / "out"
    done = _call(raw, folder / "xcp_d", out, *flags, home=home, before=before)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return folder / "xcp_d", out, factor


def _series(out: Path, stem: str, atlas: str = "A424") -> Array:
    return read_tsv(next(out.rglob(f"{stem}_*_atlas-{atlas}*_desc-denoised_timeseries.tsv")))[1]


def _said(out: Path, stem: str, key: str = "denoised", atlas: str = "A424") -> dict[str, Any]:
    return read_json(next(out.rglob(f"{stem}_*_atlas-{atlas}*_desc-{key}_timeseries.json")))


RUNS = ("sub-01_task-rest_run-1", "sub-01_task-nback")


@pytest.mark.parametrize("stem", RUNS)
def test_volumes_give_the_series_of_the_known_signal(
    made: tuple[Path, Path, float], stem: str
) -> None:
    from brainlm_bids.preproc.affine import labelled_points

    names, points = labelled_points(*resources.approximate_atlas())
    values, seen = _preprocessed(points), _inside(points)
    counts = np.bincount(names[seen], minlength=425)[1:]
    parcels = np.flatnonzero(counts > 10)
    truth = np.stack([values[:, (names == k + 1) & seen].mean(axis=1) for k in parcels], axis=1)
    truth = _cleaned(truth)
    found = _series(made[1], stem)
    assert found.shape == (VOLUMES, 424) and len(parcels) > 300
    # what is censored is n/a at its place in time
    assert np.flatnonzero(np.isnan(found).all(axis=1)).tolist() == CENSORED
    r = [
        np.corrcoef(found[KEPT, parcel], true)[0, 1]
        for parcel, true in zip(parcels, truth[KEPT].T, strict=True)
    ]
    assert np.nanmedian(r) > 0.999 and np.nanpercentile(r, 2) > 0.97
    # nothing is filtered again: the amplitude is XCP-D's, or that at the grand mean of its source
    gain = np.nanmedian(found[KEPT][:, parcels].std(axis=0) / truth[KEPT].std(axis=0))
    assert gain == pytest.approx(made[2] if stem == RUNS[0] else 1, rel=0.02)


def test_other_parcellations_are_made_in_the_same_pass(made: tuple[Path, Path, float]) -> None:
    _, out, factor = made
    _, _, points = _grid()
    inside, left = _inside(points), points[:, 0] < 0
    cleaned = factor * _cleaned(_preprocessed(points))
    found = _series(out, RUNS[0], "halves")
    assert np.flatnonzero(np.isnan(found).all(axis=1)).tolist() == CENSORED
    for column, half in enumerate((inside & left, inside & ~left)):
        expected = cleaned[:, half].mean(axis=1)[KEPT]
        assert np.corrcoef(found[KEPT, column], expected)[0, 1] > 0.999
        assert found[KEPT, column].std() == pytest.approx(expected.std(), rel=0.02)
    said = _said(out, RUNS[0], atlas="halves")
    assert said["InputData"]["Kind"] == "XCP-D" and "XCP-D" in said["Description"]


def test_gaps_are_where_they_were_for_the_model(made: tuple[Path, Path, float]) -> None:
    for stem in RUNS:
        robust = _said(made[1], stem, "robust")
        first = KEPT[0]
        assert robust["StartTime"] == pytest.approx((DROPPED if "rest" in stem else 0) * TR
                                                     + first * TR)  # fmt: skip
        assert robust["SourceRepetitionTime"] == TR
        length = (KEPT[-1] - first) * TR
        assert (robust["NumberOfVolumes"] - 1) * robust["RepetitionTime"] == pytest.approx(
            length, abs=robust["RepetitionTime"]
        )


def test_the_sidecars_tell_what_xcp_d_did(made: tuple[Path, Path, float]) -> None:
    root, out, _ = made
    said = _said(out, RUNS[0])
    func = "bids:xcp_d:sub-01/func/sub-01_task-rest_run-1"
    assert said["Sources"][0] == f"{func}_space-{SPACE}_res-2_desc-denoised_bold.nii.gz"
    assert f"{func}_outliers.tsv" in said["Sources"] and f"{func}_motion.tsv" in said["Sources"]
    assert said["InputData"] == {
        "Kind": "XCP-D",
        "Version": "26.1.1",
        "Space": SPACE,
        "GrandMeanOf": said["InputData"]["GrandMeanOf"],
        "VolumesLeftOutAtStart": DROPPED,
    }
    assert said["InputData"]["GrandMeanOf"] in said["Sources"]
    assert said["GrandMean"] == 10_000 and said["Denoising"] == "by XCP-D"
    assert said["RegressedConfounds"] == ["global_signal", "csf", "trans_x", "linear_trend"]
    cutoffs = said["HighPassCutoff"], said["LowPassCutoff"]
    assert cutoffs == pytest.approx((1 / BAND[0], 1 / BAND[1]))
    assert said["BadVolumes"] == CENSORED and set(said["BadVolumeReasons"]) == {"censored"}
    assert said["RepetitionTime"] == TR and said["StartTime"] == DROPPED * TR
    kinds = {one["Kind"] for one in said["Warnings"]}
    assert {"tr_mismatch", "missing_frequencies", "bad_volumes"} <= kinds
    assert {"start_unknown", "amplitude_unknown"}.isdisjoint(kinds)
    # there is neither a table of quality, nor a raw or preprocessed image of this one
    said = _said(out, RUNS[1])
    assert {"start_unknown", "amplitude_unknown"} <= {one["Kind"] for one in said["Warnings"]}
    assert said["Units"] == "arbitrary" and "XCP-D" in said["Description"]
    assert said.get("GrandMean") is None
    description = read_json(out / "dataset_description.json")
    assert description["DatasetLinks"]["xcp_d"] == root.as_uri()
    names = {one["Name"] for one in description["GeneratedBy"]}
    assert names == {"brainlm-bids", "xcp_d", "fMRIPrep"}


def test_joined_runs_have_a_row_and_are_not_counted_twice(made: tuple[Path, Path, float]) -> None:
    _, out, _ = made
    rows = read_rows(next((out / "logs").glob("*_status.tsv")))
    assert len(rows) == 3
    (skipped,) = [row for row in rows if row["status"] == "skipped"]
    assert "holds several runs" in skipped["reason"]
    assert len(list(out.rglob("*_atlas-A424*_desc-denoised_timeseries.tsv"))) == 2


def test_motion_is_xcp_ds_and_quality_what_can_be_measured(made: tuple[Path, Path, float]) -> None:
    _, out, _ = made
    path = next(out.rglob(f"{RUNS[0]}_desc-quality_metrics.tsv"))
    names, values = read_tsv(path)
    quality = dict(zip(names, values[0], strict=True))
    absent = read_json(path.with_suffix(".json"))["NotAvailable"]
    assert {name for name in names if np.isnan(quality[name])} == set(absent)
    assert "tsnr" in absent and "XCP-D" in absent["tsnr"]
    assert quality["fd_mean"] == pytest.approx(0.1) and quality["size_t"] == len(KEPT)
    said = _said(out, RUNS[0])
    assert said["MeanFramewiseDisplacement"] == pytest.approx(0.1)
    assert said["MotionOutliers"] == len(CENSORED)
    figures = {path.name for path in out.rglob("figures/*")}
    assert any(RUNS[0] in name and "motion" in name for name in figures)


def test_the_methods_text_is_that_of_the_sidecars(made: tuple[Path, Path, float]) -> None:
    text = " ".join(check(made[1]).split())
    assert "outputs of XCP-D 26.1.1" in text
    assert "denoised by XCP-D" in text and "no filter applied again" in text
    assert "4 confounds (the global signal among them)" in text
    assert "0.01 to 0.1 Hz" in text and "TemplateFlow’s transform" in text
    assert "slow drifts were removed" not in text and "components" not in text


# --- grayordinates -----------------------------------------------------------------------------


def _write_cifti(root: Path, labels: Path) -> Array:
    """Two runs of a session, in linc and in hbcd mode; each grayordinate follows its parcel."""
    func = root / "sub-01" / "ses-2" / "func"
    func.mkdir(parents=True)
    _description(root, "0.10.6")
    atlas: Any = nb.load(labels)
    index = np.asarray(atlas.dataobj).ravel().astype(int)
    rng = np.random.default_rng(3)
    courses = np.concatenate([np.zeros((VOLUMES, 1)), rng.normal(size=(VOLUMES, 424))], axis=1)
    cleaned = _cleaned(courses)
    data = cleaned[:, index] + 0.05 * rng.normal(size=(VOLUMES, len(index)))
    data[CENSORED] *= -1  # whatever XCP-D put there is not looked at
    for label, rows in (("AP", KEPT), ("PA", np.arange(VOLUMES))):
        axes = (nb.cifti2.SeriesAxis(0, TR, len(rows)), atlas.header.get_axis(1))
        name = f"sub-01_ses-2_task-rest_dir-{label}_space-fsLR_den-91k"
        image = nb.Cifti2Image(data[rows].astype(np.float32), header=axes)
        image.to_filename(func / f"{name}_desc-denoised_bold.dtseries.nii")
        smoothed = func / f"{name}_desc-denoisedSmoothed_bold.dtseries.nii"
        smoothed.write_bytes(b"not looked at")
        _sidecar(func / f"{name}_desc-denoised_bold.json", _preproc(name))
        _tables(func, f"sub-01_ses-2_task-rest_dir-{label}")
    return cleaned[:, 1:]


def test_grayordinates_give_the_series_of_their_parcels(tmp_path: Path, shared: Path) -> None:
    atlases = shared / "atlas"
    truth = _write_cifti(tmp_path / "xcp_d", atlases / "A424.dlabel.nii")
    raw = _raw(tmp_path / "raw")
    image = nb.Nifti1Image(np.zeros((4, 4, 4, ACQUIRED), dtype=np.int16), np.eye(4))
    func = raw / "sub-01" / "ses-2" / "func"
    func.mkdir(parents=True)
    for label in ("AP", "PA"):
        image.to_filename(func / f"sub-01_ses-2_task-rest_dir-{label}_bold.nii.gz")
    flags = ["--atlas", str(atlases / "A424+2mm.nii.gz"), "--max-bad-volumes", "0.3"]
    flags += ["--cifti-atlas", str(atlases / "A424.dlabel.nii")]
    done = _call(raw, tmp_path / "xcp_d", tmp_path / "out", *flags)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    one, other = (
        _series(tmp_path / "out", f"sub-01_ses-2_task-rest_dir-{label}") for label in ("AP", "PA")
    )
    # whether XCP-D left a gap there or a value
    assert np.flatnonzero(np.isnan(one).all(axis=1)).tolist() == CENSORED
    np.testing.assert_array_equal(one, other)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(one[KEPT].T, truth[KEPT].T, strict=True)]
    assert np.nanmedian(r) > 0.99
    stem = "sub-01_ses-2_task-rest_dir-AP"
    said = _said(tmp_path / "out", stem)
    assert said["InputData"]["Space"] == "fsLR" and said["InputData"]["Version"] == "0.10.6"
    # there is no table of quality: what the tables lack of the raw image was left out
    assert said["InputData"]["VolumesLeftOutAtStart"] == DROPPED
    assert "grayordinates (fsLR, 91k)" in check(tmp_path / "out")
    absent = read_json(next((tmp_path / "out").rglob("*_desc-quality_metrics.json")))
    assert "grayordinates" in absent["NotAvailable"]["size_x"]


# --- which files are used ----------------------------------------------------------------------


def _touch(root: Path, *names: str) -> list[Candidate]:
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    for name in names:
        (func / name).touch()
    return find_preprocessed(root, XCP_D, ["01"])


TABLES = ("sub-01_task-a_motion.tsv", "sub-01_task-a_outliers.tsv")
BOLD = f"sub-01_task-a_space-{SPACE}_res-2_desc-denoised_bold.nii.gz"


def test_the_unsmoothed_series_is_used_whatever_lies_beside_it(tmp_path: Path) -> None:
    names = [BOLD.replace("denoised", desc) for desc in ("denoisedSmoothed", "interpolated")]
    other = [
        BOLD.replace("_res-2", "_res-1"),
        BOLD.replace(f"space-{SPACE}_res-2", f"space-{OTHER}"),
        BOLD.replace("desc-denoised_bold", "stat-reho_boldmap"),
        f"sub-01_task-a_space-{SPACE}_atlas-Gordon_stat-mean_timeseries.tsv",
        f"sub-01_task-a_space-{SPACE}_atlas-Gordon_stat-coverage_bold.tsv",
        "sub-01_task-a_desc-preproc_design.tsv",
        "sub-01_task-a_desc-abcc_qc.hdf5",
    ]
    (one,) = _touch(tmp_path, *TABLES, BOLD, *names, *other)
    assert one.files is not None and one.files.bold.name == BOLD
    assert one.stem == "sub-01_task-a" and one.files.space == SPACE
    assert [path.name for path in one.files.files[1:]] == [
        *TABLES,
        "sub-01_task-a_desc-preproc_design.tsv",
    ]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([BOLD.replace("denoised", "denoisedSmoothed")], "smoothed series alone"),
        ([BOLD.replace("denoised", "interpolated")], "desc-interpolated alone"),
        ([BOLD.replace("denoised", "residual")], "XCP-D 0.1 or earlier"),
        ([BOLD.replace(SPACE, "MNIInfant_cohort-1")], "in MNIInfant alone"),
        (["sub-01_task-a_space-fsLR_den-170k_desc-denoised_bold.dtseries.nii"], "run XCP-D again"),
    ],
)
def test_what_is_not_used_has_a_reason(tmp_path: Path, names: list[str], reason: str) -> None:
    (one,) = _touch(tmp_path, *TABLES, *names)
    assert one.files is None and not one.taken and reason in one.reason


def test_without_tables_it_is_not_known_what_was_left_out(tmp_path: Path) -> None:
    (one,) = _touch(tmp_path, BOLD)
    assert one.files is None and one.taken and "not known which volumes" in one.reason


def test_the_motion_of_a_filter_is_the_second_choice(tmp_path: Path) -> None:
    filtered = "sub-01_task-a_desc-filtered_motion.tsv"
    (one,) = _touch(tmp_path / "old", BOLD, filtered, TABLES[1])
    assert one.files is not None and one.files.confounds is not None
    assert one.files.confounds.name == filtered
    (one,) = _touch(tmp_path / "both", BOLD, filtered, *TABLES)
    assert one.files is not None and one.files.confounds is not None
    assert one.files.confounds.name == TABLES[0]


def test_joined_runs_without_a_sidecar_are_known_by_their_names(tmp_path: Path) -> None:
    joined = BOLD.replace("task-a", "task-a_acq-x")
    runs = [joined.replace("acq-x", f"acq-x_{entity}") for entity in ("dir-AP_run-1", "dir-PA")]
    tables = [
        name.partition("_space")[0] + end
        for name in (joined, *runs)
        for end in ("_motion.tsv", "_outliers.tsv")
    ]
    found = _touch(tmp_path, joined, *runs, *tables)
    assert {one.stem: one.files is not None for one in found} == {
        "sub-01_task-a_acq-x": False,
        "sub-01_task-a_acq-x_dir-AP_run-1": True,
        "sub-01_task-a_acq-x_dir-PA": True,
    }
    (one,) = [one for one in found if one.files is None]
    assert "holds several runs" in one.reason and not one.taken


def test_a_run_without_number_beside_a_numbered_one_is_a_run_by_its_sidecar(
    tmp_path: Path,
) -> None:
    func = tmp_path / "sub-01" / "func"
    func.mkdir(parents=True)
    second = BOLD.replace("task-a", "task-a_run-2")
    _sidecar(func / BOLD.replace(".nii.gz", ".json"), _preproc("sub-01_task-a"))
    for name in (BOLD, second, *TABLES, "sub-01_task-a_run-2_outliers.tsv"):
        (func / name).touch()
    assert all(one.files for one in find_preprocessed(tmp_path, XCP_D, []))


def test_two_sets_of_parameters_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    names = [
        name.replace("sub-01", f"sub-01_hash-{which}")
        for which in ("a1", "b2")
        for name in (BOLD, *TABLES)
    ]
    (one,) = _touch(tmp_path / "two", *names)
    assert one.files is None and one.taken and "hash-a1, hash-b2" in one.reason
    (one,) = _touch(tmp_path / "one", *names[:3])
    assert one.files is not None and one.stem == "sub-01_task-a"
    assert [path.name for path in one.files.files] == names[:3]


def test_names_of_columns_may_have_the_sum_of_their_parameters(tmp_path: Path) -> None:
    from brainlm_bids.interfaces.denoised import read_tables

    _tables(tmp_path, "sub-01_task-a", hashed="0a1b")
    motion, outliers = (tmp_path / name for name in TABLES)
    found, columns = read_tables(str(motion), str(outliers), len(KEPT))
    assert np.flatnonzero(found.censored).tolist() == CENSORED
    assert columns is not None and "trans_x" in columns
    names = regressed(tmp_path / "sub-01_task-a_desc-preproc_design.tsv")
    assert names == ("global_signal", "csf", "trans_x", "linear_trend")


def test_tables_of_another_call_are_refused(tmp_path: Path) -> None:
    from brainlm_bids.errors import UserError
    from brainlm_bids.interfaces.denoised import read_tables

    _tables(tmp_path, "sub-01_task-a")
    motion, outliers = (str(tmp_path / name) for name in TABLES)
    with pytest.raises(UserError, match="not of one call"):
        read_tables(motion, outliers, len(KEPT) + 1)
    # without a limit on motion XCP-D writes no table of outliers, and leaves out nothing
    found, _ = read_tables(motion, "", VOLUMES)
    assert found.present.all() and not found.censored.any()
    with pytest.raises(UserError, match="not of one call"):
        read_tables(motion, "", len(KEPT))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (None, (None, None)),
        ({"Low-pass filter": {"cutoff (Hz)": 0.2, "Filter order": 2}}, (None, 0.2)),
        ({"Bandpass filter": {"High-pass cutoff (Hz)": 0.008}}, (0.008, None)),
        ({"Bandpass filter": {"Low-pass cutoff (Hz)": "0.1"}, "x": 3}, (None, 0.1)),
        ({"Low-pass filter": {"cutoff (Hz)": 0}}, (None, None)),
        ("none", (None, None)),
    ],
)
def test_filters_are_read_from_the_sidecar(filters: Any, expected: tuple[Any, Any]) -> None:
    assert filters_of({"SoftwareFilters": filters}) == expected
    assert filters_of({"Low-pass Cutoff": 0.2, "SoftwareFilters": None}) == (None, 0.2)


def test_the_wrong_folder_is_named_by_its_program(tmp_path: Path) -> None:
    from brainlm_bids.bids.fmriprep import FMRIPREP
    from brainlm_bids.bids.preprocessed import check_derivatives
    from brainlm_bids.errors import UserError

    _description(tmp_path)
    check_derivatives(tmp_path, XCP_D)
    with pytest.raises(UserError, match=f"--derivatives xcp_d={tmp_path}"):
        check_derivatives(tmp_path, FMRIPREP)
    made = {"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.1.0"}]}
    (tmp_path / "dataset_description.json").write_text(json.dumps(made))
    with pytest.raises(UserError, match=f"--derivatives fmriprep={tmp_path}"):
        check_derivatives(tmp_path, XCP_D)
    inside = tmp_path / "out" / "xcp_d"
    inside.mkdir(parents=True)
    _description(inside)
    with pytest.raises(UserError, match=f"XCP-D's output folder, {inside}"):
        check_derivatives(tmp_path / "out", XCP_D)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--denoise", "aggr"], "--denoise has no effect"),
        (["--denoise", "confounds:simple"], "--denoise has no effect"),
        (["--low-pass", "0.1Hz"], "--low-pass has no effect"),
        (["--save-parcels"], "--save-parcels has no effect"),
        (["--input-space", "T1w"], "XCP-D writes no series in it"),
        (["-d", "xcp_d=/a"], "give one folder of a program"),
        (["-d", "fmriprep=/b"], "/b: there is no such folder"),
    ],
)
def test_nothing_is_asked_for_twice(
    tmp_path: Path, flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from brainlm_bids.commands.bids_app import main

    raw = _raw(tmp_path / "raw")
    (tmp_path / "xcp_d").mkdir()
    given = [str(raw), str(tmp_path / "out"), "participant", "-d", f"xcp_d={tmp_path / 'xcp_d'}"]
    assert main([*given, *flags]) == 2
    assert reason in capsys.readouterr().err


def test_the_source_of_a_series_is_found_where_it_is(tmp_path: Path) -> None:
    from brainlm_bids.bids.xcp_d import preprocessed_series

    (one,) = _touch(tmp_path / "xcp_d", BOLD, *TABLES)
    assert one.files is not None
    name = BOLD.replace("denoised", "preproc")
    metadata = {"Sources": [f"bids:preprocessed:sub-01/func/{name}", "bids::sub-01/x_outliers.tsv"]}
    root, fmriprep = tmp_path / "xcp_d", tmp_path / "fmriprep"
    links = {"DatasetLinks": {"preprocessed": "/in/a/container"}}
    (root / "dataset_description.json").write_text(json.dumps(links))
    assert preprocessed_series(one.files, root, metadata, None) is None
    assert preprocessed_series(one.files, root, metadata, fmriprep) is None
    place = fmriprep / "sub-01" / "func" / name
    place.parent.mkdir(parents=True)
    place.touch()
    assert preprocessed_series(one.files, root, metadata, fmriprep) == place
    assert preprocessed_series(one.files, root, {}, fmriprep) == place
    assert preprocessed_series(one.files, root, metadata, None) is None
    for link in (fmriprep.as_uri(), str(fmriprep)):
        links = {"DatasetLinks": {"preprocessed": link}}
        (root / "dataset_description.json").write_text(json.dumps(links))
        assert preprocessed_series(one.files, root, metadata, None) == place


def test_the_factor_is_that_of_the_good_volumes_of_the_source() -> None:
    from brainlm_bids.errors import UserError
    from brainlm_bids.preproc.steps import Motion, find_gaps, level_factor

    values = np.full((3, 4, 10), 200.0)
    values[..., :2], values[..., 5] = 999.0, 0.0
    values[0, 0] = 1e6
    brain = np.ones((3, 4), dtype=bool)
    brain[0, 0] = False
    censored = np.eye(8, dtype=bool)[3]
    reasons = np.where(censored, "censored", "")
    censoring = find_gaps(7, 8, censored)
    assert level_factor(values, brain, censoring, Motion(0, reasons=reasons)) == 50.0
    with pytest.raises(UserError, match="does not fit"):
        level_factor(values[..., :7], brain, censoring, Motion(0))
    with pytest.raises(UserError, match="no grand mean"):
        level_factor(values - 200, brain, censoring, Motion(0, reasons=reasons))


def test_grayordinates_of_other_parcellations_and_of_a_known_level() -> None:
    from brainlm_bids.preproc.steps import find_gaps, take_denoised_cifti

    rng = np.random.default_rng(0)
    n, labels = 40, np.repeat(np.arange(1, 425), 2)
    censored = np.isin(np.arange(n), (3, 39))
    whole = rng.normal(size=(n, len(labels))).astype(np.float32)
    preprocessed = np.concatenate([np.full((2, len(labels)), 9e3), whole + 500], axis=0)
    other = np.where(np.arange(len(labels)) < 10, 1, 0)
    run = take_denoised_cifti(
        whole[~censored],
        labels,
        find_gaps(n - 2, n, censored),
        preprocessed=preprocessed,
        others=[(other, 1)],
    )
    factor = 10_000 / np.median(preprocessed[2:][~censored])
    assert factor == pytest.approx(20, rel=1e-3)
    means = whole.reshape(n, 424, 2).mean(axis=2)
    np.testing.assert_allclose(run.series[~censored], factor * means[~censored], rtol=1e-4)
    assert run.others is not None and np.isnan(run.series[censored]).all()
    expected = factor * whole[:, :10].mean(axis=1)
    np.testing.assert_allclose(run.others[~censored, 0], expected[~censored], rtol=1e-4)
    assert np.isnan(run.others[censored]).all() and run.motion.parameters is None


def test_what_xcp_d_did_is_known_before_anything_is_computed(tmp_path: Path) -> None:
    from brainlm_bids.app.context import _recorded_settings, start_of
    from brainlm_bids.bids.inputs import find_runs
    from brainlm_bids.settings import Settings

    func = tmp_path / "xcp_d" / "sub-01" / "func"
    func.mkdir(parents=True)
    _description(tmp_path / "xcp_d")
    name = f"sub-01_task-a_space-{SPACE}_res-2"
    _volumes(func, name, np.random.default_rng(0).normal(size=(len(KEPT), len(_grid()[2]))))
    _sidecar(func / f"{name}_desc-denoised_bold.json", _preproc(name))
    _tables(func, "sub-01_task-a")
    _quality(func, name)
    derivatives = (f"xcp_d={tmp_path / 'xcp_d'}",)
    settings = Settings(_raw(tmp_path / "raw"), tmp_path / "out", derivatives=derivatives)
    (run,) = find_runs(settings)
    assert run.problem is None and run.skip is None
    assert {one.kind for one in run.warnings} == {"tr_mismatch", "amplitude_unknown"}
    recorded = _recorded_settings(settings, run)
    assert (recorded.denoise, recorded.high_pass) == ("by XCP-D", pytest.approx(1 / BAND[0]))
    assert recorded.low_pass == pytest.approx(1 / BAND[1])
    assert recorded.regressed == ("global_signal", "csf", "trans_x", "linear_trend")
    assert start_of(run) == DROPPED * TR
    # a table that git-annex has not fetched is told, and nothing is taken for uncensored
    outliers = func / TABLES[1]
    outliers.unlink()
    outliers.symlink_to(".git/annex/objects/xx/MD5E-s9--0.tsv/MD5E-s9--0.tsv")
    (run,) = find_runs(settings)
    assert run.problem is not None and "outliers.tsv" in run.problem
