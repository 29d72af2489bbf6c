"""Perturbation in silico: how the output of a model responds to changed parcels.

Series (T, P) robust-scaled at the model's TR, coordinates (P, 3) in mm.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.reconstruction import reconstruct
from brainlm_bids.model.recording import Array, prepare


class Perturbation(NamedTuple):
    """The effect of a perturbation on embeddings and predictions.

    Attributes
    ----------
    embedding
        (N, D) change of the CLS latent of each window.
    reconstruction
        (T, P) change of the predictions for the parcels that were not perturbed, made while these
        were hidden and the perturbed ones visible. NaN for all other parcels, and in the image
        models also for parcels that share a patch with a perturbed one.
    """

    embedding: Array
    reconstruction: Array


class Design(NamedTuple):
    """Parcels to change in all recordings of an experiment.

    Attributes
    ----------
    chosen
        (K,) indices of the parcels to change.
    sets
        (M, K) random sets of as many parcels.
    configuration
        Hash of the random sets.
    """

    chosen: list[int]
    sets: NDArray[np.int64]
    configuration: str


class Changes(NamedTuple):
    """The effect of perturbing one set of parcels.

    Attributes
    ----------
    change
        (P,) mean absolute change of the predictions.
    moved
        (windows + 1, 3) changes of the embeddings, see `embedding_change`.
    """

    change: NDArray[np.float64]
    moved: NDArray[np.float64]


def change_parcels(
    series: ArrayLike,
    parcels: Sequence[int],
    *,
    scale: float | None = None,
    value: float | None = None,
) -> NDArray[np.float64]:
    """Copy a series and change some of its parcels.

    A lesion is `value=0`: the median of a robust-scaled parcel, and what the model sees in place of
    missing data.

    Parameters
    ----------
    series
        (T, P).
    parcels
        Indices of the columns to change.
    scale
        Factor for these columns.
    value
        Value for these columns; give either `scale` or `value`.

    Returns
    -------
    ndarray
        (T, P).

    Raises
    ------
    UserError
        For parcels that do not exist.

    Examples
    --------
    >>> change_parcels([[1.0, 2.0]], [1], scale=3)
    array([[1., 6.]])
    """
    changed = np.array(series, dtype=np.float64)
    index = np.asarray(parcels, dtype=np.int64)
    if not index.size or index.min() < 0 or index.max() >= changed.shape[1]:
        raise UserError(f"parcels to change: expected indices 0 … {changed.shape[1] - 1}")
    if (scale is None) == (value is None):
        raise ValueError("give a scale or a value")
    changed[:, index] = changed[:, index] * scale if scale is not None else value
    return changed


def perturb(
    model: LoadedModel,
    series: ArrayLike,
    changed: ArrayLike,
    coords: ArrayLike,
    *,
    parcels: Sequence[int],
    tr: float,
    seed: int,
    mask_ratio: float,
    input_gain: float = 1.0,
    embedded: Array | None = None,
) -> Perturbation:
    """Compute how embedding and predictions respond to changed parcels.

    Both series go through the model with the same token order and the same masks.

    Parameters
    ----------
    model
        The model.
    series
        (T, P) robust-scaled series.
    changed
        (T, P), which differs from `series` in `parcels`.
    coords
        (P, 3) centres of the parcels, mm.
    parcels
        Indices of the changed parcels.
    tr
        Repetition time, s.
    seed
        Seed of token order and masks.
    mask_ratio
        Share of the tokens that is masked for the predictions.
    input_gain
        Factor on the series before it enters the model.
    embedded
        (N, D) embedding of `series`, where it is known.

    Returns
    -------
    Perturbation
        Changes in the units of embedding and series. Predictions are NaN throughout where nothing
        is left to mask: image models in which every patch holds a changed parcel.

    Raises
    ------
    UserError
        For input that cannot be used.
    """

    def vectors(values: ArrayLike) -> Array:
        return embed(model, values, coords, tr=tr, seed=seed, input_gain=input_gain).vectors

    def predicted(values: ArrayLike) -> Array:
        return reconstruct(
            model,
            values,
            coords,
            mask_ratio=mask_ratio,
            seed=seed,
            input_gain=input_gain,
            with_baselines=False,
            always_visible=parcels,
        ).series

    before = vectors(series) if embedded is None else embedded
    moved = vectors(changed) - before
    prepared = prepare(model, series, coords, input_gain=input_gain)
    visible = model.network.tokens_of(prepared.coords, parcels)
    if not np.setdiff1d(model.network.real_tokens(prepared.n_volumes), visible).size:
        return Perturbation(moved, np.full(np.shape(series), np.nan, dtype=np.float32))
    return Perturbation(moved, predicted(changed) - predicted(series))


# --- against random sets of parcels ----------------------------------------------------------


def random_sets(
    parcels: Sequence[int],
    pool: ArrayLike,
    n_sets: int,
    seed: int,
    groups: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """Draw random sets of parcels, without replacement within a set.

    Parameters
    ----------
    parcels
        (K,) indices of the parcels to match. They may be drawn too, so that a choice which is
        itself random is one of the sets.
    pool
        Indices of the parcels to draw from.
    n_sets
        Number of sets.
    seed
        Seed of the draws.
    groups
        (P,) group of each parcel (hemisphere): each set holds as many of each group as `parcels`.

    Returns
    -------
    ndarray
        (n_sets, K) indices.

    Raises
    ------
    UserError
        If the pool is too small.

    Examples
    --------
    >>> random_sets([0, 1], range(10), n_sets=3, seed=0).shape
    (3, 2)
    """
    chosen, drawable = np.asarray(parcels), np.asarray(pool)
    labels = np.zeros(max(chosen.max(), drawable.max()) + 1) if groups is None else np.array(groups)
    rng = np.random.default_rng(seed)
    columns = []
    for label in np.unique(labels[chosen]):
        n_needed, candidates = (
            int((labels[chosen] == label).sum()),
            drawable[labels[drawable] == label],
        )
        if len(candidates) <= n_needed:
            raise UserError(
                f"{n_needed} parcels to change: only {len(candidates)} have data to draw random "
                "sets from"
            )
        drawn = [rng.choice(candidates, n_needed, replace=False) for _ in range(n_sets)]
        columns.append(np.array(drawn, dtype=np.int64).reshape(n_sets, n_needed))
    return np.sort(np.hstack(columns), axis=1)


class NullTest(NamedTuple):
    """A comparison of values with a null distribution for each.

    Attributes
    ----------
    mean, sd
        Mean and standard deviation of the null values.
    z
        The value in units of the null's standard deviation from its mean.
    p
        One-sided, (1 + number of null values that are at least as large) / (1 + n).
    n
        Number of null values.
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    z: NDArray[np.float64]
    p: NDArray[np.float64]
    n: NDArray[np.int64]


