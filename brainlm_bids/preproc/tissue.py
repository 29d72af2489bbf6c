"""Tissue of the voxels of a run, and a few voxels of each for figures."""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Tissue(IntEnum):
    """Codes of tissues; 0 is none of them."""

    CORTEX = 1
    SUBCORTICAL = 2
    CEREBELLUM = 3
    WHITE_MATTER = 4
    CSF = 5


# A424: 360 cortical parcels, 36 of the amygdala, hippocampus, basal ganglia and thalamus, 28 of the
# cerebellum.
LAST_PARCELS = (0, 360, 396, 424)
# Rows of a carpet plot, and the least of a tissue that has as many voxels.
N_ROWS = 420
LEAST_ROWS = 24

Codes = NDArray[np.uint8]


def tissue_of_parcels(labels: NDArray[Any]) -> Codes:
    """Codes of the parcels of A424.

    Parameters
    ----------
    labels
        0 (none) to 424, any shape.

    Returns
    -------
    ndarray
        Of the same shape.

    Examples
    --------
    >>> tissue_of_parcels(np.array([0, 1, 360, 361, 396, 397, 424])).tolist()
    [0, 1, 1, 2, 2, 3, 3]
    """
    return np.searchsorted(LAST_PARCELS, labels).astype(np.uint8)


def tissue_of_voxels(places: NDArray[Any], codes: NDArray[Any], shape: tuple[int, ...]) -> Codes:
    """The tissue from which most points fall into each voxel.

    Parameters
    ----------
    places
        (P, 3) voxel coordinates of points whose tissue is known.
    codes
        (P,) theirs, from 1.
    shape
        (X, Y, Z) of the run.

    Returns
    -------
    ndarray
        (X, Y, Z), 0 where no point falls.

    Examples
    --------
    >>> places = np.array([[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0], [9.0, 0, 0]])
    >>> tissue_of_voxels(places, np.array([4, 1, 4, 1]), (2, 1, 1)).ravel().tolist()
    [4, 0]
    """
    nearest = np.round(places)
    inside = ((nearest >= 0) & (nearest < np.array(shape))).all(axis=1)
    voxels = np.ravel_multi_index(tuple(nearest[inside].astype(np.int64).T), shape)
    n_voxels, n_codes = int(np.prod(shape)), len(Tissue)
    which = (np.asarray(codes)[inside].astype(np.int64) - 1) * n_voxels + voxels
    counts = np.bincount(which, minlength=n_codes * n_voxels).reshape(n_codes, n_voxels)
    most = np.where(counts.any(axis=0), counts.argmax(axis=0) + 1, 0)
    return most.reshape(shape).astype(np.uint8)


def spread_voxels(tissue: NDArray[Any], n_rows: int = N_ROWS) -> NDArray[np.int64]:
    """Choose voxels of every tissue, evenly spread over the order in which they are stored.

    Parameters
    ----------
    tissue
        (V,) codes.
    n_rows
        About as many voxels are chosen, in proportion to the size of each tissue; small tissues
        get more than their share.

    Returns
    -------
    ndarray
        Their indices, sorted by tissue.

    Examples
    --------
    >>> spread_voxels(np.repeat([1, 0, 4], [600, 50, 400]), 10)[:4].tolist()
    [0, 25, 50, 75]
    """
    known = int((tissue > 0).sum())
    chosen = [np.zeros(0, dtype=np.int64)]
    for code in Tissue:
        voxels = np.flatnonzero(tissue == code)
        wanted = max(round(n_rows * len(voxels) / max(known, 1)), LEAST_ROWS)
        n_chosen = min(wanted, len(voxels))
        chosen.append(voxels[np.arange(n_chosen) * len(voxels) // max(n_chosen, 1)])
    return np.concatenate(chosen)
