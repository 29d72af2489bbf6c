"""Tables and figure of one fine-tuned target: scores, predictions and their record."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.bids.names import GROUP, parse, session_id
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.comparison import difference, metric_of
from brainlm_bids.cohort.decoding import Decoded, score
from brainlm_bids.cohort.permutations import within_fold_p
from brainlm_bids.cohort.scores import Score, classification_scores, regression_scores
from brainlm_bids.cohort.sources import (
    DECODING_COLUMNS,
    FINETUNED,
    HEAD,
    MEAN_OF_TRAINING,
    P_VALUES,
    Source,
    default_of,
)
from brainlm_bids.cohort.variables import Target, coding
from brainlm_bids.training.finetune_feeds import Sample
from brainlm_bids.training.finetune_start import Start
from brainlm_bids.training.split import Fold

Array = NDArray[np.float64]


class Results(NamedTuple):
    """What was predicted of one target.

    Attributes
    ----------
    sample, target
        The U units and their values.
    folds
        Of the cross-validation.
    finetuned
        Predictions (U, C) of the fine-tuned model, NaN in units that no fold tests; for a number C
        is 2, and the second column is the mean of the training units.
    compared
        What the other sources predict.
    """

    sample: Sample
    target: Target
    folds: Sequence[Fold]
    finetuned: Array
    compared: Mapping[Source, Decoded]

    @property
    def tested(self) -> NDArray[np.int64]:
        """The units of all test folds."""
        return np.concatenate([fold.test for fold in self.folds])

    @property
    def baseline(self) -> Array:
        """(U, C) the mean of the training units, twice; or the share of each class."""
        values, n_classes = self.target.unit_values, len(self.target.classes)
        found = np.full(self.finetuned.shape, np.nan)
        for fold in self.folds:
            train = values[fold.train]
            counts = np.bincount(train.astype(np.int64), minlength=n_classes) if n_classes else 0
            found[fold.test] = counts / len(train) if n_classes else train.mean()
        return found


def write_tables(
    start: Start,
    results: Results,
    folder: Path,
    left_out: Mapping[str, str],
    problems: Mapping[str, str],
) -> None:
    """Write scores, predictions, sidecar and figure of a target; print the default and the head.

    Parameters
    ----------
    start
        Model, store and options.
    results
        Of the target.
    folder
        Where the files go.
    left_out
        Name of a recording to the reason why it was not used.
    problems
        Label of a source to the reason why it is not in the table.
    """
    head = next(one for one in FINETUNED if one.scaling == start.scaling)
    rows = _rows(start, results, head)
    default = default_of(list(results.compared))
    files.write_tsv(
        folder / "decoding.tsv",
        DECODING_COLUMNS,
        [[row[name] for row in rows] for name in DECODING_COLUMNS],
    )
    _write_predictions(results, head, folder / "predictions.tsv")
    by_fold = _fold_rows(results, head, default)
    files.write_tsv(
        folder / "folds.tsv", list(by_fold[0]), [[row[k] for row in by_fold] for k in by_fold[0]]
    )
    files.write_json(
        folder / "decoding.json",
        _sidecar(start, results, default, left_out, problems) | _comparisons(start, results),
    )
    for row in rows:
        if row["metric"] in ("r2", "auc") and row["source"] in (default, head):
            mark = " (default readout)" if row["source"] == default else ""
            print(
                f"{row['target']}: {row['source'].label}{mark}: {row['metric']} "
                f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            )
    from brainlm_bids.figures.experiments import plot_finetuning

    numbers = range(1, len(results.folds) + 1)
    curves = [files.read_rows(folder / f"fold-{k}" / "curves.tsv") for k in numbers]
    drawn = [
        {**row, "label": row["source"].label, "default": row["source"] == default} for row in rows
    ]
    naming = Naming(str(folder), GROUP, "", "")
    for picture in (folder / "decoding.png", naming.figure("finetune_scores")):
        plot_finetuning(picture, drawn, curves)


def _rows(start: Start, results: Results, head: Source) -> list[dict[str, Any]]:
    """A row per source and metric, with the source itself."""
    target, tested = results.target, results.tested
    subjects = [results.sample.subjects[k] for k in tested]
    shared: dict[str, Any] = {"n_classes": len(target.classes), "seed": start.options.seed}
    truth = target.unit_values[tested]

    def scored(predictions: Array) -> dict[str, Score]:
        return score(truth, predictions[tested], subjects, **shared)

    place = {int(row): k for k, row in enumerate(tested)}
    p = within_fold_p(
        truth,
        results.finetuned[tested],
        subjects,
        [np.array([place[int(row)] for row in fold.test]) for fold in results.folds],
        n_permutations=start.options.permutations,
        **shared,
    )
    found: list[tuple[Source, dict[str, Score], float | None]] = [
        (head, scored(results.finetuned), p),
        *((source, one.scores, one.p) for source, one in results.compared.items()),
        (MEAN_OF_TRAINING, scored(results.baseline), None),
    ]
    return [
        {
            "target": target.name,
            "type": "classification" if target.classes else "regression",
            "source": source,
            "features": source.features,
            "readout": source.readout,
            "scaling": source.scaling,
            "metric": metric,
            "value": value.value,
            "low": value.low,
            "high": value.high,
            "permutation_p": chance,
            "n_recordings": sum(len(target.units[k]) for k in tested),
            "n_subjects": len(set(subjects)),
            "n_folds": len(results.folds),
            "n_repeats": 1,
        }
        for source, scores, chance in found
        for metric, value in scores.items()
    ]


def _comparisons(start: Start, results: Results) -> dict[str, Any]:
    """How much better the fine-tuned model is than each other source, on the same units."""
    target, tested = results.target, results.tested
    others = {source.name: one.predictions for source, one in results.compared.items()}
    others[MEAN_OF_TRAINING.name] = results.baseline
    found: dict[str, Any] = {"Metric": metric_of(len(target.classes))}
    for name, predictions in others.items():
        gain = difference(
            target.unit_values[tested],
            results.finetuned[tested],
            _two_columns(results, predictions)[tested],
            [results.sample.subjects[k] for k in tested],
            n_classes=len(target.classes),
            seed=start.options.seed,
        )
        found[name] = {"Difference": gain.value, "Low": gain.low, "High": gain.high}
    return {"Comparisons": found}


def _two_columns(results: Results, predictions: Array) -> Array:
    """Predictions (U, C) as scores are computed of: those of a number beside the training mean."""
    if results.target.classes:
        return predictions.reshape(len(results.baseline), -1)
    return np.column_stack(
        [predictions.reshape(len(results.baseline), -1)[:, 0], results.baseline[:, 0]]
    )


def _fold_rows(results: Results, head: Source, default: Source | None) -> list[dict[str, Any]]:
    """Scores in the test units of each fold: fine-tuned, default readout, mean of the training."""
    target = results.target
    shown = {head: results.finetuned, MEAN_OF_TRAINING: results.baseline}
    if default is not None:
        shown[default] = _two_columns(results, results.compared[default].predictions)
    measure = classification_scores if target.classes else regression_scores
    rows = []
    for number, fold in enumerate(results.folds, start=1):
        for source, predictions in shown.items():
            scores = measure(target.unit_values[fold.test], predictions[fold.test], None)
            rows += [
                {
                    "fold": number,
                    "source": source.name,
                    "n_fitted": len(fold.fit),
                    "n_validation": len(fold.validation),
                    "n_test": len(fold.test),
                    "metric": metric,
                    "value": value,
                }
                for metric, value in scores.items()
            ]
    return rows


def _sidecar(
    start: Start,
    results: Results,
    default: Source | None,
    left_out: Mapping[str, str],
    problems: Mapping[str, str],
) -> dict[str, Any]:
    options, target = start.options, results.target
    kinds = dict.fromkeys([HEAD, *(source.kind for source in results.compared)])
    return {
        "Description": "Scores of held-out subjects: the fine-tuned model, and what the group "
        "level decodes from on the same folds",
        "Checkpoint": start.resource.source,
        "Frozen": options.frozen,
        "Series": options.series,
        "DefaultReadout": None if default is None else default.name,
        "Units": target.unit,
        "Classes": list(target.classes),
        "Coding": coding(target),
        "Notes": list(target.notes),
        "LeftOut": left_out,
        "NotDecoded": problems,
        "Intervals": "95 % of 1000 bootstrap samples of subjects, predictions kept",
        "PermutationP": {kind: P_VALUES[kind] for kind in kinds},
        "RandomSeed": options.seed,
        "Warnings": start.warnings(),
    }


def _write_predictions(results: Results, head: Source, path: Path) -> None:
    """A row per tested unit; for a classification, one per unit and class."""
    target, sample = results.target, results.sample
    n_columns = len(target.classes) or 1
    guesses = {
        head.name: results.finetuned,
        **{
            source.name: one.predictions.reshape(-1, n_columns)
            for source, one in results.compared.items()
        },
        MEAN_OF_TRAINING.name: results.baseline,
    }
    rows = []
    for number, fold in enumerate(results.folds, start=1):
        for unit in fold.test:
            value = target.unit_values[unit]
            names = sample.names[unit]
            sessions = {session_id(parse(name).entities) for name in names}
            session = sessions.pop() if len(sessions) == 1 else None
            for column, word in enumerate(target.classes or (None,)):
                rows.append(
                    {
                        "target": target.name,
                        "unit": target.unit,
                        "participant_id": sample.subjects[unit],
                        "session_id": session,
                        "n_recordings": len(names),
                        "recordings": ",".join(names),
                        "fold": number,
                        "truth": target.classes[int(value)] if target.classes else value,
                        "class": word,
                        **{key: float(guess[unit, column]) for key, guess in guesses.items()},
                    }
                )
    files.write_tsv(path, list(rows[0]), [[row[k] for row in rows] for k in rows[0]])
