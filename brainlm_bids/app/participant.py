"""Runs an analysis level: finds resources and runs, plans, executes the graph, reports.

What comes in: `Settings`. What goes out: derivatives, reports, a status table, and an exit code. A
run is the unit of failure and of resumption: one that is complete under the same configuration is
not computed again.
"""

import contextlib
import logging
import os
from collections.abc import Sequence
from functools import partial

from brainlm_bids import messages
from brainlm_bids.app import ahead, opening
from brainlm_bids.app.completion import withdraw
from brainlm_bids.app.computing import clean, compute, fetch_and_compute, known_inputs
from brainlm_bids.app.dataset import write_dataset
from brainlm_bids.app.execution import make_folders, new_run_id
from brainlm_bids.app.fetching import (
    fetch_sidecars,
    fetches,
    prepare,
    rounds,
    start_fetching,
    to_fetch,
    why_not_begun,
)
from brainlm_bids.app.finishing import (
    about_methods,
    code_of,
    finish,
    write_methods_again,
    write_reports_again,
)
from brainlm_bids.app.planning import Call, plan_runs, row_not_begun, row_of
from brainlm_bids.app.progress import start_progress
from brainlm_bids.app.resources import Resources, check_weights, find_resources, with_precision
from brainlm_bids.app.status import EXIT_OK, exit_code
from brainlm_bids.bids import inputs as bids_inputs
from brainlm_bids.bids.calls import record_call
from brainlm_bids.bids.describers import PreprocessedDescriber
from brainlm_bids.bids.given import given_timeseries
from brainlm_bids.bids.inputs import Selection, look_at
from brainlm_bids.bids.runs import Run, by_subject
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.progress import Progress, Step
from brainlm_bids.resources import parcels
from brainlm_bids.settings import Settings
from brainlm_bids.temporary import tidied

LOG = logging.getLogger("brainlm_bids")


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
        sources = SourceFiles(known_inputs(settings))
        with progress.doing(f"finding the runs in {settings.bids_dir}"):
            selection = _select_runs(settings, sources)
            fetcher = start_fetching(settings, selection, run_id, stack)
            runs = look_at(selection, sources)
            while fetcher is not None and fetch_sidecars(fetcher, runs):
                sources = SourceFiles(known_inputs(settings))
                runs = look_at(selection, sources)
        make_folders(settings)
        if not settings.dry_run:
            stack.enter_context(tidied(settings.output_dir))
        taken = [run for run in runs if run.taken]
        if settings.reports_only:
            return write_reports_again(settings, taken, progress)
        if settings.boilerplate_only:
            return write_methods_again(settings)
        resources = find_resources(settings)
        settings = with_precision(settings, resources)
        for text in resources.warnings:
            LOG.warning(text)
        call = Call(settings, resources, selection, fetcher, run_id, progress)
        return _process(call, runs, taken, sources, command)


def _process(
    call: Call,
    runs: Sequence[Run],
    taken: Sequence[Run],
    sources: SourceFiles,
    command: Sequence[str],
) -> int:
    settings, resources, progress = call.settings, call.resources, call.progress
    with progress.doing("planning"):
        plans, rows, waiting = plan_runs(call, runs, sources)
    pending = [plan.run for plan in plans if plan.stages.pending] + waiting
    if pending:
        with progress.doing("checking the model"):
            check_weights(resources.models.values())
    for folder in opening.too_full_folders(settings, plans):
        LOG.warning(folder)
    told = [*rows, *(row_of(run, to_fetch(run)) for run in waiting)]
    if settings.dry_run:
        print(messages.printable(opening.table(settings, plans, told)))
        opening.tell(opening.totals(settings, plans))
        return code_of(told, taken)
    opening.tell(opening.summary(settings, resources, plans, told))
    write_dataset(settings, resources)
    record_call(settings.output_dir, call.run_id, command, settings.to_toml())
    withdraw(settings.output_dir, pending)
    if pending:
        n_planned = len(plans) + len(waiting)
        progress.expect(_steps_around(settings, resources, taken, n_planned))
        clean(settings)
    done, signal = compute(call, plans, sources, waiting)
    rows += done
    batches = rounds(waiting, settings.nprocs)
    for place, together in enumerate(batches, start=1):
        reason = why_not_begun(settings, rows, stopped=signal is not None)
        if reason:
            rows += [row_not_begun(run, reason) for run in together]
            continue
        left = [run for batch in batches[place:] for run in batch]
        fetched, done, signal = fetch_and_compute(call, together, left)
        plans += fetched
        rows += done
    rows.sort(key=lambda row: row.source)
    stopped = signal is not None
    about = about_methods(settings, plans) if exit_code(rows) == EXIT_OK and not stopped else ""
    code = finish(settings, taken, rows, about, call.run_id, progress, stopped=stopped)
    if signal is not None:
        raise signal
    return max(code, code_of(rows, taken))


def _select_runs(settings: Settings, sources: SourceFiles) -> Selection:
    if settings.timeseries:
        given = given_timeseries(settings, parcels().names, sources)
        return Selection([], given, partial(PreprocessedDescriber, settings.bids_dir, None))
    return bids_inputs.select_runs(settings)


def _steps_around(
    settings: Settings, resources: Resources, taken: Sequence[Run], n_planned: int
) -> dict[str, Step]:
    """The steps of a call besides its graph: reports, and the group level if it follows."""
    steps = ahead.report_steps(by_subject(taken))
    if "group" in settings.analysis_level:
        steps |= ahead.group_steps(settings, n_planned, resources.models)
    return steps
