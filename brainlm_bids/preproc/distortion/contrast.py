"""Whether a correction of distortion sharpens a run: the boundary of white matter tells.

A wrong sign of the phase encoding is the usual mistake, and doubles the distortion instead of
removing it. Where a correction moves the boundary by much, grey matter must be brighter than white
matter with the correction, and not with its opposite.

Simulated heads, three kinds of fields (hills at the frontal and temporal poles, of one sign or of
both; dipoles of the air cavities), two heads and both directions: right polarity by how much
sharper than the opposite one; false alarms and misses of the warning at `CLEARLY` = 0.05.

======  =====================  ============  ======  ==========================
peak    right minus opposite   false alarms  missed  not judged (too few points)
======  =====================  ============  ======  ==========================
4 mm    0.09 to 0.31, 12 runs  0 of 12       0       2
8 mm    0.12 to 0.40, 12 runs  0 of 12       0       0
12 mm   0.09 to 0.38, 12 runs  0 of 12       0       0
======  =====================  ============  ======  ==========================
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.preproc.affine import Matrix, apply
from brainlm_bids.preproc.distortion.field import Distortion
from brainlm_bids.preproc.registration import boundary
from brainlm_bids.preproc.registration.transforms import Chain

# Points that a distortion moves by less look alike with and without it.
MOVED_MM = 2.0
FEWEST_POINTS = 100
# By how much the opposite sign must be the better one, in units of the mean of tanh(Q / 10 %).
CLEARLY = 0.05


@dataclass(frozen=True)
class Contrasts:
    """How sharp the boundary of white matter is where a distortion moves it by more than 2 mm.

    Attributes
    ----------
    n_points
        Points of the boundary that are moved by so much.
    uncorrected, corrected, reversed
        Mean over these points of tanh(Q / 10 %), Q = 200 (grey - white) / (grey + white), %: as the
        image is, with the correction, and with the correction of opposite sign. 0 where there is no
        boundary, and no point without signal counts as sharp.
    """

    n_points: int
    uncorrected: float
    corrected: float
    reversed: float

    @property
    def suspect(self) -> bool:
        """Whether the opposite sign is clearly the better one.

        >>> Contrasts(900, 0.2, 0.1, 0.4).suspect, Contrasts(900, 0.2, 0.4, 0.1).suspect
        (True, False)
        """
        return self.n_points >= FEWEST_POINTS and self.reversed - self.corrected > CLEARLY


def contrasts(
    surface: boundary.Surface,
    boldref: NDArray[Any],
    affine: Matrix,
    brain_mask: NDArray[np.bool_],
    matrix: Matrix,
    distortion: Distortion,
) -> Contrasts:
    """Compare a run without correction, with it, and with the opposite one.

    Parameters
    ----------
    surface
        Of the T1w image, see `boundary.white_surface`.
    boldref
        (X, Y, Z) of the run, as it was acquired.
    affine
        (4, 4) of `boldref`, voxel to RAS+ mm.
    brain_mask
        (X, Y, Z) of the run.
    matrix
        (4, 4) points of the T1w image to those of the undistorted reference, RAS+ mm.
    distortion
        From there to what `boldref` shows.

    Returns
    -------
    Contrasts
        All 0 if nothing is moved by more than 2 mm.
    """
    points = apply(matrix, surface.points)
    moved = np.linalg.norm(distortion(points) - points, axis=1) > MOVED_MM
    if not moved.any():
        return Contrasts(0, 0.0, 0.0, 0.0)
    part = boundary.Surface(surface.points[moved], surface.normals[moved])
    opposite = replace(distortion, shift=-distortion.shift)
    pulls = Chain((matrix,)), Chain((matrix, distortion)), Chain((matrix, opposite))
    means = (
        sharpness(boundary.contrasts_at(part, boldref, affine, brain_mask, pull)) for pull in pulls
    )
    return Contrasts(int(moved.sum()), *means)


def sharpness(values: NDArray[np.float64]) -> float:
    """Mean of tanh(Q / 10 %) over contrasts Q (N,), in %; NaN, without signal, counts as 0.

    >>> sharpness(np.array([0.0, np.nan]))
    0.0
    """
    return float(np.tanh(boundary.SLOPE * np.nan_to_num(values)).mean()) if len(values) else 0.0


def polarity_warnings(found: Contrasts) -> list[Notice]:
    """A warning if the opposite polarity sharpens a run more than the one that was used.

    >>> [one.kind for one in polarity_warnings(Contrasts(900, 0.2, 0.1, 0.4))]
    ['polarity_suspect']
    """
    if not found.suspect:
        return []
    text = (
        "With the opposite polarity of the phase encoding the boundary of white matter would be "
        f"sharper where the field map moves it by more than {MOVED_MM:g} mm (sharpness "
        f"{found.reversed:.2f}, not {found.corrected:.2f}; uncorrected {found.uncorrected:.2f}): "
        "PhaseEncodingDirection, or the sign of the field map, is probably wrong."
    )
    return [notice(Kind.POLARITY_SUSPECT, text)]
