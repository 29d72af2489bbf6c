"""Figures of recordings that a call left out, drawn before their pages are written."""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from brainlm_bids import resources
from brainlm_bids.app import fork_server
from brainlm_bids.app.dataset import internal_error
from brainlm_bids.app.status import EXIT_FAILED, EXIT_OK
from brainlm_bids.bids.derivatives import Derivative, OfParticipant, find_derivatives
from brainlm_bids.bids.names import in_words
from brainlm_bids.errors import UserError
from brainlm_bids.progress import Progress, Step
from brainlm_bids.report import drawing
from brainlm_bids.settings import Settings

LOG = logging.getLogger("brainlm_bids")
# From this number on, drawing in workers saves more time than starting them takes.
FEW = 4


def draw_missing(settings: Settings, subjects: Sequence[str], progress: Progress) -> int:
    """Draw what `--figures` asks for and is not there, of what the output folder alone tells.

    Parameters
    ----------
    settings
        Of the call.
    subjects
        Labels of those whose pages are to be written.
    progress
        Of the call.

    Returns
    -------
    int
        The exit code: a figure that fails costs no page.
    """
    if settings.figures == "none" or not subjects:
        return EXIT_OK
    found = find_derivatives(
        settings.output_dir, ("robust", "embeddings"), OfParticipant(tuple(subjects))
    )
    work = {one.path.name: one for one in found if _is_wanted(settings, one)}
    progress.expect({f"figures {name}": Step(_words(one), "figures") for name, one in work.items()})
    code = EXIT_OK
    for name, result in _drawn(settings, work):
        try:
            with progress.step(f"figures {name}"):
                result()
        except UserError as error:
            LOG.error(f"{name}: its figures could not be drawn: {error}")
            code = EXIT_FAILED
        except Exception as error:  # the others have theirs
            code = internal_error(settings, f"{name}: internal error in its figures", error)
    return code


def _is_wanted(settings: Settings, one: Derivative) -> bool:
    missing = drawing.is_missing(one.naming, one.model)
    return missing and drawing.wanted(settings.figures, one.naming, one.model)


def _words(one: Derivative) -> str:
    about = in_words(one.naming.stem)
    return f"{about}: figures, {one.model}" if one.model else f"{about}: figures"


def _draw(one: Derivative, template: str | None) -> list[Path]:
    if not one.model:
        return drawing.draw_recording(one.naming, missing=True)
    below = _background(template)
    return drawing.draw_model(one.naming, one.model, background=below, missing=True)


@cache
def _background(template: str | None) -> drawing.Volume | None:
    """The T1w image of `--template`; None where it would have to be fetched."""
    try:
        return resources.find_template(template, offline=True).load_t1w()
    except UserError:
        return None


def _drawn(
    settings: Settings, work: dict[str, Derivative]
) -> Iterator[tuple[str, Callable[[], list[Path]]]]:
    """Names with what waits for their figures; in as many processes as the call may use."""
    if settings.nprocs == 1 or len(work) < FEW or fork_server.why_none() is not None:
        yield from ((name, partial(_draw, one, settings.template)) for name, one in work.items())
        return
    left = dict(work)
    with _workers(settings.nprocs) as pool:
        names: dict[Future[list[Path]], str] = {
            pool.submit(_draw, one, settings.template): name for name, one in work.items()
        }
        for future in as_completed(names):
            if not isinstance(future.exception(), BrokenProcessPool):
                del left[names[future]]
                yield names[future], future.result
    # a process died, and it is not known of which figure
    for name, one in left.items():
        yield name, partial(_drawn_alone, one, settings.template)


def _drawn_alone(one: Derivative, template: str | None) -> list[Path]:
    """Draw in a process of its own; UserError if that dies."""
    with _workers(1) as pool:
        try:
            # a pool does not watch its latest process until it hears of the next task (CPython)
            pool.submit(os.getpid).result()
            return pool.submit(_draw, one, template).result()
        except BrokenProcessPool:
            raise UserError(fork_server.KILLED) from None


@contextmanager
def _workers(number: int) -> Iterator[ProcessPoolExecutor]:
    fork_server.start()
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(number, context, initializer=fork_server.begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
