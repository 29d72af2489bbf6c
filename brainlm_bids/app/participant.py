"""Runs an analysis level: finds resources and runs, plans, executes the graph, reports.

What comes in: `Settings`. What goes out: derivatives, reports, a status table, and an exit code. A
run is the unit of failure and of resumption: one that is complete under the same configuration is
not computed again.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from brainlm_bids import files, messages
from brainlm_bids.annex import not_fetched
from brainlm_bids.app import ahead, opening
from brainlm_bids.app.completion import tell_complete, withdraw
from brainlm_bids.app.context import anatomical_context, run_context
from brainlm_bids.app.datalad import Fetcher
from brainlm_bids.app.dataset import (
    write_dataset,
    write_methods,
    write_methods_beside_results,
    write_reports,
)
from brainlm_bids.app.execution import (
    crash_folder,
    execute,
    make_folders,
    new_run_id,
)
from brainlm_bids.app.fetching import (
    dropped,
    fetch,
    fetch_sidecars,
    fetches,
    prepare,
    rounds,
    start_fetching,
    to_fetch,
    why_not_begun,
)
from brainlm_bids.app.figures import draw_missing
from brainlm_bids.app.index import enter_into_index, index_again, is_entered
from brainlm_bids.app.parcellations import with_parcellations
from brainlm_bids.app.plan import evaluate, plan_recording, run_inputs
from brainlm_bids.app.progress import start_progress
from brainlm_bids.app.resources import (
    Resources,
    check_weights,
    find_resources,
    materialise,
    with_precision,
    with_space_resources,
)
from brainlm_bids.app.sizes import sizes_of
from brainlm_bids.app.status import (
    CACHED,
    EXIT_OK,
    FAILED,
    SKIPPED,
    Outcome,
    Row,
    as_texts,
    exit_code,
    print_table,
    tell_reports,
    write_status,
)
from brainlm_bids.bids import inputs as bids_inputs
from brainlm_bids.bids.calls import record_call
from brainlm_bids.bids.derivatives import distortion_of_series
from brainlm_bids.bids.distortion import in_one_line
from brainlm_bids.bids.given import given_timeseries
from brainlm_bids.bids.inputs import PreprocessedDescriber, Run, Selection, look_at
from brainlm_bids.bids.known_inputs import KnownInputs
from brainlm_bids.bids.names import in_words, why_unusable, with_prefix
from brainlm_bids.bids.outputs import SERIES_STAGE
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.errors import UserError
from brainlm_bids.progress import Progress, Step
from brainlm_bids.resources import parcels
from brainlm_bids.settings import Settings, configuration_hash
from brainlm_bids.workflows.graph import Graph, Stage
from brainlm_bids.workflows.plans import RunPlan

LOG = logging.getLogger("brainlm_bids")
INDEX = "index of all recordings"  # in words


def run(settings: Settings, command: Sequence[str] = ()) -> int:
    """Run the analysis and return 0 (all done, or skipped by a stated policy) or 1 (a run failed).

    Parameters
    ----------
    settings : Settings
        Of the call.
    command : sequence of str
        The words of the command line, which reports show; none for a call from Python.

    Raises
    ------
    UserError
        For what makes the whole call impossible: labels, resources, folders.
    """
    _set_up(settings)
    if fetches(settings):
        prepare(settings)
    levels = {"participant": _run_participant, "group": _run_group}
    with start_progress(settings) as progress:
        return max(
            level(settings, command, progress)
            for name, level in levels.items()
            if name in settings.analysis_level
        )


def _run_group(settings: Settings, command: Sequence[str], progress: Progress) -> int:
    from brainlm_bids.app import group  # its statistics take a second to import

    return group.run(settings, command, progress)


def _set_up(settings: Settings) -> None:
    messages.configure(settings.verbose)
    # Before numpy, torch and ITK are loaded here and in every worker: they read these once.
    threads = str(settings.omp_nthreads)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = threads
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = threads
    os.environ["NIPYPE_NO_ET"] = "1"


def _run_participant(settings: Settings, command: Sequence[str], progress: Progress) -> int:
    run_id = new_run_id()
    with contextlib.ExitStack() as stack:
        sources = SourceFiles(_known_inputs(settings))
        with progress.doing(f"finding the runs in {settings.bids_dir}"):
            selection = _select_runs(settings, sources)
            fetcher = start_fetching(settings, selection, run_id, stack)
            runs = look_at(selection, sources)
            while fetcher is not None and fetch_sidecars(fetcher, runs):
                sources = SourceFiles(_known_inputs(settings))
                runs = look_at(selection, sources)
        make_folders(settings)
        taken = [run for run in runs if run.taken]
        if settings.reports_only:
            return _write_reports_again(settings, taken, progress)
        if settings.boilerplate_only:
            return _write_methods_again(settings)
        resources = find_resources(settings)
        settings = with_precision(settings, resources)
        for text in resources.warnings:
            LOG.warning(text)
        call = _Call(settings, resources, selection, fetcher, run_id, progress)
        return _process(call, runs, taken, sources, command)


@dataclass(frozen=True)
class _Call:
    """What the steps of a call share."""

    settings: Settings
    resources: Resources
    selection: Selection
    fetcher: Fetcher | None
    run_id: str
    progress: Progress


def _process(
    call: _Call,
    runs: Sequence[Run],
    taken: Sequence[Run],
    sources: SourceFiles,
    command: Sequence[str],
) -> int:
    settings, resources, progress = call.settings, call.resources, call.progress
    with progress.doing("planning"):
        plans, rows, waiting = _plan(call, runs, sources)
    pending = [plan.run for plan in plans if plan.stages.pending] + waiting
    if pending:
        with progress.doing("checking the model"):
            check_weights(resources.models.values())
    for folder in opening.too_full_folders(settings, plans):
        LOG.warning(folder)
    told = [*rows, *(_row(run, to_fetch(run)) for run in waiting)]
    if settings.dry_run:
        print(messages.printable(opening.table(settings, plans, told)))
        opening.tell(opening.totals(settings, plans))
        return _code(told, taken)
    opening.tell(opening.summary(settings, resources, plans, told))
    write_dataset(settings, resources)
    record_call(settings.output_dir, call.run_id, command, settings.to_toml())
    withdraw(settings.output_dir, pending)
    if pending:
        n_planned = len(plans) + len(waiting)
        progress.expect(_steps_around(settings, resources, taken, n_planned))
        _clean(settings)
    done, signal = _compute(call, plans, sources, waiting)
    rows += done
    batches = rounds(waiting, settings.nprocs)
    for place, together in enumerate(batches, start=1):
        reason = why_not_begun(settings, rows, stopped=signal is not None)
        if reason:
            rows += [_not_begun(run, reason) for run in together]
            continue
        left = [run for batch in batches[place:] for run in batch]
        fetched, done, signal = _fetch_and_compute(call, together, left)
        plans += fetched
        rows += done
    rows.sort(key=lambda row: row.source)
    stopped = signal is not None
    about = _about_methods(settings, plans) if exit_code(rows) == EXIT_OK and not stopped else ""
    code = _finish(settings, taken, rows, about, call.run_id, progress, stopped=stopped)
    if signal is not None:
        raise signal
    return max(code, _code(rows, taken))


def _not_begun(run: Run, reason: str) -> Row:
    return _row(run, Outcome(FAILED, f"{run.stem}: {reason}"))


def _evaluated(
    settings: Settings,
    plans: Sequence[RunPlan],
    graph: Graph | None,
    run_id: str,
    sources: SourceFiles,
    *,
    stopped: bool,
) -> list[Row]:
    """Rows of the runs that were planned; the input files of finished series are recorded."""
    rows = []
    for plan in plans:
        outcome = evaluate(settings, plan.stages, graph, run_id, stopped=stopped)
        rows.append(_row(plan.run, outcome, _distortion(settings, plan)))
        if plan.stages.series not in outcome.unfinished:
            sources.note(plan.run.stem, plan.run.inputs, plan.run.beside)
    return rows


def _select_runs(settings: Settings, sources: SourceFiles) -> Selection:
    if settings.timeseries:
        given = given_timeseries(settings, parcels().names, sources)
        return Selection([], given, partial(PreprocessedDescriber, settings.bids_dir, None))
    return bids_inputs.select_runs(settings)


def _known_inputs(settings: Settings, *, verify: bool = False) -> KnownInputs:
    # derivatives may lie in what they were made from
    made = reversed(settings.derivatives_dirs.items())
    roots = {**dict(made), "raw": settings.bids_dir}
    return KnownInputs(settings.output_dir, roots, verify=verify or settings.verify_inputs)


def _steps_around(
    settings: Settings, resources: Resources, taken: Sequence[Run], n_planned: int
) -> dict[str, Step]:
    """The steps of a call besides its graph: reports, and the group level if it follows."""
    steps = ahead.report_steps(bids_inputs.by_subject(taken))
    if "group" in settings.analysis_level:
        steps |= ahead.group_steps(settings, n_planned, resources.models)
    return steps


def _code(rows: Sequence[Row], taken: Sequence[Run]) -> int:
    """The exit code of a call by its rows; UserError if there was nothing to do."""
    if not taken:
        raise UserError(
            f"nothing to do: {len(rows)} files look like BOLD runs, and none is taken; the rows of "
            "the status table say why"
        )
    return exit_code(rows)


def _write_reports_again(settings: Settings, taken: Sequence[Run], progress: Progress) -> int:
    code = _write_pages(settings, taken, progress)
    with progress.doing(INDEX):
        code = max(code, index_again(settings, taken))
    subjects = bids_inputs.by_subject(taken)
    pages = ("index", *(with_prefix("sub", subject) for subject in subjects))
    tell_reports(settings.output_dir, len(subjects), progress.elapsed, *pages)
    return code


def _write_methods_again(settings: Settings) -> int:
    if write_methods(settings):
        return EXIT_OK
    raise UserError(
        f"{settings.output_dir}: --boilerplate-only describes finished runs, and there is none of "
        "the selection; process them first"
    )


def _finish(
    settings: Settings,
    runs: Sequence[Run],
    rows: Sequence[Row],
    about: str,
    run_id: str,
    progress: Progress,
    *,
    stopped: bool,
) -> int:
    """The status table and the reports. The last screen has the rows, also on a full disk.

    about: hash of what the methods text depends on.
    """
    try:
        write_status(settings.output_dir, run_id, rows)
        with progress.doing("methods text"):
            code = EXIT_OK if stopped else write_methods_beside_results(settings, about)
        if not stopped and any(row.status != CACHED for row in rows):
            code = max(code, _write_pages(settings, runs, progress))
        texts = as_texts(rows)
        if not is_entered(settings, texts):
            with progress.doing(INDEX):
                entered = enter_into_index(settings, run_id, runs, texts, stopped=stopped)
            code = max(code, entered)
        if not stopped:
            tell_complete(settings, texts)
        return code
    finally:
        print_table(rows, settings.output_dir, run_id, progress.elapsed)


def _about_methods(settings: Settings, plans: Sequence[RunPlan]) -> str:
    """Hash of what the methods text of finished runs depends on: which they are, and how made."""
    selection = ("participant_label", "session_label", "task_id", "run_id")
    stages = [
        [*one.stage, one.configuration]
        for plan in plans
        for one in (plan.stages.series, *plan.stages.models)
    ]
    return configuration_hash({**settings.subset(selection), "stages": stages})


def _write_pages(settings: Settings, runs: Sequence[Run], progress: Progress) -> int:
    """The pages of subjects, with the figures that were left out by earlier calls."""
    code = draw_missing(settings, list(bids_inputs.by_subject(runs)), progress)
    return max(code, write_reports(settings, runs, progress))


def _row(run: Run, outcome: Outcome, distortion: str | None = None) -> Row:
    source = run.source.relative_to(run.bids_dir).as_posix()
    return Row.of_recording(run.entities, source, outcome, distortion, run.stem)


def _distortion(settings: Settings, plan: RunPlan) -> str:
    """What was done about a run's distortion; what was planned where it was not finished."""
    done = distortion_of_series(settings.output_dir, plan.run.stem)
    return in_one_line(done) or str(plan.context.distortion)


