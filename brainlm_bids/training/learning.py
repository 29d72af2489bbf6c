"""The loop of fine-tuning: a module and what feeds it come in; the best weights and curves go out.

accelerate puts it onto the device. Several processes share the rows of a batch and of validation,
and sum what they found, so that they learn what one would. The weights kept are those of the epoch
with the smallest validation loss.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainlm_bids.cohort.decoding import splits
from brainlm_bids.errors import UserError
from brainlm_bids.model.devices import choose_device, resolve_precision

Indices = NDArray[np.int64]
# Processes wait for the one that writes, which also fits what has no part in learning.
PATIENCE_OF_PROCESSES = timedelta(hours=6)
VALIDATION_FOLDS = 5  # a fifth of the training subjects stops the training


@dataclass(frozen=True)
class Learning:
    """How it is learnt; field names are those of the command line."""

    epochs: int
    patience: int
    batch: int
    weight_decay: float
    seed: int


@dataclass(frozen=True)
class Fold:
    """Rows to fit, to stop the training by, and to test; whole subjects in each."""

    fit: Indices
    validation: Indices
    test: Indices

    @property
    def train(self) -> Indices:
        """All rows that may be learnt from."""
        return np.sort(np.concatenate([self.fit, self.validation]))


def cross_validation(subjects: Sequence[str], n_folds: int, seed: int) -> list[Fold]:
    """`n_folds` folds of whole subjects, blind to the target; those of `cohort.decoding`."""
    people = np.asarray(subjects)
    n_subjects = len(np.unique(people))
    if not 2 <= n_folds <= n_subjects or n_subjects < 3:
        raise UserError(f"--folds {n_folds}: {n_subjects} subjects have data; expected 2 or more")
    folds = []
    for train, test in splits(people, n_folds, seed):
        fitted, held = next(splits(people[train], VALIDATION_FOLDS, seed + 1))
        folds.append(Fold(train[fitted], train[held], test))
    return folds


def one_split(subjects: Sequence[str], parts: dict[str, str]) -> list[Fold]:
    """One fold from subject -> train, validation or test."""
    said = np.array([parts.get(one, "") for one in subjects])
    rows = {part: np.flatnonzero(said == part) for part in ("train", "validation", "test")}
    empty = next((part for part, found in rows.items() if not found.size), None)
    if empty:
        raise UserError(f"--split: no recording that can be used is in {empty}")
    return [Fold(rows["train"], rows["validation"], rows["test"])]


def accelerator(device: str, precision: str) -> Any:
    """accelerate on this process' device."""
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    chosen = choose_device(device)
    mixed = {"float32": "no", "bfloat16": "bf16"}[resolve_precision(chosen, precision)]
    waiting = InitProcessGroupKwargs(timeout=PATIENCE_OF_PROCESSES)
    return Accelerator(cpu=chosen == "cpu", mixed_precision=mixed, kwargs_handlers=[waiting])


def share(rows: Sequence[Any] | NDArray[Any], engine: Any) -> Any:
    """Those of the rows that are this process'."""
    return rows[engine.process_index :: engine.num_processes]


def in_shares(
    function: Callable[[list[Any]], Sequence[Any]], rows: Sequence[Any], engine: Any
) -> list[Any]:
    """`function` of all rows, an entry for each, of which every process computes its share."""
    from accelerate.utils import gather_object

    world = engine.num_processes
    mine = share(list(rows), engine)
    found = list(function(mine)) if mine else []
    if world == 1:
        return found
    parts = gather_object([found])
    return [parts[k % world][k // world] for k in range(len(rows))]


def learn(
    module: nn.Module,
    groups: list[dict[str, Any]],
    n_rows: int,
    micro_batches: Callable[[Indices, int], Iterable[tuple[Tensor, ...]]],
    loss_of: Callable[[nn.Module, tuple[Tensor, ...]], Tensor],
    validate: Callable[[nn.Module], Tensor],
    learning: Learning,
    engine: Any,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train, and return the module with its best weights, and a row per epoch.

    groups: as of an optimiser. micro_batches(rows, epoch): tensors of some of the rows 0 … n_rows,
    in pieces; loss_of(module, tensors) -> (b,). validate(module) -> (v,) losses of this process'
    share. Epoch 0 is what it begins with. Raises UserError for a loss that is not finite.
    """
    optimiser = torch.optim.AdamW(groups, weight_decay=learning.weight_decay)
    # not as a distributed module: shares may differ in the number of their pieces, or be empty
    module = engine.prepare_model(module, evaluation_mode=True)
    weights = [weight for group in groups for weight in group["params"]]
    first = _mean(validate(module), engine)
    curves = [{"epoch": 0, "train_loss": math.nan, "validation_loss": first}]
    best, kept, waited = curves[0]["validation_loss"], _weights(module), 0
    for epoch in range(1, learning.epochs + 1):
        module.train()
        order = np.random.default_rng([learning.seed, epoch]).permutation(n_rows)
        losses = [torch.zeros(0)]
        for rows in np.array_split(order, max(1, math.ceil(n_rows / learning.batch))):
            optimiser.zero_grad()
            mine = share(rows, engine)
            for tensors in micro_batches(mine, epoch) if len(mine) else ():
                with engine.autocast():
                    loss = loss_of(module, tuple(one.to(engine.device) for one in tensors))
                engine.backward(loss.sum() / len(rows))
                losses.append(loss.detach().float().cpu())
            _sum_gradients(weights, engine)
            engine.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
        fitted, found = _mean(torch.cat(losses), engine), _mean(validate(module), engine)
        if not (math.isfinite(fitted) and math.isfinite(found)):
            raise UserError(f"the loss is not finite in epoch {epoch}: lower the learning rate")
        curves.append({"epoch": epoch, "train_loss": fitted, "validation_loss": found})
        waited += 1
        if found < best:
            best, kept, waited = found, _weights(module), 0
        if waited >= learning.patience:
            break
    module = engine.unwrap_model(module)
    module.load_state_dict(kept, strict=False)
    return module.eval(), curves


def _mean(values: Tensor, engine: Any) -> float:
    """The mean over the values of all processes, to the same bit in each."""
    said = torch.tensor([float(values.double().sum()), len(values)], dtype=torch.float64)
    total, number = engine.reduce(said.to(engine.device), "sum").tolist()
    return total / number


def _sum_gradients(weights: Sequence[Tensor], engine: Any) -> None:
    if engine.num_processes == 1:
        return
    for weight in weights:
        if weight.grad is None:  # its share was empty
            weight.grad = torch.zeros_like(weight)
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    whole = engine.reduce(torch.cat([one.reshape(-1) for one in gradients]), "sum")
    for one, part in zip(gradients, whole.split([one.numel() for one in gradients]), strict=True):
        one.copy_(part.view_as(one))


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of what can learn; the rest stays as it is."""
    return {
        name.removeprefix("module."): weight.detach().clone()
        for name, weight in module.named_parameters()
        if weight.requires_grad
    }
