"""The base of all interfaces: load arrays, call one step, and save what it returns.

Images are NIfTI files (`images`), all other records files of `payloads`, in the node's folder;
files of the derivatives are written by the interfaces of `derivatives`.
"""

import contextlib
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    traits,
)

from brainlm_bids import __version__
from brainlm_bids.errors import UserError

RESOURCES_FILE = "resources.json"


def seconds_of(resources: Path) -> float:
    """Seconds that a node computed, by its file of resources."""
    return float(json.loads(resources.read_text())["seconds"])


def figures_trait() -> Any:
    """`--figures`, for the interfaces that draw some; what they compute does not depend on it."""
    return traits.Enum("all", "suspect", "none", usedefault=True, nohash=True)


class ArrayInputSpec(BaseInterfaceInputSpec):
    """Inputs of every interface; `nohash`: settings of speed do not void the cache.

    The version does: what another one computed in the same work folder is not used.
    """

    version = traits.Str(__version__, usedefault=True, desc="of this program")
    n_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads of this process")
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc="counts for n_gpu_procs")


class ArrayInterface(SimpleInterface):
    """Runs `_compute(folder)` with a fixed number of threads; records time and memory."""

    input_spec = ArrayInputSpec
    _interrupt: KeyboardInterrupt | None = None

    def run(self, *arguments: Any, **options: Any) -> Any:
        """Run as any interface of Nipype, but let what stops the call stop it.

        Nipype's nodes take everything that is raised here for a failure of the step, and in the
        call's own process (`Linear`) the next step would follow.
        """
        result = super().run(*arguments, **options)
        if self._interrupt is not None:
            raise self._interrupt
        return result

    def _run_interface(self, runtime: Any) -> Any:
        try:
            return self._run_measured(runtime)
        except KeyboardInterrupt as error:
            self._interrupt = error
            raise

    def _run_measured(self, runtime: Any) -> Any:
        from threadpoolctl import threadpool_limits

        n_threads = self.inputs.n_threads
        # ITK reads this when the first filter is created, torch on import
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(n_threads)
        folder = Path(runtime.cwd)
        started = time.monotonic()
        _forget_peak_memory()
        with threadpool_limits(n_threads):
            self._compute(folder)
        used = {"seconds": time.monotonic() - started, "peak_memory_mb": _peak_memory_mb()}
        (folder / RESOURCES_FILE).write_text(json.dumps(used))
        return runtime

    def _compute(self, folder: Path) -> None:
        raise NotImplementedError


@contextlib.contextmanager
def errors_about(subject: str) -> Iterator[None]:
    """Prefix the error of a step with the file, or the flag, that it is about.

    Steps speak of their arguments: one that is a setting's is named by its flag.

    Parameters
    ----------
    subject
        The file or the flag; empty where the error names it.

    Yields
    ------
    None
        A context.

    Raises
    ------
    UserError
        With the prefix.
    """
    try:
        yield
    except UserError as error:
        text = str(error).replace("max_bad_volumes", "--max-bad-volumes")
        raise type(error)(f"{subject}: {text}" if subject else text) from error


def _forget_peak_memory() -> None:
    # Linux: 5 resets the high-water mark, so that a worker's earlier nodes do not count
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_mb() -> float:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
