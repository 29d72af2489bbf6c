"""Nipype interfaces that turn parcel series into a model's input.

ICA, ICA-AROMA, temporal filter and confound regression, robust scaling.
"""

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface, errors_about
from brainlm_bids.interfaces.images import load_affine, load_image, load_mask


class _DecomposeInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True, desc="realigned")
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    factor = traits.Float(mandatory=True)
    seed = traits.Int(mandatory=True)


class _DecomposeOutputs(TraitedSpec):
    components = File(desc="`Components`")


class Decompose(ArrayInterface):
    """Spatial ICA of the smoothed steady-state volumes."""

    input_spec = _DecomposeInputs
    output_spec = _DecomposeOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        affine = load_affine(self.inputs.bold)
        motion = payloads.load(steps.Motion, self.inputs.motion)
        # passed without a name, so that the step can release the run when it is done with it
        components = steps.decompose(
            load_image(self.inputs.bold)[0],
            affine,
            load_mask(self.inputs.brain_mask),
            n_dummy=motion.n_dummy,
            good=motion.good_steady,
            factor=self.inputs.factor,
            seed=self.inputs.seed,
        )
        self._results["components"] = payloads.save(components, folder / "components")


class _ClassifyInputs(ArrayInputSpec):
    components = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    aroma = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    seed = traits.Int(mandatory=True)


class _ClassifyOutputs(TraitedSpec):
    decisions = File(desc="`Decisions`")


class Classify(ArrayInterface):
    """ICA-AROMA's features and decision."""

    input_spec = _ClassifyInputs
    output_spec = _ClassifyOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        decisions = steps.classify(
            payloads.load(steps.Components, self.inputs.components),
            load_mask(self.inputs.brain_mask),
            payloads.load(steps.Motion, self.inputs.motion),
            payloads.load(steps.AromaSamples, self.inputs.aroma),
            self.inputs.tr,
            seed=self.inputs.seed,
        )
        self._results["decisions"] = payloads.save(decisions, folder / "decisions")


class _DenoiseInputs(ArrayInputSpec):
    parcels = File(exists=True, mandatory=True)
    components = File(exists=True, desc="absent for runs without volumes, which have no ICA")
    decisions = File(exists=True)
    motion = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    mode = traits.Str(mandatory=True, desc="nonaggr, aggr, none, or confounds:<strategy>")
    design = File(exists=True, desc="a `Design`, for a strategy")
    high_pass = traits.Float(mandatory=True)
    low_pass = traits.Either(None, traits.Float, usedefault=True)
    others = File(exists=True, desc="(T, K) array, the series of further atlases")


class _DenoiseOutputs(TraitedSpec):
    denoised = File(desc="(T, 424) array; non-steady volumes and parcels without data are NaN")
    cleaning = File(desc="(T', T') array that denoises and filters demeaned steady volumes")
    others_denoised = File(desc="(T, K) array, as `denoised`")


class Denoise(ArrayInterface):
    """Removal of components or confounds, and the high-pass (and low-pass) filter, on parcels."""

    input_spec = _DenoiseInputs
    output_spec = _DenoiseOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        motion = payloads.load(steps.Motion, self.inputs.motion)
        with errors_about(f"--denoise {self.inputs.mode}"):
            denoised = steps.denoise(
                payloads.load(np.ndarray, self.inputs.parcels),
                self.inputs.tr,
                n_dummy=motion.n_dummy,
                good=motion.good_steady,
                high_pass=self.inputs.high_pass,
                low_pass=self.inputs.low_pass,
                **self._removed(),
            )
        self._results["denoised"] = payloads.save(denoised.series, folder / "denoised")
        self._results["cleaning"] = payloads.save(denoised.cleaning, folder / "cleaning")
        if self.inputs.others:
            others = steps.clean(
                payloads.load(np.ndarray, self.inputs.others),
                denoised.cleaning,
                n_dummy=motion.n_dummy,
                good=motion.good_steady,
            )
            self._results["others_denoised"] = payloads.save(others, folder / "others_denoised")

    def _removed(self) -> dict[str, Any]:
        """Components or confounds to remove, as arguments of the step."""
        from brainlm_bids.preproc import steps

        if self.inputs.design:
            return {"design": payloads.load(steps.Design, self.inputs.design)}
        if not self.inputs.components:
            return {}
        mixing = payloads.load(steps.Components, self.inputs.components).mixing
        noise = payloads.load(steps.Decisions, self.inputs.decisions).noise
        return {"components": (mixing, noise), "mode": self.inputs.mode}


class _ScaleInputs(ArrayInputSpec):
    denoised = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    model_tr = traits.Float(mandatory=True)
    statistics = File(exists=True, desc="TSV of another cohort")


class _ScaleOutputs(TraitedSpec):
    robust = File(desc="a `Scaled`")


class Scale(ArrayInterface):
    """Resampling to the model's TR and robust scaling."""

    input_spec = _ScaleInputs
    output_spec = _ScaleOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids import resources
        from brainlm_bids.parcels import scaling
        from brainlm_bids.parcels.steps import scale
        from brainlm_bids.preproc import steps

        stats = None
        if self.inputs.statistics:
            names = list(resources.parcels().names)
            stats = scaling.load_stats(Path(self.inputs.statistics), names)
        n_dummy = payloads.load(steps.Motion, self.inputs.motion).n_dummy
        series = payloads.load(np.ndarray, self.inputs.denoised)[n_dummy:]
        scaled = scale(series, self.inputs.tr, model_tr=self.inputs.model_tr, stats=stats)
        self._results["robust"] = payloads.save(scaled, folder / "robust")
