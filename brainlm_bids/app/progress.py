"""The log lines of a running graph: one for every step that is done, or that failed, and why."""

import logging
from pathlib import Path
from typing import Any

from brainlm_bids.app.status import read_crashes
from brainlm_bids.workflows.graph import Graph

LOG = logging.getLogger("brainlm_bids")


class Progress:
    """The callback of Nipype's plugins when a node starts or ends.

    Parameters
    ----------
    graph : Graph
        The graph that is run.
    crashes : Path
        Folder of its crash files.
    """

    def __init__(self, graph: Graph, crashes: Path) -> None:
        self._titles, self._crashes = graph.titles(), crashes
        self._n_nodes, self._n_done = graph.n_nodes, 0
        self._failed: set[str] = set()
        self._reported: set[str] = set()

    @property
    def n_failed(self) -> int:
        """Number of nodes that failed."""
        return len(self._failed)

    def __call__(self, node: Any, status: str) -> None:
        """Log a change of a node's status: start, end, or exception."""
        title = self._title(node)
        if status == "end":
            self._n_done += 1
            LOG.info("%s done (%d of %d steps)", title, self._n_done, self._n_nodes)
        elif status == "exception":
            self._failed.add(node.fullname)
            self.report_failure(node)
        else:
            LOG.debug("%s started", title)

    def report_failure(self, node: Any) -> None:
        """Log once why a node failed, when its crash file exists."""
        crash = read_crashes(self._crashes, {node.fullname})
        if crash is None or node.fullname in self._reported:
            return
        self._reported.add(node.fullname)
        word, level = ("skipped", logging.WARNING) if crash.skipped else ("failed", logging.ERROR)
        LOG.log(level, "%s %s: %s", self._title(node), word, crash.reason)

    def _title(self, node: Any) -> str:
        return self._titles.get(node.fullname, str(node.fullname))
