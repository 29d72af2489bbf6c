"""What all graphs share: how a node and a workflow are made, and the files that they start from."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from brainlm_bids.settings import Settings


@dataclass(frozen=True)
class Inputs:
    """Resource files as the nodes read them."""

    atlas: str
    template: str
    template_mask: str


def make_workflow(name: str) -> Any:
    """An empty Nipype workflow."""
    from nipype.pipeline import engine

    return engine.Workflow(name=name)


def node_name(prefix: str, stem: str) -> str:
    """A name that Nipype accepts.

    >>> node_name("func", "sub-01_task-rest_run-1")
    'func_sub_01_task_rest_run_1'
    """
    return re.sub(r"\W", "_", f"{prefix}_{stem}")


def make_node(
    interface: Any, name: str, settings: Settings, *, memory: float, always: bool = False
) -> Any:
    """A node with its share of the machine.

    memory: GB. always: run it in every graph, since what it writes lies outside the work folder.
    """
    from nipype.pipeline import engine

    interface.inputs.n_threads = settings.omp_nthreads
    interface.inputs.use_gpu = _on_gpu(getattr(interface.inputs, "device", "cpu"))
    available = settings.mem or memory
    return engine.Node(
        interface,
        name=name,
        # a node may ask for no more than there is, or the plugin would refuse the whole graph
        n_procs=min(settings.omp_nthreads, settings.nprocs),
        mem_gb=min(memory, available),
        overwrite=True if always else None,
    )


def _on_gpu(device: str) -> bool:
    """Whether a node takes one of the places that MultiProc's n_gpu_procs counts."""
    return device == "cuda" or (device == "auto" and _gpus() > 0)


@cache
def _gpus() -> int:
    from nipype.utils.gpu_count import gpu_count

    return int(gpu_count())
