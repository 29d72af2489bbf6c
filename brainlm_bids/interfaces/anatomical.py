"""Nipype interfaces of the anatomy: bias field, brain mask and normalisation of a T1w image."""

from pathlib import Path

from nipype.interfaces.base import File, TraitedSpec, traits

from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface, errors_about
from brainlm_bids.interfaces.images import load_image, load_mask, save_image


class _PrepareT1wInputs(ArrayInputSpec):
    t1w = File(exists=True, mandatory=True)
    orientation = traits.Either(None, traits.Str, usedefault=True, desc="if not recorded")
    lesions = traits.List(File(exists=True), desc="lesion masks")


class _PrepareT1wOutputs(TraitedSpec):
    t1w = File(desc="bias field removed")
    brain_mask = File()
    method = traits.Str(desc="how the brain was found")
    lesion = File(desc="all lesions; empty if they cannot be used; with lesions")
    lesion_found = File(desc="a `Lesion`; with lesions")


class PrepareT1w(ArrayInterface):
    """Bias field and brain of a T1w image."""

    input_spec = _PrepareT1wInputs
    output_spec = _PrepareT1wOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        data, affine = load_image(self.inputs.t1w, self.inputs.orientation)
        masks = [load_image(path, self.inputs.orientation) for path in self.inputs.lesions or ()]
        with errors_about(self.inputs.t1w):
            anatomy = steps.prepare_t1w(data, affine, masks)
        self._results["t1w"] = save_image(folder / "t1w.nii.gz", anatomy.t1w, affine)
        mask = save_image(folder / "brain_mask.nii.gz", anatomy.brain_mask, affine)
        self._results["brain_mask"] = mask
        self._results["method"] = anatomy.method
        if anatomy.lesion is not None:
            lesion = save_image(folder / "lesion.nii.gz", anatomy.lesion, affine)
            self._results["lesion"] = lesion
            found = payloads.save(anatomy.lesion_found, folder / "lesion_found")
            self._results["lesion_found"] = found


class _NormaliseInputs(ArrayInputSpec):
    image = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True)
    template_mask = File(exists=True, mandatory=True)
    kind = traits.Enum("T1w", "boldref", mandatory=True)
    method = traits.Enum("fast", "syn", usedefault=True, desc="of a T1w")
    lesion = File(exists=True, desc="of a T1w: what is not compared")
    seed = traits.Int(mandatory=True)


class _NormaliseOutputs(TraitedSpec):
    transform = File(desc="ITK composite: resamples the image into template space")
    quality = File(desc="a `Quality`")


class Normalise(ArrayInterface):
    """Non-linear registration of a T1w image, or of a BOLD reference, to the template."""

    input_spec = _NormaliseInputs
    output_spec = _NormaliseOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        found = steps.normalise(
            *load_image(self.inputs.image),
            load_mask(self.inputs.brain_mask),
            *load_image(self.inputs.template),
            load_mask(self.inputs.template_mask),
            kind=self.inputs.kind,
            method=self.inputs.method,
            lesion=load_mask(self.inputs.lesion) if self.inputs.lesion else None,
            seed=self.inputs.seed,
        )
        self._results["transform"] = payloads.save(found.transform, folder / "transform")
        self._results["quality"] = payloads.save(found.quality, folder / "quality")
