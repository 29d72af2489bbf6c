"""Steps in words: every node has some, and about how long it takes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine

from brainlm_bids.settings import Settings
from brainlm_bids.workflows import costs
from brainlm_bids.workflows.costs import KINDS, Size, expected_seconds, kind_of
from brainlm_bids.workflows.graph import GraphBuilder, Stage

WORKFLOWS = Path(costs.__file__).parent
# prefixes of workflows, and arguments of interfaces: no steps
OTHERS = {"func", "anat", "mask", "to_template", "to_t1w"}


def _named_nodes() -> Iterator[str]:
    """Names of nodes as the modules of the graphs have them."""
    for path in WORKFLOWS.glob("*.py"):
        for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
                place = {"make_node": 1, "node_name": 0}.get(part.func.id)
                argument = None if place is None else part.args[place]
                if isinstance(argument, ast.JoinedStr):
                    argument = argument.values[0]
                if isinstance(argument, ast.Constant):
                    yield str(argument.value).rstrip("_")
            elif isinstance(part, ast.Dict) and path.name in ("functional.py", "series.py"):
                keys = [key for key in part.keys if isinstance(key, ast.Constant)]
                yield from (key.value for key in keys if isinstance(key.value, str))


def test_every_node_has_words() -> None:
    names = set(_named_nodes()) - OTHERS
    assert {"realign", "prepare", "decode", "write_states", "project", "audit"} <= names
    assert not [name for name in names if kind_of(name) not in KINDS]


def test_titles_name_the_run_and_the_step(tmp_path: Path) -> None:
    builder = GraphBuilder("graph", Settings(tmp_path, tmp_path, tmp_path))
    functional = engine.Workflow(name="func_x")
    functional.add_nodes([_node("realign"), _node("decompose")])
    run = "sub-02_ses-1_task-rest_run-01"
    builder.add(Stage(run, "series"), functional)
    builder.add(Stage(run, "model-brainlm111M"), _node("model_brainlm111M_x"))
    builder.add(Stage(run, "model-demo_scaling-cohort"), _node("model_demo_x"))
    builder.add(Stage("sub-02_T1w", "anatomy"), _node("prepare"))
    builder.add(Stage("group", "tables of demo"), _node("tables_demo"))
    builder.add(Stage("group", "decoding of demo"), _node("decode_0_x"), _node("decoding_demo"))
    steps = builder.build().steps({run: Size(100.0, 720.0)})
    said = "sub-02, session 1, rest, run 1"
    assert {name.rpartition(".")[2]: step.title for name, step in steps.items()} == {
        "realign": f"{said}: head motion",
        "decompose": f"{said}: independent components",
        "model_brainlm111M_x": f"{said}: model brainlm111M",
        "model_demo_x": f"{said}: model demo, scaled by the cohort",
        "prepare": "sub-02, T1w: bias field and brain",
        "tables_demo": "group: tables of demo",
        "decode_0_x": "group: decoding of demo, decoding",
        "decoding_demo": "group: decoding of demo, writing the decoding",
    }
    weights = {step.title: step.weight for step in steps.values()}
    assert weights[f"{said}: head motion"] == 1.0 + 15.0
    assert weights[f"{said}: model brainlm111M"] == 8.0 + 0.25 * 720


@pytest.mark.parametrize(("label", "rate"), [("brainlm650M", 2.2), ("random13M", 0.38), ("x", 0.0)])
def test_models_take_what_their_size_says(label: str, rate: float) -> None:
    assert expected_seconds("model_x_y", Size(1.0, 100.0), label) == 8.0 + 100 * rate


def _node(name: str) -> engine.Node:
    return engine.Node(IdentityInterface(fields=["x"]), name=name)
