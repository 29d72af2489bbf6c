"""Confounds of existing fMRIPrep derivatives: motion parameters, volumes to drop, regression.

Columns are (T,) float64, NaN for n/a, with the names of fMRIPrep 20 and later.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.parcels.sampling import interpolated, interpolation_matrix
from brainlm_bids.preproc.denoising.confounds import (
    MOTION_NAMES,
    bad_volume_columns,
    expanded,
    framewise_displacement,
    without_a_difference,
)

Column = NDArray[np.float64]
SIGNALS = ("global_signal", "csf", "white_matter", *MOTION_NAMES)
DIFFERENCES = ("dvars", "std_dvars", "framewise_displacement", "rmsd")
KNOWN = re.compile(
    r"(global_signal|csf|white_matter|trans_[xyz]|rot_[xyz])(_derivative1)?(_power2)?"
    r"|(std_)?dvars|framewise_displacement|rmsd|(cosine|(non_steady_state|motion)_outlier)\d+"
)


def motion_parameters(confounds: Mapping[str, Column]) -> Column:
    """Motion parameters of a table of confounds.

    Parameters
    ----------
    confounds
        Name to (T,) column.

    Returns
    -------
    ndarray
        (T, 6) translations in mm, then rotations in rad.

    Raises
    ------
    KeyError
        If a column is missing.
    """
    return np.stack([confounds[name] for name in MOTION_NAMES], axis=1)


def n_non_steady(confounds: Mapping[str, Column]) -> int:
    """Count the leading volumes that fMRIPrep marked as not in a steady state.

    Examples
    --------
    >>> n_non_steady({"non_steady_state_outlier00": np.array([1.0, 0.0, 0.0])})
    1
    """
    marks = [v for name, v in confounds.items() if name.startswith("non_steady_state_outlier")]
    if not marks:
        return 0
    marked = np.any(np.stack(marks) > 0, axis=0)
    return int(np.flatnonzero(~marked)[0]) if not marked.all() else len(marked)


def known_confounds(confounds: Mapping[str, Column]) -> dict[str, Column]:
    """Select the columns that a raw run's table has too, in fMRIPrep's order.

    Of a table that somebody has shortened, the framewise displacement is computed again from the
    motion parameters.

    Examples
    --------
    >>> list(known_confounds({"csf": np.zeros(3), "edge_comp_00": np.zeros(3)}))
    ['csf']
    >>> moved = dict.fromkeys(MOTION_NAMES, np.zeros(3)) | {"trans_y": np.array([0, 0.5, 0.25])}
    >>> known_confounds(moved)["framewise_displacement"].round(2)
    array([ nan, 0.5 , 0.25])
    """
    known = {name: values for name, values in confounds.items() if KNOWN.fullmatch(name)}
    if "framewise_displacement" not in known and known.keys() >= set(MOTION_NAMES):
        known["framewise_displacement"] = framewise_displacement(motion_parameters(known))
    return known


def without_bad_volumes(
    confounds: Mapping[str, Column], good: NDArray[np.bool_], n_dummy: int = 0
) -> dict[str, Column]:
    """Replace what bad volumes left in a table of confounds.

    Parameters
    ----------
    confounds
        Name to (T,) column, see `known_confounds`.
    good
        (T,) False for bad volumes.
    n_dummy
        Volumes before the steady state.

    Returns
    -------
    dict
        Signals and motion parameters are interpolated, and their differences and squares computed
        again; the other differences are NaN where one of their two volumes is bad; bad_volumeXX
        marks the bad volumes.

    Examples
    --------
    >>> good = np.array([True, False, True])
    >>> made = without_bad_volumes({"csf": np.array([2.0, 0.0, 4.0])}, good)
    >>> made["csf"], list(made)
    (array([2., 3., 4.]), ['csf', 'bad_volume00'])
    """
    table = dict(confounds)
    for name in confounds:
        if name in SIGNALS:
            again = expanded(name, interpolated(confounds[name], good))
            table |= {key: values for key, values in again.items() if key in table}
        elif name in DIFFERENCES:
            table[name] = np.where(without_a_difference(good), np.nan, confounds[name])
    return table | bad_volume_columns(good, n_dummy)


def interpolated_design(
    design: NDArray[np.float64], names: Sequence[str], good: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Interpolate confounds (T, K) at bad volumes; derivatives also at the volume after each.

    Examples
    --------
    >>> steps = np.array([[1.0], [-9.0], [9.0], [1.0]])
    >>> interpolated_design(steps, ["csf_derivative1"], np.array([True, False, True, True])).ravel()
    array([1., 1., 1., 1.])
    """
    known = {True: ~without_a_difference(good), False: good}
    columns = [
        interpolated(column, known["derivative1" in name])
        for name, column in zip(names, design.T, strict=True)
    ]
    return np.stack(columns, axis=1) if columns else design


def confound_cleaning(
    design: NDArray[Any], kept: NDArray[np.bool_], temporal_filter: NDArray[Any]
) -> NDArray[np.float64]:
    """Make the matrix that interpolates, filters and regresses demeaned series.

    Parameters
    ----------
    design
        (T, K) confounds without NaN.
    kept
        (T,) False for censored volumes: their values are interpolated linearly between their
        neighbours, and they do not take part in the fit.
    temporal_filter
        (T, T), applied to series and confounds alike, so that the regression does not reintroduce
        what the filter removed (Lindquist 2019, Hum Brain Mapp 40:2358).

    Returns
    -------
    ndarray
        (T, T), to be applied to demeaned series (T, P).

    Raises
    ------
    UserError
        If there are as many confounds as kept volumes, so that nothing of the series would remain.

    Examples
    --------
    >>> drift = np.linspace(-1, 1, 5)[:, None]
    >>> cleaning = confound_cleaning(drift, np.ones(5, dtype=bool), np.eye(5))
    >>> (cleaning @ (drift + [[0], [1], [-2], [1], [0]])).ravel().round(3) + 0.0
    array([ 0.,  1., -2.,  1.,  0.])
    """
    prepared = temporal_filter @ interpolation_matrix(kept)
    columns = prepared @ (design - design[kept].mean(axis=0))
    rank = np.linalg.matrix_rank(columns[kept])
    if rank >= kept.sum() - 1:
        raise UserError(f"{rank} independent confounds for {int(kept.sum())} volumes")
    fit = np.zeros((columns.shape[1], len(kept)))
    fit[:, kept] = np.linalg.pinv(columns[kept])
    return np.asarray(prepared - columns @ (fit @ prepared))
