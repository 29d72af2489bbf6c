"""What features that know nothing but the place of a parcel reach against reference networks.

Gaussian random fields, smooth over space and, as brains are, alike in both hemispheres, stand in
for the features of a model. Their agreement with the reference is that which smoothness alone
explains, as in the spin tests and generative null models of brain maps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from brainlm_bids.model.networks import MEASURES, parcel_networks

WIDTHS_MM = (15.0, 20.0, 25.0, 30.0)
FIELD_COUNTS = (20, 50, 200, 1000)
N_DRAWS = 100
QUANTILE = 0.95


class Smoothness(NamedTuple):
    """A kind of random features.

    Attributes
    ----------
    width_mm
        Standard deviation of the Gaussian kernel that white noise was smoothed with.
    n_fields
        Number of independent fields, which are the features of a parcel.
    mirrored
        Whether each field is the same in both hemispheres.
    """

    width_mm: float
    n_fields: int
    mirrored: bool


KINDS = tuple(
    Smoothness(width, n_fields, mirrored)
    for mirrored in (True, False)
    for width in WIDTHS_MM
    for n_fields in FIELD_COUNTS
)


def smooth_features(
    xyz: ArrayLike, kind: Smoothness, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw features that are smooth over space, and nothing else.

    Parameters
    ----------
    xyz
        (P, 3) centres of the parcels in mm, x = 0 between the hemispheres.
    kind
        Their smoothness.
    rng
        Source of random numbers.

    Returns
    -------
    ndarray
        (P, F) fields of unit variance. Their correlation between two places d mm apart is
        exp(−d² / 4σ²), that of white noise smoothed with a Gaussian of standard deviation σ.

    Examples
    --------
    >>> xyz = [[30.0, 0, 0], [-30, 0, 0], [31, 0, 0]]
    >>> kind = Smoothness(width_mm=15, n_fields=2000, mirrored=True)
    >>> fields = smooth_features(xyz, kind, np.random.default_rng(0))
    >>> bool(np.allclose(fields[0], fields[1])), bool(np.corrcoef(fields[0], fields[2])[0, 1] > 0.9)
    (True, True)
    """
    root = _root(np.asarray(xyz, dtype=np.float64), kind)
    return np.asarray(root @ rng.standard_normal((len(root), kind.n_fields)))


def _root(xyz: NDArray[np.float64], kind: Smoothness) -> NDArray[np.float64]:
    """(P, P) matrix that turns white noise into fields."""
    covariance = _kernel(cdist(xyz, xyz), kind.width_mm)
    if kind.mirrored:
        covariance = covariance + _kernel(cdist(xyz, xyz * [-1, 1, 1]), kind.width_mm)
    sd = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / sd[:, None] / sd)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


def _kernel(distance: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-((distance / (2 * width)) ** 2)))


def null_scores(
    xyz: ArrayLike, reference: ArrayLike, kind: Smoothness, *, n_draws: int = N_DRAWS, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Compare random smooth features with reference networks.

    Parameters
    ----------
    xyz
        (P, 3) centres of the parcels in mm.
    reference
        (P,) networks 1 … 7.
    kind
        Smoothness of the features.
    n_draws
        Number of independent sets of features.
    seed
        Of the features; the folds of every set are others.

    Returns
    -------
    dict
        (n_draws,) by measure, as `networks.Networks.scores` names them.
    """
    root = _root(np.asarray(xyz, dtype=np.float64), kind)
    rng = np.random.default_rng(seed)
    rows = []
    for draw in range(n_draws):
        fields = root @ rng.standard_normal((len(root), kind.n_fields))
        rows.append(parcel_networks(fields, reference, xyz, seed=seed + draw).scores())
    return {name: np.array([row[name] for row in rows]) for name in MEASURES}


def summary(scores: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """Reduce the scores of random features to their mean and their 95th percentile.

    Parameters
    ----------
    scores
        (n,) by measure.

    Returns
    -------
    dict
        For each measure "mean" and "high", the 95th percentile.

    Examples
    --------
    >>> summary({"accuracy": np.arange(101.0)})
    {'accuracy': {'mean': 50.0, 'high': 95.0}}
    """
    return {
        name: {"mean": float(values.mean()), "high": float(np.quantile(values, QUANTILE))}
        for name, values in scores.items()
    }
