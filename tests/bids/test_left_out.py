"""Nothing vanishes: what looks like a BOLD run has a row, with the reason if it is not taken."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids import files
from brainlm_bids.app import participant as app
from brainlm_bids.bids import inputs
from brainlm_bids.bids.left_out import is_ignored, read_bidsignore
from brainlm_bids.bids.runs import Run
from brainlm_bids.commands import bids_app as cli
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings

SPACE = "space-MNI152NLin6Asym_res-2"


def _bold(root: Path, *names: str, volumes: int = 30) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".gii":
            path.touch()
            continue
        image = nb.Nifti1Image(np.zeros((10, 10, 10, volumes), np.int16), np.diag([9.0] * 3 + [1]))
        image.header.set_zooms((9.0, 9.0, 9.0, 2.0))
        image.to_filename(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set with one good run."""
    folder = tmp_path / "bids"
    description = {"Name": "x", "BIDSVersion": "1.10.0"}
    files.write_json(folder / "dataset_description.json", description)
    files.write_json(folder / "bold.json", {"RepetitionTime": 2.0})
    _bold(folder, "sub-01/func/sub-01_task-rest_bold.nii.gz")
    return folder


def _settings(root: Path, **values: Any) -> Settings:
    values = {"model": ("none",), "offline": True, "dry_run": True, **values}
    values = {"atlas": "A424approx", "template": "MNI152NLin2009aSym", **values}
    return Settings(root, root.parent / "out", root.parent / "work", **values)


def _reasons(root: Path, **values: Any) -> dict[str, str]:
    """Why files are not taken, by their paths in the data set; the good run must be there."""
    runs = inputs.find_runs(_settings(root, **values))
    assert [run.stem for run in runs if not run.skip] == ["sub-01_task-rest"]
    assert all(run.problem is None for run in runs)
    return {str(run.source.relative_to(root)): run.skip for run in runs if run.skip}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "sub-01/func/sub-01_task-n-back_bold.nii.gz",
            "unlike task-n-back; rename it, with its sidecars, for example to "
            "sub-01_task-nback_bold.nii.gz, or give --skip-bids-validation",
        ),
        (
            "sub-01/func/sub-01_task-rest_eyesopen_bold.nii.gz",
            "'eyesopen' in its name is no entity with a label; rename it, with its sidecars, for "
            "example to sub-01_task-resteyesopen_bold.nii.gz, or give",
        ),
        (
            "sub-01/func/sub-01_bold.nii",
            "no task-<label>, which BIDS requires; rename it, with its sidecars, for example to "
            "sub-01_task-rest_bold.nii, or give",
        ),
        (
            "sub-01/func/sub-01_run-1_task-rest_bold.nii.gz",
            "entities in the order sub, task, run; rename it, with its sidecars, for example to "
            "sub-01_task-rest_run-1_bold.nii.gz, or give",
        ),
        ("sub-01/func/sub-01_task-a_state-x_bold.nii.gz", "'state' in its name is no entity"),
        ("sub-01/func/sub-01_Task-a_bold.nii.gz", "no task-<label>"),
        ("sub-01/func/sub-01_task-a_BOLD.nii.gz", "BIDS names end in _bold.nii.gz, in lower case"),
        (
            "sub-01/sub-01_task-a_bold.nii.gz",
            "it lies in sub-01, and BIDS expects it in sub-01/func; move it there",
        ),
        ("sub-01/func/old/sub-01_task-a_bold.nii.gz", "lies in sub-01/func/old, and BIDS expects"),
        ("sub-01/func/sub-02_task-a_bold.nii.gz", "expects it in sub-02/func"),
        ("01/func/sub-01_task-a_bold.nii.gz", "it lies in 01/func"),
        ("sub-01_task-a_bold.nii.gz", "it lies in ., and BIDS expects it in sub-01/func"),
        ("sub-01/func/rest_bold.nii.gz", "its name has no sub-<label>; rename it"),
        (
            f"sub-01/func/sub-01_task-a_{SPACE}_desc-preproc_bold.nii.gz",
            "is a derivative, not raw data",
        ),
        ("sub-01/func/sub-01_task-a_part-phase_bold.nii.gz", "is the phase part of a complex"),
    ],
)
def test_names_and_places_that_are_not_bids(root: Path, name: str, says: str) -> None:
    _bold(root, name)
    reasons = _reasons(root)
    assert list(reasons) == [name]
    assert says in reasons[name]
    assert reasons[name].startswith(Path(name).name)


