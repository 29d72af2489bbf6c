"""The functional graph: a BOLD run in; parcel series, confounds and figures out.

realign ─► coregister ─► project ─► extract ─► denoise ─► scale ─► write ─► draw
   └──────────────────────────────► decompose ─► classify ─┘
"""

from collections.abc import Sequence
from typing import Any

from brainlm_bids import interfaces as kernels
from brainlm_bids import interfaces_outputs as writers
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.nodes import Inputs, make_node, make_workflow

MOTION = ("realigned", "boldref", "brain_mask", "motion")


def functional_workflow(
    name: str,
    bold: str,
    gigabytes: float,
    context: dict[str, Any],
    inputs: Inputs,
    settings: Settings,
) -> Any:
    """All nodes of a run but those that need the anatomy (see `connect_geometry`).

    gigabytes: size of the run as float32, which bounds the memory of its nodes.
    """
    workflow = make_workflow(name)
    stages = _stages(bold, context, inputs, settings)
    nodes = {
        key: make_node(
            stage,
            key,
            settings,
            memory=0.7 + copies * gigabytes,
            always=key in {"write", "draw", "save_bold"},
        )
        for key, (stage, copies) in stages.items()
    }
    _connect_stages(workflow, nodes)
    if settings.save_bold:
        _feed(workflow, nodes, "realign", "save_bold", MOTION)
        _feed(workflow, nodes, "denoise", "save_bold", ("cleaning",))
        _feed(workflow, nodes, "extract", "save_bold", ("factor",))
    return workflow


def _stages(
    bold: str, context: dict[str, Any], inputs: Inputs, settings: Settings
) -> dict[str, tuple[Any, float]]:
    """Name -> (interface with its constants, copies of the run that it holds in memory)."""
    tr, seed = context["tr"], settings.random_seed
    scaling: dict[str, Any] = {}
    if settings.scaling_stats is not None:
        scaling["statistics"] = str(settings.scaling_stats)
    stages: dict[str, tuple[Any, float]] = {
        "realign": (
            kernels.Realign(bold=bold, dummy_scans=settings.dummy_scans, device=settings.device),
            1.5,
        ),
        "project": (kernels.Project(atlas=inputs.atlas), 0.0),
        "extract": (
            kernels.Extract(
                tr=tr,
                fd_spike_threshold=settings.fd_spike_threshold,
                dvars_spike_threshold=settings.dvars_spike_threshold,
            ),
            2.5,
        ),
        "decompose": (kernels.Decompose(seed=seed), 4.0),
        "classify": (kernels.Classify(tr=tr, seed=seed), 0.2),
        "denoise": (
            kernels.Denoise(
                tr=tr,
                mode=settings.denoise,
                high_pass=settings.high_pass,
                low_pass=settings.low_pass,
            ),
            0.0,
        ),
        "scale": (kernels.Scale(tr=tr, model_tr=settings.model_tr, **scaling), 0.0),
        "write": (writers.WriteFunctional(context=context), 0.0),
        "draw": (writers.DrawFunctional(context=context), 0.0),
    }
    if settings.save_bold:
        stages["save_bold"] = (
            writers.WriteDenoisedBold(context=context, atlas=inputs.atlas),
            6.0,
        )
    return stages


def _connect_stages(workflow: Any, nodes: dict[str, Any]) -> None:
    edges: list[tuple[str, str, Sequence[str]]] = [
        ("realign", "project", ("boldref", "brain_mask")),
        ("realign", "extract", ("realigned", "brain_mask", "motion")),
        ("realign", "decompose", ("realigned", "brain_mask", "motion")),
        ("realign", "classify", ("brain_mask", "motion")),
        ("realign", "denoise", ("motion",)),
        ("realign", "scale", ("motion",)),
        ("realign", "write", ("motion",)),
        ("realign", "draw", ("boldref", "brain_mask", "motion")),
        ("project", "extract", ("operator", "tissues")),
        ("project", "classify", ("aroma",)),
        ("project", "write", ("coverage",)),
        ("project", "draw", ("coverage",)),
        ("extract", "decompose", ("factor",)),
        ("extract", "denoise", ("parcels",)),
        ("extract", "write", ("confounds",)),
        ("extract", "draw", ("confounds", "parcels")),
        ("decompose", "classify", ("components",)),
        ("decompose", "denoise", ("components",)),
        ("decompose", "write", ("components",)),
        ("decompose", "draw", ("components",)),
        ("classify", "denoise", ("decisions",)),
        ("classify", "write", ("decisions",)),
        ("classify", "draw", ("decisions",)),
        ("denoise", "scale", ("denoised",)),
        ("denoise", "write", ("denoised",)),
        ("denoise", "draw", ("denoised",)),
        ("scale", "write", ("robust",)),
        ("scale", "draw", ("robust",)),
        ("write", "draw", ("written",)),
    ]
    for source, target, names in edges:
        _feed(workflow, nodes, source, target, names)


def _feed(
    workflow: Any, nodes: dict[str, Any], source: str, target: str, names: Sequence[str]
) -> None:
    workflow.connect([(nodes[source], nodes[target], [(name, name) for name in names])])


def connect_geometry(
    parent: Any, functional: Any, anatomical: Any | None, inputs: Inputs, settings: Settings
) -> None:
    """Join a run with its T1w image, or, without one, with the template directly."""
    located = ["project", *(["save_bold"] if settings.save_bold else [])]
    draw = functional.get_node("draw")
    if anatomical is None:
        normalise = make_node(
            kernels.Normalise(
                template=inputs.template,
                template_mask=inputs.template_mask,
                kind="boldref",
                seed=settings.random_seed,
            ),
            "normalise",
            settings,
            memory=2.0,
        )
        realign = functional.get_node("realign")
        functional.connect(
            [(realign, normalise, [("boldref", "image"), ("brain_mask", "brain_mask")])]
        )
        for name in [*located, "write", "draw"]:
            target = functional.get_node(name)
            functional.connect([(normalise, target, [("transform", "transform")])])
        draw.inputs.fixed, draw.inputs.fixed_mask = inputs.template, inputs.template_mask
        return
    coregister = make_node(
        kernels.Coregister(seed=settings.random_seed), "coregister", settings, memory=1.5
    )
    functional.connect(
        [
            (
                functional.get_node("realign"),
                coregister,
                [("boldref", "boldref"), ("brain_mask", "brain_mask")],
            )
        ]
    )
    for name in [*located, "write", "draw"]:
        functional.connect([(coregister, functional.get_node(name), [("matrix", "matrix")])])
    parent.connect(
        [
            (
                anatomical,
                functional,
                [
                    ("prepare.t1w", "coregister.t1w"),
                    ("prepare.brain_mask", "coregister.t1w_mask"),
                    ("prepare.t1w", "draw.fixed"),
                    ("prepare.brain_mask", "draw.fixed_mask"),
                    *(("normalise.transform", f"{name}.transform") for name in located),
                ],
            )
        ]
    )
