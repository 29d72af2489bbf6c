"""A graph, and which of its nodes belong to which stage of which recording.

The graph's builder knows it when it adds a node. Whoever looks for a crash, or for what a recording
has cost, reads it from here and takes no name apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from brainlm_bids.bids.names import GROUP, in_words, parse
from brainlm_bids.progress import Step
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.costs import KINDS, USUAL, Size, expected_seconds, kind_of
from brainlm_bids.workflows.nodes import make_workflow

if TYPE_CHECKING:
    from nipype.pipeline.engine import Node, Workflow


class Stage(NamedTuple):
    """What is complete, or fails, as a whole: one stage of one recording.

    Parameters
    ----------
    recording : str
        Name of the recording; of an image that recordings share; or "group", for the cohort.
    name : str
        As records of completed stages name it: `series`, or `model-<label>`.
    """

    recording: str
    name: str


@dataclass(frozen=True)
class Graph:
    """A Nipype workflow with the names of its nodes.

    Parameters
    ----------
    workflow : nipype.pipeline.engine.Workflow
        The graph, ready to run.
    nodes : mapping of Stage to tuple of str
        Full names of the nodes of each stage, as crash files give them.
    needs : mapping of Stage to tuple of Stage
        The stages of this graph that a stage takes its inputs from.
    """

    workflow: Workflow
    nodes: Mapping[Stage, tuple[str, ...]]
    needs: Mapping[Stage, tuple[Stage, ...]]

    @property
    def n_nodes(self) -> int:
        """Number of nodes in the graph."""
        return sum(map(len, self.nodes.values()))

    def steps(self, sizes: Mapping[str, Size] | None = None) -> dict[str, Step]:
        """Full name of a node -> what progress calls it, and how long it may take.

        Parameters
        ----------
        sizes : mapping of str to Size
            Of recordings, by their names.
        """
        steps = {}
        for stage, names in self.nodes.items():
            size = (sizes or {}).get(stage.recording, USUAL)
            for name in names:
                steps[name] = _step(stage, name.rpartition(".")[2], size, alone=len(names) == 1)
        return steps

    def names(self, stages: Iterable[Stage]) -> set[str]:
        """Nodes of some stages; a stage that is not in this graph has none."""
        return {name for stage in stages for name in self.nodes.get(stage, ())}

    def names_upstream(self, stages: Iterable[Stage]) -> set[str]:
        """Nodes whose failure keeps some stages from being completed: theirs, and all before."""
        reached: set[Stage] = set()
        waiting = list(stages)
        while waiting:
            stage = waiting.pop()
            if stage not in reached:
                reached.add(stage)
                waiting += self.needs.get(stage, ())
        return self.names(reached)

    def names_downstream(self, stage: Stage) -> set[str]:
        """Nodes of a stage, and of all that take inputs from it."""
        reached, waiting = set(), [stage]
        while waiting:
            one = waiting.pop()
            reached.add(one)
            waiting += [k for k, needs in self.needs.items() if one in needs and k not in reached]
        return self.names(reached)


def _step(stage: Stage, node: str, size: Size, *, alone: bool) -> Step:
    kind, model = kind_of(node), parse(stage.name).get("model")
    words = KINDS[kind].words if kind in KINDS else node.replace("_", " ")
    if model and kind == "model":
        kind = words = f"model {model}"
        if "scaling" in parse(stage.name).entities:
            words += ", scaled by the cohort"
    elif stage.recording == GROUP:
        words = stage.name if alone else f"{stage.name}, {words}"
    weight = expected_seconds(node, size, model)
    return Step(f"{in_words(stage.recording)}: {words}", kind, weight)


class GraphBuilder:
    """Makes a graph stage by stage."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.workflow = make_workflow(name)
        self.workflow.base_dir = str(settings.work_dir)
        self._parts: dict[Stage, list[Node | Workflow]] = {}
        self._needs: dict[Stage, tuple[Stage, ...]] = {}

    def __contains__(self, stage: Stage) -> bool:
        return stage in self._parts

    def add(self, stage: Stage, *parts: Node | Workflow, needs: Iterable[Stage] = ()) -> None:
        """Add nodes, or workflows of several nodes, to a stage; none: those of `needs` make it."""
        if parts:
            self.workflow.add_nodes(list(parts))
        self._parts.setdefault(stage, []).extend(parts)
        known = self._needs.get(stage, ())
        self._needs[stage] = tuple(dict.fromkeys((*known, *needs)))

    def connect(self, source: Node | Workflow, target: Node, *pairs: tuple[str, str]) -> None:
        """Feed outputs of a node into inputs of another: pairs of their names."""
        self.workflow.connect([(source, target, list(pairs))])

    def build(self) -> Graph:
        """The graph; nothing can be added to it afterwards without being nameless."""
        nodes = {
            stage: tuple(name for part in parts for name in self._names(part))
            for stage, parts in self._parts.items()
        }
        return Graph(self.workflow, nodes, self._needs)

    def _names(self, part: Node | Workflow) -> list[str]:
        prefix = f"{self.workflow.name}.{part.name}"
        inner = part.list_node_names() if hasattr(part, "list_node_names") else None
        return [prefix] if inner is None else [f"{prefix}.{name}" for name in inner]


def merge(
    graph: GraphBuilder, stage: Stage, nodes: Sequence[Node], output: str, to: Node, field: str
) -> Node:
    """Give an output of several nodes to another node as a list.

    Parameters
    ----------
    graph : GraphBuilder
        That the nodes are in.
    stage : Stage
        Of the merge.
    nodes : sequence of Node
        In the order of the list.
    output, field : str
        Of the nodes, and of the node that gets the list.
    to : Node
        Which gets it.

    Returns
    -------
    Node
        Whose `out` is the list.
    """
    from nipype.interfaces.utility import Merge
    from nipype.pipeline import engine

    name = f"merge_{field}_{to.name}"
    joint = engine.Node(Merge(len(nodes)), name=name, run_without_submitting=True)
    graph.add(stage, joint)
    for number, node in enumerate(nodes, start=1):
        graph.connect(node, joint, (output, f"in{number}"))
    graph.connect(joint, to, ("out", field))
    return joint
