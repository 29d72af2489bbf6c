"""Clusters: calls that share a folder, plugin files, the status table, and the real engines.

Tests marked `cluster` need a real SLURM or Apptainer: `make test-cluster`. Without one they are
skipped; where BRAINLM_BIDS_ENGINES says which must be there ("slurm apptainer"), its absence fails.
"""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest
import yaml
from real_engines import as_somebody, folder_for_all, need_image, need_slurm, wait_for
from simulated_cohort import write_cohort

from brainlm_bids import files
from brainlm_bids.app.plugins import make_plugin, read_plugin_file
from brainlm_bids.app.resources import find_resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.dataset import moved_source, write_atlas_files, write_dataset_files
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings
from brainlm_bids.workflows import nodes

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "workflows"
EMBEDDED = ["--offline", "--atlas", "A424approx", "--template", "MNI152NLin2009aSym"]
Table = dict[str, dict[str, str]]


def settings(folder: Path, **values: object) -> Settings:
    return Settings(bids_dir=folder, output_dir=folder / "out", work_dir=folder / "w", **values)


def dataset(folder: Path, name: str = "raw") -> Path:
    folder.mkdir(parents=True)
    described = {"Name": name, "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": name}]}
    (folder / "dataset_description.json").write_text(json.dumps(described))
    return folder


# --- calls that share a folder ----------------------------------------------------------------


def test_eight_calls_at_once_lose_nothing(tmp_path: Path) -> None:
    """Eight participants at once: what each wrote is there, and what they write together."""
    bids, out = dataset(tmp_path / "bids"), tmp_path / "out"
    calls = []
    for number in range(8):
        series = np.random.default_rng(number).normal(10_000, 100, (40, 424))
        path = tmp_path / f"sub-{number}_task-rest_timeseries.npy"
        np.save(path, series)
        flags = ["--timeseries", str(path), "--timeseries-tr", "2", "-w", str(tmp_path / path.stem)]
        model = "random:tiny" if number == 7 else "none"
        command = [
            sys.executable,
            "-m",
            "brainlm_bids",
            str(bids),
            str(out),
            "participant",
        ]
        command += [*flags, "--offline", "--atlas", "A424approx", "--model", model, "--nprocs", "1"]
        calls.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for one in calls:
        said = one.communicate()[1]
        assert one.returncode == 0, said[-2000:]

    logs = out / "logs"
    rows = [row for path in logs.glob("*_status.tsv") for row in files.read_rows(path)]
    assert sorted((row["participant_id"], row["status"]) for row in rows) == [
        (f"sub-{number}", "done") for number in range(8)
    ]
    assert len(list(logs.glob("*_config.toml"))) == 8
    for number in range(8):
        record = outputs.read_record(out, f"sub-{number}_task-rest", "series")
        assert record is not None
        assert outputs.changed(out, record[1]) is None
        assert (out / f"sub-{number}.html").stat().st_size > 1000
        name = f"sub-{number}_task-rest_space-MNI152NLin6Asym_atlas-A424approx"
        denoised = out / f"sub-{number}/func/{name}_desc-denoised_timeseries.tsv"
        expected = np.random.default_rng(number).normal(10_000, 100, (40, 424))
        np.testing.assert_allclose(files.read_tsv(denoised)[1], expected, rtol=1e-6)
    link = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    assert link == {"raw": bids.as_uri()}
    described = {row["desc_id"] for row in files.read_rows(out / "descriptions.tsv")}
    assert {"desc-denoised", "desc-windows"} <= described
    atlas = nb.load(next((out / "tpl-MNI152NLin6Asym").glob("*_res-2_dseg.nii.gz")))
    assert set(np.unique(np.asarray(atlas.dataobj))) == set(range(425))
    assert len(files.read_rows(next((out / "tpl-MNI152NLin6Asym").glob("*_dseg.tsv")))) == 424
    assert not list(out.rglob(".tmp-*"))


