"""The group level: scaling statistics, embeddings with these, tables, decoding, report.

Input: `Settings`, an output folder that the participant level has written, and
participants.tsv. Output: the cohort's files, a status table, and an exit code. A recording
is the unit of failure and of resumption, as at participant level.
"""

import contextlib
import dataclasses
import logging
import shutil
from collections import Counter
from collections.abc import Sequence

from brainlm_bids import __version__, files, messages
from brainlm_bids.app import ahead, opening
from brainlm_bids.app.cohort import Cohort
from brainlm_bids.app.context import cohort_context
from brainlm_bids.app.dataset import tell_size, write_manuscript, write_methods
from brainlm_bids.app.decoding import check_columns
from brainlm_bids.app.execution import execute, make_folders, new_run_id
from brainlm_bids.app.index import rebuild_index
from brainlm_bids.app.plan import cohort_inputs, evaluate, plan_recording
from brainlm_bids.app.resources import check_weights, find_resources, materialise, with_precision
from brainlm_bids.app.status import (
    EXIT_FAILED,
    EXIT_OK,
    FAILED,
    Outcome,
    Row,
    exit_code,
    print_table,
    tell_reports,
    write_status,
)
from brainlm_bids.app.summary import summarise
from brainlm_bids.bids import outputs
from brainlm_bids.bids.calls import record_call
from brainlm_bids.bids.dataset import moved_source, write_dataset_files
from brainlm_bids.bids.names import GROUP, build
from brainlm_bids.bids.recordings import FAILED as UNUSABLE
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.errors import UserError
from brainlm_bids.progress import Progress, Step
from brainlm_bids.settings import Settings, configuration_hash
from brainlm_bids.temporary import tidied
from brainlm_bids.workflows import group as graphs
from brainlm_bids.workflows.graph import Stage
from brainlm_bids.workflows.group import ScalingSource
from brainlm_bids.workflows.plans import CohortPlan

LOG = logging.getLogger("brainlm_bids")
# Recordings in one graph: Nipype's own work grows with the square of the number of nodes.
RECORDINGS_PER_GRAPH = 200


def run(settings: Settings, command: Sequence[str], progress: Progress) -> int:
    """Run the group level and return 0, or 1 if a recording or a part of the cohort failed.

    Parameters
    ----------
    settings : Settings
        Of the call.
    command : sequence of str
        The words of the command line; none for a call from Python.
    progress : Progress
        Of the call.

    Raises
    ------
    UserError
        For what makes the whole call impossible: no recordings, unknown columns, resources.
    """
    if not (settings.output_dir / "dataset_description.json").is_file():
        raise UserError(
            f"{settings.output_dir}: has no derivatives; run the participant level first"
        )
    make_folders(settings)
    with contextlib.ExitStack() as stack:
        if not settings.dry_run:
            stack.enter_context(tidied(settings.output_dir))
        return _level(settings, command, progress)


def _level(settings: Settings, command: Sequence[str], progress: Progress) -> int:
    resources = find_resources(settings)
    settings = with_precision(settings, resources)
    with progress.doing("reading the table of recordings"):
        cohort = Cohort.find(settings, resources, new_run_id(), progress)
    check_columns(settings, list(cohort.variables), has_models=bool(cohort.models))
    if settings.reports_only:
        _write_report(cohort)
        code = _index(cohort)
        tell_reports(settings.output_dir, 1, progress.elapsed, GROUP)
        return code
    if settings.dry_run:
        return _print_plan(cohort)
    if settings.boilerplate_only:
        return _write_methods_again(cohort)
    described = outputs.describe_labels(GROUP)
    source = moved_source(settings.output_dir, settings.bids_dir)
    write_dataset_files(settings.output_dir, source, described)
    record_call(settings.output_dir, cohort.run_id, command, settings.to_toml())
    if not cohort.included:
        raise UserError(
            f"{settings.output_dir}: none of the {len(cohort.recordings)} recordings is included; "
            f"{cohort.recordings[0].reason}"
        )
    return _run(cohort)


