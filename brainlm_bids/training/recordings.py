"""Training data: the series in an output folder of brainlm-bids.

The folder is one that the participant (or group) level has written. Recordings come in the order of
their names, each with its series (T, 424), or the reason in one line why it has none. Most commands
take the scaled series; those that predict the future take the volumes of the scanner, since every
sample of a series at another rate is made from volumes on both sides of it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.recordings import Recording, find_recordings
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json
from brainlm_bids.parcels.sampling import TR_TOLERANCE, sample
from brainlm_bids.resources import parcels

Array = NDArray[np.float32]
# --series -> key in the table of outputs
SERIES = {"robust": "robust", "robustcohort": "cohort_robust"}


class Example(NamedTuple):
    """A recording to train on.

    Attributes
    ----------
    name, subject
        `sub-01_ses-1_task-rest`, `sub-01`.
    series
        The scaled series (T, P); None where it cannot be used.
    reason
        Why there is none, in one line.
    tr, model_tr
        Repetition times of the volumes of the scanner, and of the model, s; None for a series at
        the rate of the model.
    """

    name: str
    subject: str
    series: Array | None
    reason: str = ""
    tr: float | None = None
    model_tr: float | None = None


class Volumes(NamedTuple):
    """A recording in the volumes of the scanner.

    Attributes
    ----------
    series
        (T, 424) NaN in volumes and in parcels without data.
    tr, model_tr
        Repetition times of the scanner and of the model, s.
    start
        Time of the first volume, s from the first volume of the source.
    path
        The file.
    sidecar
        Of the file.
    """

    series: NDArray[np.float64]
    tr: float
    model_tr: float
    start: float
    path: Path
    sidecar: dict[str, Any]


def check_series(values: NDArray[np.floating], name: str) -> None:
    """Refuse values that no network should be trained on.

    Parameters
    ----------
    values
        (T, P).
    name
        Named in the message.

    Raises
    ------
    UserError
        For a wrong shape, values that are not finite, or zeros throughout.
    """
    if values.ndim != 2 or not values.size:
        raise UserError(f"{name}: has the shape {values.shape}; expected volumes × parcels")
    n_bad = int((~np.isfinite(values)).any(axis=0).sum())
    if n_bad:
        raise UserError(f"{name}: has missing or infinite values in {n_bad} parcels")
    if not values.any():
        raise UserError(f"{name}: is zero throughout: no parcel has data")


def find_series(
    output_dir: Path, *, series: str = "robust", space: str | None = None, atlas: str | None = None
) -> list[Recording]:
    """Find the recordings of an output folder that have a scaled series.

    Parameters
    ----------
    output_dir
        The folder.
    series
        `robust` (scaled with the recording's own statistics) or `robustcohort` (with the cohort's,
        from the group level).
    space, atlas
        Needed where the folder has series in several.

    Returns
    -------
    list of Recording
        In the order of their names.

    Raises
    ------
    UserError
        If there is none, or there are several kinds.
    """
    return find_recordings(output_dir, SERIES[series], space=space, atlas=atlas)


def read_series(recording: Recording) -> Array:
    """Read the scaled series of a recording.

    Parameters
    ----------
    recording
        The recording.

    Returns
    -------
    ndarray
        (T, 424) float32.

    Raises
    ------
    UserError
        If it cannot be used.
    """
    values = recording.read(parcels().names)
    check_series(values, str(recording.path))
    return values.astype(np.float32)


def volumes_file(recording: Recording) -> Path:
    """Return the file that holds the volumes of the scanner of a scaled series.

    Parameters
    ----------
    recording
        One of `find_series`.

    Returns
    -------
    Path
        The denoised series; the scaled series itself where there is none.
    """
    denoised = beside(recording, "denoised")
    return denoised if denoised.is_file() else recording.path


def beside(recording: Recording, key: str) -> Path:
    """Return where another output of the same run is.

    Parameters
    ----------
    recording
        A recording of an output folder.
    key
        Key in the table of outputs.

    Returns
    -------
    Path
        In the folder that holds the series, wherever results are written.
    """
    folder = next(part for part in recording.path.parents if part.name == recording.participant)
    return replace(recording.naming, output_dir=str(folder.parent)).path(key)


def read_volumes(recording: Recording) -> Volumes:
    """Read the volumes of the scanner from which a scaled series was made.

    Parameters
    ----------
    recording
        One of `find_series`.

    Returns
    -------
    Volumes
        Those of the denoised series. Without it, those of the scaled series, if that is at the
        rate of the scanner.

    Raises
    ------
    UserError
        If neither can be used: the message says what to do.
    """
    path = volumes_file(recording)
    scaled = read_json(recording.path.with_suffix(".json"))
    try:
        model_tr = float(scaled["RepetitionTime"])
        tr = float(scaled.get("SourceRepetitionTime") or model_tr)
        sidecar = scaled if path == recording.path else read_json(path.with_suffix(".json"))
        dummy = int(sidecar.get("DummyVolumes", 0))
        start = float(sidecar.get("StartTime", 0.0)) + (dummy * tr if path != recording.path else 0)
    except (ValueError, KeyError, TypeError) as error:
        name, kind = recording.path.with_suffix(".json"), type(error).__name__
        raise UserError(f"{name}: cannot be read ({kind}: {error})") from None
    _check_causes(path, sidecar, tr, None if path != recording.path else model_tr)
    values = replace(recording, path=path).read(parcels().names)
    if path == recording.path:
        check_series(values, str(path))
        values[[int(k) for k in scaled.get("InterpolatedVolumes") or ()]] = np.nan
        values[:, ~np.any(np.nan_to_num(values), axis=0)] = np.nan
    else:
        values = values[dummy:]
    if not np.isfinite(values).any():
        raise UserError(f"{path}: has no data")
    return Volumes(values, tr, model_tr, start, path, sidecar)


def _check_causes(path: Path, sidecar: dict[str, Any], tr: float, rate: float | None) -> None:
    """Refuse series whose volumes are made from later ones within the horizon of a forecast."""
    if rate is not None and abs(tr - rate) > TR_TOLERANCE * rate:
        raise UserError(
            f"{path}: was brought from {tr:g} s to {rate:g} s, so that its samples hold later "
            "volumes; the denoised series beside it, which a forecast needs, is not there: run "
            "the participant level again"
        )
    low_pass = sidecar.get("LowPassCutoff")
    if low_pass is not None:
        raise UserError(
            f"{path}: was low-pass filtered ({low_pass:g} s), so that its volumes hold later ones; "
            "for forecasts, run the participant level without --low-pass into another folder"
        )


def cohort_iqr(recording: Recording, volumes: Volumes) -> NDArray[np.float64] | float:
    """Interquartile ranges of the cohort by which a series was scaled.

    Parameters
    ----------
    recording
        A series scaled with the statistics of the cohort.
    volumes
        Its volumes, from `read_volumes`.

    Returns
    -------
    ndarray or float
        (424,) in units of the volumes, NaN in parcels without data; 1 if those are scaled already.

    Raises
    ------
    UserError
        If the two series do not belong together.
    """
    if volumes.path == recording.path:
        return 1.0
    scaled = read_series(recording)
    made = sample(volumes.series, volumes.tr, volumes.model_tr).series
    if made.shape != scaled.shape:
        raise UserError(f"{recording.path}: was not made from {volumes.path.name}; run group again")
    # both hold the same samples, up to a shift and this factor
    spread = scaled.std(axis=0, dtype=np.float64)
    return np.where(spread > 0, made.std(axis=0) / np.where(spread > 0, spread, 1), np.nan)


def series_example(recording: Recording) -> Example:
    """Read the scaled series of a recording.

    Parameters
    ----------
    recording
        One of `find_series`.

    Returns
    -------
    Example
        With its series.
    """
    return Example(recording.stem, recording.participant, read_series(recording))


def volumes_example(recording: Recording) -> Example:
    """Read the volumes of the scanner from which a scaled series was made.

    Parameters
    ----------
    recording
        One of `find_series`.

    Returns
    -------
    Example
        With its volumes, in interquartile ranges of the cohort if the series was scaled by those.
    """
    volumes = read_volumes(recording)
    values = volumes.series
    if recording.naming.scaling:
        values = values / cohort_iqr(recording, volumes)
    return Example(
        recording.stem,
        recording.participant,
        values.astype(np.float32),
        tr=volumes.tr,
        model_tr=volumes.model_tr,
    )


def read_all(
    recordings: Iterable[Recording], read: Callable[[Recording], Example] = series_example
) -> Iterator[Example]:
    """Read recordings in turn.

    Parameters
    ----------
    recordings
        The recordings.
    read
        Reads one.

    Yields
    ------
    Example
        The series, or why it cannot be used.
    """
    for recording in recordings:
        try:
            yield read(recording)
        except UserError as error:
            yield Example(recording.stem, recording.participant, None, str(error))
