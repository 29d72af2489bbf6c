"""The node that looks for site, motion and reliability in a model's embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from brainlm_bids.interfaces.cohort.audit import Audit
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.graph import GraphBuilder, Stage
from brainlm_bids.workflows.nodes import make_node, node_name

if TYPE_CHECKING:
    from nipype.pipeline.engine import Node

# GB for a thousand recordings, which is as many as properties are decoded from
MEMORY = 2.0


@dataclass(frozen=True)
class AuditPlan:
    """What is looked for in the embeddings of one model.

    Parameters
    ----------
    properties : list of dict
        Of the recordings that the model embedded: name, values (None where unknown), levels.
    not_measured : dict of str to str
        Properties of which nothing can be said, and why.
    notes : dict of str to list of str
        What was assumed about the values of each.
    untrained : str
        The source of decodings that is the control's embedding; empty without one.
    configuration : str
        Hash of all that the tables depend on.
    embeddings : str
        Hash of what the embeddings depend on.
    """

    properties: list[dict[str, Any]]
    not_measured: dict[str, str]
    notes: dict[str, list[str]]
    untrained: str
    configuration: str
    embeddings: str


def add_audit(
    graph: GraphBuilder,
    plan: AuditPlan,
    stages: tuple[Stage, Stage, Stage],
    interface: dict[str, Any],
    sources: tuple[Node, Node, Node | None],
    settings: Settings,
) -> None:
    """Add the node to the graph of the tables.

    Parameters
    ----------
    graph : GraphBuilder
        Of the cohort's tables.
    plan : AuditPlan
        Of the model.
    stages : tuple of Stage
        Of the audit, of the connectivity, and of the model's tables.
    interface : dict
        Inputs that all writers of the model's tables have, its label, and the rows of the
        connectivity.
    sources : tuple of Node
        Where the features come from: the tables, the connectivity, and what is decoded from, if
        anything is.
    settings : Settings
        Of the call.
    """
    audit = Audit(
        properties=plan.properties,
        not_measured=plan.not_measured,
        notes=plan.notes,
        configuration=plan.configuration,
        seed=settings.random_seed,
        **interface,
    )
    name = node_name("audit", interface["label"])
    node = make_node(audit, name, settings, memory=MEMORY, always=True)
    own, *needs = stages
    graph.add(own, node, needs=needs)
    table, connectivity, gather = sources
    graph.connect(
        table, node, ("embedding", "embedding"), ("dimensions", "dimensions"), ("planes", "planes")
    )
    graph.connect(connectivity, node, ("features", "connectivity"))
    if plan.untrained and gather is not None:
        graph.connect(gather, node, (plan.untrained, "untrained"))
