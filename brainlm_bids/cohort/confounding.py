"""Whether a target differs between sites, so that decoding the site decodes the target."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
# A target counts as confounded from this share of its variance on, if it is no chance finding.
SHARE = 0.1
SIGNIFICANT = 0.05
PERMUTATIONS = 1000


class Association(NamedTuple):
    """How strongly a target depends on a category such as the site.

    Attributes
    ----------
    share
        Of the target's variance that lies between sites: for numbers, epsilon squared; for classes,
        Cramér's V squared. Both are corrected for the number of sites, so that they are 0 on
        average where target and site are independent.
    p
        Share of permutations of the target between subjects that depend on the site as strongly.
    """

    share: float
    p: float

    @property
    def confounded(self) -> bool:
        """Whether a prediction of the target may be one of the site."""
        return self.share >= SHARE and self.p < SIGNIFICANT


def association(
    target: ArrayLike,
    sites: Sequence[str],
    subjects: Sequence[str],
    *,
    n_classes: int = 0,
    seed: int = 0,
) -> Association:
    """Measure how strongly a target depends on the site.

    A subject counts once, with the mean of its values (the first of its classes) and its first
    site.

    Parameters
    ----------
    target
        (N,) numbers, or class indices.
    sites
        (N,) the site of each row.
    subjects
        (N,) the subject of each row.
    n_classes
        0 for numbers.
    seed
        Seed of the permutations.

    Returns
    -------
    Association

    References
    ----------
    Bergsma W (2013). A bias-correction for Cramér's V and Tschuprow's T. Journal of the Korean
    Statistical Society 42:323-328.

    Okada K (2013). Is omega squared less biased? A comparison of three major effect size indices
    in one-way ANOVA. Behaviormetrika 40:129-147.

    Examples
    --------
    >>> ages = [20.0, 22, 24, 26, 60, 62, 64, 66]
    >>> people = [f"sub-{k}" for k in range(8)]
    >>> association(ages, list("aaaabbbb"), people).confounded
    True
    """
    people, first, owner = np.unique(np.asarray(subjects), return_index=True, return_inverse=True)
    values = np.asarray(target, dtype=np.float64)
    means = np.bincount(owner, weights=values) / np.bincount(owner)
    values = values[first] if n_classes else means
    names, member = np.unique(np.asarray(sites).astype(str)[first], return_inverse=True)
    outcomes = np.eye(n_classes)[values.astype(np.int64)] if n_classes else values[:, None]
    outcomes = outcomes[:, np.ptp(outcomes, axis=0) > 0]
    if len(names) < 2 or not outcomes.shape[1]:
        return Association(0.0, 1.0)
    indicators = np.eye(len(names))[member].T / np.sqrt(np.bincount(member))[:, None]
    centred = outcomes - outcomes.mean(axis=0)
    centred /= np.sqrt((centred**2).sum(axis=0))
    weights = 1 - outcomes.mean(axis=0) if n_classes else np.ones(1)

    def between(order: NDArray[np.int64]) -> float:
        """R squared, or Pearson's chi squared divided by the number of subjects."""
        return float(((indicators @ centred[order]) ** 2).sum(axis=0) @ weights)

    rng = np.random.default_rng([seed, 3])
    n = len(people)
    true = between(np.arange(n))
    n_as_strong = sum(between(rng.permutation(n)) >= true - 1e-12 for _ in range(PERMUTATIONS))
    corrected = _corrected(true, n, len(names), outcomes.shape[1] if n_classes else 0)
    return Association(corrected, (1 + n_as_strong) / (1 + PERMUTATIONS))


def _corrected(raw: float, n: int, n_sites: int, n_classes: int) -> float:
    """Epsilon squared of an R squared; Cramér's V squared of a chi squared divided by n."""
    if not n_classes:
        return max(0.0, 1 - (1 - raw) * (n - 1) / max(n - n_sites, 1))
    excess = max(0.0, raw - (n_classes - 1) * (n_sites - 1) / (n - 1))
    sides = [k - (k - 1) ** 2 / (n - 1) for k in (n_classes, n_sites)]
    return excess / (min(sides) - 1) if min(sides) > 1 else 0.0
