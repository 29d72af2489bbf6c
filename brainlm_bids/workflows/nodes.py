"""What all graphs share: how nodes and workflows are made, and the files of the resources."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from brainlm_bids.bids.names import without_punctuation
from brainlm_bids.settings import Settings

if TYPE_CHECKING:
    from nipype.pipeline.engine import Node, Workflow

    from brainlm_bids.interfaces.array_interface import ArrayInterface


@dataclass(frozen=True)
class Inputs:
    """Resource files as the nodes read them."""

    atlas: str
    template: str
    template_mask: str


def make_workflow(name: str) -> Workflow:
    """An empty Nipype workflow."""
    from nipype.pipeline import engine

    return engine.Workflow(name=name)


def node_name(prefix: str, stem: str) -> str:
    """A name that Nipype accepts.

    >>> node_name("func", "sub-01_task-rest_run-1")
    'func_sub_01_task_rest_run_1'
    """
    return without_punctuation(f"{prefix}_{stem}")


def make_node(
    interface: ArrayInterface, name: str, settings: Settings, *, memory: float, always: bool = False
) -> Node:
    """A node with its share of the machine.

    Parameters
    ----------
    interface : ArrayInterface
        What the node runs.
    name : str
        Unique in its workflow.
    settings : Settings
        Of the call.
    memory : float
        In GB.
    always : bool
        Whether it runs although Nipype has cached it, since it writes outside the work folder.
    """
    from nipype.pipeline import engine

    interface.inputs.n_threads = settings.omp_nthreads
    interface.inputs.use_gpu = _on_gpu(getattr(interface.inputs, "device", "cpu"))
    available = settings.mem or memory
    node = engine.Node(
        interface,
        name=name,
        # a node must not require more than there is, or the plugin would refuse the whole graph
        n_procs=min(settings.omp_nthreads, settings.nprocs),
        mem_gb=min(memory, available),
        overwrite=True if always else None,
    )
    # what it takes wherever it runs, for the message when that was too much
    node.expected_gb = memory
    return node


def _on_gpu(device: str) -> bool:
    """Whether a node counts towards MultiProc's n_gpu_procs."""
    return device == "cuda" or (device == "auto" and _gpus() > 0)


@cache
def _gpus() -> int:
    from nipype.utils.gpu_count import gpu_count

    return int(gpu_count())
