"""QC-FC: what goes with head motion, feature by feature over subjects, and at which distances.

References
----------
Power JD, Barnes KA, Snyder AZ, Schlaggar BL, Petersen SE (2012). Spurious but systematic
correlations in functional connectivity MRI networks arise from subject motion. NeuroImage
59:2142-2154.
Ciric R, Wolf DH, Power JD, et al. (2017). Benchmarking of participant-level confound regression
strategies for the control of motion artifact in studies of functional connectivity. NeuroImage
154:174-187.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, rankdata, t

from brainlm_bids.cohort.units import unit_means

Array = NDArray[np.float64]
PERMUTATIONS = 200
BLOCK = 4096  # features at a time
FALSE_DISCOVERY_RATE = 0.05


class Coupling(NamedTuple):
    """How a number per subject, such as head motion, goes with their features.

    Attributes
    ----------
    correlations
        (F,) Pearson correlation over subjects; NaN for a feature that does not vary.
    median
        Median of the absolute correlations.
    median_chance, median_p
        Its mean over permutations of the subjects, and its one-sided p value.
    significant
        Share of the features that are significant at a false discovery rate of 5 %.
    largest, largest_chance, largest_p
        The largest absolute correlation, and the same for it: p is controlled for the number of
        features.
    distance
        Spearman correlation over features of the correlations with a distance; NaN without one.
    distance_p
        Its two-sided p value by the same permutations.
    """

    correlations: NDArray[np.float32]
    median: float
    median_chance: float
    median_p: float
    significant: float
    largest: float
    largest_chance: float
    largest_p: float
    distance: float
    distance_p: float


def coupling(
    features: ArrayLike,
    motion: ArrayLike,
    *,
    recordings: Sequence[Sequence[int]] | None = None,
    distances: ArrayLike | None = None,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Coupling:
    """Correlate a number per subject with each of their features.

    Parameters
    ----------
    features
        (N, F) a row per subject, such as its connectivity; NaN where unknown (correlations are of
        the subjects that have a value); may be memory-mapped.
    motion
        (N,) a value per subject, such as the mean framewise displacement in mm.
    recordings
        The rows of each subject, if it has several: their mean is used.
    distances
        (F,) of each feature, such as that between the parcels of a connection, in mm.
    n_permutations
        Number of permutations of the motion between subjects.
    seed
        Seed of the permutations.

    Returns
    -------
    Coupling
        Correlations and what they would be by chance.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> motion = rng.gamma(2, 0.1, 60)
    >>> features = rng.standard_normal((60, 200))
    >>> features[:, :40] += 10 * motion[:, None]
    >>> found = coupling(features, motion, n_permutations=99)
    >>> 0.15 < found.significant < 0.25, found.largest_p
    (True, 0.01)
    """
    values = np.asarray(motion, dtype=np.float64)
    rng = np.random.default_rng([seed, 8])
    rows = np.stack([values, *(rng.permutation(values) for _ in range(n_permutations))])
    wide = features if isinstance(features, np.ndarray) else np.asarray(features)
    found = np.full((len(rows), wide.shape[1]), np.nan, dtype=np.float32)
    counts = np.zeros(wide.shape[1], dtype=np.int64)
    for start in range(0, wide.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        block = np.array(wide[:, part], np.float64)
        block = block if recordings is None else unit_means(block, recordings)
        found[:, part], counts[part] = _correlations(rows, block)
    usable = np.isfinite(found[0])
    if not usable.any():
        return Coupling(found[0], *(math.nan,) * 9)
    # row by row, since all of them take much memory
    sizes = (np.abs(row[usable]) for row in found)
    middle, largest = np.array([(np.median(size), size.max()) for size in sizes]).T
    rho = np.full(len(rows), np.nan)
    if distances is not None:
        rho = _spearman(found[:, usable], np.asarray(distances, dtype=np.float64)[usable])
    return Coupling(
        found[0],
        float(middle[0]),
        _mean(middle[1:]),
        one_sided_p(middle),
        significant_share(found[0][usable].astype(np.float64), counts[usable]),
        float(largest[0]),
        _mean(largest[1:]),
        one_sided_p(largest),
        float(rho[0]),
        one_sided_p(np.abs(rho)),
    )


def _mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else math.nan


def one_sided_p(values: NDArray) -> float:
    """Share of values that are at least as large as the first, which is the true one.

    Parameters
    ----------
    values
        (1 + M,) the true value, and those of permutations.

    Returns
    -------
    float
        NaN without permutations, or if the true value is unknown.

    Examples
    --------
    >>> one_sided_p(np.array([3.0, 1.0, 4.0, 2.0]))
    0.5
    """
    if len(values) < 2 or not np.isfinite(values[0]):
        return math.nan
    return float((values >= values[0]).mean())


def significant_share(correlations: Array, counts: NDArray[np.int64]) -> float:
    """Share of correlations that are significant, controlled for the false discovery rate.

    Parameters
    ----------
    correlations
        (F,) without NaN.
    counts
        (F,) how many subjects each is of.

    Returns
    -------
    float
        0 to 1.
    """
    free = np.maximum(counts - 2, 1)
    size = np.clip(np.abs(correlations), 0, 1 - 1e-12)
    p = 2 * t.sf(size * np.sqrt(free / (1 - size**2)), free)
    return float((false_discovery_control(p) <= FALSE_DISCOVERY_RATE).mean())


def _correlations(rows: Array, block: Array) -> tuple[Array, NDArray[np.int64]]:
    """(M, f) correlations of the rows (M, N) with the columns (N, f), and subjects of each."""
    known = np.isfinite(block)
    counts = known.sum(axis=0)
    block[~known] = 0
    size = np.abs(block).max(axis=0)
    block -= block.sum(axis=0) / np.maximum(counts, 1)
    block[~known] = 0
    centred = rows - rows.mean(axis=1, keepdims=True)
    squares = (block**2).sum(axis=0)
    if known.all():
        spread = np.broadcast_to((centred**2).sum(axis=1)[:, None], (len(rows), len(squares)))
        product = centred @ block
    else:
        # the mean of the subjects that have a value differs from feature to feature
        weights = known.astype(np.float64)
        spread = centred**2 @ weights - (centred @ weights) ** 2 / np.maximum(counts, 1)
        product = centred @ block
    varies = (squares > (1e-9 * size) ** 2 * np.maximum(counts, 1)) & (counts > 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = product / np.sqrt(spread * squares)
    found[:, ~varies] = np.nan
    return found, counts


def _spearman(rows: NDArray, distances: Array) -> Array:
    """(M,) Spearman correlation of each of the rows (M, F) with the distances (F,)."""
    far = rankdata(distances)
    far -= far.mean()
    found = np.empty(len(rows))
    for k, row in enumerate(rows):
        ranks = rankdata(row)
        ranks -= ranks.mean()
        found[k] = ranks @ far / math.sqrt(float((ranks @ ranks) * (far @ far)))
    return found
