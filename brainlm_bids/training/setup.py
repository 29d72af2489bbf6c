"""Set up a pretraining from its options: the split, the network and the record of the run.

Everything that changes a result is in the record, `RUN_DIR/config/run.json`. A run in a folder with
the same record is continued; with another record it is refused, and the message names the
difference.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids import __version__
from brainlm_bids.errors import UserError
from brainlm_bids.files import json_value, read_json, sha256, write_json, write_tsv
from brainlm_bids.model.checkpoint import load_model, network_over, random_network
from brainlm_bids.model.config import ARCHITECTURES, ModelConfig, config_content, read_config
from brainlm_bids.model.devices import choose_device, resolve_precision
from brainlm_bids.model.masking import n_kept
from brainlm_bids.model.network import Network
from brainlm_bids.resources import WEIGHTS_LICENCE, find_model, parcels
from brainlm_bids.settings import Settings
from brainlm_bids.training.loader import Schedule
from brainlm_bids.training.objective import default_learning_rate
from brainlm_bids.training.prediction_head import trainable
from brainlm_bids.training.split import read_split, split_subjects, subject_label
from brainlm_bids.training.store import Store

TRAIN, VALIDATION, TEST = "train", "validation", "test"
UNTRAINED = "untrained: none"  # in place of a licence


@dataclass(frozen=True)
class PretrainOptions:
    """The options of `brainlm pretrain`; None stands for the default that --help shows."""

    data: Path
    run_dir: Path
    size: str | None = None
    config: Path | None = None
    start_from: str | None = None
    series: str = "robust"
    space: str | None = None
    atlas: str | None = None
    mask_ratio: float | None = None
    windows_per_recording: int = 1
    split: Path | None = None
    seed: int = Settings.random_seed
    baseline_windows: int = 16
    epochs: int = 100
    batch: int = 512
    learning_rate: float | None = None
    weight_decay: float | None = None
    warm_up: float = 0.05
    clip_norm: float = 1.0
    precision: str = Settings.precision
    device: str = Settings.device
    micro_batch: int | None = None
    workers: int | None = None
    save_minutes: float = 15.0


@dataclass(frozen=True)
class StartingPoint:
    """The network that a training begins with, and its provenance."""

    network: Network
    source: str
    sha256: str | None
    licence: str


def find_start(options: PretrainOptions) -> StartingPoint:
    """Make an untrained network, or load the one to start from.

    Parameters
    ----------
    options
        The options of the command.

    Returns
    -------
    StartingPoint
        The network and its provenance.

    Raises
    ------
    UserError
        For contradictory options.
    """
    if options.start_from is None:
        if (options.size is None) == (options.config is None):
            raise UserError("give one of --size, --config and --from")
        if options.config is not None:
            config, source = read_config(options.config), str(options.config)
        else:
            config, source = ARCHITECTURES[str(options.size)], str(options.size)
        config = _with_ratio(config, options)
        network = random_network(config, options.seed)
        return StartingPoint(network, f"{source}, untrained", None, UNTRAINED)
    try:
        resource = find_model(options.start_from)
    except UserError as error:
        raise UserError(str(error).replace("--model", "--from")) from None
    if resource is None or resource.path is None:
        raise UserError(
            f"--from {options.start_from}: has no weights; use --size for untrained ones"
        )
    model = load_model(resource.path, seed=options.seed)
    _check_size(options, model.config)
    network = network_over(_with_ratio(model.config, options), model.module)
    trainable(network, {"vit": True, "decoder": True})
    return StartingPoint(network, resource.source, resource.sha256, resource.licence)


def _with_ratio(config: ModelConfig, options: PretrainOptions) -> ModelConfig:
    ratio = config.mask_ratio if options.mask_ratio is None else options.mask_ratio
    config = replace(config, mask_ratio=ratio)
    n_hidden = config.n_tokens - n_kept(config.n_tokens, ratio)
    if not 0 < n_hidden < config.n_tokens:
        raise UserError(f"--mask-ratio {ratio}: hides {n_hidden} of {config.n_tokens} tokens")
    return config


def _check_size(options: PretrainOptions, config: ModelConfig) -> None:
    """Refuse a checkpoint whose architecture differs from the one in the options."""
    if options.size is None and options.config is None:
        return
    requested = (
        ARCHITECTURES[options.size] if options.size else read_config(Path(str(options.config)))
    )
    expected, actual = config_content(requested), config_content(config)
    keys = [key for key in expected if key != "mask_ratio" and expected[key] != actual.get(key)]
    if keys:
        text = ", ".join(f"{key} {actual.get(key)} (not {expected[key]})" for key in keys[:3])
        raise UserError(
            f"--from {options.start_from}: is a checkpoint of another size: {text}; "
            "leave --size out"
        )


@dataclass(frozen=True)
class DataSplit:
    """Recordings of a store for training, validation and test, and why others are not used.

    Attributes
    ----------
    parts
        Part -> indices of recordings.
    part_of
        Subject -> part.
    table
        Rows of recordings.tsv.
    """

    parts: Mapping[str, tuple[int, ...]]
    part_of: Mapping[str, str]
    table: tuple[tuple[Any, ...], ...]


HEADER = ("recording", "participant_id", "n_volumes", "split", "used", "reason")


def divide(store: Store, config: ModelConfig, options: PretrainOptions) -> DataSplit:
    """Split the usable recordings by subject.

    Parameters
    ----------
    store
        The store.
    config
        Configuration of the network.
    options
        The options of the command.

    Returns
    -------
    DataSplit
        The parts.

    Raises
    ------
    UserError
        For too few recordings, or another atlas.
    """
    if store.n_parcels != config.n_parcels or config.n_parcels != len(parcels().xyz):
        raise UserError(
            f"{store.folder}: has {store.n_parcels} parcels, the network {config.n_parcels}; "
            f"both must be the {len(parcels().xyz)} of A424"
        )
    rows = store.recordings
    reasons = [_why_not(row.reason, row.n_volumes, config.window) for row in rows]
    subjects = [subject_label(row.subject) for row in rows]
    usable = {subject for subject, why in zip(subjects, reasons, strict=True) if not why}
    part_of = read_split(options.split) if options.split else split_subjects(usable, options.seed)
    parts: dict[str, list[int]] = {TRAIN: [], VALIDATION: [], TEST: []}
    table = []
    for index, (row, subject) in enumerate(zip(rows, subjects, strict=True)):
        part = part_of.get(subject)
        why = reasons[index] or ("" if part else f"its participant is not in {options.split}")
        if part and not why:
            parts[part].append(index)
        used = "no" if why else "yes"
        table.append((row.name, subject, row.n_volumes, part, used, why or None))
    for part in (TRAIN, VALIDATION):
        if not parts[part]:
            raise UserError(f"no usable recording is in {part}")
    indices = {part: tuple(recordings) for part, recordings in parts.items()}
    return DataSplit(indices, dict(sorted(part_of.items())), tuple(table))


def _why_not(reason: str, n_volumes: int, window: int) -> str:
    if not reason and n_volumes < window:
        return f"has {n_volumes} volumes; a window has {window}"
    return reason


@dataclass(frozen=True)
class Resolved:
    """The options whose defaults depend on the network, the data or the machine."""

    learning_rate: float
    weight_decay: float
    precision: str
    device: str


def resolve(options: PretrainOptions, config: ModelConfig, schedule: Schedule) -> Resolved:
    """Fill in the defaults that depend on the network, the data and the machine.

    Parameters
    ----------
    options
        The options of the command.
    config
        Configuration of the network.
    schedule
        Steps of the training.

    Returns
    -------
    Resolved
        Their values.
    """
    device = choose_device(options.device)
    return Resolved(
        options.learning_rate or default_learning_rate(config, schedule.mean_batch),
        config.default_weight_decay if options.weight_decay is None else options.weight_decay,
        resolve_precision(device, options.precision),
        device,
    )


def run_record(
    options: PretrainOptions,
    resolved: Resolved,
    start: StartingPoint,
    split: DataSplit,
    store: Store,
) -> dict[str, Any]:
    """Record everything that the result depends on.

    Parameters
    ----------
    options
        The options of the command.
    resolved
        The defaults that were filled in.
    start
        The network.
    split
        The parts of the data.
    store
        The store.

    Returns
    -------
    dict
        The record.
    """
    names = ("seed", "windows_per_recording", "baseline_windows", "epochs", "batch", "warm_up")
    values = asdict(options)
    parameters = {name: values[name] for name in (*names, "clip_norm")}
    chosen = {key: value for key, value in asdict(resolved).items() if key != "device"}
    divided = json.dumps([split.part_of, split.table], sort_keys=True)
    return {
        "Parameters": {**parameters, **chosen},
        "Network": config_content(start.network.config),
        "StartedFrom": {"Source": start.source, "Sha256": start.sha256, "Licence": start.licence},
        "Store": {"Sha256": store.sha256, "Parcels": store.n_parcels},
        "Split": sha256(divided),
    }


def write_setup(run_dir: Path, record: Mapping[str, Any], split: DataSplit, store: Store) -> None:
    """Write the record, the split and the table of recordings, or compare with those of the folder.

    Parameters
    ----------
    run_dir
        The run folder.
    record
        See `run_record`.
    split
        The parts of the data.
    store
        The store.

    Raises
    ------
    UserError
        If the folder holds another training; the message names what differs.
    """
    file = run_dir / "config" / "run.json"
    if file.is_file():
        differ = _differences(read_json(file), json_value(record))
        if differ:
            raise UserError(
                f"{run_dir}: holds another training: {'; '.join(differ)}; give the same arguments "
                "to continue it, or another RUN_DIR"
            )
        return
    columns = [list(split.part_of), list(split.part_of.values())]
    write_tsv(run_dir / "split.tsv", ("participant_id", "split"), columns)
    rows = list(zip(*split.table, strict=True))
    write_tsv(run_dir / "recordings.tsv", HEADER, rows)
    write_json(file, {**record, "Versions": _versions(), "StoreFolder": str(store.folder)})


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    differences = []
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            differences += [
                f"{name} was {old[key].get(name)}, is {value.get(name)}"
                for name in value
                if old[key].get(name) != value.get(name)
            ]
        elif old.get(key) != value:
            differences.append(f"{key} differs")
    return differences


def _versions() -> dict[str, str]:
    import accelerate
    import torch

    return {
        "brainlm-bids": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
    }


def is_released(start: StartingPoint) -> bool:
    """Whether the weights are, or derive from, the released ones of BrainLM.

    Parameters
    ----------
    start
        The network.

    Returns
    -------
    bool
        True if the licence of the released weights applies.
    """
    return start.licence == WEIGHTS_LICENCE
