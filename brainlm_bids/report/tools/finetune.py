"""The page of `brainlm finetune`: held-out scores beside frozen readouts, baselines and chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from brainlm_bids.bids.names import GROUP
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.coding import in_words
from brainlm_bids.cohort.sources import (
    BASELINE,
    FINETUNED,
    MEAN_OF_TRAINING,
    Source,
    by_name,
    default_of,
)
from brainlm_bids.report.best import best_rows, decimals, p_value
from brainlm_bids.report.clauses import counted, span
from brainlm_bids.report.figure_files import FigureFile, existing_figures
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.tools import horizons
from brainlm_bids.report.tools.models import models_section, warnings_of
from brainlm_bids.report.tools.parts import Cell, Section, Table, best_place, cell, row, score
from brainlm_bids.report.tools.records import FINETUNE, Run
from brainlm_bids.report.values import Fact, Row, as_float, read_json, read_tsv
from brainlm_bids.report.verdict import Scored, best_of, compare, highest, ranked

SIGNIFICANT = 0.05
NAMES = {
    **{"r2": "R²", "auc": "AUC", "pearson_r": "Pearson r", "mse": "MSE", "mae": "MAE"},
    **{"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy"},
}
LEAD = (
    "A head on BrainLM was fitted to the target in some subjects, stopped by others, and tested on "
    "subjects that had no part in it. What the group level decodes from was tested on the "
    "same folds."
)
FUTURE_LEAD = (
    "BrainLM was fitted to predict the last time patches of a window, and tested on subjects that "
    "had no part in the fit, beside the model before it and the baselines of forecasts."
)


def sections(run: Run) -> list[Section]:
    """A section per target, or one on the future, and one on the model.

    Parameters
    ----------
    run
        The folder.
    """
    future = run.folder / "forecast.tsv"
    if future.is_file():
        parts = [_future(run, future)]
    else:
        tables = sorted(run.folder.glob("*/decoding.tsv"))
        parts = [_target(run, table, f"target-{k}") for k, table in enumerate(tables, start=1)]
    if not parts:
        parts = [Section("Results", "results", claims=["No target has been fitted completely."])]
    return [*parts, models_section(_model(run))]


def _model(run: Run) -> dict[str, Any]:
    """The checkpoint, as the last call recorded it."""
    models = mapping(run.last.facts.get("Models")) if run.last else {}
    if models:
        return dict(models)
    return {str(run.parameters.get("checkpoint")): run.record.get("Checkpoint")}


# --- a target --------------------------------------------------------------------------------


def _target(run: Run, path: Path, anchor: str) -> Section:
    rows, sidecar = read_tsv(path), read_json(path.with_suffix(".json"))
    folds, curves = read_tsv(path.with_name("folds.tsv")), read_tsv(path.with_name("curves.tsv"))
    name = rows[0]["target"] if rows else path.parent.name
    section = Section(
        name,
        anchor,
        LEAD,
        [*claims(rows, sidecar), *by_fold(rows, folds), *learning(curves)],
        warnings_of([sidecar]),
        _facts(rows, sidecar),
        _figures(run, path.parent),
    )
    section.tables = [_scores(rows, sidecar)]
    if folds:
        section.tables.append(_fold_table(folds))
    if curves:
        section.tables.append(_learning_table(curves))
    section.tables += _left_out(sidecar)
    section.notes = _notes(sidecar)
    return section


def claims(rows: Sequence[Row], sidecar: Mapping[str, Any]) -> list[str]:
    """Sentences on a target: chance, the frozen readout, baselines, controls, the largest score.

    Parameters
    ----------
    rows
        Of the table of decodings.
    sidecar
        Its sidecar.
    """
    compared = mapping(sidecar.get("Comparisons"))
    scores, metric = ranked(rows, compared)
    own = next((one for one in scores if one.source in FINETUNED), None)
    if own is None or own.value is None:
        return ["The fine-tuned model has no score: nothing is concluded."]
    name = NAMES[metric]
    sentences = [_chance(own, name)]
    others = [one for one in scores if one.source not in FINETUNED]
    default = default_of([one.source for one in others])
    frozen = next((one for one in others if one.source == default), None)
    kinds = {
        "the unchanged model with the default readout": frozen,
        "the best baseline": _first_best(others, lambda one: one.role == BASELINE),
        "the best untrained network": _first_best(others, lambda one: one.features == "untrained"),
        "a predictor without information": next(
            (one for one in others if one.source == MEAN_OF_TRAINING), None
        ),
    }
    for what, other in kinds.items():
        if other is not None and other.value is not None:
            verdict, numbers = compare(own, other, mapping(compared.get(other.source.name)))
            sentences.append(f"It is {verdict} {what}: {other.source.label} ({numbers}).")
    return sentences + highest(own, scores, name)


def _first_best(scores: Sequence[Scored], wanted: Callable[[Source], bool]) -> Scored | None:
    """The source with the largest score among those of a kind, the first of equal ones."""
    return next(iter(best_of([one for one in scores if wanted(one.source)])), None)


def _chance(own: Scored, metric: str) -> str:
    low, high = (decimals(as_float(own.row.get(side))) for side in ("low", "high"))
    text = f"The fine-tuned model has a held-out {metric} of {decimals(own.value)} [{low}, {high}]"
    p = as_float(own.row.get("permutation_p"))
    if p is None:
        return f"{text}; it was not compared with shuffled targets."
    if p < SIGNIFICANT:
        return f"{text}, more than with shuffled targets (p = {p_value(p)})."
    return (
        f"{text}, not more than with shuffled targets (p = {p_value(p)}, not below "
        f"{SIGNIFICANT:g})."
    )


def by_fold(rows: Sequence[Row], folds: Sequence[Row]) -> list[str]:
    """A sentence on how the scores vary over the folds.

    Parameters
    ----------
    rows
        Of the table of decodings.
    folds
        Of the table of scores by fold; none in folders of earlier versions.
    """
    metric = "balanced_accuracy" if any(r["type"] == "classification" for r in rows) else "mae"
    names = [one.name for one in FINETUNED]
    own = {
        r["fold"]: as_float(r["value"])
        for r in folds
        if r["source"] in names and r["metric"] == metric
    }
    none = {
        r["fold"]: as_float(r["value"])
        for r in folds
        if r["source"] == MEAN_OF_TRAINING.name and r["metric"] == metric
    }
    known = {k: v for k, v in own.items() if v is not None and none.get(k) is not None}
    if len(known) < 2:
        return []
    sign = -1 if metric == "mae" else 1
    better = sum(sign * v > sign * _known(none[k]) for k, v in known.items())
    return [
        f"{NAMES[metric]} of the {len(known)} test folds is {span(known.values(), digits=3)}; it "
        f"is better than that of the training's mean or class shares in {better} of them."
    ]


def _known(value: float | None) -> float:
    assert value is not None
    return value


def learning(curves: Sequence[Row]) -> list[str]:
    """A sentence on whether anything was learnt, by the validation losses.

    Parameters
    ----------
    curves
        Losses of every fold and epoch; epoch 0 is before the first step.
    """
    lines = _best_epochs(curves)
    if not lines:
        return []
    learnt = sum(int(line["best"]) > 0 for line in lines)
    text = (
        f"In {learnt} of {counted(len(lines), 'fold')} the validation loss fell below that before "
        "the first step"
    )
    if learnt < len(lines):
        text += "; in the others the weights of the start were kept"
    return [f"{text}."]


def _best_epochs(curves: Sequence[Row]) -> list[dict[str, Any]]:
    """For each fold: epochs trained, the best one, and the losses."""
    lines = []
    for fold in dict.fromkeys(one["fold"] for one in curves):
        table = [one for one in curves if one["fold"] == fold]
        losses = [as_float(one["validation_loss"]) for one in table]
        place = best_place(losses, smallest=True)
        if place is None:
            continue
        lines.append(
            {
                "fold": fold,
                "trained": int(table[-1]["epoch"]),
                "best": int(table[place]["epoch"]),
                "first": losses[0],
                "least": losses[place],
            }
        )
    return lines


def _scores(rows: Sequence[Row], sidecar: Mapping[str, Any]) -> Table:
    scores, metric = ranked(rows, mapping(sidecar.get("Comparisons")))
    best = best_rows([one.value for one in scores])
    default = sidecar.get("DefaultReadout")
    metrics = [name for name in NAMES if any(one["metric"] == name for one in rows)]
    found: dict[tuple[str, str, str], dict[str, Row]] = {}
    for one in rows:
        key = one["features"], one["readout"], one["scaling"]
        found.setdefault(key, {})[one["metric"]] = one
    lines = []
    for place, scored in enumerate(scores):
        mine = found[scored.source[:3]]
        note = " (default readout)" if scored.source.name == default else ""
        shown = [score(mine[name]["value"] if name in mine else None) for name in metrics]
        lines.append(
            row(
                [
                    Cell(scored.source.label + note),
                    Cell(scored.source.role),
                    *shown,
                    *(score(scored.row.get(key)) for key in ("low", "high")),
                    cell(scored.row.get("permutation_p")),
                ],
                best=place in best,
            )
        )
    header = (
        *("Predictor", "Role", *(NAMES[name] for name in metrics)),
        *(f"{NAMES[metric]} low", f"{NAMES[metric]} high", "p"),
    )
    caption = (
        f"Scores in held-out subjects; low and high are the 95 % interval over subjects. The "
        f"largest {NAMES[metric]} is marked."
    )
    return Table(caption, header, tuple(lines))


def _fold_table(folds: Sequence[Row]) -> Table:
    metrics = list(dict.fromkeys(one["metric"] for one in folds))
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for one in folds:
        groups.setdefault((one["fold"], one["source"]), {})[one["metric"]] = one
    lines = []
    for (fold, source), mine in groups.items():
        first = next(iter(mine.values()))
        counts = (cell(first.get(key)) for key in ("n_fitted", "n_validation", "n_test"))
        values = (cell(mine[m]["value"] if m in mine else None) for m in metrics)
        lines.append(row([cell(fold), Cell(_label(source)), *counts, *values]))
    header = ("Fold", "Predictor", "Fitted", "Validation", "Test", *(NAMES[m] for m in metrics))
    return Table(
        "Scores by fold, in units of what is predicted.", header, tuple(lines), folded=True
    )


def _label(source: str) -> str:
    try:
        return by_name(source).label
    except StopIteration:
        return source.replace("_", " ")


def _learning_table(curves: Sequence[Row]) -> Table:
    lines = [row([cell(value, 4) for value in line.values()]) for line in _best_epochs(curves)]
    header = ("Fold", "Epochs", "Best epoch", "Loss before", "Smallest loss")
    caption = "Validation loss; the weights of the best epoch were kept."
    return Table(caption, header, tuple(lines), folded=True)


def _facts(rows: Sequence[Row], sidecar: Mapping[str, Any]) -> list[Fact]:
    if not rows:
        return []
    first = rows[0]
    return [
        Fact("Task", first["type"], _coded(mapping(sidecar.get("Coding")))),
        Fact("Participants", first["n_subjects"]),
        Fact("Recordings", first["n_recordings"]),
        Fact("Folds", first["n_folds"]),
        Fact("Predicted once per", str(sidecar.get("Units", "n/a"))),
        Fact("Trained", "head only" if sidecar.get("Frozen") else "encoder and head"),
        Fact("Series", str(sidecar.get("Series", "n/a"))),
    ]


def _coded(coding: Mapping[str, Any]) -> str:
    return in_words(coding) if {"Kind", "Missing"} <= coding.keys() else ""


def _notes(sidecar: Mapping[str, Any]) -> list[str]:
    return [f"{str(note).rstrip('.')}." for note in sidecar.get("Notes") or []]


def _left_out(sidecar: Mapping[str, Any]) -> list[Table]:
    """What is not in the results, with the reasons; none if nothing is missing."""
    rows = [
        row([Cell(what), Cell(str(name)), Cell(str(reason))])
        for key, what in (("NotDecoded", "predictor"), ("LeftOut", "recording"))
        for name, reason in mapping(sidecar.get(key)).items()
    ]
    header = ("What", "Name", "Reason")
    caption = "What is not in the results, and why."
    return [Table(caption, header, tuple(rows), folded=True)] if rows else []


def _figures(run: Run, folder: Path) -> list[FigureFile]:
    """Figures of a folder inside that of the run, with paths as seen from the page."""
    naming = Naming(str(folder), GROUP, "", "")
    above = folder.relative_to(run.folder).as_posix()
    found = [one for part in existing_figures(naming, FINETUNE).values() for one in part]
    if above == ".":
        return found
    return [replace(one, path=f"{above}/{one.path}") for one in found]


# --- the future ------------------------------------------------------------------------------


def _future(run: Run, path: Path) -> Section:
    models = {"after": "the fine-tuned model", "before": "the model before fine-tuning"}
    errors, gains = read_tsv(path), read_tsv(path.with_name("comparisons.tsv"))
    sidecar = read_json(path.with_suffix(".json"))
    by_tr = horizons.by_repetition_time(errors, gains, models)
    sentences = [
        " ".join([*horizons.claims(part, "after"), *_against_before(part)]) for part in by_tr
    ]
    first = errors[0] if errors else {}
    section = Section(
        "Prediction of the future",
        "future",
        FUTURE_LEAD,
        sentences,
        warnings_of([sidecar]),
        [
            Fact("Participants", first.get("n_subjects", "n/a")),
            Fact("Recordings", first.get("n_recordings", "n/a")),
            Fact("Folds", str(sidecar.get("Folds", "n/a"))),
            Fact("Samples predicted", str(sidecar.get("SamplesPredicted", "n/a"))),
        ],
        _figures(run, run.folder),
        [table for part in by_tr for table in horizons.tables(part)],
    )
    section.tables += _left_out(sidecar)
    return section


def _against_before(part: horizons.Horizons) -> list[str]:
    gain = part.gain("after", "before")
    if gain is None or part.n_subjects < 2:
        return []
    return [f"It is {gain.verdict} {part.label('before')} ({gain.words})."]