def test_a_description_keeps_what_other_calls_and_the_user_wrote(tmp_path: Path) -> None:
    raw, prepared = dataset(tmp_path / "raw"), dataset(tmp_path / "prep", "fMRIPrep")
    out = tmp_path / "out"
    write_dataset_files(out, raw, {}, {"fmriprep": prepared})
    path = out / "dataset_description.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "Authors": ["A. Author"]}))
    write_dataset_files(out, raw, {})
    merged = json.loads(path.read_text())
    assert merged["DatasetLinks"] == {"raw": raw.as_uri(), "fmriprep": prepared.as_uri()}
    urls = [one["URL"] for one in merged["SourceDatasets"]]
    assert sorted(urls) == sorted([raw.as_uri(), prepared.as_uri()])
    assert {one["Name"] for one in merged["GeneratedBy"]} == {"brainlm-bids", "fMRIPrep"}
    assert merged["Authors"] == ["A. Author"]
    before = path.stat().st_mtime_ns
    write_dataset_files(out, raw, {}, {"fmriprep": prepared})
    assert path.stat().st_mtime_ns == before, "the order of calls changes the file"
    # a data set that moved is linked where it is now, and no more where it was
    moved = raw.rename(tmp_path / "moved")
    write_dataset_files(out, moved, {})
    merged = json.loads(path.read_text())
    assert raw.as_uri() not in [one["URL"] for one in merged["SourceDatasets"]]


def test_the_folder_of_a_job_that_ended_is_linked_no_more(tmp_path: Path) -> None:
    """BABS gives each job a copy of the raw data, and removes it."""
    raw, copy, out = dataset(tmp_path / "raw"), dataset(tmp_path / "job-1" / "ds"), tmp_path / "out"
    write_dataset_files(out, copy, {})
    assert moved_source(out, raw) is None, "what is there stays"
    shutil.rmtree(copy)
    (tmp_path / "no_dataset").mkdir()
    assert moved_source(out, tmp_path / "no_dataset") is None
    assert moved_source(out, raw) == raw
    write_dataset_files(out, moved_source(out, raw), {})
    merged = json.loads((out / "dataset_description.json").read_text())
    assert merged["DatasetLinks"] == {"raw": raw.as_uri()}
    assert [one["URL"] for one in merged["SourceDatasets"]] == [raw.as_uri()]
    # an address that the user wrote is no folder that is gone
    merged["DatasetLinks"]["raw"] = "https://openneuro.org/datasets/ds000001"
    (out / "dataset_description.json").write_text(json.dumps(merged))
    assert moved_source(out, raw) is None


def test_an_atlas_used_in_two_spaces_is_there_twice(tmp_path: Path) -> None:
    image = nb.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    for space in ("MNI152NLin2009aSym", "MNI152NLin6Asym"):
        write_atlas_files(
            tmp_path, space=space, label="A424", image=image, table={"index": [1]}, description={}
        )
        stem = f"tpl-{space}/tpl-{space}_atlas-A424"
        assert (tmp_path / f"{stem}_res-2_dseg.nii.gz").is_file()
        assert (tmp_path / f"{stem}_dseg.tsv").is_file()


