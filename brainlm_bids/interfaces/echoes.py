"""The Nipype interface of a multi-echo run's first step: motion, and the echoes as one series."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nipype.interfaces.base import File, traits
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInterface, errors_about
from brainlm_bids.interfaces.functional import (
    MotionInputs,
    RealignOutputs,
    save_realigned,
    single_band,
    slice_times,
)
from brainlm_bids.interfaces.images import load_affine, load_image

if TYPE_CHECKING:
    from brainlm_bids.preproc import steps


class _RealignEchoesInputs(MotionInputs):
    echoes = traits.List(File(exists=True), mandatory=True, desc="the shortest echo time first")
    echo_times = traits.List(traits.Float, mandatory=True, desc="s")
    denoise = traits.Enum("none", "tedana", usedefault=True)


class _RealignEchoesOutputs(RealignOutputs):
    combination = File(desc="an `EchoSummary`")


class RealignEchoes(ArrayInterface):
    """Reference, brain and rigid motion of a multi-echo run, and its echoes combined."""

    input_spec = _RealignEchoesInputs
    output_spec = _RealignEchoesOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        affine = load_affine(self.inputs.echoes[0], self.inputs.orientation)
        sbref, refused = single_band(self.inputs)
        with errors_about(""):
            run = steps.realign_echoes(
                self._read(),
                affine,
                self.inputs.echo_times,
                names=self.inputs.echoes,
                n_dummy=self.inputs.dummy_scans,
                max_bad_volumes=self.inputs.max_bad_volumes,
                device=self.inputs.device,
                slices=slice_times(self.inputs),
                sbref=sbref,
                keep=lambda echo: _on_disk(echo, folder),
                decompose=self._decompose(affine, folder),
            )
        self._results |= save_realigned(run, affine, folder, refused)
        self._results["combination"] = payloads.save(run.summary, folder / "combination")

    def _decompose(self, affine: NDArray[np.float64], folder: Path) -> "steps.Decompose | None":
        if self.inputs.denoise != "tedana":
            return None
        from brainlm_bids.interfaces.tedana import decompose

        return lambda echoes, brain_mask, volumes: decompose(
            echoes,
            affine,
            self.inputs.echo_times,
            brain_mask,
            volumes,
            folder,
            seed=self.inputs.seed,
            n_threads=self.inputs.n_threads,
        )

    def _read(self) -> Iterator[NDArray[np.float32]]:
        """One echo after the other, so that the one before can be forgotten."""
        first = load_affine(self.inputs.echoes[0], self.inputs.orientation)
        for path in self.inputs.echoes:
            echo, affine = load_image(path, self.inputs.orientation)
            if not np.allclose(affine, first, rtol=0, atol=0.01):
                raise UserError(f"{path}: is on another grid than {self.inputs.echoes[0]}")
            yield echo
            del echo


def _on_disk(echo: NDArray[np.float32], folder: Path) -> NDArray[np.float32]:
    """Put an echo aside in a file without a name, which is gone with the array."""
    with tempfile.TemporaryFile(dir=folder) as file:
        stored = np.memmap(file, np.float32, "w+", shape=echo.shape, order="F")
    stored[...] = echo
    return stored
