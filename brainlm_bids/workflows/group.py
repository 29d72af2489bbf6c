"""The graphs of the group level, three in a row, since each is planned by what the last one found.

statistics: collect (some recordings each) ─► pool
recordings: scale ─► a node per model (and the control's embedding)
tables:     connectivity ─► networks;  tables ─► decode (target × features) ─► write_decoding
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlm_bids.bids.derivatives import Recording
from brainlm_bids.bids.names import GROUP
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.variables import Target
from brainlm_bids.interfaces import cohort, group
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.embedding import MODEL_MEMORY, model_node
from brainlm_bids.workflows.graph import Graph, GraphBuilder, Stage
from brainlm_bids.workflows.nodes import Inputs, make_node, node_name
from brainlm_bids.workflows.participant import ModelTask

# Fixed, so that the graph is the same whatever the number of processes; 64 recordings of 490
# volumes are 53 MB.
RECORDINGS_TOGETHER = 64
STATISTICS, RECORDINGS, TABLES = (
    f"brainlm_bids_cohort_{name}" for name in ("statistics", "recordings", "tables")
)
SCALED = "robustcohort"
POOLED, FIGURES, CONNECTIVITY = (
    Stage(GROUP, name) for name in ("statistics", "figures", "connectivity")
)


def names_of(naming: Naming) -> dict[str, str]:
    """The plain values of a `Naming`, as nodes take them."""
    return {
        "output_dir": naming.output_dir,
        "stem": naming.stem,
        "space": naming.space,
        "atlas": naming.atlas,
    }


def statistics_workflow(
    recordings: Sequence[Recording],
    naming: Naming,
    said: Mapping[str, Any],
    configuration: str,
    settings: Settings,
) -> Graph:
    """Median and interquartile range over the cohort; `said` goes into the sidecar."""
    graph = GraphBuilder(STATISTICS, settings)
    nodes = []
    for start in range(0, len(recordings), RECORDINGS_TOGETHER):
        some = recordings[start : start + RECORDINGS_TOGETHER]
        interface = group.CollectSeries(
            namings=[names_of(one.naming) for one in some],
            model_tr=settings.model_tr,
            first=settings.scaling_volumes,
        )
        nodes.append(
            make_node(interface, f"collect_{start:06d}", settings, memory=0.5, always=True)
        )
    pool = make_node(
        group.PoolStatistics(naming=names_of(naming), said=dict(said), configuration=configuration),
        "pool",
        settings,
        memory=1.5,
        always=True,
    )
    from nipype.interfaces.utility import Merge
    from nipype.pipeline import engine

    graph.add(POOLED, *nodes, pool)
    for output, target in (("store", "stores"), ("report", "reports")):
        merge = engine.Node(Merge(len(nodes)), name=f"merge_{target}", run_without_submitting=True)
        graph.add(POOLED, merge)
        for number, node in enumerate(nodes, start=1):
            graph.connect(node, merge, (output, f"in{number}"))
        graph.connect(merge, pool, ("out", target))
    return graph.build()


@dataclass(frozen=True)
class CohortPlan:
    """What is to be done for one recording under the cohort's statistics."""

    recording: Recording
    configuration: str
    context: dict[str, Any]
    scale: bool
    models: tuple[ModelTask, ...]
    controls: tuple[ModelTask, ...]

    @property
    def stage(self) -> Stage:
        return Stage(self.recording.stem, SCALED)

    def model_stage(self, task: ModelTask) -> Stage:
        return Stage(self.recording.stem, task.label)

    def control_stage(self, task: ModelTask) -> Stage:
        return Stage(self.recording.stem, f"{task.label}untrained")


def recordings_workflow(
    plans: Sequence[CohortPlan], statistics: Path, said: str, inputs: Inputs, settings: Settings
) -> Graph:
    """Scaling and models of some recordings; they do not depend on one another."""
    graph = GraphBuilder(RECORDINGS, settings)
    for plan in plans:
        scale = None
        if plan.scale:
            interface = group.ScaleToCohort(
                naming=names_of(plan.recording.naming),
                statistics=str(statistics),
                said=said,
                model_tr=settings.model_tr,
                configuration=plan.configuration,
            )
            name = node_name("scale", plan.recording.stem)
            scale = make_node(interface, name, settings, memory=0.5, always=True)
            graph.add(plan.stage, scale)
        for stage, node in _model_nodes(plan, inputs, settings).items():
            if scale is None:
                node.inputs.robust_tsv = str(plan.recording.naming.path("cohort_robust"))
                graph.add(stage, node)
                continue
            graph.add(stage, node, needs=[plan.stage])
            graph.connect(scale, node, ("robust_tsv", "robust_tsv"))
    return graph.build()


def _model_nodes(plan: CohortPlan, inputs: Inputs, settings: Settings) -> dict[Stage, Any]:
    nodes = {
        plan.model_stage(task): model_node(
            node_name(f"model_{task.label}", plan.recording.stem),
            task.source,
            task.label,
            task.configuration,
            plan.context,
            inputs,
            settings,
        )
        for task in plan.models
    }
    for task in plan.controls:
        interface = group.EmbedUntrained(
            naming=names_of(plan.recording.naming),
            source=task.source,
            label=task.label,
            input_gain=settings.input_gain,
            seed=settings.random_seed,
            pooling=settings.pooling,
            window_stride=settings.window_stride,
            token_orders=settings.token_orders,
            precision=settings.precision,
            device=settings.device,
            configuration=task.configuration,
        )
        name = node_name(f"untrained_{task.label}", plan.recording.stem)
        node = make_node(interface, name, settings, memory=MODEL_MEMORY, always=True)
        nodes[plan.control_stage(task)] = node
    return nodes


