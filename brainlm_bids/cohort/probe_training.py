"""The training that the attentive probe and the MLP on series share.

A probe is a pooling, from the rows (B, L, D) of B windows to (B, K), then a normalisation over the
batch without weights (as in the linear probes of He et al. 2022), then a linear layer that starts
at zero. So a probe that learns nothing predicts the mean, and epoch 0 takes part in the choice of
the best epoch. All pairs of learning rate and weight decay are trained side by side, on the same
batches, from the same initial weights. One thread is used: sums in another order would change the
last digits.

References
----------
He K, Chen X, Xie S, Li Y, Dollár P, Girshick R (2022). Masked autoencoders are scalable vision
learners. CVPR.
Loshchilov I, Hutter F (2019). Decoupled weight decay regularization. ICLR.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from brainlm_bids.cohort.bags import Bags, Values
from brainlm_bids.cohort.folds import Indices, Split, splits
from brainlm_bids.cohort.probe_options import VALIDATION_FOLDS, ProbeOptions

Array = NDArray[np.float64]
Weights = dict[str, Tensor]
UNITS_FOR_SCALE = 256  # units whose rows give mean and standard deviation
MOMENTUM = 0.1  # of the statistics of the batches; the first steps count equally
SMALLEST_RELATIVE_SD = 1e-6


class Scale(NamedTuple):
    """Mean and standard deviation (D,) of the rows of the training units."""

    mean: Tensor
    sd: Tensor


class Pooling(Protocol):
    """The part of a probe that makes one vector of the rows of a window."""

    @property
    def fills(self) -> bool:
        """Whether single missing values become the mean; else a row with one is left out."""
        ...

    def initial(self, width: int, generator: torch.Generator) -> Weights:
        """Draw initial weights for rows of `width` columns."""
        ...

    def pooled(
        self, members: Sequence[Weights], rows: Tensor, seen: Tensor, scale: Scale
    ) -> list[Tensor]:
        """For each of the members (B, K), of rows (B, L, D), of which (B, L) are seen."""
        ...


def probe_predictions(
    pooling: Pooling,
    bags: Bags,
    target: ArrayLike,
    people: Sequence[str] | NDArray[np.str_],
    split: Split,
    *,
    n_classes: int,
    seed: int,
    options: ProbeOptions,
) -> Array:
    """Train a probe on the training units of a split, and predict its test units.

    Parameters
    ----------
    pooling
        The kind of probe.
    bags
        N units.
    target
        (N,) numbers, or class indices.
    people
        (N,) the subject of each unit. Validation subjects are drawn from the training subjects.
    split
        Training units and test units.
    n_classes
        0 for a regression.
    seed
        Seed of the validation subjects, initial weights, batches and draws.
    options
        Grid, early stopping and draws.

    Returns
    -------
    ndarray
        (n_test, 2) for a regression: the prediction, and the mean of the training units;
        (n_test, C) probabilities for C classes.
    """
    values, train = np.asarray(target, dtype=np.float64), split[0]
    owners = np.asarray(people)[train]
    if len(np.unique(owners)) < 2:
        return _untrained(values[train], len(split[1]), n_classes)
    fit, held = (train[part] for part in next(splits(owners, VALIDATION_FOLDS, seed)))
    goal = _Goal(values, fit, n_classes)
    with _one_thread():
        reader = _Reader(bags, pooling.fills, _scale(bags, fit, options, seed), options)
        weights = _train(pooling, reader, goal, fit, held, seed, options)
        outputs = _outputs(pooling, [weights], reader, split[1])[0]
    return goal.predictions(outputs, values[train])


def _untrained(train: Array, n_test: int, n_classes: int) -> Array:
    """Mean, or shares of the classes: there are no subjects to stop the training by."""
    if n_classes == 0:
        return np.full((n_test, 2), train.mean())
    share = np.bincount(train.astype(np.int64), minlength=n_classes) / len(train)
    return np.tile(share, (n_test, 1))


class _Goal:
    """Targets as the loss takes them, and outputs as the caller takes them."""

    def __init__(self, values: Array, fit: Indices, n_classes: int) -> None:
        self.n_classes, self.n_outputs = n_classes, n_classes or 1
        if n_classes:
            counts = np.bincount(values[fit].astype(np.int64), minlength=n_classes)
            weights = counts.sum() / (n_classes * np.maximum(counts, 1))
            self._weights = torch.from_numpy(weights).float()
            self._targets = torch.from_numpy(values.astype(np.int64))
            return
        self._mean, sd = float(values[fit].mean()), float(values[fit].std())
        self._sd = sd if sd > 0 else 1.0
        self._targets = torch.from_numpy((values - self._mean) / self._sd).float()

    def loss(self, outputs: Tensor, units: Indices) -> Tensor:
        """Mean squared error; or cross-entropy, the classes having equal weight."""
        truth = self._targets[torch.from_numpy(units)]
        if self.n_classes == 0:
            return F.mse_loss(outputs[:, 0], truth)
        each = F.cross_entropy(outputs, truth, reduction="none")
        return (each * self._weights[truth]).mean()

    def predictions(self, outputs: Tensor, train: Array) -> Array:
        found = outputs.double().numpy()
        if self.n_classes == 0:
            # what learned nothing predicts the mean of all training units, not of those it fitted
            mean = self._mean if found.any() else train.mean()
            predicted = found[:, 0] * self._sd + mean
            return np.stack([predicted, np.full(len(found), train.mean())], axis=1)
        odds = np.exp(found - found.max(axis=1, keepdims=True))
        # a class without training units cannot be predicted
        odds *= np.bincount(train.astype(np.int64), minlength=self.n_classes) > 0
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))


class _Reader:
    """Batches of windows: rows (B, L, D), padded, and which of them are seen (B, L)."""

    def __init__(self, bags: Bags, fills: bool, scale: Scale, options: ProbeOptions) -> None:
        self.bags, self.scale = bags, scale
        self._fills, self._mean, self._options = fills, scale.mean.numpy(), options

    def drawn(self, units: Indices, key: Sequence[int]) -> tuple[Tensor, Tensor]:
        """One window of each unit, drawn at random."""
        windows = []
        for unit in units.tolist():
            rng = np.random.default_rng([*key, unit])
            n_windows = self.bags.n_windows(unit)
            chosen = int(rng.integers(n_windows)) if n_windows else 0
            windows.append(
                self._clean(self.bags.window(unit, chosen, self._options.rows, rng))
                if n_windows
                else self._mean[None]
            )
        return _padded(windows)

    def everything(
        self, units: Indices, key: Sequence[int] | None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """All windows, one at a time, with the place of their unit; drawn rows with a `key`."""
        for place, unit in enumerate(units.tolist()):
            rng = None if key is None else np.random.default_rng([*key, unit])
            limit = None if key is None else self._options.rows
            for window in self.bags.windows(unit, limit, rng):
                yield place, *_padded([self._clean(window)])

    def _clean(self, window: Values) -> Values:
        known = np.isfinite(window)
        if known.all() and len(window):
            return window
        if self._fills:
            window = np.where(known, window, self._mean)[known.any(axis=1)]
        else:
            window = window[known.all(axis=1)]
        return window if len(window) else self._mean[None]


def _padded(windows: list[Values]) -> tuple[Tensor, Tensor]:
    longest = max(len(window) for window in windows)
    rows = np.zeros((len(windows), longest, windows[0].shape[1]), dtype=np.float32)
    seen = np.zeros((len(windows), longest), dtype=bool)
    for place, window in enumerate(windows):
        rows[place, : len(window)], seen[place, : len(window)] = window, True
    return torch.from_numpy(rows), torch.from_numpy(seen)


def _scale(bags: Bags, units: Indices, options: ProbeOptions, seed: int) -> Scale:
    """Mean and standard deviation of the finite values of some units, in one pass over windows."""
    rng = np.random.default_rng([seed, 1])
    total, squares, count = (np.zeros(bags.width) for _ in range(3))
    for unit in rng.permutation(units)[:UNITS_FOR_SCALE].tolist():
        for window in bags.windows(unit, options.rows, rng):
            known = np.isfinite(window)
            values = np.where(known, window, 0).astype(np.float64)
            total += values.sum(axis=0)
            squares += (values**2).sum(axis=0)
            count += known.sum(axis=0)
    mean = total / np.maximum(count, 1)
    sd = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
    # a column without variation would be rounding, magnified
    varies = sd > SMALLEST_RELATIVE_SD * np.abs(mean)
    sd = np.where(varies & (sd > 0), sd, np.inf)
    return Scale(torch.from_numpy(mean).float(), torch.from_numpy(sd).float())


# --- training --------------------------------------------------------------------------------


class _Member:
    """One pair of learning rate and weight decay: its weights, and the best of them."""

    def __init__(self, weights: Weights, rate: float, decay: float) -> None:
        self.weights = weights
        fitted = [value for name, value in weights.items() if not name.startswith("running_")]
        self.optimiser = torch.optim.AdamW(fitted, lr=rate, weight_decay=decay)
        self.best, self.waited = math.inf, 0
        self.kept, self.n_steps = _copies(weights), 0

    def judge(self, loss: float) -> None:
        self.waited += 1
        if loss < self.best:
            self.best, self.kept, self.waited = loss, _copies(self.weights), 0


def _copies(weights: Weights) -> Weights:
    return {name: value.detach().clone() for name, value in weights.items()}


def _train(
    pooling: Pooling,
    reader: _Reader,
    goal: _Goal,
    fit: Indices,
    held: Indices,
    seed: int,
    options: ProbeOptions,
) -> Weights:
    """The weights with the smallest validation loss, over pairs and epochs."""
    members = _members(pooling, reader, goal, seed, options)
    rng = np.random.default_rng([seed, 2])
    judges = np.sort(rng.permutation(held)[: options.validation_units])
    active = members
    for epoch in range(options.epochs + 1):
        if epoch:
            order = rng.permutation(fit)[: options.units_per_epoch]
            for units in np.array_split(order, math.ceil(len(order) / options.batch)):
                _step(pooling, active, reader, goal, units, (seed, 3, epoch))
        current = [member.weights for member in active]
        for member, outputs in zip(
            active, _outputs(pooling, current, reader, judges, (seed, 4)), strict=True
        ):
            member.judge(float(goal.loss(outputs, judges)))
        active = [member for member in active if member.waited < options.patience]
        if not active:
            break
    return min(members, key=lambda member: member.best).kept


def _members(
    pooling: Pooling, reader: _Reader, goal: _Goal, seed: int, options: ProbeOptions
) -> list[_Member]:
    """All pairs, from the same initial weights."""
    width = len(reader.scale.mean)
    members = []
    for rate, decay in options.grid:
        generator = torch.Generator().manual_seed(seed)
        weights = pooling.initial(width, generator)
        rows = reader.scale.mean[None, None]
        seen = torch.ones(1, 1, dtype=torch.bool)
        n_pooled = pooling.pooled([weights], rows, seen, reader.scale)[0].shape[1]
        weights |= {
            "head": torch.zeros(n_pooled, goal.n_outputs),
            "bias": torch.zeros(goal.n_outputs),
            "running_mean": torch.zeros(n_pooled),
            "running_var": torch.ones(n_pooled),
        }
        for name, value in weights.items():
            value.requires_grad_(not name.startswith("running_"))
        members.append(_Member(weights, rate, decay))
    return members


def _step(
    pooling: Pooling,
    members: list[_Member],
    reader: _Reader,
    goal: _Goal,
    units: Indices,
    key: tuple[int, ...],
) -> None:
    rows, seen = reader.drawn(units, key)
    pooled = pooling.pooled([member.weights for member in members], rows, seen, reader.scale)
    loss = torch.zeros(())
    for member, vectors in zip(members, pooled, strict=True):
        member.n_steps += 1
        momentum = max(MOMENTUM, 1 / member.n_steps) if len(units) > 1 else 0.0
        loss = loss + goal.loss(_head(member.weights, vectors, momentum), units)
    for member in members:
        member.optimiser.zero_grad()
    torch.autograd.backward(loss)
    for member in members:
        member.optimiser.step()


def _head(weights: Weights, pooled: Tensor, momentum: float = 0.0) -> Tensor:
    """Outputs (B, C), normalised by the batch while training (momentum above 0)."""
    normal = F.batch_norm(
        pooled,
        weights["running_mean"],
        weights["running_var"],
        training=momentum > 0,
        momentum=momentum,
    )
    return normal @ weights["head"] + weights["bias"]


@torch.no_grad()
def _outputs(
    pooling: Pooling,
    members: Sequence[Weights],
    reader: _Reader,
    units: Indices,
    key: tuple[int, ...] | None = None,
) -> list[Tensor]:
    """(n, C) of each member: the mean over the windows of a unit; 0 for a unit without windows."""
    outputs = [torch.zeros(len(units), weights["head"].shape[1]) for weights in members]
    n_windows = np.zeros(len(units))
    for place, rows, seen in reader.everything(units, key):
        n_windows[place] += 1
        pooled = pooling.pooled(members, rows, seen, reader.scale)
        for weights, vectors, total in zip(members, pooled, outputs, strict=True):
            total[place] += _head(weights, vectors)[0]
    divisor = torch.from_numpy(np.maximum(n_windows, 1)).float()[:, None]
    return [total / divisor for total in outputs]


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
