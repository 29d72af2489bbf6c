"""The recipes for other programs run on files with those programs' names, and give their series."""

import json
import re
import shlex
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from brainlm_bids import A424Masker, resources
from brainlm_bids.bids.timeseries import read_timeseries, stem_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pipelines.md"
if not PAGE.is_file():
    pytest.skip("the documentation is not here (the image with the tests)", allow_module_level=True)

Array = NDArray[np.float64]
VOLUMES, TR = 24, 2.0
NAMES = list(resources.parcels().names)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINLM_BIDS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def _section(title: str) -> str:
    page = PAGE.read_text(encoding="utf-8")
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _run(title: str, number: int = 0) -> None:
    """Execute a recipe, without the network and with the atlas that the package brings."""
    block = re.findall(r"```python\n(.*?)```", _section(title), re.DOTALL)[number]
    block = block.replace("A424Masker(", 'A424Masker("A424approx", offline=True, ')
    exec(compile(block, f"pipelines.md: {title}", "exec"), {})


def _commands_name(title: str, file: Path) -> None:
    """The command of a recipe takes the file that the recipe has written."""
    (command,) = re.findall(r"```bash\n(.*?)```", _section(title), re.DOTALL)
    assert file.name in shlex.split(command)


def _series(seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(VOLUMES, 424))


def _image(path: Path, n: int = VOLUMES) -> nb.Nifti1Image:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.array([[5.0, 0, 0, -88], [0, 5, 0, -124], [0, 0, 5, -70], [0, 0, 0, 1]])
    data = np.random.default_rng(0).normal(100, 1, (36, 44, 36, n)).astype("float32")
    image = nb.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((5.0, 5.0, 5.0, TR))
    image.to_filename(path)
    return image


def _read(name: str, stem: str) -> Array:
    assert stem_of(Path(name)) == stem
    return read_timeseries(Path(name), NAMES).values


def test_conn() -> None:
    """Its table: a column SessionNumber, then those of every ROI, tissues among them."""
    folder = Path("conn_project01/results/preprocessing")
    folder.mkdir(parents=True)
    shuffled = np.random.default_rng(1).permutation(424)
    runs = [_series(seed) for seed in (1, 2)]
    table = pd.DataFrame(
        {"SessionNumber": np.repeat([1, 2], VOLUMES), "Grey Matter_1": 0.5, "White Matter_1": 0.1}
    )
    both = np.concatenate(runs)
    own = {f"A424.{NAMES[k]}_1": both[:, k].round(8) for k in shuffled}
    table = pd.concat(
        [table, pd.DataFrame(own), pd.DataFrame({"networks.DMN_1": both[:, 0]})], axis=1
    )
    table.to_csv(folder / "dROI_Subject001.csv", index=False)
    _run("CONN")
    for run, series in enumerate(runs, 1):
        name = f"sub-001_task-rest_run-{run}_atlas-A424_timeseries.tsv"
        np.testing.assert_allclose(_read(name, f"sub-001_task-rest_run-{run}"), series, atol=1e-7)
    _commands_name("CONN", Path("sub-001_task-rest_run-1_atlas-A424_timeseries.tsv"))


def test_cpac(capsys: pytest.CaptureFixture[str]) -> None:
    func = Path("output/pipeline_RBCv0/sub-01_ses-1/func")
    stem = "sub-01_ses-1_task-rest_run-1"
    space = "space-MNI152NLin6ASym"
    image = _image(func / f"{stem}_{space}_reg-36Parameter_desc-preproc_bold.nii.gz")
    for other in ("desc-preproc", "reg-aCompCor_desc-preproc", "reg-36Parameter_desc-smZstd"):
        (func / f"{stem}_{space}_{other}_bold.nii.gz").write_bytes(b"not looked at")
    _run("C-PAC")
    expected = A424Masker("A424approx").fit_transform(image)
    found = _read(f"{stem}_atlas-A424_timeseries.tsv", stem)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert f"repetition time {TR} s" in capsys.readouterr().out


