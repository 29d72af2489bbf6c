"""Future brain states: what was measured comes in, the next volumes as BrainLM sees them go out.

The last time patches of a window are hidden and predicted from the volumes before them, in one
pass, without any fine-tuning (zero-shot; BRAINLM.md 1d). Series (T, P) robust-scaled at the model's
TR, coordinates (P, 3) in mm.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.model.brainlm import BrainLM
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.reconstruction import scores
from brainlm_bids.model.recording import (
    Array,
    Indices,
    complete_order,
    predict,
    prepare,
    token_grid,
)
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
    """Predict the `n_volumes` volumes (n_volumes, P) that follow a series.

    Time patches are hidden whole, so the model predicts up to a patch more than is asked for, and
    sees as many of the series' last volumes as the rest of its window holds. For the 13M these are
    whole patches in a seeded random order, and a short series fills as many as it has; for the
    image models a short series is preceded by zeros, the mean of a parcel. Units are those of the
    series (`input_gain` is undone). Raises UserError for unusable input, and where nothing of the
    window would be left to see.
    """
    _, context = forecast_span(model, n_volumes)
    values = np.asarray(series, dtype=np.float32)
    prepare(model, values, coords, input_gain=input_gain)
    if isinstance(model.module, BrainLM):
        patch = model.module.config.timepoint_patching_size
        context = min(context, len(values) // patch * patch)
    seen = values[-context:]
    before = 0 if model.family == "brainlm" else context - len(seen)
    window = np.zeros((model.window, model.n_parcels), dtype=np.float32)
    window[before : before + len(seen)] = seen
    recording = prepare(model, window, coords, input_gain=input_gain)
    end = before + len(seen)
    visible = tokens_before(model, end)
    if isinstance(model.module, BrainLM):
        visible = np.random.default_rng(seed).permutation(visible)
    order = complete_order(model, visible)[None]
    guess, _ = predict(model, recording, np.zeros(1, dtype=np.int64), order, len(visible))
    return guess[0, :, end : end + n_volumes].T / np.float32(input_gain)


def forecast_span(model: LoadedModel, n_volumes: int) -> tuple[int, int]:
    """Volumes that are hidden to predict `n_volumes`, and the most that are seen before them.

    Raises UserError where the window has no room for them.
    """
    patch, left = _time_patch(model)
    boundary = (left + model.window - n_volumes) // patch * patch - left
    if n_volumes < 1 or boundary < patch:
        raise UserError(
            f"a forecast of {n_volumes} volumes: the model's window has {model.window}, of which "
            f"at least {patch} must be seen"
        )
    return model.window - boundary, boundary


def patches_span(model: LoadedModel, n_patches: int) -> tuple[int, int]:
    """Volumes in the last `n_patches` time patches of a window, and volumes before them.

    Raises UserError where nothing would be left to see.
    """
    patch, left = _time_patch(model)
    boundary = (-(-(left + model.window) // patch) - n_patches) * patch - left
    if n_patches < 1 or boundary < patch:
        raise UserError(
            f"{n_patches} time patches to predict: a window has "
            f"{-(-model.window // patch)} of {patch} volumes, one of which must be seen"
        )
    return model.window - boundary, boundary


def forecast_origins(n_volumes: int, n_ahead: int, n_seen: int, n_origins: int) -> Indices:
    """How many volumes have been seen at each place from which a recording is predicted.

    Evenly spread from `n_seen` (what a window shows of the past) to the last place whose
    `n_ahead` volumes were all measured; fewer where the recording has no room for more, and one
    that sees less in a recording shorter than a window. Raises UserError where fewer than 20
    volumes would be seen.

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


def errors_by_horizon(truth: ArrayLike, predicted: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """rmse, pearson_r and r2 (H,) for each volume ahead, of truth and forecasts (K, H, P).

    Pooled over the K origins and P parcels. Both in units in which 0 is what one knows without a
    forecast: r2 = 1 − Σ(x − y)² / Σx², against that and not against a mean that nobody knew.
    """
    columns = [np.asarray(one, dtype=np.float64).transpose(1, 0, 2) for one in (truth, predicted)]
    known, guess = (one.reshape(len(one), -1).T for one in columns)
    # what is 0 but for rounding has no correlation with anything
    guess = np.where(np.abs(guess) > 1e-9 * np.abs(known).max(initial=0), guess, 0)
    found = scores(known, guess)
    variance = np.square(known).mean(axis=0)
    return {
        "rmse": np.sqrt(found["mse"]),
        "pearson_r": found["pearson_r"],
        "r2": 1 - found["mse"] / np.where(variance > 0, variance, np.nan),
    }


def _time_patch(model: LoadedModel) -> tuple[int, int]:
    """Volumes of a time patch, and columns of padding before the first volume."""
    if isinstance(model.module, BrainLM):
        return model.module.config.timepoint_patching_size, 0
    left = model.module.padding((model.n_parcels, model.window))[1]
    return model.module.config.patch_size, left


def tokens_before(model: LoadedModel, end: int) -> Indices:
    """Tokens that hold no volume from `end` on; the image models also see the padding behind."""
    patch, left = _time_patch(model)
    rows, columns = token_grid(model)
    column = np.arange(rows * columns) % columns
    # As in the reference's predict_last, the columns behind the last volume's patch stay visible.
    behind = -(-(left + model.window) // patch)
    return np.flatnonzero((column < (left + end) // patch) | (column >= behind))
