"""The functional graph: a BOLD run in; parcel series, confounds and figures out.

realign ─► coregister ─► project ─► extract ─► denoise ─► scale ─► write ─► draw
   └──────────────────────────────► decompose ─► classify ─┘

A run with a field map has `undistort` between realign and coregister; one whose distortion is
estimated without a field map has `unwarp` between coregister and project. What is behind sees the
run as it was measured: only its points move.

For a run that fMRIPrep preprocessed, `take` replaces realign and coregister, and the confounds are
fMRIPrep's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brainlm_bids.bids.context import RunContext
from brainlm_bids.bids.readout import phase_encoding_axis
from brainlm_bids.bids.runs import Run
from brainlm_bids.interfaces.anatomical import Normalise
from brainlm_bids.interfaces.array_interface import ArrayInterface
from brainlm_bids.interfaces.denoising import Classify, Decompose, Denoise, Scale
from brainlm_bids.interfaces.derivatives.bold import WriteDenoisedBold
from brainlm_bids.interfaces.derivatives.figures import DrawFunctional
from brainlm_bids.interfaces.derivatives.functional import WriteFunctional
from brainlm_bids.interfaces.distortion import Undistort
from brainlm_bids.interfaces.echoes import RealignEchoes
from brainlm_bids.interfaces.fmriprep import ExtractPreprocessed, LoadStrategy, TakePreprocessed
from brainlm_bids.interfaces.functional import Coregister, Extract, Project, Realign
from brainlm_bids.interfaces.unwarping import UnwarpByBoundary
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.nodes import Inputs, make_node, make_workflow

if TYPE_CHECKING:
    from nipype.pipeline.engine import Node, Workflow

Edges = list[tuple[str, str, Sequence[str]]]
MOTION = ("bold", "boldref", "motion")


# What needs the run's brain.
MASKED = ("project", "extract", "decompose", "classify", "draw")


def _bold_edges(source: str) -> Edges:
    return [
        (source, "project", ("boldref",)),
        (source, "extract", ("bold", "motion")),
        (source, "decompose", ("bold", "motion")),
        (source, "classify", ("motion",)),
        (source, "denoise", ("motion",)),
        (source, "scale", ("motion",)),
        (source, "write", ("motion",)),
        (source, "draw", ("boldref", "motion")),
    ]


def _mask_edges(source: str, save_bold: bool) -> Edges:
    targets = [*MASKED, *(["save_bold"] if save_bold else [])]
    return [(source, target, ("brain_mask",)) for target in targets]


def _distortion_edges(save_bold: bool) -> Edges:
    located = ["project", "write", "draw", *(["save_bold"] if save_bold else [])]
    return [
        ("realign", "undistort", ("boldref", "brain_mask")),
        ("undistort", "write", ("fit", "refused")),
        *(("undistort", target, ("distortion",)) for target in located),
    ]


def _estimate_edges(save_bold: bool) -> Edges:
    located = ["project", "write", "draw", *(["save_bold"] if save_bold else [])]
    return [
        ("realign", "unwarp", ("boldref", "seen")),
        ("unwarp", "write", ("refused", "evidence", "contrasts")),
        *(("unwarp", target, ("distortion",)) for target in located),
        *_mask_edges("unwarp", save_bold),
    ]


# The edges behind a scaled series, and behind a denoised one.
SCALED: Edges = [
    ("scale", "write", ("robust",)),
    ("scale", "draw", ("robust",)),
    ("write", "draw", ("written",)),
]
DENOISED: Edges = [
    ("denoise", "scale", ("denoised",)),
    ("denoise", "write", ("denoised",)),
    ("denoise", "draw", ("denoised",)),
    *SCALED,
]
SHARED: Edges = [
    ("project", "extract", ("operator", "tissue")),
    ("project", "classify", ("aroma",)),
    ("project", "write", ("coverage",)),
    ("project", "draw", ("coverage",)),
    ("extract", "decompose", ("factor",)),
    ("extract", "denoise", ("parcels",)),
    ("extract", "write", ("confounds", "image_quality")),
    ("extract", "draw", ("confounds", "parcels", "voxels")),
    ("decompose", "classify", ("components",)),
    ("decompose", "denoise", ("components",)),
    ("decompose", "write", ("components",)),
    ("decompose", "draw", ("components",)),
    ("classify", "denoise", ("decisions",)),
    ("classify", "write", ("decisions",)),
    ("classify", "draw", ("decisions",)),
    *DENOISED,
]
BOLD_OF_RAW: Edges = [*_bold_edges("realign"), ("project", "extract", ("tissues",))]
# The edges of parcellations beside A424.
DENOISED_OTHERS: Edges = [("denoise", "write", ("others_denoised",))]
OTHERS: Edges = [
    ("project", "extract", ("others_operator",)),
    ("project", "write", ("others_coverage",)),
    ("extract", "denoise", ("others",)),
    *DENOISED_OTHERS,
]
STRATEGY: Edges = [
    ("take", "strategy", ("motion",)),
    ("strategy", "denoise", ("design",)),
    ("strategy", "write", ("design",)),
]
BOLD_OF_FMRIPREP: Edges = [
    *_bold_edges("take"),
    ("project", "write", ("quality",)),
    ("take", "project", ("transform", "matrix")),
    ("take", "draw", ("transform", "matrix")),
]


def functional_workflow(
    name: str,
    run: Run,
    gigabytes: float,
    context: RunContext,
    inputs: Inputs,
    settings: Settings,
) -> Workflow:
    """All nodes of a run except those that need the anatomy (see `connect_geometry`).

    Parameters
    ----------
    name : str
        Of the workflow.
    run : Run
        A raw run, or one with fMRIPrep's volumes.
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
    steps = _steps(run, context, inputs, settings)
    nodes = make_nodes(steps, gigabytes, settings)
    edges = BOLD_OF_FMRIPREP if run.preprocessed else BOLD_OF_RAW
    connect(workflow, nodes, [*edges, *SHARED, *(STRATEGY if "strategy" in nodes else [])])
    if run.preprocessed:
        connect(workflow, nodes, _mask_edges("take", settings.save_bold))
    if "undistort" in nodes:
        connect(workflow, nodes, _distortion_edges(settings.save_bold))
    if "unwarp" in nodes:
        connect(workflow, nodes, _estimate_edges(settings.save_bold))
    if settings.save_bold:
        first = "take" if run.preprocessed else "realign"
        _feed(workflow, nodes, first, "save_bold", MOTION)
        if run.preprocessed:
            _feed(workflow, nodes, first, "save_bold", ("transform", "matrix"))
        _feed(workflow, nodes, "denoise", "save_bold", ("cleaning",))
        _feed(workflow, nodes, "extract", "save_bold", ("factor",))
    if settings.save_parcels:
        _feed(workflow, nodes, "extract", "write", ("parcels",))
    if context.parcellations:
        connect(workflow, nodes, OTHERS)
    if run.echoes:
        _feed(workflow, nodes, "realign", "write", ("combination",))
    return workflow


