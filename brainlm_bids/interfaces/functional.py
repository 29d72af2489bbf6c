"""Nipype interfaces of a run before denoising.

They take raw BOLD to realigned BOLD, its transforms to the template, parcel series and confounds.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids.bids.context import from_plain
from brainlm_bids.bids.slices import SliceTable
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface, errors_about
from brainlm_bids.interfaces.context import Record
from brainlm_bids.interfaces.images import load_affine, load_image, load_mask, save_image
from brainlm_bids.preproc.registration.transforms import PointMap
from brainlm_bids.settings import Settings

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from brainlm_bids.preproc import steps

LOGGER = logging.getLogger(__name__)

# Steps of a stored run relative to the brain's median: ten in units of grand mean 10000, a small
# part of any scanner's noise.
COARSEST_STEP = 1e-3


class MotionInputs(ArrayInputSpec):
    """What the first step of a raw run needs beside its images."""

    orientation = traits.Either(None, traits.Str, usedefault=True, desc="if not recorded")
    dummy_scans = traits.Either(None, traits.Int, usedefault=True)
    max_bad_volumes = traits.Float(Settings.max_bad_volumes, usedefault=True, desc="share")
    slices = Record(SliceTable, desc="when slices were acquired, if that is to be corrected")
    tr = traits.Float(desc="s, of a run with slices")
    sbref = File(exists=True, desc="single-band reference")
    seed = traits.Int(desc="of the registration to it, and of tedana")
    device = traits.Enum("cpu", "auto", "cuda", usedefault=True, nohash=True)


class _RealignInputs(MotionInputs):
    bold = File(exists=True, mandatory=True)


class RealignOutputs(TraitedSpec):
    """Outputs of the first step of a raw run, with one echo or several."""

    bold = File(desc="realigned, int16 with a slope where that is fine enough")
    boldref = File()
    brain_mask = File(desc="brain, and in view in nearly every volume")
    motion = File(desc="a `Motion`")
    seen = File(desc="mask of what may be added to the brain")


class Realign(ArrayInterface):
    """Reference, brain, and rigid motion of a BOLD run."""

    input_spec = _RealignInputs
    output_spec = RealignOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        bold, affine = load_image(self.inputs.bold, self.inputs.orientation)
        sbref, refused = single_band(self.inputs)
        with errors_about(self.inputs.bold):
            # in place: a run is held once
            run = steps.realign(
                bold,
                affine,
                n_dummy=self.inputs.dummy_scans,
                max_bad_volumes=self.inputs.max_bad_volumes,
                device=self.inputs.device,
                slices=slice_times(self.inputs),
                sbref=sbref,
                out=bold,
            )
        self._results |= save_realigned(run, affine, folder, refused)


def slice_times(inputs: Any) -> "steps.SliceTimes | None":
    """When the slices of a run were acquired, by the inputs of its first step."""
    from brainlm_bids.preproc import steps

    if not inputs.slices:
        return None
    table = from_plain(SliceTable, inputs.slices)
    return steps.SliceTimes(np.array(table.times), table.reference, inputs.tr, table.axis)


def single_band(inputs: Any) -> "tuple[steps.SingleBand | None, str]":
    """The single-band reference by the inputs of a run's first step, or why it cannot be read."""
    from brainlm_bids.preproc import steps

    if not inputs.sbref:
        return None, ""
    try:
        return steps.SingleBand(*load_image(inputs.sbref, inputs.orientation), inputs.seed), ""
    except UserError as error:
        return None, f"cannot be used ({error})"


def save_realigned(
    run: "steps.Realigned", affine: NDArray[np.float64], folder: Path, refused: str = ""
) -> dict[str, str]:
    """Store a realigned run in a node's folder, and return the files by the names of outputs.

    refused: why its single-band reference could not even be read.
    """
    if refused:
        run = replace(run, motion=replace(run.motion, sbref_refused=refused))
    step = float(np.median(run.boldref[run.brain_mask])) * COARSEST_STEP
    seen = run.brain_mask if run.seen is None else run.seen
    return {
        "bold": save_image(folder / "bold.nii", run.bold, affine, coarsest_step=step),
        "boldref": save_image(folder / "boldref.nii.gz", run.boldref, affine),
        "brain_mask": save_image(folder / "brain_mask.nii.gz", run.brain_mask, affine),
        "motion": payloads.save(run.motion, folder / "motion"),
        "seen": save_image(folder / "seen.nii.gz", seen, affine),
    }


