"""Files of a real DataLad data set are fetched before they are needed, and dropped afterwards.

Tests marked `datalad` need DataLad and git-annex: `make test-datalad` installs them where nothing
else is. Without them they are skipped; with REQUIRED=1 their absence fails. In most of them nothing
is computed: a stand-in sees which contents are there while a run would be processed.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids import annex, files
from brainlm_bids.app import computing, datalad, finishing
from brainlm_bids.app.datalad import Fetcher
from brainlm_bids.bids import outputs
from brainlm_bids.commands import bids_app as cli
from brainlm_bids.workflows.graph import Graph
from brainlm_bids.workflows.plans import RunPlan

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("BRAINLM_BIDS_DATALAD_BIN", REPOSITORY / ".venv-datalad" / "bin"))
pytestmark = pytest.mark.datalad


# --- a data set ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """DataLad and git-annex on the PATH, and a home of their own."""
    missing = [name for name in ("datalad", "git-annex") if not (TOOLS / name).is_file()]
    if missing:
        text = f"{', '.join(missing)}: not in {TOOLS}; make test-datalad installs them"
        (pytest.fail if os.environ.get("REQUIRED") else pytest.skip)(text)
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[user]\n\tname = a\n\temail = a@example.org\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("HOME", str(home))
        yield


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([str(one) for one in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _image(path: Path, *shape: int, **sidecar: Any) -> None:
    """Noise of its own in every image: git-annex keeps equal contents once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(path.name.encode()[-24:], "little")
    values = np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)
    made = nb.Nifti1Image(values, np.diag([9.0, 9.0, 9.0, 1.0]))
    if len(shape) == 4:
        made.header.set_zooms((9.0, 9.0, 9.0, 2.0))
    made.to_filename(path)
    if sidecar:
        path.with_name(path.name.partition(".")[0] + ".json").write_text(json.dumps(sidecar))


def _subject(folder: Path, label: str, tasks: Sequence[str]) -> None:
    sub, name = folder / f"sub-{label}", f"sub-{label}"
    fields = {"RepetitionTime": 2.0, "PhaseEncodingDirection": "j", "TotalReadoutTime": 0.05}
    for task in tasks:
        bold = sub / "func" / f"{name}_task-{task}_bold.nii.gz"
        _image(bold, 10, 10, 10, 30, TaskName=task, **fields)
    _image(sub / "anat" / f"{name}_T1w.nii.gz", 20, 20, 20)
    targets = [f"func/{name}_task-{task}_bold.nii.gz" for task in tasks]
    times = {"EchoTime1": 0.004, "EchoTime2": 0.0065}
    _image(sub / "fmap" / f"{name}_phasediff.nii.gz", 10, 10, 10, IntendedFor=targets, **times)
    _image(sub / "fmap" / f"{name}_magnitude1.nii.gz", 10, 10, 10)


