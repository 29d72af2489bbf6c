"""BIDS in and out: broken runs among good ones, selections, nothing written into the data set,
whole files only, and many jobs that share one output folder.
"""

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids import files
from brainlm_bids.bids import inputs, outputs
from brainlm_bids.bids.dataset import write_dataset_files
from brainlm_bids.bids.names import ENTITIES, parse
from brainlm_bids.bids.runs import Run, by_subject
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings

# Voxels of 9 mm that are as large as a head.
HEAD = (10, 10, 10)


def _image(path: Path, shape: tuple[int, ...], tr: float = 2.0, unit: str = "sec") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nb.Nifti1Image(np.zeros(shape, np.uint8), np.diag([9.0, 9.0, 9.0, 1.0]))
    image.header.set_xyzt_units("mm", unit)
    if len(shape) == 4:
        image.header.set_zooms((9.0, 9.0, 9.0, tr))
    image.to_filename(path)


def _json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def _run(root: Path, name: str, *, volumes: int = 30, sidecar: Any = None, **kwargs: Any) -> Path:
    """A BOLD file `sub-…_bold.nii.gz`, in the folder that its name says."""
    parts = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
    folder = root.joinpath(*parts, "func")
    _image(folder / f"{name}_bold.nii.gz", (*HEAD, volumes), **kwargs)
    if sidecar is not None:
        _json(folder / f"{name}_bold.json", sidecar)
    return folder / f"{name}_bold.nii.gz"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "bids"
    _json(folder / "dataset_description.json", {"Name": "fabricated", "BIDSVersion": "1.10.0"})
    (folder / "README").write_text("fabricated\n")
    return folder


def _settings(root: Path, **values: Any) -> Settings:
    return Settings(root, root.parent / "out", root.parent / "work", **values)


def _found(root: Path, **values: Any) -> dict[str, Run]:
    return {run.stem: run for run in inputs.find_runs(_settings(root, **values))}


GOOD = {"RepetitionTime": 2.0, "TaskName": "rest"}


def test_broken_runs_do_not_hide_the_good_one(root: Path) -> None:
    """Each of them is there, with one line that names the file and the fault."""
    _run(root, "sub-01_task-rest", sidecar=GOOD)
    _run(root, "sub-02_task-rest", sidecar={"TaskName": "rest"})
    _json(root / "sub-03/func/sub-03_task-rest_bold.json", GOOD)
    _image(root / "sub-03/func/sub-03_task-rest_bold.nii.gz", HEAD)
    _run(root, "sub-04_task-rest", volumes=10, sidecar=GOOD)
    _run(root, "sub-05_task-rest", sidecar=GOOD | {"RepetitionTime": 2000})
    _run(root, "sub-06_task-rest", sidecar=GOOD | {"RepetitionTime": "2"})
    _run(root, "sub-07_task-rest", sidecar=GOOD).write_bytes(b"no image")
    _run(root, "sub-08_task-rest_echo-1", sidecar=GOOD | {"EchoTime": 0.01})
    truncated = _run(root, "sub-09_task-rest", sidecar=GOOD)
    truncated.write_bytes(truncated.read_bytes()[:40])
    runs = _found(root)
    assert len(runs) == 9
    good = runs.pop("sub-01_task-rest")
    assert (good.problem, good.skip, good.warnings, good.tr) == (None, None, (), 2.0)
    said = {
        "sub-02_task-rest": "no RepetitionTime",
        "sub-03_task-rest": "3-D",
        "sub-05_task-rest": "2000 in its sidecar is not a time in seconds",
        "sub-06_task-rest": "not a time in seconds",
        "sub-07_task-rest": "cannot be read as an image",
        "sub-09_task-rest": "cannot be read as an image",
    }
    for stem, text in said.items():
        problem = runs[stem].problem
        assert problem is not None
        assert text in problem
        assert problem.startswith(stem)
        assert "\n" not in problem
    assert "10 volumes, fewer than 20" in (runs["sub-04_task-rest"].skip or "")
    (only,) = runs["sub-08_task-rest_echo-1"].warnings
    assert "only echo 1 of a multi-echo run was used" in only.text
    assert runs["sub-04_task-rest"].problem is None


