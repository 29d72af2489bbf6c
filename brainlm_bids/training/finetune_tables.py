"""Tables and figure of one fine-tuned target: scores, predictions and their record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.cohort.decoding import score
from brainlm_bids.cohort.permutations import within_fold_p
from brainlm_bids.cohort.variables import Target, coding
from brainlm_bids.training.finetune_feeds import Sample
from brainlm_bids.training.finetune_start import Start
from brainlm_bids.training.split import Fold

PREDICTORS = ("finetuned", "linear_probe", "connectivity", "baseline")
Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def write_tables(
    start: Start,
    sample: Sample,
    target: Target,
    folds: Sequence[Fold],
    by_predictor: dict[str, Array],
    tested: Indices,
    folder: Path,
    left_out: dict[str, str],
) -> None:
    """Write scores, predictions, sidecar and figure of a target.

    Parameters
    ----------
    start
        Model, store and options.
    sample
        The N recordings.
    target
        The target.
    folds
        Folds of the cross-validation.
    by_predictor
        Name of a predictor to its predictions (N, C); NaN in rows that no fold tests.
    tested
        Rows of all test folds.
    folder
        Where the files go.
    left_out
        Name of a recording to the reason why it was not used.
    """
    options, n_classes = start.options, len(target.classes)
    truth = target.values[tested]
    subjects = [sample.subjects[k] for k in tested]
    place = {int(row): k for k, row in enumerate(tested)}
    parts = [np.array([place[int(row)] for row in fold.test]) for fold in folds]
    rows: list[dict[str, Any]] = []
    for name in PREDICTORS:
        predictions = by_predictor[name][tested]
        shared: dict[str, Any] = {"n_classes": n_classes, "seed": options.seed}
        scores = score(truth, predictions, subjects, **shared)
        p = within_fold_p(
            truth, predictions, subjects, parts, n_permutations=options.permutations, **shared
        )
        for metric, value in scores.items():
            rows.append(
                {
                    "target": target.name,
                    "type": "classification" if n_classes else "regression",
                    "predictor": name,
                    "metric": metric,
                    "value": value.value,
                    "low": value.low,
                    "high": value.high,
                    "permutation_p": None if name == "baseline" else p,
                    "n_recordings": len(tested),
                    "n_subjects": len(set(subjects)),
                    "n_folds": len(folds),
                }
            )
    files.write_tsv(
        folder / "decoding.tsv", list(rows[0]), [[row[k] for row in rows] for k in rows[0]]
    )
    _write_predictions(sample, target, folds, by_predictor, folder / "predictions.tsv")
    sidecar = {
        "Description": "Scores of held-out recordings: fine-tuned, a linear probe of the untouched "
        "embedding, connectivity, and the mean or shares of the training recordings",
        "Checkpoint": start.resource.source,
        "Frozen": options.frozen,
        "Classes": list(target.classes),
        "Coding": coding(target),
        "Notes": list(target.notes),
        "LeftOut": left_out,
        "Intervals": "95 % of 1000 bootstrap samples of subjects, predictions kept",
        "PermutationP": "targets shuffled between the subjects of a test fold, predictions kept",
        "Warnings": start.warnings(),
    }
    files.write_json(folder / "decoding.json", sidecar)
    from brainlm_bids.figures.experiments import plot_finetuning

    curves = [files.read_rows(folder / f"fold-{k + 1}" / "curves.tsv") for k in range(len(folds))]
    plot_finetuning(folder / "decoding.png", rows, curves)


def _write_predictions(
    sample: Sample,
    target: Target,
    folds: Sequence[Fold],
    by_predictor: dict[str, Array],
    path: Path,
) -> None:
    """A row per tested recording; for a classification, one per recording and class."""
    rows = []
    for number, fold in enumerate(folds, start=1):
        for row in fold.test:
            value = target.values[row]
            truth = target.classes[int(value)] if target.classes else value
            for column, name in enumerate(target.classes or (None,)):
                rows.append(
                    {
                        "target": target.name,
                        "participant_id": sample.subjects[row],
                        "recording": sample.names[row],
                        "fold": number,
                        "truth": truth,
                        "class": name,
                        **{key: float(by_predictor[key][row, column]) for key in PREDICTORS},
                    }
                )
    files.write_tsv(path, list(rows[0]), [[row[k] for row in rows] for k in rows[0]])
