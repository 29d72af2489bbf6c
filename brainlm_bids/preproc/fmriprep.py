"""What fMRIPrep's tables mean: confounds as text come in, named columns and volumes to drop go out.

Columns (T,) float64, NaN for n/a; names of 20.x and later.
"""

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .confounds import MOTION_NAMES

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
