"""Fine-tuning for forecasts: the model learns to predict the masked last patches of windows.

Windows are cut in the volumes of the scanner. What is visible of a window is made and scaled from
the volumes before its origin alone (`model.past.window_at`): no input depends on the volumes to
predict.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.future import tokens_before
from brainlm_bids.model.past import Course, course, window_at, window_origins
from brainlm_bids.model.recording import complete_order
from brainlm_bids.model.windows import cut_windows
from brainlm_bids.resources import parcels
from brainlm_bids.settings import Settings
from brainlm_bids.training.early_stopping import Curves, fit_with_early_stopping
from brainlm_bids.training.finetune_start import Start
from brainlm_bids.training.objective import MaskedPrediction
from brainlm_bids.training.prediction_head import trainable
from brainlm_bids.training.processes import share
from brainlm_bids.training.split import Fold

Indices = NDArray[np.int64]


def course_of(start: Start, place: int) -> Course:
    """Take a recording of the store in the volumes of the scanner.

    Parameters
    ----------
    start
        Store and options.
    place
        Index of the recording in the store.

    Returns
    -------
    Course
        A store that gives no repetition time holds series at the rate of the model.
    """
    stored = start.store.recordings[place]
    rate = Settings.model_tr
    tr, model_tr = stored.tr or rate, stored.model_tr or rate
    return course(start.store.series(place), tr, model_tr, start.series)


def volumes_needed(start: Start, place: int, hidden: int, seen: int) -> int:
    """Count the volumes that a recording needs for one window.

    Parameters
    ----------
    start
        Store and options.
    place
        Index of the recording in the store.
    hidden, seen
        Number of masked samples of a window, and of visible samples before them.

    Returns
    -------
    int
        More than the recording has where its bad volumes leave no place for a window.
    """
    recording = course_of(start, place)
    if len(window_origins(recording, seen, hidden)):
        return 0
    least = recording.volumes(seen + hidden)
    return max(least, start.store.recordings[place].n_volumes + 1)


def fit_future(
    start: Start, places: Indices, fold: Fold, hidden: int, seen: int
) -> tuple[LoadedModel, Curves]:
    """Fit a checkpoint to predict the last volumes of windows.

    Parameters
    ----------
    start
        Checkpoint, store and options.
    places
        Indices of recordings in the store; the fold counts in rows of it.
    fold
        Training and validation rows.
    hidden, seen
        Number of masked volumes of a window, and of visible volumes before them.

    Returns
    -------
    model
        The fitted checkpoint.
    curves
        A row per epoch.

    Raises
    ------
    UserError
        If a loss is not finite.
    """
    options, model = start.options, start.model()
    visible = tokens_before(model, seen)
    task = MaskedPrediction(model.network, parcels().xyz, 0.5)
    task.n_keep = len(visible)
    weights = trainable(model.network, {"vit": not options.frozen, "decoder": True})
    on_cuda = start.engine.device.type == "cuda"
    micro = options.micro_batch or (options.batch if on_cuda else 2)

    def window(recording: Course, origin: int, rng: np.random.Generator) -> tuple[Any, Indices]:
        """(P, W) scaled by what is seen of it, and the order of its tokens."""
        whole = window_at(recording, origin, seen, hidden)
        order = rng.permutation(visible) if model.network.order_matters else visible
        return whole.T.astype(np.float32), complete_order(model, order)

    def batches(rows: Indices, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        drawn = []
        for row in rows:
            recording = course_of(start, int(places[fold.fit[row]]))
            rng = np.random.default_rng([options.seed, epoch, int(row)])
            origins = window_origins(recording, seen, hidden)
            drawn.append(window(recording, int(origins[rng.integers(len(origins))]), rng))
        yield from _stacked(drawn, micro)

    fixed = [
        window(recording, origin, np.random.default_rng(options.seed))
        for place in share(places[fold.validation].tolist(), start.engine)
        for recording in [course_of(start, place)]
        for origin in _spread(recording, seen, hidden)
    ]

    def validate(module: nn.Module) -> Tensor:
        module.eval()
        with torch.inference_mode(), start.engine.autocast():
            losses = [
                module(*(tensor.to(start.engine.device) for tensor in tensors)).loss.cpu()
                for tensors in _stacked(fixed, micro)
            ]
        return torch.cat([torch.zeros(0), *losses])

    def loss(module: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        losses: Tensor = module(*tensors).loss
        return losses

    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        group = {
            "params": weights,
            "lr": options.learning_rate,
            "weight_decay": options.weight_decay,
        }
        _, curves = fit_with_early_stopping(
            task,
            [group],
            len(fold.fit),
            batches,
            loss,
            validate,
            options.stopping,
            start.engine,
            note=start.progress.note,
        )
    return model, curves


def _spread(recording: Course, seen: int, hidden: int) -> list[int]:
    """Origins of windows that together cover a recording, as `cut_windows` does."""
    origins = window_origins(recording, seen, hidden)
    first = cut_windows(recording.samples(len(recording.series)), seen + hidden)
    wanted = [recording.volumes(int(k) + seen) for k in first]
    return sorted({int(origins[np.abs(origins - one).argmin()]) for one in wanted})


def _stacked(drawn: Sequence[tuple[Any, Indices]], micro: int) -> Iterator[tuple[Tensor, Tensor]]:
    for first in range(0, len(drawn), micro):
        some = drawn[first : first + micro]
        yield (
            torch.from_numpy(np.stack([signal for signal, _ in some])),
            torch.from_numpy(np.stack([order for _, order in some])),
        )
