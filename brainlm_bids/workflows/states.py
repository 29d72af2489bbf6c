"""The part of the group level's last graph that decodes states.

features of the blocks of each recording ─► decode (a node per source) ─► write
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from brainlm_bids.bids.recordings import Recording
from brainlm_bids.interfaces.cohort.states import DecodeStates, StateFeatures, WriteStates
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.embedding import embedded_together, model_memory
from brainlm_bids.workflows.graph import GraphBuilder, Stage, merge
from brainlm_bids.workflows.nodes import make_node, node_name

if TYPE_CHECKING:
    from nipype.pipeline.engine import Node


@dataclass(frozen=True)
class StateRecording:
    """The blocks of one recording.

    Parameters
    ----------
    recording : Recording
        Of the cohort.
    stretches : tuple of (int, int)
        First volume of each block, and the first after its last.
    times : tuple of (float, float)
        The same in s from the first stored volume.
    """

    recording: Recording
    stretches: tuple[tuple[int, int], ...]
    times: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class StatesPlan:
    """The decoding of the states of one model.

    Parameters
    ----------
    column : str
        Of the tables of events, or task.
    recordings : tuple of StateRecording
        With their blocks, in order.
    rows : tuple of int
        The blocks that take part, counted over all recordings.
    blocks : tuple of dict
        What the tables tell of each.
    values : tuple of float
        Index of the state of each.
    classes : tuple of str
        The states.
    groups : tuple of str
        What is left out of the training as a whole, of each.
    sources : tuple of str
        Names of what states are decoded from.
    sidecar : dict
        What the sidecars report.
    configuration : str
        Hash of what the results depend on.
    """

    column: str
    recordings: tuple[StateRecording, ...]
    rows: tuple[int, ...]
    blocks: tuple[dict[str, Any], ...]
    values: tuple[float, ...]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    sidecar: dict[str, Any] = field(default_factory=dict)
    configuration: str = ""

    def under(self, configuration: str) -> StatesPlan:
        """The plan with its hash."""
        return dataclasses.replace(self, configuration=configuration)


def add_states(
    graph: GraphBuilder,
    plan: StatesPlan,
    label: str,
    source: str,
    stage: Stage,
    shared: dict[str, Any],
    settings: Settings,
) -> None:
    """Add the nodes of one model.

    Parameters
    ----------
    graph : GraphBuilder
        The graph of the cohort's tables.
    plan : StatesPlan
        What is decoded.
    label, source : str
        Of the model: in names, and where it is loaded from.
    stage : Stage
        Of these nodes.
    shared : dict
        Inputs of every writer of group files.
    settings : Settings
        Of the call.
    """
    features = [
        _features(plan.recordings[part], part.start, shared, label, source, settings)
        for part in embedded_together(len(plan.recordings))
    ]
    graph.add(stage, *features)
    decoders = []
    # tasks differ between recordings, states within
    shuffled = "participant_id" if plan.sidecar.get("HaemodynamicDelay") is None else "recording"
    for name in plan.sources:
        interface = DecodeStates(
            source=name,
            rows=list(plan.rows),
            values=list(plan.values),
            classes=list(plan.classes),
            groups=list(plan.groups),
            runs=[str(block[shuffled]) for block in plan.blocks],
            permutations=settings.permutations,
            seed=settings.random_seed,
        )
        node = make_node(interface, node_name(f"states_{name}", label), settings, memory=2.0)
        graph.add(stage, node)
        decoders.append(node)
    interface = WriteStates(
        label=label,
        rows=list(plan.rows),
        blocks=list(plan.blocks),
        values=list(plan.values),
        classes=list(plan.classes),
        column=plan.column,
        configuration=plan.configuration,
        **{**shared, "sidecar": {**shared["sidecar"], **plan.sidecar}},
    )
    name = node_name("write_states", label)
    write = make_node(interface, name, settings, memory=0.5, always=True)
    graph.add(stage, write)
    merge(graph, stage, decoders, "decoded", write, "decoded")
    blocks = merge(graph, stage, features, "indices", write, "indices")
    for node in decoders:
        graph.connect(blocks, node, ("out", "indices"))


def _features(
    recordings: Sequence[StateRecording],
    start: int,
    shared: dict[str, Any],
    label: str,
    source: str,
    settings: Settings,
) -> Node:
    """The features of the blocks of some recordings, the first of which is number `start`."""
    interface = StateFeatures(
        naming=shared["naming"],
        stems=[one.recording.stem for one in recordings],
        stretches=[[list(stretch) for stretch in one.stretches] for one in recordings],
        times=[[list(times) for times in one.times] for one in recordings],
        model_tr=settings.model_tr,
        source=source,
        kinds=list(settings.readouts),
        input_gain=settings.input_gain,
        seed=settings.random_seed,
        precision=settings.precision,
        device=settings.device,
    )
    name = node_name(f"blocks_{start:06d}", label)
    return make_node(interface, name, settings, memory=model_memory(label))
