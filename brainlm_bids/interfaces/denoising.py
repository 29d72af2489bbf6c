"""Nipype interfaces from parcel series and components to what the model sees: ICA, ICA-AROMA,
filter and regression, robust scaling.
"""

from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    File,
    TraitedSpec,
    traits,
)
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.images import load_image, load_mask


class _DecomposeInputs(ArrayInputSpec):
    realigned = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    factor = traits.Float(mandatory=True)
    fwhm = traits.Float(6.0, usedefault=True, desc="smoothing before the ICA, mm")
    seed = traits.Int(mandatory=True)


class _DecomposeOutputs(TraitedSpec):
    components = File(
        desc="mixing (T - n_dummy, K), maps (K, V), variance (K,), converged, n_iter, n_starts"
    )


class Decompose(ArrayInterface):
    """Spatial ICA of the smoothed steady-state volumes."""

    input_spec = _DecomposeInputs
    output_spec = _DecomposeOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc.denoising import dimension, ica

        bold, affine = load_image(self.inputs.realigned)
        mask = load_mask(self.inputs.brain_mask)
        n_dummy = int(np.load(self.inputs.motion)["n_dummy"])
        series = ica.smooth_series(bold[..., n_dummy:], affine, mask, self.inputs.fwhm)
        del bold
        series *= self.inputs.factor
        samples = dimension.effective_samples(series, mask)
        n_components = dimension.estimate_dimension(series, n_effective=samples)
        found = ica.spatial_ica(series, n_components, self.inputs.seed)
        self._save(
            folder,
            "components",
            mixing=found.mixing,
            maps=found.maps,
            variance=found.explained_variance,
            converged=found.converged,
            n_iter=found.n_iter,
            n_starts=found.n_starts,
        )


class _ClassifyInputs(ArrayInputSpec):
    components = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    aroma = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    seed = traits.Int(mandatory=True)


class _ClassifyOutputs(TraitedSpec):
    decisions = File(
        desc="max_rp_corr, edge_fract, csf_fract, hfc, variance, noise (K,), reason (K,)"
    )


class Classify(ArrayInterface):
    """ICA-AROMA's features and decision."""

    input_spec = _ClassifyInputs
    output_spec = _ClassifyOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc.denoising import aroma, mixture

        components, motion = np.load(self.inputs.components), np.load(self.inputs.motion)
        mixing = components["mixing"]
        parameters = motion["parameters"][int(motion["n_dummy"]) :]
        where = np.load(self.inputs.aroma)
        thresholded = mixture.threshold_maps(components["maps"])
        maps = aroma.sample_maps(thresholded, load_mask(self.inputs.brain_mask), where["voxels"])
        correlation = aroma.max_rp_corr(mixing, parameters, self.inputs.seed)
        edge, csf = aroma.edge_csf_fractions(maps, where["csf"], where["edge"], where["out"])
        hfc = aroma.high_frequency_content(mixing, self.inputs.tr)
        noise, reasons = aroma.classify(correlation, edge, csf, hfc)
        self._save(
            folder,
            "decisions",
            max_rp_corr=correlation,
            edge_fract=edge,
            csf_fract=csf,
            hfc=hfc,
            variance=components["variance"],
            noise=noise,
            reason=np.array(reasons),
        )


class _DenoiseInputs(ArrayInputSpec):
    parcels = File(exists=True, mandatory=True)
    components = File(exists=True, desc="absent for runs without volumes, which have no ICA")
    decisions = File(exists=True)
    motion = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    mode = traits.Str(mandatory=True, desc="nonaggr, aggr, none, or confounds:<strategy>")
    design = File(exists=True, desc="npz: confounds (T', K), kept (T',), for a strategy")
    high_pass = traits.Float(mandatory=True)
    low_pass = traits.Either(None, traits.Float, usedefault=True)


class _DenoiseOutputs(TraitedSpec):
    denoised = File(desc="(T, 424) npy; non-steady volumes and parcels without data are NaN")
    cleaning = File(desc="npz: matrix (T', T') that denoises and filters demeaned steady volumes")


class Denoise(ArrayInterface):
    """Removal of components or confounds, and the high-pass (and low-pass) filter, on parcels."""

    input_spec = _DenoiseInputs
    output_spec = _DenoiseOutputs

    def _compute(self, folder: Path) -> None:
        n_dummy = int(np.load(self.inputs.motion)["n_dummy"])
        parcels = np.load(self.inputs.parcels)
        steady = parcels[n_dummy:]
        cleaning = self._cleaning(self._filter(len(steady)))
        mean = steady.mean(axis=0)
        denoised = np.full(parcels.shape, np.nan)
        # FEAT adds the mean back, so that the series keeps its scale
        denoised[n_dummy:] = cleaning @ (steady - mean) + mean
        path = folder / "denoised.npy"
        np.save(path, denoised)
        self._results["denoised"] = str(path)
        self._save(folder, "cleaning", matrix=cleaning)

    def _filter(self, n_volumes: int) -> NDArray[np.float64]:
        from brainlm_bids.preproc.denoising import temporal

        tr, low_pass = self.inputs.tr, self.inputs.low_pass
        kept = temporal.highpass_matrix(n_volumes, tr, self.inputs.high_pass)
        if low_pass is None:
            return kept
        return np.asarray(temporal.gaussian_lowpass_matrix(n_volumes, tr, low_pass) @ kept)

    def _cleaning(self, temporal_filter: NDArray[np.float64]) -> NDArray[np.float64]:
        from brainlm_bids.preproc.denoising import aroma, fmriprep

        if self.inputs.design:
            design = np.load(self.inputs.design)
            try:
                return fmriprep.confound_cleaning(
                    design["confounds"], design["kept"], temporal_filter
                )
            except ValueError as error:
                raise UserError(f"--denoise {self.inputs.mode}: {error}") from None
        if not self.inputs.components:
            return temporal_filter
        mixing = np.load(self.inputs.components)["mixing"]
        noise = np.load(self.inputs.decisions)["noise"]
        removal = aroma.removal_matrix(mixing, noise, self.inputs.mode)
        return np.asarray(temporal_filter @ removal)


class _ScaleInputs(ArrayInputSpec):
    denoised = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    model_tr = traits.Float(mandatory=True)
    statistics = File(exists=True, desc="TSV of another cohort")


class _ScaleOutputs(TraitedSpec):
    robust = File(desc="npz: series (T', 424), filled (424,), median, iqr (424,), tr")


class Scale(ArrayInterface):
    """Resampling to the model's TR and robust scaling."""

    input_spec = _ScaleInputs
    output_spec = _ScaleOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids import resources
        from brainlm_bids.parcels import sampling, scaling

        n_dummy = int(np.load(self.inputs.motion)["n_dummy"])
        series = np.load(self.inputs.denoised)[n_dummy:]
        series, tr = sampling.at_rate(series, self.inputs.tr, self.inputs.model_tr)
        if self.inputs.statistics:
            names = list(resources.parcels().names)
            stats = scaling.load_stats(Path(self.inputs.statistics), names)
        else:
            stats = scaling.recording_stats(series)
        scaled, filled = scaling.scale(series, stats)
        self._save(
            folder,
            "robust",
            series=scaled,
            filled=filled,
            median=stats.median,
            iqr=stats.iqr,
            tr=tr,
        )
