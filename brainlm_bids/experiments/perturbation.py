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


def change_parcels(
    series: ArrayLike,
    parcels: Sequence[int],
    *,
    scale: float | None = None,
    value: float | None = None,
) -> NDArray[np.float64]:
    """A copy of (T, P) in which the columns `parcels` are multiplied by `scale` or set to `value`.

    A lesion is `value=0`: the mean of a robust-scaled parcel, and what the model was shown in
    place of data that are missing. Raises UserError for parcels that do not exist.

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
    """What the model makes of `changed` (T, P), which differs from `series` in `parcels`.

    Both go through the model with the same token order and the same masks. Changes are in the
    units of embedding and series. `embedded`: the embedding (N, D) of `series`, where it is known.
    Where `parcels` leave nothing to hide (those of an image model that share patches with all
    others), the reconstruction is NaN throughout. Raises UserError for unusable input.
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
    """(n_sets, K) sets of as many parcels as `parcels` (K,), drawn from `pool` without replacement.

    groups (P,): draw as many of each group (hemisphere) as `parcels` has. `parcels` may be drawn
    again, so that a set which is itself random is one of them. Raises UserError for a pool that is
    too small.
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
    """Compare values (…) with those of K random sets (K, …); NaN in either is left out.

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
    """False discovery rates q (Benjamini and Hochberg 1995) of p values; NaN are ignored.

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
    """(T, P) -> (P,): the mean absolute change over volumes, NaN for parcels without a value."""
    values = np.abs(np.asarray(reconstruction, dtype=np.float64))
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def embedding_change(moved: ArrayLike, before: ArrayLike) -> NDArray[np.float64]:
    """How far embeddings moved by `moved` (N, D) from `before`: (N + 1, 3), the last row of means.

    Euclidean distance, the distance relative to the length before, and 1 − cosine.
    """
    change, old = (np.asarray(array, dtype=np.float64) for array in (moved, before))
    change, old = (np.vstack([array, array.mean(axis=0)]) for array in (change, old))
    distance, length = np.linalg.norm(change, axis=1), np.linalg.norm(old, axis=1)
    new = old + change
    cosine = (old * new).sum(axis=1) / (length * np.linalg.norm(new, axis=1))
    return np.stack([distance, distance / length, 1 - cosine], axis=1)
