"""What a call begins with, and the table of a dry run."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from terminal import terminal

from brainlm_bids.app import opening
from brainlm_bids.app.expected import Expected, expect_runs, series_nodes, too_full
from brainlm_bids.app.planning import make_plan
from brainlm_bids.app.resources import find_resources, materialise
from brainlm_bids.app.status import Outcome, Row
from brainlm_bids.bids import inputs
from brainlm_bids.phantom import write_phantom
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.costs import kind_of
from brainlm_bids.workflows.participant import participant_workflow

N_VOLUMES = 25


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("opening")
    write_phantom(root / "bids", n_subjects=2, n_runs=2, n_volumes=N_VOLUMES, tr=2.0, voxel=8.0)
    values: dict[str, Any] = {"model": ("random:tiny",), "atlas": "A424approx", "offline": True}
    values |= {"template": "MNI152NLin2009aSym", "nprocs": 2}
    return Settings(root / "bids", root / "out", root / "work", **values)


def _plans(settings: Settings) -> tuple[Any, list[Any]]:
    resources = find_resources(settings)
    return resources, [make_plan(settings, r, resources) for r in inputs.find_runs(settings)]


ROW = Row.of_recording({"sub": "03"}, "sub-03/func/x_bold.nii.gz", Outcome("failed", "too  bad\n"))


def test_the_summary_counts_what_there_is(settings: Settings) -> None:
    resources, plans = _plans(settings)
    listed = opening.summary(settings, resources, plans, [ROW])
    assert listed["inputs"] == f"3 subjects, 5 runs, 100 volumes in {settings.bids_dir}"
    assert listed["to do"] == "4 runs, 1 failed"
    assert listed["field maps"] == "not corrected for distortion: 4"
    assert listed["atlas"] == "A424approx, embedded"
    assert listed["models"] == "randomtiny (random weights)"
    assert listed["machine"].startswith("2 processes of 1 thread on ")
    assert re.search(r"\(about \d+ MB of [\d.]+ [GM]B that are free\)", listed["output"])
    (settings.work_dir / "brainlm_bids").mkdir(parents=True)
    assert "an earlier call" in opening.summary(settings, resources, plans, [])["to do"]


def test_the_table_of_a_dry_run_is_read_by_machines(settings: Settings) -> None:
    _, plans = _plans(settings)
    head, *lines = [
        re.split(r" {2,}", line) for line in opening.table(settings, plans, [ROW]).splitlines()
    ]
    assert tuple(head) == opening.COLUMNS and {len(line) for line in lines} == {len(head)}
    rows = [dict(zip(head, line)) for line in lines]
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert rows[-1]["to_do"] == "failed" and rows[-1]["note"] == "too bad"
    assert {row["volumes"] for row in rows[:-1]} == {str(N_VOLUMES)}
    assert {row["tr_s"] for row in rows[:-1]} == {"2"}
    assert rows[0]["t1w"] == "sub-01_T1w.nii.gz"
    assert rows[0]["to_do"] == "series, model-randomtiny"
    # the T1w image is processed once, with the first run of its subject
    mb = [float(row["output_mb"]) for row in rows[:-1]]
    assert mb[0] == mb[2] == mb[1] + 7 == mb[3] + 7


@pytest.mark.parametrize("more", [{}, {"save_bold": True}])
def test_the_expected_steps_are_those_of_the_graph(settings: Settings, more: dict) -> None:
    chosen = replace(settings, **more)
    resources, plans = _plans(chosen)
    graph = participant_workflow(plans[:1], materialise(chosen, resources), chosen)
    (series,) = (names for stage, names in graph.nodes.items() if stage.name == "series")
    nodes = sorted(kind_of(name.rpartition(".")[2]) for name in series)
    assert nodes == sorted(series_nodes(plans[0], chosen))


def test_the_expected_time_is_that_of_the_measured_recordings() -> None:
    """docs/scaling.md: 374 s for 387 million values and 360 s of one recording with 111M.

    Of these, head motion took 150 s, and takes two fifths of that since.
    """
    from types import SimpleNamespace

    from brainlm_bids.app.expected import expect_run
    from brainlm_bids.app.sizes import RunSize
    from brainlm_bids.workflows.graph import Stage
    from brainlm_bids.workflows.plans import ModelPlan, RecordingPlan, StagePlan

    run = SimpleNamespace(
        timeseries=False, has_volumes=True, preprocessed=None, fieldmap=None, t1w=Path("t1w")
    )
    model = ModelPlan(Stage("x", "model"), "", False, "brainlm111M", "")
    stages = RecordingPlan(StagePlan(Stage("x", "series"), "", False), (model,))
    context = SimpleNamespace(distortion=SimpleNamespace(estimated=False))
    plan: Any = SimpleNamespace(run=run, stages=stages, context=context)
    given: Any = SimpleNamespace(strategy=None, save_bold=False)
    expected = expect_run(plan, given, RunSize(490, 387.2, 360.2), with_t1w=True)
    assert expected.wall(1, 1) == pytest.approx(374 - 0.6 * 150, rel=0.15)
    assert expected.output_mb == pytest.approx(20, rel=0.15)
    assert expected.work_mb == pytest.approx(850, rel=0.15)
    small = expect_run(plan, given, RunSize(240, 35.4, 480.0), with_t1w=True)
    assert small.wall(1, 1) == pytest.approx(210, rel=0.25)
    assert small.work_mb == pytest.approx(120, rel=0.15)


def test_a_complete_run_needs_nothing(settings: Settings) -> None:
    _, plans = _plans(settings)
    done = replace(plans[0].stages.series, complete=True)
    models = tuple(replace(model, complete=True) for model in plans[0].stages.models)
    plan = replace(plans[0], stages=replace(plans[0].stages, series=done, models=models))
    assert expect_runs([plan], settings)[plan.run.stem] == Expected()
    assert opening.table(settings, [plan], []).splitlines()[1].split()[1] == "complete"


def test_a_full_disk_is_told_at_once() -> None:
    assert too_full({"a": (10.0, 20.0), "b": (10.0, None)}) == []
    assert too_full({"OUT": (3000.0, 1000.0)}) == [
        "OUT: about 3.0 GB are needed, and 1.0 GB are free"
    ]


@pytest.fixture(params=[80, 40])
def columns(request: pytest.FixtureRequest) -> Iterator[int]:
    yield request.param


def test_the_summary_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with terminal(columns) as screen:
        monkeypatch.setattr("sys.stderr", screen.stream)
        monkeypatch.setenv("COLUMNS", str(columns))
        opening.tell({"inputs": "12 subjects, 24 sessions, " * 5, "models": "", "x": "y"})
        lines = screen.lines()
    assert all(len(line) < columns for line in lines) and len(lines) > 3
    assert not any("models" in line for line in lines)
    assert not any(line.startswith("sessions") for line in lines)


def test_elsewhere_it_is_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    opening.tell({"inputs": "12 subjects, 24 sessions, " * 10, "atlas": "A424"})
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 2 and "\x1b" not in said.err
