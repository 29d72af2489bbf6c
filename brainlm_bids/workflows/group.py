"""The graphs of the group level, three in a row, since each is planned from the last one's results.

statistics: collect (some recordings each) ─► pool
recordings: scale ─► a node per model
tables:     connectivity ─► networks;  tables
            embed (some recordings each) ─► gather ─► decode (source × target) ─► write_decoding
            connectivity, tables, gather ─► audit
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainlm_bids.bids.names import GROUP
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.cohort.sources import CONNECTIVITY as CONNECTIVITY_SOURCE
from brainlm_bids.cohort.sources import LINEAR, Source, by_name
from brainlm_bids.cohort.variables import Target
from brainlm_bids.interfaces import group
from brainlm_bids.interfaces.cohort.decoding import Decode, WriteDecoding
from brainlm_bids.interfaces.cohort.figures import DrawCohort
from brainlm_bids.interfaces.cohort.networks import Connectivity, GroupNetworks
from brainlm_bids.interfaces.cohort.tables import GroupTables
from brainlm_bids.interfaces.cohort.tokens import EmbedForDecoding, GatherFeatures
from brainlm_bids.settings import Settings, configuration_hash
from brainlm_bids.workflows.audit import AuditPlan, add_audit
from brainlm_bids.workflows.embedding import embedded_together, model_memory, model_node
from brainlm_bids.workflows.graph import Graph, GraphBuilder, Stage, merge
from brainlm_bids.workflows.nodes import Inputs, make_node, node_name
from brainlm_bids.workflows.plans import CohortPlan
from brainlm_bids.workflows.states import StatesPlan, add_states

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

    from brainlm_bids.cohort.sites import Sites


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
    for output, field in (("store", "stores"), ("report", "reports")):
        merge(graph, POOLED, nodes, output, pool, field)
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
    return {
        model.stage: model_node(model, plan.context, inputs, settings)
        for model in plan.stages.models
        if not model.complete
    }


@dataclass(frozen=True)
class DecodingPlan:
    """The decoding of one model. Recordings are numbered as those that the model embedded.

    Parameters
    ----------
    targets : tuple of Target
        What is predicted.
    confounds : dict of str to list
        Name of a target to a row of confounds for each of its units.
    sites : dict of str to Sites
        Name of a target to the sites of its units.
    sources : tuple of Source
        What is decoded from.
    configuration : str
        Hash of everything that the tables depend on.
    embeddings : str
        Hash of what the embeddings depend on.
    """

    targets: tuple[Target, ...]
    confounds: dict[str, list[list[float]]]
    sites: dict[str, Sites]
    sources: tuple[Source, ...]
    configuration: str
    embeddings: str


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
    kinds : dict of str to str
        Whether they are numbers or categories.
    sidecar : dict
        What the sidecars of its tables add to those of the cohort.
    source : str
        Folder of the checkpoint, or random:<architecture>.
    decoding : DecodingPlan or None
        None where nothing is to be decoded.
    audit : AuditPlan or None
        None where it is complete.
    states : StatesPlan or None
        None where no states are to be decoded.
    """

    label: str
    rows: list[int]
    variables: dict[str, list[str | None]]
    kinds: dict[str, str]
    sidecar: dict[str, Any]
    source: str
    decoding: DecodingPlan | None
    audit: AuditPlan | None
    states: StatesPlan | None = None

    def stage(self, part: str) -> Stage:
        """The stage "tables", "networks", "decoding" or "audit" of this model."""
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
    interface = Connectivity(**shared)
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
            kinds=model.kinds,
            seed=settings.random_seed,
            **chosen,
        )
        name = node_name("tables", model.label)
        table = make_node(writer, name, settings, memory=1.0, always=True)
        graph.add(model.stage("tables"), table)
        networks = GroupNetworks(
            label=model.label,
            atlas=inputs.atlas,
            template=inputs.template,
            rows=model.rows,
            **chosen,
        )
        name = node_name("networks", model.label)
        node = make_node(networks, name, settings, memory=1.0, always=True)
        graph.add(model.stage("networks"), node, needs=[CONNECTIVITY])
        graph.connect(connectivity, node, ("networks", "series_networks"))
        gather = None
        if model.decoding is not None:
            gather = _add_decoding(graph, model, model.decoding, chosen, connectivity, settings)
        if model.audit is not None:
            _add_audit(graph, model, model.audit, chosen, (table, connectivity, gather), settings)
        if model.states is not None:
            stage = model.stage("states")
            add_states(graph, model.states, model.label, model.source, stage, chosen, settings)
    return graph.build()


def _add_audit(
    graph: GraphBuilder,
    model: ModelSummary,
    plan: AuditPlan,
    chosen: dict[str, Any],
    origins: tuple[Node, Node, Node | None],
    settings: Settings,
) -> None:
    """What else is in the embedding; origins: tables, connectivity, features if there are any."""
    table, connectivity, gather = origins
    stage = model.stage("audit")
    if plan.untrained and gather is None:
        control = [by_name(plan.untrained)]
        gather = _add_features(graph, model, stage, control, plan.embeddings, chosen, settings)
    add_audit(
        graph,
        plan,
        (stage, CONNECTIVITY, model.stage("tables")),
        {"label": model.label, "rows": model.rows, **chosen},
        (table, connectivity, gather),
        settings,
    )


