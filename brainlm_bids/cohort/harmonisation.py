"""ComBat: differences between sites in the mean and the spread of features are removed.

A feature is modelled as a mean, plus the effects of covariates that are to be kept, plus a shift
and a scale of its site. Shift and scale are estimated by parametric empirical Bayes, which draws
those of one feature towards what the site does to the others. The estimates come from training rows
alone and are applied to rows that had no part in them.

References
----------
Johnson WE, Li C, Rabinovic A (2007). Adjusting batch effects in microarray expression data using
empirical Bayes methods. Biostatistics 8:118-127.

Fortin JP, Cullen N, Sheline YI, et al. (2018). Harmonization of cortical thickness measurements
across scanners and sites. NeuroImage 167:104-120.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.errors import UserError

Array = NDArray[np.float64]
BLOCK = 8192  # features at a time
CONVERGED = 1e-4  # relative change of every estimate
MAXIMUM_ITERATIONS = 1000
_CONSTANT = 1e-9  # spread of a feature that does not vary, relative to its size


@dataclass(frozen=True)
class Combat:
    """What the training rows say about sites.

    Parameters
    ----------
    batches
        Names of the B sites.
    mean
        (F,) of each feature over sites, weighted by their rows.
    effects
        (K, F) of the covariates.
    scale
        (F,) standard deviation within sites, in the feature's unit; 0 where nothing varies.
    shift, spread
        (B, F) of each site, in units of `scale`: its mean, and its variance.
    """

    batches: tuple[str, ...]
    mean: Array
    effects: Array
    scale: Array
    shift: Array
    spread: Array

    def columns(self, chosen: slice) -> "Combat":
        """The same for some of the features."""
        return replace(
            self,
            mean=self.mean[chosen],
            effects=self.effects[:, chosen],
            scale=self.scale[chosen],
            shift=self.shift[:, chosen],
            spread=self.spread[:, chosen],
        )


def fit(features: ArrayLike, batch: ArrayLike, covariates: Array | None = None) -> Combat:
    """Estimate what each site does to each feature.

    Parameters
    ----------
    features
        (N, F) of the training rows, NaN where unknown; may be memory-mapped.
    batch
        (N,) the site of each row.
    covariates
        (N, K) numbers and indicators whose effects are kept.

    Returns
    -------
    Combat

    Raises
    ------
    UserError
        If a site has a single row, if there are hardly more rows than sites and covariates, or if
        the covariates follow from the sites.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> site = np.repeat(["a", "b"], 50)
    >>> shifted = rng.normal(size=(100, 20)) + 3.0 * (site == "b")[:, None]
    >>> even = apply(fit(shifted, site), shifted, site)
    >>> bool(abs(even[:50].mean() - even[50:].mean()) < 0.05)
    True
    """
    wide = np.asarray(features)
    names, member = np.unique(np.asarray(batch).astype(str), return_inverse=True)
    known = _covariates(covariates, len(wide))
    varies = np.ptp(known, axis=0) > 0 if len(known) else np.zeros(known.shape[1], bool)
    model = np.hstack([np.eye(len(names))[member], known[:, varies]])
    _check(names, member, model)
    parts = [
        _moments(wide[:, start : start + BLOCK], member, model, len(names))
        for start in range(0, wide.shape[1], BLOCK)
    ]
    mean, some_effects, scale, shift, spread = (
        np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)
    )
    effects = np.zeros((known.shape[1], len(mean)))
    effects[varies] = some_effects
    used = scale > 0
    for row, n in enumerate(np.bincount(member)):
        shift[row, used], spread[row, used] = _posterior(shift[row, used], spread[row, used], n)
    return Combat(tuple(names.tolist()), mean, effects, scale, shift, spread)


def apply(
    record: Combat, features: ArrayLike, batch: ArrayLike, covariates: Array | None = None
) -> Array:
    """Remove from features what their sites do to them.

    Parameters
    ----------
    record
        Of the training rows.
    features
        (N, F) of any rows, NaN where unknown.
    batch
        (N,) the site of each row.
    covariates
        (N, K), as in `fit`.

    Returns
    -------
    ndarray
        (N, F), NaN where they were. A feature that varied in no site has its mean everywhere.

    Raises
    ------
    UserError
        If no training row is of a row's site.
    """
    values = np.asarray(features, dtype=np.float64)
    sites = np.asarray(batch).astype(str)
    unknown = sorted(set(sites.tolist()) - set(record.batches))
    if unknown:
        raise UserError(
            f"{unknown[0]!r} is not among the sites of the training rows "
            f"({', '.join(record.batches)}), so that its effect is not known"
        )
    member = np.searchsorted(record.batches, sites)
    expected = record.mean + _covariates(covariates, len(values)) @ record.effects
    scale = np.where(record.scale > 0, record.scale, np.inf)
    standard = (values - expected) / scale
    even = (standard - record.shift[member]) / np.sqrt(record.spread[member])
    return np.asarray(even * record.scale + expected)


def _covariates(covariates: Array | None, n_rows: int) -> Array:
    return np.zeros((n_rows, 0)) if covariates is None else np.asarray(covariates, np.float64)


def _check(names: NDArray[np.str_], member: NDArray[np.int64], model: Array) -> None:
    counts = np.bincount(member)
    if counts.min() < 2:
        alone = str(names[counts.argmin()])
        raise UserError(f"site {alone!r} has one training row; ComBat needs two of every site")
    if len(model) < model.shape[1] + 2:
        raise UserError(
            f"{len(model)} training rows are too few for {len(names)} sites and "
            f"{model.shape[1] - len(names)} columns of covariates"
        )
    if np.linalg.matrix_rank(model) < model.shape[1]:
        raise UserError("the covariates that are to be kept follow from the sites, or each other")


def _moments(
    block: NDArray, member: NDArray[np.int64], model: Array, n_sites: int
) -> tuple[Array, Array, Array, Array, Array]:
    """Mean, effects and scale of features, and the mean and variance of each site in their units.

    The variance of a site in which a feature is constant is taken as 1, as the authors do.
    """
    values = _filled(np.array(block, dtype=np.float64), member, n_sites)
    estimates: Array = np.linalg.lstsq(model, values, rcond=None)[0].astype(np.float64)
    scale: Array = np.sqrt(((values - model @ estimates) ** 2).mean(axis=0))
    scale[scale <= _CONSTANT * np.abs(values).max(axis=0)] = 0
    counts = np.bincount(member)
    mean, effects = counts / len(member) @ estimates[:n_sites], estimates[n_sites:]
    standard = values - mean - model[:, n_sites:] @ effects
    standard = np.divide(standard, scale, out=np.zeros_like(standard), where=scale > 0)
    rows = [standard[member == site] for site in range(n_sites)]
    shift = np.stack([of_site.mean(axis=0) for of_site in rows])
    spread = np.stack([of_site.var(axis=0, ddof=1) for of_site in rows])
    return mean, effects, scale, shift, np.where(spread > 0, spread, np.float64(1))


def _filled(values: Array, member: NDArray[np.int64], n_sites: int) -> Array:
    """Unknown values as the mean of their site; of all rows, where the site knows none."""
    known = np.isfinite(values)
    if known.all():
        return values
    overall = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    for site in range(n_sites):
        rows = member == site
        count = known[rows].sum(axis=0)
        total = np.where(known[rows], values[rows], 0).sum(axis=0)
        mean = np.where(count > 0, total / np.maximum(count, 1), overall)
        values[rows] = np.where(known[rows], values[rows], mean)
    return values


def _posterior(mean: Array, variance: Array, n: int) -> tuple[Array, Array]:
    """Posterior mean and variance (F,) of one site with n rows: Johnson et al., equation 3.1."""
    if len(mean) < 2:
        return mean, variance  # nothing to learn from other features
    prior_mean, prior_variance = mean.mean(), mean.var(ddof=1)
    centre, width = variance.mean(), variance.var(ddof=1)
    if width == 0:
        return mean, variance
    weight = centre**2 / width + 1  # the shape of the inverse gamma prior, less one
    certainty = n * prior_variance
    new_mean, new_variance = mean, variance
    for _ in range(MAXIMUM_ITERATIONS):
        old_mean, old_variance = new_mean, new_variance
        new_mean = (certainty * mean + old_variance * prior_mean) / (certainty + old_variance)
        squares = (n - 1) * variance + n * (mean - new_mean) ** 2
        new_variance = (squares / 2 + centre * weight) / (n / 2 + weight)
        # As sva and neuroCombat stop, which do not take the absolute value of the old mean: results
        # are theirs, and lie within about 1e-5 standard deviations of the fixed point.
        moved = np.abs(new_mean - old_mean) > CONVERGED * old_mean
        moved &= (old_mean > 0) & (new_mean != old_mean)
        if not moved.any() and (np.abs(new_variance / old_variance - 1) <= CONVERGED).all():
            break
    return new_mean, new_variance
