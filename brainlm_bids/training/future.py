"""Fine-tuning for forecasts: the model learns to predict the masked last patches of windows.

Every window is scaled by its visible volumes alone (`model.future.look_back`): no input depends on
the volumes to predict.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.future import look_back, tokens_before
from brainlm_bids.model.recording import complete_order
from brainlm_bids.model.windows import cut_windows
from brainlm_bids.resources import parcels
from brainlm_bids.training.early_stopping import Curves, fit_with_early_stopping
from brainlm_bids.training.finetune_start import Start
from brainlm_bids.training.objective import MaskedPrediction
from brainlm_bids.training.prediction_head import trainable
from brainlm_bids.training.processes import share
from brainlm_bids.training.split import Fold

Indices = NDArray[np.int64]


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

    def window(place: int, first: int, rng: np.random.Generator) -> tuple[Any, Indices]:
        """(P, W) scaled by what is seen of it, and the order of its tokens."""
        part = np.array(start.store.series(place)[first : first + model.window])
        cut = look_back(part, np.array([seen]), hidden, options.series)
        whole = np.vstack([cut.seen[0], cut.truth[0]])
        order = rng.permutation(visible) if model.network.order_matters else visible
        # a parcel without visible data has no future to learn
        return np.where(cut.has_data, whole, 0).T.astype(np.float32), complete_order(model, order)

    def batches(rows: Indices, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        drawn = []
        for row in rows:
            place = int(places[fold.fit[row]])
            rng = np.random.default_rng([options.seed, epoch, int(row)])
            last = start.store.recordings[place].n_volumes - model.window
            drawn.append(window(place, int(rng.integers(last + 1)), rng))
        yield from _stacked(drawn, micro)

    fixed = [
        window(place, int(first), np.random.default_rng(options.seed))
        for place in share(places[fold.validation].tolist(), start.engine)
        for first in cut_windows(start.store.recordings[place].n_volumes, model.window)
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
        )
    return model, curves


def _stacked(drawn: Sequence[tuple[Any, Indices]], micro: int) -> Iterator[tuple[Tensor, Tensor]]:
    for first in range(0, len(drawn), micro):
        some = drawn[first : first + micro]
        yield (
            torch.from_numpy(np.stack([signal for signal, _ in some])),
            torch.from_numpy(np.stack([order for _, order in some])),
        )