def _run(cohort: Cohort) -> int:
    opening.tell(_summary(cohort))
    steps = ahead.group_steps(cohort.settings, len(cohort.included), cohort.models)
    cohort.progress.expect(steps, instead=ahead.ALL)
    try:
        statistics = _find_statistics(cohort)
        if statistics is not None:
            _embed(cohort, statistics)
            summarise(cohort, statistics)
        cohort.write_recordings("" if statistics is None else statistics.description)
    except KeyboardInterrupt:
        reason = "the call was stopped before the group level was finished"
        cohort.report(GROUP, Outcome(FAILED, reason))
        _finish(cohort, cohort.group_rows(), described=False, stopped=True)
        raise
    rows = cohort.rows()
    return max(exit_code(rows), _finish(cohort, rows, described=statistics is not None))


def _finish(cohort: Cohort, rows: Sequence[Row], *, described: bool, stopped: bool = False) -> int:
    """The status table, methods, report and index. The last screen has the rows in any case."""
    out = cohort.settings.output_dir
    try:
        write_status(out, cohort.run_id, rows)
        if described:
            _write_methods(cohort)
            _write_report(cohort)
        return EXIT_OK if stopped else _index(cohort)
    finally:
        print_table(rows, out, cohort.run_id, cohort.progress.elapsed, page=GROUP)


def _index(cohort: Cohort) -> int:
    with cohort.progress.doing("index of all recordings"):
        return rebuild_index(cohort.settings)


def _print_plan(cohort: Cohort) -> int:
    """The dry run: a line per recording, and what is computed from those that are included."""
    rows = [(one.stem, one.status, one.reason or "") for one in cohort.recordings]
    print(messages.printable(opening.aligned([("recording", "status", "note"), *rows])))
    opening.tell(_summary(cohort))
    failed = any(recording.status == UNUSABLE for recording in cohort.recordings)
    return EXIT_FAILED if failed else EXIT_OK


def _summary(cohort: Cohort) -> dict[str, str]:
    """What a call found, and what it will do, by the words that it is listed under."""
    settings, statuses = cohort.settings, Counter(one.status for one in cohort.recordings)
    subjects = {recording.participant for recording in cohort.included}
    found = ", ".join(f"{number} {status}" for status, number in statuses.items())
    decoded = ", ".join(settings.target)
    people = opening.number_of(len(subjects), "subject")
    return {
        "version": f"brainlm-bids {__version__}, group level",
        "recordings": f"{found}, of {people} in {settings.output_dir}",
        "variables": ", ".join(cohort.variables),
        "decoded": ", ".join(filter(None, (decoded, settings.decode_states and "states"))),
        **opening.about_resources(settings, cohort.resources),
        **opening.about_machine(settings),
    }


# --- statistics over the cohort --------------------------------------------------------------


def _find_statistics(cohort: Cohort) -> ScalingSource | None:
    """Statistics for scaling: given, complete, or computed now; None if that failed."""
    settings = cohort.settings
    if settings.scaling_stats is not None:
        cohort.progress.expect({}, instead=ahead.STATISTICS)
        return ScalingSource(settings.scaling_stats, settings.scaling_stats.name)
    path, included = cohort.naming.path("scaling"), cohort.included
    configuration = configuration_hash(
        {
            "version": __version__,
            "model_tr": settings.model_tr,
            "scaling_volumes": settings.scaling_volumes,
            "recordings": {recording.stem: recording.configuration for recording in included},
        }
    )
    if not _compute_statistics(cohort, configuration):
        return None
    cohort.progress.expect({}, instead=ahead.STATISTICS)
    sidecar = files.read_json(path.with_suffix(".json"))
    for stem, reason in sidecar["Unreadable"].items():
        cohort.leave_out(stem, reason)
    n_recordings, n_subjects = sidecar["NumberOfRecordings"], sidecar["NumberOfSubjects"]
    description = f"{path.name}, {n_recordings} recordings of {n_subjects} subjects"
    return ScalingSource(path, description)


