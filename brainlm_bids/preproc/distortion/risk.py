"""Where in the brain an echo-planar image is distorted: near the air of the skull's base.

Outside of a sphere of air the field falls with the third power of the distance (Schenck 1996). The
middles and radii of the cavities below were read from the T1w image of MNI152NLin6Asym, in which
air is dark. They are the ones above and in front of which orbitofrontal, temporal polar and
inferior temporal cortex lose signal and are displaced (Ojemann 1997, Weiskopf 2006).

References
----------
Schenck JF (1996). The role of magnetic susceptibility in magnetic resonance imaging. Med. Phys.
23:815.

Ojemann JG et al. (1997). Anatomic localization and quantitative analysis of gradient refocused
echo-planar fMRI susceptibility artifacts. NeuroImage 6:156.

Weiskopf N et al. (2006). Optimal EPI parameters for reduction of susceptibility-induced BOLD
sensitivity losses: a whole-brain analysis at 3 T and 1.5 T. NeuroImage 33:493.
"""

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.preproc.affine import Points

# Middle and radius of spheres of air, MNI mm.
CAVITIES = (
    (0.0, 10.0, -43.0, 12.0),  # sphenoid sinus
    (0.0, 38.0, -38.0, 12.0),  # ethmoid cells
    (0.0, 72.0, -28.0, 8.0),  # frontal sinus
    (-52.0, -34.0, -44.0, 15.0),  # left petrous and mastoid cells
    (52.0, -34.0, -44.0, 15.0),  # right petrous and mastoid cells
)
# The field of one cavity at twice its radius: 6 mm or so of displacement at 3 T and a total
# read-out time of 40 ms, if half of the cavity is air.
AT_RISK = 0.125
# Between these a distortion may be estimated without a field map, from not at all to freely.
LEAST_FREE, ALL_FREE = 0.012, 0.05


def relative_field(points: Points) -> NDArray[np.float64]:
    """The field of all cavities, each relative to that at its own wall, whatever the direction.

    Parameters
    ----------
    points
        (P, 3) MNI mm.

    Returns
    -------
    ndarray
        (P,) the sum of (radius / distance)³, 1 within a cavity.

    Examples
    --------
    >>> relative_field(np.array([[0.0, 10.0, -43.0], [0.0, 20.0, -14.0]])).round(2)
    array([1.  , 0.14])
    """
    total = np.zeros(len(points))
    for x, y, z, radius in CAVITIES:
        away = np.linalg.norm(np.asarray(points) - np.array([x, y, z]), axis=1)
        total += (radius / np.maximum(away, radius)) ** 3
    return np.minimum(total, 1.0)


def freedom(points: Points) -> NDArray[np.float64]:
    """How freely a distortion may be estimated: from 0 far from the cavities to 1 near them.

    Parameters
    ----------
    points
        (P, 3) MNI mm.

    Examples
    --------
    >>> freedom(np.array([[0.0, 50.0, -20.0], [0.0, -60.0, 70.0]])).round(2)
    array([1., 0.])
    """
    low, high = np.log(LEAST_FREE), np.log(ALL_FREE)
    share = np.clip((np.log(relative_field(points)) - low) / (high - low), 0, 1)
    return np.asarray(share**2 * (3 - 2 * share))


def parcels_at_risk(centroids: Points) -> NDArray[np.bool_]:
    """Which parcels are probably displaced by several mm where nothing was corrected.

    Parameters
    ----------
    centroids
        (P, 3) of the parcels, MNI mm.

    Returns
    -------
    ndarray
        (P,) whether a parcel lies as near to air as twice the radius of one cavity.
    """
    return np.asarray(relative_field(centroids) > AT_RISK)
