"""The app as its user calls it: a data set with good and broken runs, twice, and once more."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from methods_claims import check

from brainlm_bids import resources
from brainlm_bids.app.status import crash_reason
from brainlm_bids.files import read_tsv
from brainlm_bids.phantom import write_phantom

STEM = "space-MNI152NLin2009aSym_atlas-A424approx"
VOLUMES, TR = 44, 2.0


@dataclass(frozen=True)
class Call:
    """A finished call: where it wrote, exit code, rows of the status table, seconds, messages."""

    out: Path
    returncode: int
    rows: dict[str, dict[str, str]]
    seconds: float
    stderr: str


def call(bids_dir: Path, out: Path, work: Path, *flags: str) -> Call:
    """Run `brainlm-bids … participant` as a user does."""
    command = [
        sys.executable,
        "-m",
        "brainlm_bids",
        str(bids_dir),
        str(out),
        "participant",
    ]
    command += ["-w", str(work), "--offline", "--atlas", "A424approx"]
    command += ["--template", "MNI152NLin2009aSym", "--model", "random:tiny", *flags]
    environment = {k: v for k, v in os.environ.items() if k != "TEMPLATEFLOW_HOME"}
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.monotonic() - started
    tables = sorted((out / "logs").glob("*_status.tsv"), key=lambda path: path.stat().st_mtime)
    assert tables, done.stderr[-3000:]
    with tables[-1].open() as handle:
        rows = {row["source"]: row for row in csv.DictReader(handle, delimiter="\t")}
    return Call(out, done.returncode, rows, seconds, done.stderr)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms, the second without a T1w; beside the first's good run one of each fault."""
    folder = tmp_path_factory.mktemp("bids") / "data"
    write_phantom(folder, n_subjects=2, n_volumes=VOLUMES, tr=TR, voxel=5.0, seed=3)
    shutil.rmtree(folder / "sub-02" / "anat")
    func = folder / "sub-01" / "func"
    good = next(func.glob("*_bold.nii.gz"))
    image = nb.load(good)
    data = np.asarray(image.dataobj)

    def add(task: str, values: np.ndarray, **sidecar: float) -> None:
        stem = func / f"sub-01_task-{task}_bold"
        nb.Nifti1Image(values, image.affine).to_filename(f"{stem}.nii.gz")
        stem.with_suffix(".json").write_text(json.dumps({"TaskName": task, **sidecar}))

    add("notr", data)
    add("flat", data[..., 0], RepetitionTime=TR)
    add("short", data[..., :10], RepetitionTime=TR)
    noise = np.random.default_rng(0).normal(100, 10, data.shape).astype(np.float32)
    add("nobrain", noise, RepetitionTime=TR)
    add("cut", data, RepetitionTime=TR)
    whole = (func / "sub-01_task-cut_bold.nii.gz").read_bytes()
    (func / "sub-01_task-cut_bold.nii.gz").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def two_processes(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Call:
    folder = tmp_path_factory.mktemp("two")
    return call(dataset, folder / "out", folder / "work", "--nprocs", "2")


@pytest.fixture(scope="module")
def one_process(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Call:
    folder = tmp_path_factory.mktemp("one")
    return call(dataset, folder / "out", folder / "work", "--nprocs", "1")


def test_broken_runs_are_told_and_the_others_go_on(two_processes: Call) -> None:
    assert two_processes.returncode == 1
    status = {Path(s).name.split("_")[1]: r for s, r in two_processes.rows.items() if "01/" in s}
    assert status["task-rest"]["status"] == "done"
    assert status["task-notr"]["status"] == "failed"
    assert "RepetitionTime" in status["task-notr"]["reason"]
    assert status["task-flat"]["status"] == "failed"
    assert "3-D" in status["task-flat"]["reason"]
    assert status["task-short"]["status"] == "skipped"
    assert "10 volumes" in status["task-short"]["reason"]
    assert status["task-nobrain"]["status"] == "failed"
    assert "no brain" in status["task-nobrain"]["reason"]
    assert status["task-cut"]["status"] == "failed"
    assert "sub-01_task-cut_bold.nii.gz: cannot be read" in status["task-cut"]["reason"]
    for task in ("nobrain", "cut"):
        assert f"task_{task}" in Path(status[f"task-{task}"]["crash_file"]).read_text()
    second = [row for source, row in two_processes.rows.items() if source.startswith("sub-02")]
    assert [row["status"] for row in second] == ["done"]
    done = [row for row in two_processes.rows.values() if row["status"] == "done"]
    assert all(float(row["seconds"]) > 0 and float(row["peak_memory_mb"]) > 50 for row in done)


def test_the_methods_text_is_that_of_the_sidecars(two_processes: Call) -> None:
    text = check(two_processes.out)
    assert "Results of 2 runs of 2 participants" in text
    assert "1 T1w image was corrected" in text
    brain = json.loads(next(two_processes.out.rglob("*_desc-brain_mask.json")).read_text())
    assert ("neural network deepbet" in text) == (brain["BrainExtraction"] == "deepbet")
    assert "In 1 of 2 runs, there was no T1w image" in text
    page = (two_processes.out / "sub-02.html").read_text()
    assert "There was no T1w image" in page and "deepbet" not in page.partition("Software")[0]


def test_each_step_is_told_once_and_without_tracebacks(two_processes: Call) -> None:
    said = two_processes.stderr
    assert "Traceback" not in said and "nipype" not in said
    assert said.count("sub-01, rest: head motion done (") == 1
    # the reason of a failure is printed at once
    assert len(re.findall(r"sub-01, cut: head motion failed: \S+_bold.nii.gz: cannot", said)) == 1
    steps = re.findall(r" done \((\d+) of (\d+) steps.*\)$", said, re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    # all steps are counted from the beginning, and those that could not be done are no surprise
    assert len({total for _, total in steps}) == 1
    # the same reason in the table, in the log and on the last screen
    assert said.count("cannot be read") == 2


def test_every_table_has_424_columns_and_missing_parcels_say_so(two_processes: Call) -> None:
    for subject in ("sub-01", "sub-02"):
        func = two_processes.out / subject / "func"
        names, denoised = read_tsv(next(func.glob(f"*rest*{STEM}_desc-denoised_timeseries.tsv")))
        robust_file = next(func.glob(f"*rest*{STEM}_desc-robust_timeseries.tsv"))
        robust_names, robust = read_tsv(robust_file)
        assert tuple(names) == tuple(robust_names) == resources.parcels().names
        assert len(denoised) == VOLUMES
        sidecar = json.loads(robust_file.with_suffix(".json").read_text())
        filled = [name in sidecar["FilledParcels"] for name in names]
        assert np.all(robust[:, filled] == 0)
        kept = robust[:, np.logical_not(filled)]
        # seven digits are written
        np.testing.assert_allclose(np.median(kept, axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(
            np.subtract(*np.percentile(kept, [75, 25], axis=0)), 1, atol=1e-5
        )
        assert sidecar["RepetitionTime"] == pytest.approx(0.735)
        assert sidecar["StartTime"] == pytest.approx(sidecar["DummyVolumes"] * TR)
        missing = np.isnan(denoised[sidecar["DummyVolumes"] :]).any(axis=0)
        assert not np.any(missing & ~np.array(filled))


def test_confounds_are_those_of_fmriprep(two_processes: Call) -> None:
    func = two_processes.out / "sub-01" / "func"
    names, table = read_tsv(next(func.glob("*rest_desc-confounds_timeseries.tsv")))
    column = dict(zip(names, table.T, strict=True))
    signals = ["csf", "white_matter", "global_signal"]
    signals += [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    for name in signals:
        np.testing.assert_allclose(column[f"{name}_power2"], column[name] ** 2, rtol=1e-5)
        steps = np.diff(column[name])
        found = column[f"{name}_derivative1"]
        np.testing.assert_allclose(found[1:], steps, atol=2e-6 * np.abs(column[name]).max())
        assert np.isnan(found[0])
    assert {"framewise_displacement", "dvars", "std_dvars", "rmsd"} <= column.keys()
    # other tissue, other signal
    assert np.corrcoef(column["csf"][2:], column["white_matter"][2:])[0, 1] < 0.99
    sidecar = json.loads(next(func.glob("*rest_desc-confounds_timeseries.json")).read_text())
    one_hot = [column[name] for name in names if name.startswith("non_steady_state_outlier")]
    assert [int(np.argmax(c)) for c in one_hot] == list(range(sidecar["DummyVolumes"]))
    components, mixing = read_tsv(next(func.glob("*rest_desc-aroma_mixing.tsv")))
    with next(func.glob("*rest_desc-aroma_metrics.tsv")).open() as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert [row["component"] for row in rows] == components
    noise = [k for k, row in enumerate(rows) if row["classification"] == "noise"]
    motion_named = [name for name in names if name.startswith("aroma_motion")]
    assert motion_named == [f"aroma_motion_{k + 1:02d}" for k in noise]
    for name, k in zip(motion_named, noise, strict=True):
        np.testing.assert_allclose(column[name], np.nan_to_num(mixing[:, k]), rtol=1e-6)


def test_image_quality_is_that_of_the_steady_state(two_processes: Call) -> None:
    func = two_processes.out / "sub-01" / "func"
    names, (row,) = read_tsv(next(func.glob("*rest_desc-quality_metrics.tsv")))
    quality = dict(zip(names, row, strict=True))
    series = json.loads(next(func.glob("*rest*_desc-denoised_timeseries.json")).read_text())
    assert quality["fd_mean"] == pytest.approx(series["MeanFramewiseDisplacement"], rel=1e-5)
    assert quality["dummy_trs"] == series["DummyVolumes"] and not series["BadVolumes"]
    assert quality["size_t"] == VOLUMES - series["DummyVolumes"]
    assert quality["spacing_tr"] == pytest.approx(TR)
    assert quality["tsnr"] > 5 and 0.8 < quality["dvars_std"] < 1.5 and 0 < quality["gcor"] < 1
    sidecar = json.loads(next(func.glob("*rest_desc-quality_metrics.json")).read_text())
    assert sidecar["NotAvailable"] == {} and sidecar["SliceTimingCorrected"] is False
    assert not np.isnan(row).any()


def test_without_a_t1w_it_is_said(two_processes: Call) -> None:
    sidecar = next((two_processes.out / "sub-02" / "func").glob("*desc-robust_timeseries.json"))
    values = json.loads(sidecar.read_text())
    kinds = [warning["Kind"] for warning in values["Warnings"]]
    assert "no_t1w" in kinds and "no_fieldmap" in kinds
    reason = "the data set has no field map of the subject"
    correction = values["DistortionCorrection"]
    assert (correction["Method"], correction["Reason"]) == ("none", reason)
    rows = [row for source, row in two_processes.rows.items() if source.startswith("sub-02")]
    assert [row["distortion"] for row in rows] == [f"none: {reason}"]
    assert "no T1w" in (two_processes.out / "sub-02.html").read_text()
    without, either = "There was no T1w image", "In 1 of 2 runs, there was no T1w image"
    texts = {
        name: (two_processes.out / name).read_text()
        for name in ("sub-01.html", "sub-02.html", "logs/CITATION.md")
    }
    assert [name for name, text in texts.items() if without in text] == ["sub-02.html"]
    assert [name for name, text in texts.items() if either in text] == ["logs/CITATION.md"]


def test_an_untrained_model_says_so(two_processes: Call) -> None:
    sidecar = next(
        (two_processes.out / "sub-01" / "func").glob(
            "*model-randomtiny_desc-windows_embeddings.json"
        )
    )
    values = json.loads(sidecar.read_text())
    assert values["Model"]["untrained"] is True
    assert "untrained_model" in [warning["Kind"] for warning in values["Warnings"]]
    assert values["PaddedVolumes"] > 0  # 44 volumes of 2 s are fewer than 200 of 0.735 s


def test_results_do_not_depend_on_the_number_of_processes(
    two_processes: Call, one_process: Call
) -> None:
    first, second = (_hashes(done.out) for done in (two_processes, one_process))
    assert set(first) == set(second)
    assert [name for name in first if first[name] != second[name]] == []


def _hashes(out: Path) -> dict[str, str]:
    files = [path for path in out.rglob("sub-*/**/*") if path.is_file()]
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_same_call_again_computes_nothing(
    dataset: Path, one_process: Call, tmp_path: Path
) -> None:
    done = one_process.out / "sub-02"
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file()}
    # an empty work folder: it is the outputs that count
    flags = ("--nprocs", "1", "--participant-label", "02")
    again = call(dataset, one_process.out, tmp_path / "work", *flags)
    assert again.returncode == 0
    assert [row["status"] for row in again.rows.values()] == ["cached"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (tmp_path / "work" / "brainlm_bids").exists()


def test_the_output_is_valid_bids(two_processes: Call) -> None:
    validator = Path(sys.executable).parent / "bids-validator-deno"
    done = subprocess.run(
        [str(validator), "--json", str(two_processes.out)],
        capture_output=True,
        text=True,
        check=False,
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_nothing_was_written_into_the_data_set(dataset: Path, two_processes: Call) -> None:
    names = {path.name for path in dataset.iterdir()}
    assert "work" not in names
    assert not any(path.suffix in {".sqlite", ".db"} for path in dataset.rglob("*"))


def test_a_crash_file_is_read_to_its_cause() -> None:
    text = (
        "Node: brainlm_bids.func_a.realign\n\nTraceback (most recent call last):\n"
        "nipype.pipeline.engine.nodes.NodeExecutionError: Exception raised\n\n"
        "\tbrainlm_bids.errors.UserError: no brain found\n\n"
    )
    assert crash_reason(text) == ("UserError", "no brain found")
