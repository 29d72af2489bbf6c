"""Names and sidecars of the derivatives, driven by `data/outputs.toml`, and their records.

What comes in: a key of the table, the source's entities, values. What goes out: the BIDS name of a
file, the sidecar that says how it was made, and whether a stage of a run is complete.
"""

import contextlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from brainlm_bids import __version__
from brainlm_bids.bids.names import GROUP, build, parse
from brainlm_bids.errors import UserError
from brainlm_bids.files import DATA, read_json, read_text, write_json


@dataclass(frozen=True)
class Output:
    """One row of the table of outputs.

    Attributes
    ----------
    key
        Of the row.
    entities
        What the name adds to that of the source, such as `atlas` (the label of the run) or
        `desc-robust` (always this label).
    suffix, extension
        Of the name.
    datatype
        The folder below the subject; empty for files about the whole data set.
    levels
        The analysis levels that write it.
    source
        Whether the name begins with that of a recording, or of a group of them.
    formerly
        The entities in older output folders.
    sidecar
        What the sidecar always says.
    """

    key: str
    entities: tuple[str, ...]
    suffix: str
    extension: str
    sidecar: Mapping[str, object]
    datatype: str = ""
    levels: tuple[str, ...] = ("participant", GROUP)
    source: bool = True
    formerly: tuple[str, ...] = ()

    def label(self, entity: str) -> str:
        """The label that an entity always has in this row; empty for one that varies."""
        pairs = (item.partition("-") for item in self.entities)
        return next((label for name, _, label in pairs if name == entity), "")

    @property
    def desc(self) -> str:
        """The desc label, if it has one."""
        return self.label("desc")


@cache
def output_table() -> dict[str, Output]:
    """The table of outputs, key -> row."""
    rows: dict[str, dict[str, Any]] = tomllib.loads(read_text(DATA / "outputs.toml"))
    lists = ("entities", "levels", "formerly")
    return {
        key: Output(key, **row | {name: tuple(row[name]) for name in lists if name in row})
        for key, row in rows.items()
    }


@cache
def figure_table() -> dict[str, dict[str, Any]]:
    """The table of the reports' figures, key -> row, in the order of the reports."""
    return tomllib.loads(read_text(DATA / "figures.toml"))


def figure_title(key: str) -> str:
    """The title of a figure of the reports."""
    return str(figure_table()[key]["title"])


