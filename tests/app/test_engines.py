"""Engines that labs use run the program by the recipes of `workflows/`, and know what it did.

Tests marked `engines` need Nipoppy, Boutiques and Snakemake: `make test-engines` installs them
where nothing else is. Without them they are skipped; with REQUIRED=1 their absence fails.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from every_option import check_understood, invocation, rendered

from brainlm_bids import __version__, files
from brainlm_bids.phantom import write_phantom

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "workflows"
TOOLS = Path(os.environ.get("BRAINLM_BIDS_ENGINES_BIN", REPOSITORY / ".venv-engines" / "bin"))

pytestmark = pytest.mark.engines
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command line where the engines and our program are found."""
    missing = [name for name in ("bosh", "nipoppy", "snakemake") if not (TOOLS / name).is_file()]
    if missing:
        text = f"{', '.join(missing)}: not in {TOOLS}; make test-engines installs them"
        (pytest.fail if os.environ.get("REQUIRED") else pytest.skip)(text)
    ours = tmp_path_factory.mktemp("bin")
    program = ours / "brainlm-bids"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m brainlm_bids "$@"\n')
    program.chmod(0o755)
    home = tmp_path_factory.mktemp("home")  # Boutiques and Snakemake keep caches there
    path = os.pathsep.join([str(ours), str(TOOLS), os.environ["PATH"]])
    known = {**os.environ, "PATH": path, "HOME": str(home), "BRAINLM_BIDS_HOME": str(home)}

    def run(*words: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(word) for word in words]
        environment = {**known, "COLUMNS": "400", **more}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)

    return run


def done(call: subprocess.CompletedProcess[str]) -> str:
    """What a call said that has to succeed."""
    assert call.returncode == 0, f"{shlex.join(call.args)}\n{call.stdout}\n{call.stderr}"[-6000:]
    return call.stdout + call.stderr


def statuses(out: Path) -> dict[str, str]:
    """The status of each recording, by the last call's table."""
    table = max((out / "logs").glob("*_status.tsv"), key=lambda path: path.stat().st_mtime_ns)
    return {row["recording"]: row["status"] for row in files.read_rows(table)}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulated recording in a session; without its T1w image it takes half the time."""
    folder = tmp_path_factory.mktemp("engines") / "bids"
    write_phantom(folder, n_subjects=1, n_sessions=1, n_volumes=30, voxel=6.0, seed=1)
    for image in folder.glob("sub-*/ses-*/anat"):
        shutil.rmtree(image)
    return folder


# --- Boutiques -------------------------------------------------------------------------------


def test_boutiques_accepts_the_descriptor_and_passes_every_option_on(
    run: Run, tmp_path: Path
) -> None:
    tool = RECIPES / "boutiques" / "descriptor.json"
    assert "OK" in done(run("bosh", "validate", tool, cwd=tmp_path))
    given = tmp_path / "every.json"

    def simulated(values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        given.write_text(json.dumps(values))
        return run("bosh", "exec", "simulate", tool, "-i", given, cwd=tmp_path)

    words = shlex.split(done(simulated(invocation())).strip().splitlines()[-1])
    assert words == rendered(invocation())
    check_understood(words)
    # what the program would refuse is refused before a job is queued
    for wrong in ({"high_pass": 0.01}, {"pooling": "median"}, {"dummy_scans": 1.5}, {"speed": 1}):
        assert simulated({**invocation(), **wrong}).returncode != 0, wrong


# --- Nipoppy ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def study(run: Run, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in Nipoppy's layout, with the pipeline installed and set up as the page says."""
    folder = tmp_path_factory.mktemp("nipoppy")
    study, pipeline = folder / "study", RECIPES / "nipoppy"
    assert "valid" in done(run("nipoppy", "pipeline", "validate", pipeline, cwd=folder))
    done(run("nipoppy", "init", "--study", study, "--bids-source", dataset, cwd=folder))
    install = ("nipoppy", "pipeline", "install", "--study", study, "--skip-container")
    done(run(*install, pipeline, cwd=folder))
    configuration = study / "global_config.json"
    text = configuration.read_text()
    for name, value in (
        ('"COMMAND": "apptainer"', '"COMMAND": null'),
        ('"BRAINLM_BIDS_HOME": null', f'"BRAINLM_BIDS_HOME": "{folder}"'),
        ('"BRAINLM_BIDS_MODEL": null', '"BRAINLM_BIDS_MODEL": "demo"'),
    ):
        assert name in text
        text = text.replace(name, value)
    configuration.write_text(text)
    return study


