"""Perturbation in silico: parcels are changed; what the model makes of the change goes out.

Series (T, P) robust-scaled at the model's TR, coordinates (P, 3) in mm.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from .checkpoint import LoadedModel
from .inference import embed
from .reconstruction import reconstruct
from .recording import Array


class Perturbation(NamedTuple):
    """embedding (N, D): change of every window's CLS; reconstruction (T, P): change of the
    prediction of the parcels that were not touched, while they were hidden and the changed ones
    were visible; NaN for the others (in the image models also for those that share a patch)."""

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
) -> Perturbation:
    """What the model makes of `changed` (T, P), which differs from `series` in `parcels`.

    Both go through the model with the same token order and the same masks. Changes are in the
    units of embedding and series. Raises UserError for unusable input.
    """
    before, after = (
        embed(model, one, coords, tr=tr, seed=seed, input_gain=input_gain).vectors
        for one in (series, changed)
    )
    expected, found = (
        reconstruct(
            model,
            one,
            coords,
            mask_ratio=mask_ratio,
            seed=seed,
            input_gain=input_gain,
            with_baselines=False,
            always_visible=parcels,
        ).series
        for one in (series, changed)
    )
    return Perturbation(after - before, found - expected)