@pytest.mark.parametrize("content", ['{"RepetitionTime": 2.0,', "", "[1, 2]", b"\xff\xfe\x00"])
def test_broken_sidecar_of_one_run_leaves_the_others(root: Path, content: str | bytes) -> None:
    _run(root, "sub-01_task-rest", sidecar=GOOD)
    broken = _run(root, "sub-02_task-rest", sidecar=GOOD)
    sidecar = broken.with_name("sub-02_task-rest_bold.json")
    sidecar.write_bytes(content if isinstance(content, bytes) else content.encode())
    runs = _found(root)
    assert runs["sub-01_task-rest"].problem is None
    assert runs["sub-01_task-rest"].tr == 2.0
    problem = runs["sub-02_task-rest"].problem
    assert problem is not None
    assert "sub-02_task-rest_bold.json" in problem
    assert "\n" not in problem


def test_sidecars_are_inherited_and_the_nearest_wins(root: Path) -> None:
    _json(root / "task-rest_bold.json", {"RepetitionTime": 1.5, "TaskName": "rest", "Site": "top"})
    _run(root, "sub-01_task-rest", tr=1.5)
    _run(root, "sub-02_task-rest", sidecar={"RepetitionTime": 2.5}, tr=2.5)
    runs = _found(root)
    assert runs["sub-01_task-rest"].tr == 1.5
    assert runs["sub-02_task-rest"].tr == 2.5
    assert runs["sub-02_task-rest"].metadata["Site"] == "top"


def test_sidecars_of_other_runs_do_not_hold(root: Path) -> None:
    """Neither another task's, nor another suffix', nor one with an entity that the run lacks."""
    _run(root, "sub-01_task-rest", sidecar=GOOD)
    _json(root / "task-nback_bold.json", {"Wrong": 1})
    _json(root / "task-rest_sbref.json", {"Wrong": 1})
    _json(root / "notbold.json", {"Wrong": 1})
    _json(root / "sub-01/func/sub-01_task-rest_run-1_bold.json", {"Wrong": 1})
    _json(root / "bold.json", {"General": 1, "RepetitionTime": 9.0})
    _json(root / "sub-01/sub-01_bold.json", {"General": 2})
    metadata = _found(root)["sub-01_task-rest"].metadata
    assert metadata == GOOD | {"General": 2}


def test_a_linked_data_set(root: Path) -> None:
    _run(root, "sub-01_task-rest", sidecar=GOOD)
    link = root.parent / "link"
    link.symlink_to(root)
    run = _found(link)["sub-01_task-rest"]
    assert run.problem is None
    assert run.uri == "bids:raw:sub-01/func/sub-01_task-rest_bold.nii.gz"


def test_sidecar_wins_over_the_header_and_it_is_said(root: Path) -> None:
    _run(root, "sub-01_task-rest", sidecar=GOOD, tr=1.0)
    _run(root, "sub-02_task-rest", sidecar=GOOD, tr=2000.0, unit="msec")
    runs = _found(root)
    assert runs["sub-01_task-rest"].tr == 2.0
    (warning,) = runs["sub-01_task-rest"].warnings
    assert warning.kind == "tr_mismatch"
    assert "the image header is 1 s; the 2 s of the sidecar are used" in warning.text
    assert runs["sub-02_task-rest"].warnings == ()


@pytest.fixture
def sessions(root: Path) -> Path:
    """Two subjects, two sessions, two tasks, two runs of rest; a T1w in each first session."""
    _json(root / "task-rest_bold.json", GOOD)
    _json(root / "task-nback_bold.json", GOOD | {"TaskName": "nback"})
    for subject in ("01", "02"):
        for session in ("a", "b"):
            stem = f"sub-{subject}_ses-{session}"
            for name in ("task-rest_run-1", "task-rest_run-02", "task-nback"):
                _run(root, f"{stem}_{name}")
        _image(root / f"sub-{subject}/ses-a/anat/sub-{subject}_ses-a_T1w.nii.gz", HEAD)
    return root


def test_selection(sessions: Path) -> None:
    assert len(_found(sessions)) == 12
    assert len(_found(sessions, participant_label=("02",))) == 6
    assert len(_found(sessions, session_label=("b",), task_id=("rest",))) == 4
    picked = _found(sessions, participant_label=("01",), session_label=("a",), run_id=("2",))
    assert list(picked) == ["sub-01_ses-a_task-rest_run-02"]
    assert list(_found(sessions, participant_label=("01",), run_id=("01",))) == [
        "sub-01_ses-a_task-rest_run-1",
        "sub-01_ses-b_task-rest_run-1",
    ]


