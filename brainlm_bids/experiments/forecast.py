"""`brainlm forecast`: predict the volumes after an origin, and compute the errors."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids.derivatives import Recording
from brainlm_bids.bids.names import common_stem
from brainlm_bids.cohort.means import mean_over_subjects
from brainlm_bids.experiments.autoregression import FORECASTERS, autoregressive
from brainlm_bids.experiments.recordings import ExperimentOptions, Scaled, find_items, read_scaled
from brainlm_bids.experiments.results import Results, load
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.future import (
    Places,
    errors_by_horizon,
    forecast,
    forecast_origins,
    forecast_span,
    look_back,
)

METRICS = ("rmse", "pearson_r", "r2")
KNOWLEDGE = {
    "models": "the volumes of a window before the origin",
    "baselines": "all volumes of the recording before the origin",
}
UNITS = {
    "robust": "interquartile ranges of the volumes before the origin, 0 is their median",
    "robustcohort": "interquartile ranges of the cohort, 0 is the median before the origin",
}
COLUMNS = {
    "origin": "s from the first volume of the source: when the first volume not seen was measured",
    "horizon": "volumes ahead, 1 is the first not seen",
    "onset": "s from the first volume of the source",
    "measured": "1 if the recording has this volume, 0 beyond its end",
}
Array = NDArray[np.float64]
Errors = dict[str, dict[str, Array]]


@dataclass(frozen=True, kw_only=True)
class ForecastOptions(ExperimentOptions):
    """The arguments of `brainlm forecast`."""

    volumes: int = 20
    origins: int = 8
    order: int | None = None


def run(options: ForecastOptions) -> int:
    """Forecast all chosen recordings.

    Parameters
    ----------
    options
        The options of the command.

    Returns
    -------
    int
        0, or 1 if a recording failed.

    Raises
    ------
    UserError
        If no recording could be used.
    """
    items = find_items(options)
    results = Results(options.results, "forecast", options)
    models = {resource.label: load(resource, options) for resource in results.models}
    # Checked first: a horizon that leaves no room for past volumes is an error of the whole call.
    for model in models.values():
        forecast_span(model, options.volumes)
    results.describe(options.input)
    work = functools.partial(_forecast_recording, results=results, models=models, options=options)
    done = results.each(items, work)
    _summarise(done, results, options)
    return 1 if results.problems else 0


def _forecast_recording(
    item: Recording,
    *,
    results: Results,
    models: Mapping[str, LoadedModel],
    options: ForecastOptions,
) -> None:
    if results.is_complete(item, "forecast"):
        return
    scaled = read_scaled(item, options)
    n_ahead, kind = options.volumes, options.series
    context = max(forecast_span(model, n_ahead)[1] for model in models.values())
    origins = forecast_origins(len(scaled.series), n_ahead, context, options.origins)
    places = look_back(scaled.series, origins, n_ahead, kind)
    end = look_back(scaled.series, np.array([len(scaled.series)]), n_ahead, kind)
    errors, written = baseline_errors(places, options), []
    known = places.has_data
    for label, model in models.items():
        guesses = predicted(model, places, options)
        errors[label] = errors_by_horizon(places.truth[..., known], guesses[..., known])
        everywhere = places._replace(
            origins=np.append(origins, end.origins),
            location=np.vstack([places.location, end.location]),
            scale=np.vstack([places.scale, end.scale]),
        )
        series = np.concatenate([guesses, predicted(model, end, options)])
        written += _write_series(item, label, model, scaled, everywhere, series, results)
    ordered = {name: errors[name] for name in (*models, *FORECASTERS)}
    columns: dict[str, list[Any]] = {}
    for name, by_horizon in ordered.items():
        for ahead in range(n_ahead):
            row = {"predictor": name, "horizon": ahead + 1, "seconds": (ahead + 1) * scaled.tr}
            row |= {metric: float(by_horizon[metric][ahead]) for metric in METRICS}
            for key, value in row.items():
                columns.setdefault(key, []).append(value)
    path = item.naming.path("forecast_errors")
    written.append(files.write_tsv(path, list(columns), list(columns.values())))
    sidecar = {**_provenance(item, scaled, places), "ErrorUnits": UNITS[kind]}
    written.append(results.sidecar(item.naming, "forecast_errors", **sidecar, Knows=KNOWLEDGE))
    results.complete(item, "forecast", written)


def baseline_errors(places: Places, options: ForecastOptions) -> Errors:
    """Errors of all baselines, each fitted to the volumes before an origin.

    Parameters
    ----------
    places
        K origins, with H volumes to predict at each.
    options
        The options of the command.

    Returns
    -------
    dict
        Name of a baseline to its errors by horizon, (H,) per metric.
    """
    errors: Errors = {}
    known = places.has_data
    for name, forecaster in FORECASTERS.items():
        chosen = forecaster
        if name == "autoregressive":
            chosen = functools.partial(autoregressive, order=options.order)
        guesses = np.stack([chosen(past, options.volumes) for past in places.seen])
        errors[name] = errors_by_horizon(places.truth[..., known], guesses[..., known])
    return errors


def predicted(model: LoadedModel, places: Places, options: ForecastOptions) -> Array:
    """Forecast from all origins with a model.

    Parameters
    ----------
    model
        The model.
    places
        K origins.
    options
        The options of the command.

    Returns
    -------
    ndarray
        (K, H, P), scaled as the volumes before each origin.
    """
    return np.stack(
        [
            forecast(
                model,
                past,
                resources.parcels().xyz,
                n_volumes=options.volumes,
                seed=options.seed,
                input_gain=options.input_gain,
            )
            for past in places.seen
        ]
    ).astype(np.float64)


def _write_series(
    item: Recording,
    label: str,
    model: LoadedModel,
    scaled: Scaled,
    places: Places,
    guesses: Array,
    results: Results,
) -> list[Path]:
    """Write the predictions in units of the scaled series, also those beyond its end."""
    n_places, n_ahead, _ = guesses.shape
    series = guesses * places.scale[:, None] + places.location[:, None]
    at = (places.origins[:, None] + np.arange(n_ahead)).ravel()
    columns = [
        np.repeat(scaled.start + places.origins * scaled.tr, n_ahead).tolist(),
        np.tile(np.arange(1, n_ahead + 1), n_places).tolist(),
        (scaled.start + at * scaled.tr).tolist(),
        (at < len(scaled.series)).astype(int).tolist(),
        *series.reshape(len(at), -1).T.tolist(),
    ]
    header = ["origin", "horizon", "onset", "measured", *resources.parcels().names]
    path = files.write_tsv(item.naming.path("forecast", model=label), header, columns)
    hidden, context = forecast_span(model, n_ahead)
    sidecar = {
        **_provenance(item, scaled, places),
        "VolumesSeen": f"at most {context}",
        "VolumesHidden": hidden,
        "Device": model.placement.device,
        "Precision": model.placement.precision,
        "Columns": COLUMNS,
    }
    return [path, results.sidecar(item.naming, "forecast", label, **sidecar)]


def _provenance(item: Recording, scaled: Scaled, places: Places) -> dict[str, Any]:
    names = resources.parcels().names
    return {
        "Sources": [str(item.path)],
        "RepetitionTime": scaled.tr,
        "Origins": places.origins.tolist(),
        "OriginsReference": "volumes of the scaled series before each",
        "NumberOfVolumes": len(scaled.series),
        "ParcelsWithoutData": [names[k] for k in np.flatnonzero(~places.has_data)],
    }


# --- over subjects ---------------------------------------------------------------------------


def _summarise(done: Sequence[Recording], results: Results, options: ForecastOptions) -> None:
    tables = [files.read_rows(recording.naming.path("forecast_errors")) for recording in done]
    subjects = [recording.naming.subject for recording in done]
    values = np.array(
        [[[_number(row[metric]) for metric in METRICS] for row in table] for table in tables]
    )
    means = mean_over_subjects(values, subjects, options.seed)
    columns: dict[str, list[Any]] = {
        "predictor": [row["predictor"] for row in tables[0]],
        "horizon": [int(row["horizon"]) for row in tables[0]],
        "seconds": [float(row["seconds"]) for row in tables[0]],
        "n_recordings": [len(done)] * len(tables[0]),
        "n_subjects": [len(set(subjects))] * len(tables[0]),
    }
    for k, metric in enumerate(METRICS):
        for part, numbers in zip(("", "_low", "_high"), means, strict=True):
            columns[f"{metric}{part}"] = numbers[:, k].tolist()
    stem = common_stem(recording.stem for recording in done)
    naming = dataclasses.replace(done[0].naming, stem=stem)
    path = naming.path("group_forecast")
    files.write_tsv(path, list(columns), list(columns.values()))
    sidecar: dict[str, Any] = {
        "Recordings": [recording.stem for recording in done],
        "Failed": results.problems,
        "Knows": KNOWLEDGE,
        "ErrorUnits": UNITS[options.series],
    }
    results.sidecar(naming, "group_forecast", **sidecar)
    from brainlm_bids.figures.experiments import plot_horizons

    plot_horizons(
        path.with_suffix(".png"), columns, [resource.label for resource in results.models]
    )
    print(path)


def _number(text: str) -> float:
    return float("nan") if text == "n/a" else float(text)