def test_other_formats_and_folders_named_like_images(root: Path) -> None:
    func = root / "sub-01" / "func"
    (func / "sub-01_task-a_bold.img").touch()
    (func / "sub-01_task-b_bold.nii.gz").mkdir()
    reasons = _reasons(root)
    assert ".img is not NIfTI; convert it" in reasons["sub-01/func/sub-01_task-a_bold.img"]
    assert "is a folder that is named like" in reasons["sub-01/func/sub-01_task-b_bold.nii.gz"]
    assert len(reasons) == 2


def test_without_validation_they_are_taken(root: Path) -> None:
    func = "sub-01/func/sub-01"
    _bold(root, f"{func}_task-n-back_bold.nii.gz", f"{func}_task-rest_eyesopen_bold.nii.gz")
    _bold(root, f"{func}_bold.nii.gz", "sub-01/func/rest_bold.nii.gz")
    runs = inputs.find_runs(_settings(root, skip_bids_validation=True))
    assert [run.stem for run in runs if run.taken] == [
        "sub-01",
        "sub-01_task-n-back",
        "sub-01_task-rest",
        "sub-01_task-rest_eyesopen",
    ]
    chosen = _settings(root, skip_bids_validation=True, task_id=("n-back",))
    assert [run.stem for run in inputs.find_runs(chosen)] == ["sub-01_task-n-back"]


def test_a_participant_whose_label_is_not_bids(root: Path) -> None:
    _bold(root, "sub-a-1/func/sub-a-1_task-x_bold.nii.gz")
    settings = _settings(root, skip_bids_validation=True, participant_label=("a-1",))
    (run,) = inputs.find_runs(settings)
    assert (run.stem, run.subject, run.problem, run.skip) == ("sub-a-1_task-x", "a-1", None, None)
    (row,) = inputs.find_runs(_settings(root, participant_label=("a-1",)))
    assert "unlike sub-a-1; rename it" in (row.skip or "")


def test_a_run_that_is_there_twice_is_taken_once(root: Path) -> None:
    """The compressed one in its own folder; a copy elsewhere only if nothing is validated."""
    good = root / "sub-01/func/sub-01_task-rest_bold.nii.gz"
    twin = good.with_name("sub-01_task-rest_bold.nii")
    copy = good.parent / "backup" / good.name
    copy.parent.mkdir()
    _bold(root, str(twin.relative_to(root)), str(copy.relative_to(root)))
    for skip in (False, True):
        runs = inputs.find_runs(_settings(root, skip_bids_validation=skip))
        assert [run.source for run in runs if run.taken] == [good]
        reasons = {run.source: run.skip or "" for run in runs if not run.taken}
        assert set(reasons) == {twin, copy}
        same = "the same run as sub-01/func/sub-01_task-rest_bold.nii.gz, which is used"
        assert same in reasons[twin]
        assert (same if skip else "BIDS expects it in sub-01/func") in reasons[copy]


def test_names_that_differ_in_punctuation_alone(root: Path) -> None:
    """They would be one node of the graph."""
    func = "sub-01/func/sub-01_task-a"
    _bold(root, f"{func}-b_bold.nii.gz", f"{func}_b_bold.nii.gz")
    runs = inputs.find_runs(_settings(root, skip_bids_validation=True))
    assert [run.stem for run in runs if run.taken] == ["sub-01_task-a-b", "sub-01_task-rest"]
    assert "differs from sub-01/func/sub-01_task-a-b_bold.nii.gz in punct" in str(
        [run.skip for run in runs]
    )


def test_echoes_beside_their_combination(root: Path) -> None:
    func = "sub-01/func/sub-01_task-rest"
    _bold(root, f"{func}_echo-1_bold.nii.gz", f"{func}_echo-2_bold.nii.gz")
    _bold(root, f"{func}_part-phase_bold.nii.gz")
    reasons = _reasons(root)
    assert len(reasons) == 3
    assert all("is a part of sub-01_task-rest, which is used" in text for text in reasons.values())


