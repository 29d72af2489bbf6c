"""What every analysis level needs to run: the resources of a call, and a graph's execution.

In: `Settings`, and a Nipype workflow. Out: resources that were found and checked before anything
is computed, and crash files for what failed.
"""

import dataclasses
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainlm_bids import files, resources
from brainlm_bids.app import messages
from brainlm_bids.errors import UserError
from brainlm_bids.model.config import read_config
from brainlm_bids.model.devices import choose_device, resolve_precision
from brainlm_bids.parcels import scaling
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.graph import Graph
from brainlm_bids.workflows.nodes import Inputs

LOG = logging.getLogger("brainlm_bids")


class Found:
    """The resources of a call, found and checked before anything is computed."""

    def __init__(self, settings: Settings) -> None:
        offline = settings.offline
        # A series that is said to be of A424 must not get the name of the approximation.
        atlas = settings.atlas or ("A424" if settings.timeseries else None)
        self.atlas = resources.find_atlas(atlas, offline=offline)
        self.template = resources.find_template(
            settings.template, offline=offline, atlas_space=self.atlas.space
        )
        found = [resources.find_model(name, offline=offline) for name in settings.model]
        self.models = [model for model in found if model is not None]
        check_models(self.models, settings)
        labels = [model.label for model in self.models]
        twice = {label for label in labels if labels.count(label) > 1}
        if twice:
            raise UserError(
                f"--model: two models would both be called {sorted(twice)[0]!r} in the outputs; "
                "rename one of the folders"
            )
        if settings.use_plugin is not None:
            _given_plugin(settings.use_plugin)
        if settings.scaling_stats is not None:
            scaling.load_stats(settings.scaling_stats, list(resources.parcels().names))
        warnings = [self.atlas.warning, self.template.warning]
        self.space = self.template.space
        if settings.fmriprep_dir is not None or settings.timeseries:
            # Somebody has normalised already: the template is but the background of figures.
            self.space = resources.REAL_SPACE
            warnings[1] = resources.other_space(self.space, self.atlas.space)
        self.warnings = [text for text in warnings if text]


def check_models(models: Sequence[resources.ModelResource], settings: Settings) -> None:
    """Refuse at once what the model stage would refuse after an hour of preprocessing."""
    n_parcels = len(resources.parcels().names)
    for model in models:
        if model.path is None:
            continue
        config = read_config(model.path / "config.json")
        if config.n_parcels != n_parcels:
            raise UserError(
                f"{model.path / 'config.json'}: a model of {config.n_parcels} parcels; "
                f"the atlas has {n_parcels}"
            )
        if settings.window_stride is not None and settings.window_stride > config.window:
            raise UserError(
                f"--window-stride {settings.window_stride}: the window of {model.name} has "
                f"{config.window} volumes"
            )
    if models and settings.device == "cuda":
        choose_device("cuda")


def with_precision(settings: Settings, models: Sequence[resources.ModelResource]) -> Settings:
    """The settings with the precision that the models run with, on which their results depend.

    It is decided once, where the call is planned: outputs that were made in bfloat16 on a GPU are
    not complete for a call in float32 on a CPU.
    """
    if not models:
        return settings
    precision = resolve_precision(settings.device, settings.precision)
    return dataclasses.replace(settings, precision=precision)


def make_folders(settings: Settings) -> None:
    """Make the output and work folders, or say in one line why they cannot be."""
    try:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
        if not settings.reports_only and not settings.dry_run:
            settings.work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be made ({error.strerror})") from error
    if not os.access(settings.output_dir, os.W_OK):
        raise UserError(
            f"OUTPUT_DIR {settings.output_dir}: cannot be written to by user {os.getuid()}"
        )


def execute(graph: Graph, settings: Settings, run_id: str) -> None:
    """Run a graph; what failed is read from the crash files in logs/crash/<run id> afterwards."""
    from nipype import config

    crashes = settings.output_dir / "logs" / "crash" / run_id
    crashes.mkdir(parents=True, exist_ok=True)
    if settings.resource_monitor:
        config.enable_resource_monitor()
    workflow, progress = graph.workflow, Progress(graph.n_nodes)
    plugin, arguments, poll = _plugin(settings, progress)
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
        workflow.run(plugin=plugin, plugin_args=arguments)
    except Exception as error:  # Nipype raises what its nodes raised, of any kind
        # without a failed node it is the plugin that failed, a scheduler's refusal for example
        level = logging.DEBUG if progress.n_failed else logging.ERROR
        LOG.log(level, "the graph ended with %s: %s", type(error).__name__, error)
    finally:
        # after ^C, SIGTERM or --stop-on-first-crash there are some at work
        if not isinstance(plugin, str):
            plugin.stop()
        if not any(crashes.iterdir()):
            crashes.rmdir()


