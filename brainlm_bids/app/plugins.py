"""The Nipype plugin that executes a graph: processes of this machine, or the user's scheduler."""

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from brainlm_bids.app import fork_server
from brainlm_bids.app.progress import NodeProgress
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_text
from brainlm_bids.settings import Settings

LOG = logging.getLogger("brainlm_bids")
# With the default of Nipype, 2 s, a cached chain of 20 nodes takes 40 s. A scheduler is queried for
# each waiting node at every poll: twenty queries a second would be too many.
POLL_HERE, POLL_SCHEDULER = 0.05, 5.0
# Bytes of a file that names a plugin: a page; reading YAML takes long.
LARGEST_PLUGIN_FILE = 1 << 16


class PluginFile(NamedTuple):
    """Name and arguments of a Nipype plugin, and how it asks a scheduler.

    poll: seconds between two polls of its jobs; nodes_per_job: nodes that are submitted together.
    """

    name: str
    arguments: dict[str, Any]
    poll: float
    nodes_per_job: int = 1


def make_plugin(settings: Settings, progress: NodeProgress) -> tuple[Any, float]:
    """The plugin that runs a graph, and seconds between two polls of its jobs."""
    from nipype.pipeline import plugins

    from brainlm_bids.app.several_nodes import several_nodes
    from brainlm_bids.app.workers import WorkersPlugin

    name, poll, nodes_per_job = "MultiProc", POLL_HERE, 1
    arguments: dict[str, Any] = {"n_procs": settings.nprocs}
    if settings.use_plugin is not None:
        name, arguments, poll, nodes_per_job = read_plugin_file(settings.use_plugin)
    elif settings.mem is not None:
        arguments["memory_gb"] = settings.mem
    arguments["status_callback"] = progress
    if name == "MultiProc" and (error := fork_server.why_none()) is not None:
        LOG.warning(
            f"no worker processes can be started here ({error}): the steps run one after another "
            "in this process; mount a tmpfs on /dev/shm to run several at a time"
        )
        name, arguments = "Linear", {"status_callback": progress}
    if name == "MultiProc":
        return _reporting(WorkersPlugin, progress)(arguments, settings.verbose), poll
    engine = getattr(plugins, f"{name}Plugin")
    if nodes_per_job > 1:
        engine = several_nodes(engine, nodes_per_job)
    plugin = _reporting(engine, progress)
    return plugin(plugin_args=arguments), poll


def _reporting(plugin: type, progress: NodeProgress) -> Any:
    """The same plugin, which reports a failure as soon as its crash file is written.

    Nipype's status callback comes before the file in the plugins that distribute nodes. Its report
    takes lines only, but a job that ended without a result comes as one text.
    """

    def _report_crash(self: Any, node: Any, result: Any = None) -> str:
        if result is not None and isinstance(result["traceback"], str):
            result = {**result, "traceback": result["traceback"].splitlines(keepends=True)}
        path = plugin._report_crash(self, node, result=result)  # type: ignore[attr-defined]
        progress.report_failure(node)
        return str(path)

    return type(plugin.__name__, (plugin,), {"_report_crash": _report_crash})


def read_plugin_file(path: Path) -> PluginFile:
    """Read the YAML file of --use-plugin; add the options that schedulers need.

    Raises
    ------
    UserError
        If it is not such a file, or names a plugin that cannot run a call.
    """
    import yaml
    from nipype.pipeline import plugins

    try:
        values = yaml.safe_load(read_text(path, LARGEST_PLUGIN_FILE))
        name, arguments = str(values["plugin"]), dict(values.get("plugin_args") or {})
        poll = values.get("poll_seconds")
        poll = None if poll is None else float(poll)
        nodes_per_job = int(values.get("nodes_per_job", 1))
    except UserError as error:
        raise UserError(f"--use-plugin {error}") from None
    except (yaml.YAMLError, TypeError, KeyError, ValueError, RecursionError) as error:
        raise UserError(f"--use-plugin {path}: is not YAML with the key 'plugin'") from error
    plugin = getattr(plugins, f"{name}Plugin", None)
    if plugin is None:
        known = sorted(key.removesuffix("Plugin") for key in vars(plugins) if "Plugin" in key)
        raise UserError(
            f"--use-plugin {path}: no plugin {name!r}; the plugins are {', '.join(known)}"
        )
    if issubclass(plugin, plugins.base.GraphPluginBase):
        raise UserError(
            f"--use-plugin {path}: {name} returns before its jobs have run; use one that waits "
            "for them, such as SLURM, SGE, PBS, LSF or Condor"
        )
    if nodes_per_job < 1:
        raise UserError(f"--use-plugin {path}: nodes_per_job is {nodes_per_job}; give 1 or more")
    if not issubclass(plugin, plugins.base.SGELikeBatchManagerBase):
        if nodes_per_job > 1:
            raise UserError(
                f"--use-plugin {path}: nodes_per_job is for plugins that submit jobs, such as "
                f"SLURM, and {name} does not; leave it out"
            )
        return PluginFile(name, arguments, poll or POLL_HERE)
    # Nipype names the jobs after it; sudo, cron and containers do not set it
    os.environ.setdefault("LOGNAME", _user())
    return PluginFile(name, arguments, poll or POLL_SCHEDULER, nodes_per_job)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers
        return f"user{os.getuid()}"