def test_what_bidsignore_names(root: Path) -> None:
    func = "sub-01/func/sub-01_task"
    _bold(root, f"{func}-bad_bold.nii.gz", f"{func}-badkept_bold.nii.gz", "extra/a_bold.nii.gz")
    (root / ".bidsignore").write_text("# bad\n\n*_task-bad*\n!*_task-badkept*\nextra/\n")
    runs = inputs.find_runs(_settings(root))
    assert [run.stem for run in runs if run.taken] == ["sub-01_task-badkept", "sub-01_task-rest"]
    for run in runs:
        if not run.taken:
            assert ".bidsignore names it; remove the pattern, or give --skip" in (run.skip or "")
    assert len(runs) == 4
    every = inputs.find_runs(_settings(root, skip_bids_validation=True))
    assert "sub-01_task-bad" in [run.stem for run in every if run.taken]


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        ("*_bold.nii", "sub-01/func/a_bold.nii", True),
        ("/*_bold.nii", "sub-01/func/a_bold.nii", False),
        ("sub-01/**", "sub-01/func/a_bold.nii", True),
        ("sub-0[!1]", "sub-01/func/a_bold.nii", False),
        ("sub-0[!1]", "sub-02/func/a_bold.nii", True),
        ("sub-01/*_bold.nii", "sub-01/func/a_bold.nii", False),
        ("sub-01/**/*_bold.nii", "sub-01/func/a_bold.nii", True),
        ("**/func/", "sub-01/func/a_bold.nii", True),
        ("func", "sub-01/func/a_bold.nii", True),
        ("[]", "sub-01/func/a_bold.nii", False),
        ("[", "[/func/a_bold.nii", True),
        ("a?bold.nii", "sub-01/func/a_bold.nii", True),
        ("*.nii\n!a_bold.nii", "sub-01/func/a_bold.nii", False),
    ],
)
def test_patterns_are_those_of_git(tmp_path: Path, patterns: str, path: str, ignored: bool) -> None:
    (tmp_path / ".bidsignore").write_text(patterns)
    assert is_ignored(tmp_path / path, tmp_path, read_bidsignore(tmp_path)) == ignored


def test_only_the_selection_has_rows(root: Path) -> None:
    _bold(root, "sub-01/func/sub-01_task-n-back_bold.nii.gz", "sub-02/func/sub-02_bold.nii.gz")
    _bold(root, "sub-02/ses-a/func/sub-02_ses-a_task-rest_run-x_bold.nii.gz")
    assert len(_reasons(root)) == 3
    assert list(_reasons(root, task_id=("rest",))) == [
        "sub-02/ses-a/func/sub-02_ses-a_task-rest_run-x_bold.nii.gz"
    ]
    assert _reasons(root, task_id=("rest",), participant_label=("01",)) == {}
    filters = root.parent / "filter.json"
    files.write_json(filters, {"bold": {"task": "rest", "subject": ["01"]}})
    assert _reasons(root, bids_filter_file=filters) == {}


def test_participants_without_runs_and_sidecars_without_images(root: Path) -> None:
    (root / "sub-02").mkdir()
    func = root / "sub-03" / "func"
    func.mkdir(parents=True)
    (func / "sub-03_task-a_events.tsv").write_text("onset\tduration\n")
    (func / "sub-03_task-a_bold.json").write_text("{}")
    (func / "sub-03_task-b_bold.json").write_text("[]")
    reasons = _reasons(root, participant_label=("01", "02", "03"))
    assert reasons == {
        "sub-02": "sub-02: has no BOLD run of the selection",
        "sub-03/func/sub-03_task-a_bold.json": "sub-03_task-a_bold.json: there is no image "
        "sub-03_task-a_bold.nii.gz beside it",
        "sub-03/func/sub-03_task-b_bold.json": "sub-03_task-b_bold.json: there is no image "
        "sub-03_task-b_bold.nii.gz beside it",
    }
    assert len(_reasons(root)) == 2  # nobody asked for sub-02
    # one volume of reference is no run
    _bold(root, "sub-03/func/sub-03_task-b_sbref.nii.gz")
    assert len(_reasons(root)) == 2
    # a sidecar that several runs share is not lonely
    _bold(root, "sub-03/func/sub-03_task-a_run-1_bold.nii.gz")
    runs = inputs.find_runs(_settings(root, participant_label=("03",)))
    assert [run.source.name for run in runs if not run.taken] == ["sub-03_task-b_bold.json"]


