"""`brainlm export`: the recordings of an output folder become a data set of another program."""

import glob
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids import __version__
from brainlm_bids.bids.dataset import raw_folder
from brainlm_bids.bids.participants import read_variables
from brainlm_bids.bids.recordings import Recording, find_recordings
from brainlm_bids.errors import UserError
from brainlm_bids.export import arrow, folders, toolkit
from brainlm_bids.export.rows import SERIES, Row, check_parcels, read_row, standardised
from brainlm_bids.files import read_json, write_json, write_text, write_tsv
from brainlm_bids.progress import SPACING, Progress
from brainlm_bids.resources import parcels
from brainlm_bids.temporary import PREFIX, remove_abandoned, temporary_folder
from brainlm_bids.training.recordings import beside
from brainlm_bids.training.split import PARTS, read_split, split_subjects


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `brainlm export`; field names are those of the command line."""

    input: Path
    destination: Path
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    task_id: tuple[str, ...] = ()
    run_id: tuple[str, ...] = ()
    format: str = "arrow"
    layout: str = "brainmarks"
    series: str = "denoised"
    space: str | None = None
    atlas: str | None = None
    split: Path | None = None
    bids_dir: Path | None = None
    phenotype: Path | None = None
    site: str = "site"
    columns: tuple[str, ...] = ()
    tr: float | None = None
    frames: int | None = None
    seed: int = 42


@dataclass(frozen=True)
class _Planned:
    """A recording with what the tables say of it, and its part."""

    recording: Recording
    part: str
    site: str
    variables: dict[str, str]


def export(options: ExportOptions) -> int:
    """Write the data set; it appears whole or not at all.

    Parameters
    ----------
    options
        What to write, and how.

    Returns
    -------
    int
        0, or 1 if a recording could not be used; the others are written.

    Raises
    ------
    UserError
        If there is no recording, or the destination is in use.
    """
    if options.layout == "toolkit" and options.format != "arrow":
        raise UserError(f"--layout toolkit is a data set of Arrow, not --format {options.format}")
    if options.layout == "toolkit" and (options.tr or options.frames):
        raise UserError(
            "--layout toolkit is at the rate of the model: it takes no --tr or --frames"
        )
    if options.format == "arrow":
        arrow.pyarrow()
    destination = options.destination
    remove_abandoned(destination.parent.glob(f"{PREFIX}*-{glob.escape(destination.name)}"))
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UserError(f"{destination}: is not empty; give a new folder")
    planned = _plan(options)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(destination.parent, destination.name) as place:
        work = place / "data"
        work.mkdir()
        writer = _WRITERS["toolkit" if options.layout == "toolkit" else options.format]
        with Progress("recording", spacing=SPACING) as progress:
            log = _Log(progress)
            writer(options, planned, work, log)
        if not log.written:
            raise UserError(f"{options.input}: no recording could be exported: {log.reasons()}")
        _describe(options, planned, work, log)
        if destination.exists():
            destination.rmdir()
        shutil.move(work, destination)
    for row in log.failed:
        print(f"brainlm: left out: {row['reason']}", file=sys.stderr)
    print(f"{destination}: {len(log.written)} recordings, {len(log.failed)} left out")
    return 1 if any(row["status"] == "failed" for row in log.failed) else 0


class _Log:
    """A row per recording: what was written, and what was left out and why."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.parcels: tuple[str, ...] = ()  # of all parts: those of the first recording
        self._progress, self._passes = progress, 0

    def reading(self, planned: Sequence[_Planned]) -> Iterable[_Planned]:
        """Go through recordings, and show how far it has come."""
        if self._progress is None:
            return planned
        self._passes += 1
        kind = f"pass {self._passes}"
        return self._progress.each(planned, lambda plan: f"{plan.recording.stem}: reading", kind)

    @property
    def written(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] == "exported"]

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] != "exported"]

    def reasons(self) -> str:
        return self.failed[0]["reason"] if self.failed else "there is none"

    def add(self, plan: _Planned, row: Row | None, status: str, reason: str = "") -> None:
        self.rows.append(
            {
                "recording": plan.recording.stem,
                "participant_id": plan.recording.participant,
                "session_id": plan.recording.session_id,
                "split": plan.part,
                "site": plan.site or None,
                "n_frames": None if row is None else len(row.series),
                "tr": None if row is None else row.tr,
                "interpolated": None if row is None else row.interpolated,
                "parcels_without_data": None if row is None else int(row.missing.sum()),
                "warnings": None if row is None else ",".join(row.warnings) or None,
                "status": status,
                "reason": reason or None,
            }
        )


# --- what is to be written -------------------------------------------------------------------


