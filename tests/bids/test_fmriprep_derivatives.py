"""fMRIPrep's derivatives: every input form gives the series of a known signal; names; refusals."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from methods_claims import check
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.bids.fmriprep import FMRIPREP
from brainlm_bids.bids.preprocessed import find_preprocessed
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_tsv
from brainlm_bids.preproc.denoising.fmriprep import known_confounds, motion_parameters, n_non_steady
from brainlm_bids.preproc.registration.transforms import ItkTransform

VOLUMES, DUMMIES, TR = 40, 2, 2.0
SPACE = "MNI152NLin6Asym"
STEM = "sub-01_task-rest_run-1"
Array = NDArray[np.float64]
# The world of the T1w is that of the template, turned and stretched; the BOLD reference's is moved.
T1W_OF_MNI = np.array([[0.95, 0.05, 0, 3], [-0.05, 0.97, 0, -4], [0, 0, 1.05, 2], [0, 0, 0, 1.0]])
BOLD_OF_T1W = np.array([[1, 0, 0, 5.0], [0, 0.995, -0.1, 0], [0, 0.1, 0.995, -6], [0, 0, 0, 1]])


def _signal(points: Array) -> NDArray[np.float32]:
    """The run at points (P, 3) of the template: (P, T), smooth in space, known everywhere."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(-60, 60, size=(30, 3))
    courses = np.cumsum(rng.normal(size=(30, VOLUMES)), axis=1)
    maps = np.exp(-((points[:, None] - centres) ** 2).sum(axis=2) / (2 * 18.0**2))
    inside = ((points / [68, 88, 70] - [0, -0.2, 0.1]) ** 2).sum(axis=1) < 1
    values = 1000 + 10 * maps @ courses
    values[:, :DUMMIES] *= 1.5
    return (values * inside[:, None]).astype(np.float32)


def _grid(shape: tuple[int, int, int], size: float) -> tuple[Array, Array]:
    """Affine of a grid around the origin, and its world points (P, 3)."""
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = -size * (np.array(shape) - 1) / 2 + [0, -18, 8]
    index = np.argwhere(np.ones(shape, dtype=bool))
    return affine, index @ affine[:3, :3].T + affine[:3, 3]


def _moved(points: Array, matrix: Array) -> Array:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _identity(points: Array) -> Array:
    return points


def _from_t1w(points: Array) -> Array:
    return _moved(points, np.linalg.inv(T1W_OF_MNI))


def _from_bold(points: Array) -> Array:
    return _from_t1w(_moved(points, np.linalg.inv(BOLD_OF_T1W)))


# form -> (what stands in the names, from the grid's world to the template's, its voxels in mm)
FORMS: dict[str, tuple[str, Callable[[Array], Array], float]] = {
    SPACE: (f"_space-{SPACE}_res-2", _identity, 3.0),
    "T1w": ("_space-T1w", _from_t1w, 3.0),
    "boldref": ("", _from_bold, 3.0),
}


def _write_fmriprep(root: Path, *, old: bool = False) -> Path:
    """A derivatives folder of one run in all forms, with the names of 25.x or of 20.0."""
    func, anat = root / "sub-01" / "func", root / "sub-01" / "anat"
    func.mkdir(parents=True)
    anat.mkdir()
    for label, to_template, size in FORMS.values():
        shape = tuple(int(n / size) for n in (180, 216, 180))
        affine, points = _grid(shape, size)  # type: ignore[arg-type]
        data = _signal(to_template(points)).reshape(*shape, VOLUMES)
        image = nb.Nifti1Image(data, affine)
        image.header.set_zooms((size, size, size, TR))
        name = f"{STEM}{label}_desc-preproc_bold"
        image.to_filename(func / f"{name}.nii.gz")
        (func / f"{name}.json").write_text(json.dumps({"RepetitionTime": TR, "TaskName": "rest"}))
        mask = nb.Nifti1Image((data[..., -1] > 0).astype(np.uint8), affine)
        mask.to_filename(func / f"{STEM}{label}_desc-brain_mask.nii.gz")
    suffix, source = ("regressors", "scanner") if old else ("timeseries", "boldref")
    _write_confounds(func / f"{STEM}_desc-confounds_{suffix}.tsv")
    coreg = "" if old else "_desc-coreg"
    rigid = func / f"{STEM}_from-{source}_to-T1w_mode-image{coreg}_xfm.txt"
    rigid.write_bytes(ItkTransform.from_matrix(BOLD_OF_T1W).content)
    warp = anat / f"sub-01_from-T1w_to-{SPACE}_mode-image_xfm.txt"
    warp.write_bytes(ItkTransform.from_matrix(T1W_OF_MNI).content)
    made = [{"Name": "fMRIPrep", "Version": "20.0.7" if old else "25.1.0"}]
    description = {"Name": "x", "BIDSVersion": "1.4.0", "GeneratedBy": made}
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