# --- planning --------------------------------------------------------------------------------


def _plan(
    call: _Call, runs: Sequence[Run], sources: SourceFiles
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
        return _row(run, Outcome(SKIPPED, run.skip or ""))
    LOG.error("failed: %s", run.problem)
    crash = None
    if run.traceback and not settings.dry_run:
        crash = crash_folder(settings, run_id) / f"planning-{run.stem}.txt"
        files.write_text(crash, run.traceback)
    elif run.traceback:
        LOG.error(run.traceback)
    return _row(run, Outcome(FAILED, run.problem, crash_file=crash))


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
    return RunPlan(run, stages, context, anatomy)


# --- executing -------------------------------------------------------------------------------


def _clean(settings: Settings) -> None:
    from brainlm_bids.workflows.participant import WORKFLOW

    if settings.clean_workdir and (settings.work_dir / WORKFLOW).exists():
        shutil.rmtree(settings.work_dir / WORKFLOW)


def _compute(
    call: _Call, plans: Sequence[RunPlan], sources: SourceFiles, left: Sequence[Run]
) -> tuple[list[Row], KeyboardInterrupt | None]:
    """Compute what is pending, and drop what was fetched for it.

    Parameters
    ----------
    call : _Call
        The call.
    plans : sequence of RunPlan
        Of runs whose files are there.
    sources : SourceFiles
        That these were read with.
    left : sequence of Run
        Whose files may be needed afterwards.

    Returns
    -------
    rows : list of Row
        What became of the runs.
    signal : KeyboardInterrupt or None
        What stopped the call; the caller raises it when the status table is written.
    """
    settings, run_id = call.settings, call.run_id
    pending = [plan for plan in plans if plan.stages.pending]
    graph, signal = None, None
    if pending:
        graph, signal = _execute(settings, call.resources, pending, run_id, call.progress)
    stopped = signal is not None
    rows = _evaluated(settings, plans, graph, run_id, sources, stopped=stopped)
    if call.fetcher is not None and not stopped:
        describer = call.selection.describer(SourceFiles())
        names = {run.stem for run in left}
        selected = [run for run in call.selection.runs if run.stem in names]
        try:
            call.fetcher.drop_unused([p for run in selected for p in describer.candidates(run)])
        except KeyboardInterrupt as stop:
            signal = stop
    return rows, signal


def _fetch_and_compute(
    call: _Call, together: Sequence[Run], left: Sequence[Run]
) -> tuple[list[RunPlan], list[Row], KeyboardInterrupt | None]:
    """Fetch some runs and compute them; their plans, and the rest as of `_compute`."""
    assert call.fetcher is not None
    LOG.info("fetching the files of %s", "; ".join(in_words(run.stem) for run in together))
    # what is recorded of contents does not stand for them here
    records = _known_inputs(call.settings, verify=True)
    try:
        with call.progress.doing("fetching with DataLad"):
            found, sources = fetch(call.fetcher, call.selection, together, records)
    except KeyboardInterrupt as signal:
        reason = why_not_begun(call.settings, (), stopped=True)
        return [], [_not_begun(run, reason) for run in together], signal
    with call.progress.doing("planning"):
        plans, rows, _ = _plan(call, found, sources)
    done, stop = _compute(call, plans, sources, left)
    return plans, [*rows, *done], stop


def _execute(
    settings: Settings,
    resources: Resources,
    plans: Sequence[RunPlan],
    run_id: str,
    progress: Progress,
) -> tuple[Graph, KeyboardInterrupt | None]:
    """Build the graph and run it.

    Returns
    -------
    graph : Graph
        As it was run.
    signal : KeyboardInterrupt or None
        What stopped it; the caller raises it when the status table is written.
    """
    from brainlm_bids.workflows.participant import participant_workflow

    graph = participant_workflow(plans, materialise(settings, resources), settings)
    try:
        sizes = sizes_of(plan.run for plan in plans)
        execute(graph, settings, run_id, progress, sizes=sizes)
    except KeyboardInterrupt as signal:
        return graph, signal
    return graph, None
