"""Plans of the runs of a call: what is to be done for each, or why nothing can be."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from brainlm_bids import files
from brainlm_bids.annex import not_fetched
from brainlm_bids.app.context import anatomical_context, run_context
from brainlm_bids.app.datalad import Fetcher
from brainlm_bids.app.execution import crash_folder
from brainlm_bids.app.fetching import dropped
from brainlm_bids.app.parcellations import with_parcellations
from brainlm_bids.app.plan import plan_recording, run_inputs
from brainlm_bids.app.resources import Resources, with_space_resources
from brainlm_bids.app.status import FAILED, SKIPPED, Outcome, Row
from brainlm_bids.bids.distortion import in_one_line
from brainlm_bids.bids.inputs import Selection
from brainlm_bids.bids.names import why_unusable
from brainlm_bids.bids.outputs import SERIES_STAGE
from brainlm_bids.bids.recordings import distortion_of_series
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.progress import Progress
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.graph import Stage
from brainlm_bids.workflows.plans import RunPlan

LOG = logging.getLogger("brainlm_bids")


@dataclass(frozen=True)
class Call:
    """What the steps of a call share."""

    settings: Settings
    resources: Resources
    selection: Selection
    fetcher: Fetcher | None
    run_id: str
    progress: Progress


def row_of(run: Run, outcome: Outcome, distortion: str | None = None) -> Row:
    """The row of a run in the status table."""
    source = run.source.relative_to(run.bids_dir).as_posix()
    return Row.of_recording(run.entities, source, outcome, distortion, run.stem)


def row_not_begun(run: Run, reason: str) -> Row:
    """The row of a run that was planned, and not begun for a reason."""
    return row_of(run, Outcome(FAILED, f"{run.stem}: {reason}"))


def plan_runs(
    call: Call, runs: Sequence[Run], sources: SourceFiles
) -> tuple[list[RunPlan], list[Row], list[Run]]:
    """Plans for the runs that can be processed, rows for those that cannot.

    The runs that are left are those whose files are to be fetched.
    """
    settings, plans, rows, waiting = call.settings, [], [], []
    for run in call.progress.within(runs, "run"):
        plan = _plan_run(settings, run, call.resources, sources)
        if isinstance(plan, RunPlan):
            absent = dropped(plan)
            if not absent:
                plans.append(plan)
                continue
            plan = replace(run, absent=absent, problem=not_fetched(run.stem, absent))
        if plan.absent and settings.datalad_get:
            waiting.append(plan)
        else:
            rows.append(_left_out(settings, plan, call.run_id))
    return plans, rows, waiting


def _left_out(settings: Settings, run: Run, run_id: str) -> Row:
    """The row of a run that cannot be processed, or is left out by a stated policy."""
    if run.problem is None:
        LOG.warning("skipped: %s", run.skip)
        return row_of(run, Outcome(SKIPPED, run.skip or ""))
    LOG.error("failed: %s", run.problem)
    crash = None
    if run.traceback and not settings.dry_run:
        crash = crash_folder(settings, run_id) / f"planning-{run.stem}.txt"
        files.write_text(crash, run.traceback)
    elif run.traceback:
        LOG.error(run.traceback)
    return row_of(run, Outcome(FAILED, run.problem, crash_file=crash))


def _plan_run(
    settings: Settings, run: Run, resources: Resources, sources: SourceFiles
) -> RunPlan | Run:
    """The plan of a run; or the run with the reason why there is none."""
    if run.problem is not None or run.skip is not None:
        return run
    unusable = why_unusable(run.stem)
    if unusable is not None:
        return replace(run, problem=f"{run.source.name}: {unusable}")
    try:
        run = with_space_resources(run, settings, resources)
        if run.problem is not None:
            return run
        plan = make_plan(settings, run, resources, sources)
    except Exception as error:
        return run.broken(error)
    for warning in run.warnings:
        LOG.warning(warning.text)
    if not run.timeseries:
        LOG.debug("%s: distortion correction: %s", run.stem, plan.context.distortion)
    return plan


def make_plan(
    settings: Settings, run: Run, resources: Resources, sources: SourceFiles | None = None
) -> RunPlan:
    """Compare what is to be done for a run with what is done; sources: reads its files."""
    inputs = run_inputs(settings, run, resources, sources)
    stages = plan_recording(
        settings,
        Stage(run.stem, SERIES_STAGE),
        inputs,
        resources.models,
        parcellations=resources.parcellations,
    )
    context = run_context(settings, run, resources, stages.series.configuration)
    context = with_parcellations(context, stages, settings, resources.parcellations)
    anatomy = (
        None if run.t1w is None else anatomical_context(settings, run.t1w, run.lesions, context)
    )
    distortion = str(context.distortion)
    if stages.series.complete:
        distortion = distortion_done(settings, run) or distortion
    return RunPlan(run, stages, context, anatomy, distortion)


def distortion_done(settings: Settings, run: Run) -> str:
    """What was done about the distortion of a run, by its series; empty if they do not tell."""
    return in_one_line(distortion_of_series(settings.output_dir, run.stem))
