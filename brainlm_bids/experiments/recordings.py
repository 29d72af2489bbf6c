"""Input of an experiment: recordings of an output folder, or one series made elsewhere.

A folder or a file, and a selection, become recordings in the order of their names. Each is named
for the results folder and has, once read, its scaled series (T, 424) at the model's sampling rate;
for forecasts, the volumes of the scanner.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.bids.headers import is_tr, not_a_tr
from brainlm_bids.bids.outputs import Naming, atlas_path
from brainlm_bids.bids.recordings import Recording, find_recordings
from brainlm_bids.bids.timeseries import read_timeseries, stem_of
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json
from brainlm_bids.image_files import open_image
from brainlm_bids.model.past import Course, course, smoothness_warnings
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.parcels.sampling import rows_with_data
from brainlm_bids.parcels.steps import scale
from brainlm_bids.preproc.steps.series import take_series
from brainlm_bids.settings import Settings
from brainlm_bids.training.recordings import SERIES, cohort_iqr, read_series, read_volumes

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """Options that all experiments share; field names are those of the command line."""

    input: Path
    results: Path
    participant_label: tuple[str, ...] = Settings.participant_label
    session_label: tuple[str, ...] = Settings.session_label
    task_id: tuple[str, ...] = Settings.task_id
    run_id: tuple[str, ...] = Settings.run_id
    series: str = "robust"
    space: str | None = None
    atlas: str | None = None
    tr: float | None = None
    model: tuple[str, ...] = Settings.model
    input_gain: float = Settings.input_gain
    device: str = Settings.device
    precision: str = Settings.precision
    seed: int = Settings.random_seed
    offline: bool = Settings.offline


class Scaled(NamedTuple):
    """A robustly scaled series and its timing.

    Attributes
    ----------
    series
        (T, 424) in interquartile ranges, 0 in parcels without data.
    tr
        Repetition time, s.
    start
        Time of the first volume, in s from the first volume of the source.
    """

    series: Array
    tr: float
    start: float


class Measured(NamedTuple):
    """A recording in the volumes of the scanner, for forecasts.

    Attributes
    ----------
    course
        The volumes.
    start
        Time of the first volume, s from the first volume of the source.
    path
        The file.
    fitted
        What was fitted to the whole recording when the series was made.
    warnings
        Of the series.
    first_row
        Row of the file that the recording begins with.
    sidecar
        Of the file; empty for a series made elsewhere.
    """

    course: Course
    start: float
    path: Path
    fitted: list[str]
    warnings: list[Notice]
    first_row: int
    sidecar: dict[str, Any]


def find_items(options: ExperimentOptions) -> list[Recording]:
    """Find the recordings of an experiment, named for the results folder.

    Parameters
    ----------
    options
        Input, results folder and selection.

    Returns
    -------
    list of Recording
        In the order of their names.

    Raises
    ------
    UserError
        If there is none.
    """
    if options.input.is_file():
        return [_single_series(options)]
    if not options.input.is_dir():
        raise UserError(f"{options.input}: no such folder or file")
    if options.results.resolve() == options.input.resolve():
        raise UserError(f"{options.results}: the results need a folder of their own")
    recordings = find_recordings(
        options.input,
        SERIES[options.series],
        space=options.space,
        atlas=options.atlas,
        selection=options,
    )
    return [
        replace(recording, naming=replace(recording.naming, output_dir=str(options.results)))
        for recording in recordings
    ]


def _single_series(options: ExperimentOptions) -> Recording:
    """A series made elsewhere, as a recording."""
    selections = {
        "--participant-label": options.participant_label,
        "--session-label": options.session_label,
        "--task-id": options.task_id,
        "--run-id": options.run_id,
        "--space": options.space,
        "--atlas": options.atlas,
    }
    flag = next((flag for flag, value in selections.items() if value), None)
    if flag:
        raise UserError(f"{flag}: selects in an output folder; {options.input} is a single series")
    # the atlas that maps are drawn with; the series does not depend on it
    atlas = resources.find_atlas(None, offline=True)
    naming = Naming(str(options.results), stem_of(options.input), atlas.space, atlas.label)
    return Recording(naming, options.input)


def read_scaled(recording: Recording, options: ExperimentOptions) -> Scaled:
    """Read the scaled series that an experiment uses.

    Parameters
    ----------
    recording
        One of `find_items`.
    options
        The options of the experiment.

    Returns
    -------
    Scaled
        The series and its timing.

    Raises
    ------
    UserError
        If the series cannot be used.
    """
    if options.input.is_file():
        return _external_series(recording.path, options.tr)
    series = read_series(recording)
    sidecar = recording.path.with_suffix(".json")
    values = read_json(sidecar)
    try:
        return Scaled(series, float(values["RepetitionTime"]), float(values["StartTime"]))
    except (ValueError, KeyError, TypeError) as error:
        kind = type(error).__name__
        raise UserError(f"{sidecar}: cannot be read ({kind}: {error})") from None


def read_measured(recording: Recording, options: ExperimentOptions) -> Measured:
    """Read the volumes of the scanner that a forecast is cut in.

    Parameters
    ----------
    recording
        One of `find_items`.
    options
        The options of the experiment.

    Returns
    -------
    Measured
        Of an output folder the denoised series, not resampled; a series made elsewhere as it is.

    Raises
    ------
    UserError
        If the series cannot be used.
    """
    if options.input.is_file():
        given, tr, n_dummy = _read_external(recording.path, options.tr)
        series, start, path = given, n_dummy * tr, recording.path
        made = course(series, tr, Settings.model_tr)
        fitted = ["whatever was done to the series before it was given"]
        sidecar: dict[str, Any] = {}
    else:
        volumes = read_volumes(recording)
        cohort = options.series == "robustcohort"
        iqr = cohort_iqr(recording, volumes) if cohort else 1.0
        series, start, path = volumes.series, volumes.start, volumes.path
        tr, sidecar = volumes.tr, volumes.sidecar
        fitted, n_dummy = fitted_to_all(sidecar), int(sidecar.get("DummyVolumes", 0))
        made = course(series, tr, volumes.model_tr, options.series, iqr)
    first = int(np.argmax(rows_with_data(series)))
    warnings = [*smoothness_warnings(made.series), *slice_timing_warnings(sidecar)]
    return Measured(made, start + first * tr, path, fitted, warnings, n_dummy + first, sidecar)


def slice_timing_warnings(sidecar: Mapping[str, Any]) -> list[Notice]:
    """Warn about a series whose slices were corrected in time.

    Parameters
    ----------
    sidecar
        Of the denoised series.

    Returns
    -------
    list of Notice
        One if they were.

    Examples
    --------
    >>> [one.kind for one in slice_timing_warnings({"SliceTimingCorrected": True})]
    ['slices_hold_future']
    """
    if not sidecar.get("SliceTimingCorrected"):
        return []
    text = (
        "Slice timing was corrected by interpolation between volumes, so that the volumes of this "
        "series hold later ones: noise that all slices of a volume share is then predicted well "
        "from other parcels (R² of .4 to .6 one volume ahead in simulations). Give a series "
        "without the correction."
    )
    return [notice(Kind.SLICES_HOLD_FUTURE, text)]


def fitted_to_all(sidecar: Mapping[str, Any]) -> list[str]:
    """List what was fitted to the whole recording when a denoised series was made.

    Parameters
    ----------
    sidecar
        Of the denoised series.

    Returns
    -------
    list of str
        The volumes before an origin depend through these on later ones.

    Examples
    --------
    >>> fitted_to_all({"HighPassCutoff": 100.0, "Denoising": "none"})
    ['high-pass filter, 100 s']
    >>> fitted_to_all({"Denoising": "by XCP-D"})
    ['denoising by XCP-D']
    """
    fitted, cutoff = [], sidecar.get("HighPassCutoff")
    if cutoff is not None:
        fitted.append(f"high-pass filter, {cutoff:g} s")
    if sidecar.get("RegressedConfounds"):
        fitted.append("regression of confounds")
    elif str(sidecar.get("Denoising")).startswith("by "):
        fitted.append(f"denoising {sidecar['Denoising']}")
    elif sidecar.get("Denoising") in ("nonaggr", "aggr"):
        fitted.append("independent components, their classification and removal")
    return fitted


def atlas_image(naming: Naming, source: Path) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Read the atlas that the series were made with.

    Parameters
    ----------
    naming
        That of a recording.
    source
        The output folder, which holds the atlas; or the one series made elsewhere.

    Returns
    -------
    labels
        (X, Y, Z) int16, 1 … 424 and 0 outside.
    affine
        (4, 4) to RAS+ mm.

    Raises
    ------
    UserError
        If the folder does not hold it.
    """
    if source.is_file():
        return resources.find_atlas(None, offline=True).load()
    import nibabel as nb

    path = atlas_path(source, naming.space, naming.atlas)
    try:
        image = open_image(path)
        return np.asarray(image.dataobj).astype(np.int16), np.asarray(image.affine, np.float64)
    except (OSError, EOFError, ValueError, nb.filebasedimages.ImageFileError) as error:
        raise UserError(f"{path}: the atlas cannot be read ({error})") from None


