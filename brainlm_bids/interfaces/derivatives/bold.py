"""The denoised BOLD image of a run."""

from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.bids.context import RunContext, from_plain
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInterface
from brainlm_bids.interfaces.derivatives.run import (
    RunInputs,
    bad_volumes,
    interpolated_volumes,
    used,
)
from brainlm_bids.interfaces.images import load_affine, load_image, load_mask, save_image


class _DenoisedBoldInputs(RunInputs):
    bold = File(exists=True, mandatory=True, desc="realigned")
    boldref = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    cleaning = File(exists=True, mandatory=True)
    factor = traits.Float(mandatory=True)
    atlas = File(exists=True, mandatory=True, desc="gives the 2 mm grid")
    transform = File(exists=True, desc="template to T1w, or to the BOLD reference")
    matrix = File(exists=True, desc="T1w to BOLD reference")
    distortion = File(exists=True, desc="from there to where the run shows it, where it is known")


class WriteDenoisedBold(ArrayInterface):
    """The denoised, filtered BOLD on the atlas' 2 mm grid (`--save-bold`)."""

    input_spec = _DenoisedBoldInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        motion = payloads.load(steps.Motion, self.inputs.motion)
        self._context = used(from_plain(RunContext, self.inputs.context), motion)
        naming = self._context.naming
        labels, grid = load_image(self.inputs.atlas)
        n_dummy = motion.n_dummy
        affine = load_affine(self.inputs.bold)
        # passed without a name, so that the step can release the run when it is done with it
        data = steps.resample_denoised(
            load_image(self.inputs.bold)[0],
            affine,
            load_mask(self.inputs.brain_mask),
            payloads.load(np.ndarray, self.inputs.cleaning),
            n_dummy=n_dummy,
            good=motion.good_steady,
            factor=self.inputs.factor,
            shape=labels.shape,
            grid=grid,
            pull=payloads.load_pull(
                self.inputs.transform, self.inputs.matrix, self.inputs.distortion
            ),
        )
        first, measured = _kept_volumes(motion.good_steady)
        path = naming.path("denoised_bold")
        with files.atomically(path) as temporary:
            save_image(temporary, data, grid, self._context.tr)
        values = {
            "RepetitionTime": self._context.tr,
            "StartTime": self._context.start + (n_dummy + first) * self._context.tr,
            "SliceTimingCorrected": self._context.slice_timing_corrected,
            **bad_volumes(motion),
            **interpolated_volumes(measured),
            "TaskName": self._context.task,
            "Sources": self._context.sources,
        }
        files.write_json(
            naming.path("denoised_bold", extension=".json"), naming.sidecar("denoised_bold", values)
        )


def _kept_volumes(good: NDArray[np.bool_] | None) -> tuple[int, NDArray[np.bool_] | None]:
    """The first steady-state volume of the image, and which of its volumes were measured."""
    if good is None:
        return 0, None
    kept = np.flatnonzero(good)
    between = good[kept[0] : kept[-1] + 1]
    return int(kept[0]), None if between.all() else between
