"""Errors of forecasts for each volume ahead, of models and baselines, and their mean over subjects.

A recording is cut after a number of the scanner's volumes. Baselines see those volumes, models see
them at their own rate, and both are compared with the volumes that the scanner measured next.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.cohort.means import mean_over_subjects
from brainlm_bids.experiments.autoregression import FORECASTERS, autoregressive
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.future import Places, errors_by_horizon, forecast, look_back
from brainlm_bids.model.network import Indices
from brainlm_bids.model.past import Course, at_volumes, past_of

METRICS = ("rmse", "pearson_r", "r2")
KNOWLEDGE = {
    "models": "the volumes of a window before the origin, brought to the rate of the model without "
    "any later volume",
    "baselines": "all volumes of the recording before the origin",
}
UNITS = {
    "robust": "interquartile ranges of the volumes before the origin, 0 is their median",
    "robustcohort": "interquartile ranges of the cohort, 0 is the median before the origin",
}
Array = NDArray[np.float64]
Errors = dict[str, dict[str, Array]]


class Options(Protocol):
    """What a forecast depends on beside model and recording."""

    @property
    def volumes(self) -> int:
        """Samples to predict, at the rate of the model."""
        ...

    @property
    def order(self) -> int | None:
        """Order of the autoregressive baseline; None: by AIC."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the token order."""
        ...

    @property
    def input_gain(self) -> float:
        """Factor on the series before it enters a model."""
        ...


def predicted(
    model: LoadedModel, recording: Course, origins: Iterable[int], options: Options
) -> Array:
    """Forecast from all origins with a model.

    Parameters
    ----------
    model
        The model.
    recording
        The recording.
    origins
        (K,) number of volumes before each.
    options
        The options of the command.

    Returns
    -------
    ndarray
        (K, H, P) samples at the rate of the model, in units of the recording; NaN in parcels
        without data.
    """
    made = []
    for origin in origins:
        past = past_of(recording, int(origin))
        guess = forecast(
            model,
            past.series,
            resources.parcels().xyz,
            n_volumes=options.volumes,
            seed=options.seed,
            input_gain=options.input_gain,
        )
        made.append(np.where(past.has_data, guess * past.scale + past.location, np.nan))
    return np.stack(made)


def cut(recording: Course, origins: Indices, options: Options) -> Places:
    """Cut a recording at its origins into what is seen and the volumes to predict.

    Parameters
    ----------
    recording
        The recording.
    origins
        (K,) number of volumes before each.
    options
        The options of the command.

    Returns
    -------
    Places
        In volumes of the scanner.
    """
    n_ahead = recording.ahead(options.volumes)
    return look_back(
        recording.series, origins, n_ahead, recording.kind, recording.iqr, recording.before
    )


def model_errors(guesses: Array, recording: Course, places: Places) -> dict[str, Array]:
    """Errors of a model at the volumes that the scanner measured.

    Parameters
    ----------
    guesses
        (K, H, P) from `predicted`.
    recording
        The recording.
    places
        Its K origins.

    Returns
    -------
    dict
        (H',) per metric, for each of the volumes ahead.
    """
    known = places.has_data
    read = [
        (at_volumes(recording, recording.series[origin - 1], guess) - location) / scale
        for guess, origin, location, scale in zip(
            guesses, places.origins, places.location, places.scale, strict=True
        )
    ]
    return errors_by_horizon(places.truth[..., known], np.stack(read)[..., known])


def baseline_errors(places: Places, options: Options) -> Errors:
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
    known, n_ahead = places.has_data, places.truth.shape[1]
    for name, forecaster in FORECASTERS.items():
        chosen = forecaster
        if name == "autoregressive":
            chosen = functools.partial(autoregressive, order=options.order)
        guesses = np.stack([chosen(past, n_ahead) for past in places.seen])
        errors[name] = errors_by_horizon(places.truth[..., known], guesses[..., known])
    return errors


def error_rows(errors: Errors, tr: float) -> list[dict[str, Any]]:
    """Rows of a table of errors.

    Parameters
    ----------
    errors
        Name of a predictor to its errors.
    tr
        Repetition time of the scanner, s.

    Returns
    -------
    list of dict
        A row per predictor and volume ahead.
    """
    return [
        {"predictor": name, "horizon": ahead + 1, "seconds": (ahead + 1) * tr}
        | {metric: float(by_horizon[metric][ahead]) for metric in METRICS}
        for name, by_horizon in errors.items()
        for ahead in range(len(by_horizon["r2"]))
    ]