def make_nodes(
    steps: dict[str, tuple[ArrayInterface, float]], gigabytes: float, settings: Settings
) -> dict[str, Node]:
    """A node per step, with memory for its number of copies of a run of that size."""
    return {
        key: make_node(
            step,
            key,
            settings,
            memory=0.7 + copies * gigabytes,
            always=key in {"write", "draw", "save_bold"},
        )
        for key, (step, copies) in steps.items()
    }


def connect(workflow: Workflow, nodes: dict[str, Node], edges: Edges) -> None:
    """Connect outputs to the inputs of the same names."""
    for source, target, names in edges:
        _feed(workflow, nodes, source, target, names)


def _steps(
    run: Run, context: RunContext, inputs: Inputs, settings: Settings
) -> dict[str, tuple[ArrayInterface, float]]:
    """Name -> (interface with its constants, copies of the run that it holds in memory)."""
    tr, seed = context.tr, settings.random_seed
    steps: dict[str, tuple[ArrayInterface, float]] = {
        **_first_steps(run, tr, settings),
        "project": (_project(run, context, inputs, settings), 0.0),
        "decompose": (Decompose(seed=seed), 2.0),
        "classify": (Classify(tr=tr, seed=seed), 0.2),
        **series_steps(context, settings),
    }
    axis = phase_encoding_axis(run.metadata)
    if context.distortion.estimated and axis is not None:
        steps["unwarp"] = (UnwarpByBoundary(axis=axis, seed=seed), 0.1)
    if settings.save_bold:
        steps["save_bold"] = (
            WriteDenoisedBold(context=context, atlas=inputs.atlas),
            6.0,
        )
    return steps


