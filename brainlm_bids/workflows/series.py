"""The graph of a run without volumes: fMRIPrep's CIFTI, or an existing parcel series.

take ─► denoise ─► scale ─► write ─► draw      (a given series is not denoised)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainlm_bids.bids.context import RunContext
from brainlm_bids.bids.runs import Run
from brainlm_bids.interfaces.fmriprep import LoadStrategy
from brainlm_bids.interfaces.series import TakeCifti, TakeTimeseries
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.functional import (
    DENOISED,
    DENOISED_OTHERS,
    SCALED,
    STRATEGY,
    Edges,
    connect,
    make_nodes,
    series_steps,
)
from brainlm_bids.workflows.nodes import make_workflow

if TYPE_CHECKING:
    from nipype.pipeline.engine import Workflow

EDGES: Edges = [
    ("take", "denoise", ("parcels", "motion")),
    ("take", "scale", ("motion",)),
    ("take", "write", ("confounds", "coverage", "motion", "image_quality")),
    ("take", "draw", ("confounds", "coverage", "parcels", "motion", "voxels")),
    *DENOISED,
]
GIVEN: Edges = [
    ("take", "scale", ("denoised", "motion")),
    ("take", "write", ("denoised", "motion")),
    ("take", "draw", ("denoised", "motion")),
    *SCALED,
]


def series_workflow(
    name: str, run: Run, gigabytes: float, context: RunContext, settings: Settings
) -> Workflow:
    """All nodes of a run without volumes."""
    workflow = make_workflow(name)
    steps, edges = series_steps(context, settings), [*EDGES]
    if run.preprocessed is None:
        steps.pop("denoise")
        bad = settings.max_bad_volumes
        steps["take"] = TakeTimeseries(timeseries=str(run.source), max_bad_volumes=bad), 0.1
        edges = GIVEN
    else:
        source = run.preprocessed
        take = TakeCifti(
            bold=str(source.bold),
            confounds=str(source.confounds),
            labels=str(source.labels),
            tr=context.tr,
            dummy_scans=settings.dummy_scans,
            min_parcel_coverage=settings.min_parcel_coverage,
            max_bad_volumes=settings.max_bad_volumes,
        )
        steps["take"] = take, 2.0
        if context.parcellations:
            take.inputs.parcellations = [one.labels for one in context.parcellations]
            edges += [
                ("take", "denoise", ("others",)),
                ("take", "write", ("others_coverage",)),
                *DENOISED_OTHERS,
            ]
        if settings.strategy is not None:
            bold, strategy = str(source.bold), settings.strategy
            steps["strategy"] = LoadStrategy(bold=bold, strategy=strategy), 0.0
            edges += STRATEGY
        if settings.save_parcels:
            edges.append(("take", "write", ("parcels",)))
    connect(workflow, make_nodes(steps, gigabytes, settings), edges)
    return workflow