def test_folders_that_may_not_be_listed_and_links_to_themselves(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _bold(root, "sub-02/func/sub-02_task-rest_bold.nii.gz")
    (root / "README").symlink_to("README")
    (root / ".bidsignore").write_bytes(b"\xff[\n")
    scan = os.scandir

    def closed(folder: Path) -> Any:
        if Path(folder) == root / "sub-02" / "func":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", closed)
    good, bad = inputs.find_runs(_settings(root))
    assert good.problem is None
    assert (bad.source, bad.subject) == (root / "sub-02" / "func", "02")
    assert "cannot be listed by user" in (bad.problem or "")


def test_links_in_a_circle_and_other_data_sets(root: Path) -> None:
    (root / "sub-01" / "again").symlink_to(root / "sub-01")
    _bold(root, "copy/sub-09/func/sub-09_task-rest_bold.nii.gz")
    files.write_json(root / "copy" / "dataset_description.json", {"Name": "another"})
    _bold(root, "derivatives/x/sub-01/func/sub-01_task-y_bold.nii.gz", "code/x_bold.nii.gz")
    (root / "linked").mkdir()
    shutil.copytree(root / "sub-01" / "func", root.parent / "elsewhere" / "func")
    for path in (root.parent / "elsewhere" / "func").iterdir():
        path.rename(path.with_name("sub-04_task-rest_bold.nii.gz"))
    (root / "sub-04").symlink_to(root.parent / "elsewhere")
    runs = inputs.find_runs(_settings(root))
    assert {run.stem for run in runs if run.taken} == {"sub-01_task-rest", "sub-04_task-rest"}


@pytest.mark.parametrize("dry", [True, False])
def test_nothing_that_could_be_taken_is_nothing_to_do(
    root: Path, dry: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows are there all the same."""
    shutil.rmtree(root / "sub-01")
    _bold(root, "sub-01/func/sub-01_task-n-back_bold.nii.gz", "sub-01/func/rest_bold.nii.gz")
    flags = ["-w", str(root.parent / "work"), "--offline", "--atlas", "A424approx"]
    flags += ["--template", "MNI152NLin2009aSym", "--model", "none", *["--dry-run"] * dry]
    out = root.parent / "out"
    assert cli.main([str(root), str(out), "participant", *flags]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("brainlm-bids: nothing to do: 2 files look like")
    if dry:
        assert said.out.count("  skipped  ") == 2
        return
    rows = files.read_rows(next((out / "logs").glob("*_status.tsv")))
    assert {(row["participant_id"], row["status"]) for row in rows} == {("sub-01", "skipped")}
    assert not list(out.glob("sub-*.html")), "there is nothing to report of a subject"


def test_no_run_at_all(root: Path) -> None:
    shutil.rmtree(root / "sub-01")
    with pytest.raises(UserError, match=r"there is no BOLD run \(no file ends in _bold.nii.gz"):
        inputs.find_runs(_settings(root))


# --- fMRIPrep's derivatives ------------------------------------------------------------------


@pytest.fixture
def fmriprep(tmp_path: Path) -> Path:
    """A folder of derivatives with one good run."""
    folder = tmp_path / "fmriprep"
    made = {"Name": "x", "BIDSVersion": "1.4.0", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    files.write_json(folder / "dataset_description.json", made)
    files.write_json(folder / "bold.json", {"RepetitionTime": 2.0})
    _bold(folder, f"sub-01/func/sub-01_task-rest_{SPACE}_desc-preproc_bold.nii.gz")
    table = folder / "sub-01/func/sub-01_task-rest_desc-confounds_timeseries.tsv"
    files.write_tsv(table, ["csf"], [[0.5] * 30])
    return folder


def _rows(fmriprep: Path, **values: Any) -> Sequence[Run]:
    nothing = fmriprep.parent / "raw"
    nothing.mkdir(exist_ok=True)
    given = {"denoise": "none", "derivatives": (f"fmriprep={fmriprep}",), **values}
    return inputs.find_runs(_settings(nothing, **given))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("task-a_bold_space-MNI152NLin2009cAsym_preproc.nii.gz", "is named as by fMRIPrep 1.0"),
        ("task-a_space-fsLR_den-170k_bold.dtseries.nii", "170k grayordinates alone, and A424 is"),
        ("task-a_hemi-L_space-fsaverage_bold.func.gii", "have BOLD in fsaverage alone; run fMRI"),
        ("task-a_space-MNIPediatricAsym_desc-preproc_bold.nii.gz", "BOLD in MNIPediatricAsym alon"),
        ("task-rest_echo-1_desc-preproc_bold.nii.gz", "is a part of sub-01_task-rest, which is"),
        ("task-a_echo-1_desc-preproc_bold.nii.gz", "a single echo or part of a run, without the"),
        (f"task-rest_{SPACE}_desc-preproc_bold.nii", None),
        (f"../task-a_{SPACE}_desc-preproc_bold.nii.gz", "lies in sub-01, and fMRIPrep writes"),
        (f"old/task-rest_{SPACE}_desc-preproc_bold.nii.gz", "lies in sub-01/func/old, and fMRIPr"),
        (f"../../sub-01/ses-a/func/task-rest_{SPACE}_desc-preproc_bold.nii.gz", "the same run as"),
    ],
)
def test_what_fmriprep_wrote_in_other_forms(fmriprep: Path, name: str, says: str | None) -> None:
    folder, _, last = name.rpartition("/")
    path = (fmriprep / "sub-01" / "func" / folder).resolve() / f"sub-01_{last}"
    _bold(fmriprep, str(path.relative_to(fmriprep)))
    if "ses-a" in name:
        table = path.with_name("sub-01_task-rest_desc-confounds_timeseries.tsv")
        files.write_tsv(table, ["csf"], [[0.5] * 30])
    runs = _rows(fmriprep)
    good = f"sub-01_task-rest_{SPACE}_desc-preproc_bold.nii.gz"
    assert [run.source.name for run in runs if run.taken] == [good]
    assert all(run.problem is None for run in runs)
    left = [run.skip or "" for run in runs if not run.taken]
    assert len(left) == (says is not None)
    assert says is None or says in left[0]


def test_a_sidecar_of_fmriprep_without_its_image(fmriprep: Path) -> None:
    func = fmriprep / "sub-01" / "func"
    (func / f"sub-01_task-a_{SPACE}_desc-preproc_bold.json").write_text("{}")
    (func / f"sub-01_task-a_{SPACE}_desc-brain_mask.nii.gz").touch()
    runs = _rows(fmriprep)
    assert [run.skip for run in runs] == [
        f"sub-01_task-a_{SPACE}_desc-preproc_bold.json: there is no image beside it",
        None,
    ]


def test_grayordinates_under_ica_aroma_say_the_way_out(fmriprep: Path) -> None:
    func = fmriprep / "sub-01" / "func"
    next(func.glob("*_bold.nii.gz")).unlink()
    (func / "sub-01_task-rest_space-fsLR_den-91k_bold.dtseries.nii").touch()
    (run,) = _rows(fmriprep, denoise="nonaggr")
    assert run.taken
    assert "or give --denoise confounds:simple" in (run.problem or "")


def test_a_participant_of_fmriprep_without_runs(fmriprep: Path) -> None:
    (fmriprep / "sub-02").mkdir()
    runs = _rows(fmriprep, participant_label=("01", "02"))
    assert [run.skip for run in runs] == [None, "sub-02: has no BOLD run of the selection"]
    with pytest.raises(UserError, match=r"no BOLD run matches --task-id x \(there are 1, of"):
        _rows(fmriprep, task_id=("x",))


def test_rows_of_a_dry_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _bold(root, "sub-01/func/sub-01_task-n-back_bold.nii.gz")
    assert app.run(_settings(root)) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["file", "to_do"]
    assert [line.split()[:2] for line in lines] == [
        ["sub-01/func/sub-01_task-n-back_bold.nii.gz", "skipped"],
        ["sub-01/func/sub-01_task-rest_bold.nii.gz", "series"],
    ]
    assert json.loads((root / "bold.json").read_text()) == {"RepetitionTime": 2.0}
