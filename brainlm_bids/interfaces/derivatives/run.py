"""Inputs and helpers that the interfaces for the derivatives of a run share."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.context import RunContext
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec
from brainlm_bids.interfaces.context import Record
from brainlm_bids.parcels.steps import Scaled

if TYPE_CHECKING:
    from brainlm_bids.preproc.steps import Motion, Summary

AROMA_FEATURES = ("max_rp_corr", "edge_fract", "csf_fract", "hfc", "variance")


class RunInputs(ArrayInputSpec):
    """Inputs of every interface that writes derivatives of a run."""

    context = Record(RunContext, mandatory=True)


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
