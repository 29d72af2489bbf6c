"""The page of `brainlm pretrain`: what was learnt, beside baselines and untrained weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from brainlm_bids.bids.calls import ToolCall
from brainlm_bids.bids.names import GROUP
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.figures.experiments import FIRST_WEIGHTS, PRETRAINED
from brainlm_bids.notices import Kind, notice
from brainlm_bids.report.best import best_rows, decimals
from brainlm_bids.report.clauses import counted
from brainlm_bids.report.figure_files import existing_figures
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.tools.parts import (
    Cell,
    Section,
    Table,
    best_place,
    cell,
    row,
    score,
    warned,
)
from brainlm_bids.report.tools.records import PRETRAIN, Run
from brainlm_bids.report.values import Fact, Row, as_float, number, read_json, read_tsv
from brainlm_bids.resources import WEIGHTS_LICENCE

LEAD = (
    "The network sees a window of 200 volumes in which some tokens are masked, and predicts their "
    "values. R² of the masked values is given for validation subjects after every epoch, and for "
    "test subjects at the end; no subject is in two sets."
)
NO_INTERVAL = "These comparisons have no interval: one training, on the windows of the baselines."
_BASELINES = {name: label for name, (label, *_) in PRETRAINED.items() if name != "compared"}


def sections(run: Run) -> list[Section]:
    """The training, its data and its network.

    Parameters
    ----------
    run
        The folder.
    """
    curves, test = read_tsv(run.folder / "curves.tsv"), read_tsv(run.folder / "test.tsv")
    start = {one["weights"]: one for one in read_tsv(run.folder / "start.tsv")}
    naming = Naming(str(run.folder), GROUP, "", "")
    training = Section(
        "Training",
        "training",
        LEAD,
        [where_it_stands(run, curves, test), *claims(curves, start, test)],
        warned(_warnings(run)),
        _facts(run, curves),
        [one for part in existing_figures(naming, PRETRAIN).values() for one in part],
    )
    if curves:
        training.tables = [_compared_table(curves, start, test), _curves_table(curves)]
        training.notes = [NO_INTERVAL]
    if len(run.calls) > 1:
        training.tables.append(_resumed_table(run))
    return [training, _data(run), _network(run)]


def best_row(curves: Sequence[Row]) -> Row | None:
    """The epoch with the smallest validation error, whose weights are `best`.

    Parameters
    ----------
    curves
        A row per epoch.
    """
    place = best_place([as_float(one["validation_mse"]) for one in curves], smallest=True)
    return None if place is None else curves[place]


def where_it_stands(run: Run, curves: Sequence[Row], test: Sequence[Row]) -> str:
    """Whether the training is complete, and where it stopped otherwise.

    Parameters
    ----------
    run
        The folder.
    curves
        A row per epoch.
    test
        The scores of the test subjects, which are written last.
    """
    epochs = int(as_float(run.parameters.get("epochs")) or 0)
    done = int(as_float(curves[-1]["epoch"]) or 0) if curves else 0
    if epochs and done >= epochs:
        text = f"The training is complete: {counted(done, 'epoch')}"
        if test:
            return f"{text}, and the best checkpoint was scored on the test subjects."
        return f"{text}; there is no score of test subjects."
    step, of = _last_step(run)
    if step is None and not done:
        return "No checkpoint has been saved yet."
    where = f" (step {step} of {of})" if step is not None and of else ""
    return (
        f"The training is not complete: {done} of {counted(epochs, 'epoch')}{where}. What is "
        "compared below may change as it continues."
    )


def _last_step(run: Run) -> tuple[int | None, int | None]:
    """The last step that was saved, and the number of steps."""
    saved = as_float(read_json(run.folder / "last" / "training.json").get("Step"))
    of = as_float(run.last.facts.get("Steps")) if run.last else None
    return (None if saved is None else int(saved)), (None if of is None else int(of))


def claims(curves: Sequence[Row], start: Mapping[str, Row], test: Sequence[Row]) -> list[str]:
    """Sentences on the best checkpoint: baselines, first weights, course, test subjects.

    Parameters
    ----------
    curves
        A row per epoch.
    start
        Scores of the first weights, by "start" and "untrained".
    test
        The row of the test subjects, if there is one.
    """
    best = best_row(curves)
    if best is None:
        return ["No epoch is complete: nothing is concluded."]
    sentences = [
        f"The smallest validation error is that of epoch {best['epoch']}: R² of the masked values "
        f"is {decimals(as_float(best['validation_r2']))} in validation subjects."
    ]
    sentences += _against_baselines(best, "On the validation windows of the baselines")
    sentences += _against_first(best, start)
    sentences.append(_course(curves, best))
    if test:
        sentences.append(
            f"In test subjects its R² is {decimals(as_float(test[0]['r2']))} "
            f"({counted(int(as_float(test[0]['windows']) or 0), 'window')})."
        )
        sentences += _against_baselines(test[0], "On the test windows of the baselines")
    return sentences


def _against_baselines(scores: Row, where: str) -> list[str]:
    own = as_float(scores.get("compared_r2"))
    known = {name: as_float(scores.get(f"{name}_r2")) for name in _BASELINES}
    place = best_place(list(known.values()))
    if own is None or place is None:
        return [f"{where}: none were computed, so what the network adds to them is not known."]
    name = list(known)[place]
    value = known[name]
    assert value is not None
    if decimals(own) == decimals(value):
        relation = "as good as"
    else:
        relation = "better than" if own > value else "worse than"
    return [
        f"{where}, the network (R² {decimals(own)}) is {relation} the best of them, "
        f"{_BASELINES[name]} ({decimals(value)})."
    ]


def _against_first(best: Row, start: Mapping[str, Row]) -> list[str]:
    own, sentences = as_float(best["validation_r2"]), []
    for name, label in FIRST_WEIGHTS.items():
        other = as_float(start[name]["r2"]) if name in start else None
        if own is None or other is None:
            continue
        if decimals(own) == decimals(other):
            relation = "equal to"
        else:
            relation = "above" if own > other else "below"
        sentences.append(
            f"On all validation windows its R² ({decimals(own)}) is {relation} that of {label} "
            f"({decimals(other)})."
        )
    if not sentences:
        return ["The weights at the start were not scored, which earlier versions did not do."]
    return sentences


def _course(curves: Sequence[Row], best: Row) -> str:
    if len(curves) < 2:
        return "One epoch shows no course."
    if best is curves[-1]:
        return "The last epoch is the best one: more epochs may improve it."
    after = len(curves) - 1 - list(curves).index(best)
    return f"{counted(after, 'epoch')} after the best one did not improve it."


def _facts(run: Run, curves: Sequence[Row]) -> list[Fact]:
    parameters = run.parameters
    facts = [
        Fact("Epochs", str(len(curves)), f"of {parameters.get('epochs')}"),
        Fact("Peak learning rate", number(parameters.get("learning_rate"), 3)),
        Fact("Batch", str(parameters.get("batch")), "windows per step, at most"),
        Fact("Continued", str(sum(_continued(call) for call in run.calls)), "times"),
    ]
    speeds = [v for one in curves if (v := as_float(one.get("windows_per_second"))) is not None]
    if speeds:
        facts.append(Fact("Windows per second", number(sum(speeds) / len(speeds), 3), "mean"))
    waiting = [as_float(one.get("seconds_waiting")) or 0.0 for one in curves]
    if waiting:
        facts.append(Fact("Waiting for data", f"{number(sum(waiting), 3)} s", "in all epochs"))
    return facts


def _continued(call: ToolCall) -> bool:
    """Whether a call went on with a training that another had begun."""
    start, steps = (as_float(call.facts.get(key)) or 0.0 for key in ("FromStep", "Steps"))
    return 0 < start < steps


def _warnings(run: Run) -> list[Any]:
    started = mapping(run.record.get("StartedFrom"))
    if started.get("Licence") != WEIGHTS_LICENCE:
        return []
    text = f"Made from weights under {WEIGHTS_LICENCE}: adapted weights must not be shared."
    return [notice(Kind.RESTRICTED_LICENCE, text)]


def _compared_table(curves: Sequence[Row], start: Mapping[str, Row], test: Sequence[Row]) -> Table:
    """R² of network, first weights and baselines on the same windows."""
    best = best_row(curves)
    assert best is not None
    tested = test[0] if test else {}
    lines: list[tuple[str, str, object, object]] = [
        (
            f"network, epoch {best['epoch']}",
            "model",
            best.get("compared_r2"),
            tested.get("compared_r2"),
        )
    ]
    lines += [
        (label, "control", start[name].get("compared_r2"), None)
        for name, label in FIRST_WEIGHTS.items()
        if name in start
    ]
    lines += [
        (label, "baseline", best.get(f"{name}_r2"), tested.get(f"{name}_r2"))
        for name, label in _BASELINES.items()
    ]
    best_ones = best_rows([as_float(line[2]) for line in lines])
    rows = tuple(
        row([Cell(name), Cell(role), score(valid), score(tested_r2)], best=k in best_ones)
        for k, (name, role, valid, tested_r2) in enumerate(lines)
    )
    header = ("Predictor", "Role", "R² in validation", "R² in test")
    caption = (
        "R² of masked values on the windows of the baselines. The largest one in validation "
        "subjects is marked."
    )
    return Table(caption, header, rows)


def _curves_table(curves: Sequence[Row]) -> Table:
    columns = {
        "epoch": "Epoch",
        "step": "Step",
        "learning_rate": "Learning rate",
        "train_loss": "Training loss",
        "validation_loss": "Validation loss",
        "validation_r2": "Validation R²",
        "compared_r2": "R², windows of the baselines",
        "gradient_norm": "Gradient norm",
        "windows_per_second": "Windows per second",
        "seconds_waiting": "Seconds waiting",
    }
    best = best_row(curves)
    rows = tuple(
        row([cell(one.get(name), 4) for name in columns], best=one is best) for one in curves
    )
    caption = "Every epoch. The one with the smallest validation error is marked."
    return Table(caption, tuple(columns.values()), rows, folded=True)


def _resumed_table(run: Run) -> Table:
    rows = tuple(
        row(
            [
                cell(k),
                Cell(call.started),
                cell(call.facts.get("FromStep")),
                cell(call.facts.get("ToStep")),
                Cell(f"{call.outcome} {call.reason}".strip() or "no end is recorded"),
            ]
        )
        for k, call in enumerate(run.calls, start=1)
    )
    header = ("Call", "Started", "From step", "To step", "How it ended")
    return Table("Where the training was continued.", header, rows)


def _data(run: Run) -> Section:
    split = Counter(one.get("split", "") for one in read_tsv(run.folder / "split.tsv"))
    recordings = read_tsv(run.folder / "recordings.tsv")
    out = [one for one in recordings if one.get("used", "yes") == "no"]
    facts = [
        Fact("Training subjects", str(split["train"])),
        Fact("Validation subjects", str(split["validation"])),
        Fact("Test subjects", str(split["test"])),
        Fact("Recordings", str(len(recordings) - len(out)), f"{len(out)} left out"),
    ]
    section = Section("Data", "data", facts=facts)
    if out:
        rows = tuple(
            row([Cell(one.get("recording", "")), Cell(one.get("reason", ""))]) for one in out
        )
        section.tables = [Table("Left out.", ("Recording", "Reason"), rows, folded=True)]
    return section


def _network(run: Run) -> Section:
    started = mapping(run.record.get("StartedFrom"))
    rows = [
        ("Started from", str(started.get("Source", "n/a"))),
        ("SHA-256", str(started.get("Sha256") or "none: untrained weights")),
        ("Licence", str(started.get("Licence", "n/a"))),
        ("SHA-256 of the series", str(mapping(run.record.get("Store")).get("Sha256", "n/a"))),
    ]
    rows += [(str(k), str(v)) for k, v in sorted(mapping(run.record.get("Network")).items())]
    table = Table(
        "What the training began with, and the configuration of the network.",
        ("Field", "Value"),
        tuple(row([Cell(name), Cell(value)]) for name, value in rows),
        folded=True,
    )
    return Section("Network", "network", tables=[table])