# --- plugin files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plugin", "poll"),
    [("slurm", "SLURM", 5.0), ("sge", "SGE", 5.0), ("multiproc-gpu", "MultiProc", 0.05)],
)
def test_plugin_files_are_what_nipype_takes(
    name: str, plugin: str, poll: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nipype.pipeline import plugins

    monkeypatch.delenv("LOGNAME", raising=False)
    path = RECIPES / "nipype" / f"{name}.yml"
    given, arguments, seconds, _ = read_plugin_file(path)
    assert (given, seconds) == (plugin, poll)
    if plugin == "MultiProc":
        # a node that asks for more than there is must not end the call
        assert (arguments["n_gpu_procs"], arguments["raise_insufficient"]) == (1, False)
        return
    assert os.environ["LOGNAME"], "Nipype names its jobs after it"
    assert arguments["max_jobs"] == 100
    if plugin == "SLURM":  # that of SGE looks for qstat for 50 s
        assert plugins.SLURMPlugin(plugin_args=arguments)._sbatch_args.startswith("--time=")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plugin: SLURMGraph", "before its jobs have run"),
        ("plugin: Slrum", "no plugin 'Slrum'.*SLURM"),
        ("- plugin", "is not YAML"),
        ("plugin: SLURM\npoll_seconds: soon", "is not YAML"),
        ("plugin: SLURM\nnodes_per_job: 0", "nodes_per_job is 0"),
        ("plugin: MultiProc\nnodes_per_job: 8", "MultiProc does not"),
    ],
)
def test_a_plugin_that_cannot_work_is_refused_before_anything_runs(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "plugin.yml"
    path.write_text(text)
    embedded = {"atlas": "A424approx", "template": "MNI152NLin2009aSym", "offline": True}
    chosen = settings(tmp_path, use_plugin=path, model=("none",), **embedded)
    with pytest.raises(UserError, match=said):
        find_resources(chosen)


def tripled(number: int) -> int:
    if number == 0:
        raise ValueError("cannot be tripled")
    if number == 1:
        import os

        os.kill(os.getpid(), 9)
    return 3 * number


class Told:
    """What a plugin says about its nodes."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}

    def __call__(self, node: Any, status: str) -> None:
        self.ended[node.name] = status

    def report_failure(self, node: Any) -> None:
        assert self.ended[node.name] == "exception"


def test_nodes_that_share_a_job_fail_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five nodes, two in a job: one fails, one is killed, and the others of their jobs run."""
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine

    commands = {
        "sbatch": f'echo x >>"{tmp_path}/jobs"; bash "${{@: -1}}" >/dev/null 2>&1\n'
        f'echo Submitted batch job "$(wc -l <"{tmp_path}/jobs")"',
        "squeue": "true",
    }
    for name, body in commands.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LOGNAME", "somebody")
    workflow = engine.Workflow("triple", base_dir=str(tmp_path))
    for number in range(5):
        node = engine.Node(Function(["number"], ["out"], tripled), f"of_{number}")
        node.inputs.number = number
        workflow.add_nodes([node])
    workflow.config["execution"] = {
        "crashdump_dir": str(tmp_path),
        "crashfile_format": "txt",
        "poll_sleep_duration": "0.1",
        "job_finished_timeout": "0.1",
    }
    path = tmp_path / "plugin.yml"
    path.write_text("plugin: SLURM\nnodes_per_job: 2")
    told = Told()
    plugin, _ = make_plugin(settings(tmp_path, use_plugin=path), told)
    with pytest.raises(RuntimeError):
        workflow.run(plugin=plugin)
    failed = {"of_0": "exception", "of_1": "exception"}
    assert told.ended == {**failed, "of_2": "end", "of_3": "end", "of_4": "end"}
    assert (tmp_path / "jobs").read_text().count("x") == 3
    # by the number that the scheduler gave it
    assert "Job id (1) finished" in next(tmp_path.glob("crash*of_1*")).read_text()


@pytest.mark.parametrize(("gpus", "auto"), [(0, False), (2, True)])
def test_nodes_that_use_a_gpu_are_counted(
    gpus: int, auto: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MultiProc bounds them by n_gpu_procs; where there is no GPU, no node waits for one."""
    monkeypatch.setattr(nodes, "_gpus", lambda: gpus)
    assert nodes._on_gpu("auto") is auto
    assert nodes._on_gpu("cuda")
    assert not nodes._on_gpu("cpu")


# --- the status table, with SLURM's words in hand ---------------------------------------------


class Site:
    """A copy of the recipe, with commands in the place of SLURM's that say what is in `queue`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out put 100%"
        self.bids = dataset(folder / "bids")
        self.recipe = folder / "recipe"
        shutil.copytree(RECIPES / "slurm", self.recipe)
        self.queue = folder / "queue"
        self.queue.write_text("")
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.command("squeue", f'cat "{self.queue}"')
        self.command("scontrol", "echo 'MaxArraySize            = 1001'")
        self.command("scancel", f'echo "$@" >>"{folder}/cancelled"')
        count = f'n=$(($(cat "{folder}/n" 2>/dev/null || echo 100) + 1)); echo $n >"{folder}/n"'
        self.command("sbatch", f'{count}; printf "%s\\n" "$*" >>"{folder}/sbatch"; echo $n')
        self.command("app", "echo app 1.0")
        self.site("APP=app CPU=(--mem=2G) GPU=(--gres=gpu:1)")

    def command(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def site(self, text: str) -> None:
        (self.recipe / "site.sh").write_text(text + "\n")

    def people(self, *labels: str) -> None:
        for label in labels:
            (self.bids / f"sub-{label}").mkdir()

    def call(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        command = [str(self.recipe / script), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    def submit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.call("submit.sh", str(self.bids), str(self.out), *arguments)

    def submitted(self) -> list[str]:
        path = self.folder / "sbatch"
        return path.read_text().splitlines() if path.exists() else []

    def last(self) -> Path:
        return max((self.out / "logs/slurm").glob("2*"), key=lambda path: path.stat().st_mtime_ns)

    def events(self, task: int | str, *lines: str) -> None:
        now = int(time.time())
        filled = [line.format(now=now).replace(" ", "\t") for line in lines]
        with (self.last() / f"{task}.events").open("a") as handle:
            handle.writelines(f"{line}\n" for line in filled)

    def log(self, task: int | str, text: str) -> None:
        (self.last() / f"{task}.log").write_text(text)

    def status_rows(self, *rows: Sequence[str]) -> None:
        names = ["participant_id", "session_id", "task", "run", "source", "status", "reason"]
        columns = list(zip(*rows, strict=True))
        values = [columns[0], *[["n/a"] * len(rows)] * 3, *columns[1:], *[[12.5] * len(rows)] * 2]
        path = self.out / "logs" / f"{time.time_ns()}_status.tsv"
        files.write_tsv(path, [*names, "seconds", "peak_memory_mb"], values)

    def table(self) -> Table:
        done = self.call("status.sh", "--tsv", str(self.out))
        return read_table(done.stdout)


def read_table(text: str) -> Table:
    rows = csv.DictReader(io.StringIO(text), delimiter="\t")
    return {row["participant_id"]: row for row in rows}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_one_array_and_one_group_job_after_it(site: Site) -> None:
    site.people("01", "02", "03")
    done = site.submit("--model", "random:tiny", "--for-group", "--target", "age")
    assert done.returncode == 0, done.stderr
    array, group = site.submitted()
    assert "--array=1-3 " in array
    assert "--mem=2G" in array
    assert "100%%/logs" in array, "a percent sign of the path is no pattern of sbatch"
    assert "--dependency=afterok:101 --kill-on-invalid-dep=yes" in group
    assert "--gres=gpu:1" in group
    site.queue.write_text("101_1 RUNNING\n101_2 PENDING\n101_3 PENDING\n102 PENDING\n")
    # pending and running: never twice, and the group job neither
    again = site.submit("--model", "random:tiny", "--for-group", "--target", "age")
    assert "nothing to submit" in again.stdout
    assert len(site.submitted()) == 2
    # another configuration does not run into what still runs; a new participant is one task
    site.people("04")
    assert site.submit("--model", "13M").returncode == 0
    assert "--array=1-1 " in site.submitted()[2]
    assert "--dependency=afterok:103,afterany:101,afterany:102" in site.submitted()[3]
    assert "--state=PENDING 102" in (site.folder / "cancelled").read_text()


def test_a_dry_run_says_all_and_makes_nothing(site: Site) -> None:
    site.people("01", "02")
    done = site.submit("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "2 to submit" in done.stdout and "--array=1-2" in done.stdout
    assert "--dependency=afterok:ARRAY" in done.stdout
    assert not site.out.exists() and not site.submitted()


def test_only_what_is_missing_is_submitted_again(site: Site) -> None:
    site.people("01", "02")
    assert site.submit("--group", "none").returncode == 0
    time.sleep(1.1)  # the data are older than the run, by a clock of seconds
    site.events(1, "sub-01 start {now}", "sub-01 exit {now} 0")
    site.events(2, "sub-02 start {now}", "sub-02 exit {now} 1")
    done = site.submit("--group", "none", "--dry-run")
    assert "1 complete" in done.stdout
    assert "sub-02" in done.stdout and "sub-01" not in done.stdout
    # under other settings nobody is complete, nor is one whose data changed since
    assert "0 complete" in site.submit("--group", "none", "--dry-run", "--high-pass", "80").stdout
    (site.bids / "sub-01" / "new.json").write_text("{}")
    assert "0 complete" in site.submit("--group", "none", "--dry-run").stdout


@pytest.mark.parametrize(
    ("events", "log", "queue", "state", "reason"),
    [
        ([], "", "101_1 PENDING", "pending", "n/a"),
        (["sub-01 start {now}"], "", "101_1 RUNNING", "running", "n/a"),
        (["sub-01 start {now}", "sub-01 exit {now} 0"], "", "", "done", "n/a"),
        ([], "", "", "failed", "never started: cancelled"),
        (
            ["sub-01 start {now}", "sub-01 exit {now} 143"],
            "== sub-01\nslurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 2026-11-24T21:00:00 "
            "DUE TO TIME LIMIT ***\n",
            "",
            "failed",
            "exit code 143: the time limit was reached",
        ),
        (
            ["sub-01 start {now}"],
            "== sub-01\nhalf\nslurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 2026-11-24 ***\n",
            "",
            "failed",
            "stopped without an exit code: the job was cancelled",
        ),
        (
            ["sub-01 start {now}", "sub-01 exit {now} 137"],
            "== sub-01\nslurmstepd: error: Detected 1 oom_kill event in StepId=9.batch. Some of "
            "the step tasks have been OOM Killed.\n",
            "",
            "failed",
            "exit code 137: out of memory: give more --mem",
        ),
        (
            ["sub-01 start {now}", "sub-01 exit {now} 2"],
            "== sub-01\nbrainlm-bids: the A424 atlas cannot be had\n\n",
            "",
            "failed",
            "exit code 2: the A424 atlas cannot be had",
        ),
    ],
)
def test_what_became_of_a_task(
    events: list[str], log: str, queue: str, state: str, reason: str, site: Site
) -> None:
    site.people("01")
    assert site.submit().returncode == 0
    site.events(1, *events)
    site.log(1, log)
    site.queue.write_text(queue + "\n")
    row = site.table()["sub-01"]
    assert row["state"] == state
    assert row["reason"].startswith(reason)


def test_the_reason_is_that_of_the_apps_own_table(site: Site) -> None:
    site.people("01", "02")
    assert site.submit().returncode == 0
    for task in (1, 2):
        site.events(task, f"sub-0{task} start {{now}}", f"sub-0{task} exit {{now}} {task - 1}")
    good, bad = "sub-01/func/sub-01_bold.nii.gz", "sub-02/func/sub-02_bold.nii.gz"
    site.status_rows(("sub-01", good, "done", ""))
    site.status_rows(("sub-01", good + "x", "skipped", "short"), ("sub-02", bad, "failed", "no TR"))
    # what the group level says is about series, not about runs
    series = "sub-01/func/sub-01_space-S_atlas-A424_desc-denoised_timeseries.tsv"
    site.status_rows(("sub-01", series, "failed", "not of this table"))
    table = site.table()
    assert table["sub-01"]["state"] == "done"
    assert table["sub-01"]["runs"] == "1 done, 1 skipped"
    assert table["sub-02"] == {
        "participant_id": "sub-02", "state": "failed", "runs": "1 failed", "seconds": "12",
        "peak_memory_mb": "12", "reason": "no TR",
    }  # fmt: skip
    assert table["group"]["reason"].startswith("not run: a participant failed")
    shown = site.call("status.sh", str(site.out))
    assert shown.returncode == 1
    assert shown.stdout.splitlines()[-1] == "1 done, 1 failed"


def test_several_participants_in_a_task_fail_one_by_one(site: Site) -> None:
    site.site("APP=app PER_TASK=2")
    site.people("01", "02", "03")
    assert site.submit("--group", "none").returncode == 0
    assert "--array=1-2 " in site.submitted()[0]
    site.queue.write_text("101_1 RUNNING\n101_2 RUNNING\n")
    site.events(1, "sub-01 start {now}", "sub-01 exit {now} 1", "sub-02 start {now}")
    site.log(1, "== sub-01\nbrainlm-bids: broken\n== sub-02\nbrainlm-bids: still fine\n")
    table = site.table()
    assert [table[f"sub-0{n}"]["state"] for n in (1, 2, 3)] == ["failed", "running", "pending"]
    assert table["sub-01"]["reason"] == "exit code 1: broken"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--participant-label", "09"], "has no sub-09"),
        (["--group", "maybe"], "--group maybe"),
        (["participant"], "the levels are submitted by themselves"),
        (["-w", "/x"], "set WORK"),
    ],
)
def test_a_call_that_makes_no_sense_submits_nothing(
    arguments: list[str], said: str, site: Site
) -> None:
    site.people("01")
    done = site.submit(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert site.submitted() == []


def test_names_that_a_shell_would_run_are_refused(site: Site) -> None:
    site.people("01", "$(touch gone)")
    done = site.submit()
    assert done.returncode == 2
    assert "letters and digits only" in done.stderr
    assert site.submitted() == []


def test_arrays_longer_than_the_cluster_takes_are_refused_with_the_way_out(site: Site) -> None:
    site.people(*(f"{number:04d}" for number in range(1001)))
    done = site.submit()
    assert "set PER_TASK=2" in done.stderr
    site.site("APP=app PER_TASK=2")
    assert site.submit().returncode == 0
    assert "--array=1-501 " in site.submitted()[0]


def test_without_an_answer_of_squeue_nothing_is_submitted(site: Site) -> None:
    site.people("01")
    site.command("squeue", "echo timed out >&2; exit 1")
    assert site.submit().returncode == 2
    assert site.submitted() == []


def test_an_array_that_sbatch_refuses_leaves_no_trace(site: Site) -> None:
    site.people("01")
    site.command("sbatch", "echo no such partition >&2; exit 1")
    done = site.submit()
    assert (done.returncode, "no such partition" in done.stderr) == (2, True)
    assert not list((site.out / "logs/slurm").glob("2*"))


def test_what_a_cohort_costs_is_counted_from_its_folder(tmp_path: Path) -> None:
    from benchmarks import scale

    names = ["source", "status", "peak_memory_mb"]
    (tmp_path / "sub-01" / "func").mkdir(parents=True)
    (tmp_path / "sub-01" / "func" / "a.tsv").write_bytes(b"x" * 3_000_000)
    (tmp_path / "atlas-A424_description.json").write_text("is there once, whoever comes")
    rows = [["sub-01/a_bold.nii.gz", "sub-01/b_bold.nii.gz"], ["done", "failed"]]
    files.write_tsv(tmp_path / "logs/1_status.tsv", names, [*rows, [800.0, 9e9]])
    size = 3_000_000 + (tmp_path / "logs/1_status.tsv").stat().st_size
    one = scale.cost(tmp_path, 90.0)
    assert one == (90.0, 800.0, size, 2.0)
    assert "| 10,000 | 250 | 30.0 GB | 20,000 |" in scale.table(one, [10_000])


def test_a_process_that_outlives_its_call_is_counted() -> None:
    burn = "import time\nwhile time.process_time() < 1: pass"
    call = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}])"
    measure = (
        "from benchmarks import scale; import sys; print(scale.processor_seconds(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", measure, sys.executable, "-c", call]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert 1 < float(done.stdout) < 2


# --- real engines -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm() -> None:
    need_slurm()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory, three_phantoms: Path) -> Path:
    """Three subjects, of whom the second's BOLD is cut short."""
    folder = tmp_path_factory.mktemp("phantoms") / "bids"
    shutil.copytree(three_phantoms, folder)
    bold = next(folder.glob("sub-02/func/*_bold.nii.gz"))
    (folder.parent / "whole.gz").write_bytes(bold.read_bytes())
    bold.write_bytes(bold.read_bytes()[:20_000])
    return folder


@pytest.fixture
def site_out(tmp_path: Path, slurm: None) -> Iterator[Path]:
    """An output folder whose jobs do not outlive the test."""
    out = tmp_path / "out"
    yield out
    for path in out.glob("logs/slurm/*/submission"):
        values = dict(line.split("\t") for line in path.read_text().splitlines())
        jobs = [values[key] for key in ("array", "group") if values[key]]
        subprocess.run(["scancel", *jobs], check=False)


def run_recipe(recipe: Path, script: str, *arguments: object) -> str:
    command = [str(recipe / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert script == "status.sh" or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def over(recipe: Path, out: Path) -> bool:
    table = read_table(run_recipe(recipe, "status.sh", "--tsv", out))
    return bool(table) and not {row["state"] for row in table.values()} & {"pending", "running"}


def recipe_of(folder: Path, app: Path | str, *more: str) -> Path:
    recipe = folder / "recipe"
    shutil.copytree(RECIPES / "slurm", recipe)
    options = "--time=00:20:00 --cpus-per-task=1 --mem=2500"
    lines = [f"APP='{app}'", f"CPU=({options})", f"GPU=({options})", *more]
    (recipe / "site.sh").write_text("\n".join(lines) + "\n")
    return recipe


def members(out: Path) -> set[str]:
    """Whose embeddings are in the table of the group level."""
    table = next(out.glob("group_*_embeddings.tsv"))
    return {row["participant_id"] for row in files.read_rows(table)}


@pytest.mark.cluster
def test_three_subjects_on_slurm_one_of_them_broken(
    phantoms: Path, tmp_path: Path, site_out: Path
) -> None:
    """Two finish, one is told, and the group job follows the policy; a second call mends it."""
    out = site_out
    app = Path(sys.executable).parent / "brainlm-bids"
    recipe = recipe_of(tmp_path, app, f"WORK='{tmp_path}/work'")
    options = [phantoms, out, *EMBEDDED, "--model", "random:tiny"]
    run_recipe(recipe, "submit.sh", *options)
    assert "3 pending or running" in run_recipe(recipe, "submit.sh", "--dry-run", *options)
    wait_for(lambda: over(recipe, out), 600)
    table = read_table(run_recipe(recipe, "status.sh", "--tsv", out))
    assert [table[f"sub-0{n}"]["state"] for n in (1, 2, 3)] == ["done", "failed", "done"]
    assert table["sub-02"]["runs"] == "1 failed"
    assert "sub-02_task-rest_bold.nii.gz: cannot be read" in table["sub-02"]["reason"]
    assert float(table["sub-01"]["peak_memory_mb"]) > 100
    assert table["group"]["reason"].startswith("not run: a participant failed")
    assert not list(out.glob("group_*"))

    # with what is there
    said = run_recipe(recipe, "submit.sh", "--group", "afterany", *options)
    assert "2 complete, 0 pending or running, 1 to submit" in said
    wait_for(lambda: over(recipe, out), 600)
    table = read_table(run_recipe(recipe, "status.sh", "--tsv", out))
    assert (table["sub-02"]["state"], table["group"]["state"]) == ("failed", "done")
    assert members(out) == {"sub-01", "sub-03"}

    # mended: one task, then the group with everybody
    bold = next(phantoms.glob("sub-02/func/*_bold.nii.gz"))
    bold.write_bytes((phantoms.parent / "whole.gz").read_bytes())
    assert "2 complete" in run_recipe(recipe, "submit.sh", *options)
    wait_for(lambda: over(recipe, out), 600)
    table = read_table(run_recipe(recipe, "status.sh", "--tsv", out))
    assert {row["state"] for row in table.values()} == {"done"}
    assert members(out) == {"sub-01", "sub-02", "sub-03"}
    assert "nothing to submit" in run_recipe(recipe, "submit.sh", *options)


@pytest.mark.cluster
def test_jobs_that_slurm_ends_are_told(tmp_path: Path, site_out: Path) -> None:
    """A program that is killed, a job that is cancelled, and a shell that dies: none is `done`."""
    bids, out = dataset(tmp_path / "bids"), site_out
    for label in ("killed", "cancelled", "shelldied", "good"):
        (bids / f"sub-{label}").mkdir()
    app = tmp_path / "app"
    app.write_text(
        "#!/bin/bash\n"
        'case "$*" in\n'
        "  --version) echo 1 ;;\n"
        '  *label\\ killed*) kill -9 "$$" ;;\n'
        "  *label\\ cancelled*) sleep 300 ;;\n"
        '  *label\\ shelldied*) kill -9 "$PPID" ;;\n'
        "esac\n"
    )
    app.chmod(0o755)
    recipe = recipe_of(tmp_path, app)
    run_recipe(recipe, "submit.sh", "--group", "none", bids, out)

    def state(label: str) -> str:
        return read_table(run_recipe(recipe, "status.sh", "--tsv", out))[f"sub-{label}"]["state"]

    wait_for(lambda: state("cancelled") == "running" and state("good") == "done", 300)
    task = sorted(path.name for path in bids.glob("sub-*")).index("sub-cancelled") + 1
    submission = next((out / "logs/slurm").glob("*/submission")).read_text()
    array = dict(line.split("\t") for line in submission.splitlines())["array"]
    subprocess.run(["scancel", f"{array}_{task}"], check=True)
    wait_for(lambda: over(recipe, out), 300)
    table = read_table(run_recipe(recipe, "status.sh", "--tsv", out))
    assert {name: row["state"] for name, row in table.items()} == {
        "sub-good": "done", "sub-killed": "failed", "sub-cancelled": "failed",
        "sub-shelldied": "failed",
    }  # fmt: skip
    assert table["sub-killed"]["reason"].startswith("exit code 137: killed")
    assert table["sub-cancelled"]["reason"] == "exit code 143: the job was cancelled"
    assert table["sub-shelldied"]["reason"].startswith("stopped without an exit code")


@pytest.mark.cluster
@pytest.mark.usefixtures("slurm")
def test_nipypes_own_plugin_runs_the_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes are jobs; what comes out is that of a call without SLURM, byte for byte."""
    monkeypatch.delenv("LOGNAME", raising=False)
    plugin = yaml.safe_load((RECIPES / "nipype" / "slurm.yml").read_text())
    plugin["poll_seconds"] = 1
    plugin["plugin_args"]["sbatch_args"] = "--time=00:05:00 --cpus-per-task=1 --mem=2000"
    (tmp_path / "slurm.yml").write_text(yaml.safe_dump(plugin))
    bids, series = dataset(tmp_path / "bids"), tmp_path / "sub-01_task-rest_timeseries.npy"
    np.save(series, np.random.default_rng(3).normal(10_000, 100, (80, 424)))
    found = []
    for name, flags in (("slurm", ["--use-plugin", str(tmp_path / "slurm.yml")]), ("here", [])):
        out, work = tmp_path / name, tmp_path / f"work_{name}"
        command = [
            sys.executable,
            "-m",
            "brainlm_bids",
            str(bids),
            str(out),
            "participant",
        ]
        command += ["--timeseries", str(series), "--timeseries-tr", "2", "--model", "random:tiny"]
        command += ["--offline", "--atlas", "A424approx", "--nprocs", "1", "-w", str(work), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        written = sorted(out.glob("sub-01/func/*.tsv"))
        assert len(written) > 5
        found.append({path.name: path.read_bytes() for path in written})
        jobs = list(work.rglob("slurm-*.out"))
        assert len(jobs) == (5 if name == "slurm" else 0), "a job of SLURM for each node"
    assert found[0] == found[1]


@pytest.mark.cluster
@pytest.mark.usefixtures("slurm")
def test_the_group_level_is_the_same_with_every_plugin(tmp_path: Path) -> None:
    """Nodes in jobs of SLURM, in worker processes and one after another: the same bytes."""
    raw, made = write_cohort(tmp_path / "cohort", 3)
    slurm = {"plugin": "SLURM", "poll_seconds": 1, "nodes_per_job": 3}
    slurm["plugin_args"] = {"sbatch_args": "--time=00:10:00 --cpus-per-task=1 --mem=2000"}
    found = []
    for plugin in (slurm, {"plugin": "MultiProc"}, {"plugin": "Linear"}):
        name = plugin["plugin"]
        # the same path each time, since files name the folder
        out, work = tmp_path / "out", tmp_path / f"work_{name}"
        shutil.copytree(made, out)
        (tmp_path / "plugin.yml").write_text(yaml.safe_dump(plugin))
        command = [sys.executable, "-m", "brainlm_bids", str(raw), str(out), "group", *EMBEDDED]
        command += ["--use-plugin", str(tmp_path / "plugin.yml"), "-w", str(work)]
        command += ["--model", "random:tiny", "--nprocs", "2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(
            {
                path.relative_to(out): path.read_bytes()
                for path in out.rglob("*")
                if path.suffix in {".tsv", ".json", ".nii", ".gz", ".svg"}
                and out / "logs" not in path.parents
            }
        )
        n_jobs = len(list(work.rglob("slurm-*.out")))
        n_nodes = len(list(work.rglob("pyscript_*.py")))
        assert (n_jobs > 0) is (name == "SLURM")
        assert 2 * n_jobs < n_nodes or name != "SLURM"
        shutil.move(out, tmp_path / f"out_{name}")
    assert any("sub-01" in str(path) and "embeddings" in path.name for path in found[0])
    for other in found[1:]:
        assert sorted(found[0]) == sorted(other)
        assert [path for path in other if other[path] != found[0][path]] == []


@pytest.fixture(scope="module")
def image() -> Path:
    """The image file of Apptainer that $BRAINLM_BIDS_SIF names."""
    return need_image()


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that somebody who is not root reaches and writes to."""
    with folder_for_all() as folder:
        yield folder


@pytest.mark.cluster
@pytest.mark.parametrize("options", [["--cleanenv"], ["--containall", "--nv"]])
def test_apptainer_runs_the_image_as_a_user(
    options: list[str], image: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one series to an embedding, as somebody who is not root, with a read-only image."""
    bids = dataset(open_folder / "bids")
    series = open_folder / "sub-01_task-rest_timeseries.npy"
    np.save(series, np.random.default_rng(0).normal(10_000, 100, (120, 424)))
    out, home = open_folder / "out", open_folder / "home"
    for folder in (out, home):
        folder.mkdir()
        folder.chmod(0o777)
    command = ["apptainer", "run", *options, "--bind", f"{bids}:/data:ro", "--bind", f"{out}:/out"]
    command += ["--bind", f"{series}", "--no-home", str(image), "/data", "/out", "participant"]
    command += ["--timeseries", str(series), "--timeseries-tr", "2", "--model", "random:tiny"]
    command += ["--offline", "--atlas", "A424approx", "--nprocs", "1", "-w", "/tmp/work"]
    # of the host, where it would break the program inside
    hostile = {"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere", "HOME": str(home)}
    done = as_somebody(command, hostile)
    assert done.code == 0, done.said[-3000:]
    embedding = next(out.glob("sub-01/func/*_model-randomtiny_desc-windows_embeddings.tsv"))
    assert np.isfinite(files.read_tsv(embedding)[1]).all()
    rows = files.read_rows(next((out / "logs").glob("*_status.tsv")))
    assert [row["status"] for row in rows] == ["done"]
    if os.getuid() == 0:
        assert embedding.stat().st_uid == 65534
    refused = as_somebody([*command[: command.index("participant")], "nothing"], {})
    assert refused.code == 2
