"""The participant graph: every run that is not complete, its anatomy, and the models that it needs.

Names in the graph are those of the source files, so that a crash file shows which run it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from brainlm_bids.bids.names import parse
from brainlm_bids.image_files import open_image
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.anatomical import anatomical_workflow
from brainlm_bids.workflows.denoised import denoised_workflow
from brainlm_bids.workflows.embedding import model_node
from brainlm_bids.workflows.functional import connect_geometry, connect_lesion, functional_workflow
from brainlm_bids.workflows.graph import Graph, GraphBuilder, Stage
from brainlm_bids.workflows.nodes import Inputs, node_name
from brainlm_bids.workflows.plans import ANATOMY, RunPlan
from brainlm_bids.workflows.series import series_workflow

if TYPE_CHECKING:
    from nipype.pipeline.engine import Workflow

    from brainlm_bids.bids.runs import Run

WORKFLOW = "brainlm_bids"


def participant_workflow(plans: Sequence[RunPlan], inputs: Inputs, settings: Settings) -> Graph:
    """The graph of all plans; a T1w image that several runs share is processed once."""
    graph = GraphBuilder(WORKFLOW, settings)
    anatomies: dict[Stage, Workflow] = {}
    for plan in plans:
        functional = None
        if plan.stages.to_extract:
            functional = _add_series(graph, plan, anatomies, inputs, settings)
        if plan.stages.series.complete:  # models read the files
            functional = None
        _add_models(graph, plan, functional, inputs, settings)
    return graph.build()


def _add_series(
    graph: GraphBuilder,
    plan: RunPlan,
    anatomies: dict[Stage, Workflow],
    inputs: Inputs,
    settings: Settings,
) -> Workflow:
    if plan.stages.series.complete:  # and so are the volumes
        settings = replace(settings, save_bold=False)
    functional = _functional(plan, inputs, settings)
    image = _add_anatomy(graph, plan, anatomies, inputs, settings)
    first, *others = (one.stage for one in plan.stages.to_extract)
    graph.add(first, functional, needs=() if image is None else (image,))
    for stage in others:
        graph.add(stage, needs=(first,))
    if plan.run.is_raw:
        anatomical = None if image is None else anatomies[image]
        connect_geometry(graph.workflow, functional, anatomical, inputs, settings)
        if anatomical is not None and plan.run.lesions:
            connect_lesion(graph.workflow, functional, anatomical)
    return functional


def _functional(plan: RunPlan, inputs: Inputs, settings: Settings) -> Workflow:
    name, run = node_name("func", plan.stages.recording), plan.run
    if run.preprocessed is not None and run.preprocessed.producer.denoised:
        size = _gigabytes(run.source)
        denoised = denoised_workflow(name, run, size, plan.context, inputs, settings)
        return _on_template(denoised, run, inputs)
    if not run.has_volumes:
        return series_workflow(name, run, _gigabytes(run.source), plan.context, settings)
    size = _gigabytes(run.source)
    functional = functional_workflow(name, run, size, plan.context, inputs, settings)
    return functional if run.is_raw else _on_template(functional, run, inputs)


def _on_template(functional: Workflow, run: Run, inputs: Inputs) -> Workflow:
    """The graph of a run whose volumes, if it has any, are shown on the template."""
    if run.has_volumes:
        draw = functional.get_node("draw")
        draw.inputs.fixed, draw.inputs.fixed_mask = inputs.template, inputs.template_mask
    return functional


def _add_anatomy(
    graph: GraphBuilder,
    plan: RunPlan,
    anatomies: dict[Stage, Workflow],
    inputs: Inputs,
    settings: Settings,
) -> Stage | None:
    """The stage of the run's T1w image, which the first of its runs adds; None without one."""
    t1w = plan.run.t1w
    if t1w is None or plan.anatomy is None:
        return None
    stage = Stage(parse(t1w.name).bare, ANATOMY)
    if stage not in anatomies:
        name = node_name("anat", stage.recording)
        lesions = [str(path) for path in plan.run.lesions]
        anatomies[stage] = anatomical_workflow(
            name, str(t1w), lesions, plan.anatomy, inputs, settings
        )
        graph.add(stage, anatomies[stage])
    return stage


def _add_models(
    graph: GraphBuilder,
    plan: RunPlan,
    functional: Workflow | None,
    inputs: Inputs,
    settings: Settings,
) -> None:
    for model in plan.stages.models:
        if model.complete:
            continue
        node = model_node(model, plan.context, inputs, settings)
        if functional is None:
            node.inputs.robust_tsv = str(plan.context.naming.path("robust"))
            graph.add(model.stage, node)
            continue
        graph.add(model.stage, node, needs=[plan.stages.series.stage])
        graph.connect(functional, node, ("write.robust_tsv", "robust_tsv"))


def _gigabytes(bold: Path) -> float:
    """Size of a run as float32, from its header."""
    import math

    if ".nii" not in bold.name:
        return bold.stat().st_size / 2**30
    return math.prod(open_image(bold).shape) * 4 / 2**30
