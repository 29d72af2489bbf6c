"""PERMANOVA: the share of the variance between recordings that goes with one of their properties.

The distances between recordings are Euclidean, between features of which each is standardised. Then
the sums of squared distances are sums of squares of the features themselves (McArdle and Anderson
2001), and no matrix of distances is needed.

References
----------
Anderson MJ (2001). A new method for non-parametric multivariate analysis of variance. Austral
Ecology 26:32-46.
McArdle BH, Anderson MJ (2001). Fitting multivariate models to community data: a comment on
distance-based redundancy analysis. Ecology 82:290-297.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.cohort.permutations import permuted_targets

Array = NDArray[np.float64]
PERMUTATIONS = 1000
# Features beyond so many are rotated, or projected at random, onto at most so many dimensions.
DIMENSIONS = 2000
BLOCK = 2048  # features at a time
TOGETHER = 128  # permutations at a time


class Share(NamedTuple):
    """The share of the variance that one property of the recordings explains.

    Attributes
    ----------
    r2
        Share of the sum of squared distances between recordings, 0 to 1.
    chance
        The mean of the same share over permutations. It grows with the number of categories.
    p
        Share of permutations, the true order among them, that explain at least as much; NaN if no
        permutation changes anything.
    """

    r2: float
    chance: float
    p: float

    @property
    def adjusted(self) -> float:
        """How much of what is left above chance is explained: 0 at chance, 1 if all is.

        Without repeated recordings this is the adjusted R² of a regression.
        """
        return (self.r2 - self.chance) / (1 - self.chance) if self.chance < 1 else math.nan


def standardised_blocks(features: ArrayLike) -> Iterator[Array]:
    """Standardise each feature over the recordings, some features at a time.

    Features that do not vary are left out, and unknown values (NaN) are the mean.

    Parameters
    ----------
    features
        (N, F), may be memory-mapped.

    Yields
    ------
    ndarray
        (N, f) with mean 0 and standard deviation 1 in each column.
    """
    wide = features if isinstance(features, np.ndarray) else np.asarray(features)
    for start in range(0, wide.shape[1], BLOCK):
        block = np.array(wide[:, start : start + BLOCK], dtype=np.float64)
        known = np.isfinite(block)
        block[~known] = 0
        size = np.abs(block).max(axis=0)
        block -= block.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        block[~known] = 0
        scale = np.sqrt((block**2).mean(axis=0))
        varies = scale > 1e-9 * size
        yield block[:, varies] / scale[varies]


def coordinates(features: ArrayLike, *, seed: int = 0) -> Array:
    """Place recordings so that their distances are those of their standardised features.

    Up to 2,000 features are only standardised. More are rotated into as many dimensions as there
    are recordings, which changes no distance; if there are more than 2,000 recordings as well, they
    are projected onto 2,000 random directions, which changes a share of the variance by about 3 %
    of itself.

    Parameters
    ----------
    features
        (N, F), NaN where unknown (the mean of the recordings is used); may be memory-mapped.
    seed
        Seed of the random directions.

    Returns
    -------
    ndarray
        (N, K), the mean of each column is 0.
    """
    n_rows, n_features = np.shape(features)
    if n_features <= DIMENSIONS:
        return np.hstack([*standardised_blocks(features)])
    if n_rows > DIMENSIONS:
        rng = np.random.default_rng([seed, 7])
        projected = np.zeros((n_rows, DIMENSIONS))
        for block in standardised_blocks(features):
            signs = rng.integers(0, 2, (block.shape[1], DIMENSIONS), dtype=np.int8)
            projected += block @ (2.0 * signs - 1)
        return projected
    gram = np.zeros((n_rows, n_rows))
    for block in standardised_blocks(features):
        gram += block @ block.T
    size, vectors = np.linalg.eigh(gram)
    large = size > 1e-12 * max(size[-1], 0)
    return np.asarray(vectors[:, large] * np.sqrt(size[large]))


def variance_share(
    points: Array,
    values: ArrayLike,
    subjects: Sequence[str],
    *,
    n_levels: int = 0,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Share:
    """Share of the variance between recordings that goes with a number or a category.

    The values are permuted between subjects: all recordings of a subject keep theirs together.

    Parameters
    ----------
    points
        (N, K), see `coordinates`.
    values
        (N,) numbers (`n_levels` 0), or indices of categories.
    subjects
        (N,) the subject of each recording.
    n_levels
        Number of categories; 0 for numbers, of which the linear effect counts.
    n_permutations
        Number of permutations.
    seed
        Seed of the permutations.

    Returns
    -------
    Share
        NaN where the recordings, or the values, do not differ.

    Examples
    --------
    >>> points = np.array([[0.0], [0.0], [1.0], [1.0]])
    >>> share = variance_share(points - 0.5, [0, 0, 1, 1], ["a", "b", "c", "d"], n_levels=2)
    >>> share.r2, 0.2 < share.p < 0.5
    (1.0, True)
    """
    truth = np.asarray(values, dtype=np.float64)
    total = float((points**2).sum())
    if total == 0 or np.ptp(truth) == 0:
        return Share(math.nan, math.nan, math.nan)
    shuffled = permuted_targets(truth, np.asarray(subjects), n_permutations, seed)
    explained = [
        _explained(points, rows, n_levels)
        for rows in (truth[None], *np.array_split(shuffled, max(1, len(shuffled) // TOGETHER)))
        if len(rows)
    ]
    r2, chance = float(explained[0][0]) / total, np.concatenate([[], *explained[1:]]) / total
    if not len(shuffled) or (shuffled == truth).all():
        return Share(r2, math.nan, math.nan)
    as_much = int((chance >= r2 - 1e-9 * r2).sum())
    return Share(r2, float(chance.mean()), (1 + as_much) / (1 + len(chance)))


def _explained(points: Array, rows: Array, n_levels: int) -> Array:
    """(M,) sum of squares of centred points (N, K) that each of the rows (M, N) explains."""
    if n_levels == 0:
        centred = rows - rows.mean(axis=1, keepdims=True)
        return np.asarray(((centred @ points) ** 2).sum(axis=1) / (centred**2).sum(axis=1))
    found = np.zeros(len(rows))
    for level in range(n_levels):
        members = (rows == level).astype(np.float64)
        count = np.maximum(members.sum(axis=1), 1)
        found += ((members @ points) ** 2).sum(axis=1) / count
    return found