def _read_external(path: Path, given_tr: float | None) -> tuple[NDArray[np.float64], float, int]:
    """The steady-state volumes of a series made elsewhere, its TR, and its dummy volumes."""
    names = resources.parcels().names
    try:
        timeseries = read_timeseries(path, names)
    except UserError as error:
        raise UserError(str(error).removeprefix("--timeseries ")) from None
    tr = given_tr or timeseries.tr
    if tr is None:
        raise UserError(f"{path}: no sidecar gives its repetition time; give --tr")
    if not is_tr(tr):
        raise UserError(f"{path}: its repetition time, {not_a_tr(tr)}")
    values = timeseries.values
    n_known = np.count_nonzero(np.isfinite(values).any(axis=1))
    if n_known < 2:
        raise UserError(f"{path}: has {n_known} volumes with data")
    n_dummy = int(np.argmax(np.isfinite(values).any(axis=1)))
    try:
        given = take_series(values[n_dummy:], max_bad_volumes=Settings.max_bad_volumes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return given.series, tr, n_dummy


def _external_series(path: Path, given_tr: float | None) -> Scaled:
    series, tr, n_dummy = _read_external(path, given_tr)
    # a series that is already scaled does not change: median 0 and interquartile range 1
    scaled = scale(series, tr, model_tr=Settings.model_tr)
    start = (n_dummy + scaled.first) * tr
    return Scaled(scaled.series.astype(np.float32), scaled.tr, start)
