"""A simulated cohort as files: a small raw BIDS folder, and the outputs of the participant level.

In: options and a new folder. Out: tables of people and events as raw data have them, and below
`derivatives/brainlm-bids` what the participant level leaves of every recording, so that the group
level and the commands that read an output folder take it as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.bids import outputs
from brainlm_bids.bids.dataset import BIDS_VERSION, write_atlas_files, write_dataset_files
from brainlm_bids.bids.names import build
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.errors import UserError
from brainlm_bids.notices import Kind, Notice, notice, to_json
from brainlm_bids.parcels import steps as parcel_steps
from brainlm_bids.parcels.sampling import RESAMPLING, UKB_TR
from brainlm_bids.phantom.acquisition import ATLAS, PARAMETERS
from brainlm_bids.phantom.cohort import CohortOptions, People, Recording, draw_people, recordings
from brainlm_bids.phantom.cohort_parts import Event
from brainlm_bids.preproc.steps.functional import Motion
from brainlm_bids.preproc.steps.summary import Summary, summarise
from brainlm_bids.resources import EMBEDDED_SPACE, approximate_atlas, parcels

Array = NDArray[np.float64]
DERIVATIVES = Path("derivatives") / "brainlm-bids"
DUMMIES = 2  # volumes before the steady state, as raw runs have them
SIMULATED = notice(
    Kind.SIMULATED,
    "The parcel series are simulated (brainlm simulate-cohort): no person was scanned.",
)
VOXELS = 50  # of a parcel, in the tables of coverage


def write_cohort(
    folder: Path, options: CohortOptions, tell: Callable[[int, int], None] = lambda k, n: None
) -> Path:
    """Write a simulated cohort.

    Parameters
    ----------
    folder
        A new or empty folder: the raw data set.
    options
        What the cohort is like.
    tell
        Called with the number of recordings that are written, and of all.

    Returns
    -------
    Path
        The output folder, `derivatives/brainlm-bids`.

    Raises
    ------
    UserError
        If the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not an empty folder; name a new one for the cohort")
    people, out = draw_people(options), folder / DERIVATIVES
    _write_raw(folder, options, people)
    write_dataset_files(out, folder.absolute(), outputs.describe_labels())
    write_atlas(out)
    total = options.subjects * options.sessions * options.runs
    for number, one in enumerate(recordings(options, people), start=1):
        stem = stem_of(options, one)
        if one.events:
            shift = DUMMIES * one.tr
            _write_events(folder, stem, [e._replace(onset=e.onset + shift) for e in one.events])
        write_recording(
            out,
            stem,
            one.series,
            one.tr,
            parameters=one.parameters,
            displacement=one.displacement,
            sources=(f"brainlm simulate-cohort, seed {options.seed}",),
            configuration=files.sha256(repr(options), stem)[:16],
        )
        tell(number, total)
    return out


def stem_of(options: CohortOptions, one: Recording) -> str:
    """Name of a recording's files, without sessions and runs where there is one of each."""
    entities = {"sub": f"{one.subject:0{max(2, len(str(options.subjects)))}d}"}
    if options.sessions > 1:
        entities["ses"] = str(one.session)
    entities["task"] = "blocks" if options.states else "rest"
    if options.runs > 1:
        entities["run"] = str(one.run)
    return "_".join(f"{key}-{label}" for key, label in entities.items())