def series_steps(
    context: RunContext, settings: Settings
) -> dict[str, tuple[ArrayInterface, float]]:
    """The steps from the parcels' series on."""
    tr, scaling = context.tr, {}
    if settings.scaling_stats is not None:
        scaling["statistics"] = str(settings.scaling_stats)
    denoise = Denoise(
        tr=tr,
        mode=settings.denoise,
        high_pass=settings.high_pass,
        low_pass=settings.low_pass,
    )
    return {
        "denoise": (denoise, 0.0),
        "scale": (Scale(tr=tr, model_tr=settings.model_tr, **scaling), 0.0),
        "write": (WriteFunctional(context=context), 0.0),
        "draw": (DrawFunctional(context=context, figures=settings.figures), 0.0),
    }


def _first_steps(
    run: Run, tr: float, settings: Settings
) -> dict[str, tuple[ArrayInterface, float]]:
    """The steps that read a run and its motion, and extract parcels and confounds."""
    steps: dict[str, tuple[ArrayInterface, float]]
    source = run.preprocessed
    if source is None:
        extract = Extract(
            tr=tr,
            fd_spike_threshold=settings.fd_spike_threshold,
            dvars_spike_threshold=settings.dvars_spike_threshold,
        )
        steps = {"realign": _realign(run, tr, settings), "extract": (extract, 2.0)}
        return steps | _undistort(run, settings)
    files = {"mask": source.mask, "to_template": source.to_template, "to_t1w": source.to_t1w}
    take = TakePreprocessed(
        bold=str(source.bold),
        confounds=str(source.confounds),
        dummy_scans=settings.dummy_scans,
        max_bad_volumes=settings.max_bad_volumes,
        **{name: str(path) for name, path in files.items() if path is not None},
    )
    steps = {
        "take": (take, 2.0),
        "extract": (ExtractPreprocessed(confounds=str(source.confounds), tr=tr), 2.0),
    }
    if settings.strategy is not None:
        steps["strategy"] = (LoadStrategy(bold=str(source.bold), strategy=settings.strategy), 0.0)
    return steps


def _realign(run: Run, tr: float, settings: Settings) -> tuple[ArrayInterface, float]:
    """The first step of a raw run, and the copies of one echo that it holds in memory."""
    realign: Realign | RealignEchoes
    if run.echoes:
        echoes = [str(path) for path in run.echoes]
        realign = RealignEchoes(
            echoes=echoes,
            echo_times=list(run.echo_times),
            denoise=settings.me_denoise if run.for_tedana else "none",
            seed=settings.random_seed,
        )
    else:
        realign = Realign(bold=str(run.source))
    realign.inputs.trait_set(
        orientation=settings.assume_orientation,
        dummy_scans=settings.dummy_scans,
        max_bad_volumes=settings.max_bad_volumes,
        device=settings.device,
    )
    if run.slices is not None:
        realign.inputs.trait_set(slices=run.slices, tr=tr)
    if run.sbref is not None:
        realign.inputs.trait_set(sbref=str(run.sbref), seed=settings.random_seed)
    # tedana holds the brain of every echo, as float64 and more than once
    for_tedana = settings.me_denoise == "tedana" and run.for_tedana
    return realign, 1.5 + (3.0 * len(run.echoes) if for_tedana else 0.0)


def _undistort(run: Run, settings: Settings) -> dict[str, tuple[ArrayInterface, float]]:
    """The step of a run with a field map; none without one."""
    if run.fieldmap is None or run.phase_encoding is None:
        return {}
    direction, readout = run.phase_encoding
    undistort = Undistort(
        fieldmap=run.fieldmap,
        files=[str(path) for path in run.fieldmap.files],
        direction=direction,
        readout=readout,
        seed=settings.random_seed,
    )
    return {"undistort": (undistort, 0.5)}


def _project(run: Run, context: RunContext, inputs: Inputs, settings: Settings) -> Project:
    project = Project(atlas=inputs.atlas, min_parcel_coverage=settings.min_parcel_coverage)
    if context.parcellations:
        project.inputs.parcellations = [one.labels for one in context.parcellations]
    if not run.is_raw:
        project.inputs.template_mask = inputs.template_mask
    return project


def _feed(
    workflow: Workflow, nodes: dict[str, Node], source: str, target: str, names: Sequence[str]
) -> None:
    workflow.connect([(nodes[source], nodes[target], [(name, name) for name in names])])


