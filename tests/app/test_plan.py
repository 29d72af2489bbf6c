"""Planning and evaluation of a recording, which both levels share."""

import errno
import io
import logging
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from nipype.pipeline import plugins

from brainlm_bids import files
from brainlm_bids.app.execution import crash_folder, execute
from brainlm_bids.app.plan import evaluate, plan_recording
from brainlm_bids.app.plugins import make_plugin
from brainlm_bids.app.progress import NodeProgress
from brainlm_bids.app.workers import WorkersPlugin
from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.notices import Kind, notice, to_json
from brainlm_bids.progress import Progress
from brainlm_bids.resources import ModelResource
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.graph import Graph, GraphBuilder, Stage

SERIES = Stage("sub-01_task-rest", "series")
MODEL = ModelResource("random:tiny", "tiny", None, True, None, "seeded", "Apache-2.0")
MODELS = {"tiny": MODEL}
# its first byte is in no process's memory: reading it answers EIO
DAMAGED = Path("/proc/self/mem")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, tmp_path / "out", tmp_path / "work", model=("random:tiny",))


def complete(settings: Settings, plan: Any) -> None:
    """Write the record of a stage."""
    outputs.write_record(settings.output_dir, *plan.stage, plan.configuration, [])


def test_a_stage_is_pending_until_it_is_complete_under_its_configuration(
    settings: Settings,
) -> None:
    plan = plan_recording(settings, SERIES, {"bold": "a"}, MODELS)
    assert [pending.stage.name for pending in plan.pending] == [
        "series",
        "model-tiny",
    ]
    for stage in plan.pending:
        complete(settings, stage)
    assert plan_recording(settings, SERIES, {"bold": "a"}, MODELS).pending == ()
    other = Settings(**{**vars(settings), "pooling": "mean"})
    changed = plan_recording(other, SERIES, {"bold": "a"}, MODELS)
    assert [pending.stage.name for pending in changed.pending] == ["model-tiny"]
    # models are never newer than the series that they were made from
    changed = plan_recording(settings, SERIES, {"bold": "b"}, MODELS)
    assert [pending.stage.name for pending in changed.pending] == ["series", "model-tiny"]
    first = plan.series.configuration
    outputs.write_record(settings.output_dir, *SERIES, "older", [])
    again = plan_recording(settings, SERIES, {"bold": "a"}, MODELS)
    assert again.series.configuration == first
    assert [pending.stage.name for pending in again.pending] == ["series", "model-tiny"]


def graph(settings: Settings) -> Graph:
    from nipype.interfaces.utility import IdentityInterface
    from nipype.pipeline import engine

    builder = GraphBuilder("graph", settings)
    for stage in (SERIES, Stage(SERIES.recording, "model-tiny")):
        node = engine.Node(IdentityInterface(fields=["x"]), name=f"node_{stage.name}")
        builder.add(stage, node, needs=[SERIES] if stage != SERIES else [])
    return builder.build()


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        ("brainlm_bids.errors.UserError: no brain found", "failed", "no brain found"),
        ("brainlm_bids.errors.RunSkipped: too short", "skipped", "too short"),
        ("ValueError: bad", "failed", "ValueError in node_series: bad"),
        (
            "OSError: [Errno 28] No space left on device: '/out/a.tsv'",
            "failed",
            "/out/a.tsv: cannot be written (No space left on device); free some space (node_",
        ),
        (None, "failed", "sub-01_task-rest: series was not finished and left no crash file"),
    ],
)
def test_what_became_of_a_recording(
    settings: Settings, error: str | None, status: str, reason: str
) -> None:
    made = graph(settings)
    plan = plan_recording(settings, SERIES, {}, MODELS)
    folder = crash_folder(settings, "now")
    folder.mkdir(parents=True)
    if error is not None:
        (folder / "crash-1.txt").write_text(f"Node: graph.node_series\n\n\t{error}\n")
    outcome = evaluate(settings, plan, made, "now", stopped=False)
    assert (outcome.status, outcome.unfinished) == (status, plan.pending)
    assert outcome.reason.startswith(reason)
    assert (outcome.crash_file is None) == (error is None)