def mean_errors(
    tables: Sequence[Sequence[Mapping[str, Any]]], subjects: Sequence[str], seed: int
) -> dict[str, list[Any]]:
    """Mean errors over subjects, apart for recordings of different repetition times.

    Parameters
    ----------
    tables
        Rows of each recording, as in its file.
    subjects
        The subject of each recording.
    seed
        Seed of the bootstrap.

    Returns
    -------
    dict
        Columns of the table: mean and 95 % interval of every metric.
    """
    columns: dict[str, list[Any]] = {}
    for tr, chosen in _by_repetition_time(tables).items():
        values = np.array([[_metrics(row) for row in tables[k]] for k in chosen])
        owners = [subjects[k] for k in chosen]
        means = mean_over_subjects(values, owners, seed)
        for place, row in enumerate(tables[chosen[0]]):
            made = {
                "predictor": row["predictor"],
                "horizon": int(row["horizon"]),
                "seconds": float(row["seconds"]),
                "repetition_time": tr,
                "n_recordings": len(chosen),
                "n_subjects": len(set(owners)),
            }
            for k, metric in enumerate(METRICS):
                for part, numbers in zip(("", "_low", "_high"), means, strict=True):
                    made[f"{metric}{part}"] = float(numbers[place, k])
            for name, value in made.items():
                columns.setdefault(name, []).append(value)
    return columns


def compared_errors(
    tables: Sequence[Sequence[Mapping[str, Any]]],
    subjects: Sequence[str],
    models: Sequence[str],
    seed: int,
) -> dict[str, list[Any]]:
    """How much larger R² of each model is than that of each other predictor.

    Both are taken of the same recordings, so that the interval of their difference is narrower than
    the overlap of two intervals suggests.

    Parameters
    ----------
    tables
        Rows of each recording, as in its file.
    subjects
        The subject of each recording.
    models
        The predictors that are compared with those that follow them and with the baselines.
    seed
        Seed of the bootstrap.

    Returns
    -------
    dict
        Columns of the table: for each repetition time, model and other predictor a row per volume
        ahead, and one of the mean over the volumes, whose horizon and seconds are None.
    """
    columns: dict[str, list[Any]] = {}
    for tr, chosen in _by_repetition_time(tables).items():
        owners = [subjects[k] for k in chosen]
        r2 = _by_predictor([tables[k] for k in chosen])
        for place, model in enumerate(models):
            for other in (*models[place + 1 :], *FORECASTERS):
                gain = r2[model] - r2[other]
                gain = np.column_stack([gain, gain.mean(axis=1)])
                means = mean_over_subjects(gain, owners, seed)
                n_ahead = gain.shape[1] - 1
                for k in range(n_ahead + 1):
                    made = {
                        "predictor": model,
                        "compared_with": other,
                        "horizon": None if k == n_ahead else k + 1,
                        "seconds": None if k == n_ahead else (k + 1) * tr,
                        "repetition_time": tr,
                        "n_recordings": len(chosen),
                        "n_subjects": len(set(owners)),
                        "r2_difference": float(means.value[k]),
                        "low": float(means.low[k]),
                        "high": float(means.high[k]),
                    }
                    for name, value in made.items():
                        columns.setdefault(name, []).append(value)
    return columns


def _by_predictor(tables: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Array]:
    """R² (recordings, volumes ahead) of each predictor."""
    names = list(dict.fromkeys(str(row["predictor"]) for row in tables[0]))
    return {
        name: np.array(
            [[_metrics(row)[-1] for row in table if row["predictor"] == name] for table in tables]
        )
        for name in names
    }


def _by_repetition_time(tables: Sequence[Sequence[Mapping[str, Any]]]) -> dict[float, list[int]]:
    """Repetition time to the recordings that have it, the shortest first."""
    by_tr: dict[float, list[int]] = {}
    for k, table in enumerate(tables):
        tr = float(table[0]["seconds"]) / int(table[0]["horizon"])
        by_tr.setdefault(round(tr, 3), []).append(k)
    return dict(sorted(by_tr.items()))


def _metrics(row: Mapping[str, Any]) -> list[float]:
    return [float("nan") if row[name] == "n/a" else float(row[name]) for name in METRICS]
