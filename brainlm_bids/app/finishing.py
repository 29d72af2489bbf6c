"""The end of a call: status table, methods text, pages, index, and the exit code."""

from collections.abc import Sequence

from brainlm_bids.app.completion import is_told, tell_complete
from brainlm_bids.app.dataset import write_methods, write_methods_beside_results, write_reports
from brainlm_bids.app.figures import draw_missing
from brainlm_bids.app.index import enter_into_index, index_again, is_entered
from brainlm_bids.app.status import (
    CACHED,
    EXIT_OK,
    Row,
    as_texts,
    exit_code,
    print_table,
    tell_reports,
    write_status,
)
from brainlm_bids.bids.names import with_prefix
from brainlm_bids.bids.runs import Run, by_subject
from brainlm_bids.errors import UserError
from brainlm_bids.progress import Progress
from brainlm_bids.settings import Settings, configuration_hash
from brainlm_bids.workflows.plans import RunPlan

INDEX = "index of all recordings"  # in words


def code_of(rows: Sequence[Row], taken: Sequence[Run]) -> int:
    """The exit code of a call by its rows; UserError if there was nothing to do."""
    if not taken:
        raise UserError(
            f"nothing to do: {len(rows)} files look like BOLD runs, and none is taken; the rows of "
            "the status table say why"
        )
    return exit_code(rows)


def write_reports_again(settings: Settings, taken: Sequence[Run], progress: Progress) -> int:
    """`--reports-only`: pages and index from existing outputs; returns the exit code."""
    code = _write_pages(settings, taken, progress)
    with progress.doing(INDEX):
        code = max(code, index_again(settings, taken))
    subjects = by_subject(taken)
    pages = ("index", *(with_prefix("sub", subject) for subject in subjects))
    tell_reports(settings.output_dir, len(subjects), progress.elapsed, *pages)
    return code


def write_methods_again(settings: Settings) -> int:
    """`--boilerplate-only`: the methods text from existing outputs; returns the exit code."""
    if write_methods(settings):
        return EXIT_OK
    raise UserError(
        f"{settings.output_dir}: --boilerplate-only describes finished runs, and there is none of "
        "the selection; process them first"
    )


def finish(
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
        texts = as_texts(rows)
        # a call that was killed may have computed all of them, and written no page
        cached = all(row.status == CACHED for row in rows) and is_told(settings.output_dir, texts)
        if not stopped and not cached:
            code = max(code, _write_pages(settings, runs, progress))
        if not (cached and is_entered(settings, texts)):
            with progress.doing(INDEX):
                entered = enter_into_index(settings, run_id, runs, texts, stopped=stopped)
            code = max(code, entered)
        if not stopped:
            tell_complete(settings, texts)
        return code
    finally:
        print_table(rows, settings.output_dir, run_id, progress.elapsed)


def about_methods(settings: Settings, plans: Sequence[RunPlan]) -> str:
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
    code = draw_missing(settings, list(by_subject(runs)), progress)
    return max(code, write_reports(settings, runs, progress))
