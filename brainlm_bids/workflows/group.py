"""The graphs of the group level, three in a row, since each is planned from the last one's results.

statistics: collect (some recordings each) ─► pool
recordings: scale ─► a node per model (and the control's embedding)
tables:     connectivity ─► networks;  tables ─► decode (target × features) ─► write_decoding
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainlm_bids.bids.derivatives import Recording
from brainlm_bids.bids.names import GROUP
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.variables import Target
from brainlm_bids.interfaces import group
from brainlm_bids.interfaces.cohort.decoding import FEATURES, Decode, WriteDecoding
from brainlm_bids.interfaces.cohort.figures import DrawCohort
from brainlm_bids.interfaces.cohort.networks import Connectivity, GroupNetworks
from brainlm_bids.interfaces.cohort.tables import GroupTables
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.embedding import MODEL_MEMORY, model_node
from brainlm_bids.workflows.graph import Graph, GraphBuilder, Stage
from brainlm_bids.workflows.nodes import Inputs, make_node, node_name
from brainlm_bids.workflows.plans import CohortPlan, ModelPlan

# Fixed, so that the graph is the same whatever the number of processes; 64 recordings of 490
# volumes are 53 MB.
RECORDINGS_TOGETHER = 64
STATISTICS, RECORDINGS, TABLES = (
    f"brainlm_bids_cohort_{name}" for name in ("statistics", "recordings", "tables")
)
POOLED, FIGURES, CONNECTIVITY = (
    Stage(GROUP, name) for name in ("statistics", "figures", "connectivity")
)

if TYPE_CHECKING:
    from nipype.pipeline.engine import Node


@dataclass(frozen=True)
class ScalingSource:
    """The statistics that scale the cohort's series, and how sidecars describe them."""

    path: Path
    description: str


def statistics_workflow(
    recordings: Sequence[Recording],
    naming: Naming,
    sidecar: Mapping[str, Any],
    configuration: str,
    settings: Settings,
) -> Graph:
    """Median and interquartile range over the cohort; `sidecar` goes into that of the table."""
    from nipype.interfaces.utility import Merge
    from nipype.pipeline import engine

    graph = GraphBuilder(STATISTICS, settings)
    nodes = []
    for start in range(0, len(recordings), RECORDINGS_TOGETHER):
        part = recordings[start : start + RECORDINGS_TOGETHER]
        interface = group.CollectSeries(
            namings=[recording.naming for recording in part],
            model_tr=settings.model_tr,
            first=settings.scaling_volumes,
        )
        name = f"collect_{start:06d}"
        nodes.append(make_node(interface, name, settings, memory=0.5, always=True))
    interface = group.PoolStatistics(
        naming=naming, sidecar=dict(sidecar), configuration=configuration
    )
    pool = make_node(interface, "pool", settings, memory=1.5, always=True)
    graph.add(POOLED, *nodes, pool)
    for output, target in (("store", "stores"), ("report", "reports")):
        merge = engine.Node(Merge(len(nodes)), name=f"merge_{target}", run_without_submitting=True)
        graph.add(POOLED, merge)
        for number, node in enumerate(nodes, start=1):
            graph.connect(node, merge, (output, f"in{number}"))
        graph.connect(merge, pool, ("out", target))
    return graph.build()


def recordings_workflow(
    plans: Sequence[CohortPlan], statistics: ScalingSource, inputs: Inputs, settings: Settings
) -> Graph:
    """Scaling and models of some recordings; they do not depend on one another."""
    graph = GraphBuilder(RECORDINGS, settings)
    for plan in plans:
        series, scale = plan.stages.series, None
        if not series.complete:
            interface = group.ScaleToCohort(
                naming=plan.context.naming,
                statistics=str(statistics.path),
                description=statistics.description,
                model_tr=settings.model_tr,
                configuration=series.configuration,
            )
            name = node_name("scale", plan.stages.recording)
            scale = make_node(interface, name, settings, memory=0.5, always=True)
            graph.add(series.stage, scale)
        for stage, node in _model_nodes(plan, inputs, settings).items():
            if scale is None:
                node.inputs.robust_tsv = str(plan.context.naming.path("cohort_robust"))
                graph.add(stage, node)
                continue
            graph.add(stage, node, needs=[series.stage])
            graph.connect(scale, node, ("robust_tsv", "robust_tsv"))
    return graph.build()


def _model_nodes(plan: CohortPlan, inputs: Inputs, settings: Settings) -> dict[Stage, Node]:
    nodes = {
        model.stage: model_node(model, plan.context, inputs, settings)
        for model in plan.stages.models
        if not model.complete
    }
    controls = {
        control.stage: _control_node(control, plan.context.naming, settings)
        for control in plan.stages.controls
        if not control.complete
    }
    return nodes | controls


def _control_node(control: ModelPlan, naming: Naming, settings: Settings) -> Node:
    interface = group.EmbedUntrained(
        naming=naming,
        source=control.source,
        label=control.label,
        input_gain=settings.input_gain,
        seed=settings.random_seed,
        pooling=settings.pooling,
        window_stride=settings.window_stride,
        token_orders=settings.token_orders,
        precision=settings.precision,
        device=settings.device,
        configuration=control.configuration,
    )
    name = node_name(f"untrained_{control.label}", control.stage.recording)
    return make_node(interface, name, settings, memory=MODEL_MEMORY, always=True)


