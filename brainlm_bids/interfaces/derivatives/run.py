"""Inputs and helpers that the interfaces for the derivatives of a run share."""

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.context import RunContext
from brainlm_bids.interfaces.array_interface import ArrayInputSpec
from brainlm_bids.interfaces.context import Record

AROMA_FEATURES = ("max_rp_corr", "edge_fract", "csf_fract", "hfc", "variance")


class RunInputs(ArrayInputSpec):
    """Inputs of every interface that writes derivatives of a run."""

    context = Record(RunContext, mandatory=True)


def padded_mixing(mixing: NDArray[np.float64], n_dummy: int) -> NDArray[np.float64]:
    """Extend time courses to all volumes of a run.

    Parameters
    ----------
    mixing
        (T, K) time courses of the steady-state volumes.
    n_dummy
        Number of volumes before the steady state.

    Returns
    -------
    ndarray
        (n_dummy + T, K), NaN before the steady state.
    """
    padded = np.full((n_dummy + len(mixing), mixing.shape[1]), np.nan)
    padded[n_dummy:] = mixing
    return padded