def _plan(options: ExportOptions) -> list[_Planned]:
    key = SERIES[
        "robust" if options.layout == "toolkit" and options.series == "denoised" else options.series
    ]
    recordings = find_recordings(
        options.input, key, space=options.space, atlas=options.atlas, selection=options
    )
    stems = [one.stem for one in recordings]
    folder = options.bids_dir or raw_folder(options.input)
    needed = bool(options.columns or options.phenotype)
    people = read_variables(folder, options.phenotype, stems, needed=needed)
    for warning in people.notices:
        print(f"brainlm: {warning.text}", file=sys.stderr)
    absent = [name for name in options.columns if name not in people.columns]
    if absent:
        listed = ", ".join(people.columns) or "none"
        raise UserError(f"--columns {absent[0]}: no table has it; there are {listed}")
    part = _parts(options, [one.participant for one in recordings])
    sites = people.columns.get(options.site) or [None] * len(stems)
    return [
        _Planned(
            recording,
            part.get(recording.participant, ""),
            sites[place] or "",
            {name: people.columns[name][place] or "" for name in options.columns},
        )
        for place, recording in enumerate(recordings)
    ]


def _parts(options: ExportOptions, participants: Sequence[str]) -> dict[str, str]:
    if options.split is not None:
        return read_split(options.split)
    if len(set(participants)) < len(PARTS):
        print(
            f"brainlm: {len(set(participants))} subjects cannot be split into three parts: all are "
            "in train",
            file=sys.stderr,
        )
        return dict.fromkeys(participants, "train")
    return split_subjects(participants, options.seed)


def _rows(
    options: ExportOptions, planned: Sequence[_Planned], log: _Log, read: Callable[[Recording], Row]
) -> Iterator[Row]:
    """The recordings, one at a time; one that cannot be used is logged and left out."""
    for plan in log.reading(planned):
        if not plan.part:
            log.add(plan, None, "not in split", f"{plan.recording.stem}: is not in --split")
            continue
        try:
            row = read(plan.recording)
            log.parcels = log.parcels or row.parcels
            check_parcels(row, log.parcels)
        except UserError as error:
            log.add(plan, None, "failed", str(error))
            continue
        log.add(plan, row, "exported")
        yield replace(row, site=plan.site, variables=plan.variables, part=plan.part)


def _reader(options: ExportOptions) -> Callable[[Recording], Row]:
    depth, frames = len(options.input.parts), options.frames

    def read(recording: Recording) -> Row:
        row = read_row(recording, depth, tr=options.tr)
        if frames is None:
            return row
        if len(row.series) < frames:
            raise UserError(
                f"{recording.stem}: has {len(row.series)} volumes at {row.tr:g} s, fewer than "
                f"--frames {frames}"
            )
        return replace(row, series=row.series[:frames])

    return read


# --- formats ---------------------------------------------------------------------------------


def _write_brainmarks(
    options: ExportOptions, planned: Sequence[_Planned], work: Path, log: _Log
) -> None:
    read = _reader(options)
    first = next(iter(_rows(options, planned, _Log(), read)), None)
    if first is None:
        list(_rows(options, planned, log, read))
        return
    n = len(first.parcels)
    features = {
        **{name: arrow.value("string") for name in ("sub", "ses", "task", "run", "site")},
        **{name: arrow.value("string") for name in ("dataset", "path")},
        "n_frames": arrow.value("int32"),
        "tr": arrow.value("float32"),
        "bold": arrow.matrix(n, "float16"),
        "mean": arrow.matrix(n, "float32", 1),
        "std": arrow.matrix(n, "float32", 1),
        **{name: arrow.value("string") for name in options.columns},
    }
    dataset = _name(options)
    for part in PARTS:
        chosen = [plan for plan in planned if plan.part == part]
        rows = (_as_brainmarks(row, dataset) for row in _rows(options, chosen, log, read))
        arrow.write_dataset(work / part, features, rows, part, description=_about(options))
    list(_rows(options, [plan for plan in planned if not plan.part], log, read))
    write_json(work / "dataset_dict.json", {"splits": list(PARTS)})


def _as_brainmarks(row: Row, dataset: str) -> dict[str, Any]:
    scaled, mean, sd = standardised(row.series)
    return {
        "sub": row.participant.removeprefix("sub-"),
        "ses": row.session.removeprefix("ses-"),
        "task": row.task,
        "run": row.run,
        "site": row.site,
        "dataset": dataset,
        "path": row.path,
        "n_frames": len(row.series),
        "tr": row.tr,
        "bold": scaled,
        "mean": mean,
        "std": sd,
        **row.variables,
    }


