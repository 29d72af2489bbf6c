"""Confounds of a run, with fMRIPrep's names and order.

Motion parameters (T, 6) in mm and rad, mean signals (T,) and the series of the brain's voxels
(T, V) become named columns (T,) of float64, in which NaN stands for n/a.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MOTION_NAMES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
# With a number: the one-hot column of a motion outlier.
MOTION_OUTLIER = "motion_outlier"
# What a figure of the confounds shows, and how many columns at most; as many as fMRIPrep's.
MAIN_CONFOUNDS = (
    *("global_signal", "csf", "white_matter", "std_dvars", "dvars", "framewise_displacement"),
    *("rmsd", *MOTION_NAMES),
)
MOST_SHOWN = 20
# Voxels are taken in blocks, so that no second copy of a long run is made.
BLOCK_VOXELS = 4_000


def framewise_displacement(parameters: NDArray[Any], radius: float = 50.0) -> FloatArray:
    """Power's framewise displacement: Σ|Δ translation| + radius · Σ|Δ rotation|.

    Parameters
    ----------
    parameters
        (T, 6) translations in mm, then rotations in rad.
    radius
        Radius of the head, mm.

    Returns
    -------
    ndarray
        (T,) mm, the first NaN; the numbers of nipype's ``FramewiseDisplacement``.

    References
    ----------
    Power JD, Barnes KA, Snyder AZ, Schlaggar BL, Petersen SE (2012). Spurious but systematic
    correlations in functional connectivity MRI networks arise from subject motion. NeuroImage
    59:2142.

    Examples
    --------
    >>> framewise_displacement(np.array([[0, 0, 0, 0, 0, 0], [0.1, 0, -0.2, 0, 0.01, 0]])).round(3)
    array([nan, 0.8])
    """
    scale = np.array([1.0, 1.0, 1.0, radius, radius, radius])
    steps = np.abs(np.diff(np.asarray(parameters, dtype=np.float64), axis=0))
    return np.concatenate([[np.nan], (steps * scale).sum(axis=1)])


def rmsd(matrices: NDArray[Any], translations: NDArray[Any], radius: float = 80.0) -> FloatArray:
    """Jenkinson's root mean square displacement between neighbouring volumes.

    It is sqrt(R²/5 · trace(AᵀA) + |Δt|²), where A is the relative rotation minus 1.

    Parameters
    ----------
    matrices
        (T, 4, 4) rigid.
    translations
        (T, 3) mm, how far they move the centre of the brain.
    radius
        R, of the sphere over which the displacement is averaged, mm.

    Returns
    -------
    ndarray
        (T,) mm, the first NaN; the numbers of FSL's ``rmsdiff``.

    References
    ----------
    Jenkinson M (1999). Measuring transformation error by RMS deviation. FMRIB TR99MJ1.

    Examples
    --------
    >>> rmsd(np.tile(np.eye(4), (2, 1, 1)), np.array([[0.0, 0, 0], [0.3, 0, 0.4]]))
    array([nan, 0.5])
    """
    rotations = np.asarray(matrices, dtype=np.float64)[:, :3, :3]
    difference = np.diff(rotations, axis=0)
    # |R1ᵀR2 − 1| = |R2 − R1| in the Frobenius norm
    turned = (difference**2).sum(axis=(1, 2)) * radius**2 / 5
    shifted = (np.diff(np.asarray(translations, dtype=np.float64), axis=0) ** 2).sum(axis=1)
    return np.concatenate([[np.nan], np.sqrt(turned + shifted)])


def dvars(
    series: NDArray[Any], good: NDArray[np.bool_] | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rate of change of the whole brain's signal, plain and standardised in two ways.

    Parameters
    ----------
    series
        (T, V) in the brain, in any unit: it is scaled to a median of 1000. Voxels with values that
        are not finite are left out, and voxels whose robust standard deviation (see below) is 0.
    good
        (T,) False for bad volumes; None: all are good. All three are NaN at a bad volume and at
        the one after it, and the expectation is that of the good volumes.

    Returns
    -------
    dvars
        (T,) root mean square over voxels of the difference to the volume before, the first NaN.
    std_dvars
        (T,) the same divided by its expectation, the mean over voxels of
        sqrt(2(1 − AR(1))) · IQR / 1.349.
    voxelwise
        (T,) root mean square over voxels of the difference divided by the voxel's own expectation.
        All are NaN throughout if no voxel varies.

    References
    ----------
    Nichols TE (2013). Notes on creating a standardized version of DVARS. The numbers are those of
    nipype's ``compute_dvars`` with ``remove_zerovariance``.
    """
    series = np.asarray(series)
    n_volumes = len(series)
    finite = np.isfinite(series).all(axis=0)
    whole = series if finite.all() else series[:, finite]
    if good is not None:
        whole = whole[good]
    factor = 1000.0 / float(np.median(whole)) if whole.size else np.nan
    squares, of_voxels = np.zeros((2, max(n_volumes - 1, 0)))
    expected, n_voxels = 0.0, 0
    for first in range(0, series.shape[1], BLOCK_VOXELS):
        block = slice(first, first + BLOCK_VOXELS)
        values = series[:, block][:, finite[block]].astype(np.float64) * factor
        spread = _robust_deviation(values if good is None else values[good])
        varies = spread > 0
        values, spread = values[:, varies], spread[varies]
        counted = values if good is None else values[good]
        changes = np.diff(values, axis=0) ** 2
        expectation = np.sqrt(2 * (1 - _lag_one(counted))) * spread
        squares += changes.sum(axis=1)
        of_voxels += changes @ (1 / expectation**2)
        expected += float(expectation.sum())
        n_voxels += values.shape[1]
    if n_voxels == 0:
        return (np.full(n_volumes, np.nan),) * 3
    plain, voxelwise = (
        np.concatenate([[np.nan], np.sqrt(total / n_voxels)]) for total in (squares, of_voxels)
    )
    if good is not None:
        unknown = without_a_difference(good)
        plain[unknown], voxelwise[unknown] = np.nan, np.nan
    return plain, plain / (expected / n_voxels), voxelwise


