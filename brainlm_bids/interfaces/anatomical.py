"""Nipype interfaces of the anatomy: T1w in; corrected T1w, brain mask, way to the template out."""

from pathlib import Path

from nipype.interfaces.base import (
    File,
    TraitedSpec,
    traits,
)

from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.images import load_image, load_mask, save_image


class _PrepareT1wInputs(ArrayInputSpec):
    t1w = File(exists=True, mandatory=True)


class _PrepareT1wOutputs(TraitedSpec):
    t1w = File(desc="bias field removed")
    brain_mask = File()
    method = traits.Str(desc="how the brain was found")


class PrepareT1w(ArrayInterface):
    """Bias field and brain of a T1w image."""

    input_spec = _PrepareT1wInputs
    output_spec = _PrepareT1wOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc.registration.brain import bias_correct, brain_mask_t1w

        data, affine = load_image(self.inputs.t1w)
        mask, method = brain_mask_t1w(data, affine)
        corrected = bias_correct(data, affine, mask)
        self._results["t1w"] = save_image(folder / "t1w.nii.gz", corrected, affine)
        self._results["brain_mask"] = save_image(folder / "brain_mask.nii.gz", mask, affine)
        self._results["method"] = method


class _NormaliseInputs(ArrayInputSpec):
    image = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True)
    template_mask = File(exists=True, mandatory=True)
    kind = traits.Enum("T1w", "boldref", mandatory=True)
    seed = traits.Int(mandatory=True)


class _NormaliseOutputs(TraitedSpec):
    transform = File(desc="ITK composite: resamples the image into template space")


class Normalise(ArrayInterface):
    """Non-linear registration of a T1w image, or of a BOLD reference, to the template."""

    input_spec = _NormaliseInputs
    output_spec = _NormaliseOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc.registration.ants import register_to_template

        moving, moving_affine = load_image(self.inputs.image)
        template, template_affine = load_image(self.inputs.template)
        transform = register_to_template(
            moving,
            moving_affine,
            template,
            template_affine,
            moving_mask=load_mask(self.inputs.brain_mask),
            template_mask=load_mask(self.inputs.template_mask),
            out_file=folder / "transform.h5",
            seed=self.inputs.seed,
            kind=self.inputs.kind,
        )
        self._results["transform"] = str(transform)
