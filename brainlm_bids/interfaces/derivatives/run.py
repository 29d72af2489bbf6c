"""Inputs and helpers that the interfaces for the derivatives of a run share."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.context import RunContext
from brainlm_bids.interfaces.array_interface import ArrayInputSpec
from brainlm_bids.interfaces.context import Record

if TYPE_CHECKING:
    from brainlm_bids.preproc.steps import Motion

AROMA_FEATURES = ("max_rp_corr", "edge_fract", "csf_fract", "hfc", "variance")


class RunInputs(ArrayInputSpec):
    """Inputs of every interface that writes derivatives of a run."""

    context = Record(RunContext, mandatory=True)


def padded_mixing(mixing: NDArray[np.float64], motion: "Motion") -> NDArray[np.float64]:
    """Extend time courses to all volumes of a run.

    Parameters
    ----------
    mixing
        (T', K) time courses of the steady-state volumes.
    motion
        Where the steady state begins, and which volumes are bad.

    Returns
    -------
    ndarray
        (T, K), NaN before the steady state and in bad volumes.
    """
    padded = np.full((motion.n_dummy + len(mixing), mixing.shape[1]), np.nan)
    padded[motion.n_dummy :] = mixing
    if motion.good is not None:
        padded[~motion.good] = np.nan
    return padded


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
