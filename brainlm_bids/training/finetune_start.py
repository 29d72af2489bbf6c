"""What every `brainlm finetune` begins with, whatever the target.

The options become the checkpoint, the recordings, the folds of subjects, and the provenance of the
weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from brainlm_bids.cohort.sources import COHORT, DEFAULT, RECORDING
from brainlm_bids.errors import UserError
from brainlm_bids.messages import tell
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.notices import Kind, notice, to_json
from brainlm_bids.progress import Progress
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
from brainlm_bids.training.store import Store, find_or_build, is_store


@dataclass(frozen=True)
class FinetuneOptions:
    """The arguments of `brainlm finetune`."""

    checkpoint: str
    data: Path
    run_dir: Path
    target: tuple[str, ...] = Settings.target
    future: int | None = None
    bids_dir: Path | None = None
    phenotype: Path | None = Settings.phenotype
    series: str | None = None  # by the default scaling of decodings; robust with --future
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
    readouts: tuple[str, ...] = Settings.readouts
    permutations: int = Settings.permutations
    origins: int = 8
    seed: int = Settings.random_seed
    micro_batch: int | None = None
    device: str = Settings.device
    precision: str = Settings.precision
    offline: bool = Settings.offline

    @property
    def stopping(self) -> Stopping:
        """Number of epochs, patience, batch size and seed of the fit."""
        return Stopping(self.epochs, self.patience, self.batch, self.seed)


# Scaling -> --series
OF_SCALING = {RECORDING: "robust", COHORT: "robustcohort"}
# Options that may differ when a run is resumed.
FREE = frozenset({"run_dir", "device", "micro_batch", "offline"})


def begin(options: FinetuneOptions) -> "Start":
    """Find the checkpoint, open the store, and start the devices.

    Parameters
    ----------
    options
        The options of the command.

    Returns
    -------
    Start
        What every fold begins with.

    Raises
    ------
    UserError
        For data or options that cannot be used.
    """
    if bool(options.target) == (options.future is not None):
        raise UserError("give either --target or --future")
    resource = find_model(options.checkpoint, offline=options.offline)
    if resource is None:
        raise UserError(f"{options.checkpoint}: has no weights")
    options.run_dir.mkdir(parents=True, exist_ok=True)
    if options.run_dir.resolve() == options.data.resolve():
        raise UserError(f"{options.run_dir}: the run needs a folder of its own")
    options = replace(options, series=options.series or _default_series(options))
    engine = start_engine(options.device, options.precision)
    with engine.main_process_first():
        store = _claimed_store(options, resource)
        progress = Progress(compares=False, quiet=not engine.is_main_process)
        start = Start(resource, store, engine, options, progress)
        return start if options.future is not None else _with_both_scalings(start)


def _default_series(options: FinetuneOptions) -> str:
    """The series that a call reads that names none."""
    made = [name for name in OF_SCALING.values() if options.data.name == f"desc-{name}"]
    if is_store(options.data) and made:  # it has one kind; those of this program are named after it
        return made[0]
    return OF_SCALING[RECORDING if options.future is not None else DEFAULT[1]]


def _with_both_scalings(start: "Start") -> "Start":
    """With the store of the other scaling too, or why there is none."""
    options = start.options
    other = RECORDING if start.scaling == COHORT else COHORT
    stores = {start.scaling: start.store}
    if is_store(options.data):
        reason = "a training store holds series of one scaling"
        return start._replace(stores=stores, no_store={other: reason})
    try:
        stores[other] = find_or_build(
            options.data,
            options.run_dir,
            series=OF_SCALING[other],
            space=options.space,
            atlas=options.atlas,
        )
    except UserError as error:
        return start._replace(stores=stores, no_store={other: str(error)})
    return start._replace(stores=stores)


def _claimed_store(options: FinetuneOptions, resource: ModelResource) -> Store:
    values = {k: v for k, v in asdict(options).items() if k not in FREE}
    values["data"] = str(options.data.resolve())
    about = {
        "Command": "brainlm finetune",
        "Parameters": values,
        "Checkpoint": {"sha256": resource.sha256, "source": resource.source},
    }
    claim(options.run_dir, about)
    return find_or_build(
        options.data,
        options.run_dir,
        series=str(options.series),
        space=options.space,
        atlas=options.atlas,
        volumes=options.future is not None,
    )


class Start(NamedTuple):
    """What every fold begins with.

    Attributes
    ----------
    resource, engine, options
        Checkpoint, devices, and the options of the command with their defaults.
    progress
        Of the command.
    store
        The recordings that the model is fitted to.
    stores, no_store
        With a target: the stores by their scaling, and why there is none of a scaling.
    """

    resource: ModelResource
    store: Store
    engine: Any
    options: FinetuneOptions
    progress: Progress
    stores: dict[str, Store] = {}  # noqa: RUF012
    no_store: dict[str, str] = {}  # noqa: RUF012

    @property
    def scaling(self) -> str:
        """Statistics with which the series were scaled that the model is fitted to."""
        return next(key for key, name in OF_SCALING.items() if name == self.series)

    @property
    def series(self) -> str:
        """What `--series` names, or its default."""
        assert self.options.series is not None
        return self.options.series

    def model(self) -> LoadedModel:
        """Load the checkpoint as it was before fine-tuning.

        Returns
        -------
        LoadedModel
            On the device of the engine.
        """
        source = self.resource.path or self.resource.name
        device = "cuda" if self.engine.device.type == "cuda" else "cpu"
        return load_model(source, seed=self.options.seed, device=device)

    @property
    def writes(self) -> bool:
        """Whether this process writes files and log lines."""
        return bool(self.engine.is_main_process)

    def origin(self) -> dict[str, Any]:
        """Provenance of the weights, under the same keys as in `brainlm pretrain`.

        Returns
        -------
        dict
            Checkpoint and StartedFrom.
        """
        checkpoint = self.resource
        origin = {
            "Source": checkpoint.source,
            "Sha256": checkpoint.sha256,
            "Licence": checkpoint.licence,
        }
        return {"Checkpoint": checkpoint.name, "StartedFrom": origin}

    def models(self) -> dict[str, Any]:
        """Describe the checkpoint for the record of a call.

        Returns
        -------
        dict
            Its label to name, sha256, source, licence, and whether it is untrained.
        """
        checkpoint = self.resource
        return {checkpoint.label: {**checkpoint.about(), "untrained": checkpoint.random}}

    def warnings(self) -> list[dict[str, str]]:
        """Collect the warnings for the sidecars of scores and weights.

        Returns
        -------
        list of dict
            Kind, level and text of each.
        """
        warnings, licence = list(self.resource.warnings), self.resource.licence
        if licence == WEIGHTS_LICENCE:
            text = f"Made from weights under {licence}: adapted weights must not be shared."
            warnings.append(notice(Kind.RESTRICTED_LICENCE, text))
        return to_json(warnings)

    def folds(self, subjects: Sequence[str]) -> list[Fold]:
        """Return the split of the user, a single split, or the folds of a cross-validation.

        Parameters
        ----------
        subjects
            (U,) the subject of each unit.

        Returns
        -------
        list of Fold
            Whole subjects in each part.

        Raises
        ------
        UserError
            If there are too few subjects.
        """
        options = self.options
        if options.split is not None:
            return one_split(subjects, read_split(options.split))
        if options.single:
            return one_split(subjects, split_subjects(subjects, options.seed))
        return cross_validation(subjects, options.folds, options.seed)


def usable(start: Start, needed: int | Callable[[int], int]) -> tuple[list[int], dict[str, str]]:
    """Select the recordings with enough volumes; the others are reported.

    Parameters
    ----------
    start
        The store.
    needed
        Number of volumes that a recording needs, or a function of its index in the store.

    Returns
    -------
    chosen
        Indices into the store.
    left_out
        Name of each other recording to the reason.

    Raises
    ------
    UserError
        If no recording can be used.
    """
    store = start.store
    chosen, left_out = [], {}
    for index, recording in enumerate(store.recordings):
        reason = recording.reason
        least = needed if isinstance(needed, int) else 0 if reason else needed(index)
        if not reason and recording.n_volumes < least:
            reason = f"has {recording.n_volumes} volumes; {least} are needed"
        if reason:
            left_out[recording.name] = reason
        else:
            chosen.append(index)
    for name, reason in left_out.items() if start.writes else ():
        tell(f"brainlm: left out: {name}: {reason}")
    if not chosen:
        raise UserError(
            f"{store.folder}: no recording can be used; {next(iter(left_out.values()))}"
        )
    return chosen, left_out
