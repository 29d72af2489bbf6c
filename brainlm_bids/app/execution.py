"""Execution of a graph, the same at both analysis levels.

What comes in: a graph. What goes out: files of its nodes, and a crash file for each that failed.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from brainlm_bids import messages
from brainlm_bids.app.plugins import make_plugin
from brainlm_bids.app.progress import NodeProgress
from brainlm_bids.bids.calls import new_name
from brainlm_bids.errors import UserError
from brainlm_bids.progress import Progress
from brainlm_bids.settings import Settings
from brainlm_bids.system_errors import PROBE, in_one_line, refusal
from brainlm_bids.workflows.costs import Size
from brainlm_bids.workflows.graph import Graph

LOG = logging.getLogger("brainlm_bids")


def make_folders(settings: Settings) -> None:
    """Create the output and work folders; UserError if they cannot be created."""
    try:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
        if not settings.reports_only and not settings.dry_run:
            settings.work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be created ({error.strerror})") from error
    if not os.access(settings.output_dir, os.W_OK):
        read_only = os.statvfs(settings.output_dir).f_flag & os.ST_RDONLY
        why = "its file system is mounted read-only" if read_only else f"by user {os.getuid()}"
        raise UserError(f"OUTPUT_DIR {settings.output_dir}: cannot be written to ({why})")


def new_run_id() -> str:
    """The name of a call in its log files: its start time and a random part."""
    return new_name()


def crash_folder(settings: Settings, run_id: str) -> Path:
    """Folder of the crash files of a call."""
    return settings.output_dir / "logs" / "crash" / run_id


def full_disk(settings: Settings) -> str | None:
    """Which of the call's folders has no space left, and what to do; None if both have some."""
    for option, folder in _folders(settings):
        if folder.exists() and shutil.disk_usage(folder).free < PROBE:
            return f"no space left on the disk of {option} {folder}; free some, and repeat the call"
    return None


def refused(settings: Settings) -> str | None:
    """Which of the call's folders takes no file, why, and what to do; None if both take one.

    For errors that may follow from that: a step misses a file, for example, which another one
    could not write. A quota is not seen otherwise.
    """
    found = full_disk(settings)
    if found is not None:
        return found
    for option, folder in _folders(settings):
        error = refusal(folder) if folder.exists() else None
        if error is not None:
            return f"{option} {in_one_line(error)}"
    return None


def _folders(settings: Settings) -> tuple[tuple[str, Path], ...]:
    return ("OUTPUT_DIR", settings.output_dir), ("--work-dir", settings.work_dir)


def execute(
    graph: Graph,
    settings: Settings,
    run_id: str,
    progress: Progress,
    instead: str | tuple[str, ...] = (),
    sizes: Mapping[str, Size] | None = None,
) -> None:
    """Run a graph; failures are read from the crash files afterwards.

    Parameters
    ----------
    graph : Graph
        To run.
    settings : Settings
        Of the call.
    run_id : str
        Of the call.
    progress : Progress
        Of the call.
    instead : str or tuple of str
        What the keys of the steps begin with that were expected in place of this graph's.
    sizes : mapping of str to Size
        Of the recordings, by their names.
    """
    from nipype import config

    from brainlm_bids.app.workers import WorkersPlugin

    crashes = crash_folder(settings, run_id)
    crashes.mkdir(parents=True, exist_ok=True)
    if settings.resource_monitor:
        config.enable_resource_monitor()
    workflow, told = (
        graph.workflow,
        NodeProgress(progress, graph, crashes, instead, sizes, partial(refused, settings)),
    )
    plugin, poll = make_plugin(settings, told)
    messages.configure(settings.verbose)
    workflow.config["logging"] = messages.nipype_config(settings.verbose)
    workflow.config["execution"] = {
        "crashdump_dir": str(crashes),
        "crashfile_format": "txt",
        "poll_sleep_duration": str(poll),
        "stop_on_first_crash": str(settings.stop_on_first_crash).lower(),
        "remove_unnecessary_outputs": "false",
    }
    if settings.write_graph:
        _write_graph(workflow, settings.output_dir / "logs")
    try:
        workflow.run(plugin=plugin)
    except Exception as error:  # Nipype raises what its nodes raised, of any kind
        # without a failed node, the plugin itself failed: a scheduler refused a job, for example
        level = logging.DEBUG if told.n_failed else logging.ERROR
        LOG.log(level, "the graph ended with %s: %s", type(error).__name__, error)
    finally:
        # after ^C, SIGTERM or --stop-on-first-crash some workers are still busy
        if isinstance(plugin, WorkersPlugin):
            plugin.stop()
        if not any(crashes.iterdir()):
            crashes.rmdir()


def _write_graph(workflow: Any, logs: Path) -> None:
    target = logs / "graph.dot"
    kind = "svg" if shutil.which("dot") else "dot"
    try:
        workflow.write_graph(dotfilename=str(target), graph2use="colored", format=kind)
    except OSError as error:
        LOG.warning("--write-graph: %s; the .dot file is in %s", error, logs)
