"""Progress of a graph: what Nipype's plugins report, as steps in words.

The main process is told by every plugin which nodes begin and end, also of worker processes and of
the jobs of a scheduler, so that it alone writes about them.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brainlm_bids.app.status import read_crashes
from brainlm_bids.progress import Progress
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.costs import Size
from brainlm_bids.workflows.graph import Graph

LOG = logging.getLogger("brainlm_bids")
# What to do about an error that is not the user's.
REPORT = "; repeat the command, and if it fails again, please report it with the crash file"
# Seconds by which the clocks of a cluster may differ.
SLACK = 60.0


def start_progress(settings: Settings) -> Progress:
    """The progress of a call."""
    running = "still running" if settings.use_plugin is None else "queued or running"
    return Progress(every=settings.verbose > 0, running=running)


class NodeProgress:
    """The callback of Nipype's plugins when a node starts or ends.

    Parameters
    ----------
    progress : Progress
        Of the call.
    graph : Graph
        The graph that is run.
    crashes : Path
        Folder of its crash files.
    instead : str or tuple of str
        What the keys of the steps begin with that were expected in place of this graph's.
    sizes : mapping of str to Size
        Of the recordings, by their names.
    refused : callable
        Which folder of the call takes no file, if one does not: it explains other errors.
    """

    def __init__(
        self,
        progress: Progress,
        graph: Graph,
        crashes: Path,
        instead: str | tuple[str, ...] = (),
        sizes: Mapping[str, Size] | None = None,
        refused: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._progress, self._graph, self._crashes = progress, graph, crashes
        self._steps = graph.steps(sizes)
        self._began, self._refused = time.time(), refused
        self._failed: set[str] = set()
        self._reported: set[str] = set()
        progress.expect(self._steps, instead)

    @property
    def n_failed(self) -> int:
        """Number of nodes that failed."""
        return len(self._failed)

    def __call__(self, node: Any, status: str) -> None:
        """Take note of a change of a node's status: start, end, or exception."""
        name = node.fullname
        if status == "end":
            seconds, cached = self._used(node)
            self._progress.end(name, seconds=seconds, cached=cached)
        elif status == "exception":
            self._failed.add(name)
            self._progress.fail(name)
            self._progress.drop(self._behind(name))
            self.report_failure(node)
        else:
            LOG.debug("%s started", self._title(node))
            self._progress.begin(name)

    def report_failure(self, node: Any) -> None:
        """Log once why a node failed, when its crash file exists."""
        crash = read_crashes(self._crashes, {node.fullname})
        if crash is None or node.fullname in self._reported:
            return
        self._reported.add(node.fullname)
        title, reason, path = self._title(node), crash.reason, crash.path
        if crash.skipped:
            LOG.warning("%s skipped: %s", title, reason)
        elif crash.internal and (refused := self._refused()) is not None:
            LOG.error("%s failed: %s (%s; crash file: %s)", title, refused, reason, path)
        else:
            advice = REPORT if crash.internal else ""
            LOG.error("%s failed: %s%s (crash file: %s)", title, reason, advice, path)

    def _used(self, node: Any) -> tuple[float | None, bool]:
        """Seconds that a node computed, None if unknown; and whether it did so in another call."""
        from brainlm_bids.interfaces.array_interface import RESOURCES_FILE, seconds_of

        path = Path(node.output_dir()) / RESOURCES_FILE
        try:
            cached = path.stat().st_mtime < self._began - SLACK
            return seconds_of(path), cached
        except OSError:
            return None, False

    def _behind(self, name: str) -> list[str]:
        """Nodes that may wait for one that failed: of its stage, and of those that need it."""
        stage = next(stage for stage, names in self._graph.nodes.items() if name in names)
        return sorted(self._graph.names_downstream(stage))

    def _title(self, node: Any) -> str:
        step = self._steps.get(node.fullname)
        return str(node.fullname) if step is None else step.title