@pytest.fixture(scope="session")
def origin(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of two subjects; the sidecars were annexed by mistake. sub-03 is a subdataset."""
    folder = tmp_path_factory.mktemp("origin") / "data set"
    run("datalad", "create", folder, cwd=folder.parent)
    files.write_json(folder / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    _subject(folder, "01", ["a", "b"])
    _subject(folder, "02", ["a"])
    _image(folder / "sub-01/dwi/sub-01_dwi.nii.gz", 10, 10, 10)  # which no run needs
    run("datalad", "create", "-d", ".", "sub-03", cwd=folder)
    _subject(folder, "03", ["a"])
    run("datalad", "save", "-r", "-m", "data", cwd=folder)
    return folder


@pytest.fixture
def data(origin: Path, tmp_path: Path) -> Path:
    """A clone, in which nothing was fetched."""
    folder = tmp_path / "a clone"
    run("datalad", "clone", origin, folder, cwd=tmp_path)
    return folder


def there(folder: Path) -> set[str]:
    """The images whose contents are there."""
    images = folder.rglob("sub-*/*/*.nii.gz")
    return {path.name.removesuffix(".nii.gz") for path in images if not annex.is_absent(path)}


@dataclass
class Seen:
    """What a stand-in for the graph saw: the runs of each round, and the images that were there."""

    data: Path
    rounds: list[list[str]] = field(default_factory=list)
    there: list[set[str]] = field(default_factory=list)
    failing: str = ""

    def execute(self, settings: Any, resources: Any, plans: Sequence[RunPlan], *_: Any) -> Any:
        assert all(path.is_file() for plan in plans for path in plan.run.reads)
        assert all(plan.run.fieldmap and plan.run.t1w for plan in plans)
        self.rounds.append([plan.run.stem for plan in plans])
        self.there.append(there(self.data))
        for plan in plans:
            if plan.run.stem != self.failing:
                made = files.write_text(settings.output_dir / f"{plan.run.stem}.txt", "a result")
                series = plan.stages.series
                key = series.configuration
                outputs.write_record(settings.output_dir, *series.stage, key, [made])
        return Graph(None, {}, {}), None  # type: ignore[arg-type]


@pytest.fixture
def seen(data: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen(data)
    monkeypatch.setattr(computing, "_execute", found.execute)
    for name in ("write_reports", "write_methods_beside_results", "enter_into_index"):
        monkeypatch.setattr(finishing, name, lambda *_, **__: 0)
    return found


def call(data: Path, *flags: str, out: str = "out") -> int:
    folder = data.parent
    words = [str(data), str(folder / out), "participant", "-w", str(folder / "work"), "--offline"]
    words += ["--atlas", "A424approx", "--template", "MNI152NLin2009aSym", "--model", "none"]
    return cli.main([*words, "--nprocs", "1", *flags])


def rows(data: Path, out: str = "out") -> dict[str, tuple[str, str]]:
    tables = (data.parent / out / "logs").glob("*_status.tsv")
    last = max(tables, key=lambda path: path.stat().st_mtime_ns)
    return {row["source"]: (row["status"], row["reason"]) for row in files.read_rows(last)}


BOTH = ("--datalad-get", "--datalad-drop")
OF_01 = {"sub-01_T1w", "sub-01_phasediff", "sub-01_magnitude1"}
OF_02 = {"sub-02_T1w", "sub-02_phasediff", "sub-02_magnitude1", "sub-02_task-a_bold"}
OF_03 = {"sub-03_T1w", "sub-03_phasediff", "sub-03_magnitude1", "sub-03_task-a_bold"}


# --- without the option ----------------------------------------------------------------------


def test_the_commands_of_the_rows_are_all_that_is_needed(data: Path, seen: Seen) -> None:
    """Pasted into a shell one after another, they make the same call succeed."""
    run("datalad", "get", "dataset_description.json", cwd=data)
    for _ in range(4):
        if call(data) == 0:
            break
        for status, reason in rows(data).values():
            if status == "failed":
                command = reason.partition(", or run: ")[2]
                assert command.startswith("datalad -C ")
                subprocess.run(command, shell=True, check=True, capture_output=True)
    assert {status for status, _ in rows(data).values()} <= {"done", "cached"}
    assert len(rows(data)) == 4
    assert "sub-01_dwi" not in there(data)


# --- fetched and dropped ---------------------------------------------------------------------


def test_only_what_the_next_runs_need_is_there_at_a_time(data: Path, seen: Seen) -> None:
    assert call(data, *BOTH) == 0
    assert seen.rounds == [
        ["sub-01_task-a"],
        ["sub-01_task-b"],
        ["sub-02_task-a"],
        ["sub-03_task-a"],
    ]
    # T1w image and field map stay until the last run of their subject
    assert seen.there == [
        OF_01 | {"sub-01_task-a_bold"},
        OF_01 | {"sub-01_task-b_bold"},
        OF_02,
        OF_03,
    ]
    assert there(data) == set()
    assert {status for status, _ in rows(data).values()} == {"done"}
    assert not list((data.parent / "out/logs/fetched").glob("*.json"))
    # complete runs are not fetched again, and nothing but the key of their files is looked at
    seen.rounds.clear()
    assert call(data, *BOTH) == 0
    assert call(data) == 0
    assert (seen.rounds, there(data)) == ([], set())
    assert {status for status, _ in rows(data).values()} == {"cached"}
    # under other settings they are not complete
    assert call(data, *BOTH, "--high-pass", "128", "--participant-label", "02") == 0
    assert seen.rounds == [["sub-02_task-a"]]


def test_as_many_runs_at_a_time_as_there_are_processes(data: Path, seen: Seen) -> None:
    assert call(data, *BOTH, "--nprocs", "2") == 0
    assert [len(one) for one in seen.rounds] == [2, 2]
    assert seen.there[0] == OF_01 | {"sub-01_task-a_bold", "sub-01_task-b_bold"}
    assert there(data) == set()


def test_without_the_second_option_everything_stays(data: Path, seen: Seen) -> None:
    assert call(data, "--datalad-get", "--participant-label", "02") == 0
    assert there(data) == OF_02
    assert call(data, "--datalad-get", "--participant-label", "02") == 0
    assert len(seen.rounds) == 1
    # dropped by hand, it is still complete; its sidecars tell so
    run("datalad", "drop", "sub-02", cwd=data)
    assert call(data, "--participant-label", "02") == 1
    assert call(data, "--datalad-get", "--participant-label", "02") == 0
    assert call(data, "--participant-label", "02") == 0
    assert (len(seen.rounds), there(data)) == (1, set())


def test_what_was_there_before_is_never_dropped(data: Path, seen: Seen) -> None:
    kept = ["sub-01/anat/sub-01_T1w.nii.gz", "sub-01/dwi/sub-01_dwi.nii.gz"]
    run("datalad", "get", *kept, "sub-02", cwd=data)
    assert call(data, *BOTH) == 0
    assert there(data) == {"sub-01_T1w", "sub-01_dwi", *OF_02}
    assert seen.rounds[0] == ["sub-02_task-a"]  # which need not wait for anything


def test_a_refused_drop_is_a_warning(
    data: Path, seen: Seen, caplog: pytest.LogCaptureFixture, origin: Path
) -> None:
    """git-annex knows one other copy, and is told to keep two."""
    run("git", "annex", "numcopies", "2", cwd=data)
    assert call(data, *BOTH, "--participant-label", "02") == 0
    said = [one.getMessage() for one in caplog.records if "was not dropped" in one.getMessage()]
    assert any("sub-02_T1w.nii.gz was not dropped: " in text for text in said)
    assert len(said) == len(set(said))
    assert there(data) == OF_02
    assert {status for status, _ in rows(data).values()} == {"done"}
    # the next call drops them, when it may
    run("git", "annex", "numcopies", "1", cwd=data)
    assert call(data, *BOTH, "--participant-label", "02") == 0
    assert there(data) == set()


def test_a_file_that_cannot_be_fetched_costs_its_runs_alone(
    data: Path, seen: Seen, origin: Path
) -> None:
    lost = origin / "sub-01/func/sub-01_task-a_bold.nii.gz"
    content, aside = lost.resolve(), data.parent / "aside"
    content.parent.chmod(0o755)
    shutil.move(content, aside)
    try:
        assert call(data, *BOTH) == 1
    finally:
        shutil.move(aside, content)
        content.parent.chmod(0o555)
    found = rows(data)
    status, reason = found.pop("sub-01/func/sub-01_task-a_bold.nii.gz")
    assert status == "failed"
    assert "sub-01_task-a_bold.nii.gz: could not be fetched (" in reason
    assert [status for status, _ in found.values()] == ["done"] * 3
    assert there(data) == set()
    assert call(data, *BOTH) == 0
    assert seen.rounds[-1] == ["sub-01_task-a"]


def test_a_failed_run_stops_the_others_if_asked_to(data: Path, seen: Seen) -> None:
    seen.failing = "sub-01_task-a"
    assert call(data, *BOTH, "--stop-on-first-crash") == 1
    assert (len(seen.rounds), there(data)) == (1, OF_01)
    reasons = [reason for status, reason in rows(data).values() if status == "failed"]
    assert sum("--stop-on-first-crash" in reason for reason in reasons) == 4
    seen.failing = ""
    assert call(data, *BOTH) == 0
    assert there(data) == set()


def test_a_killed_call_is_continued_and_cleaned_up_by_the_next(
    data: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process is killed while it processes its first run."""
    script = (
        "import os, sys\n"
        "from brainlm_bids.app import computing\n"
        "from brainlm_bids.commands import bids_app\n"
        "computing._execute = lambda *_: os.kill(os.getpid(), 9)\n"
        "bids_app.main(sys.argv[1:])\n"
    )
    words: list[str] = []
    monkeypatch.setattr(cli, "main", lambda given: words.extend(given) or 0)
    call(data, *BOTH)
    monkeypatch.undo()
    environment = {**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    killed = subprocess.run([sys.executable, "-c", script, *words], env=environment)
    assert killed.returncode == -9
    assert there(data) == OF_01 | {"sub-01_task-a_bold"}
    again = Seen(data)
    monkeypatch.setattr(computing, "_execute", again.execute)
    for name in ("write_reports", "write_methods_beside_results", "enter_into_index"):
        monkeypatch.setattr(finishing, name, lambda *_, **__: 0)
    assert call(data, *BOTH) == 0
    assert again.rounds[0] == ["sub-01_task-a"]
    assert again.there[1] == OF_01 | {"sub-01_task-b_bold"}
    assert there(data) == set()


def test_a_dry_run_fetches_nothing(
    data: Path, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    run("datalad", "get", "dataset_description.json", *data.glob("sub-01/*/*.json"), cwd=data)
    assert call(data, *BOTH, "--dry-run") == 1  # sub-03 is not installed
    told = capsys.readouterr().out
    line = next(line for line in told.splitlines() if "sub-01_task-a_bold" in line)
    assert "to fetch" in line
    assert "4 files to be fetched with DataLad" in line
    assert there(data) == set()
    assert not (data / "sub-03/.git").exists()


# --- unlocked files, and calls at the same time ----------------------------------------------


def test_unlocked_files(data: Path, seen: Seen) -> None:
    """In an adjusted branch files are pointers, and contents that are there look like any file."""
    run("git", "annex", "adjust", "--unlock", cwd=data)
    label = ("--participant-label", "01")
    assert call(data, "--datalad-get", *label) == 0
    assert len(seen.rounds) == 2
    run("datalad", "drop", "sub-01", cwd=data)
    assert there(data) == set()
    assert call(data, *BOTH, *label) == 0
    assert (len(seen.rounds), there(data)) == (2, set())
    assert call(data, *BOTH, "--participant-label", "02") == 0
    assert (seen.there[-1], there(data)) == (OF_02, set())
    assert not run("git", "status", "--porcelain", cwd=data)


def test_an_unlocked_file_that_was_changed_is_not_taken_for_what_it_was(
    data: Path, seen: Seen
) -> None:
    run("git", "annex", "adjust", "--unlock", cwd=data)
    label = ("--participant-label", "02")
    bold = data / "sub-02/func/sub-02_task-a_bold.nii.gz"
    run("datalad", "get", "dataset_description.json", "sub-02", cwd=data)
    _image(bold, 10, 10, 10, 40)  # not saved
    assert call(data, *label) == 0
    run("git", "checkout", "-f", "--", bold, cwd=data)
    run("datalad", "drop", bold, cwd=data)
    assert call(data, *label) == 1
    assert "has not been fetched" in next(iter(rows(data).values()))[1]


def test_calls_at_the_same_time_do_not_drop_what_the_other_needs(data: Path) -> None:
    out, t1w = data.parent / "out", data / "sub-01/anat/sub-01_T1w.nii.gz"
    bold = data / "sub-01/func/sub-01_task-a_bold.nii.gz"
    with Fetcher(out, "one", drops=True) as one:
        one.use([t1w, bold])
        assert one.get([t1w, bold]) == {}
        with Fetcher(out, "two", drops=True) as two:
            two.use([t1w])
            one.drop_unused([])
            assert there(data) == {"sub-01_T1w"}
            # one ends, and two takes over what it has left
        # two did not need it any more, but it was fetched by one, which is alive
        assert there(data) == {"sub-01_T1w"}
        one.drop_unused([])
        assert there(data) == set()


def test_an_unusable_data_set_is_told_in_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t1w = data / "sub-01/anat/sub-01_T1w.nii.gz"
    monkeypatch.setattr(datalad.os, "access", lambda *_: False)
    (reason,) = datalad.get([t1w]).values()
    assert "cannot be written to (is the data set mounted read-only?)" in reason
    monkeypatch.undo()
    errors = "fatal: detected dubious ownership in repository at '/x'\nTo add an exception"
    monkeypatch.setattr(datalad, "_call", lambda _: (1, "", errors))
    (reason,) = datalad.get([t1w]).values()
    assert reason.endswith(f"git config --global --add safe.directory {data}")
    assert "\n" not in reason
    monkeypatch.undo()
    # as in a container whose user has no home
    monkeypatch.setenv("HOME", str(data.parent / "nowhere"))
    monkeypatch.setenv("EMAIL", "")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    fresh = data.parent / "fresh"
    run("git", "clone", "-q", data, fresh, cwd=data.parent)
    reasons = datalad.get([fresh / t1w.relative_to(data)])
    assert ["git does not know who you are" in one for one in reasons.values()] == [True]


# --- for real --------------------------------------------------------------------------------


@pytest.fixture
def fmriprep(tools: None, tmp_path: Path) -> Path:
    """A clone of derivatives of a run, of which nothing was fetched."""
    folder = tmp_path / "origin"
    run("datalad", "create", "-c", "text2git", folder, cwd=tmp_path)
    made = {"Name": "x", "BIDSVersion": "1.4.0", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    files.write_json(folder / "dataset_description.json", made)
    rng = np.random.default_rng(0)
    affine = np.diag([9.0, 9.0, 9.0, 1.0])
    affine[:3, 3] = -90, -126, -72
    brain = np.ones((20, 24, 20), np.uint8)
    func = folder / "sub-01/func"
    func.mkdir(parents=True)
    stem = func / "sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc"
    series = rng.normal(1000, 10, (*brain.shape, 40)).astype(np.float32)
    nb.Nifti1Image(series, affine).to_filename(f"{stem}-preproc_bold.nii.gz")
    nb.Nifti1Image(brain, affine).to_filename(f"{stem}-brain_mask.nii.gz")
    files.write_json(Path(f"{stem}-preproc_bold.json"), {"RepetitionTime": 2.0})
    table = func / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    moved = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    names = [*moved, "csf", "white_matter", "global_signal", "framewise_displacement"]
    files.write_tsv(table, names, rng.uniform(0, 1e-3, (len(names), 40)))
    run("datalad", "save", "-m", "data", cwd=folder)
    run("datalad", "clone", folder, tmp_path / "clone", cwd=tmp_path)
    return tmp_path / "clone"


def test_results_are_those_of_files_that_were_there(
    fmriprep: Path, tmp_path: Path, start: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Derivatives are fetched run by run, for real; the bytes are those of one ordinary call."""
    (tmp_path / "raw").mkdir()

    def series(out: Path) -> dict[str, bytes]:
        found = out.rglob("*_timeseries.tsv")
        return {path.name: path.read_bytes() for path in found}

    flags = ("--derivatives", f"fmriprep={fmriprep}", "--denoise", "none", "--nprocs", "1")
    first = start(tmp_path / "raw", tmp_path / "fetched", *flags, *BOTH)
    assert first.returncode == 0, first.stderr
    assert "fetching the files of sub-01, rest\n" in first.stderr
    assert there(fmriprep) == set()
    ordinary = start(
        tmp_path / "raw",
        tmp_path / "ordinary",
        *("--derivatives", f"fmriprep={tmp_path / 'origin'}", *flags[2:]),
    )
    assert ordinary.returncode == 0, ordinary.stderr
    assert len(series(tmp_path / "fetched")) >= 3
    assert series(tmp_path / "fetched") == series(tmp_path / "ordinary")


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the program as a user does."""

    def start(data: Path, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "brainlm_bids", str(data), str(out), "participant"]
        command += ["-w", str(tmp_path / f"work_{out.name}"), "--offline", "--model", "none"]
        command += ["--atlas", "A424approx", "--template", "MNI152NLin2009aSym", *flags]
        return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)

    return start