@dataclass(frozen=True)
class DecodingPlan:
    """Targets of one model with the confounds of each, rows counted in the model's recordings."""

    targets: tuple[Target, ...]
    confounds: dict[str, list[list[float]]]
    configuration: str


@dataclass(frozen=True)
class ModelSummary:
    """What one model's tables are made of: rows into the cohort, their values for the maps."""

    label: str
    rows: list[int]
    variables: dict[str, list[str | None]]
    said: dict[str, Any]
    untrained: bool
    decoding: DecodingPlan | None

    def name(self, part: str) -> str:
        return node_name(part, self.label)

    def stage(self, part: str) -> Stage:
        """tables, networks or decoding of this model."""
        return Stage(GROUP, f"{part} of {self.label}")


def tables_workflow(
    recordings: Sequence[dict[str, Any]],
    everyone: Sequence[dict[str, Any]],
    models: Sequence[ModelSummary],
    naming: Naming,
    statistics: Path,
    said: dict[str, Any],
    inputs: Inputs,
    settings: Settings,
) -> Graph:
    """Tables, networks, decoding and figures of the cohort."""
    graph = GraphBuilder(TABLES, settings)
    shared = {"naming": names_of(naming), "recordings": list(recordings), "said": said}
    draw = cohort.DrawCohort(everyone=list(everyone), statistics=str(statistics), **shared)
    graph.add(FIGURES, make_node(draw, "draw", settings, memory=0.5, always=True))
    if not models:
        return graph.build()
    connectivity = make_node(
        cohort.Connectivity(seed=settings.random_seed, **shared),
        "connectivity",
        settings,
        memory=1.0,
        always=True,
    )
    graph.add(CONNECTIVITY, connectivity)
    for model in models:
        own = {
            **shared,
            "recordings": [recordings[row] for row in model.rows],
            "said": {**said, **model.said},
        }
        writer = cohort.GroupTables(
            label=model.label,
            variables=model.variables,
            untrained=model.untrained,
            seed=settings.random_seed,
            **own,
        )
        table = make_node(writer, model.name("tables"), settings, memory=1.0, always=True)
        networks = cohort.GroupNetworks(
            label=model.label, atlas=inputs.atlas, rows=model.rows, **own
        )
        node = make_node(networks, model.name("networks"), settings, memory=1.0, always=True)
        graph.add(model.stage("tables"), table)
        graph.add(model.stage("networks"), node, needs=[CONNECTIVITY])
        graph.connect(connectivity, node, ("networks", "series_networks"))
        if model.decoding is not None:
            _add_decoding(graph, model, model.decoding, own, table, connectivity, settings)
    return graph.build()


def _add_decoding(
    graph: GraphBuilder,
    model: ModelSummary,
    plan: DecodingPlan,
    own: dict[str, Any],
    table: Any,
    connectivity: Any,
    settings: Settings,
) -> None:
    from nipype.interfaces.utility import Merge
    from nipype.pipeline import engine

    targets = [
        {
            "name": t.name,
            "rows": t.rows.tolist(),
            "values": t.values.tolist(),
            "classes": [*t.classes],
        }
        for t in plan.targets
    ]
    write = make_node(
        cohort.WriteDecoding(
            label=model.label, targets=targets, configuration=plan.configuration, **own
        ),
        model.name("decoding"),
        settings,
        memory=0.5,
        always=True,
    )
    stage = model.stage("decoding")
    graph.add(stage, write)
    if not targets:
        write.inputs.decoded = []
        return
    merge = engine.Node(
        Merge(len(targets) * len(cohort.FEATURES)),
        name=model.name("merge"),
        run_without_submitting=True,
    )
    graph.add(stage, merge, needs=[CONNECTIVITY, model.stage("tables")])
    number = 0
    for place, target in enumerate(targets):
        for features in cohort.FEATURES:
            from_table = features != "connectivity"
            rows = target["rows"] if from_table else [model.rows[k] for k in target["rows"]]
            interface = cohort.Decode(
                name=features,
                rows=rows,
                target=target["name"],
                values=target["values"],
                classes=target["classes"],
                subjects=[own["recordings"][k]["participant_id"] for k in target["rows"]],
                confounds=plan.confounds[target["name"]],
                permutations=settings.permutations,
                seed=settings.random_seed,
            )
            # the number, since two columns may become the same name in a graph
            name = model.name(f"decode_{place}_{features}")
            node = make_node(interface, name, settings, memory=2.0)
            origin, output = (table, features) if from_table else (connectivity, "features")
            graph.add(stage, node)
            graph.connect(origin, node, (output, "features"))
            number += 1
            graph.connect(node, merge, ("decoded", f"in{number}"))
    graph.connect(merge, write, ("out", "decoded"))