def _add_decoding(
    graph: GraphBuilder,
    model: ModelSummary,
    plan: DecodingPlan,
    chosen: dict[str, Any],
    connectivity: Node,
    settings: Settings,
) -> Node | None:
    """Add the nodes; return that which gathers the features, if it has those of linear readouts."""
    targets = [_plain_target(target, plan.sites[target.name]) for target in plan.targets]
    interface = WriteDecoding(
        label=model.label, targets=targets, configuration=plan.configuration, **chosen
    )
    name, stage = node_name("decoding", model.label), model.stage("decoding")
    write = make_node(interface, name, settings, memory=0.5, always=True)
    graph.add(stage, write, needs=[CONNECTIVITY])
    if not targets:
        write.inputs.decoded = []
        return None
    key = plan.embeddings
    gather = _add_features(graph, model, stage, plan.sources, key, chosen, settings)
    nodes = []
    for place, source, together in _decoded_together(plan, targets):
        first = together[0]
        interface = Decode(
            source=source.name,
            units=first["units"],
            targets=[{key: one[key] for key in Decode.OF_TARGET} for one in together],
            subjects=[chosen["recordings"][k[0]]["participant_id"] for k in first["units"]],
            confounds=plan.confounds[first["name"]],
            **plan.sites[first["name"]].plain(),
            permutations=settings.permutations,
            seed=settings.random_seed,
        )
        # the number, since two columns may become the same name in a graph
        name = node_name(f"decode_{place}_{source.name}", model.label)
        node = make_node(interface, name, settings, memory=2.0)
        graph.add(stage, node)
        if source == CONNECTIVITY_SOURCE:
            interface.inputs.units = [[model.rows[k] for k in u] for u in first["units"]]
            graph.connect(connectivity, node, ("features", "features"))
        else:
            graph.connect(gather, node, (source.name, "features"))
        nodes.append(node)
    merge(graph, stage, nodes, "decoded", write, "decoded")
    return gather if any(source.kind == LINEAR for source in plan.sources) else None


def _decoded_together(
    plan: DecodingPlan, targets: Sequence[dict[str, Any]]
) -> Iterator[tuple[int, Source, list[dict[str, Any]]]]:
    """The place of the first target, a source, and targets that share what is done to its features.

    That takes most of the time of linear readouts: the targets' units, confounds and sites are the
    same. A probe is trained for each target, in a node of its own.
    """
    alike: dict[str, list[int]] = {}
    for place, target in enumerate(targets):
        name = target["name"]
        shared = {"units": target["units"], "confounds": plan.confounds[name]}
        key = configuration_hash(shared | {"sites": plan.sites[name].plain()})
        alike.setdefault(key, []).append(place)
    for source in plan.sources:
        groups = alike.values() if source.kind == LINEAR else [[k] for k in range(len(targets))]
        for places in groups:
            yield places[0], source, [targets[k] for k in places]


def _add_features(
    graph: GraphBuilder,
    model: ModelSummary,
    stage: Stage,
    sources: Sequence[Source],
    embeddings: str,
    chosen: dict[str, Any],
    settings: Settings,
) -> Node:
    """The node that has the features of all recordings, by the names of their sources.

    embeddings: hash of what they depend on.
    """
    stems = [one["stem"] for one in chosen["recordings"]]
    part_of = stage.name.partition(" ")[0]
    nodes = []
    for part in embedded_together(len(stems)):
        interface = EmbedForDecoding(
            naming=chosen["naming"],
            stems=stems[part],
            sources=[source.name for source in sources],
            model_tr=settings.model_tr,
            source=model.source,
            input_gain=settings.input_gain,
            seed=settings.random_seed,
            window_stride=settings.window_stride,
            token_orders=settings.token_orders,
            precision=settings.precision,
            device=settings.device,
            configuration=embeddings,
        )
        name = node_name(f"embed_{part_of}_{part.start:06d}", model.label)
        memory = model_memory(model.label)
        nodes.append(make_node(interface, name, settings, memory=memory))
    interface = GatherFeatures(
        naming=chosen["naming"],
        recordings=chosen["recordings"],
        configuration=embeddings,
    )
    name = node_name(f"gather_{part_of}", model.label)
    gather = make_node(interface, name, settings, memory=1.0)
    graph.add(stage, *nodes, gather)
    for output in ("pooled", "stored"):
        merge(graph, stage, nodes, output, gather, output)
    return gather


def _plain_target(target: Target, sites: Sites) -> dict[str, Any]:
    return {
        "name": target.name,
        "unit": target.unit,
        "units": [[*unit] for unit in target.units],
        "values": target.unit_values.tolist(),
        "classes": [*target.classes],
        "held_out": [*sites.held_out],
    }
