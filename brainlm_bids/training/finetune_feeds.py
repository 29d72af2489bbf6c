"""Data for fine-tuning, with a frozen encoder or without: from rows of recordings to tensors.

A row is the index of a unit in the `Sample`: a subject, or one of its sessions or recordings.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.recording import prepare
from brainlm_bids.model.windows import pad_to_window
from brainlm_bids.resources import parcels
from brainlm_bids.training import prediction_head as finetuning
from brainlm_bids.training.finetune_start import FinetuneOptions, Start
from brainlm_bids.training.prediction_head import Finetuned, PredictionHead

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class Sample(NamedTuple):
    """The U units to learn from and to predict, each with its recordings.

    Attributes
    ----------
    places
        For each unit the indices of its recordings in the store.
    names
        For each unit the names of its recordings.
    subjects
        (U,) their subjects.
    vectors
        Embeddings (windows, D) of each unit by the model before fine-tuning.
    """

    places: list[list[int]]
    names: list[list[str]]
    subjects: list[str]
    vectors: list[NDArray[np.float32]]


class Frozen:
    """Feed the head with embeddings of the model before fine-tuning."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def module(
        self, model: LoadedModel, head: PredictionHead, options: FinetuneOptions
    ) -> tuple[nn.Module, list[dict[str, Any]]]:
        """Return the module to fit, here the head alone, and its parameter groups.

        Parameters
        ----------
        model
            The checkpoint; not fitted.
        head
            The head.
        options
            The options of the command.

        Returns
        -------
        module
            The head.
        groups
            Parameter groups as an optimiser takes them.
        """
        return head, [_group(head.parameters(), options.head_learning_rate, options)]

    def head(self, module: nn.Module) -> nn.Module:
        """Return the head of the fitted module.

        Parameters
        ----------
        module
            The fitted module.

        Returns
        -------
        Module
            The head.
        """
        return module

    def pieces(self, rows: Indices, epoch: int) -> Iterator[tuple[Indices, tuple[Tensor, ...]]]:
        """Draw one window of each unit, anew in each epoch.

        Parameters
        ----------
        rows
            (b,) rows of the sample.
        epoch
            Number of the epoch.

        Yields
        ------
        piece, tensors
            Indices into `rows`, and the inputs of the module for these: embeddings (b, D).
        """
        chosen = []
        for row in rows:
            vectors = self._sample.vectors[row]
            chosen.append(vectors[np.random.default_rng([epoch, row]).integers(len(vectors))])
        yield np.arange(len(rows)), (torch.from_numpy(np.stack(chosen)),)

    def outputs(self, module: nn.Module, rows: Indices) -> Array:
        """Predict units.

        Parameters
        ----------
        module
            The fitted module.
        rows
            (n,) rows of the sample.

        Returns
        -------
        ndarray
            (n, C): the mean over the windows of each unit.
        """
        module.eval()
        device = next(module.parameters()).device
        with torch.inference_mode():
            means = [
                module(torch.from_numpy(self._sample.vectors[row]).to(device)).mean(0)
                for row in rows
            ]
        return torch.stack(means).double().cpu().numpy()


class Whole:
    """Feed encoder and head with windows of the store."""

    def __init__(self, sample: Sample, start: Start, model: LoadedModel) -> None:
        self._sample, self._store, self._model = sample, start.store, model
        self._seed, self._engine = start.options.seed, start.engine
        on_cuda = start.engine.device.type == "cuda"
        self._micro = start.options.micro_batch or (start.options.batch if on_cuda else 2)

    def module(
        self, model: LoadedModel, head: PredictionHead, options: FinetuneOptions
    ) -> tuple[nn.Module, list[dict[str, Any]]]:
        """Return the module to fit, encoder and head, and its parameter groups.

        Parameters
        ----------
        model
            The checkpoint; its encoder is fitted.
        head
            The head.
        options
            The options of the command.

        Returns
        -------
        module
            Encoder and head.
        groups
            Parameter groups as an optimiser takes them.
        """
        weights = finetuning.trainable(model.network, {"vit": True, "decoder": False})
        module = Finetuned(model.network, head, parcels().xyz, options.pooling)
        return module, [
            _group(weights, options.learning_rate, options),
            _group(head.parameters(), options.head_learning_rate, options),
        ]

    def head(self, module: nn.Module) -> nn.Module:
        """Return the head of the fitted module.

        Parameters
        ----------
        module
            The fitted module.

        Returns
        -------
        Module
            The head.
        """
        assert isinstance(module, Finetuned)
        return module.head

    def pieces(self, rows: Indices, epoch: int) -> Iterator[tuple[Indices, tuple[Tensor, ...]]]:
        """Draw a random window of each unit, its tokens in random order.

        Parameters
        ----------
        rows
            (b,) rows of the sample.
        epoch
            Number of the epoch.

        Yields
        ------
        piece, tensors
            Indices into `rows`, and the inputs of the module for these: windows (p, P, W) and token
            orders (p, K). Windows with as many tokens are together.
        """
        drawn = [self._window(int(row), epoch) for row in rows]
        lengths = np.array([len(order) for _, order in drawn])
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)
            for piece in np.array_split(alike, -(-len(alike) // self._micro)):
                signal = torch.from_numpy(np.stack([drawn[k][0] for k in piece]))
                order = torch.from_numpy(np.stack([drawn[k][1] for k in piece]))
                yield piece, (signal, order)

    def _window(self, row: int, epoch: int) -> tuple[NDArray[np.float32], Indices]:
        rng = np.random.default_rng([self._seed, epoch, row])
        places = self._sample.places[row]
        place = places[int(rng.integers(len(places)))] if len(places) > 1 else places[0]
        series = self._store.series(place)
        window = self._model.window
        first = int(rng.integers(max(len(series) - window, 0) + 1))
        part = np.array(series[first : first + window])
        padded = pad_to_window(part, window, mirrored=self._model.network.sees_padding)
        return padded.T, self._order(len(part), rng)

    def _order(self, n_volumes: int, rng: np.random.Generator) -> Indices:
        network = self._model.network
        tokens = network.real_tokens(n_volumes)
        return rng.permutation(tokens) if network.order_matters else tokens

    def outputs(self, module: nn.Module, rows: Indices) -> Array:
        """Predict units, with one token order for all their windows.

        Parameters
        ----------
        module
            The fitted module.
        rows
            (n,) rows of the sample.

        Returns
        -------
        ndarray
            (n, C): the mean over the windows of each unit.
        """
        module.eval()
        means = []
        for row in rows:
            parts = [
                part for place in self._sample.places[row] for part in self._all(module, place)
            ]
            means.append(torch.cat(parts).mean(0))
        return torch.stack(means).double().numpy()

    def _all(self, module: nn.Module, place: int) -> Iterator[Tensor]:
        """The outputs of all windows of a recording."""
        series = np.array(self._store.series(place))
        prepared = prepare(
            self._model, series, parcels().xyz, mirrored=self._model.network.sees_padding
        )
        order = self._order(len(series), np.random.default_rng(self._seed))
        keep = torch.from_numpy(order).to(self._engine.device)
        with torch.inference_mode(), self._engine.autocast():
            for signal in prepared.signal.split(self._micro):
                batch = signal.to(self._engine.device)
                yield module(batch, keep.expand(len(batch), -1)).float().cpu()


def _group(
    weights: Iterable[nn.Parameter], rate: float, options: FinetuneOptions
) -> dict[str, Any]:
    return {"params": list(weights), "lr": rate, "weight_decay": options.weight_decay}