def connect_geometry(
    parent: Workflow,
    functional: Workflow,
    anatomical: Workflow | None,
    inputs: Inputs,
    settings: Settings,
) -> None:
    """Connect a raw run with its T1w image or, if there is none, with the template directly."""
    located = ["project", *(["save_bold"] if settings.save_bold else [])]
    if anatomical is None:
        _connect_template(functional, located, inputs, settings)
    else:
        _connect_t1w(parent, functional, anatomical, located, settings)


def _connect_template(
    functional: Workflow, located: Sequence[str], inputs: Inputs, settings: Settings
) -> None:
    interface = Normalise(
        template=inputs.template,
        template_mask=inputs.template_mask,
        kind="boldref",
        seed=settings.random_seed,
    )
    normalise = make_node(interface, "normalise", settings, memory=2.0)
    pairs = [("boldref", "image"), ("brain_mask", "brain_mask")]
    source = functional.get_node("undistort") or functional.get_node("realign")
    functional.connect([(source, normalise, pairs)])
    for name in [*located, "write", "draw"]:
        target = functional.get_node(name)
        functional.connect([(normalise, target, [("transform", "transform")])])
    functional.connect([(normalise, functional.get_node("write"), [("quality", "quality")])])
    nodes = {name: functional.get_node(name) for name in (*MASKED, "realign", "save_bold")}
    connect(functional, nodes, _mask_edges("realign", settings.save_bold))
    draw = functional.get_node("draw")
    draw.inputs.fixed, draw.inputs.fixed_mask = inputs.template, inputs.template_mask


def _connect_t1w(
    parent: Workflow,
    functional: Workflow,
    anatomical: Workflow,
    located: Sequence[str],
    settings: Settings,
) -> None:
    interface = Coregister(seed=settings.random_seed)
    coregister = make_node(interface, "coregister", settings, memory=1.5)
    pairs = [(name, name) for name in ("boldref", "brain_mask", "seen")]
    functional.connect([(functional.get_node("realign"), coregister, pairs)])
    if undistort := functional.get_node("undistort"):
        functional.connect([(undistort, coregister, [("distortion", "distortion")])])
        nodes = {"coregister": coregister, "write": functional.get_node("write")}
        connect(functional, nodes, [("coregister", "write", ("contrasts",))])
    nodes = {name: functional.get_node(name) for name in (*MASKED, "save_bold")}
    unwarp = functional.get_node("unwarp")
    if unwarp is None:
        connect(
            functional,
            {**nodes, "coregister": coregister},
            _mask_edges("coregister", settings.save_bold),
        )
    for name in [*located, "write", "draw"]:
        functional.connect([(coregister, functional.get_node(name), [("matrix", "matrix")])])
    write = functional.get_node("write")
    pairs = [("method", "coregistration"), ("quality", "quality"), ("mask_source", "mask_source")]
    functional.connect([(coregister, write, pairs)])
    pairs = [
        ("prepare.t1w", "coregister.t1w"),
        ("prepare.brain_mask", "coregister.t1w_mask"),
        ("prepare.t1w", "draw.fixed"),
        ("prepare.brain_mask", "draw.fixed_mask"),
        ("normalise.quality", "write.t1w_quality"),
        *(("normalise.transform", f"{name}.transform") for name in located),
    ]
    if unwarp is not None:
        names = ("matrix", "brain_mask", "mask_source")
        functional.connect([(coregister, unwarp, [(name, name) for name in names])])
        pairs += [
            ("prepare.t1w", "unwarp.t1w"),
            ("prepare.brain_mask", "unwarp.t1w_mask"),
            ("normalise.transform", "unwarp.transform"),
        ]
    parent.connect([(anatomical, functional, pairs)])


def connect_lesion(parent: Workflow, functional: Workflow, anatomical: Workflow) -> None:
    """Let a run know of the lesion of its T1w image, for which there is a mask."""
    pairs = [
        ("prepare.lesion", "coregister.t1w_lesion"),
        ("prepare.lesion", "project.lesion"),
        ("prepare.lesion_found", "write.lesion_found"),
    ]
    if functional.get_node("unwarp") is not None:
        pairs.append(("prepare.lesion", "unwarp.t1w_lesion"))
    parent.connect([(anatomical, functional, pairs)])
