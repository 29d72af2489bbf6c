"""The Nipype interface that finds the distortion of a run without a field map."""

import logging
from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.images import load_image, load_mask, save_image
from brainlm_bids.preproc.registration.transforms import ItkTransform

LOGGER = logging.getLogger(__name__)


class _UnwarpInputs(ArrayInputSpec):
    boldref = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True, desc="of the run, as it was registered")
    mask_source = traits.Str(mandatory=True, desc="T1w, or BOLD if the registration is suspect")
    seen = File(exists=True, mandatory=True)
    t1w = File(exists=True, mandatory=True)
    t1w_mask = File(exists=True, mandatory=True)
    t1w_lesion = File(exists=True, desc="of the T1w image")
    matrix = File(exists=True, mandatory=True, desc="T1w to BOLD reference")
    transform = File(exists=True, mandatory=True, desc="template to T1w")
    axis = traits.Range(0, 2, mandatory=True, desc="of phase encoding, in the stored array")
    seed = traits.Int(mandatory=True)


class _UnwarpOutputs(TraitedSpec):
    distortion = File(desc="a `Distortion`; nothing if it was refused")
    brain_mask = File(desc="of the run: the T1w's brain where the run shows it")
    refused = traits.Str(desc="why what was found is not used; empty if it is")
    evidence = File(desc="an `Evidence`; nothing if nothing was tried")
    contrasts = File(desc="a `Contrasts`; nothing if it was refused")


class UnwarpByBoundary(ArrayInterface):
    """The distortion of a run from its T1w image, along the axis of phase encoding."""

    input_spec = _UnwarpInputs
    output_spec = _UnwarpOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        self._results["brain_mask"] = self.inputs.brain_mask
        if self.inputs.mask_source != "T1w":
            self._results["refused"] = "the registration to the T1w image has probably failed"
            return
        boldref, affine = load_image(self.inputs.boldref)
        found = steps.unwarp_by_boundary(
            boldref,
            affine,
            load_mask(self.inputs.brain_mask),
            *load_image(self.inputs.t1w),
            load_mask(self.inputs.t1w_mask),
            payloads.load(np.ndarray, self.inputs.matrix),
            payloads.load(ItkTransform, self.inputs.transform),
            self.inputs.axis,
            seen=load_mask(self.inputs.seen),
            t1w_lesion=load_mask(self.inputs.t1w_lesion) if self.inputs.t1w_lesion else None,
            seed=self.inputs.seed,
        )
        self._results["refused"] = found.refused
        for name in ("distortion", "evidence", "contrasts"):
            record = getattr(found, name)
            if record is not None:
                self._results[name] = payloads.save(record, folder / name)
        if found.distortion is None:
            LOGGER.warning(
                "%s: the distortion that was estimated is not used: %s",
                self.inputs.boldref,
                found.refused,
            )
            return
        mask = save_image(folder / "brain_mask.nii.gz", found.brain_mask, affine)
        self._results["brain_mask"] = mask