def test_a_full_disk_is_the_reason_of_whatever_failed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = graph(settings)
    plan = plan_recording(settings, SERIES, {}, MODELS)
    folder = crash_folder(settings, "now")
    folder.mkdir(parents=True)
    full = shutil.disk_usage(folder)._replace(free=4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    says = f"no space left on the disk of OUTPUT_DIR {settings.output_dir}; free some"
    outcome = evaluate(settings, plan, made, "now", stopped=False)
    assert outcome.reason.startswith(f"sub-01_task-rest: {says}")
    (folder / "crash-1.txt").write_text("Node: graph.node_series\n\n\tFileNotFoundError: x.pklz\n")
    outcome = evaluate(settings, plan, made, "now", stopped=False)
    assert outcome.reason.startswith(says)
    assert outcome.reason.endswith("(FileNotFoundError in node_series: x.pklz)")


@pytest.mark.skipif(not DAMAGED.exists(), reason="no file that answers EIO")
def test_a_record_that_the_disk_does_not_give_is_named(settings: Settings) -> None:
    made = graph(settings)
    plan = plan_recording(settings, SERIES, {}, MODELS)
    crash_folder(settings, "now").mkdir(parents=True)
    outputs.write_record(settings.output_dir, *SERIES, plan.series.configuration, [])
    path = outputs.record_path(settings.output_dir, *SERIES)
    path.unlink()
    path.symlink_to(DAMAGED)
    outcome = evaluate(settings, plan, made, "now", stopped=False)
    assert outcome.status == "failed"
    assert outcome.reason == (
        f"sub-01_task-rest: {path}: cannot be read (Input/output error); see whether the disk is "
        "damaged"
    )


def test_a_quota_is_the_reason_of_an_error_that_is_not_understood(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    made = graph(settings)
    plan = plan_recording(settings, SERIES, {}, MODELS)
    folder = crash_folder(settings, "now")
    folder.mkdir(parents=True)
    crash = folder / "crash-1.txt"
    crash.write_text("Node: graph.node_series\n\n\tFileNotFoundError: x.pklz\n")
    monkeypatch.setattr(os, "fsync", full)
    says = f"OUTPUT_DIR {settings.output_dir}: cannot be written (Disk quota exceeded); free some"
    outcome = evaluate(settings, plan, made, "now", stopped=False)
    assert outcome.reason.startswith(says)
    crash.write_text("Node: graph.node_series\n\n\tbrainlm_bids.errors.UserError: no brain\n")
    assert evaluate(settings, plan, made, "now", stopped=False).reason == "no brain"


def test_without_shared_memory_the_steps_run_one_after_another(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(context: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    told = NodeProgress(Progress(stream=io.StringIO()), graph(settings), settings.output_dir)
    monkeypatch.setattr(multiprocessing.context.BaseContext, "Lock", none)
    plugin, _ = make_plugin(settings, told)
    assert isinstance(plugin, plugins.LinearPlugin)
    assert "no worker processes can be started here" in caplog.text
    monkeypatch.undo()
    plugin, _ = make_plugin(settings, told)
    assert isinstance(plugin, WorkersPlugin)
    plugin.stop()


def test_a_failed_model_leaves_the_series_done(settings: Settings) -> None:
    plan = plan_recording(settings, SERIES, {}, MODELS)
    complete(settings, plan.series)
    outcome = evaluate(settings, plan, graph(settings), "now", stopped=True)
    assert [stage.stage.name for stage in outcome.unfinished] == ["model-tiny"]
    assert outcome.reason == "sub-01_task-rest: the call was stopped before model-tiny was finished"
    complete(settings, plan.models[0])
    assert evaluate(settings, plan, graph(settings), "now", stopped=False).status == "done"
    again = plan_recording(settings, SERIES, {}, MODELS)
    assert evaluate(settings, again, None, "now", stopped=False).status == "cached"


# --- the lines of a running graph ------------------------------------------------------------


def fail(folder: str) -> int:
    raise ValueError("the reason")


def succeed(folder: str) -> int:
    return 0


@pytest.mark.parametrize("plugin", ["MultiProc", "Linear"])
def test_a_failure_is_logged_at_once_with_its_reason(
    plugin: str, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine

    file = tmp_path / "plugin.yml"
    file.write_text(f"plugin: {plugin}\nplugin_args: {{n_procs: 1}}\n")
    chosen = Settings(**{**vars(settings), "use_plugin": file})
    builder = GraphBuilder("graph", chosen)
    nodes = []
    for name, function in (("first", fail), ("second", succeed)):
        node = engine.Node(Function(function=function, output_names=["x"]), name=name)
        node.inputs.folder = str(tmp_path)
        builder.add(Stage(f"sub-{name}", "series"), node)
        nodes.append(node)
    caplog.set_level(logging.INFO, logger="brainlm_bids")
    with Progress(stream=io.StringIO()) as progress:
        execute(builder.build(), chosen, "now", progress)
    lines = [record.getMessage() for record in caplog.records if record.name == "brainlm_bids"]
    crash = next(tmp_path.rglob("crash-*.txt"))
    assert lines[0] == (
        "sub-first: first failed: ValueError in first: the reason; repeat the command, and if it "
        f"fails again, please report it with the crash file (crash file: {crash})"
    )
    assert len(lines) == 2
    assert lines[1].startswith("sub-second: second done (1 of 2 steps, 1 failed, ")


def test_a_danger_of_the_series_is_the_reason_of_a_run_that_is_done(settings: Settings) -> None:
    plan = plan_recording(settings, SERIES, {}, MODELS)
    naming = Naming(str(settings.output_dir), SERIES.recording, "MNI152NLin6Asym", "A424")
    texts = ["The registration has probably failed.", "No T1w image."]
    warnings = [notice(Kind.SUSPECT_REGISTRATION, texts[0]), notice(Kind.NO_T1W, texts[1])]
    written = []
    for key in ("denoised", "robust", "confounds"):
        path = naming.path(key, extension=".json")
        written.append(files.write_json(path, {"Warnings": to_json(warnings)}))
    outputs.write_record(settings.output_dir, *SERIES, plan.series.configuration, written)
    complete(settings, plan.models[0])
    outcome = evaluate(settings, plan, graph(settings), "now", stopped=False)
    assert (outcome.status, outcome.reason) == ("done", texts[0])
    again = plan_recording(settings, SERIES, {}, MODELS)
    cached = evaluate(settings, again, None, "now", stopped=False)
    assert cached.status == "cached"
    assert cached.reason == f"complete under the same configuration; {texts[0]}"


def test_a_run_too_short_for_an_image_model_says_so_in_its_row(settings: Settings) -> None:
    plan = plan_recording(settings, SERIES, {}, MODELS)
    naming = Naming(str(settings.output_dir), SERIES.recording, "MNI152NLin6Asym", "A424")
    short = [notice(Kind.UNTRAINED_MODEL, "Untrained."), notice(Kind.SHORT_RUN, "Too short.")]
    path = naming.path("embeddings", model="tiny", extension=".json")
    written = files.write_json(path, {"Warnings": to_json(short)})
    complete(settings, plan.series)
    model = plan.models[0]
    outputs.write_record(settings.output_dir, *model.stage, model.configuration, [written])
    outcome = evaluate(settings, plan, graph(settings), "now", stopped=False)
    assert (outcome.status, outcome.reason) == ("done", "Too short.")
