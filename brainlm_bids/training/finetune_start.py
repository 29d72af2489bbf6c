"""The start of `brainlm finetune`, whatever the target.

The arguments become the checkpoint, the recordings, the folds of subjects, and the provenance of
the weights.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.notices import Kind, notice, to_json
from brainlm_bids.resources import WEIGHTS_LICENCE, ModelResource, find_model
from brainlm_bids.settings import Settings
from brainlm_bids.training.early_stopping import Stopping
from brainlm_bids.training.processes import start_engine
from brainlm_bids.training.run_folder import claim
from brainlm_bids.training.split import (
    Fold,
    cross_validation,
    one_split,
    read_split,
    split_subjects,
)
from brainlm_bids.training.store import Store, find_or_build


@dataclass(frozen=True)
class Parameters:
    """The arguments of `brainlm finetune`."""

    checkpoint: str
    data: Path
    run_dir: Path
    target: tuple[str, ...] = Settings.target
    future: int | None = None
    bids_dir: Path | None = None
    phenotype: Path | None = Settings.phenotype
    series: str = "robust"
    space: str | None = None
    atlas: str | None = None
    frozen: bool = False
    pooling: str = Settings.pooling
    dropout: float = 0.0
    folds: int = 5
    split: Path | None = None
    single: bool = False  # the seeded 80/10/10
    epochs: int = 50
    patience: int = 10
    batch: int = 16
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    permutations: int = 1000
    origins: int = 8
    seed: int = Settings.random_seed
    micro_batch: int | None = None
    device: str = Settings.device
    precision: str = Settings.precision
    offline: bool = Settings.offline

    @property
    def stopping(self) -> Stopping:
        """How long and in which batches it is learnt."""
        return Stopping(self.epochs, self.patience, self.batch, self.seed)


# What may differ when a run goes on.
FREE = frozenset({"run_dir", "device", "micro_batch", "offline"})


def begin(given: Parameters) -> "Start":
    """The checkpoint, the recordings and the machine. Raises UserError for what cannot be used."""
    if bool(given.target) == (given.future is not None):
        raise UserError("give either --target or --future")
    resource = find_model(given.checkpoint, offline=given.offline)
    if resource is None:
        raise UserError(f"{given.checkpoint}: holds no weights")
    given.run_dir.mkdir(parents=True, exist_ok=True)
    if given.run_dir.resolve() == given.data.resolve():
        raise UserError(f"{given.run_dir}: the run needs a folder of its own")
    engine = start_engine(given.device, given.precision)
    with engine.main_process_first():
        store = _claimed_store(given, resource)
    return Start(resource, store, engine, given)


def _claimed_store(given: Parameters, resource: ModelResource) -> Store:
    values = {k: v for k, v in asdict(given).items() if k not in FREE}
    values["data"] = str(given.data.resolve())
    about = {
        "Command": "brainlm finetune",
        "Parameters": values,
        "Checkpoint": {"sha256": resource.sha256, "source": resource.source},
    }
    claim(given.run_dir, about)
    return find_or_build(
        given.data, given.run_dir, series=given.series, space=given.space, atlas=given.atlas
    )


class Start(NamedTuple):
    """What every fold begins with."""

    resource: ModelResource
    store: Store
    engine: Any
    given: Parameters

    def model(self) -> LoadedModel:
        """The checkpoint, untouched, where it is to be used."""
        source = self.resource.path or self.resource.name
        device = "cuda" if self.engine.device.type == "cuda" else "cpu"
        return load_model(source, seed=self.given.seed, device=device)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return bool(self.engine.is_main_process)

    def origin(self) -> dict[str, Any]:
        """What the weights began with, under the keys of `brainlm pretrain`."""
        one = self.resource
        said = {"Source": one.source, "Sha256": one.sha256, "Licence": one.licence}
        return {"Checkpoint": one.name, "StartedFrom": said}

    def warnings(self) -> list[dict[str, str]]:
        """The field Warnings of the sidecars of scores and weights."""
        warnings, licence = list(self.resource.warnings), self.resource.licence
        if licence == WEIGHTS_LICENCE:
            text = f"Made from weights under {licence}: adapted weights must not be shared."
            warnings.append(notice(Kind.RESTRICTED_LICENCE, text))
        return to_json(warnings)

    def folds(self, subjects: Sequence[str]) -> list[Fold]:
        """Return the split of the user, a single split, or the folds of a cross-validation."""
        given = self.given
        if given.split is not None:
            return one_split(subjects, read_split(given.split))
        if given.single:
            return one_split(subjects, split_subjects(subjects, given.seed))
        return cross_validation(subjects, given.folds, given.seed)


def usable(start: Start, shortest: int) -> tuple[list[int], dict[str, str]]:
    """Recordings with enough volumes; and why the others are left out, which is also said."""
    store = start.store
    chosen, left_out = [], {}
    for index, one in enumerate(store.recordings):
        reason = one.reason
        if not reason and one.n_volumes < shortest:
            reason = f"has {one.n_volumes} volumes; {shortest} are needed"
        if reason:
            left_out[one.name] = reason
        else:
            chosen.append(index)
    for name, reason in left_out.items() if start.writes else ():
        print(f"brainlm: left out: {name}: {reason}", file=sys.stderr)
    if not chosen:
        raise UserError(
            f"{store.folder}: no recording can be used; {next(iter(left_out.values()))}"
        )
    return chosen, left_out