@dataclass(frozen=True)
class DecodingPlan:
    """Targets of one model, and the confounds of their units, a row for each.

    Recordings are numbered as those that the model embedded.
    """

    targets: tuple[Target, ...]
    confounds: dict[str, list[list[float]]]
    configuration: str


@dataclass(frozen=True)
class ModelSummary:
    """What the tables of one model are made from.

    Parameters
    ----------
    label : str
        Of the model, in the names of the tables.
    rows : list of int
        The cohort's recordings that the model embedded.
    variables : dict of str to list
        A value per row, for the maps.
    sidecar : dict
        What the sidecars of its tables add to those of the cohort.
    untrained : bool
        Whether the control with random weights was embedded, too.
    decoding : DecodingPlan or None
        None where nothing is to be decoded.
    """

    label: str
    rows: list[int]
    variables: dict[str, list[str | None]]
    sidecar: dict[str, Any]
    untrained: bool
    decoding: DecodingPlan | None

    def stage(self, part: str) -> Stage:
        """The stage "tables", "networks" or "decoding" of this model."""
        return Stage(GROUP, f"{part} of {self.label}")


def tables_workflow(
    recordings: Sequence[dict[str, Any]],
    everyone: Sequence[dict[str, Any]],
    models: Sequence[ModelSummary],
    naming: Naming,
    statistics: Path,
    sidecar: dict[str, Any],
    inputs: Inputs,
    settings: Settings,
) -> Graph:
    """Tables, networks, decoding and figures of the cohort."""
    graph = GraphBuilder(TABLES, settings)
    shared = {"naming": naming, "recordings": list(recordings), "sidecar": sidecar}
    draw = DrawCohort(everyone=list(everyone), statistics=str(statistics), **shared)
    graph.add(FIGURES, make_node(draw, "draw", settings, memory=0.5, always=True))
    if not models:
        return graph.build()
    interface = Connectivity(seed=settings.random_seed, **shared)
    connectivity = make_node(interface, "connectivity", settings, memory=1.0, always=True)
    graph.add(CONNECTIVITY, connectivity)
    for model in models:
        chosen = {
            **shared,
            "recordings": [recordings[row] for row in model.rows],
            "sidecar": {**sidecar, **model.sidecar},
        }
        writer = GroupTables(
            label=model.label,
            variables=model.variables,
            untrained=model.untrained,
            seed=settings.random_seed,
            **chosen,
        )
        name = node_name("tables", model.label)
        table = make_node(writer, name, settings, memory=1.0, always=True)
        graph.add(model.stage("tables"), table)
        networks = GroupNetworks(label=model.label, atlas=inputs.atlas, rows=model.rows, **chosen)
        name = node_name("networks", model.label)
        node = make_node(networks, name, settings, memory=1.0, always=True)
        graph.add(model.stage("networks"), node, needs=[CONNECTIVITY])
        graph.connect(connectivity, node, ("networks", "series_networks"))
        if model.decoding is not None:
            _add_decoding(graph, model, model.decoding, chosen, table, connectivity, settings)
    return graph.build()


def _add_decoding(
    graph: GraphBuilder,
    model: ModelSummary,
    plan: DecodingPlan,
    chosen: dict[str, Any],
    table: Node,
    connectivity: Node,
    settings: Settings,
) -> None:
    from nipype.interfaces.utility import Merge
    from nipype.pipeline import engine

    targets = [_plain_target(target) for target in plan.targets]
    interface = WriteDecoding(
        label=model.label, targets=targets, configuration=plan.configuration, **chosen
    )
    name, stage = node_name("decoding", model.label), model.stage("decoding")
    write = make_node(interface, name, settings, memory=0.5, always=True)
    graph.add(stage, write)
    if not targets:
        write.inputs.decoded = []
        return
    merge = engine.Node(
        Merge(len(targets) * len(FEATURES)),
        name=node_name("merge", model.label),
        run_without_submitting=True,
    )
    graph.add(stage, merge, needs=[CONNECTIVITY, model.stage("tables")])
    number = 0
    for place, target in enumerate(targets):
        confounds = plan.confounds[target["name"]]
        for features in FEATURES:
            from_table = features != "connectivity"
            units = target["units"]
            if not from_table:
                units = [[model.rows[k] for k in unit] for unit in units]
            interface = Decode(
                name=features,
                units=units,
                target=target["name"],
                values=target["values"],
                classes=target["classes"],
                subjects=[chosen["recordings"][k[0]]["participant_id"] for k in target["units"]],
                confounds=confounds,
                permutations=settings.permutations,
                seed=settings.random_seed,
            )
            # the number, since two columns may become the same name in a graph
            name = node_name(f"decode_{place}_{features}", model.label)
            node = make_node(interface, name, settings, memory=2.0)
            graph.add(stage, node)
            origin, output = (table, features) if from_table else (connectivity, "features")
            graph.connect(origin, node, (output, "features"))
            number += 1
            graph.connect(node, merge, ("decoded", f"in{number}"))
    graph.connect(merge, write, ("out", "decoded"))


def _plain_target(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "unit": target.unit,
        "units": [[*unit] for unit in target.units],
        "values": target.unit_values.tolist(),
        "classes": [*target.classes],
    }
