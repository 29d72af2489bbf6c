"""`brainlm finetune --future`: a checkpoint before and after it was fitted to predict the future.

It is tested on subjects that had no part in the fit, beside the baselines of `brainlm forecast`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import __version__, files
from brainlm_bids.bids.names import GROUP, parse
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.experiments.forecast import ERROR_COLUMNS, ForecastOptions
from brainlm_bids.experiments.horizons import (
    KNOWLEDGE,
    UNITS,
    Errors,
    baseline_errors,
    compared_errors,
    cut,
    error_rows,
    mean_errors,
    model_errors,
    predicted,
)
from brainlm_bids.messages import tell
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.model.future import patches_span
from brainlm_bids.model.past import origins_of, smoothness_warnings
from brainlm_bids.notices import Notice, to_json
from brainlm_bids.progress import Step
from brainlm_bids.report.tools.page import reported
from brainlm_bids.settings import configuration_hash
from brainlm_bids.training.finetune_start import FinetuneOptions, Start, begin, usable
from brainlm_bids.training.future import course_of, fit_future, volumes_needed
from brainlm_bids.training.processes import in_shares
from brainlm_bids.training.saving import save_checkpoint
from brainlm_bids.training.split import Fold

BEFORE, AFTER = "before", "after"
LOOKED_AT = 10  # recordings whose smoothness is checked
Indices = NDArray[np.int64]


def finetune_future(options: FinetuneOptions, command: Sequence[str] = ()) -> int:
    """Fit, test and save every fold; write tables and a figure over all tested recordings.

    Parameters
    ----------
    options
        The options of the command.
    command
        The words of the command line, for the page; none for a call from Python.

    Returns
    -------
    int
        0.

    Raises
    ------
    UserError
        For data or options that cannot be used.
    """
    start = begin(options)
    if not start.writes:
        with start.progress:
            return _all_folds(start)
    models = start.models()
    with reported(options.run_dir, "finetune", command, Models=models), start.progress:
        return _all_folds(start)


def _all_folds(start: Start) -> int:
    options, store = start.options, start.store
    model = start.model()
    assert options.future is not None
    hidden, seen = patches_span(model, options.future)
    places, left_out = usable(start, lambda place: volumes_needed(start, place, hidden, seen))
    smooth = _smooth(start, places)
    subjects = [store.recordings[place].subject for place in places]
    folds = start.folds(subjects)
    rows: list[dict[str, Any]] = []
    numbers = range(1, len(folds) + 1)
    titles = {f"fold {number}": f"fold {number} of {len(folds)}" for number in numbers}
    start.progress.expect({key: Step(title, "fold") for key, title in titles.items()})
    for number, fold in zip(numbers, folds):
        folder = options.run_dir / f"fold-{number}"
        with start.progress.step(f"fold {number}"):
            rows += _fold(start, np.array(places), fold, folder, hidden, seen)
    if start.writes:
        _summarise(start, rows, len(folds), hidden, left_out, smooth)
    return 0


def _smooth(start: Start, places: Sequence[int]) -> list[Notice]:
    """Warn if one of the first recordings looks resampled or low-pass filtered."""
    for place in places[:LOOKED_AT]:
        found = smoothness_warnings(course_of(start, place).series)
        if found and start.writes:
            name = start.store.recordings[place].name
            tell(f"brainlm: {name}: {found[0].text}")
        if found:
            return found
    return []


def _fold(
    start: Start, places: Indices, fold: Fold, folder: Path, hidden: int, seen: int
) -> list[dict[str, Any]]:
    """Errors of the tested recordings, a row per recording, predictor and horizon."""
    store = start.store
    names = [[store.recordings[places[k]].name for k in part] for part in (fold.train, fold.test)]
    identity = {
        "version": __version__,
        "store": store.sha256,
        "checkpoint": start.resource.sha256,
        "names": names,
        "fold": [part.tolist() for part in (fold.fit, fold.validation, fold.test)],
    }
    configuration = configuration_hash(identity)
    table = folder / "errors.tsv"
    note = folder / "errors.json"
    # errors.json is written last
    if note.is_file() and files.read_json(note)["Configuration"] == configuration:
        return list(files.read_rows(table))
    model, curves = fit_future(start, places, fold, hidden, seen)
    about = {
        "Configuration": configuration,
        "Task": f"prediction of the last {start.options.future} time patches ({hidden} samples)",
        **start.origin(),
        "Frozen": start.options.frozen,
        "RandomSeed": start.options.seed,
        "Train": names[0],
        "Test": names[1],
        "GeneratedBy": {"Name": "brainlm-bids", "Version": __version__},
        "Warnings": start.warnings(),
    }
    if start.writes:
        columns = list(curves[0])
        files.write_tsv(folder / "curves.tsv", columns, [[r[k] for r in curves] for k in columns])
        save_checkpoint(folder / "checkpoint", model.network, about)
    start.engine.wait_for_everyone()
    device = "cuda" if start.engine.device.type == "cuda" else "cpu"
    after = load_model(folder / "checkpoint", seed=start.options.seed, device=device)
    models = {BEFORE: start.model(), AFTER: after}
    errors = in_shares(
        lambda assigned: [
            _test(start, place, models, hidden, seen)
            for place in start.progress.within(assigned, "tested recording")
        ],
        places[fold.test].tolist(),
        start.engine,
    )
    rows = [row for table_rows in errors for row in table_rows]
    if start.writes:
        files.write_tsv(table, list(rows[0]), [[row[k] for row in rows] for k in rows[0]])
        files.write_json(note, about)
    start.engine.wait_for_everyone()
    return list(files.read_rows(table))


# --- errors ----------------------------------------------------------------------------------


def _test(
    start: Start, place: int, models: dict[str, LoadedModel], hidden: int, seen: int
) -> list[dict[str, Any]]:
    """Errors of one recording, a row per predictor and horizon."""
    options, stored = start.options, start.store.recordings[place]
    forecast_options = ForecastOptions(
        input=options.data,
        results=options.run_dir,
        volumes=hidden,
        series=start.series,
        seed=options.seed,
    )
    recording = course_of(start, place)
    origins = origins_of(recording, hidden, seen, options.origins)
    places = cut(recording, origins, forecast_options)
    errors: Errors = {}
    for name, model in models.items():
        guesses = predicted(model, recording, origins, forecast_options)
        errors[name] = model_errors(guesses, recording, places)
    errors |= baseline_errors(places, forecast_options)
    names = {"recording": stored.name, "participant_id": stored.subject}
    return [names | row for row in error_rows(errors, recording.tr)]


def _summarise(
    start: Start,
    rows: Sequence[dict[str, Any]],
    n_folds: int,
    hidden: int,
    left_out: dict[str, str],
    smooth: Sequence[Notice],
) -> None:
    """Means over subjects for each predictor and horizon, and the figure."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        tables.setdefault(row["recording"], []).append(row)
    subjects = [parse(name).subject for name in tables]
    columns = mean_errors(list(tables.values()), subjects, start.options.seed)
    folder = start.options.run_dir
    files.write_tsv(folder / "forecast.tsv", list(columns), list(columns.values()))
    sidecar = {
        "Description": "Error for each volume ahead in held-out subjects, before and after "
        "fine-tuning and of baselines: mean over subjects, 95 % bootstrap interval",
        "Folds": n_folds,
        "SamplesPredicted": hidden,
        "Knows": KNOWLEDGE,
        "ErrorUnits": UNITS[start.series],
        "Columns": ERROR_COLUMNS,
        "LeftOut": left_out,
        "Warnings": [*start.warnings(), *to_json(smooth)],
    }
    files.write_json(folder / "forecast.json", sidecar)
    gains = compared_errors(list(tables.values()), subjects, (AFTER, BEFORE), start.options.seed)
    files.write_tsv(folder / "comparisons.tsv", list(gains), list(gains.values()))
    from brainlm_bids.figures.experiments import plot_horizons

    naming = Naming(str(folder), GROUP, "", "")
    for picture in (folder / "forecast.png", naming.figure("finetune_horizons")):
        plot_horizons(picture, columns, [AFTER, BEFORE], start.resource.label)
    print(folder / "forecast.tsv")
