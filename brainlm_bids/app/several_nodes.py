"""Several nodes of a graph in one job of a scheduler, one after the other.

Nipype submits a job for each node. Thousands of jobs that take seconds are a burden to a scheduler
and wait longer than they compute. What a node is, its process and its crash file stay the same, and
so do the results, whatever the number.
"""

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Plugin = Any
else:
    _Plugin = object

# Seconds for which the answer that a job is pending counts for all of its nodes.
ANSWER_COUNTS = 1.0


class _SeveralNodes(_Plugin):
    """Nodes are known to it by negative numbers, jobs by those of the scheduler."""

    n: int

    def __init__(self, plugin_args: dict[str, Any]) -> None:
        super().__init__(plugin_args=plugin_args)
        # nodes that wait for others to share a job with: number, node, script
        self._held: list[tuple[int, Any, str]] = []
        self._n_nodes = 0
        self._jobs: dict[int, Any] = {}
        self._seen: dict[Any, float] = {}

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        from nipype.pipeline.plugins.tools import create_pyscript

        self._n_nodes += 1
        script = create_pyscript(node, updatehash=updatehash)
        self._held.append((-self._n_nodes, node, script))
        if len(self._held) >= self.n:
            self._submit_held()
        return -self._n_nodes

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        super()._send_procs_to_workers(updatehash=updatehash, graph=graph)
        if self._held:
            self._submit_held()

    def _submit_held(self) -> None:
        _, first, script = self._held[0]
        # in a shell that goes on when a process ends badly
        lines = [shlex.join([sys.executable, path]) for _, _, path in self._held]
        path = Path(script).with_name(f"batchscript_{Path(script).stem}.sh")
        path.write_text("\n".join([self._template.rstrip("\n"), *lines, ""]))
        job = self._submit_batchtask(str(path), first)
        del self._pending[job]
        for number, node, _ in self._held:
            self._pending[number], self._jobs[number] = node.output_dir(), job
        self._held.clear()

    def _is_pending(self, number: int) -> bool:
        job = self._jobs[number]
        if time.monotonic() - self._seen.get(job, -ANSWER_COUNTS) < ANSWER_COUNTS:
            return True
        pending = bool(super()._is_pending(job))
        if pending:
            self._seen[job] = time.monotonic()
        return pending

    def _get_result(self, number: int) -> Any:
        result = super()._get_result(number)
        if result and isinstance(result["traceback"], str):  # there is no file from the node
            job = f"Job id ({self._jobs[number]})"
            result["traceback"] = result["traceback"].replace(f"Job id ({number})", job)
        return result


def several_nodes(plugin: type, n: int) -> Any:
    """The plugin of a scheduler, which submits n nodes in one job.

    Parameters
    ----------
    plugin : type
        A plugin of Nipype that waits for the jobs of a scheduler.
    n : int
        Nodes in a job; the last job of those that are ready has fewer.

    Returns
    -------
    type
        The plugin.
    """
    return type(plugin.__name__, (_SeveralNodes, plugin), {"n": n})