@dataclass(frozen=True)
class Naming:
    """Everything that the names of a recording's files depend on.

    Attributes
    ----------
    output_dir
        The output folder.
    stem
        Name of the raw file without suffix, `group…` for files about several recordings.
    space, atlas
        Labels of the template and the atlas.
    scaling
        `cohort` for what was made from series that were scaled with the cohort's statistics.
    """

    output_dir: str
    stem: str
    space: str
    atlas: str
    scaling: str = ""

    def path(self, key: str, *, model: str = "", extension: str | None = None) -> Path:
        """Where the output `key` goes.

        >>> naming = Naming("/out", "sub-01_task-rest_run-1", "MNI152NLin6Asym", "A424")
        >>> naming.path("denoised", extension=".json").name
        'sub-01_task-rest_run-1_space-MNI152NLin6Asym_atlas-A424_desc-denoised_timeseries.json'
        >>> naming.path("tokens", model="brainlm13M").name
        'sub-01_task-rest_run-1_space-MNI152NLin6Asym_atlas-A424_model-brainlm13M_tokens.npz'
        """
        return self._path(key, output_table()[key].entities, model, extension)

    def existing(self, key: str, *, model: str = "", extension: str | None = None) -> Path:
        """Where the output `key` is: under its name, or under the one in older folders."""
        path = self.path(key, model=model, extension=extension)
        formerly = output_table()[key].formerly
        if not formerly or path.exists():
            return path
        older = self._path(key, formerly, model, extension)
        return older if older.exists() else path

    def _path(self, key: str, patterns: Sequence[str], model: str, extension: str | None) -> Path:
        row = output_table()[key]
        values = {"space": self.space, "atlas": self.atlas, "to": self.space}
        values |= {"model": model, "scaling": self.scaling}
        if not model and any("model" in pattern for pattern in patterns):
            raise ValueError(f"{key}: belongs to a model; which one?")
        entities = {}
        for pattern in patterns:
            entity, _, label = pattern.partition("-")
            entities[entity] = label.format(**values) or values[entity]
        name = build(self.stem if row.source else "", entities, row.suffix)
        folder = self.folder(row.datatype) if row.datatype else Path(self.output_dir)
        return folder / f"{name}{row.extension if extension is None else extension}"

    def folder(self, datatype: str) -> Path:
        """`OUT/sub-01[/ses-01]/<datatype>`."""
        folder = Path(self.output_dir) / self.subject
        session = parse(self.stem).get("ses")
        return folder.joinpath(*([f"ses-{session}"] if session else []), datatype)

    @property
    def subject(self) -> str:
        """Participant as in the file names, such as `sub-01`."""
        return parse(self.stem).subject

    def figure(self, key: str, *, model: str = "", number: int = 0) -> Path:
        """Where the figure `key` of the report goes; `number` counts figures of the same key."""
        row = figure_table()[key]
        entities = {"desc": row["desc"].format(number=f"{number:02d}")}
        if row["of"] in ("model", "cohort_model", "perturb"):
            entities |= {"model": model, "scaling": self.scaling}
        return self._figure(row, entities)

    def existing_figure(self, key: str, *, model: str = "", number: int = 0) -> Path:
        """Where the figure `key` is: under its name, or under the one in older folders.

        >>> naming = Naming("/out", "sub-01_task-rest", "MNI152NLin6Asym", "A424", "cohort")
        >>> naming.figure("networks", model="brainlmdemo").name
        'sub-01_task-rest_model-brainlmdemo_scaling-cohort_desc-networks_bold.svg'
        """
        path, row = self.figure(key, model=model, number=number), figure_table()[key]
        if "formerly" not in row or path.exists():
            return path
        values = {"model": model, "scaling": self.scaling, "number": f"{number:02d}"}
        older = self._figure(row, {"desc": row["formerly"].format(**values)})
        return older if older.exists() else path

    def _figure(self, row: Mapping[str, Any], entities: Mapping[str, str]) -> Path:
        above = Path(self.output_dir)
        folder = (above if self.subject == GROUP else above / self.subject) / "figures"
        extension = row.get("extension", ".svg")
        return folder / str(build(self.stem, entities, row["suffix"], extension))

    def sidecar(self, key: str, values: Mapping[str, object]) -> dict[str, object]:
        """The sidecar's content: what the table always says, then what this run adds."""
        made = {"Name": "brainlm-bids", "Version": __version__}
        return {**output_table()[key].sidecar, "GeneratedBy": made, **values}

    def uri(self, path: Path) -> str:
        """A BIDS URI of a derivative of this data set."""
        return f"bids::{path.relative_to(self.output_dir).as_posix()}"


def describe_labels(level: str = "participant") -> dict[str, str]:
    """The desc labels that a level writes with their meaning, for descriptions.tsv.

    A label that several kinds of file have gets the description of each.
    """
    texts: dict[str, dict[str, str]] = {}
    for row in output_table().values():
        if row.desc and level in row.levels:
            about = str(row.sidecar["Description"])
            texts.setdefault(row.desc, {}).setdefault(row.suffix, about)
    return {
        label: "; ".join(
            f"{suffix}: {text}" if len(by_suffix) > 1 else text
            for suffix, text in by_suffix.items()
        )
        for label, by_suffix in texts.items()
    }


# BrainLM's atlas: the published one, its approximation, a file of the user.
A424 = "A424"


def is_a424(atlas: str) -> bool:
    """Whether a label is that of BrainLM's atlas, and not of a parcellation beside it.

    >>> is_a424("A424approx"), is_a424("Schaefer100x7")
    (True, False)
    """
    return not atlas or atlas.startswith(A424)


def atlas_path(output_dir: Path, space: str, label: str) -> Path:
    """Where the image of an atlas lies in an output folder."""
    entities = {"tpl": space, "atlas": label, "res": "2" if is_a424(label) else ""}
    return output_dir / f"tpl-{space}" / str(build("", entities, "dseg", ".nii.gz"))


# --- records: what was computed under which configuration ------------------------------------

# The stages of a run that are complete, or not, as a whole.
SERIES_STAGE = "series"
COHORT_SERIES_STAGE = "scaling-cohort"


def model_stage(model: str, scaling: str = "", part: str = "") -> str:
    """The stage of a model's files, under a scaling; part: of those, such as `decoding`.

    >>> model_stage("brainlm13M"), model_stage("brainlm13M", "cohort", "decoding")
    ('model-brainlm13M', 'model-brainlm13M_scaling-cohort_desc-decoding')
    """
    return build("", {"model": model, "scaling": scaling, "desc": part}).stem