@pytest.fixture(scope="session")
def processed(run: Run, dataset: Path, study: Path) -> Path:
    """The outputs of `nipoppy process`, which found a damaged run at first."""
    run_files = dataset / "sub-01" / "ses-01" / "func"
    damaged = run_files / "sub-01_ses-01_task-damaged_bold.nii.gz"
    whole = next(run_files.glob("*_task-rest_bold.nii.gz"))
    damaged.write_bytes(whole.read_bytes()[:100_000])
    sidecar = whole.with_name(whole.name.replace(".nii.gz", ".json"))
    shutil.copy(sidecar, run_files / "sub-01_ses-01_task-damaged_bold.json")
    process = ("nipoppy", "process", "--study", study, "--pipeline", "brainlm-bids")
    first = run(*process, cwd=study)
    out = study / "derivatives" / "brainlm-bids" / __version__ / "output"
    assert statuses(out) == {
        "sub-01_ses-01_task-rest": "done",
        "sub-01_ses-01_task-damaged": "failed",
    }
    assert first.returncode != 0
    assert tracked(run, study) == "FAIL", "one of two runs failed, and Nipoppy does not see it"
    for path in run_files.glob("*_task-damaged_*"):
        path.unlink()
    done(run(*process, cwd=study))
    assert statuses(out) == {"sub-01_ses-01_task-rest": "cached"}
    return out


def tracked(run: Run, study: Path) -> str:
    """What Nipoppy's tracker says of the one session."""
    track = ("nipoppy", "track-processing", "--study", study, "--pipeline", "brainlm-bids")
    done(run(*track, cwd=study))
    (row,) = files.read_rows(study / "derivatives" / "processing_status.tsv")
    assert (row["participant_id"], row["session_id"]) == ("01", "01")
    assert (row["pipeline_name"], row["pipeline_version"]) == ("brainlm-bids", __version__)
    return row["status"]


def test_nipoppy_tracks_what_is_complete(run: Run, study: Path, processed: Path) -> None:
    assert tracked(run, study) == "SUCCESS"
    for kind in ("denoised_timeseries", "recording_embeddings"):
        path = next(processed.glob(f"sub-01/ses-01/func/*_desc-{kind}.tsv"))
        hidden = path.rename(path.with_suffix(".hidden"))
        assert tracked(run, study) == "FAIL", kind
        script = submitted(run, study) if kind == "recording_embeddings" else ""
        hidden.rename(path)
    for line in ("--mem=8G", "--time=1:00:00", "--cpus-per-task=2", "--array=1-1"):
        assert f"#SBATCH {line}\n" in script
    assert '--pipeline-step default --participant-id 01"' in script
    assert tracked(run, study) == "SUCCESS"
    assert submitted(run, study) == "", "what is complete is not submitted again"


def submitted(run: Run, study: Path) -> str:
    """The script of the jobs that Nipoppy gives to SLURM, whose `sbatch` keeps it; or nothing."""
    engine = study.parent / "slurm"
    engine.mkdir(exist_ok=True)
    kept = engine / "script"
    kept.unlink(missing_ok=True)
    for name, text in (("sbatch", f"cp run_queue.sh {kept}; echo 1"), ("squeue", "exit 0")):
        (engine / name).write_text(f"#!/bin/sh\n{text}\n")
        (engine / name).chmod(0o755)
    path = os.pathsep.join([str(engine), str(TOOLS), os.environ["PATH"]])
    submit = ("nipoppy", "process", "--study", study, "--pipeline", "brainlm-bids", "--hpc")
    call = run(*submit, "slurm", cwd=study, PATH=path)
    if not kept.is_file():
        assert "No participants or sessions to run" in call.stdout + call.stderr
        return ""
    done(call)
    return kept.read_text()


def test_the_tracker_of_data_without_sessions() -> None:
    """The command of the page leaves the names of files without a session."""
    page = (REPOSITORY / "docs" / "engines.md").read_text(encoding="utf-8")
    (script,) = {line.split("'")[1] for line in page.splitlines() if line.startswith("sed -i '")}
    tracker = (RECIPES / "nipoppy" / "tracker.json").read_text()
    edited = subprocess.run(["sed", script], input=tracker, capture_output=True, text=True)
    assert json.loads(done(edited))["PATHS"] == [
        "logs/complete/[[NIPOPPY_BIDS_PARTICIPANT_ID]].tsv",
        "[[NIPOPPY_BIDS_PARTICIPANT_ID]]/func/*_desc-denoised_timeseries.tsv",
        "[[NIPOPPY_BIDS_PARTICIPANT_ID]]/func/*_desc-recording_embeddings.tsv",
    ]


def without_embeddings(processed: Path, out: Path) -> Path:
    """A copy of the outputs that lacks those of the model, which take seconds to compute."""
    shutil.copytree(processed, out)
    for path in out.rglob("*_model-brainlmdemo_*"):
        path.unlink()
    return out