def write_recording(
    out: Path,
    stem: str,
    steady: Array,
    tr: float,
    *,
    parameters: Array | None = None,
    displacement: Array | None = None,
    warnings: Sequence[Notice] = (),
    sources: Sequence[str] = (),
    configuration: str = "simulated",
) -> Naming:
    """Write what the participant level leaves of one recording.

    Parameters
    ----------
    out
        The output folder.
    stem
        Name of the recording.
    steady
        (T, 424) denoised series of the steady state, NaN in parcels without data.
    tr
        Repetition time, s.
    parameters, displacement
        (T, 6) mm and rad, (T,) mm; None: not known.
    warnings
        Besides the one that says that the data are simulated.
    sources
        What the series was made from.
    configuration
        What the recording depends on.

    Returns
    -------
    Naming
        Of its files.
    """
    naming = Naming(str(out), stem, EMBEDDED_SPACE, ATLAS)
    series = _with_dummies(steady)
    confounds, motion = None, Motion(DUMMIES)
    if parameters is not None and displacement is not None:
        motion = Motion(DUMMIES, _with_dummies(parameters))
        confounds = _confounds(parameters, displacement)
    robust = parcel_steps.scale(steady, tr, model_tr=UKB_TR)
    summary = summarise(series, robust, motion, confounds=confounds)
    names = list(parcels().names)
    missing = summary.missing
    made: dict[str, Any] = {
        "Sources": list(sources),
        "Atlas": {"Name": ATLAS, "Space": EMBEDDED_SPACE, "Approximate": True},
        "Template": {"Name": EMBEDDED_SPACE},
        "InputData": {"Kind": "series"},
        "RepetitionTime": tr,
        "SamplingFrequency": 1 / tr,
        "NumberOfVolumes": len(series),
        "DummyVolumes": DUMMIES,
        "BadVolumes": [],
        "Denoising": "none",
        "HighPassCutoff": 100.0,
        "LowPassCutoff": None,
        "StandardDeviationDemeaned": summary.demeaned_sd,
        "MissingParcels": {names[k]: 0.0 for k in np.flatnonzero(missing)},
        **_movement(summary),
        "Configuration": configuration,
        "Warnings": to_json([SIMULATED, *warnings]),
    }
    derived = {"Sources": [naming.uri(naming.path("denoised"))]}
    written = [
        files.write_series(naming.path("denoised"), names, series),
        _sidecar(naming, "denoised", made),
        files.write_matrix(naming.path("pearson"), names, summary.connectivity),
        _sidecar(naming, "pearson", {**derived, "Warnings": made["Warnings"]}),
        *_write_robust(naming, robust, {**made, **derived}),
        *_write_coverage(naming, missing, made),
        *_write_confounds(naming, summary, made),
    ]
    outputs.write_record(out, stem, outputs.SERIES_STAGE, configuration, written)
    return naming


def write_atlas(out: Path) -> None:
    """Write the atlas of the folder: the approximation of A424."""
    labels, affine = approximate_atlas()
    write_atlas_files(
        out,
        space=EMBEDDED_SPACE,
        label=ATLAS,
        image=nib.Nifti1Image(labels.astype(np.int16), affine),
        table=parcels().table(),
        description={"Name": ATLAS, "Approximate": True},
    )


# --- one recording ---------------------------------------------------------------------------


def _with_dummies(values: Array) -> Array:
    """The values of all volumes (T, K): NaN before the steady state."""
    return np.vstack([np.full((DUMMIES, values.shape[1]), np.nan), values])


def _confounds(parameters: Array, displacement: Array) -> dict[str, Array]:
    first = np.full(DUMMIES + 1, np.nan)  # displacement is from one volume to the next
    columns = dict(zip(PARAMETERS, _with_dummies(parameters).T, strict=True))
    return {**columns, "framewise_displacement": np.concatenate([first, displacement[1:]])}


def _movement(summary: Summary) -> dict[str, Any]:
    movement = summary.movement
    if movement is None:
        return {}
    return {
        "MeanFramewiseDisplacement": movement.mean_fd,
        "MaximumTranslation": movement.translation,
        "MaximumRotation": movement.rotation,
        "MotionOutliers": movement.n_outliers,
    }


def _sidecar(naming: Naming, key: str, values: Mapping[str, object]) -> Path:
    path = naming.path(key, extension=".json")
    return files.write_json(path, naming.sidecar(key, values))


def _write_robust(
    naming: Naming, robust: parcel_steps.Scaled, made: Mapping[str, Any]
) -> list[Path]:
    names, source_tr = list(parcels().names), made["RepetitionTime"]
    kept = robust.series[:, ~robust.filled]
    values = {
        **made,
        "RepetitionTime": robust.tr,
        "SamplingFrequency": 1 / robust.tr,
        "StartTime": (DUMMIES + robust.first) * source_tr,
        "NumberOfVolumes": len(robust.series),
        "SourceRepetitionTime": source_tr,
        "Resampling": RESAMPLING if robust.tr != source_tr else None,
        "Scaling": "each parcel: mean removed, minus median, over interquartile range",
        "ScalingStatistics": "this recording",
        "FilledParcels": [names[k] for k in np.flatnonzero(robust.filled)],
        "StandardDeviationRobust": float(kept.std()) if kept.size else None,
    }
    path = files.write_series(naming.path("robust"), names, robust.series)
    return [path, _sidecar(naming, "robust", values)]