# Nipype's default of 2 s makes a cached chain of 20 nodes take 40 s. A scheduler is asked once per
# node that waits and per poll: it must not be asked twenty times a second.
POLL_HERE, POLL_SCHEDULER = 0.05, 5.0


class Progress:
    """What Nipype's plugins call as a node starts and ends: a line for each that is done."""

    def __init__(self, n_nodes: int) -> None:
        self.n_nodes, self.n_done, self.n_failed = n_nodes, 0, 0

    def __call__(self, node: Any, status: str) -> None:
        name = node.fullname.partition(".")[2]
        if status == "end":
            self.n_done += 1
            LOG.info("%s: done (%d of %d steps)", name, self.n_done, self.n_nodes)
        elif status == "exception":
            self.n_failed += 1
            LOG.error("%s: failed; why is said when all is done", name)
        else:
            LOG.debug("%s: begins", name)


def _plugin(settings: Settings, progress: Progress) -> tuple[Any, dict[str, Any], float]:
    """A plugin, or the name of one of Nipype's; its arguments; seconds between two looks at it."""
    from brainlm_bids.app.workers import WorkersPlugin

    name, poll = "MultiProc", POLL_HERE
    arguments: dict[str, Any] = {"n_procs": settings.nprocs}
    if settings.use_plugin is not None:
        name, arguments, poll = _given_plugin(settings.use_plugin)
    elif settings.mem is not None:
        arguments["memory_gb"] = settings.mem
    arguments["status_callback"] = progress
    if name == "MultiProc":
        return WorkersPlugin(arguments, settings.verbose), {}, poll
    return name, arguments, poll


def _given_plugin(path: Path) -> tuple[str, dict[str, Any], float]:
    """What the YAML of --use-plugin says, made ready for the schedulers."""
    import yaml
    from nipype.pipeline import plugins

    try:
        values = yaml.safe_load(path.read_text())
        name, arguments = str(values["plugin"]), dict(values.get("plugin_args") or {})
        poll = values.get("poll_seconds")
        poll = None if poll is None else float(poll)
    except (yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise UserError(f"--use-plugin {path}: is not YAML with the key 'plugin'") from error
    found = getattr(plugins, f"{name}Plugin", None)
    if found is None:
        known = sorted(key.removesuffix("Plugin") for key in vars(plugins) if "Plugin" in key)
        raise UserError(f"--use-plugin {path}: no plugin {name!r}; there are {', '.join(known)}")
    if issubclass(found, plugins.base.GraphPluginBase):
        raise UserError(
            f"--use-plugin {path}: {name} returns before its jobs have run; take one that waits "
            "for them, such as SLURM, SGE, PBS, LSF or Condor"
        )
    if not issubclass(found, plugins.base.SGELikeBatchManagerBase):
        return name, arguments, poll or POLL_HERE
    # Nipype names the jobs after it; sudo, cron and containers do not set it
    os.environ.setdefault("LOGNAME", _user())
    return name, arguments, poll or POLL_SCHEDULER


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers
        return f"user{os.getuid()}"


def materialise(settings: Settings, found: Found) -> Inputs:
    """Resource files for the nodes; embedded ones are written into the work folder once."""
    import nibabel as nb
    import numpy as np

    def saved(name: str, sha256: str, load: Any, kind: type) -> str:
        path = settings.work_dir / "resources" / f"{name}_{sha256[:12]}.nii.gz"
        if not path.exists():
            data, affine = load()
            with files.atomically(path) as temporary:
                nb.Nifti1Image(np.asarray(data, dtype=kind), affine).to_filename(temporary)
        return str(path)

    atlas, template = found.atlas, found.template
    stem = f"tpl-{template.space}"
    return Inputs(
        saved(f"atlas-{atlas.label}", atlas.sha256, atlas.load, np.int16),
        saved(f"{stem}_T1w", template.sha256, template.load_t1w, np.float32),
        saved(f"{stem}_mask", template.sha256, template.load_brain_mask, np.uint8),
    )


def _write_graph(workflow: Any, logs: Path) -> None:
    target = logs / "graph.dot"
    kind = "svg" if shutil.which("dot") else "dot"
    try:
        workflow.write_graph(dotfilename=str(target), graph2use="colored", format=kind)
    except OSError as error:
        LOG.warning("--write-graph: %s; the .dot file is in %s", error, logs)
