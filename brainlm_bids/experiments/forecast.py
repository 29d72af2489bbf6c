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
from brainlm_bids.bids.names import common_stem
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.experiments.autoregression import FORECASTERS
from brainlm_bids.experiments.causal import refit_on_the_past
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
from brainlm_bids.experiments.recordings import (
    ExperimentOptions,
    Measured,
    find_items,
    read_measured,
)
from brainlm_bids.experiments.results import Results, load
from brainlm_bids.messages import tell
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.future import forecast_span
from brainlm_bids.model.past import origins_of
from brainlm_bids.report.tools.page import reported

COLUMNS = {
    "origin": "s from the first volume of the source: when the first volume not seen was measured",
    "horizon": "samples ahead at the rate of the model, 1 is the first after the last volume seen",
    "onset": "s from the first volume of the source",
    "measured": "1 until the last volume of the recording, 0 beyond it",
}
ERROR_COLUMNS = {
    "horizon": "volumes of the scanner ahead, 1 is the first not seen; there is nothing to compare "
    "with within a repetition time",
    "seconds": "s from the last volume seen",
}
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ForecastOptions(ExperimentOptions):
    """The arguments of `brainlm forecast`."""

    volumes: int = 20
    origins: int = 8
    order: int | None = None
    causal: bool = False


def run(options: ForecastOptions, command: Sequence[str] = ()) -> int:
    """Forecast all chosen recordings.

    Parameters
    ----------
    options
        The options of the command.
    command
        The words of the command line, for the page; none for a call from Python.

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
    with reported(results.folder, "forecast", command) as record:
        record["Failed"] = results.problems
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
    measured = read_measured(item, options)
    if options.causal:
        measured = refit_on_the_past(measured, item, options.input)
    recording = measured.course
    for warning in measured.warnings:
        tell(f"brainlm: {item.stem}: {warning.text}")
    context = max(forecast_span(model, options.volumes)[1] for model in models.values())
    origins = origins_of(recording, options.volumes, context, options.origins)
    places = cut(recording, origins, options)
    errors: Errors = {}
    written = []
    for label, model in models.items():
        results.progress.note(label)
        # also what comes after the end of the recording
        everywhere = np.append(origins, len(recording.series))
        guesses = predicted(model, recording, everywhere, options)
        errors[label] = model_errors(guesses[:-1], recording, places)
        written += _write_series(item, label, model, measured, everywhere, guesses, results)
    errors |= baseline_errors(places, options)
    ordered = {name: errors[name] for name in (*models, *FORECASTERS)}
    rows = error_rows(ordered, recording.tr)
    path = item.naming.path("forecast_errors")
    written.append(files.write_tsv(path, list(rows[0]), [[r[k] for r in rows] for k in rows[0]]))
    sidecar = {
        **_provenance(measured, origins, ~places.has_data),
        "RepetitionTime": recording.tr,
        "ErrorUnits": UNITS[options.series],
        "Columns": ERROR_COLUMNS,
        "Knows": KNOWLEDGE,
    }
    written.append(results.sidecar(item.naming, "forecast_errors", **sidecar))
    results.complete(item, "forecast", written)


def _write_series(
    item: Recording,
    label: str,
    model: LoadedModel,
    measured: Measured,
    origins: NDArray[np.int64],
    guesses: Array,
    results: Results,
) -> list[Path]:
    """Write the predictions in units of the recording, also those beyond its end."""
    n_places, n_ahead, _ = guesses.shape
    recording, start = measured.course, measured.start
    at = (origins[:, None] - 1) * recording.tr + np.arange(1, n_ahead + 1) * recording.rate
    end = (len(recording.series) - 1) * recording.tr
    columns = [
        np.repeat(start + origins * recording.tr, n_ahead).tolist(),
        np.tile(np.arange(1, n_ahead + 1), n_places).tolist(),
        (start + at).ravel().tolist(),
        (at <= end + 1e-6).astype(int).ravel().tolist(),
        *guesses.reshape(n_places * n_ahead, -1).T.tolist(),
    ]
    header = ["origin", "horizon", "onset", "measured", *resources.parcels().names]
    path = files.write_tsv(item.naming.path("forecast", model=label), header, columns)
    hidden, context = forecast_span(model, n_ahead)
    missing = np.asarray(np.isnan(guesses).any(axis=(0, 1)))
    sidecar = {
        **_provenance(measured, origins, missing),
        "RepetitionTime": recording.rate,
        "VolumesSeen": f"at most {context}",
        "VolumesHidden": hidden,
        "Device": model.placement.device,
        "Precision": model.placement.precision,
        "Columns": COLUMNS,
    }
    return [path, results.sidecar(item.naming, "forecast", label, **sidecar)]


def _provenance(
    measured: Measured, origins: NDArray[np.int64], missing: NDArray[np.bool_]
) -> dict[str, Any]:
    names, recording = resources.parcels().names, measured.course
    return {
        "Sources": [str(measured.path)],
        "SourceRepetitionTime": recording.tr,
        "Origins": origins.tolist(),
        "OriginsReference": "steady-state volumes of the scanner before each",
        "NumberOfVolumes": len(recording.series),
        "ParcelsWithoutData": [names[k] for k in np.flatnonzero(missing)],
        "FittedToWholeRecording": measured.fitted,
        "Warnings": measured.warnings,
    }


# --- over subjects ---------------------------------------------------------------------------


def _summarise(done: Sequence[Recording], results: Results, options: ForecastOptions) -> None:
    tables = [files.read_rows(recording.naming.path("forecast_errors")) for recording in done]
    subjects = [recording.naming.subject for recording in done]
    columns = mean_errors(tables, subjects, options.seed)
    stem = common_stem(recording.stem for recording in done)
    naming = dataclasses.replace(done[0].naming, stem=stem)
    path = naming.path("group_forecast")
    files.write_tsv(path, list(columns), list(columns.values()))
    sidecar: dict[str, Any] = {
        "Recordings": [recording.stem for recording in done],
        "Failed": results.problems,
        "Knows": KNOWLEDGE,
        "ErrorUnits": UNITS[options.series],
        "Columns": ERROR_COLUMNS,
    }
    results.sidecar(naming, "group_forecast", **sidecar)
    labels = [resource.label for resource in results.models]
    gains = compared_errors(tables, subjects, labels, options.seed)
    comparisons = naming.path("group_forecast_comparisons")
    files.write_tsv(comparisons, list(gains), list(gains.values()))
    results.sidecar(naming, "group_forecast_comparisons", **sidecar)
    from brainlm_bids.figures.experiments import plot_horizons

    for picture in (path.with_suffix(".png"), naming.figure("forecast_horizons")):
        plot_horizons(picture, columns, labels)
    print(path)
