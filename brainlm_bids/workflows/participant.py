"""The participant graph: every run that is not complete, its anatomy, and the models that it needs.

Names in the graph are those of the source files, so that a crash file tells whose it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainlm_bids.bids.inputs import Run
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.anatomical import anatomical_workflow
from brainlm_bids.workflows.embedding import model_node
from brainlm_bids.workflows.functional import connect_geometry, functional_workflow
from brainlm_bids.workflows.graph import Graph, GraphBuilder, Stage
from brainlm_bids.workflows.nodes import Inputs, node_name
from brainlm_bids.workflows.series import series_workflow

WORKFLOW = "brainlm_bids"
SERIES, ANATOMY = "series", "anatomy"


@dataclass(frozen=True)
class ModelTask:
    """One model to be run: where it comes from, its label, the configuration's hash."""

    source: str
    label: str
    configuration: str


@dataclass(frozen=True)
class Plan:
    """What is to be done for one run."""

    run: Run
    naming: Naming
    configuration: str
    context: dict[str, Any]
    anatomical_context: dict[str, Any] | None
    series: bool  # whether the series must be computed
    models: tuple[ModelTask, ...] = field(default=())

    @property
    def stage(self) -> Stage:
        return Stage(self.naming.stem, SERIES)

    def model_stage(self, task: ModelTask) -> Stage:
        return Stage(self.naming.stem, task.label)


def participant_workflow(plans: Sequence[Plan], inputs: Inputs, settings: Settings) -> Graph:
    """The graph of all plans; a T1w image that several runs share is processed once."""
    graph = GraphBuilder(WORKFLOW, settings)
    anatomies: dict[Stage, Any] = {}
    for plan in plans:
        functional = _add_series(graph, plan, anatomies, inputs, settings) if plan.series else None
        _add_models(graph, plan, functional, inputs, settings)
    return graph.build()


def _add_series(
    graph: GraphBuilder,
    plan: Plan,
    anatomies: dict[Stage, Any],
    inputs: Inputs,
    settings: Settings,
) -> Any:
    functional = _functional(plan, inputs, settings)
    image = _add_anatomy(graph, plan, anatomies, inputs, settings)
    graph.add(plan.stage, functional, needs=() if image is None else (image,))
    if plan.run.is_raw:
        anatomical = None if image is None else anatomies[image]
        connect_geometry(graph.workflow, functional, anatomical, inputs, settings)
    return functional


def _functional(plan: Plan, inputs: Inputs, settings: Settings) -> Any:
    name, run = node_name("func", plan.naming.stem), plan.run
    if not run.has_volumes:
        return series_workflow(name, run, _gigabytes(run.source), plan.context, settings)
    size = _gigabytes(run.source)
    functional = functional_workflow(name, run, size, plan.context, inputs, settings)
    if not run.is_raw:
        draw = functional.get_node("draw")
        draw.inputs.fixed, draw.inputs.fixed_mask = inputs.template, inputs.template_mask
    return functional


def _add_anatomy(
    graph: GraphBuilder,
    plan: Plan,
    anatomies: dict[Stage, Any],
    inputs: Inputs,
    settings: Settings,
) -> Stage | None:
    """The stage of the run's T1w image, which the first of its runs adds; None without one."""
    t1w = plan.run.t1w
    if t1w is None or plan.anatomical_context is None:
        return None
    stage = Stage(parse(t1w.name).bare, ANATOMY)
    if stage not in anatomies:
        name = node_name("anat", stage.recording)
        anatomies[stage] = anatomical_workflow(
            name, str(t1w), plan.anatomical_context, inputs, settings
        )
        graph.add(stage, anatomies[stage])
    return stage


def _add_models(
    graph: GraphBuilder, plan: Plan, functional: Any, inputs: Inputs, settings: Settings
) -> None:
    for task in plan.models:
        node = model_node(
            node_name(f"model_{task.label}", plan.naming.stem),
            task.source,
            task.label,
            task.configuration,
            plan.context,
            inputs,
            settings,
        )
        if functional is None:
            node.inputs.robust_tsv = str(plan.naming.path("robust"))
            graph.add(plan.model_stage(task), node)
            continue
        graph.add(plan.model_stage(task), node, needs=[plan.stage])
        graph.connect(functional, node, ("write.robust_tsv", "robust_tsv"))


def _gigabytes(bold: Path) -> float:
    """Size of a run as float32, from its header."""
    import math

    import nibabel as nb

    if ".nii" not in bold.name:
        return bold.stat().st_size / 2**30
    return math.prod(nb.load(bold).shape) * 4 / 2**30  # type: ignore[attr-defined]