def without_a_difference(good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(T,) volumes that have no difference to the volume before, as one of the two is bad.

    Examples
    --------
    >>> without_a_difference(np.array([True, False, True, True]))
    array([False,  True,  True, False])
    """
    return np.asarray(~good | np.concatenate([[False], ~good[:-1]]))


def bad_volume_columns(good: NDArray[np.bool_], n_dummy: int) -> dict[str, FloatArray]:
    """A column `bad_volumeXX` for each bad volume, which is 1 there; none before the steady state.

    Examples
    --------
    >>> bad_volume_columns(np.array([True, False, True]), 0)
    {'bad_volume00': array([0., 1., 0.])}
    """
    bad = ~good
    bad[:n_dummy] = False
    return _numbered("bad_volume", np.eye(len(good))[:, bad])


def cosine_drift(n_volumes: int, tr: float, cutoff: float = 128.0) -> FloatArray:
    """Slow cosines, as many as have periods longer than the cut-off.

    Parameters
    ----------
    n_volumes
        T, steady-state volumes only.
    tr
        Repetition time, s.
    cutoff
        Shortest period, s.

    Returns
    -------
    ndarray
        (T, K): discrete cosine transform of type II without its constant, scaled by sqrt(2/T), with
        K = floor(2·T·TR / cutoff) − 1: SPM's basis with the number of columns of nipype and
        fMRIPrep.

    Examples
    --------
    >>> cosine_drift(200, 2.0).shape
    (200, 5)
    """
    n_columns = max(int(np.floor(2 * n_volumes * (1.0 / cutoff) * tr)), 1) - 1
    time = (np.arange(n_volumes) + 0.5) * np.pi / max(n_volumes, 1)
    order = np.arange(1, n_columns + 1)
    return np.asarray(np.sqrt(2.0 / max(n_volumes, 1)) * np.cos(np.outer(time, order)))


def confounds_table(
    parameters: NDArray[Any],
    matrices: NDArray[Any] | None,
    global_signal: NDArray[Any],
    csf: NDArray[Any] | None,
    white_matter: NDArray[Any] | None,
    series: NDArray[Any],
    n_dummy: int,
    tr: float,
    fd_spike_threshold: float = 0.5,
    dvars_spike_threshold: float = 1.5,
    good: NDArray[np.bool_] | None = None,
) -> dict[str, FloatArray]:
    """All confounds of a run.

    Parameters
    ----------
    parameters
        (T, 6), see `motion.realign.matrices_to_parameters`.
    matrices
        (T, 4, 4), or None: then there is no `rmsd`.
    global_signal, csf, white_matter
        (T,) mean signals. csf and white_matter may be None (no tissue maps); their columns are
        then left out.
    series
        (T, V) in the brain, realigned, not filtered.
    n_dummy
        Leading volumes before the steady state.
    tr
        Repetition time, s.
    fd_spike_threshold
        Framewise displacement above which a volume is an outlier, mm.
    dvars_spike_threshold
        Standardised DVARS above which a volume is an outlier.
    good
        (T,) False for bad volumes, at which all input is interpolated; None: all are good.

    Returns
    -------
    dict
        Name to (T,) column, in fMRIPrep's order: signals with derivative1, power2,
        derivative1_power2; std_dvars, dvars, framewise_displacement, rmsd; cosineXX (128 s, over
        the steady-state volumes, 0 before); non_steady_state_outlierXX; the six motion parameters
        with the same expansions; motion_outlierXX, one-hot, for volumes above either threshold.
        A dummy volume has a column of its own already and gets no second one. With bad volumes
        also bad_volumeXX, one-hot; differences to and from such a volume are NaN in std_dvars,
        dvars, framewise_displacement and rmsd. First values of differences are NaN.

    Raises
    ------
    ValueError
        If a column does not have one value per volume.
    """
    tissue = {"global_signal": global_signal, "csf": csf, "white_matter": white_matter}
    table: dict[str, FloatArray] = {}
    for name, signal in tissue.items():
        if signal is not None:
            table |= expanded(name, signal)
    plain, standardised, _ = dvars(series, good)
    displacement = framewise_displacement(parameters)
    if good is not None:
        displacement[without_a_difference(good)] = np.nan
    table |= {"std_dvars": standardised, "dvars": plain, "framewise_displacement": displacement}
    if matrices is not None:
        table["rmsd"] = rmsd(matrices, np.asarray(parameters)[:, :3])
        if good is not None:
            table["rmsd"][without_a_difference(good)] = np.nan
    n_volumes = len(parameters)
    cosines = np.zeros((n_volumes, 0))
    if n_volumes - n_dummy > 0:
        steady = cosine_drift(n_volumes - n_dummy, tr)
        cosines = np.vstack([np.zeros((n_dummy, steady.shape[1])), steady])
    table |= _numbered("cosine", cosines)
    table |= _numbered("non_steady_state_outlier", np.eye(n_volumes)[:, :n_dummy])
    for column, name in enumerate(MOTION_NAMES):
        table |= expanded(name, np.asarray(parameters)[:, column])
    # comparisons with NaN are False: the first volume is never a spike
    spikes = (displacement > fd_spike_threshold) | (standardised > dvars_spike_threshold)
    spikes[:n_dummy] = False
    table |= motion_outlier_columns(spikes)
    if good is not None:
        table |= bad_volume_columns(good, n_dummy)
    _check_lengths(table, n_volumes)
    return table


def motion_outlier_columns(outliers: NDArray[np.bool_]) -> dict[str, FloatArray]:
    """A column motion_outlierXX (T,) for each volume that is marked in (T,).

    Examples
    --------
    >>> motion_outlier_columns(np.array([False, True]))
    {'motion_outlier00': array([0., 1.])}
    """
    return _numbered(MOTION_OUTLIER, np.eye(len(outliers))[:, outliers])


def expanded(name: str, values: NDArray[Any]) -> dict[str, FloatArray]:
    """A signal (T,) with its difference to the volume before, and the squares of both.

    Examples
    --------
    >>> list(expanded("csf", np.array([1.0, 3.0])))
    ['csf', 'csf_derivative1', 'csf_power2', 'csf_derivative1_power2']
    """
    signal = np.asarray(values, dtype=np.float64)
    derivative = np.concatenate([[np.nan], np.diff(signal)])
    return {
        name: signal,
        f"{name}_derivative1": derivative,
        f"{name}_power2": signal**2,
        f"{name}_derivative1_power2": derivative**2,
    }


def main_confounds(
    table: Mapping[str, NDArray[Any]], used: NDArray[np.bool_], most: int = MOST_SHOWN
) -> list[str]:
    """Names of the confounds that a figure shows.

    Parameters
    ----------
    table
        Columns (T,) with fMRIPrep's names.
    used
        (T,) the volumes that count.
    most
        Number of names at most.

    Returns
    -------
    list of str
        The signals and motion parameters that there are, then those of ICA-AROMA's noise components
        that correlate most with the global signal.

    Examples
    --------
    >>> table = {"aroma_motion_01": np.array([1, 2, 4.0]), "trans_x": np.ones(3)}
    >>> main_confounds(table | {"global_signal": np.arange(3.0)}, np.ones(3, bool))
    ['global_signal', 'trans_x', 'aroma_motion_01']
    """
    names = [name for name in MAIN_CONFOUNDS if name in table]
    noise = [name for name in table if name.startswith("aroma_motion_")]
    if "global_signal" in table:
        whole = np.asarray(table["global_signal"])[used]
        whole = whole - whole.mean()
        scores = [_similarity(np.asarray(table[name])[used], whole) for name in noise]
        noise = [noise[k] for k in np.argsort(-np.array(scores), kind="stable")]
    return [*names, *noise][:most]


def _similarity(values: NDArray[Any], centred: NDArray[Any]) -> float:
    """Absolute correlation up to a factor; 0 for what does not vary or is not known."""
    rest = values - values.mean()
    length = float(np.sqrt(rest @ rest))
    return float(abs(rest @ centred) / length) if np.isfinite(length) and length > 0 else 0.0


def _numbered(name: str, columns: NDArray[Any]) -> dict[str, FloatArray]:
    return {f"{name}{i:02d}": np.asarray(column) for i, column in enumerate(columns.T)}


def _check_lengths(table: Mapping[str, FloatArray], n_volumes: int) -> None:
    wrong = [name for name, column in table.items() if column.shape != (n_volumes,)]
    if wrong:
        raise ValueError(f"not one value per volume ({n_volumes}): {', '.join(wrong)}")


def _robust_deviation(values: FloatArray) -> FloatArray:
    """Interquartile range over time / 1.349; quartiles are values that occur, as in FSL."""
    # quicker than np.percentile(method="lower"), and the same numbers
    ordered, last = np.sort(values, axis=0), len(values) - 1
    return np.asarray((ordered[3 * last // 4] - ordered[last // 4]) / 1.349)


def _lag_one(values: FloatArray) -> FloatArray:
    """Autocorrelation at lag 1 per column: Yule–Walker's AR(1), biased estimate."""
    centred = values - values.mean(axis=0)
    return np.asarray((centred[1:] * centred[:-1]).sum(axis=0) / (centred**2).sum(axis=0))