def _write_confounds(path: Path) -> None:
    rng = np.random.default_rng(1)
    table = {name: rng.normal(0, 0.02, VOLUMES) for name in ("trans_x", "trans_y", "trans_z")}
    table |= {name: rng.normal(0, 5e-4, VOLUMES) for name in ("rot_x", "rot_y", "rot_z")}
    table |= {name: rng.normal(size=VOLUMES) for name in ("global_signal", "csf", "white_matter")}
    table["framewise_displacement"] = np.r_[np.nan, rng.uniform(0, 0.2, VOLUMES - 1)]
    table["std_dvars"] = np.r_[np.nan, rng.uniform(0.9, 1.1, VOLUMES - 1)]
    table["a_comp_cor_00"] = rng.normal(size=VOLUMES)
    for k in range(DUMMIES):
        table[f"non_steady_state_outlier{k:02d}"] = np.eye(VOLUMES)[k]
    with path.open("w") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(["n/a" if np.isnan(v) else f"{v:.9g}" for v in row])


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw data set whose BOLD was deleted after fMRIPrep: it is not needed."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "sub-01").mkdir()
    description = {"Name": "raw", "BIDSVersion": "1.8.0"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="module")
def new_names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_fmriprep(tmp_path_factory.mktemp("fmriprep25"))


def _call(
    raw: Path, derivatives: Path, out: Path, *flags: str, templateflow: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "brainlm_bids",
        str(raw),
        str(out),
        "participant",
    ]
    command += ["-d", f"fmriprep={derivatives}", "-w", str(out.parent / "work"), "--offline"]
    command += ["--atlas", "A424approx", "--model", "none", "--nprocs", "1", *flags]
    environment = {k: v for k, v in os.environ.items() if k != "TEMPLATEFLOW_HOME"}
    if templateflow is not None:
        environment["TEMPLATEFLOW_HOME"] = str(templateflow)
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _series(out: Path, key: str = "denoised") -> Array:
    path = next(out.rglob(f"*_desc-{key}_timeseries.tsv"))
    return np.asarray(read_tsv(path)[1])