class _CoregisterInputs(ArrayInputSpec):
    boldref = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    t1w = File(exists=True, mandatory=True)
    t1w_mask = File(exists=True, mandatory=True)
    seen = File(exists=True, mandatory=True)
    t1w_lesion = File(exists=True, desc="of the T1w image")
    distortion = File(exists=True, desc="a `Distortion` of the run, where it is known")
    seed = traits.Int(mandatory=True)


class _CoregisterOutputs(TraitedSpec):
    matrix = File(desc="(4, 4) array: RAS+ world of the T1w to that of the BOLD reference")
    method = traits.Str(desc="boundary, or mutual information where that was not clear")
    quality = File(desc="a `Quality`")
    brain_mask = File(desc="of the run: the T1w's brain, if the registration can be trusted")
    mask_source = traits.Str(desc="T1w, or BOLD if not")
    contrasts = File(desc="a `Contrasts`; nothing without a distortion")


class Coregister(ArrayInterface):
    """Rigid registration of the BOLD reference to the T1w image: the brains, then the boundary."""

    input_spec = _CoregisterInputs
    output_spec = _CoregisterOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        with errors_about(self.inputs.boldref):
            registered = steps.coregister(
                *load_image(self.inputs.boldref),
                load_mask(self.inputs.brain_mask),
                *load_image(self.inputs.t1w),
                load_mask(self.inputs.t1w_mask),
                seen=load_mask(self.inputs.seen),
                t1w_lesion=load_mask(self.inputs.t1w_lesion) if self.inputs.t1w_lesion else None,
                distortion=payloads.load_distortion(self.inputs.distortion),
                seed=self.inputs.seed,
            )
        if registered.method != "boundary":
            LOGGER.warning(
                "%s: no clear boundary of white matter; the registration to the T1w image rests "
                "on mutual information alone",
                self.inputs.boldref,
            )
        self._results["matrix"] = payloads.save(registered.matrix, folder / "matrix")
        self._results["method"] = registered.method
        self._results["quality"] = payloads.save(registered.quality, folder / "quality")
        affine = load_affine(self.inputs.boldref)
        mask = save_image(folder / "brain_mask.nii.gz", registered.brain_mask, affine)
        self._results["brain_mask"] = mask
        self._results["mask_source"] = registered.mask_source
        if registered.contrasts is not None:
            self._results["contrasts"] = payloads.save(registered.contrasts, folder / "contrasts")


class _ProjectInputs(ArrayInputSpec):
    atlas = File(exists=True, mandatory=True, desc="labels on their own grid")
    boldref = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    transform = File(exists=True, desc="template to T1w, or to the BOLD reference")
    matrix = File(exists=True, desc="T1w to BOLD reference; absent when transform leads there")
    distortion = File(exists=True, desc="from there to where the run shows it, where it is known")
    template_mask = File(exists=True, desc="for a run that was registered elsewhere")
    lesion = File(exists=True, desc="of the T1w image; transform leads to it")
    min_parcel_coverage = traits.Float(mandatory=True)
    parcellations = traits.List(File(exists=True), desc="a `Labelled` each, of further atlases")


class _ProjectOutputs(TraitedSpec):
    operator = File(desc="W, sparse (424, voxels)")
    tissues = File(desc="sparse (2, voxels): white matter, cerebrospinal fluid")
    coverage = File(desc="a `Coverage`")
    aroma = File(desc="an `AromaSamples`")
    tissue = File(desc="(X, Y, Z) codes of the voxels' tissue")
    quality = File(desc="a `Quality`, with template_mask")
    others_operator = File(desc="sparse (K, voxels): the further atlases, one below another")
    others_coverage = traits.List(File, desc="a `Coverage` of each of them")