def _write_toolkit(
    options: ExportOptions, planned: Sequence[_Planned], work: Path, log: _Log
) -> None:
    scaled = _reader(options)

    def read(recording: Recording) -> Row:
        """The unscaled series at the repetition time of the scaled one."""
        robust = scaled(recording)
        if len(robust.series) < toolkit.MIN_VOLUMES:
            raise UserError(
                f"{recording.stem}: has {len(robust.series)} volumes at {robust.tr:g} s; the "
                f"windows of BrainLM need {toolkit.MIN_VOLUMES}"
            )
        raw = read_row(
            replace(recording, path=beside(recording, "denoised")),
            len(options.input.parts),
            tr=robust.tr,
        )
        if raw.series.shape != robust.series.shape or raw.parcels != parcels().names:
            raise UserError(f"{raw.path}: is not the series from which {robust.path} was made")
        return raw

    training = [plan for plan in planned if plan.part == "train"]
    quiet = (row.series for row in _rows(options, training, _Log(), read))
    extremes = toolkit.Extremes.over(quiet, len(parcels().names))
    features = toolkit.FEATURES | {name: arrow.value("string") for name in options.columns}
    for part, name in toolkit.PARTS.items():
        chosen = {plan.recording.stem: plan for plan in planned if plan.part == part}
        rows = (
            toolkit.toolkit_row(
                row, scaled(chosen[row.name].recording).series, extremes, row.variables
            )
            for row in _rows(options, list(chosen.values()), log, read)
        )
        arrow.write_dataset(work / name, features, rows, name, description=_about(options))
    list(_rows(options, [plan for plan in planned if not plan.part], log, read))
    table = parcels()
    arrow.write_dataset(
        work / toolkit.COORDINATES,
        toolkit.COORDINATE_FEATURES,
        (
            {"Index": float(number), "X": float(x), "Y": float(y), "Z": float(z)}
            for number, (x, y, z) in zip(table.index, table.xyz, strict=True)
        ),
        "train",
    )


def _write_files(write: Callable[[Path, Row], Path]) -> Callable[..., None]:
    def writer(options: ExportOptions, planned: Sequence[_Planned], work: Path, log: _Log) -> None:
        for row in _rows(options, planned, log, _reader(options)):
            write(work, row)

    return writer


_WRITERS: dict[str, Callable[..., None]] = {
    "arrow": _write_brainmarks,
    "toolkit": _write_toolkit,
    "npz": _write_files(folders.write_npz),
    "csv": _write_files(folders.write_csv),
}


# --- what it is ------------------------------------------------------------------------------


def _name(options: ExportOptions) -> str:
    try:
        name = read_json(options.input / "dataset_description.json").get("Name")
    except UserError:
        name = None
    return str(name or options.input.resolve().name)


def _about(options: ExportOptions) -> str:
    return f"{_name(options)}: series of brainlm-bids {__version__}, --series {options.series}"


_UNITS = {
    "denoised": "the units of the denoised series (grand mean 10000)",
    "robust": "interquartile ranges of the recording",
    "robustcohort": "interquartile ranges of the cohort",
}
_FORMS = {
    "arrow": "`datasets.load_from_disk` reads it. `bold` (volumes × parcels, float16) has "
    "mean 0 and standard deviation 1 per parcel; `bold * std + mean` is the series in {units}. A "
    "parcel without data is 0 in `bold` and NaN in `mean`.",
    "toolkit": "The layout of BrainLM's toolkit: `datasets.load_from_disk` reads each of `train`, "
    "`val`, `test` and `Brain_Region_Coordinates`. Recordings are parcels × volumes, but for "
    "`Voxelwise_RobustScaler_Normalized_Recording`, which is volumes × parcels; this is the column "
    "that the released networks were trained on. A parcel without data is 0, and named in "
    "`Parcels without data`.",
    "npz": "A file per recording: `bold` (volumes × parcels) in {units}, NaN in parcels without "
    "data; `mean`, `std`, `tr` (s) and `parcels`.",
    "csv": "A file per recording with a row per volume and a column per parcel, in {units}; empty "
    "in parcels without data.",
}


def _describe(options: ExportOptions, planned: Sequence[_Planned], work: Path, log: _Log) -> None:
    form = "toolkit" if options.layout == "toolkit" else options.format
    text = _FORMS[form].format(units=_UNITS[options.series])
    atlas = planned[0].recording.naming.atlas
    write_text(
        work / "README.md",
        f"# {_name(options)}\n\n{len(log.written)} recordings, exported by brainlm-bids "
        f"{__version__} (`--series {options.series}`, atlas {atlas}), split by subject. "
        f"{text}\n\n"
        "`recordings.tsv` has a row per recording, also for those that were left out, with the "
        "reason. These are data of people: the conditions of the original data set apply.\n",
    )
    columns = {name: [row[name] for row in log.rows] for name in log.rows[0]}
    order = np.argsort(columns["recording"], kind="stable")
    write_tsv(
        work / "recordings.tsv",
        list(columns),
        [[column[place] for place in order] for column in columns.values()],
    )
    write_json(
        work / "export.json",
        {
            "GeneratedBy": [{"Name": "brainlm-bids", "Version": __version__}],
            "Source": options.input.resolve().name,
            "Atlas": planned[0].recording.naming.atlas,
            "Space": planned[0].recording.naming.space,
            "Series": options.series,
            "Layout": form,
            "RepetitionTime": options.tr,
            "Frames": options.frames,
            "Split": "random, by subject" if options.split is None else options.split.name,
            "RandomSeed": options.seed,
        },
    )
