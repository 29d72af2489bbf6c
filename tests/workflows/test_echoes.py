"""Several echoes in the graph: another first node, and numbers that reach the sidecars."""

import json
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from brainlm_bids.app.planning import make_plan
from brainlm_bids.app.resources import find_resources, materialise
from brainlm_bids.bids import inputs
from brainlm_bids.bids.context import RunContext, from_plain
from brainlm_bids.interfaces.echoes import RealignEchoes
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.participant import participant_workflow


def _dataset(root: Path, times: tuple[float, ...]) -> Settings:
    func = root / "sub-01" / "func"
    func.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (root / "task-rest_bold.json").write_text('{"RepetitionTime": 2.0, "TaskName": "rest"}')
    for echo, time in enumerate(times, 1):
        image = nb.Nifti1Image(np.zeros((10, 10, 10, 30), np.uint8), np.diag([9.0] * 3 + [1]))
        image.to_filename(func / f"sub-01_task-rest_echo-{echo}_bold.nii.gz")
        sidecar = func / f"sub-01_task-rest_echo-{echo}_bold.json"
        sidecar.write_text(json.dumps({"EchoTime": time}))
    values: dict[str, Any] = {"model": ("none",), "offline": True, "atlas": "A424approx"}
    values["template"] = "MNI152NLin2009aSym"
    return Settings(root, root.parent / "out", root.parent / "work", **values)


def _plan(settings: Settings) -> Any:
    (run,) = inputs.find_runs(settings)
    return make_plan(settings, run, find_resources(settings))


def test_the_first_node_combines_the_echoes(tmp_path: Path) -> None:
    settings = _dataset(tmp_path / "bids", (0.014, 0.03, 0.046))
    plan = _plan(settings)
    assert plan.context.echo_times == (0.014, 0.03, 0.046)
    assert [uri.rpartition("/")[2] for uri in plan.context.sources] == [
        f"sub-01_task-rest_echo-{echo}_bold.nii.gz" for echo in (1, 2, 3)
    ]
    resources = materialise(settings, find_resources(settings))
    workflow = participant_workflow([plan], resources, settings).workflow
    functional = workflow.get_node("func_sub_01_task_rest")
    realign, write = functional.get_node("realign"), functional.get_node("write")
    assert isinstance(realign.interface, RealignEchoes)
    assert [Path(path).name for path in realign.inputs.echoes][2].startswith("sub-01_task-rest_e")
    assert realign.inputs.echo_times == [0.014, 0.03, 0.046]
    assert ("combination", "combination") in functional._graph[realign][write]["connect"]
    context = from_plain(RunContext, write.inputs.context)
    assert context.echo_times == (0.014, 0.03, 0.046)
    assert context.naming.stem == "sub-01_task-rest"


def test_another_echo_time_is_another_configuration(tmp_path: Path) -> None:
    plans = [_plan(_dataset(tmp_path / "bids", times)) for times in ((0.014, 0.03), (0.014, 0.031))]
    assert plans[0].stages.series.configuration != plans[1].stages.series.configuration
