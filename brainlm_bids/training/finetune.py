"""`brainlm finetune --target`: fit a head to a variable, and compare it with other predictors.

In each fold, the head (and the encoder) are fitted to some subjects, validation subjects stop the
fit, and it is tested on subjects that had no part in it. What the group level decodes from is
tested on the same folds (`finetune_comparisons`), and so is the mean or the class shares of the
training units. A unit is what is predicted once: a subject, or one of its sessions or recordings.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainlm_bids import __version__, files
from brainlm_bids.bids.dataset import raw_folder
from brainlm_bids.bids.names import parse, session_id
from brainlm_bids.bids.participants import Variables, read_variables
from brainlm_bids.cohort.coding import NUMBER, in_words, split_kind
from brainlm_bids.cohort.variables import Target, coding, make_target
from brainlm_bids.errors import UserError
from brainlm_bids.messages import tell
from brainlm_bids.progress import Step
from brainlm_bids.report.tools.page import reported
from brainlm_bids.settings import configuration_hash
from brainlm_bids.training import prediction_head as finetuning
from brainlm_bids.training.early_stopping import LossesOf, fit_with_early_stopping
from brainlm_bids.training.finetune_comparisons import decodings
from brainlm_bids.training.finetune_features import TOKENS, Features, gather
from brainlm_bids.training.finetune_feeds import Frozen, Sample, Whole
from brainlm_bids.training.finetune_start import FinetuneOptions, Start, begin, usable
from brainlm_bids.training.finetune_tables import Results, write_tables
from brainlm_bids.training.heads import save_head
from brainlm_bids.training.prediction_head import PredictionHead
from brainlm_bids.training.processes import in_shares, share
from brainlm_bids.training.saving import save_checkpoint
from brainlm_bids.training.split import Fold

# Steps of a call, beside the folds.
EMBEDDING, BASELINES = "embedding", "baselines and controls"

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def finetune(options: FinetuneOptions, command: Sequence[str] = ()) -> int:
    """Fine-tune for all targets.

    Parameters
    ----------
    options
        The options of the command.
    command
        The words of the command line, for the page; none for a call from Python.

    Returns
    -------
    int
        0, or 1 if a target failed.

    Raises
    ------
    UserError
        For data or options that cannot be used.
    """
    start = begin(options)
    if not start.writes:
        with start.progress:
            return _all_targets(start, {})
    models = start.models()
    with (
        reported(options.run_dir, "finetune", command, Models=models) as record,
        start.progress,
    ):
        return _all_targets(start, record)


# --- targets ---------------------------------------------------------------------------------


class _Recordings(NamedTuple):
    """The N recordings that can be used: indices into the store, names, people, features."""

    places: list[int]
    names: list[str]
    subjects: list[str]
    sessions: list[str | None]
    features: Features | None = None


def _all_targets(start: Start, record: dict[str, Any]) -> int:
    options, store = start.options, start.store
    places, left_out = usable(start, 20)
    found = _variables(options, [store.recordings[k].name for k in places])
    columns = found.columns
    asked = dict((name, None) if name in columns else split_kind(name) for name in options.target)
    unknown = next((name for name in asked if name not in columns), None)
    if unknown:
        known = ", ".join(columns) or "none"
        raise UserError(f"--target {unknown}: no such column; the columns are: {known}")
    people = _people(start, places)
    # before anything is embedded
    targets, problems = _targets(start, people, asked, found)
    start.progress.expect(_steps(start, people, targets))
    with start.progress.step(EMBEDDING):
        recordings = people._replace(features=_features(start, places)) if targets else people
    for target in targets:
        for line in (in_words(coding(target)), *target.notes) if start.writes else ():
            tell(f"brainlm: {target.name}: {line}")
        try:
            _fit_target(start, recordings, target, left_out)
        except UserError as error:
            if start.engine.num_processes > 1:
                raise  # other processes may be waiting for this one
            problems.append(str(error))
            start.progress.drop(_steps(start, people, [target]).keys() - {EMBEDDING})
    if len(problems) == len(asked):
        raise UserError("; ".join(problems))
    record["Problems"] = problems
    for problem in problems:
        tell(f"brainlm: failed: {problem}")
    start.engine.wait_for_everyone()
    if start.writes:
        shutil.rmtree(options.run_dir / TOKENS, ignore_errors=True)
    return 1 if problems else 0


def _steps(start: Start, people: _Recordings, targets: Sequence[Target]) -> dict[str, Step]:
    """What is to be done, in words: embedding, and the folds and the table of each target."""
    steps = {EMBEDDING: Step(f"embedding of {len(people.names)} recordings", EMBEDDING)}
    for target in targets:
        folds = start.folds([people.subjects[unit[0]] for unit in target.units])
        for number in range(1, len(folds) + 1):
            title = f"{target.name}: fold {number} of {len(folds)}"
            steps[f"{target.name}/{number}"] = Step(title, "fold")
        steps[f"{target.name}/{BASELINES}"] = Step(f"{target.name}: {BASELINES}", BASELINES)
    return steps


def _targets(
    start: Start, people: _Recordings, asked: Mapping[str, str | None], found: Variables
) -> tuple[list[Target], list[str]]:
    """Targets that can be predicted, and what is wrong with the others."""
    targets, problems = [], []
    for name, kind in asked.items():
        try:
            target = make_target(
                name,
                found.columns[name],
                people.subjects,
                sessions=people.sessions,
                kind=kind or (NUMBER if name in found.measured else None),
                levels=found.levels.get(name, ()),
            )
            start.folds([people.subjects[unit[0]] for unit in target.units])
        except UserError as error:
            problems.append(str(error))
        else:
            targets.append(target)
    return targets, problems


def _variables(options: FinetuneOptions, names: Sequence[str]) -> Variables:
    """Columns of participants.tsv and the phenotype file, a value per recording."""
    folder = options.bids_dir or raw_folder(options.data)
    if folder is None and options.phenotype is None:
        raise UserError(
            f"{options.data}: does not record where participants.tsv is; give --bids-dir or "
            "--phenotype"
        )
    if folder is not None and not (folder / "participants.tsv").is_file() and not options.phenotype:
        raise UserError(f"{folder}: has no participants.tsv; give --bids-dir or --phenotype")
    table = read_variables(folder, options.phenotype, names)
    for warning in table.notices:
        tell(f"brainlm: {warning.text}")
    return table


def _people(start: Start, places: list[int]) -> _Recordings:
    """The recordings before anything is computed of them."""
    rows = [start.store.recordings[place] for place in places]
    sessions = [session_id(parse(row.name).entities) for row in rows]
    names, subjects = [row.name for row in rows], [row.subject for row in rows]
    return _Recordings(places, names, subjects, sessions)


def _features(start: Start, places: list[int]) -> Features:
    features = gather(start, places)
    for label, reason in features.left_out.items() if start.writes else ():
        tell(f"brainlm: left out of the table: {label}: {reason}")
    return features


def _fit_target(
    start: Start, recordings: _Recordings, target: Target, left_out: dict[str, str]
) -> None:
    """All folds of one target, its tables and its figure."""
    features = recordings.features
    assert features is not None
    sample = _units(recordings, features.vectors, target)
    folds = start.folds(sample.subjects)
    folder = start.options.run_dir / _safe(target.name)
    finetuned = np.full((len(target.units), len(target.classes) or 2), np.nan)
    for number, fold in enumerate(folds, start=1):
        with start.progress.step(f"{target.name}/{number}"):
            finetuned[fold.test] = _fold(start, sample, target, fold, folder / f"fold-{number}")
    if not start.writes:
        return
    with start.progress.step(f"{target.name}/{BASELINES}"):
        compared, problems = decodings(
            features,
            target,
            sample.subjects,
            [(fold.train, fold.test) for fold in folds],
            n_permutations=start.options.permutations,
            seed=start.options.seed,
            folder=folder / "sources",
            configuration=_configuration(start, sample, target, folds),
            note=start.progress.note,
        )
    curves = [
        {"fold": number, **row}
        for number in range(1, len(folds) + 1)
        for row in files.read_rows(folder / f"fold-{number}" / "curves.tsv")
    ]
    files.write_tsv(
        folder / "curves.tsv", list(curves[0]), [[row[k] for row in curves] for k in curves[0]]
    )
    results = Results(sample, target, folds, finetuned, compared)
    problems = {**features.left_out, **problems}
    write_tables(start, results, folder, left_out, problems)
    print(folder / "decoding.tsv")


def _units(
    recordings: _Recordings, vectors: Sequence[NDArray[np.float32]], target: Target
) -> Sample:
    return Sample(
        [[recordings.places[row] for row in unit] for unit in target.units],
        [[recordings.names[row] for row in unit] for unit in target.units],
        [recordings.subjects[unit[0]] for unit in target.units],
        [np.concatenate([vectors[row] for row in unit]) for unit in target.units],
    )


def _safe(name: str) -> str:
    return "".join(
        character if character.isalnum() or character in "-_" else "-" for character in name
    )


def _fold(start: Start, sample: Sample, target: Target, fold: Fold, folder: Path) -> Array:
    """Predictions of the test units; those of an earlier call, if complete."""
    configuration = _configuration(start, sample, target, [fold])
    file = folder / "predictions.npz"
    saved = _saved(file, configuration)
    if saved is not None:
        return saved
    finetuned = _learn_head(start, sample, target, fold, folder)
    if not target.classes:
        mean = target.unit_values[fold.train].mean()
        finetuned = np.hstack([finetuned, np.full((len(finetuned), 1), mean)])
    if start.writes:
        predictions = {"configuration": np.array(configuration), "finetuned": finetuned}
        with files.atomically(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **predictions)
    start.engine.wait_for_everyone()
    saved = _saved(file, configuration)
    assert saved is not None
    return saved


def _configuration(start: Start, sample: Sample, target: Target, folds: Sequence[Fold]) -> str:
    identity = {
        "version": __version__,
        "stores": {scaling: store.sha256 for scaling, store in start.stores.items()},
        "checkpoint": start.resource.sha256,
        "target": [target.name, target.unit_values.tolist(), target.classes],
        "names": sample.names,
        "folds": [
            [part.tolist() for part in (fold.fit, fold.validation, fold.test)] for fold in folds
        ],
    }
    return configuration_hash(identity)


def _saved(file: Path, configuration: str) -> Array | None:
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as content:
        if str(content["configuration"]) != configuration:
            return None
        return np.asarray(content["finetuned"])


def _learn_head(start: Start, sample: Sample, target: Target, fold: Fold, folder: Path) -> Array:
    """Fit one fold, save it, and predict its test units: (n_test, 1) or (n_test, C)."""
    options, n_classes, values = start.options, len(target.classes), target.unit_values
    mean, scale = finetuning.standard(values[fold.fit]) if n_classes == 0 else (0.0, 1.0)
    targets = torch.from_numpy(((values - mean) / scale).astype(np.float32))
    weights = torch.from_numpy(finetuning.class_weights(values[fold.fit], n_classes)).float()
    model = start.model()
    with torch.random.fork_rng():
        # for the initial weights of the head, and dropout
        torch.manual_seed(options.seed)
        n_outputs = finetuning.n_outputs(n_classes)
        head = PredictionHead(model.embedding_dim, n_outputs, options.dropout)
        head.standardise(np.concatenate([sample.vectors[k] for k in fold.fit]))
        feed: Frozen | Whole
        feed = Frozen(sample) if options.frozen else Whole(sample, start, model)
        module, groups = feed.module(model, head, options)
        loss = _loss(n_classes, weights.to(start.engine.device))

        def batches(rows: Indices, epoch: int) -> Iterator[tuple[Tensor, ...]]:
            chosen = fold.fit[rows]
            for piece, tensors in feed.pieces(chosen, epoch):
                yield *tensors, targets[chosen[piece]]

        def validate(current: nn.Module) -> Tensor:
            rows = share(fold.validation, start.engine)
            if not len(rows):
                return torch.zeros(0)
            predicted = torch.from_numpy(feed.outputs(current, rows)).float()
            return finetuning.losses(predicted, targets[rows], n_classes, weights)

        module, curves = fit_with_early_stopping(
            module,
            groups,
            len(fold.fit),
            batches,
            loss,
            validate,
            options.stopping,
            start.engine,
            note=start.progress.note,
        )
    if start.writes:
        names = list(curves[0])
        files.write_tsv(folder / "curves.tsv", names, [[r[k] for r in curves] for k in names])
        provenance = _head_provenance(start, sample, target, fold, mean, scale)
        save_head(folder, feed.head(module), provenance)
        if not options.frozen:
            save_checkpoint(folder, model.network, provenance)
    tested = in_shares(
        lambda rows: list(feed.outputs(module, np.array(rows))), fold.test.tolist(), start.engine
    )
    return finetuning.predictions(np.stack(tested), n_classes, mean, scale)


def _loss(n_classes: int, weights: Tensor) -> LossesOf:
    def loss(module: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        *inputs, targets = tensors
        return finetuning.losses(module(*inputs).float(), targets, n_classes, weights)

    return loss


def _head_provenance(
    start: Start, sample: Sample, target: Target, fold: Fold, mean: float, scale: float
) -> dict[str, Any]:
    options = start.options
    return {
        "Target": target.name,
        "Classes": list(target.classes),
        "TargetMean": mean,
        "TargetScale": scale,
        "Pooling": options.pooling,
        "Dropout": options.dropout,
        "Frozen": options.frozen,
        "Series": options.series,
        "Unit": target.unit,
        **start.origin(),
        "RandomSeed": options.seed,
        "Fitted": [name for k in fold.fit for name in sample.names[k]],
        "Validation": [name for k in fold.validation for name in sample.names[k]],
        "Test": [name for k in fold.test for name in sample.names[k]],
        "GeneratedBy": {"Name": "brainlm-bids", "Version": __version__},
        "Warnings": start.warnings(),
    }
