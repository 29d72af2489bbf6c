"""The anatomical derivatives: images and transform in template space, with their figures."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.bids import outputs
from brainlm_bids.bids.context import REGISTRATION_FIELDS, AnatomicalContext, from_plain
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import (
    ArrayInputSpec,
    ArrayInterface,
    figures_trait,
)
from brainlm_bids.interfaces.context import Record
from brainlm_bids.interfaces.images import load_affine, load_image, load_mask, save_image
from brainlm_bids.notices import to_json
from brainlm_bids.preproc.registration.lesion import Lesion, lesion_notices
from brainlm_bids.preproc.registration.quality import Quality, registration_warnings
from brainlm_bids.preproc.registration.transforms import ItkTransform
from brainlm_bids.report import drawing


class _AnatomicalInputs(ArrayInputSpec):
    context = Record(AnatomicalContext, mandatory=True)
    t1w = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    transform = File(exists=True, mandatory=True)
    quality = File(exists=True, mandatory=True, desc="a `Quality`")
    method = traits.Str(mandatory=True)
    template = File(exists=True, mandatory=True)
    template_mask = File(exists=True, mandatory=True)
    lesion = File(exists=True, desc="of the T1w image, if there is a mask")
    lesion_found = File(exists=True, desc="a `Lesion`, if there is a mask")
    figures = figures_trait()


class WriteAnatomical(ArrayInterface):
    """T1w image, brain and transform, in template space, with their figures."""

    input_spec = _AnatomicalInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        self._context = from_plain(AnatomicalContext, self.inputs.context)
        naming = self._context.naming
        t1w, affine = load_image(self.inputs.t1w)
        anatomy = steps.Anatomy(t1w, load_mask(self.inputs.brain_mask), self.inputs.method)
        grid = load_affine(self.inputs.template)
        shape = load_mask(self.inputs.template_mask).shape
        transform = payloads.load(ItkTransform, self.inputs.transform)
        resampled = steps.resample_anatomy(anatomy, affine, shape, grid, transform)
        for key, data in {"preproc_T1w": resampled.t1w, "brain_mask": resampled.brain_mask}.items():
            with files.atomically(naming.path(key)) as temporary:
                save_image(temporary, data, grid)
            self._sidecar(naming, key)
        drawing.forget(naming, "subject")
        if self.inputs.figures != "none":
            self._figures(naming, t1w, affine, anatomy.brain_mask, resampled.t1w)
        with files.atomically(naming.path("t1w_to_template")) as temporary:
            shutil.copyfile(self.inputs.transform, temporary)
        self._sidecar(naming, "t1w_to_template")

    def _sidecar(self, naming: Naming, key: str) -> None:
        context = self._context
        values: dict[str, Any] = {
            "Sources": context.sources,
            "Template": context.template.name,
            "Normalization": context.normalization,
        }
        if key == "brain_mask":
            values["BrainExtraction"] = self.inputs.method
        quality = payloads.load(Quality, self.inputs.quality)
        for name in ("dice", "edge", "correlation"):
            values[REGISTRATION_FIELDS[name]] = getattr(quality, name)
        warnings = registration_warnings(quality)
        if self.inputs.lesion_found:
            found = payloads.load(Lesion, self.inputs.lesion_found)
            values |= found.sidecar()
            warnings += lesion_notices(found)
        values["Warnings"] = to_json(warnings)
        files.write_json(naming.path(key, extension=".json"), naming.sidecar(key, values))

    def _figures(
        self,
        naming: Naming,
        t1w: NDArray[Any],
        affine: NDArray[np.float64],
        mask: NDArray[np.bool_],
        normalised: NDArray[Any],
    ) -> None:
        from brainlm_bids.figures.registration import plot_brain_mask, plot_registration

        title = f"{outputs.figure_title('brain_mask')} ({self.inputs.method})"
        lesion = load_mask(self.inputs.lesion) if self.inputs.lesion else None
        figure = naming.figure("brain_mask")
        plot_brain_mask(figure, t1w, affine, mask, lesion=lesion, title=title)
        template, grid = load_image(self.inputs.template)
        plot_registration(
            naming.figure("normalisation"),
            template,
            grid,
            normalised,
            {"template brain": load_mask(self.inputs.template_mask)},
            title=outputs.figure_title("normalisation"),
            fixed_name=naming.space,
            moving_name="T1w",
        )