def _compute_statistics(cohort: Cohort, configuration: str) -> bool:
    """Compute the statistics unless they are complete; return whether they are now."""
    settings, included = cohort.settings, cohort.included
    # one file, and one record, per atlas, whatever the tasks
    stem = build(GROUP, {"atlas": cohort.naming.atlas}).stem
    record = (settings.output_dir, stem, "scaling", configuration)
    if outputs.is_complete(*record):
        return True
    sidecar = {
        "RepetitionTime": settings.model_tr,
        "VolumesPerRecording": settings.scaling_volumes or "all",
        "Atlas": cohort.naming.atlas,
    }
    naming = dataclasses.replace(cohort.naming, stem=stem)
    graph = graphs.statistics_workflow(included, naming, sidecar, configuration, settings)
    execute(graph, settings, cohort.run_id, cohort.progress, ahead.STATISTICS)
    # it contains another copy of the volumes of the whole cohort
    shutil.rmtree(settings.work_dir / graphs.STATISTICS, ignore_errors=True)
    if outputs.is_complete(*record):
        return True
    cohort.report_crashes(graph, [graphs.POOLED], expected=True)
    return False


# --- embeddings with the cohort's statistics ------------------------------------------------


def _embed(cohort: Cohort, statistics: ScalingSource) -> None:
    """Scale and embed every recording that is not complete with these statistics."""
    settings, sha256 = cohort.settings, files.file_sha256(statistics.path)
    plans = [_plan(cohort, recording, sha256) for recording in cohort.included]
    pending = [plan for plan in plans if plan.stages.pending]
    for plan in plans:
        if not plan.stages.pending:
            outcome = evaluate(settings, plan.stages, None, cohort.run_id, stopped=False)
            cohort.record_outcome(plan.stages, outcome)
    cohort.progress.expect(_steps(pending), instead=ahead.RECORDINGS)
    if not pending:
        return
    check_weights(cohort.resources.models.values())
    inputs = materialise(settings, cohort.resources)
    for start in range(0, len(pending), RECORDINGS_PER_GRAPH):
        part = pending[start : start + RECORDINGS_PER_GRAPH]
        graph = graphs.recordings_workflow(part, statistics, inputs, settings)
        counted = tuple(f"{ahead.RECORDINGS}{plan.stages.recording}/" for plan in part)
        execute(graph, settings, cohort.run_id, cohort.progress, counted)
        for plan in part:
            outcome = evaluate(settings, plan.stages, graph, cohort.run_id, stopped=False)
            cohort.record_outcome(plan.stages, outcome)


def _steps(plans: Sequence[CohortPlan]) -> dict[str, Step]:
    """What is to be done for some recordings, before their graphs are built."""
    steps: dict[str, Step] = {}
    for plan in plans:
        scale = [] if plan.stages.series.complete else ["scale"]
        labels = [model.label for model in plan.stages.models if not model.complete]
        steps |= ahead.recording_steps(plan.stages.recording, scale, labels)
    return steps


def _plan(cohort: Cohort, recording: Recording, statistics: str) -> CohortPlan:
    settings = cohort.settings
    stages = plan_recording(
        settings,
        Stage(recording.stem, outputs.COHORT_SERIES_STAGE),
        cohort_inputs(settings, recording, statistics),
        cohort.models,
        scaling=cohort.naming.scaling,
    )
    return CohortPlan(stages, cohort_context(recording, cohort.models))


# --- methods and report ----------------------------------------------------------------------


def _write_methods(cohort: Cohort) -> None:
    """How the cohort was analysed, and how all of its runs were processed."""
    from brainlm_bids.report.methods_group import cohort_methods

    write_methods(cohort.settings)
    write_manuscript(cohort.settings, cohort_methods(cohort.naming, list(cohort.models)))


def _write_methods_again(cohort: Cohort) -> int:
    if not cohort.naming.path("group_recordings").is_file():
        raise UserError(
            f"{cohort.settings.output_dir}: --boilerplate-only describes a finished analysis, and "
            "there is none; run the level group first"
        )
    _write_methods(cohort)
    return EXIT_OK


def _write_report(cohort: Cohort) -> None:
    from brainlm_bids.report.group import build_group_report
    from brainlm_bids.report.places import refresh

    naming = cohort.naming
    with cohort.progress.step(ahead.report_key(GROUP)):
        page = build_group_report(
            cohort.settings.output_dir,
            naming.stem,
            naming.space,
            naming.atlas,
            version=__version__,
            single_file=cohort.settings.single_file_report,
        )
    tell_size(cohort.settings, page)
    refresh(cohort.settings.output_dir)
