"""Future brain states: a series comes in, the volumes that follow it as BrainLM predicts them out.

The last time patches of a window are hidden and predicted from the volumes before them, in one
pass, without any fine-tuning (zero-shot; Ortega Caro et al. 2024 fine-tuned for it). Series are
(T, P), robust-scaled at the model's repetition time, coordinates (P, 3) in mm.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.network import Indices
from brainlm_bids.model.reconstruction import scores
from brainlm_bids.model.recording import Array, complete_order, predict, prepare
from brainlm_bids.parcels import scaling
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES


def forecast(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    *,
    n_volumes: int,
    seed: int,
    input_gain: float = 1.0,
) -> Array:
    """Predict the volumes that follow a series.

    Time patches are hidden whole, so the model predicts up to a patch more than is asked for, and
    sees as many of the last volumes of the series as the rest of its window holds. A network that
    never saw padding (13M) gets whole patches, as many as a short series fills, in a seeded random
    order; the image models get zeros, the mean of a parcel, in front of a short series.

    Parameters
    ----------
    series
        (T, P) robust-scaled.
    coords
        (P, 3) MNI coordinates in mm.
    n_volumes
        Volumes to predict.
    seed
        Of the order of the tokens, where it matters.
    input_gain
        What the series is multiplied by for the model; it is undone.

    Returns
    -------
    array
        (n_volumes, P) in units of the series.

    Raises
    ------
    UserError
        For unusable input, and where nothing of the window would be left to see.
    """
    network = model.network
    _, context = forecast_span(model, n_volumes)
    values = np.asarray(series, dtype=np.float32)
    prepare(model, values, coords, input_gain=input_gain)
    if not network.sees_padding:
        context = min(context, len(values) // network.patch * network.patch)
        if not context:
            raise UserError(
                f"the series has {len(values)} volumes; a forecast by {model.source} needs a whole "
                f"time patch of {network.patch}"
            )
    seen = values[-context:]
    before = context - len(seen)
    window = np.zeros((model.window, model.n_parcels), dtype=np.float32)
    window[before : before + len(seen)] = seen
    prepared = prepare(model, window, coords, input_gain=input_gain)
    end = before + len(seen)
    visible = tokens_before(model, end)
    if network.order_matters:
        visible = np.random.default_rng(seed).permutation(visible)
    order = complete_order(model, visible)[None]
    predicted, _ = predict(model, prepared, np.zeros(1, dtype=np.int64), order, len(visible))
    following: Array = predicted[0, :, end : end + n_volumes].T / np.float32(input_gain)
    return following


def forecast_span(model: LoadedModel, n_volumes: int) -> tuple[int, int]:
    """Volumes that are hidden to predict `n_volumes`, and the most that are seen before them.

    Raises
    ------
    UserError
        Where the window has no room for them.
    """
    patch, margin = model.network.patch, model.network.margin
    boundary = (margin + model.window - n_volumes) // patch * patch - margin
    if n_volumes < 1 or boundary < patch:
        raise UserError(
            f"a forecast of {n_volumes} volumes: the model's window has {model.window}, of which "
            f"at least {patch} must be seen"
        )
    return model.window - boundary, boundary


def patches_span(model: LoadedModel, n_patches: int) -> tuple[int, int]:
    """Volumes in the last `n_patches` time patches of a window, and volumes before them.

    Raises
    ------
    UserError
        Where nothing would be left to see.
    """
    patch, margin = model.network.patch, model.network.margin
    boundary = (-(-(margin + model.window) // patch) - n_patches) * patch - margin
    if n_patches < 1 or boundary < patch:
        raise UserError(
            f"{n_patches} time patches to predict: a window has "
            f"{-(-model.window // patch)} of {patch} volumes, one of which must be seen"
        )
    return model.window - boundary, boundary


def forecast_origins(n_volumes: int, n_ahead: int, n_seen: int, n_origins: int) -> Indices:
    """How many volumes have been seen at each place from which a recording is predicted.

    The places are evenly spread from `n_seen` (what a window shows of the past) to the last one
    whose `n_ahead` volumes were all measured. There are fewer where the recording has no room for
    more, and one that sees less in a recording shorter than a window.

    Raises
    ------
    UserError
        Where fewer than 20 volumes would be seen.

    Examples
    --------
    >>> forecast_origins(260, 20, 180, 4).tolist()
    [180, 200, 220, 240]
    """
    last = n_volumes - n_ahead
    if last < MINIMUM_VOLUMES:
        raise UserError(
            f"{n_volumes} volumes: a forecast of {n_ahead} needs at least "
            f"{MINIMUM_VOLUMES} seen before them"
        )
    first = min(n_seen, last)
    return np.unique(np.linspace(first, last, n_origins).round().astype(np.int64))


class Places(NamedTuple):
    """K places in a recording from which its future is predicted.

    Attributes
    ----------
    origins
        (K,) number of volumes seen.
    seen
        K scaled series (t, P), up to each place.
    location, scale
        (K, P) statistics that turn scaled values back into those of the series.
    truth
        (K, H, P) the volumes that followed, in units of `seen`.
    has_data
        (P,) whether a parcel has data.
    """

    origins: Indices
    seen: list[NDArray[np.float64]]
    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    truth: NDArray[np.float64]
    has_data: NDArray[np.bool_]


def look_back(series: ArrayLike, origins: Indices, n_ahead: int, kind: str) -> Places:
    """Cut a recording (T, P) at its origins, and scale each part by its own volumes alone.

    The series was demeaned over the whole recording, so its past says what its future's mean is:
    each part is brought to its own median (and, of the "robust" kind, its own interquartile
    range) again. What comes is expressed in the same units, and nothing knows of it before.
    """
    values = np.asarray(series, dtype=np.float64)
    seen, location, scale, empty = [], [], [], []
    for origin in origins:
        past = values[:origin]
        stats = scaling.recording_stats(past)
        _, filled = scaling.scale(past, stats)
        location.append(np.where(filled, 0, past.mean(axis=0) + stats.median))
        scale.append(np.where(filled | (kind != "robust"), 1, stats.iqr))
        seen.append(np.where(filled, 0, (past - location[-1]) / scale[-1]))
        empty.append(filled)
    truth = [
        (values[origin : origin + n_ahead] - here) / size
        for origin, here, size in zip(origins, location, scale, strict=True)
        if origin + n_ahead <= len(values)
    ]
    return Places(
        origins,
        seen,
        np.stack(location),
        np.stack(scale),
        np.stack(truth) if truth else np.empty((0, n_ahead, values.shape[1])),
        ~np.any(empty, axis=0),
    )


def errors_by_horizon(truth: ArrayLike, predicted: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Errors for each volume ahead, pooled over origins and parcels.

    Parameters
    ----------
    truth, predicted
        (K, H, P) for K origins, H volumes ahead and P parcels, in units in which 0 is what one
        knows without a forecast.

    Returns
    -------
    dict
        "rmse", "pearson_r" and "r2", (H,) each. r2 = 1 − Σ(x − y)² / Σx², against that 0 and not
        against a mean that nobody knew.
    """
    pair = [
        np.asarray(values, dtype=np.float64).transpose(1, 0, 2) for values in (truth, predicted)
    ]
    known, guess = (values.reshape(len(values), -1).T for values in pair)
    # what is 0 but for rounding has no correlation with anything
    guess = np.where(np.abs(guess) > 1e-9 * np.abs(known).max(initial=0), guess, 0)
    errors = scores(known, guess)
    variance = np.square(known).mean(axis=0)
    return {
        "rmse": np.sqrt(errors["mse"]),
        "pearson_r": errors["pearson_r"],
        "r2": 1 - errors["mse"] / np.where(variance > 0, variance, np.nan),
    }


def tokens_before(model: LoadedModel, end: int) -> Indices:
    """Tokens that hold no volume from `end` on; those of the padding behind a window stay."""
    network = model.network
    columns = network.grid[1]
    column = np.arange(model.config.n_tokens) % columns
    # As in the reference's predict_last, the columns behind the last volume's patch stay visible
    # (modeling_vit_mae_with_padding.py, lines 1025 to 1048).
    behind = -(-(network.margin + model.window) // network.patch)
    return np.flatnonzero((column < (network.margin + end) // network.patch) | (column >= behind))
