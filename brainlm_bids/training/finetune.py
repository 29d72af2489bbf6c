"""`brainlm finetune --target`: fit a head to a variable, and compare it with other predictors.

In each fold, the head (and the encoder) are fitted to some subjects, validation subjects stop the
fit, and it is tested on subjects that had no part in it. Three other predictors are tested on the
same folds: a linear probe of the embedding before fine-tuning, connectivity, and the mean or the
class shares of the training recordings.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainlm_bids import __version__, files
from brainlm_bids.bids.participants import Variables, read_variables
from brainlm_bids.cohort.coding import NUMBER, in_words, split_kind
from brainlm_bids.cohort.decoding import fisher_z, linear_predictions
from brainlm_bids.cohort.variables import Target, coding, make_target
from brainlm_bids.errors import UserError
from brainlm_bids.model.embedding import embed
from brainlm_bids.resources import parcels
from brainlm_bids.settings import configuration_hash
from brainlm_bids.training import prediction_head as finetuning
from brainlm_bids.training.early_stopping import LossesOf, fit_with_early_stopping
from brainlm_bids.training.finetune_feeds import Frozen, Sample, Whole
from brainlm_bids.training.finetune_start import FinetuneOptions, Start, begin, usable
from brainlm_bids.training.finetune_tables import PREDICTORS, write_tables
from brainlm_bids.training.heads import save_head
from brainlm_bids.training.prediction_head import PredictionHead
from brainlm_bids.training.processes import in_shares, share
from brainlm_bids.training.saving import save_checkpoint
from brainlm_bids.training.split import Fold

NOTHING = np.zeros(0, dtype=np.float32)
Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def finetune(options: FinetuneOptions) -> int:
    """Fine-tune for all targets.

    Parameters
    ----------
    options
        The options of the command.

    Returns
    -------
    int
        0, or 1 if a target failed.

    Raises
    ------
    UserError
        For data or options that cannot be used.
    """
    return _all_targets(begin(options))


# --- targets ---------------------------------------------------------------------------------


def _all_targets(start: Start) -> int:
    options, store = start.options, start.store
    places, left_out = usable(start, 20)
    found = _variables(options, [store.recordings[k].name for k in places])
    columns = found.columns
    asked = dict((name, None) if name in columns else split_kind(name) for name in options.target)
    unknown = next((name for name in asked if name not in columns), None)
    if unknown:
        known = ", ".join(columns) or "none"
        raise UserError(f"--target {unknown}: no such column; the columns are: {known}")
    sample = _sample(start, places)
    problems = []
    for name, kind in asked.items():
        kind = kind or (NUMBER if name in found.measured else None)
        try:
            levels = found.levels.get(name, ())
            target = make_target(name, columns[name], sample.subjects, kind=kind, levels=levels)
            for line in (in_words(coding(target)), *target.notes) if start.writes else ():
                print(f"brainlm: {name}: {line}", file=sys.stderr)
            _fit_target(start, sample, target, left_out)
        except UserError as error:
            if start.engine.num_processes > 1:
                raise  # other processes may be waiting for this one
            problems.append(str(error))
    if len(problems) == len(asked):
        raise UserError("; ".join(problems))
    for problem in problems:
        print(f"brainlm: failed: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _variables(options: FinetuneOptions, names: Sequence[str]) -> Variables:
    """Columns of participants.tsv and the phenotype file, a value per recording."""
    folder = options.bids_dir or _raw_folder(options.data)
    if folder is None and options.phenotype is None:
        raise UserError(
            f"{options.data}: does not record where participants.tsv is; give --bids-dir or "
            "--phenotype"
        )
    if folder is not None and not (folder / "participants.tsv").is_file() and not options.phenotype:
        raise UserError(f"{folder}: has no participants.tsv; give --bids-dir or --phenotype")
    table = read_variables(folder, options.phenotype, names)
    for warning in table.notices:
        print(f"brainlm: {warning.text}", file=sys.stderr)
    return table


def _raw_folder(data: Path) -> Path | None:
    """Folder of the raw data, as recorded in the output folder."""
    try:
        link = files.read_json(data / "dataset_description.json")["DatasetLinks"]["raw"]
    except (UserError, KeyError, TypeError):
        return None
    from urllib.parse import unquote, urlparse

    return Path(unquote(urlparse(str(link)).path))


def _sample(start: Start, places: list[int]) -> Sample:
    """Embed every recording with the model before fine-tuning, and compute its connectivity."""
    from tqdm import tqdm

    options, store, model = start.options, start.store, start.model()

    def vectors_of(place: int) -> NDArray[np.float32]:
        series = np.array(store.series(place))
        embedding = embed(
            model, series, parcels().xyz, tr=1.0, seed=options.seed, pooling=options.pooling
        )
        return embedding.vectors

    def embed_assigned(assigned: list[int]) -> list[NDArray[np.float32]]:
        quiet = None if start.writes else True
        bar = tqdm(assigned, desc="embedding", unit="recording", disable=quiet)
        return [vectors_of(place) for place in bar]

    vectors = in_shares(embed_assigned, places, start.engine)
    # used by the writing process alone
    connectivity = [_connectivity(store.series(k)) if start.writes else NOTHING for k in places]
    rows = [store.recordings[place] for place in places]
    names, subjects = [row.name for row in rows], [row.subject for row in rows]
    return Sample(places, names, subjects, vectors, np.stack(connectivity))


def _connectivity(series: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fisher z of the correlations (pairs,) of a series (T, P)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.corrcoef(np.array(series.T, dtype=np.float64))
    return fisher_z(matrix).astype(np.float32)


def _fit_target(start: Start, sample: Sample, target: Target, left_out: dict[str, str]) -> None:
    """All folds of one target, its tables and its figure."""
    subset = _subset(sample, target.rows)
    folds = start.folds(subset.subjects)
    n_classes = len(target.classes)
    tested = np.concatenate([fold.test for fold in folds])
    folder = start.options.run_dir / _safe(target.name)
    width = 2 if n_classes == 0 else n_classes
    by_predictor = {name: np.full((len(subset.names), width), np.nan) for name in PREDICTORS}
    for number, fold in enumerate(folds, start=1):
        saved = _fold(start, subset, target, fold, folder / f"fold-{number}")
        for name in PREDICTORS:
            by_predictor[name][fold.test] = saved[name]
    if not start.writes:
        return
    curves = [
        {"fold": number, **row}
        for number in range(1, len(folds) + 1)
        for row in files.read_rows(folder / f"fold-{number}" / "curves.tsv")
    ]
    write_tables(start, subset, target, folds, by_predictor, tested, folder, left_out)
    files.write_tsv(
        folder / "curves.tsv", list(curves[0]), [[row[k] for row in curves] for k in curves[0]]
    )
    print(folder / "decoding.tsv")


def _subset(sample: Sample, rows: Indices) -> Sample:
    chosen = rows.tolist()
    return Sample(
        [sample.places[k] for k in chosen],
        [sample.names[k] for k in chosen],
        [sample.subjects[k] for k in chosen],
        [sample.vectors[k] for k in chosen],
        sample.connectivity[chosen],
    )


def _safe(name: str) -> str:
    return "".join(
        character if character.isalnum() or character in "-_" else "-" for character in name
    )


def _fold(
    start: Start, sample: Sample, target: Target, fold: Fold, folder: Path
) -> dict[str, Array]:
    """Predictions of the test rows by all predictors; those of an earlier call, if complete."""
    configuration = _configuration(start, sample, target, fold)
    file = folder / "predictions.npz"
    saved = _saved(file, configuration)
    if saved is not None:
        return saved
    finetuned = _learn_head(start, sample, target, fold, folder)
    if start.writes:
        predictions = _comparison_predictions(start, sample, target, fold)
        if not target.classes:
            finetuned = np.hstack([finetuned, predictions["baseline"][:, 1:]])
        predictions |= {"configuration": np.array(configuration), "finetuned": finetuned}
        with files.atomically(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **predictions)
    start.engine.wait_for_everyone()
    saved = _saved(file, configuration)
    assert saved is not None
    return saved


def _configuration(start: Start, sample: Sample, target: Target, fold: Fold) -> str:
    identity = {
        "version": __version__,
        "store": start.store.sha256,
        "checkpoint": start.resource.sha256,
        "target": [target.name, target.values.tolist(), target.classes],
        "names": sample.names,
        "fold": [part.tolist() for part in (fold.fit, fold.validation, fold.test)],
    }
    return configuration_hash(identity)


def _saved(file: Path, configuration: str) -> dict[str, Array] | None:
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as content:
        if str(content["configuration"]) != configuration:
            return None
        return {name: content[name] for name in PREDICTORS}


def _comparison_predictions(
    start: Start, sample: Sample, target: Target, fold: Fold
) -> dict[str, Array]:
    """Predictions of the test rows by the methods that do not fine-tune the model."""
    n_classes, values = len(target.classes), target.values
    split = (fold.train, fold.test)
    shared = {"n_classes": n_classes, "seed": start.options.seed}
    means = np.stack([vectors.mean(axis=0, dtype=np.float64) for vectors in sample.vectors])
    return {
        "linear_probe": linear_predictions(means, values, sample.subjects, split, **shared),
        "connectivity": linear_predictions(
            sample.connectivity, values, sample.subjects, split, **shared
        ),
        "baseline": _baseline(values[fold.train], len(fold.test), n_classes),
    }


def _baseline(train: Array, n_test: int, n_classes: int) -> Array:
    """The mean of the training rows, twice; or the share of each class."""
    if n_classes == 0:
        return np.full((n_test, 2), train.mean())
    share = np.bincount(train.astype(np.int64), minlength=n_classes) / len(train)
    return np.tile(share, (n_test, 1))


def _learn_head(start: Start, sample: Sample, target: Target, fold: Fold, folder: Path) -> Array:
    """Fit one fold, save it, and predict its test rows: (n_test, 1) or (n_test, C)."""
    options, n_classes = start.options, len(target.classes)
    mean, scale = finetuning.standard(target.values[fold.fit]) if n_classes == 0 else (0.0, 1.0)
    targets = torch.from_numpy(((target.values - mean) / scale).astype(np.float32))
    weights = torch.from_numpy(finetuning.class_weights(target.values[fold.fit], n_classes)).float()
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
            module, groups, len(fold.fit), batches, loss, validate, options.stopping, start.engine
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
        **start.origin(),
        "RandomSeed": options.seed,
        "Fitted": [sample.names[k] for k in fold.fit],
        "Validation": [sample.names[k] for k in fold.validation],
        "Test": [sample.names[k] for k in fold.test],
        "GeneratedBy": {"Name": "brainlm-bids", "Version": __version__},
        "Warnings": start.warnings(),
    }