def test_halfpipe() -> None:
    """Its table has neither names nor index; its JSON file holds the time as a frequency."""
    folder = Path("derivatives/halfpipe/sub-01/func/task-rest")
    folder.mkdir(parents=True)
    series = _series()
    series[:, 7] = np.nan
    file = folder / "sub-01_task-rest_feature-corrMatrix1_atlas-A424_timeseries.tsv"
    np.savetxt(file, series, fmt="%.10f", delimiter="\t")
    file.with_suffix(".json").write_text(json.dumps({"SamplingFrequency": TR}))
    _run("HALFpipe")
    name = "sub-01_task-rest_atlas-A424_timeseries.tsv"
    np.testing.assert_allclose(_read(name, "sub-01_task-rest"), series, atol=1e-9)
    # the time is not taken over: the command has to give it
    assert read_timeseries(Path(name), NAMES).tr is None
    _commands_name("HALFpipe", Path(name))
    assert "--timeseries-tr" in _section("HALFpipe").partition("```bash")[2]


def test_nilearn_with_fmripreps_confounds() -> None:
    folder = Path("derivatives/fmriprep/sub-01/func")
    stem = folder / "sub-01_task-rest"
    image = _image(Path(f"{stem}_space-MNI152NLin6Asym_res-2_desc-preproc_bold.nii.gz"))
    rng = np.random.default_rng(2)
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    table = pd.DataFrame(rng.normal(size=(VOLUMES, 8)), columns=[*names, "csf", "white_matter"])
    table["framewise_displacement"], table["std_dvars"] = 0.1, 1.0
    table.loc[9, "framewise_displacement"] = 3.0
    file = Path(f"{stem}_desc-confounds_timeseries.tsv")
    table.to_csv(file, sep="\t", index=False)
    file.with_suffix(".json").write_text("{}")
    _run("nilearn")
    found = _read("sub-01_task-rest_atlas-A424_timeseries.tsv", "sub-01_task-rest")
    assert np.flatnonzero(np.isnan(found).all(axis=1)).tolist() == [9]
    kept = np.delete(np.arange(VOLUMES), 9)
    confounds = table.drop(columns=["framewise_displacement", "std_dvars"]).to_numpy()
    raw = A424Masker("A424approx").fit_transform(image)[kept]
    design = np.column_stack([np.ones(VOLUMES), np.arange(VOLUMES), confounds])[kept]
    expected = raw - design @ np.linalg.lstsq(design, raw, rcond=None)[0]
    known = np.isfinite(raw).all(axis=0)
    r = [
        np.corrcoef(a, b)[0, 1]
        for a, b in zip(found[kept][:, known].T, expected[:, known].T, strict=True)
    ]
    assert np.median(r) > 0.99


@pytest.mark.filterwarnings("ignore:After applying mask")
def test_nilearns_own_masker() -> None:
    """Two parcels that the mask removes come back as n/a, and the others are in their places."""
    labels = np.zeros((53, 8, 8), dtype=np.int32)
    labels.reshape(-1, 8)[:424] = np.arange(1, 425)[:, None]
    courses = _series()
    data = np.concatenate([np.zeros((VOLUMES, 1)), courses], axis=1)[:, labels]
    nb.Nifti1Image(labels, np.eye(4)).to_filename("A424+2mm.nii.gz")
    mask = (~np.isin(labels, (12, 405))).astype(np.uint8)
    nb.Nifti1Image(mask, np.eye(4)).to_filename("brain_mask.nii.gz")
    bold = nb.Nifti1Image(np.moveaxis(data, 0, 3).astype(np.float32), np.eye(4))
    bold.to_filename("sub-02_task-rest_bold_denoised.nii.gz")
    _run("nilearn", 1)
    found = _read("sub-02_task-rest_atlas-A424_timeseries.tsv", "sub-02_task-rest")
    assert np.flatnonzero(np.isnan(found).all(axis=0)).tolist() == [11, 404]
    known = np.isfinite(found).all(axis=0)
    np.testing.assert_allclose(found[:, known], courses[:, known], atol=1e-5)
