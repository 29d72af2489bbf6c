"""Files whose contents git-annex has not fetched: which they are, and what is said of their runs.

The folders are laid out as git-annex leaves them; real data sets are in tests/datalad.
"""

import json
import shlex
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids import annex, files
from brainlm_bids.bids import inputs
from brainlm_bids.bids.annexed_content import Places
from brainlm_bids.bids.runs import Run
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings

KEY = "MD5E-s2000000--44c0e2786ca306c7633a128c07e0e8c9.nii.gz"
RUN = "sub-01/func/sub-01_task-rest_bold"


def image(path: Path, *shape: int, **sidecar: Any) -> Path:
    """An image of an 80 mm cube, with a sidecar if there are fields for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    made = nb.Nifti1Image(values, np.diag([9.0, 9.0, 9.0, 1.0]))
    if len(shape) == 4:
        made.header.set_zooms((9.0, 9.0, 9.0, 2.0))
    made.to_filename(path)
    if sidecar:
        path.with_name(path.name.partition(".")[0] + ".json").write_text(json.dumps(sidecar))
    return path


def drop(path: Path, top: Path, *, unlocked: bool = False) -> None:
    """Leave a file as git-annex does whose content was dropped."""
    path.unlink()
    if unlocked:
        path.write_text(f"/annex/objects/{KEY}\n")
        return
    up = "../" * len(path.relative_to(top).parts[:-1])
    path.symlink_to(f"{up}.git/annex/objects/q9/8G/{KEY}/{KEY}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two subjects in a repository; the first has a field map and a single-band reference."""
    folder = tmp_path / "a data set"
    (folder / ".git" / "annex").mkdir(parents=True)
    files.write_json(folder / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    fields = {"RepetitionTime": 2.0, "TaskName": "rest", "PhaseEncodingDirection": "j"}
    for label in ("01", "02"):
        sub = folder / f"sub-{label}"
        name = f"sub-{label}_task-rest"
        image(
            sub / f"func/{name}_bold.nii.gz",
            *(10, 10, 10, 30),
            **fields,
            TotalReadoutTime=0.05,
        )
        image(sub / f"anat/sub-{label}_T1w.nii.gz", 20, 20, 20)
    func, fmap = folder / "sub-01/func", folder / "sub-01/fmap"
    image(func / "sub-01_task-rest_sbref.nii.gz", 10, 10, 10, PhaseEncodingDirection="j")
    image(folder / "sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz", 20, 20, 20)
    (folder / ".bidsignore").write_text("*_roi.nii.gz\n")
    target = "func/sub-01_task-rest_bold.nii.gz"
    image(
        fmap / "sub-01_phasediff.nii.gz",
        *(10, 10, 10),
        EchoTime1=0.004,
        EchoTime2=0.0065,
        IntendedFor=target,
    )
    image(fmap / "sub-01_magnitude1.nii.gz", 10, 10, 10)
    image(fmap / "sub-01_acq-other_epi.nii.gz", 10, 10, 10, IntendedFor="func/other_bold.nii.gz")
    return folder


def settings(root: Path, **values: Any) -> Settings:
    values = {"model": ("none",), "offline": True, "dry_run": True, **values}
    values = {"atlas": "A424approx", "template": "MNI152NLin2009aSym", **values}
    return Settings(root, root.parent / "out", root.parent / "work", **values)


def runs(root: Path, **values: Any) -> list[Run]:
    return inputs.find_runs(settings(root, **values))


def got_by(problem: str) -> tuple[str, list[str]]:
    """The folder and the files of the command at the end of a line, as a shell would read it."""
    words = shlex.split(problem.partition(", or run: ")[2])
    assert words[:2] == ["datalad", "-C"] and words[3] == "get"
    return words[2], words[4:]


NEEDED = {
    "the run": "sub-01/func/sub-01_task-rest_bold.nii.gz",
    "its sidecar": "sub-01/func/sub-01_task-rest_bold.json",
    "T1w": "sub-01/anat/sub-01_T1w.nii.gz",
    "lesion mask": "sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz",
    "field map": "sub-01/fmap/sub-01_phasediff.nii.gz",
    "sidecar of the field map": "sub-01/fmap/sub-01_phasediff.json",
    "magnitude, which nothing declares": "sub-01/fmap/sub-01_magnitude1.nii.gz",
    "single-band reference": "sub-01/func/sub-01_task-rest_sbref.nii.gz",
    "sidecar of the reference": "sub-01/func/sub-01_task-rest_sbref.json",
}


@pytest.mark.parametrize("unlocked", [False, True])
@pytest.mark.parametrize("what", NEEDED)
def test_whatever_is_not_there_is_named_with_its_command(
    root: Path, what: str, unlocked: bool
) -> None:
    """A run is never processed otherwise because a file of it was not fetched."""
    drop(root / NEEDED[what], root, unlocked=unlocked)
    first, second = runs(root)
    folder, got = got_by(first.problem or "")
    assert (folder, "\n" in (first.problem or "")) == (str(root), False)
    assert NEEDED[what] in got
    assert got == [NEEDED[what]]
    assert first.absent == (root / NEEDED[what],)
    assert (second.problem, second.absent, second.warnings) == (None, (), ())


def test_one_command_gets_all_files_of_a_run_and_only_those(root: Path) -> None:
    for path in [*root.glob("sub-01/*/*.nii.gz"), *root.glob("sub-02/*/*.nii.gz")]:
        drop(path, root)
    first, second = runs(root)
    assert (first.problem or "").startswith(
        "sub-01_task-rest: 6 of its files have not been fetched"
    )
    of_run = {NEEDED[key] for key in NEEDED if "sidecar" not in key}
    assert set(got_by(first.problem or "")[1]) == of_run
    assert got_by(second.problem or "")[1] == [
        "sub-02/func/sub-02_task-rest_bold.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
    ]


def test_what_a_call_does_not_need_need_not_be_there(root: Path) -> None:
    for name in ("field map", "single-band reference", "T1w"):
        drop(root / NEEDED[name], root)
    drop(root / "sub-01/fmap/sub-01_acq-other_epi.nii.gz", root)
    values = {"ignore": ("fieldmaps", "sbref"), "anat_fallback": True}
    first, _ = runs(root, **values)
    assert (first.problem, first.t1w, first.fieldmap, first.sbref) == (None, None, None, None)
    assert "no_t1w" in [one.kind for one in first.warnings]


def test_a_good_t1w_in_the_place_of_one_that_was_not_fetched_is_not_used(root: Path) -> None:
    image(root / "sub-01/anat/sub-01_run-2_T1w.nii.gz", 20, 20, 20)
    first = runs(root)[0]
    assert first.t1w is not None
    drop(first.t1w, root)
    again = runs(root)[0]
    assert again.t1w is None
    assert again.absent == (first.t1w,)


def test_a_link_to_a_data_set_elsewhere_names_that_data_set(root: Path, tmp_path: Path) -> None:
    """Data sets are made of links to DataLad's, and folders of theirs are links."""
    other = tmp_path / "other"
    files.write_json(other / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    (other / "sub-02").symlink_to(root / "sub-02")
    (other / "sub-01/func").mkdir(parents=True)
    for path in root.glob("sub-01/func/*bold*"):
        (other / "sub-01/func" / path.name).symlink_to(path)
    assert [run.problem for run in runs(other)] == [None, None]
    for label in ("01", "02"):
        drop(root / f"sub-{label}/func/sub-{label}_task-rest_bold.nii.gz", root)
    for run, label in zip(runs(other), ("01", "02"), strict=True):
        name = f"sub-{label}/func/sub-{label}_task-rest_bold.nii.gz"
        assert got_by(run.problem or "") == (str(root), [name])


def test_a_repository_that_a_container_does_not_see(root: Path) -> None:
    """Only a part of a data set is mounted: the links lead out of it."""
    path = root / NEEDED["the run"]
    drop(path, root)
    (root / ".git").rename(root.parent / "elsewhere")
    problem = runs(root)[0].problem or ""
    assert problem.startswith(f"{path}: has not been fetched (it is a link into {root}/.git/annex")
    assert "give the container all of it with its folder .git" in problem


def test_files_of_fmriprep_and_the_raw_sidecar(root: Path) -> None:
    folder = root / "derivatives" / "fmriprep"
    made = {"Name": "x", "BIDSVersion": "1.4.0", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    files.write_json(folder / "dataset_description.json", made)
    func, space = folder / "sub-01/func", "space-MNI152NLin6Asym_res-2"
    stem = f"sub-01_task-rest_{space}_desc"
    names = [f"{stem}-preproc_bold.nii.gz", f"{stem}-brain_mask.nii.gz"]
    image(func / names[0], 10, 10, 10, 30, RepetitionTime=2.0)
    image(func / names[1], 10, 10, 10)
    table = files.write_tsv(
        func / "sub-01_task-rest_desc-confounds_timeseries.tsv", ["csf"], [[0.5] * 30]
    )
    files.write_json(table.with_suffix(".json"), {"csf": {}})
    values = {"derivatives": (f"fmriprep={folder}",), "denoise": "none"}
    assert runs(root, **values)[0].problem is None
    gone = [func / name for name in names]
    gone += [table, table.with_suffix(".json"), func / f"{stem}-preproc_bold.json"]
    for path in (*gone, root / f"{RUN}.json"):
        drop(path, root)
    (run,) = runs(root, **values)
    expected = {path.relative_to(root).as_posix() for path in gone} | {f"{RUN}.json"}
    assert set(got_by(run.problem or "")[1]) == expected


# --- subdatasets -----------------------------------------------------------------------------


def submodules(top: Path, *paths: str) -> None:
    """As `git clone` leaves subdatasets: registered, and empty folders."""
    text = ""
    for path in paths:
        (top / path).mkdir(parents=True, exist_ok=True)
        text += f'[submodule "{path}"]\n\tpath = {path}\n\turl = ./{path}\n'
    (top / ".gitmodules").write_text(text)


def test_a_subject_that_is_a_subdataset_and_not_installed_has_a_row(root: Path) -> None:
    submodules(root, "sub-03", "sub-04", "derivatives/fmriprep", "code/tools")
    found = {run.subject: run for run in runs(root)}
    assert sorted(found) == ["01", "02", "03", "04"]
    assert (found["01"].problem, found["02"].problem) == (None, None)
    said = (
        "sub-03: is a subdataset that is not installed; give --datalad-get, or run: "
        f"datalad -C '{root}' get -n sub-03"
    )
    assert found["03"].problem == said
    assert found["03"].taken
    assert [run.subject for run in runs(root, participant_label=("03",))] == ["03"]


def test_a_session_within_an_installed_subdataset(root: Path) -> None:
    submodules(root, "sub-01")
    (root / "sub-01" / ".git").mkdir()
    submodules(root / "sub-01", "ses-2")
    rows = [run for run in runs(root) if run.problem]
    assert [run.source for run in rows] == [root / "sub-01" / "ses-2"]
    assert (rows[0].problem or "").endswith(f"datalad -C '{root}/sub-01' get -n ses-2")


def test_a_data_set_that_is_not_installed_itself(root: Path) -> None:
    """As in a YODA data set whose inputs were never installed."""
    submodules(root, "inputs/raw")
    with pytest.raises(UserError, match="inputs/raw: raw: is a subdataset that is not installed"):
        runs(root / "inputs/raw")
    with pytest.raises(UserError, match="is a subdataset that is not installed"):
        runs(root, derivatives=(f"fmriprep={root / 'inputs/raw'}",))


# --- keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"/annex/objects/SHA256E-s1--ab.tsv\n", "SHA256E-s1--ab.tsv"),
        (b"/annex/objects/WORM-s1-m2--a b\n/annex/objects/", "WORM-s1-m2--a b"),
        (b"/annex/objectives\n", None),
        (b"", None),
        (b"/annex/objects/" + b"x" * 40_000, None),
    ],
)
def test_pointers(content: bytes, key: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert annex.annex_key(path) == key
    assert annex.is_absent(path) == (key is not None)


def test_a_link_that_leads_to_itself_is_no_file_of_git_annex(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.symlink_to("a")
    assert annex.link_into_annex(path) is None
    assert not annex.is_absent(path)


def test_places_of_folders_are_what_the_disk_says(root: Path, tmp_path: Path) -> None:
    """Looked up from above, each once: through links, in a repository within one, outside."""
    inner = root / "sub-01" / "inner"
    (inner / ".git").mkdir(parents=True)
    (inner / "deep").mkdir()
    (tmp_path / "link").symlink_to(root / "sub-01")
    (root / "sub-03").symlink_to(tmp_path)
    folders = [root, inner, inner / "deep", tmp_path / "link" / "func", tmp_path / "link" / "inner"]
    folders += [root / "sub-03" / "link", root / "sub-02" / ".." / "sub-01" / "func", tmp_path]
    places = Places()
    for folder in (*folders, *folders):
        real, top = places.of(folder)
        assert real == folder.resolve()
        assert top == annex.repository(real / "a file")