def parcellation_stage(label: str) -> str:
    """The stage of the series of a parcellation beside A424.

    >>> parcellation_stage("Schaefer100x7")
    'atlas-Schaefer100x7'
    """
    return build("", {"atlas": label}).stem


# Fields of sidecars that records repeat.
TOLD = ("Warnings", "DistortionCorrection")


@lru_cache(16)  # planning asks for the same several times in a row
def record_path(output_dir: Path, stem: str, stage: str) -> Path:
    """Where the record of a run's stage lies."""
    return _records_in(output_dir) / f"{stem}_{stage}.json"


@lru_cache(16)
def _records_in(output_dir: Path) -> Path:
    return output_dir / "logs" / "records"


def write_record(
    output_dir: Path, stem: str, stage: str, configuration: str, outputs: Sequence[Path]
) -> Path:
    """Say that a stage is complete; written last, so a record means that all files are there.

    It repeats what a call that finds the stage complete tells of it, so that the record of a stage
    is all that such a call reads.
    """
    names = {path.relative_to(output_dir).as_posix(): path for path in outputs}
    listed = {name: path.stat().st_size for name, path in sorted(names.items())}
    values = {
        "Configuration": configuration,
        "Outputs": listed,
        "Sidecars": {name: _told(names[name]) for name in listed if name.endswith(".json")},
    }
    return write_json(record_path(output_dir, stem, stage), values)


def _told(sidecar: Path) -> dict[str, Any]:
    with contextlib.suppress(UserError):  # a damaged one is reported where it is needed
        values = read_json(sidecar)
        return {field: values[field] for field in TOLD if field in values}
    return {}


def recorded_sidecar(output_dir: Path, record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The fields `TOLD` of a sidecar of a stage, and others where its record does not repeat them.

    Parameters
    ----------
    output_dir
        The folder.
    record
        Of the stage, as `read_recently` gives it.
    name
        Of the sidecar, as the record lists it.

    Raises
    ------
    UserError
        If the sidecar has to be read, and cannot be: the record is of an older version, or the
        file is no longer in the size that was recorded.
    """
    known, size = record.get("Sidecars"), record["Outputs"].get(name)
    fields = known.get(name) if isinstance(known, dict) else None
    if isinstance(fields, dict) and _has_size(f"{output_dir}/{name}", size):
        return fields
    return read_recently(output_dir / name)


def is_complete(output_dir: Path, stem: str, stage: str, configuration: str) -> bool:
    """Whether a stage was completed under this configuration and all its files are still there."""
    record = read_record(output_dir, stem, stage)
    return record is not None and record[0] == configuration and not changed(output_dir, record[1])


def read_record(output_dir: Path, stem: str, stage: str) -> tuple[str, dict[str, int]] | None:
    """(configuration, size of each file) of a stage; None if it was never completed."""
    try:
        record = read_recently(record_path(output_dir, stem, stage))
        return str(record["Configuration"]), dict(record["Outputs"])
    except (UserError, KeyError, TypeError, ValueError):
        return None


def why_unread(output_dir: Path, stem: str, stage: str) -> str | None:
    """Why the record of a stage cannot be read that is there; None if it can, or there is none."""
    path = record_path(output_dir, stem, stage)
    try:
        if path.exists():
            read_recently(path)
    except (UserError, OSError) as error:
        return str(error)
    return None


def read_recently(path: Path) -> Mapping[str, Any]:
    """As `files.read_json`, and not read again as long as the file is the same.

    Planning asks for a record, and for the sidecars that it lists, several times in a row. Files of
    an output folder are replaced and never written in place, so that another content is another
    file, with another number and time.
    """
    try:
        found = path.stat()
    except OSError:
        return read_json(path)  # it says why
    return _read_of(path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(16)
def _read_of(path: Path, *identity: int) -> Mapping[str, Any]:
    return read_json(path)


def changed(output_dir: Path, sizes: Mapping[str, int]) -> str | None:
    """The first recorded file that is not there any more, or not in its size."""
    top = str(output_dir)  # dozens of files for each run: paths as objects take longer
    return next((name for name, n in sizes.items() if not _has_size(f"{top}/{name}", n)), None)


def _has_size(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size  # noqa: PTH116
    except OSError:
        return False