@pytest.fixture(scope="module")
def outputs_by_form(
    raw: Path, new_names: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    found = {}
    for form in FORMS:
        out = tmp_path_factory.mktemp(form) / "out"
        done = _call(raw, new_names, out, "--input-space", form, "--denoise", "none")
        assert done.returncode == 0, done.stderr[-3000:]
        found[form] = out
    return found


def test_all_forms_give_the_series_of_the_known_signal(outputs_by_form: dict[str, Path]) -> None:
    from brainlm_bids.preproc.affine import labelled_points
    from brainlm_bids.preproc.denoising.temporal import highpass_matrix

    atlas, affine = resources.approximate_atlas()
    names, points = labelled_points(atlas, affine)
    values = _signal(points)[:, DUMMIES:]
    kept = np.flatnonzero(np.bincount(names[values.min(axis=1) > 0], minlength=425)[1:] > 10)
    truth = np.stack([values[(names == k + 1) & (values[:, -1] > 0)].mean(axis=0) for k in kept], 1)
    filtered = highpass_matrix(VOLUMES - DUMMIES, TR, 100.0) @ (truth - truth.mean(axis=0))
    assert len(kept) > 300
    for form, out in outputs_by_form.items():
        series = _series(out)
        assert series.shape == (VOLUMES, 424) and np.isnan(series[:DUMMIES]).all()
        steady = series[DUMMIES:, kept]
        r = [np.corrcoef(a, b)[0, 1] for a, b in zip(steady.T, filtered.T, strict=True)]
        assert np.nanmedian(r) > 0.999 and np.nanmin(r) > 0.98, form
    one, *others = (_series(out)[DUMMIES:, kept] for out in outputs_by_form.values())
    for other in others:
        r = [np.corrcoef(a, b)[0, 1] for a, b in zip(one.T, other.T, strict=True)]
        assert np.nanmedian(r) > 0.999


def test_the_sidecars_say_where_it_came_from(
    outputs_by_form: dict[str, Path], new_names: Path
) -> None:
    out = outputs_by_form["boldref"]
    path = next(out.rglob("*_desc-denoised_timeseries.json"))
    assert path.name.startswith(f"{STEM}_space-{SPACE}_atlas-A424approx")
    said = read_json(path)
    assert said["Sources"][0] == f"bids:fmriprep:sub-01/func/{STEM}_desc-preproc_bold.nii.gz"
    assert any("from-boldref_to-T1w" in source for source in said["Sources"])
    assert said["DummyVolumes"] == DUMMIES and "fMRIPrep" in said["Registration"]
    assert said["DistortionCorrection"]["Method"] == "unknown"
    description = read_json(out / "dataset_description.json")
    assert description["DatasetLinks"]["fmriprep"] == new_names.as_uri()
    assert [one["Name"] for one in description["GeneratedBy"]] == ["brainlm-bids", "fMRIPrep"]


def test_the_methods_text_is_that_of_the_sidecars(outputs_by_form: dict[str, Path]) -> None:
    for form, out in outputs_by_form.items():
        text = check(out)
        assert f"preprocessed BOLD series in {form} space" in text
        assert ("no image was registered" in text) == (form == SPACE)
        assert "None of the components was removed" in text


def test_the_confounds_are_fmripreps_own(outputs_by_form: dict[str, Path], new_names: Path) -> None:
    theirs = read_tsv(next(new_names.rglob("*_desc-confounds_timeseries.tsv")))
    ours = read_tsv(next(outputs_by_form[SPACE].rglob("*_desc-confounds_timeseries.tsv")))
    theirs, ours = (dict(zip(n, v.T, strict=True)) for n, v in (theirs, ours))
    for name in ("trans_x", "framewise_displacement", "csf", "non_steady_state_outlier01"):
        assert np.allclose(ours[name], theirs[name], equal_nan=True, rtol=1e-6), name
    assert "a_comp_cor_00" not in ours


def test_image_quality_is_what_can_be_measured(outputs_by_form: dict[str, Path]) -> None:
    for out in outputs_by_form.values():
        path = next(out.rglob("*_desc-quality_metrics.tsv"))
        quality = dict(zip(*(read_tsv(path)[0], read_tsv(path)[1][0]), strict=True))
        said = read_json(path.with_suffix(".json"))
        absent = {name for name, value in quality.items() if np.isnan(value)}
        assert (
            absent
            == set(said["NotAvailable"])
            == {*("efc", "fber", "gsr_x", "gsr_y", "fwhm_avg", "fwhm_x", "fwhm_y", "fwhm_z")}
        )
        assert all("fMRIPrep resampled" in reason for reason in said["NotAvailable"].values())
        assert quality["size_t"] == VOLUMES - DUMMIES and quality["dummy_trs"] == DUMMIES
        assert quality["tsnr"] > 0 and quality["spacing_tr"] == TR
        assert all({"Units", "Description"} <= set(said[name]) for name in quality)
        fd = read_json(next(out.rglob("*_desc-denoised_timeseries.json")))
        _, table = read_tsv(next(out.rglob("*_desc-confounds_timeseries.tsv")))
        names = read_tsv(next(out.rglob("*_desc-confounds_timeseries.tsv")))[0]
        displacement = table[DUMMIES + 1 :, names.index("framewise_displacement")]
        assert fd["MeanFramewiseDisplacement"] == pytest.approx(np.nanmean(displacement))
        figures = {path.name.partition("_desc-")[2] for path in out.rglob("figures/*")}
        assert {"tsnr_bold.svg", "carpetplot_bold.svg", "confoundcorr_bold.svg"} <= figures


def test_aroma_runs_on_fmripreps_output_with_old_names(raw: Path, tmp_path: Path) -> None:
    old = _write_fmriprep(tmp_path / "fmriprep20", old=True)
    out = tmp_path / "out"
    done = _call(raw, old, out, "--input-space", "boldref")
    assert done.returncode == 0, done.stderr[-3000:]
    names, mixing = read_tsv(next(out.rglob("*_desc-aroma_mixing.tsv")))
    assert mixing.shape[0] == VOLUMES and len(names) == mixing.shape[1] >= 2
    assert "series non-aggressively" in check(out)
    again = _call(raw, old, out, "--input-space", "boldref", "--denoise", "nonaggr")
    assert "1 cached" in again.stdout + again.stderr
    removed = next((old / "sub-01" / "func").glob("*_space-T1w_desc-preproc_bold.nii.gz"))
    removed.unlink()
    refused = _call(raw, old, tmp_path / "other", "--input-space", "T1w")
    assert refused.returncode == 1 and "--output-spaces" in refused.stdout + refused.stderr


def test_the_other_template_needs_templateflows_transform(
    raw: Path, new_names: Path, outputs_by_form: dict[str, Path], tmp_path: Path
) -> None:
    """Its world stands in for MNI152NLin2009cAsym: TemplateFlow's file says how it lies to ours."""
    import ants

    fmriprep = tmp_path / "fmriprep"
    func = fmriprep / "sub-01" / "func"
    func.mkdir(parents=True)
    shutil.copy(new_names / "dataset_description.json", fmriprep)
    for path in (new_names / "sub-01" / "func").glob("*_space-T1w_*"):
        shutil.copy(path, func / path.name.replace("space-T1w", "space-MNI152NLin2009cAsym"))
    for path in (new_names / "sub-01" / "func").glob("*_desc-confounds_*"):
        shutil.copy(path, func)
    out = tmp_path / "out"
    refused = _call(raw, fmriprep, out, "--denoise", "none")
    assert refused.returncode == 1
    assert "--output-spaces MNI152NLin6Asym:res-2" in refused.stdout + refused.stderr
    home = tmp_path / "templateflow" / f"tpl-{SPACE}"
    home.mkdir(parents=True)
    text = tmp_path / "affine.txt"
    text.write_bytes(ItkTransform.from_matrix(T1W_OF_MNI).content)
    name = f"tpl-{SPACE}_from-MNI152NLin2009cAsym_mode-image_xfm.h5"
    ants.write_transform(ants.read_transform(str(text)), str(home / name))
    done = _call(raw, fmriprep, out, "--denoise", "none", templateflow=home.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    direct = outputs_by_form["T1w"]
    assert np.allclose(_series(out), _series(direct), rtol=1e-4, atol=1e-2, equal_nan=True)
    said = read_json(next(out.rglob("*_desc-denoised_timeseries.json")))
    assert any(name in source for source in said["Sources"])


def test_what_is_not_fmriprep_is_refused(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "xcp_d"
    folder.mkdir()
    done = _call(raw, folder, tmp_path / "out")
    assert done.returncode == 2 and "dataset_description.json" in done.stderr
    made = {"Name": "x", "GeneratedBy": [{"Name": "xcp_d"}, {"Name": "fMRIPrep"}]}
    (folder / "dataset_description.json").write_text(json.dumps(made))
    done = _call(raw, folder, tmp_path / "out")
    assert done.returncode == 2 and f"--derivatives xcp_d={folder}" in done.stderr


def test_two_millimetres_are_preferred_and_subjects_are_found_fast(tmp_path: Path) -> None:
    for subject in range(1000):
        func = tmp_path / f"sub-{subject:04d}" / "func"
        func.mkdir(parents=True)
        for label in ("_res-1", "_res-2", ""):
            (
                func / f"sub-{subject:04d}_task-a_space-{SPACE}{label}_desc-preproc_bold.nii.gz"
            ).touch()
        (func / f"sub-{subject:04d}_task-a_desc-confounds_timeseries.tsv").touch()
    started = time.monotonic()
    found = find_preprocessed(tmp_path, FMRIPREP, ["0500"])
    seconds = time.monotonic() - started
    assert [one.files.bold.name for one in found if one.files] == [
        f"sub-0500_task-a_space-{SPACE}_res-2_desc-preproc_bold.nii.gz"
    ]
    assert seconds < 0.5  # one folder is listed, whatever lies beside it
    with pytest.raises(UserError, match="no folder sub-9999; has fMRIPrep been run"):
        find_preprocessed(tmp_path, FMRIPREP, ["9999"])


@pytest.mark.parametrize(
    ("name", "n_dummy"),
    [
        ("test-v21_desc-confounds_timeseries.tsv", 3),
        ("test_desc-confounds_regressors.tsv", None),
        ("no_nonsteady_desc-confounds_regressors.tsv", 0),
    ],
)
def test_real_confounds_of_old_and_new_style(shared: Path, name: str, n_dummy: int | None) -> None:
    names, values = read_tsv(shared / "data" / "fmriprep-confounds-examples" / name)
    table = dict(zip(names, values.T, strict=True))
    assert motion_parameters(table).shape == (30, 6)
    marked = [n for n in names if n.startswith("non_steady_state")]
    assert n_non_steady(table) == (len(marked) if n_dummy is None else n_dummy)
    kept = known_confounds(table)
    assert {"global_signal", "trans_x_derivative1_power2", "std_dvars"} <= set(kept)
    assert not any("comp_cor" in n for n in kept)


def test_confounds_and_filter_are_removed_together() -> None:
    """Against a slow loop: interpolate, filter both, regress on the kept volumes."""
    from brainlm_bids.preproc.denoising.fmriprep import confound_cleaning
    from brainlm_bids.preproc.denoising.temporal import highpass_matrix

    rng = np.random.default_rng(0)
    n = 80
    kept = np.ones(n, dtype=bool)
    kept[[0, 20, 21, 50]] = False
    design = rng.normal(size=(n, 3)) + 5
    series = rng.normal(size=(n, 2)) + design @ rng.normal(size=(3, 2))
    series[~kept] += 100
    demeaned = series - series.mean(axis=0)
    matrix = highpass_matrix(n, TR, 100.0)
    found = confound_cleaning(design, kept, matrix) @ demeaned
    where = np.flatnonzero(kept)
    for column in range(2):
        y = matrix @ np.interp(np.arange(n), where, demeaned[kept, column])
        c = np.stack(
            [matrix @ np.interp(np.arange(n), where, d[kept] - d[kept].mean()) for d in design.T], 1
        )
        beta = np.linalg.lstsq(c[kept], y[kept], rcond=None)[0]
        assert np.allclose(found[:, column], y - c @ beta, atol=1e-9)
    with pytest.raises(UserError, match="confounds for"):
        confound_cleaning(rng.normal(size=(n, 79)), kept, matrix)


def test_a_strategy_of_nilearn(raw: Path, new_names: Path, tmp_path: Path) -> None:
    """The names must be fMRIPrep's own: nilearn finds the confounds by the image's."""
    from nilearn.interfaces.fmriprep import load_confounds_strategy

    fmriprep = tmp_path / "fmriprep"
    shutil.copytree(new_names, fmriprep)
    func = fmriprep / "sub-01" / "func"
    table = func / f"{STEM}_desc-confounds_timeseries.tsv"
    _add_columns(table)
    table.with_suffix(".json").write_text("{}")
    bold = func / f"{STEM}_space-{SPACE}_res-2_desc-preproc_bold.nii.gz"
    out = tmp_path / "out"
    done = _call(raw, fmriprep, out, "--denoise", "confounds:scrubbing")
    assert done.returncode == 0, done.stderr[-3000:]
    said = read_json(next(out.rglob("*_desc-denoised_timeseries.json")))
    expected, kept = load_confounds_strategy(str(bold), "scrubbing")
    assert kept is not None and len(kept) < VOLUMES - DUMMIES
    assert said["RegressedConfounds"] == [c for c in expected.columns if "cosine" not in c]
    censored = np.setdiff1d(np.arange(DUMMIES, VOLUMES), kept)
    assert said["CensoredVolumes"] == censored.tolist()
    refused = _call(raw, new_names, tmp_path / "other", "--denoise", "confounds:compcor")
    assert refused.returncode == 1 and "confounds:compcor" in refused.stdout + refused.stderr


def _add_columns(path: Path) -> None:
    """What nilearn's strategies ask for, and one volume of much motion, marked as fMRIPrep does."""
    names, values = read_tsv(path)
    table = dict(zip(names, values.T, strict=True))
    rng = np.random.default_rng(2)
    table["framewise_displacement"][20] = 3.0
    table["motion_outlier00"] = np.eye(VOLUMES)[20]
    table["cosine00"] = np.cos(np.pi * (np.arange(VOLUMES) + 0.5) / VOLUMES)
    for name in ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "csf", "white_matter"):
        own = table[name]
        table[f"{name}_derivative1"] = np.r_[np.nan, np.diff(own)]
        table[f"{name}_power2"] = own**2
        table[f"{name}_derivative1_power2"] = np.r_[np.nan, np.diff(own) ** 2]
    table["global_signal_derivative1"] = np.r_[np.nan, rng.normal(size=VOLUMES - 1)]
    columns = [["n/a" if np.isnan(v) else f"{v:.9g}" for v in column] for column in table.values()]
    rows = ["\t".join(row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join(["\t".join(table), *rows]) + "\n")
