"""`brainlm finetune --future`: a checkpoint before and after it was fitted to predict the future.

It is tested on subjects that had no part in the fit, beside the baselines of `brainlm forecast`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import __version__, files
from brainlm_bids.bids.names import parse
from brainlm_bids.cohort.means import mean_over_subjects
from brainlm_bids.experiments import forecast
from brainlm_bids.experiments.forecast import METRICS, Errors, predicted
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.model.future import (
    errors_by_horizon,
    forecast_origins,
    look_back,
    patches_span,
)
from brainlm_bids.settings import configuration_hash
from brainlm_bids.training.finetune_start import FinetuneOptions, Start, begin, usable
from brainlm_bids.training.future import fit_future
from brainlm_bids.training.processes import in_shares
from brainlm_bids.training.saving import save_checkpoint
from brainlm_bids.training.split import Fold

BEFORE, AFTER = "before", "after"
Indices = NDArray[np.int64]


def finetune_future(options: FinetuneOptions) -> int:
    """Fit, test and save every fold; write tables and a figure over all tested recordings.

    Parameters
    ----------
    options
        The options of the command.

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
    store = start.store
    model = start.model()
    assert options.future is not None
    hidden, seen = patches_span(model, options.future)
    places, left_out = usable(start, model.window)
    subjects = [store.recordings[place].subject for place in places]
    folds = start.folds(subjects)
    rows: list[dict[str, Any]] = []
    for number, fold in enumerate(folds, start=1):
        folder = options.run_dir / f"fold-{number}"
        rows += _fold(start, np.array(places), fold, folder, hidden, seen)
    if start.writes:
        _summarise(start, rows, len(folds), hidden, left_out)
    return 0


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
        "Task": f"prediction of the last {start.options.future} time patches ({hidden} volumes)",
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
        lambda assigned: [_test(start, place, models, hidden, seen) for place in assigned],
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
    options, store = start.options, start.store
    forecast_options = forecast.ForecastOptions(
        input=options.data,
        results=options.run_dir,
        volumes=hidden,
        series=options.series,
        seed=options.seed,
    )
    series, recording = np.array(store.series(place)), store.recordings[place]
    origins = forecast_origins(len(series), hidden, seen, options.origins)
    cut = look_back(series, origins, hidden, options.series)
    known = cut.has_data
    errors: Errors = {
        name: errors_by_horizon(
            cut.truth[..., known], predicted(model, cut, forecast_options)[..., known]
        )
        for name, model in models.items()
    }
    errors |= forecast.baseline_errors(cut, forecast_options)
    return [
        {
            "recording": recording.name,
            "participant_id": recording.subject,
            "predictor": name,
            "horizon": ahead + 1,
            **{metric: float(by_horizon[metric][ahead]) for metric in METRICS},
        }
        for name, by_horizon in errors.items()
        for ahead in range(hidden)
    ]


def _summarise(
    start: Start,
    rows: Sequence[dict[str, Any]],
    n_folds: int,
    hidden: int,
    left_out: dict[str, str],
) -> None:
    """Means over subjects for each predictor and horizon, and the figure."""
    names = list(dict.fromkeys(row["recording"] for row in rows))
    subjects = [parse(name).subject for name in names]
    keys = list(dict.fromkeys((row["predictor"], int(row["horizon"])) for row in rows))
    table = {
        (row["recording"], row["predictor"], int(row["horizon"])): [
            float("nan") if row[metric] == "n/a" else float(row[metric]) for metric in METRICS
        ]
        for row in rows
    }
    values = np.array([[table[(name, *key)] for key in keys] for name in names])
    means = mean_over_subjects(values, subjects, start.options.seed)
    columns: dict[str, list[Any]] = {
        "predictor": [name for name, _ in keys],
        "horizon": [ahead for _, ahead in keys],
        "n_recordings": [len(names)] * len(keys),
        "n_subjects": [len(set(subjects))] * len(keys),
    }
    for k, metric in enumerate(METRICS):
        for part, numbers in zip(("", "_low", "_high"), means, strict=True):
            columns[f"{metric}{part}"] = numbers[:, k].tolist()
    folder = start.options.run_dir
    files.write_tsv(folder / "forecast.tsv", list(columns), list(columns.values()))
    sidecar = {
        "Description": "Error for each volume ahead in held-out subjects, before and after "
        "fine-tuning and of baselines: mean over subjects, 95 % bootstrap interval",
        "Folds": n_folds,
        "VolumesPredicted": hidden,
        "Knows": forecast.KNOWLEDGE,
        "ErrorUnits": forecast.UNITS[start.options.series],
        "LeftOut": left_out,
    }
    files.write_json(folder / "forecast.json", sidecar)
    from brainlm_bids.figures.experiments import plot_horizons

    plot_horizons(folder / "forecast.png", columns, [AFTER, BEFORE], start.resource.label)
    print(folder / "forecast.tsv")
