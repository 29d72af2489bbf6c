"""The index of the output folder, which every call keeps up to date."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from brainlm_bids import __version__
from brainlm_bids.app.dataset import internal_error
from brainlm_bids.app.execution import new_run_id
from brainlm_bids.app.status import CACHED, EXIT_OK
from brainlm_bids.bids.names import with_prefix
from brainlm_bids.bids.runs import Run, by_subject
from brainlm_bids.settings import Settings

LOG = logging.getLogger("brainlm_bids")


def enter_into_index(
    settings: Settings,
    run_id: str,
    runs: Sequence[Run],
    rows: Sequence[Mapping[str, str | None]],
    *,
    stopped: bool = False,
) -> int:
    """Enter a call into the index; one that was stopped leaves that to the next.

    Parameters
    ----------
    settings
        Of the call.
    run_id
        Of the call.
    runs
        Of the call.
    rows
        Of its status table.
    stopped
        Whether the call was stopped.

    Returns
    -------
    int
        The exit code.
    """
    from brainlm_bids.report.index import note_call, update_index

    labels = [*by_subject(runs), *(row["participant_id"] or "" for row in rows)]
    subjects = sorted({with_prefix("sub", label) for label in labels if label})
    with _telling(settings) as outcome:
        note_call(settings.output_dir, run_id, subjects, rows)
        if not stopped:
            update_index(settings.output_dir, subjects, version=__version__)
    return outcome.code


def is_entered(settings: Settings, rows: Sequence[Mapping[str, str | None]]) -> bool:
    """Whether the index has all recordings of a call that computed nothing, as it would enter them.

    Parameters
    ----------
    settings
        Of the call.
    rows
        Of its status table.
    """
    from brainlm_bids.report.index import entered_as_done

    if any(row["status"] != CACHED for row in rows):
        return False
    return {row["recording"] for row in rows} <= entered_as_done(settings.output_dir)


def rebuild_index(settings: Settings) -> int:
    """Make the index anew, from all files of the folder; returns the exit code."""
    from brainlm_bids.report import index

    with _telling(settings) as outcome:
        index.rebuild_index(settings.output_dir, version=__version__)
    return outcome.code


def index_again(settings: Settings, runs: Sequence[Run]) -> int:
    """The index after reports were written again: anew, unless the call is about some subjects.

    Returns
    -------
    int
        The exit code.
    """
    if not settings.participant_label:
        return rebuild_index(settings)
    from brainlm_bids.report.status import latest_rows

    # their status stands in the tables of the calls that processed them
    subjects = {with_prefix("sub", label) for label in by_subject(runs)}
    rows = latest_rows(settings.output_dir)
    theirs = [
        {**row, "recording": stem}
        for stem, row in rows.items()
        if row["participant_id"] in subjects
    ]
    return enter_into_index(settings, new_run_id(), runs, theirs)


@dataclass
class _Outcome:
    """The exit code of a part of a call."""

    code: int = EXIT_OK


@contextlib.contextmanager
def _telling(settings: Settings) -> Iterator[_Outcome]:
    """An error in the index costs no result, and is told."""
    outcome = _Outcome()
    try:
        yield outcome
    except TimeoutError as error:
        LOG.warning("the index was not updated (%s); the next call will do it", error)
    except Exception as error:
        outcome.code = internal_error(settings, "internal error in the index", error)
