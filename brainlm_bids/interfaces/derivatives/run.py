"""Inputs and helpers that the interfaces for the derivatives of a run share."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from nipype.interfaces.base import File, traits
from numpy.typing import NDArray

from brainlm_bids.bids.context import RAW, SERIES, XCP_D, RunContext
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec
from brainlm_bids.interfaces.context import Record
from brainlm_bids.interfaces.software import software_versions
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.parcels.steps import Scaled
from brainlm_bids.preproc.denoising.temporal import GRAND_MEAN

if TYPE_CHECKING:
    from brainlm_bids.preproc.steps import Motion, Summary

AROMA_FEATURES = ("max_rp_corr", "edge_fract", "csf_fract", "hfc", "variance")


class RunInputs(ArrayInputSpec):
    """Inputs of every interface that writes derivatives of a run."""

    context = Record(RunContext, mandatory=True)


class FunctionalInputs(RunInputs):
    """Series and motion of every run; the other inputs only where there are volumes."""

    motion = File(exists=True, mandatory=True)
    confounds = File(exists=True)
    image_quality = File(exists=True, desc="an `ImageQuality`")
    components = File(exists=True)
    decisions = File(exists=True)
    coverage = File(exists=True)
    denoised = File(exists=True, mandatory=True)
    parcels = File(exists=True, desc="the series before denoising, if it is to be written")
    robust = File(exists=True, mandatory=True)
    transform = File(exists=True, desc="boldref to template, without a T1w")
    matrix = File(exists=True, desc="boldref to T1w")
    coregistration = traits.Str(desc="how boldref and T1w were registered")
    distortion = File(exists=True, desc="a `Distortion` that the parcels' points followed")
    fit = File(exists=True, desc="a `Fit`: how well the field map fits the run")
    refused = traits.Str(desc="why the run was not corrected for its distortion")
    evidence = File(exists=True, desc="an `Evidence` for what was found without a field map")
    contrasts = File(exists=True, desc="a `Contrasts`: whether the correction sharpens the run")
    mask_source = traits.Str(desc="whose brain the mask is")
    quality = File(exists=True, desc="a `Quality`: of boldref to T1w, or to the template")
    t1w_quality = File(exists=True, desc="a `Quality`: of the T1w to the template")
    lesion_found = File(exists=True, desc="a `Lesion` of the T1w image, if there is a mask")
    design = File(exists=True, desc="confounds that were regressed out, volumes that were kept")
    combination = File(exists=True, desc="an `EchoSummary`, where echoes were combined")
    others_denoised = File(exists=True, desc="(T, K) array, the series of further atlases")
    others_coverage = traits.List(File(exists=True), desc="a `Coverage` of each of them")


def how_it_was_made(context: RunContext) -> dict[str, Any]:
    """The fields of a sidecar that the methods text needs beyond the others."""
    settings, source = context.settings, context.input_data
    made: dict[str, Any] = {
        "InputData": source.sidecar(),
        "RandomSeed": settings.random_seed,
        "SoftwareVersions": software_versions(),
    }
    if settings.regressed is not None:
        made["RegressedConfounds"] = list(settings.regressed)
    if source.level is not None:
        made["GrandMean"] = GRAND_MEAN
    if source.kind in (SERIES, XCP_D):
        return made
    made["DummyVolumesDetected"] = settings.dummy_scans is None
    made["GrandMean"] = GRAND_MEAN
    if source.kind == RAW:
        made["FramewiseDisplacementThreshold"] = settings.fd_spike_threshold
        made["StandardisedDVARSThreshold"] = settings.dvars_spike_threshold
    return made


def regressed_confounds(inputs: Any, n_dummy: int) -> dict[str, Any]:
    """The fields of a sidecar about confounds that were regressed out, and censored volumes."""
    if not inputs.design:
        return {}
    from brainlm_bids.preproc import steps

    design = payloads.load(steps.Design, inputs.design)
    return {
        "RegressedConfounds": design.names.tolist(),
        "CensoredVolumes": (n_dummy + np.flatnonzero(~design.kept)).tolist(),
    }


def summarised(inputs: Any) -> "Summary":
    """The summary of a run, from the payloads that a writer of its derivatives is given."""
    from brainlm_bids.preproc import steps

    components, decisions = None, None
    if inputs.components:
        components = payloads.load(steps.Components, inputs.components)
        decisions = payloads.load(steps.Decisions, inputs.decisions)
    return steps.summarise(
        payloads.load(np.ndarray, inputs.denoised),
        payloads.load(Scaled, inputs.robust),
        payloads.load(steps.Motion, inputs.motion),
        confounds=payloads.load(dict, inputs.confounds) if inputs.confounds else None,
        components=components,
        decisions=decisions,
    )


def used(context: RunContext, motion: "Motion") -> RunContext:
    """The context of a run whose sources are those that were used."""
    if not motion.sbref_refused:
        return context
    kept = tuple(one for one in context.sources if one != context.sbref)
    return replace(context, sources=kept)


def reference_fields(motion: "Motion") -> dict[str, Any]:
    """The fields of a sidecar about the image that a raw run's motion refers to."""
    return {
        "Reference": motion.reference,
        "ReferenceDistance": motion.sbref_distance,
        "ReferenceLikeness": motion.sbref_likeness,
    }


def reference_warnings(name: str, motion: "Motion") -> list[Notice]:
    """A note where a single-band reference turned out not to fit its run; name: of the run."""
    if not motion.sbref_refused:
        return []
    text = (
        f"{name}: its single-band reference {motion.sbref_refused}. It was not used: the reference "
        "is the median of the run's own volumes."
    )
    return [notice(Kind.SBREF_NOT_USED, text)]


def unusable_warnings(n_voxels: int) -> list[Notice]:
    """What to know of voxels of the brain whose values are not finite.

    >>> [str(one) for one in unusable_warnings(0)]
    []
    """
    if not n_voxels:
        return []
    held = "voxel of the brain holds" if n_voxels == 1 else "voxels of the brain hold"
    text = (
        f"{n_voxels} {held} values that are not finite numbers. They were left out; the coverage "
        "of their parcels is smaller."
    )
    return [notice(Kind.NON_FINITE_VOXELS, text)]


def bad_volumes(motion: "Motion") -> dict[str, Any]:
    """The fields of a sidecar that list a run's bad volumes, counted from 0, with their reasons."""
    if motion.reasons is None:
        return {"BadVolumes": []}
    bad = np.flatnonzero(motion.reasons != "")
    return {"BadVolumes": bad.tolist(), "BadVolumeReasons": motion.reasons[bad].tolist()}


def interpolated_volumes(measured: NDArray[np.bool_] | None) -> dict[str, list[int]]:
    """The field that lists the rows of a filled series that no volume was measured for."""
    if measured is None:
        return {}
    return {"InterpolatedVolumes": np.flatnonzero(~measured).tolist()}
