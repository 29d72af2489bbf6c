"""The graph of a run that XCP-D denoised: nothing is denoised or filtered twice.

volumes         take ─► project ─► extract ─► scale ─► write ─► draw
grayordinates   take ────────────────────────► scale ─► write ─► draw
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brainlm_bids.bids.context import RunContext
from brainlm_bids.bids.runs import Run
from brainlm_bids.interfaces.array_interface import ArrayInterface
from brainlm_bids.interfaces.denoised import ExtractDenoised, TakeDenoised, TakeDenoisedCifti
from brainlm_bids.interfaces.functional import Project
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.functional import SCALED, Edges, connect, make_nodes, series_steps
from brainlm_bids.workflows.nodes import Inputs, make_workflow

if TYPE_CHECKING:
    from nipype.pipeline.engine import Workflow

COMMON: Edges = [
    ("take", "scale", ("motion",)),
    ("take", "write", ("motion", "image_quality")),
    ("take", "draw", ("motion",)),
    *SCALED,
]
VOLUMES: Edges = [
    ("take", "project", ("boldref", "brain_mask", "transform")),
    ("take", "extract", ("bold", "motion", "censoring", "factor")),
    ("take", "draw", ("boldref", "brain_mask", "transform")),
    ("project", "extract", ("operator",)),
    ("project", "write", ("coverage", "quality")),
    ("project", "draw", ("coverage",)),
]
GRAYORDINATES: Edges = [("take", target, ("coverage",)) for target in ("write", "draw")]
# The edges of parcellations beside A424.
OTHERS_OF_VOLUMES: Edges = [
    ("project", "extract", ("others_operator",)),
    ("project", "write", ("others_coverage",)),
    ("extract", "write", ("others_denoised",)),
]
OTHERS_OF_GRAYORDINATES: Edges = [("take", "write", ("others_denoised", "others_coverage"))]


def denoised_workflow(
    name: str,
    run: Run,
    gigabytes: float,
    context: RunContext,
    inputs: Inputs,
    settings: Settings,
) -> Workflow:
    """All nodes of a run that was denoised already.

    Parameters
    ----------
    name : str
        Of the workflow.
    run : Run
        With XCP-D's volumes or grayordinates.
    gigabytes : float
        Size of the run as float32, which bounds the memory of its nodes.
    context : RunContext
        What the writers know of the run.
    inputs : Inputs
        Files of the resources.
    settings : Settings
        Of the call.
    """
    workflow = make_workflow(name)
    steps: dict[str, tuple[ArrayInterface, float]] = series_steps(context, settings)
    steps.pop("denoise")
    source, edges, series = run.preprocessed, [*COMMON], "take"
    assert source is not None
    labels = [one.labels for one in context.parcellations]
    copies = 2.0 if source.level is None else 3.5
    if run.has_volumes:
        take, series = TakeDenoised(**_files_and_numbers(run, context, settings)), "extract"
        if source.to_template is not None:
            take.inputs.to_template = str(source.to_template)
        project = Project(
            atlas=inputs.atlas,
            template_mask=inputs.template_mask,
            min_parcel_coverage=settings.min_parcel_coverage,
        )
        steps |= {"take": (take, copies), "project": (project, 0.0)}
        steps["extract"] = ExtractDenoised(), 1.5
        edges += VOLUMES
        if labels:
            project.inputs.parcellations = labels
            edges += OTHERS_OF_VOLUMES
    else:
        grayordinates = TakeDenoisedCifti(
            labels=str(source.labels),
            min_parcel_coverage=settings.min_parcel_coverage,
            **_files_and_numbers(run, context, settings),
        )
        steps["take"] = grayordinates, copies
        edges += GRAYORDINATES
        if labels:
            grayordinates.inputs.parcellations = labels
            edges += OTHERS_OF_GRAYORDINATES
    if source.confounds is not None:
        edges += [("take", target, ("confounds",)) for target in ("write", "draw")]
    edges += [(series, target, ("denoised",)) for target in ("scale", "write", "draw")]
    connect(workflow, make_nodes(steps, gigabytes, settings), edges)
    return workflow


def _files_and_numbers(run: Run, context: RunContext, settings: Settings) -> dict[str, Any]:
    """What volumes and grayordinates are read by."""
    source = run.preprocessed
    assert source is not None
    files = {
        "motion_table": source.confounds,
        "outliers": source.censoring,
        "level": source.level,
    }
    # counted from the beginning of the scan
    n_dummy = max(0, (settings.dummy_scans or 0) - (source.dropped or 0))
    return {
        "bold": str(source.bold),
        **{name: str(path) for name, path in files.items() if path is not None},
        "tr": context.tr,
        "n_dummy": n_dummy,
        "max_bad_volumes": settings.max_bad_volumes,
    }
