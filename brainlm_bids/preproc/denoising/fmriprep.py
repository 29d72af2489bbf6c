"""What fMRIPrep's tables mean: confounds come in; named columns, volumes to drop, filters go out.

Columns (T,) float64, NaN for n/a; names of 20.x and later.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.denoising.confounds import MOTION_NAMES

Column = NDArray[np.float64]
KNOWN = re.compile(
    r"(global_signal|csf|white_matter|trans_[xyz]|rot_[xyz])(_derivative1)?(_power2)?"
    r"|(std_)?dvars|framewise_displacement|rmsd|(cosine|(non_steady_state|motion)_outlier)\d+"
)


def motion_parameters(confounds: Mapping[str, Column]) -> Column:
    """(T, 6): translations in mm, then rotations in rad. Raises KeyError for a missing column."""
    return np.stack([confounds[name] for name in MOTION_NAMES], axis=1)


def n_non_steady(confounds: Mapping[str, Column]) -> int:
    """Leading volumes that fMRIPrep marked as not in a steady state."""
    marks = [v for name, v in confounds.items() if name.startswith("non_steady_state_outlier")]
    if not marks:
        return 0
    marked = np.any(np.stack(marks) > 0, axis=0)
    return int(np.flatnonzero(~marked)[0]) if not marked.all() else len(marked)


def known_confounds(confounds: Mapping[str, Column]) -> dict[str, Column]:
    """The columns that our own table has too, in fMRIPrep's order."""
    return {name: values for name, values in confounds.items() if KNOWN.fullmatch(name)}


def confound_cleaning(
    design: NDArray[Any], kept: NDArray[np.bool_], temporal_filter: NDArray[Any]
) -> NDArray[np.float64]:
    """The (T, T) matrix that interpolates, filters and regresses demeaned series.

    Parameters
    ----------
    design
        (T, K) confounds without NaN.
    kept
        (T,) False for censored volumes: their values are interpolated linearly between their
        neighbours, and they do not take part in the fit.
    temporal_filter
        (T, T), applied to series and confounds alike, so that the regression brings nothing back
        that the filter took away (Lindquist 2019, Hum Brain Mapp 40:2358).

    Raises
    ------
    UserError
        If as many confounds as kept volumes leave nothing of the series.
    """
    prepared = temporal_filter @ _interpolation(kept)
    columns = prepared @ (design - design[kept].mean(axis=0))
    rank = np.linalg.matrix_rank(columns[kept])
    if rank >= kept.sum() - 1:
        raise UserError(f"{rank} independent confounds for {int(kept.sum())} volumes")
    fit = np.zeros((columns.shape[1], len(kept)))
    fit[:, kept] = np.linalg.pinv(columns[kept])
    return np.asarray(prepared - columns @ (fit @ prepared))


def _interpolation(kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(T, T): identity where kept, else the weights of the nearest kept volumes on both sides."""
    index = np.flatnonzero(kept)
    everything = np.arange(len(kept))
    return np.stack([np.interp(everything, index, row) for row in np.eye(len(kept))[:, index]], 1)