def test_labels_that_do_not_exist_are_refused_with_those_that_do(sessions: Path) -> None:
    """What was asked, by all options, and what there is."""
    there = r"\(there are 12, of participants 01, 02; sessions a, b; tasks nback, rest; run numb"
    with pytest.raises(UserError, match=rf"no BOLD run matches --task-id sleep {there}"):
        _found(sessions, task_id=("sleep",))
    with pytest.raises(UserError, match=r"--task-id ret; did you mean rest\?"):
        _found(sessions, task_id=("ret",))
    with pytest.raises(UserError, match=rf"matches --session-label c --run-id 1 {there}"):
        _found(sessions, session_label=("c",), run_id=("1",))
    with pytest.raises(UserError, match=r"--run-id 7 .*; run numbers 02, 1\)"):
        _found(sessions, run_id=("7",))
    with pytest.raises(UserError, match=r"--participant-label 01 --task-id nback --run-id 1 \("):
        _found(sessions, participant_label=("01",), task_id=("nback",), run_id=("1",))
    with pytest.raises(UserError, match=r"no folder sub-1 in .*; did you mean 01\?"):
        _found(sessions, participant_label=("1",))
    path = sessions.parent / "filter.json"
    _json(path, {"bold": {"task": "sleep"}})
    with pytest.raises(UserError, match=rf"matches --bids-filter-file {path} {there}"):
        _found(sessions, bids_filter_file=path)


def test_order_and_words_of_entities(sessions: Path) -> None:
    runs = inputs.find_runs(_settings(sessions))
    assert [run.stem for run in runs] == sorted(run.stem for run in runs)
    runs_spelled = {run.entities["run"] for run in runs if "run" in run.entities}
    assert runs_spelled == {"1", "02"}
    assert runs[0].uri.startswith("bids:raw:sub-01/ses-a/func/sub-01_ses-a_task-")
    assert list(by_subject(runs)) == ["01", "02"]


def test_t1w_of_the_session_else_the_subjects(sessions: Path) -> None:
    runs = _found(sessions)
    for stem, run in runs.items():
        assert run.t1w is not None
        assert run.t1w.name == f"{stem[:6]}_ses-a_T1w.nii.gz"
    _image(sessions / "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz", HEAD)
    own = _found(sessions)["sub-01_ses-b_task-nback"].t1w
    assert own is not None
    assert own.name == "sub-01_ses-b_T1w.nii.gz"
    # the subject's T1w serves its runs even where --session-label names another session
    other = _found(sessions, session_label=("b",))["sub-02_ses-b_task-nback"].t1w
    assert other is not None
    assert other.name == "sub-02_ses-a_T1w.nii.gz"


def test_filter_file(sessions: Path) -> None:
    path = sessions.parent / "filter.json"
    _json(path, {"bold": {"session": "a", "task": "nback"}, "t1w": {"session": "b"}})
    runs = _found(sessions, bids_filter_file=path)
    assert list(runs) == ["sub-01_ses-a_task-nback", "sub-02_ses-a_task-nback"]
    assert all(run.t1w is None for run in runs.values())
    path.write_text("{broken")
    with pytest.raises(UserError, match=r"--bids-filter-file .*: is not valid JSON"):
        _found(sessions, bids_filter_file=path)
    for values, said in (
        ({"flair": {}}, "is none of bold, t1w, fmap, sbref"),
        ([1], "JSON object"),
        ({"bold": 1}, "expected"),
    ):
        _json(path, values)
        with pytest.raises(UserError, match=said):
            _found(sessions, bids_filter_file=path)


def test_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no dataset_description"):
        inputs.find_runs(_settings(tmp_path / "empty"))


def test_nothing_is_written_into_the_data_set(sessions: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        paths = sorted(sessions.rglob("*"))
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in [sessions, *paths]}

    before = state()
    _found(sessions, bids_database_dir=sessions.parent / "index")
    _found(sessions)
    write_dataset_files(sessions.parent / "out", sessions, {})
    assert state() == before


def test_kept_index_serves_other_subjects(sessions: Path) -> None:
    index = sessions.parent / "index"
    assert len(_found(sessions, participant_label=("01",), bids_database_dir=index)) == 6
    assert len(_found(sessions, participant_label=("02",), bids_database_dir=index)) == 6


