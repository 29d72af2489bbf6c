"""Future brain states: predict the volumes that follow a series.

The last time patches of a window are masked and predicted from the volumes before them, in one
pass, without any fine-tuning (zero-shot; Ortega Caro et al. 2024 fine-tuned for it). Series are
(T, P), robust-scaled at the model's repetition time, coordinates (P, 3) in mm.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.network import Indices
from brainlm_bids.model.reconstruction import scores
from brainlm_bids.model.recording import Array, complete_order, predict, prepare
from brainlm_bids.parcels import scaling
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES, interpolated, rows_with_data


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

    Whole time patches are masked, so the model predicts up to a patch more than requested, and sees
    as many of the last volumes of the series as the rest of its window holds. A network that was
    not trained on padding (13M) gets whole patches, as many as a short series fills, in a seeded
    random order; the image models get zeros, the mean of a parcel, before a short series.

    Parameters
    ----------
    model
        The model.
    series
        (T, P) robust-scaled.
    coords
        (P, 3) MNI coordinates in mm.
    n_volumes
        Number of volumes to predict.
    seed
        Seed of the token order, where it matters.
    input_gain
        Factor on the series before it enters the model; it is undone.

    Returns
    -------
    ndarray
        (n_volumes, P) in units of the series.

    Raises
    ------
    UserError
        For input that cannot be used, and if no volume of the window would be visible.
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
    """Number of masked volumes of a window, and of visible volumes before them.

    Parameters
    ----------
    model
        The model.
    n_volumes
        Number of volumes to predict.

    Returns
    -------
    hidden, seen
        Whole patches: `hidden` is at least `n_volumes`, `seen` the most that are visible.

    Raises
    ------
    UserError
        If the window has no room for them.
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
    """Volumes in the last time patches of a window, and volumes before them.

    Parameters
    ----------
    model
        The model.
    n_patches
        Number of time patches to predict.

    Returns
    -------
    hidden, seen
        Number of masked and of visible volumes.

    Raises
    ------
    UserError
        If no volume would be visible.
    """
    patch, margin = model.network.patch, model.network.margin
    boundary = (-(-(margin + model.window) // patch) - n_patches) * patch - margin
    if n_patches < 1 or boundary < patch:
        raise UserError(
            f"{n_patches} time patches to predict: a window has "
            f"{-(-model.window // patch)} of {patch} volumes, one of which must be seen"
        )
    return model.window - boundary, boundary


def forecast_origins(
    n_volumes: int, n_ahead: int, n_seen: int, n_origins: int, least: int = MINIMUM_VOLUMES
) -> Indices:
    """Choose the places from which a recording is predicted.

    The origins are evenly spaced from `n_seen` to the last one after which `n_ahead` volumes were
    measured. There are fewer where the recording has no room for more, and only one, which sees
    less, in a recording shorter than a window.

    Parameters
    ----------
    n_volumes
        Number of volumes of the recording.
    n_ahead
        Number of volumes to predict.
    n_seen
        Number of volumes of the past that a window shows.
    n_origins
        Number of origins.
    least
        Smallest number of volumes before an origin.

    Returns
    -------
    ndarray
        Number of volumes before each origin.

    Raises
    ------
    UserError
        If fewer than `least` volumes would be visible.

    Examples
    --------
    >>> forecast_origins(260, 20, 180, 4).tolist()
    [180, 200, 220, 240]
    """
    last = n_volumes - n_ahead
    if last < least:
        raise UserError(
            f"{n_volumes} volumes: a forecast of {n_ahead} needs at least {least} seen before them"
        )
    first = min(n_seen, last)
    return np.unique(np.linspace(first, last, n_origins).round().astype(np.int64))


class Places(NamedTuple):
    """K places in a recording from which its future is predicted.

    Attributes
    ----------
    origins
        (K,) number of volumes before each.
    seen
        K scaled series (t, P), up to each place.
    location, scale
        (K, P) statistics that turn scaled values back into those of the series.
    truth
        (K, H, P) the volumes that followed, in units of `seen`; NaN where there are no data.
    has_data
        (P,) whether a parcel has data.
    """

    origins: Indices
    seen: list[NDArray[np.float64]]
    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    truth: NDArray[np.float64]
    has_data: NDArray[np.bool_]


def look_back(
    series: ArrayLike,
    origins: Indices,
    n_ahead: int,
    kind: str = "robust",
    iqr: ArrayLike = 1.0,
    before: Callable[[int], NDArray[np.float64]] | None = None,
) -> Places:
    """Cut a recording at its origins, and scale each part by its own volumes alone.

    Each part is centred on its own median and divided by its own interquartile range (or by that
    of the cohort). The volumes that follow are expressed in the same units; they have no influence
    on the volumes before. Volumes without data are interpolated within a part.

    Parameters
    ----------
    series
        (T, P) volumes as the scanner sampled them, NaN in volumes and in parcels without data.
    origins
        (K,) number of volumes before each origin.
    n_ahead
        Number of volumes that follow, H.
    kind
        "robust" or "robustcohort".
    iqr
        (P,) interquartile ranges of the cohort for "robustcohort", in units of the series.
    before
        Gives the volumes before an origin; None: as they are in the series.

    Returns
    -------
    Places
        The parts and the volumes that followed.
    """
    values = np.asarray(series, dtype=np.float64)
    good = rows_with_data(values)
    seen, location, scale, empty = [], [], [], []
    for origin in origins:
        past, measured = values[:origin], good[:origin]
        if before is not None:
            past = before(int(origin))
        if not measured.all():
            past = interpolated(past, measured)
        stats = scaling.recording_stats(past, measured)
        _, filled = scaling.scale(past, stats, measured)
        size = stats.iqr if kind == "robust" else np.broadcast_to(iqr, stats.iqr.shape)
        location.append(np.where(filled, 0, past[measured].mean(axis=0) + stats.median))
        scale.append(np.where(filled, 1, size))
        seen.append(np.where(filled, 0, (past - location[-1]) / scale[-1]))
        empty.append(filled)
    values = np.where(good[:, None], values, np.nan)
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
        (K, H, P) for K origins, H volumes ahead and P parcels, in units in which 0 is the best
        guess without a forecast. NaN in the truth are left out.

    Returns
    -------
    dict
        "rmse", "pearson_r" and "r2", (H,) each. r2 = 1 − Σ(x − y)² / Σx², relative to that 0 and
        not to a mean that nobody knew. NaN where nothing was measured.
    """
    pair = [
        np.asarray(values, dtype=np.float64).transpose(1, 0, 2) for values in (truth, predicted)
    ]
    known, guess = (values.reshape(len(values), -1).T for values in pair)
    measured = np.isfinite(known)
    known = np.where(measured, known, 0)
    # a prediction of 0 within rounding errors has no correlation
    guess = np.where(np.abs(guess) > 1e-9 * np.abs(known).max(initial=0), guess, 0)
    errors = scores(known, np.where(measured, guess, np.nan))
    total, count = np.square(known).sum(axis=0), measured.sum(axis=0)
    variance = total / np.maximum(count, 1)
    return {
        "rmse": np.sqrt(errors["mse"]),
        "pearson_r": errors["pearson_r"],
        "r2": 1 - errors["mse"] / np.where(variance > 0, variance, np.nan),
    }


def tokens_before(model: LoadedModel, end: int) -> Indices:
    """Tokens without any volume from `end` on; those of the padding after a window are kept.

    Parameters
    ----------
    model
        The model.
    end
        Number of volumes before the first masked one.

    Returns
    -------
    ndarray
        Indices of tokens.
    """
    network = model.network
    columns = network.grid[1]
    column = np.arange(model.config.n_tokens) % columns
    # As in predict_last of the reference, the columns after the last volume's patch stay visible
    # (modeling_vit_mae_with_padding.py, lines 1025 to 1048).
    behind = -(-(network.margin + model.window) // network.patch)
    return np.flatnonzero((column < (network.margin + end) // network.patch) | (column >= behind))
