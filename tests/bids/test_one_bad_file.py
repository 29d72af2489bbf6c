"""One bad file is one row: whatever is wrong with a file costs its own run, and says what to do."""

import errno
import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids import files
from brainlm_bids.app import participant as app
from brainlm_bids.app import planning
from brainlm_bids.bids import describers, inputs
from brainlm_bids.bids.given import given_timeseries
from brainlm_bids.bids.runs import Run
from brainlm_bids.commands import bids_app as cli
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.images import load_image
from brainlm_bids.settings import Settings

GOOD = {"RepetitionTime": 2.0, "TaskName": "rest"}
SHAPE = (10, 10, 10)


def _image(path: Path, *shape: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    image = nb.Nifti1Image(values, np.diag([9.0, 9.0, 9.0, 1.0]))
    if len(shape) == 4:
        image.header.set_zooms((9.0, 9.0, 9.0, 2.0))
        path.with_name(path.name.partition(".")[0] + ".json").write_text(json.dumps(GOOD))
    image.to_filename(path)
    return path


def _bold(root: Path, stem: str) -> Path:
    parts = [part for part in stem.split("_") if part.startswith(("sub-", "ses-"))]
    return _image(root.joinpath(*parts, "func", f"{stem}_bold.nii.gz"), *SHAPE, 30)


def _t1w(root: Path, stem: str) -> Path:
    parts = [part for part in stem.split("_") if part.startswith(("sub-", "ses-"))]
    return _image(root.joinpath(*parts, "anat", f"{stem}_T1w.nii.gz"), *SHAPE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two subjects, each with a T1w and a run."""
    folder = tmp_path / "bids"
    files.write_json(folder / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    for label in ("01", "02"):
        _bold(folder, f"sub-{label}_task-rest")
        _t1w(folder, f"sub-{label}")
    return folder


def _settings(root: Path, **values: Any) -> Settings:
    values = {"model": ("none",), "offline": True, "dry_run": True, **values}
    values = {"atlas": "A424approx", "template": "MNI152NLin2009aSym", **values}
    return Settings(root, root.parent / "out", root.parent / "work", **values)


def _runs(root: Path, **values: Any) -> dict[str, Run]:
    return {run.stem: run for run in inputs.find_runs(_settings(root, **values))}


def _annex(path: Path) -> None:
    """As git-annex leaves it: a link to a content that was not fetched."""
    path.unlink()
    path.symlink_to("../../.git/annex/objects/xx/yy/SHA256E-s1--0.nii.gz")


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere/T1w.nii.gz")


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flipped(path: Path) -> None:
    """A byte of the compressed data is another, which only the checksum tells."""
    content = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _noise(path: Path) -> None:
    path.write_bytes(b"no image at all, but long enough to be one of something else" * 10)


DAMAGE = [
    (_dangling, "is a link to nowhere/T1w.nii.gz, which is not there; fetch or copy the file"),
    (_lfs, "it is a pointer of Git LFS); get it with `git lfs pull`"),
    (_emptied, "is empty (0 bytes); fetch or copy it again"),
    (_cut, "is it damaged or incomplete?"),
    (_flipped, "is it damaged or incomplete?"),
    (_noise, "is it damaged or incomplete?"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGE)
def test_a_bad_t1w_costs_its_subject_alone(
    root: Path, damage: Callable[[Path], None], says: str
) -> None:
    t1w = root / "sub-01/anat/sub-01_T1w.nii.gz"
    damage(t1w)
    runs = _runs(root)
    problem = runs["sub-01_task-rest"].problem or ""
    assert problem.startswith(f"{t1w}: ")
    assert says in problem
    assert problem.endswith("; or process the run without it (--anat-fallback)")
    assert "\n" not in problem
    good = runs["sub-02_task-rest"]
    assert (good.problem, good.warnings) == (None, ())
    assert good.t1w is not None
    fallen = _runs(root, anat_fallback=True)["sub-01_task-rest"]
    assert (fallen.problem, fallen.t1w) == (None, None)
    assert [one.kind for one in fallen.warnings] == ["no_t1w"]
    assert says in fallen.warnings[0].text


def test_a_damaged_t1w_falls_to_the_next(root: Path) -> None:
    first = root / "sub-01/anat/sub-01_T1w.nii.gz"
    first = first.rename(first.with_name("sub-01_run-1_T1w.nii.gz"))
    second = _t1w(root, "sub-01_run-2")
    run = _runs(root)["sub-01_task-rest"]
    assert (run.t1w, run.problem) == (first, None)
    assert [one.kind for one in run.warnings] == ["t1w_of_several"]
    _cut(first)
    run = _runs(root)["sub-01_task-rest"]
    assert (run.t1w, run.problem) == (second, None)
    assert [one.kind for one in run.warnings] == ["t1w_damaged"]
    assert run.warnings[0].text.startswith(f"{first}: cannot be read")


def test_of_a_t1w_that_is_there_twice_the_compressed_one_is_used(root: Path) -> None:
    first = root / "sub-01/anat/sub-01_T1w.nii.gz"
    twin = _image(first.with_name("sub-01_T1w.nii"), *SHAPE)
    assert _runs(root)["sub-01_task-rest"].t1w == first
    _cut(first)
    assert _runs(root)["sub-01_task-rest"].t1w == twin
    _cut(twin)
    assert "is it damaged" in (_runs(root)["sub-01_task-rest"].problem or "")


def test_the_t1w_of_another_session_is_told(root: Path) -> None:
    _bold(root, "sub-03_ses-b_task-rest")
    other = _t1w(root, "sub-03_ses-a")
    run = _runs(root)["sub-03_ses-b_task-rest"]
    assert run.t1w == other
    assert [one.kind for one in run.warnings] == ["t1w_of_other_session"]
    own = _t1w(root, "sub-03_ses-b")
    run = _runs(root)["sub-03_ses-b_task-rest"]
    assert (run.t1w, run.warnings) == (own, ())
    _emptied(own)
    run = _runs(root)["sub-03_ses-b_task-rest"]
    assert run.t1w == other
    assert [one.kind for one in run.warnings] == ["t1w_damaged", "t1w_of_other_session"]


def test_no_flipped_bit_of_a_compressed_image_is_read(tmp_path: Path) -> None:
    """Most of them decompress to other values, which only the checksum tells."""
    path = _image(tmp_path / "a.nii.gz", *SHAPE, 30)
    good, _ = load_image(str(path))
    content, random = path.read_bytes(), np.random.default_rng(0)
    n_refused = 0
    for _ in range(60):
        flipped = bytearray(content)
        flipped[random.integers(20, len(content))] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        try:
            values, _ = load_image(str(path))
        except UserError as error:
            n_refused += 1
            assert str(error).startswith(f"{path}: cannot be read (")
        else:
            np.testing.assert_array_equal(values, good)
    assert n_refused > 50


@pytest.mark.parametrize(("damage", "says"), DAMAGE[:3])
def test_a_bad_bold_is_one_row(
    root: Path,
    damage: Callable[[Path], None],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(root / "sub-01/func/sub-01_task-rest_bold.nii.gz")
    assert app.run(_settings(root)) == 1
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["sub-01/func/sub-01_task-rest_bold.nii.gz", "failed"]
    assert says in first
    assert second.split()[:2] == ["sub-02/func/sub-02_task-rest_bold.nii.gz", "series"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(root: Path) -> None:
    (root / "sub-01/func/sub-01_task-rest_bold.nii.gz").chmod(0)
    runs = _runs(root)
    assert "change its permissions" in (runs["sub-01_task-rest"].problem or "")
    assert runs["sub-02_task-rest"].problem is None


def test_an_error_of_the_program_costs_one_run_and_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look = describers.look_at_image

    def fails(path: Path, *arguments: Any, **more: Any) -> Any:
        if "sub-01" in path.name:
            raise KeyError("of the program")
        return look(path, *arguments, **more)

    monkeypatch.setattr(describers, "look_at_image", fails)
    assert app.run(_settings(root)) == 1
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[1] == "failed"
    assert "sub-01_task-rest_bold.nii.gz: internal error (KeyError: 'of the" in first
    assert first.endswith("; please report it")
    assert second.split()[:2] == ["sub-02/func/sub-02_task-rest_bold.nii.gz", "series"]
    run = _runs(root)["sub-01_task-rest"]
    assert "fails" in run.traceback


def test_an_error_while_planning_leaves_a_crash_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> Any:
        raise RuntimeError("of the program")

    monkeypatch.setattr(planning, "run_inputs", fails)
    settings = _settings(root, dry_run=False)
    assert app.run(settings) == 1
    logs = settings.output_dir / "logs"
    rows = files.read_rows(next(logs.glob("*_status.tsv")))
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert "RuntimeError: of the program" in Path(rows[0]["crash_file"]).read_text()


# --- fMRIPrep's derivatives ------------------------------------------------------------------

SPACE = "space-MNI152NLin6Asym_res-2"


@pytest.fixture
def fmriprep(tmp_path: Path) -> Path:
    folder = tmp_path / "fmriprep"
    made = {"Name": "x", "BIDSVersion": "1.4.0", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    files.write_json(folder / "dataset_description.json", made)
    for label in ("01", "02"):
        func = folder / f"sub-{label}" / "func"
        _image(func / f"sub-{label}_task-rest_{SPACE}_desc-preproc_bold.nii.gz", *SHAPE, 30)
        _image(func / f"sub-{label}_task-rest_{SPACE}_desc-brain_mask.nii.gz", *SHAPE)
        confounds = func / f"sub-{label}_task-rest_desc-confounds_timeseries.tsv"
        files.write_tsv(confounds, ["csf"], [[0.5] * 30])
    return folder


@pytest.mark.parametrize("what", ["preproc_bold.nii.gz", "brain_mask.nii.gz", "timeseries.tsv"])
@pytest.mark.parametrize("damage", [_annex, _emptied, _folder])
def test_a_bad_file_of_fmriprep_costs_its_run_alone(
    fmriprep: Path, what: str, damage: Callable[[Path], None]
) -> None:
    path = next((fmriprep / "sub-01/func").glob(f"*{what}"))
    damage(path)
    nothing = fmriprep.parent / "no_raw_data"
    nothing.mkdir()
    settings = _settings(nothing, derivatives=(f"fmriprep={fmriprep}",), denoise="none")
    first, second = inputs.find_runs(settings)
    assert (first.problem or "").startswith(f"{path}: ")
    assert second.problem is None


def test_a_broken_raw_sidecar_is_needed_only_for_what_fmriprep_lacks(fmriprep: Path) -> None:
    raw = fmriprep.parent / "raw"
    files.write_text(raw / "sub-01/func/sub-01_task-rest_bold.json", "{")
    settings = _settings(raw, derivatives=(f"fmriprep={fmriprep}",), denoise="none")
    assert [run.problem for run in inputs.find_runs(settings)] == [None, None]
    func = fmriprep / "sub-01" / "func"
    (func / f"sub-01_task-rest_{SPACE}_desc-preproc_bold.json").unlink()
    first, second = inputs.find_runs(settings)
    assert "sub-01_task-rest_bold.json: is not valid JSON" in (first.problem or "")
    assert second.problem is None


# --- the data set's own description ----------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_a_description_of_an_old_editor(root: Path, encoding: str) -> None:
    text = '{"Name": "Größe", "BIDSVersion": "1.10.0"}'
    (root / "dataset_description.json").write_text(text, encoding=encoding)
    settings = _settings(root)
    assert len(inputs.find_runs(settings)) == 2
    app.write_dataset(settings, app.find_resources(settings))
    written = files.read_json(settings.output_dir / "dataset_description.json")
    assert written["Name"] == "brainlm-bids derivatives of Größe"


def test_a_damaged_description_is_refused_in_one_line(root: Path) -> None:
    (root / "dataset_description.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset_description.json: is not a valid JSON object"):
        inputs.find_runs(_settings(root))
    assert len(_runs(root, skip_bids_validation=True)) == 2
    (root / "dataset_description.json").unlink()
    assert len(_runs(root, skip_bids_validation=True)) == 2


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe\x00", b'{"Name": "\xfc"}'])
def test_given_series_need_no_data_set(tmp_path: Path, content: bytes | None) -> None:
    """Not even a folder. One of two series was never fetched: it is a row."""
    bids_dir = tmp_path / "bids"
    if content is not None:
        bids_dir.mkdir()
        (bids_dir / "dataset_description.json").write_bytes(content)
    series = tmp_path / "sub-01_task-rest.npy"
    np.save(series, np.random.default_rng(0).normal(size=(30, 424)))
    absent = tmp_path / "sub-02_task-rest.npy"
    absent.symlink_to("nowhere")
    out = tmp_path / "out"
    flags = ["-w", str(tmp_path / "work"), "--offline", "--atlas", "A424approx", "--model", "none"]
    flags += ["--timeseries-tr", "0.735", "--timeseries", str(absent)]
    assert cli.main([str(bids_dir), str(out), "participant", *flags]) == 1
    description = files.read_json(out / "dataset_description.json")
    assert ("DatasetLinks" in description) == (content == b'{"Name": "\xfc"}')
    assert description["GeneratedBy"][0]["Name"] == "brainlm-bids"
    settings = cli.parse([str(bids_dir), str(out), "participant", *flags, str(series)])
    good, bad = given_timeseries(settings, [f"p{k}" for k in range(424)])
    assert good.problem is None
    assert "is a link to nowhere, which is not there" in (bad.problem or "")


def test_two_given_series_of_one_name_cost_these_two(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/sub-01.npy", "b/sub-01.npy", "a/sub-02.npy")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.random.default_rng(0).normal(size=(30, 4)))
    settings = replace(_settings(tmp_path), timeseries=tuple(paths), timeseries_tr=2.0)
    runs = given_timeseries(settings, ["a", "b", "c", "d"])
    assert [run.problem is None for run in runs] == [False, False, True]
    assert "another file would also be called sub-01" in (runs[0].problem or "")


# --- a full disk -----------------------------------------------------------------------------


@pytest.mark.parametrize("full_after", range(12))
def test_a_full_disk_is_one_line(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full_after: int,
) -> None:
    """Whichever of the files of a call it is that does not fit any more."""
    written = []
    sync = os.fsync

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > full_after:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    for bold in root.rglob("*_bold.nii.gz"):  # nothing is to be computed: two failed rows
        _emptied(bold)
    flags = ["-w", str(root.parent / "work"), "--offline", "--atlas", "A424approx"]
    flags += ["--template", "MNI152NLin2009aSym", "--model", "none"]
    code = cli.main([str(root), str(root.parent / "out"), "participant", *flags])
    assert code == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    if len(written) > full_after:
        last = errors.splitlines()[-1]
        assert last.startswith(f"brainlm-bids: {root.parent / 'out'}")
        assert "cannot be written (No space left on device)" in last
        assert not list((root.parent / "out").rglob(".tmp-*"))
    shutil.rmtree(root.parent / "out")
