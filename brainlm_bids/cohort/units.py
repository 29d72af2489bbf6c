"""Units of a decoding: what is predicted once, and the features of its recordings together.

Several runs or sessions of one subject are no independent observations. A target that is the same
in all recordings of a subject is predicted once per subject.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cohort.means import mean_over

SUBJECT, SESSION, RECORDING = "subject", "session", "recording"
Units = tuple[tuple[int, ...], ...]
TOGETHER = 256  # units of one recording that are copied at a time


def group_units(
    rows: Sequence[int],
    values: Sequence[float],
    subjects: Sequence[str],
    sessions: Sequence[str | None] | None = None,
) -> tuple[str, Units]:
    """Group recordings into the units of a target.

    The unit is the subject if the target is the same in all recordings of every subject; else the
    session, if it is the same in all recordings of every session; else the recording.

    Parameters
    ----------
    rows
        (N,) numbers of the recordings with a value.
    values
        (N,) their values.
    subjects
        (N,) the subject of each.
    sessions
        (N,) the session of each; None where sessions are not known.

    Returns
    -------
    unit : str
        "subject", "session" or "recording".
    units : tuple of tuple of int
        (U,) the recordings of each unit, in the order of their first ones.

    Examples
    --------
    >>> group_units([0, 1, 2], [30.0, 30.0, 40.0], ["a", "a", "b"])
    ('subject', ((0, 1), (2,)))
    >>> group_units([0, 1, 2], [30.0, 31.0, 40.0], ["a", "a", "b"])
    ('recording', ((0,), (1,), (2,)))
    """
    keys: dict[str, list[tuple[object, ...]]] = {SUBJECT: [(subject,) for subject in subjects]}
    if sessions is not None:
        keys[SESSION] = list(zip(subjects, sessions, strict=True))
    keys[RECORDING] = [(row,) for row in rows]
    for unit, names in keys.items():
        members: dict[tuple[object, ...], list[int]] = {}
        found: dict[tuple[object, ...], set[float]] = {}
        for name, row, value in zip(names, rows, values, strict=True):
            members.setdefault(name, []).append(int(row))
            found.setdefault(name, set()).add(float(value))
        if all(len(distinct) == 1 for distinct in found.values()):
            return unit, tuple(map(tuple, members.values()))
    raise ValueError("the same recording has two values")


def unit_means(
    features: NDArray, units: Sequence[Sequence[int]], out: NDArray | None = None
) -> NDArray:
    """Average the features of the recordings of each unit.

    Parameters
    ----------
    features
        (N, F) of recordings, NaN where unknown; may be memory-mapped.
    units
        (U,) rows of each unit.
    out
        (U, F) array that is filled, such as a file in memory; by default a new one.

    Returns
    -------
    ndarray
        (U, F), NaN where no recording of a unit has a value.

    Examples
    --------
    >>> unit_means(np.array([[1.0], [3.0], [np.nan]]), [(0, 1), (1, 2)])
    array([[2.],
           [3.]])
    """
    if out is None:
        out = np.empty((len(units), features.shape[1]), dtype=np.float64)
    if all(len(rows) == 1 for rows in units):
        for start in range(0, len(units), TOGETHER):
            single = [rows[0] for rows in units[start : start + TOGETHER]]
            values = np.asarray(features[single], dtype=np.float64)
            out[start : start + TOGETHER] = np.where(np.isfinite(values), values, np.nan)
        return out
    for place, rows in enumerate(units):
        out[place] = mean_over(np.asarray(features[list(rows)], dtype=np.float64))
    return out
