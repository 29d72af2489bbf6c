"""Planning and evaluation of recordings, alike at both analysis levels.

Before the graph runs: which stages of a recording (its series, a model) are complete under the same
configuration, and which are to be computed. Afterwards: what became of them, by what is on disk.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from brainlm_bids import __version__
from brainlm_bids.app.context import distortion_info, start_of
from brainlm_bids.app.execution import crash_folder, full_disk, refused
from brainlm_bids.app.resources import Resources
from brainlm_bids.app.status import (
    CACHED,
    DONE,
    FAILED,
    SKIPPED,
    Crash,
    Outcome,
    read_crashes,
    used_resources,
)
from brainlm_bids.bids import outputs
from brainlm_bids.bids.readout import phase_encoding_axis
from brainlm_bids.bids.recordings import Recording, warnings_of_embeddings, warnings_of_series
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.notices import Kind, dangers
from brainlm_bids.resources import ModelResource, Parcellation
from brainlm_bids.settings import Settings, configuration_hash
from brainlm_bids.table import MODEL, SERIES
from brainlm_bids.workflows.graph import Graph, Stage
from brainlm_bids.workflows.plans import ModelPlan, RecordingPlan, StagePlan

LOG = logging.getLogger("brainlm_bids")


# --- what the series of a recording depend on ------------------------------------------------


def run_inputs(
    settings: Settings, run: Run, resources: Resources, sources: SourceFiles | None = None
) -> dict[str, object]:
    """Settings, resources and files that the series of a run depend on.

    sources: reads the files.
    """
    sources = sources or SourceFiles()
    statistics = settings.scaling_stats
    values = {
        **settings.changing(SERIES),
        "atlas": resources.atlas.sha256,
        "template": [resources.template.space, resources.template.sha256],
        "scaling_stats": None if statistics is None else sources.sha256(statistics),
        "tr": run.tr,
        "phase_encoding": run.phase_encoding,
        "estimated_along": _estimated_along(settings, run),
        "fieldmap": None if run.fieldmap is None else run.fieldmap.parameters,
        "reads": [sources.sha256(path) for path in run.reads],
        "slices": None if run.slices is None else [run.slices.axis, *run.slices.times],
        "start": start_of(run),
        "echo_times": run.echo_times,
    }
    if run.preprocessed is not None and run.preprocessed.labels is not None:
        values["labels"] = sources.sha256(run.preprocessed.labels)
    return values


def _estimated_along(settings: Settings, run: Run) -> int | None:
    """The axis along which the distortion of a run is estimated without a field map."""
    estimated = distortion_info(run, settings.use_syn_sdc).estimated
    return phase_encoding_axis(run.metadata) if estimated else None


def cohort_inputs(settings: Settings, recording: Recording, statistics: str) -> dict[str, object]:
    """What the series scaled with the cohort depend on; statistics: SHA-256 of their file."""
    return {
        "series": recording.configuration,
        "statistics": statistics,
        "model_tr": settings.model_tr,
    }


# --- before the graph runs -------------------------------------------------------------------


def plan_recording(
    settings: Settings,
    series: Stage,
    inputs: Mapping[str, object],
    models: Mapping[str, ModelResource],
    *,
    scaling: str = "",
    parcellations: Sequence[Parcellation] = (),
) -> RecordingPlan:
    """Compare the configurations of a recording's stages with those that it was computed under.

    Parameters
    ----------
    series : Stage
        The recording, and the stage that makes its series at this level.
    inputs : mapping
        Everything that the series depend on.
    models : mapping of str to ModelResource
        By their labels in the names of the outputs.
    scaling : str
        Of the series, as in the names of the outputs.
    parcellations : sequence of Parcellation
        Whose series are made too.
    """
    out, recording = settings.output_dir, series.recording
    key = _series_key(inputs)
    first = StagePlan(series, key, outputs.is_complete(out, *series, key))

    def plan_model(label: str, model: ModelResource) -> ModelPlan:
        stage = Stage(recording, outputs.model_stage(label, scaling))
        own_key = _model_key(settings, key, model)
        complete = first.complete and outputs.is_complete(out, *stage, own_key)
        return ModelPlan(stage, own_key, complete, label, model_source(model))

    def plan_parcellation(one: Parcellation) -> StagePlan:
        stage = Stage(recording, outputs.parcellation_stage(one.label))
        own_key = configuration_hash({"series": key, "parcellation": one.content})
        return StagePlan(stage, own_key, outputs.is_complete(out, *stage, own_key))

    plan = RecordingPlan(
        first,
        tuple(plan_model(label, model) for label, model in models.items()),
        tuple(map(plan_parcellation, parcellations)),
    )
    # now that its records have been read
    return plan if plan.pending else replace(plan, remarks=tuple(_notable(settings, plan)))


def model_source(model: ModelResource) -> str:
    """Where a model is loaded from: the folder of its checkpoint, or random:<architecture>."""
    return model.name if model.path is None else str(model.path.resolve())


def _series_key(inputs: Mapping[str, object]) -> str:
    """Hash of what the series of a recording depend on."""
    return configuration_hash({"version": __version__, **inputs})


def _model_key(settings: Settings, series: str, model: ModelResource) -> str:
    """Hash of what the outputs of a model depend on; series: hash of the series."""
    values = settings.changing(MODEL)
    return configuration_hash({"series": series, "model": model.sha256 or model.name, **values})


# --- afterwards ------------------------------------------------------------------------------


def evaluate(
    settings: Settings, plan: RecordingPlan, graph: Graph | None, run_id: str, *, stopped: bool
) -> Outcome:
    """What became of a recording, by its records: one is written when all files of a stage are.

    Parameters
    ----------
    graph : Graph or None
        The graph that it was in; None if there was nothing to compute.
    stopped : bool
        Whether a signal ended the call.
    """
    if graph is None or not plan.pending:
        return Outcome(CACHED, "; ".join(["complete under the same configuration", *plan.remarks]))
    seconds, memory = used_resources(
        settings.work_dir, graph.names(pending.stage for pending in plan.pending)
    )
    unfinished = tuple(
        pending
        for pending in plan.pending
        if not outputs.is_complete(settings.output_dir, *pending.stage, pending.configuration)
    )
    if not unfinished:
        return Outcome(DONE, "; ".join(_notable(settings, plan)), seconds, memory)
    crash = find_crash(settings, graph, [pending.stage for pending in unfinished], run_id)
    # without space a step fails anywhere, often where it misses a file that another could not write
    disk = refused(settings) if crash is None or crash.internal else full_disk(settings)
    if crash is None:
        why = disk or no_crash(settings.output_dir, unfinished[0].stage, stopped)
        reason = f"{plan.recording}: {why}"
        if not stopped:  # a crash was logged when it happened
            LOG.error("failed: %s", reason)
        return Outcome(FAILED, reason, seconds, memory, None, unfinished)
    status = SKIPPED if crash.skipped else FAILED
    reason = crash.reason if disk is None else f"{disk} ({crash.reason})"
    return Outcome(status, reason, seconds, memory, crash.path, unfinished)


def _notable(settings: Settings, plan: RecordingPlan) -> list[str]:
    """Why the results of a recording must not be interpreted although they are complete."""
    found = warnings_of_series(settings.output_dir, *plan.series.stage)
    listed = (Kind.BAD_VOLUMES, Kind.SLICE_TIMING_NOT_CORRECTED)
    bad = [one for one in found if one.kind in listed]
    of_models = [
        one
        for model in plan.models
        for one in warnings_of_embeddings(settings.output_dir, *model.stage)
        if one.kind == Kind.SHORT_RUN
    ]
    return [one.text for one in [*dangers(found), *bad, *dict.fromkeys(of_models)]]


def find_crash(
    settings: Settings, graph: Graph, stages: Sequence[Stage], run_id: str
) -> Crash | None:
    """The first crash that kept some stages from being completed."""
    return read_crashes(crash_folder(settings, run_id), graph.names_upstream(stages))


def no_crash(output_dir: Path, stage: Stage, stopped: bool = False) -> str:
    """Why a stage may be unfinished whose nodes left no crash file."""
    if stopped:
        return f"the call was stopped before {stage.name} was finished"
    unread = outputs.why_unread(output_dir, *stage)
    if unread is not None:
        return unread
    return (
        f"{stage.name} was not finished and left no crash file; either a process was killed (out "
        "of memory?), or the call ended at another failure (--stop-on-first-crash)"
    )