class Project(ArrayInterface):
    """Positions of the atlas, the tissues and AROMA's masks in the run's own voxels."""

    input_spec = _ProjectInputs
    output_spec = _ProjectOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids import resources
        from brainlm_bids.preproc import steps

        template = self.inputs.template_mask
        projection = steps.project(
            *load_image(self.inputs.atlas),
            tissues=resources.tissue_maps(),
            aroma=resources.aroma_masks(),
            pull=payloads.load_pull(
                self.inputs.transform, self.inputs.matrix, self.inputs.distortion
            ),
            brain_mask=load_mask(self.inputs.brain_mask),
            affine=load_affine(self.inputs.boldref),
            template_brain=(load_mask(template), load_affine(template)) if template else None,
            lesion=self._lesion(),
            min_parcel_coverage=self.inputs.min_parcel_coverage,
            others=self._others(),
        )
        if projection.others:
            self._save_others(projection.others, folder)
        if projection.quality is not None:
            self._results["quality"] = payloads.save(projection.quality, folder / "quality")
        for name in ("operator", "tissues", "coverage", "aroma", "tissue"):
            self._results[name] = payloads.save(getattr(projection, name), folder / name)

    def _others(self) -> list[tuple[NDArray[Any], NDArray[np.float64], int]]:
        from brainlm_bids.resources import Labelled

        found = [payloads.load(Labelled, path) for path in self.inputs.parcellations or ()]
        return [(one.labels, np.asarray(one.affine), len(one.index)) for one in found]

    def _save_others(self, others: "tuple[steps.Placed, ...]", folder: Path) -> None:
        from scipy import sparse

        operator = sparse.vstack([one.operator for one in others], format="csr")
        self._results["others_operator"] = payloads.save(operator, folder / "others_operator")
        self._results["others_coverage"] = [
            payloads.save(one.coverage, folder / f"coverage_{k}") for k, one in enumerate(others)
        ]

    def _lesion(self) -> tuple[NDArray[np.bool_], NDArray[np.float64], PointMap] | None:
        path = self.inputs.lesion
        if not path:
            return None
        return load_mask(path), load_affine(path), payloads.load_pull(self.inputs.transform, None)


class _ExtractInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True, desc="realigned")
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    operator = File(exists=True, mandatory=True)
    tissues = File(exists=True, mandatory=True)
    tissue = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    fd_spike_threshold = traits.Float(mandatory=True)
    dvars_spike_threshold = traits.Float(mandatory=True)
    others_operator = File(exists=True, desc="sparse (K, voxels), of further atlases")


class ExtractOutputs(TraitedSpec):
    """Outputs for a raw run and for one that fMRIPrep preprocessed."""

    parcels = File(desc="(T, 424) array, grand mean 10000, NaN without data")
    confounds = File(desc="a (T,) array per confound")
    factor = traits.Float(desc="that scales the run to a grand mean of 10000")
    image_quality = File(desc="an `ImageQuality`")
    voxels = File(desc="`Voxels` for figures")
    others = File(desc="(T, K) array, the series of further atlases")


class Extract(ArrayInterface):
    """Parcel series, confounds and image quality of the realigned run."""

    input_spec = _ExtractInputs
    output_spec = ExtractOutputs

    def _compute(self, folder: Path) -> None:
        from scipy.sparse import csr_matrix

        from brainlm_bids.preproc import steps

        bold, affine = load_image(self.inputs.bold)
        mask = load_mask(self.inputs.brain_mask)
        motion = payloads.load(steps.Motion, self.inputs.motion)
        extracted = steps.extract(
            bold,
            mask,
            motion,
            payloads.load(csr_matrix, self.inputs.operator),
            payloads.load(csr_matrix, self.inputs.tissues),
            self.inputs.tr,
            fd_spike_threshold=self.inputs.fd_spike_threshold,
            dvars_spike_threshold=self.inputs.dvars_spike_threshold,
            others=load_operator(self.inputs.others_operator),
        )
        self._results |= save_extracted(extracted, folder)
        # the run is in memory here
        tissue = payloads.load(np.ndarray, self.inputs.tissue)
        displacement = extracted.confounds["framewise_displacement"]
        measured = steps.measure_image(
            bold, affine, mask, motion, tissue, displacement, self.inputs.tr
        )
        self._results |= save_quality(*measured, folder)


def load_operator(file: Any) -> "csr_matrix | None":
    """Read the operator of further atlases; None where there are none."""
    from scipy.sparse import csr_matrix

    return payloads.load(csr_matrix, file) if file else None


def save_extracted(extracted: "steps.Extracted", folder: Path) -> dict[str, Any]:
    """Store series and confounds of a run, and return the files by the names of outputs."""
    made: dict[str, Any] = {
        "parcels": payloads.save(extracted.parcels, folder / "parcels"),
        "confounds": payloads.save(extracted.confounds, folder / "confounds"),
        "factor": extracted.factor,
    }
    if extracted.others is not None:
        made["others"] = payloads.save(extracted.others, folder / "others")
    return made


def save_quality(
    quality: "steps.ImageQuality", voxels: "steps.Voxels", folder: Path
) -> dict[str, str]:
    """Store the image quality of a run, and return the files by the names of outputs."""
    return {
        "image_quality": payloads.save(quality, folder / "image_quality"),
        "voxels": payloads.save(voxels, folder / "voxels"),
    }