def test_boutiques_runs_the_example(
    run: Run, dataset: Path, processed: Path, tmp_path: Path
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "bids").symlink_to(dataset)
    out = without_embeddings(processed, tmp_path / "demo" / "out")
    recipe = RECIPES / "boutiques"
    launch = ("bosh", "exec", "launch", "--no-container", "--skip-data-collection")
    told = done(run(*launch, recipe / "descriptor.json", recipe / "invocation.json", cwd=tmp_path))
    assert statuses(out) == {"sub-01_ses-01_task-rest": "done"}
    assert f"{out.relative_to(tmp_path)}/index.html (index" in told
    for kind in ("recording_embeddings", "windows_embeddings"):
        (path,) = processed.rglob(f"*_desc-{kind}.tsv")
        assert (out / path.relative_to(processed)).read_bytes() == path.read_bytes()
    # a call that fails is told as one, with the program's exit code
    given = json.loads((recipe / "invocation.json").read_text())
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({**given, "participant_label": ["99"]}))
    failed = run(*launch, recipe / "descriptor.json", wrong, cwd=tmp_path)
    assert failed.returncode == 2
    assert "99" in failed.stdout + failed.stderr


# --- Snakemake -------------------------------------------------------------------------------


@pytest.fixture
def calls(run: Run, tmp_path: Path) -> Callable[..., tuple[int, list[str], str]]:
    """Calls a recipe on two participants with a program that writes down how it was called."""
    bids, book = tmp_path / "the data", tmp_path / "book"
    for label in ("01", "02"):
        (bids / f"sub-{label}" / "func").mkdir(parents=True)
        (bids / f"sub-{label}" / "func" / f"sub-{label}_task-rest_bold.nii.gz").write_text("1")
    (bids / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$@" >> {book}\ncase "$*" in *"$FAILS"*) exit 1;; esac\n')
    program.chmod(0o755)

    def call(recipe: str, *more: str, fails: str = "no one", **config: object):  # type: ignore[no-untyped-def]
        book.unlink(missing_ok=True)
        given = {"bids": bids, "out": tmp_path / "the outputs", "app": program, **config}
        command = [
            "snakemake",
            "-s",
            RECIPES / "snakemake" / recipe,
            "--cores",
            "2",
            "--keep-going",
        ]
        values = [f"{name}={value}" for name, value in given.items()]
        ended = run(*command, *more, "--config", *values, cwd=tmp_path, FAILS=fails)
        lines = book.read_text().splitlines() if book.exists() else []
        shortened = [line.replace(f"{tmp_path}/", "") for line in lines]
        return ended.returncode, sorted(shortened), ended.stdout + ended.stderr

    return call


def test_snakemake_calls_each_participant_and_then_the_group(
    calls: Callable[..., tuple[int, list[str], str]], tmp_path: Path
) -> None:
    settings = {"options": "--model demo", "group": "--target age", "mem_mb": 5000}
    one, two = (
        f"the data the outputs participant --participant-label {label} --work-dir "
        f"the outputs/work/sub-{label} --nprocs 1 --mem-mb 5000 --model demo"
        for label in ("01", "02")
    )
    group = (
        "the data the outputs group --work-dir the outputs/work/group --nprocs 2 "
        "--model demo --target age"
    )
    code, called, _ = calls("Snakefile", fails="label 02", **settings)
    assert (code != 0, called) == (True, [one, two]), "no group level after a failure"
    # only what failed, and then the group level
    assert calls("Snakefile", **settings)[:2] == (0, sorted([two, group]))
    # Snakebids finds the same participants: nothing is left to do
    assert calls("snakebids.smk", **settings)[:2] == (0, [])
    assert calls("Snakefile", "--forceall", participants="sub-01", options="--model demo")[:2] == (
        0,
        [one.replace("5000", "4000")],
    )
    # new data of a participant
    (tmp_path / "the data/sub-01/func/sub-01_task-rest_bold.nii.gz").write_text("2")
    assert calls("Snakefile", **settings)[:2] == (0, sorted([one, group]))
    # other options
    code, called, _ = calls("snakebids.smk", **{**settings, "options": "--model none"})
    assert (code, len(called)) == (0, 3)


def test_snakemake_tells_in_a_line_what_is_missing(
    calls: Callable[..., tuple[int, list[str], str]], tmp_path: Path
) -> None:
    code, _, said = calls("Snakefile", app="no-such-program")
    assert code != 0 and "no-such-program is not in PATH; --config app=PROGRAM" in said
    code, _, said = calls("Snakefile", participants="01")
    assert code != 0 and "write participants=sub-LABEL" in said
    (tmp_path / "empty").mkdir()
    code, _, said = calls("Snakefile", bids=tmp_path / "empty")
    assert code != 0 and "has no sub-* folder with functional images" in said


def test_snakemake_runs_the_program(
    run: Run, dataset: Path, processed: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(processed, tmp_path / "out")
    recipe = RECIPES / "snakemake" / "Snakefile"
    values = (f"bids={dataset}", f"out={out}", "options=--model demo --offline")
    done(run("snakemake", "-s", recipe, "--cores", "1", "--config", *values, cwd=tmp_path))
    # the same configuration as Nipoppy's: nothing had to be computed
    assert statuses(out) == {"sub-01_ses-01_task-rest": "cached"}
    assert "1 cached" in (out / "logs" / "snakemake" / "sub-01.log").read_text()