def against_null(observed: ArrayLike, null: ArrayLike) -> NullTest:
    """Compare values with those of random sets.

    Parameters
    ----------
    observed
        (…) values.
    null
        (K, …) values of K random sets; NaN are left out.

    Returns
    -------
    NullTest
        (…) each.

    Examples
    --------
    >>> float(against_null(3.0, [1.0, 2.0, 4.0]).p)
    0.5
    """
    values, others = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    known = np.isfinite(others)
    n = known.sum(axis=0)
    count = np.where(n > 0, n, np.nan)
    mean = np.where(known, others, 0).sum(axis=0) / count
    square = np.where(known, others - mean, 0) ** 2
    sd = np.sqrt(square.sum(axis=0) / np.where(n > 1, n - 1, np.nan))
    # equal but for rounding counts as equal
    above = known & (others >= values - 1e-9 * np.abs(values))
    usable = np.isfinite(values) & (n > 0)
    p = np.where(usable, (1 + above.sum(axis=0)) / (1 + n), np.nan)
    z = np.where(sd > 0, (values - mean) / np.where(sd > 0, sd, 1), np.nan)
    return NullTest(mean, sd, z, p, n)


def false_discovery(p: ArrayLike) -> NDArray[np.float64]:
    """False discovery rates of p values.

    Parameters
    ----------
    p
        p values; NaN are ignored.

    Returns
    -------
    ndarray
        q values, NaN where p is.

    References
    ----------
    Benjamini Y, Hochberg Y (1995). Controlling the false discovery rate: a practical and powerful
    approach to multiple testing. Journal of the Royal Statistical Society B 57:289-300.

    Examples
    --------
    >>> false_discovery([0.01, 0.04, np.nan]).tolist()
    [0.02, 0.04, nan]
    """
    from scipy.stats import false_discovery_control

    values = np.asarray(p, dtype=np.float64)
    q = np.full(values.shape, np.nan)
    known = np.isfinite(values)
    if known.any():
        q[known] = false_discovery_control(values[known])
    return q


def mean_change(reconstruction: ArrayLike) -> NDArray[np.float64]:
    """Average the absolute change of the predictions over volumes.

    Parameters
    ----------
    reconstruction
        (T, P) changes; NaN are left out.

    Returns
    -------
    ndarray
        (P,), NaN for parcels without a value.

    Examples
    --------
    >>> mean_change([[1.0, np.nan], [-3.0, np.nan]]).tolist()
    [2.0, nan]
    """
    values = np.abs(np.asarray(reconstruction, dtype=np.float64))
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def embedding_change(moved: ArrayLike, before: ArrayLike) -> NDArray[np.float64]:
    """Measure how far embeddings moved.

    Parameters
    ----------
    moved
        (N, D) change of each window's embedding.
    before
        (N, D) embeddings before the change.

    Returns
    -------
    ndarray
        (N + 1, 3): Euclidean distance, the distance divided by the length of the embedding before,
        and 1 − cosine. The last row is that of the mean embedding.

    Examples
    --------
    >>> embedding_change([[0.0, 3.0]], [[4.0, 0.0]])[0].round(2).tolist()
    [3.0, 0.75, 0.2]
    """
    change, old = (np.asarray(array, dtype=np.float64) for array in (moved, before))
    change, old = (np.vstack([array, array.mean(axis=0)]) for array in (change, old))
    distance, length = np.linalg.norm(change, axis=1), np.linalg.norm(old, axis=1)
    new = old + change
    cosine = (old * new).sum(axis=1) / (length * np.linalg.norm(new, axis=1))
    return np.stack([distance, distance / length, 1 - cosine], axis=1)
