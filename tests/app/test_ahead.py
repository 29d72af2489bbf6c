"""The steps that are counted before their graphs are built are as many as these have."""

from pathlib import Path
from typing import Any

import pytest

from brainlm_bids.app import ahead
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.settings import Settings
from brainlm_bids.workflows import group
from brainlm_bids.workflows.audit import AuditPlan
from brainlm_bids.workflows.nodes import Inputs


def _settings(folder: Path, **values: Any) -> Settings:
    return Settings(folder, folder, folder, **values)


@pytest.mark.parametrize("n", [2, 64, 65, 300])
def test_statistics(n: int, tmp_path: Path) -> None:
    settings, naming = _settings(tmp_path), Naming(str(tmp_path), "group", "S", "A", "cohort")

    class Recording:
        pass

    recordings: Any = [Recording() for _ in range(n)]
    for one in recordings:
        one.naming = naming
    graph = group.statistics_workflow(recordings, naming, {}, "key", settings)
    expected = [key for key in ahead.group_steps(settings, n, ["demo"]) if "statistics" in key]
    assert len(expected) == graph.n_nodes


@pytest.mark.parametrize("labels", [[], ["demo"], ["demo", "randomtiny"]])
def test_tables(labels: list[str], tmp_path: Path) -> None:
    settings, naming = _settings(tmp_path), Naming(str(tmp_path), "group", "S", "A", "cohort")
    rows = [{"stem": f"sub-{k}", "participant_id": f"sub-{k}"} for k in range(9)]
    plan = AuditPlan([], {}, {}, "untrained_cls_recording", "key", "key")
    models = [
        group.ModelSummary(label, [*range(9)], {}, {}, {}, "random:tiny", None, plan)
        for label in labels
    ]
    files = {name: str(tmp_path / name) for name in ("atlas", "template", "mask")}
    for name in files.values():
        Path(name).touch()
    inputs = Inputs(*files.values())
    arguments = (rows, rows, models, naming, tmp_path / "atlas", {}, inputs, settings)
    graph = group.tables_workflow(*arguments)
    expected = [
        key for key in ahead.group_steps(settings, 9, labels) if key.startswith(ahead.TABLES)
    ]
    assert len(expected) == graph.n_nodes


def test_a_recording_is_scaled_and_embedded(tmp_path: Path) -> None:
    steps = ahead.group_steps(_settings(tmp_path), 5, ["demo", "randomtiny"])
    assert sum(key.startswith(ahead.RECORDINGS) for key in steps) == 5 * 3
    pending = ahead.recording_steps("sub-01_task-rest", [], ["demo"])
    assert [step.title for step in pending.values()] == ["model demo"]