def test_derivatives_inside_are_not_data(sessions: Path) -> None:
    out = sessions / "derivatives" / "brainlm-bids"
    _json(out / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    _run(out, "sub-01_ses-a_task-rest_run-9", sidecar=GOOD)
    assert len(_found(sessions)) == 12


# --- outputs ----------------------------------------------------------------------------------


def test_names_of_all_outputs_are_different_and_in_order() -> None:
    naming = outputs.Naming("/out", "sub-01_ses-a_task-rest_run-1", "MNI152NLin6Asym", "A424")
    table = outputs.output_table()
    paths = [naming.path(key, model="brainlm13M") for key in table]
    assert len(set(paths)) == len(paths)
    for path, row in zip(paths, table.values(), strict=True):
        folder = Path("/out/sub-01/ses-a") / row.datatype if row.datatype else Path("/out")
        assert path.parent == folder
        keys = list(parse(path.name).entities)
        assert keys == [key for key in ENTITIES if key in keys]
    # of a model, and scaled with the cohort: other files
    cohort = dataclasses.replace(naming, scaling="cohort")
    scaled = {cohort.path(key, model="brainlm13M") for key in table}
    assert scaled & set(paths) == {
        path
        for path, row in zip(paths, table.values(), strict=True)
        if "scaling" not in row.entities
    }
    with pytest.raises(ValueError, match="embeddings: belongs to a model"):
        naming.path("embeddings")


def test_a_checkpoint_whose_name_ends_as_ours_do_is_another() -> None:
    """Each collided once: `brainlm111Mcohort` scaled by itself, `brainlm111M` with the cohort."""
    naming = outputs.Naming("/out", "sub-01_task-rest", "S", "A424")
    cohort = dataclasses.replace(naming, scaling="cohort")
    names = {
        place.path(key, model=model).name
        for place in (naming, cohort)
        for key in ("embeddings", "recording_embedding", "tokens")
        for model in ("m", "mcohort", "mrecording", "mcohortrecording", "muntrained")
    }
    assert len(names) == 30
    stages = {
        outputs.model_stage(model, scaling, part)
        for model in ("m", "mcohort", "muntrained")
        for scaling in ("", "cohort")
        for part in ("", "untrained")
    }
    assert len(stages) == 12


def test_every_desc_label_of_a_level_is_described() -> None:
    for level in ("participant", "group", "forecast", "perturb"):
        described = outputs.describe_labels(level)
        rows = [row for row in outputs.output_table().values() if level in row.levels]
        assert set(described) == {row.desc for row in rows if row.desc}
    text = outputs.describe_labels("group")["reconstruction"]
    assert text.startswith("timeseries: The robust series as BrainLM predicts it")
    assert "; metrics: How well masked values" in text


def test_eight_jobs_share_one_folder(root: Path) -> None:
    """Every description arrives, nothing is torn, and no temporary file stays."""
    out = root.parent / "out"
    errors: list[BaseException] = []
    start = threading.Barrier(8)

    def job(number: int) -> None:
        try:
            start.wait()
            for repeat in range(5):
                label = f"job{number}x{repeat}"
                write_dataset_files(out, root, {label: f"made by {label}"})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=job, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    rows = (out / "descriptions.tsv").read_text().splitlines()
    expected = sorted(f"desc-job{n}x{r}\tmade by job{n}x{r}" for n in range(8) for r in range(5))
    assert rows == ["desc_id\tdescription", *expected]
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    ignored = (out / ".bidsignore").read_text().splitlines()
    assert len(ignored) == len(set(ignored))
    assert "figures" in ignored
    assert (out / "README.md").read_text().startswith("# ")
    assert not list(out.rglob(".tmp-*"))


def test_what_a_user_wrote_stays(root: Path) -> None:
    out = root.parent / "out"
    out.mkdir()
    (out / ".bidsignore").write_text("mine\n")
    (out / "README.md").write_text("my notes\n")
    write_dataset_files(out, root, {})
    assert (out / ".bidsignore").read_text().splitlines()[0] == "mine"
    assert (out / "README.md").read_text() == "my notes\n"


def test_a_record_is_complete_only_while_all_its_files_are_there(tmp_path: Path) -> None:
    written = [files.write_text(tmp_path / "sub-01" / name, name) for name in ("a.tsv", "b.tsv")]
    outputs.write_record(tmp_path, "sub-01_task-rest", "parcels", "abc", written)

    def complete(configuration: str = "abc", stage: str = "parcels") -> bool:
        return outputs.is_complete(tmp_path, "sub-01_task-rest", stage, configuration)

    assert complete()
    assert not complete("abd")
    assert not complete(stage="model")
    written[1].write_text("shortened by hand, or longer")
    assert not complete()
    written[1].unlink()
    assert not complete()
    outputs.record_path(tmp_path, "sub-01_task-rest", "parcels").write_text("{torn")
    assert not complete()
