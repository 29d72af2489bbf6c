"""The process that worker processes are forked from, and what all of these have in common."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from types import TracebackType

PRELOADED = "brainlm_bids.app.preloaded"
KILLED = "a process died: it was killed from outside, or a library crashed"


def why_none() -> OSError | None:
    """Why no worker processes can be started; None if they can.

    Their queues need semaphores, which lie in /dev/shm, and a socket in the folder for temporary
    files, whose address has room for about a hundred bytes.
    """
    try:
        multiprocessing.get_context("forkserver").Lock()
        with connection.Listener(family="AF_UNIX"):
            pass
    except OSError as error:
        return error
    return None


def start() -> None:
    """Start the process that workers are forked from, if there is none.

    A terminal sends Ctrl-C to all processes of a call, which handles it. This one would end with a
    traceback until it ignores it (`preloaded`): the signal waits for that.
    """
    forkserver.set_forkserver_preload([PRELOADED])
    # it unblocks the signal once it has started a process
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin() -> None:
    """Set up a worker: Ctrl-C is for the call, whose end is the worker's end, however it comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_the_call, daemon=True).start()


def tell(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None = None
) -> None:
    """Tell of a worker that could not begin, unless its call is at its end.

    A call that is stopped removes the semaphores and closes the pipes of workers that are just
    being forked. Where it goes on, it finds that the worker has died, and says so itself.
    """
    frames = traceback.extract_tb(trace)
    gone = isinstance(error, FileNotFoundError | EOFError | ConnectionError)
    if not (gone and frames and Path(frames[-1].filename).parent.name == "multiprocessing"):
        sys.__excepthook__(kind, error, trace)


def _die_with_the_call() -> None:
    """End this worker when the main process was killed; it would continue unnoticed."""
    call = multiprocessing.parent_process()
    if call is not None:
        connection.wait([call.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)