def _write_coverage(
    naming: Naming, missing: NDArray[np.bool_], made: Mapping[str, Any]
) -> list[Path]:
    table = parcels()
    covered = np.where(missing, 0, VOXELS)
    columns = {
        "index": table.index.tolist(),
        "name": list(table.names),
        "n_voxels": [VOXELS] * len(covered),
        "n_covered": covered.tolist(),
        "fraction": (covered / VOXELS).tolist(),
    }
    path = files.write_tsv(naming.path("coverage"), list(columns), list(columns.values()))
    return [path, _sidecar(naming, "coverage", {"Warnings": made["Warnings"]})]


def _write_confounds(naming: Naming, summary: Summary, made: Mapping[str, Any]) -> list[Path]:
    if not summary.confounds:
        return []
    columns = [column.tolist() for column in summary.confounds.values()]
    path = files.write_tsv(naming.path("confounds"), list(summary.confounds), columns)
    kept = ("Sources", "RepetitionTime", "NumberOfVolumes", "DummyVolumes", "Warnings")
    values = {key: made[key] for key in kept} | _movement(summary)
    units = {"TranslationUnits": "mm", "RotationUnits": "rad"}
    return [path, _sidecar(naming, "confounds", {**values, **units})]


# --- the raw folder --------------------------------------------------------------------------


def _write_raw(folder: Path, options: CohortOptions, people: People) -> None:
    made = {"Name": "brainlm simulate-cohort", "Description": "simulated, no person was scanned"}
    description = {
        "Name": "Simulated cohort",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "License": "CC0",
        "Authors": ["The brainlm-bids developers"],
        "GeneratedBy": [made],
    }
    files.write_json(folder / "dataset_description.json", description)
    files.write_json(folder / "simulation.json", asdict(options))
    files.write_text(folder / ".bidsignore", "simulation.json\n")
    listed = "\n".join(f"- {key}: {value}" for key, value in asdict(options).items())
    text = (
        "# A simulated cohort\n\nNo person was scanned: tables of people and events, and parcel "
        f"series in `{DERIVATIVES.as_posix()}`, made by `brainlm simulate-cohort`. The column "
        "`strength` of participants.tsv is the variable that was planted in the default mode "
        f"network.\n\n{listed}\n"
    )
    files.write_text(folder / "README.md", text)
    width = max(2, len(str(options.subjects)))
    columns: dict[str, Sequence[Any]] = {
        "participant_id": [f"sub-{k + 1:0{width}d}" for k in range(options.subjects)],
        "age": people.age.tolist(),
        "sex": people.sex.tolist(),
        "diagnosis": people.diagnosis.tolist(),
        "site": [f"site{k + 1}" for k in people.site],
        "scanner": [f"scanner{k + 1}" for k in people.site],
        "strength": people.strength.tolist(),
    }
    files.write_tsv(folder / "participants.tsv", list(columns), list(columns.values()))
    files.write_json(folder / "participants.json", _COLUMNS)


_COLUMNS = {
    "age": {"Description": "age of the imagined person", "Units": "year"},
    "sex": {
        "Description": "unrelated to the series",
        "Levels": {"F": "female", "M": "male"},
    },
    "diagnosis": {
        "Description": "unrelated to the series",
        "Levels": {"control": "no diagnosis", "patient": "a diagnosis"},
    },
    "site": {"Description": "where the imagined person was scanned"},
    "scanner": {"Description": "one per site"},
    "strength": {
        "Description": "the planted variable: coupling and amplitude of the default mode network",
        "Units": "standard deviations",
    },
}


def _write_events(folder: Path, stem: str, events: Sequence[Event]) -> None:
    naming = Naming(str(folder), stem, "", "")
    path = naming.folder("func") / f"{build(stem, {}, 'events')}.tsv"
    columns = [[getattr(one, name) for one in events] for name in Event._fields]
    files.write_tsv(path, list(Event._fields), columns)
