"""The worker processes that run the nodes of a graph, and recovery when one is killed.

What comes in: a graph. What goes out: crash files. Nipype's MultiProc plugin waits forever for a
process that was killed; here the step fails with the reason, and the other runs continue. The main
process computes nothing, so it survives when memory is short and reacts to signals at once.
"""

import logging
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin, run_node

from brainlm_bids import messages
from brainlm_bids.app import fork_server, machine

LOG = logging.getLogger("brainlm_bids")
GRACE = 2.0  # seconds that a worker has to remove the files that it was writing
# between -1000 and 1000: the kernel should kill a worker before the process that can report it
OOM_SCORE = "500"
SHARE = 0.9  # of the memory, that steps may take


class WorkersPlugin(MultiProcPlugin):
    """Nipype's MultiProc with workers that may die.

    If several steps were running when a process died, each is tried once more, alone: the one that
    is killed again has failed.

    Parameters
    ----------
    plugin_args : dict
        Arguments of MultiProc.
    verbose : int
        Verbosity of the workers' messages.
    """

    def __init__(self, plugin_args: dict[str, Any], verbose: int = 0) -> None:
        self._verbose = verbose
        values = {
            "memory_gb": SHARE * machine.available_memory() / 1e9,
            "raise_insufficient": False,
        }
        super().__init__(plugin_args=values | plugin_args)
        self.pool = self._new_pool()
        self._submitted: dict[int, tuple[Any, bool]] = {}
        self._broken = False
        self._workers: set[Any] = set()
        self._suspects: list[int] = []
        self._retried: set[int] = set()
        self._kills = machine.oom_kills()

    def _new_pool(self) -> ProcessPoolExecutor:
        # fork would copy locks of the threads of libraries loaded here
        context = multiprocessing.get_context("forkserver")
        fork_server.start()
        return ProcessPoolExecutor(
            max_workers=self.processors,
            mp_context=context,
            initializer=_begin,
            initargs=(self._cwd, self._verbose),
        )

    # --- called by MultiProc

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        self._submitted[self._taskid] = (node, updatehash)
        self._start(self._taskid)
        return int(self._taskid)

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        running = self._submitted.keys() - self._taskresult.keys() - set(self._suspects)
        if running and self._has_died():
            self._recover(sorted(running))
        elif self._suspects and not running:
            self._start(self._suspects.pop(0))
        result: dict[str, Any] | None = self._taskresult.get(taskid)
        return result

    def _clear_task(self, taskid: int) -> None:
        for table in (self._submitted, self._task_obj, self._taskresult):
            table.pop(taskid, None)

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        if self._alone:
            return
        super()._send_procs_to_workers(updatehash=updatehash, graph=graph)

    # --- recovery

    @property
    def _alone(self) -> bool:
        """Whether steps are tried one at a time, because a process died."""
        return bool(self._suspects or self._retried & self._submitted.keys())

    def _has_died(self) -> bool:
        # The pool alone would notice too late: it does not watch its latest process until another
        # has returned a result (CPython 3.11 to 3.13).
        alive = set(multiprocessing.active_children())
        dead = self._workers - alive
        self._workers |= alive
        return bool(dead) or self._broken

    def _start(self, taskid: int) -> None:
        node, updatehash = self._submitted[taskid]
        try:
            future = self.pool.submit(_work, node, updatehash, taskid)
        # the last two where the process that workers are forked from dies while it forks one
        except (BrokenProcessPool, EOFError, ConnectionError):
            self._broken = True
            return
        self._workers |= set(multiprocessing.active_children())
        self._task_obj[taskid] = future
        future.add_done_callback(partial(self._finished, taskid, self.pool))

    def _finished(
        self, taskid: int, pool: ProcessPoolExecutor, future: "Future[dict[str, Any]]"
    ) -> None:
        if pool is not self.pool:
            return  # of an abandoned pool, whose tasks are tried again
        try:
            self._taskresult[taskid] = future.result()
        except BrokenProcessPool:
            self._broken = True
        except Exception as error:  # a result that cannot be pickled, for example
            self._fail(taskid, "".join(traceback.format_exception(error)))

    def _recover(self, lost: list[int]) -> None:
        """Start a new pool; which of the running steps killed its process is not known."""
        old, self.pool = self.pool, self._new_pool()
        # the other workers are still running steps that are tried again
        _end_workers()
        old.shutdown(wait=False)
        self._broken, self._workers = False, set()
        before, self._kills = self._kills, machine.oom_kills()
        reason = fork_server.KILLED
        if before is not None and self._kills is not None and self._kills > before:
            reason = too_little_memory([self._submitted[taskid][0] for taskid in lost])
        if len(lost) == 1:
            self._fail(lost[0], f"brainlm_bids.errors.UserError: {reason}")
            return
        LOG.warning("%s; %d steps are tried again, one at a time", reason, len(lost))
        self._suspects = lost
        self._retried |= set(lost)

    def _fail(self, taskid: int, text: str) -> None:
        lines = text.splitlines(keepends=True)
        self._taskresult[taskid] = {"result": None, "traceback": lines, "taskid": taskid}

    def stop(self) -> None:
        """End the workers: they have `GRACE` seconds to clean up, then they are killed."""
        _end_workers()
        self.pool.shutdown(wait=False, cancel_futures=True)


def too_little_memory(nodes: Sequence[Any]) -> str:
    """Why steps failed that were killed for want of memory, and how much would do for each alone.

    Parameters
    ----------
    nodes
        Those that were running; they know how much they are expected to take
        (`workflows.nodes.make_node`).
    """
    limit = machine.available_memory() / 1e9
    step = max((float(getattr(node, "expected_gb", 0)) for node in nodes), default=0.0)
    # as much as this process has, and the part that the plugin leaves free
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    enough = (step + own) / SHARE
    number = f"{enough:.1f} GB would do for one step at a time: " if enough > limit else ""
    return (
        f"out of memory: a process was killed at the limit of {limit:.1f} GB; {number}give more "
        "memory, or fewer processes (--nprocs)"
    )


def _end_workers() -> None:
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + GRACE
    while time.monotonic() < until and any(worker.is_alive() for worker in workers):
        time.sleep(0.05)
    for worker in workers:
        # a worker in a loop of a library handles no other signal
        worker.kill()


def _begin(folder: str, verbose: int) -> None:
    """Set up a worker process."""
    messages.configure(verbose)
    os.chdir(folder)
    fork_server.begin()
    signal.signal(signal.SIGTERM, _leave)
    try:
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    except OSError:
        LOG.debug("the order in which the kernel kills processes cannot be changed here")


def _leave(number: int, frame: object) -> None:
    # an exception, so that temporary files are removed (`files.atomically`)
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def _work(node: Any, updatehash: bool, taskid: int) -> Any:
    """Run a node as Nipype does, which catches every exception, also the one that ends a worker."""
    result = run_node(node, updatehash, taskid)
    if signal.getsignal(signal.SIGTERM) is not _leave:
        os._exit(128 + signal.SIGTERM)
    return result
