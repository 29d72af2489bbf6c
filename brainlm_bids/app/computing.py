"""The graph of a call is run, and what it needs is fetched before and dropped afterwards."""

import logging
import shutil
from collections.abc import Sequence

from brainlm_bids.app.execution import execute
from brainlm_bids.app.fetching import fetch, why_not_begun
from brainlm_bids.app.plan import evaluate
from brainlm_bids.app.planning import Call, distortion_done, plan_runs, row_not_begun, row_of
from brainlm_bids.app.resources import Resources, materialise
from brainlm_bids.app.sizes import sizes_of
from brainlm_bids.app.status import Row
from brainlm_bids.bids.known_inputs import KnownInputs
from brainlm_bids.bids.names import in_words
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.progress import Progress
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.graph import Graph
from brainlm_bids.workflows.plans import RunPlan

LOG = logging.getLogger("brainlm_bids")


def known_inputs(settings: Settings, *, verify: bool = False) -> KnownInputs:
    """What is recorded of the input files of earlier calls; verify: contents are read again."""
    # derivatives may lie in what they were made from
    made = reversed(settings.derivatives_dirs.items())
    roots = {**dict(made), "raw": settings.bids_dir}
    return KnownInputs(settings.output_dir, roots, verify=verify or settings.verify_inputs)


def clean(settings: Settings) -> None:
    """Empty the work folder, if that is asked for."""
    from brainlm_bids.workflows.participant import WORKFLOW

    if settings.clean_workdir and (settings.work_dir / WORKFLOW).exists():
        shutil.rmtree(settings.work_dir / WORKFLOW)


def compute(
    call: Call, plans: Sequence[RunPlan], sources: SourceFiles, left: Sequence[Run]
) -> tuple[list[Row], KeyboardInterrupt | None]:
    """Compute what is pending, and drop what was fetched for it.

    Parameters
    ----------
    call : Call
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


def fetch_and_compute(
    call: Call, together: Sequence[Run], left: Sequence[Run]
) -> tuple[list[RunPlan], list[Row], KeyboardInterrupt | None]:
    """Fetch some runs and compute them; their plans, and the rest as of `compute`."""
    assert call.fetcher is not None
    LOG.info("fetching the files of %s", "; ".join(in_words(run.stem) for run in together))
    # what is recorded of contents does not stand for them here
    records = known_inputs(call.settings, verify=True)
    try:
        with call.progress.doing("fetching with DataLad"):
            found, sources = fetch(call.fetcher, call.selection, together, records)
    except KeyboardInterrupt as signal:
        reason = why_not_begun(call.settings, (), stopped=True)
        return [], [row_not_begun(run, reason) for run in together], signal
    with call.progress.doing("planning"):
        plans, rows, _ = plan_runs(call, found, sources)
    done, stop = compute(call, plans, sources, left)
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
        rows.append(row_of(plan.run, outcome, _distortion(settings, plan)))
        if plan.stages.series not in outcome.unfinished:
            sources.note(plan.run.stem, plan.run.inputs, plan.run.beside)
    return rows


def _distortion(settings: Settings, plan: RunPlan) -> str:
    """What was done about a run's distortion; what was planned where it was not finished."""
    if plan.stages.series.complete:
        return plan.distortion
    return distortion_done(settings, plan.run) or plan.distortion
