"""The names that a graph gives for its stages are those that Nipype uses when it runs."""

from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine

from brainlm_bids.app.status import read_crashes, used_resources
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.graph import Graph, GraphBuilder, Stage

ANATOMY, SERIES, MODEL = (
    Stage("sub-1_T1w", "anatomy"),
    Stage("sub-1", "series"),
    Stage("sub-1", "m"),
)
OTHER = Stage("sub-10", "series")


def node(name: str) -> Any:
    return engine.Node(IdentityInterface(fields=["x"]), name=name)


def graph(folder: Path) -> Graph:
    """Two recordings that share an image; nodes are added to a part after it was."""
    builder = GraphBuilder("graph", Settings(folder, folder, folder))
    anatomy = engine.Workflow(name="anat")
    anatomy.add_nodes([node("prepare")])
    builder.add(ANATOMY, anatomy)
    for stage, name in ((SERIES, "func_1"), (OTHER, "func_10")):
        part = engine.Workflow(name=name)
        part.add_nodes([node("first")])
        builder.add(stage, part, needs=[ANATOMY])
        last = node("last")
        part.connect([(part.get_node("first"), last, [("x", "x")])])
        builder.connect(anatomy, part, ("prepare.x", "first.x"))
    model = node("model")
    builder.add(MODEL, model, needs=[SERIES])
    builder.connect(builder.workflow.get_node("func_1"), model, ("last.x", "x"))
    return builder.build()


def test_every_node_belongs_to_one_stage(tmp_path: Path) -> None:
    made = graph(tmp_path)
    names = [name for own in made.nodes.values() for name in own]
    assert sorted(names) == sorted(n.fullname for n in made.workflow._create_flat_graph().nodes())
    assert made.n_nodes == len(names) == len(set(names))


def test_a_stage_fails_with_what_it_needs_and_with_nothing_else(tmp_path: Path) -> None:
    made = graph(tmp_path)
    assert made.names([MODEL, Stage("sub-2", "series")]) == {"graph.model"}
    series = {"graph.func_1.first", "graph.func_1.last"}
    assert made.names_upstream([MODEL]) == {"graph.model", *series, "graph.anat.prepare"}

    def crash(stage: Stage, failed: str) -> bool:
        (tmp_path / "crash-1.txt").write_text(f"Node: {failed}\n\nValueError: bad\n")
        return read_crashes(tmp_path, made.names_upstream([stage])) is not None

    assert crash(MODEL, "graph.anat.prepare") and crash(OTHER, "graph.anat.prepare")
    assert crash(MODEL, "graph.func_1.first") and not crash(OTHER, "graph.func_1.first")
    # a part of a name is another recording's
    assert crash(OTHER, "graph.func_10.last") and not crash(SERIES, "graph.func_10.last")


def test_resources_are_those_of_the_nodes(tmp_path: Path) -> None:
    made = graph(tmp_path)
    for number, flat in enumerate(made.workflow._create_flat_graph().nodes(), start=1):
        flat.base_dir = made.workflow.base_dir
        folder = Path(flat.output_dir())
        folder.mkdir(parents=True)
        text = f'{{"seconds": {number}, "peak_memory_mb": {10 * number}}}'
        (folder / "resources.json").write_text(text)
    every = made.names(made.nodes)
    assert used_resources(tmp_path, every) == (sum(range(1, 7)), 60)
    assert used_resources(tmp_path, []) == (None, None)
