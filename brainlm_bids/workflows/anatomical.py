"""The anatomical graph (3 nodes): from a T1w image to its brain and its way to the template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brainlm_bids.bids.context import AnatomicalContext
from brainlm_bids.interfaces.anatomical import Normalise, PrepareT1w
from brainlm_bids.interfaces.derivatives.anatomical import WriteAnatomical
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.nodes import Inputs, make_node, make_workflow

if TYPE_CHECKING:
    from nipype.pipeline.engine import Workflow


def anatomical_workflow(
    name: str,
    t1w: str,
    lesions: Sequence[str],
    context: AnatomicalContext,
    inputs: Inputs,
    settings: Settings,
) -> Workflow:
    """Bias field, brain, normalisation and derivatives of one T1w image.

    The nodes `prepare` (t1w, brain_mask; with lesion masks also lesion, lesion_found) and
    `normalise` (transform, quality) feed the functional graphs.
    """
    workflow = make_workflow(name)
    prepare = make_node(
        PrepareT1w(t1w=t1w, orientation=settings.assume_orientation, lesions=list(lesions)),
        "prepare",
        settings,
        memory=3.0,
    )
    normalise = make_node(
        Normalise(
            template=inputs.template,
            template_mask=inputs.template_mask,
            kind="T1w",
            method=settings.normalization,
            seed=settings.random_seed,
        ),
        "normalise",
        settings,
        memory=3.0,
    )
    write = make_node(
        WriteAnatomical(
            context=context,
            template=inputs.template,
            template_mask=inputs.template_mask,
            figures=settings.figures,
        ),
        "write",
        settings,
        memory=1.0,
        always=True,
    )
    workflow.connect(
        [
            (prepare, normalise, [("t1w", "image"), ("brain_mask", "brain_mask")]),
            (
                prepare,
                write,
                [("t1w", "t1w"), ("brain_mask", "brain_mask"), ("method", "method")],
            ),
            (normalise, write, [("transform", "transform"), ("quality", "quality")]),
        ]
    )
    if lesions:
        workflow.connect(prepare, "lesion", normalise, "lesion")
        workflow.connect(prepare, "lesion", write, "lesion")
        workflow.connect(prepare, "lesion_found", write, "lesion_found")
    return workflow
