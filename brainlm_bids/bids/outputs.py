"""Names, sidecars and whole files of the derivatives, driven by `data/outputs.toml`.

What comes in: a key of the table, the source's entities, values. What goes out: a file that is
there whole or not at all, under its BIDS name, with the sidecar that says how it was made.
"""

import contextlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from brainlm_bids import __version__
from brainlm_bids.bids.names import GROUP, build, parse, sidecar_of
from brainlm_bids.errors import UserError
from brainlm_bids.files import (
    DATA,
    atomically,
    read_json,
    read_rows,
    read_text,
    write_json,
    write_text,
    write_tsv,
)

BIDS_VERSION = "1.11.0"
CODE_URL = "https://github.com/brainlm-bids/brainlm-bids"
NOT_IN_BIDS_YET = (
    "*.html",
    "figures",
    "*_timeseries.*",
    "*_relmat.*",
    "*_embeddings.*",
    "*_xfm.*",
    "*_mixing.*",
    "*_metrics.*",
    "*_scaling.*",
    "group_*",
    "*_tokens.*",
    "*_statmap.*",
    "*_null.*",
    "*_model-*",
    "experiment.json",
)


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
        if row["of"] in ("model", "cohort_model"):
            entities |= {"model": model, "scaling": self.scaling}
        above = Path(self.output_dir)
        folder = (above if self.subject == GROUP else above / self.subject) / "figures"
        return folder / str(build(self.stem, entities, row["suffix"], ".svg"))

    def sidecar(self, key: str, values: Mapping[str, object]) -> dict[str, object]:
        """The sidecar's content: what the table always says, then what this run adds."""
        made = {"Name": "brainlm-bids", "Version": __version__}
        return {**output_table()[key].sidecar, "GeneratedBy": made, **values}

    def uri(self, path: Path) -> str:
        """A BIDS URI of a derivative of this data set."""
        return f"bids::{path.relative_to(self.output_dir).as_posix()}"


def write_dataset_files(
    output_dir: Path,
    bids_dir: Path | None,
    descriptions: Mapping[str, str],
    fmriprep_dir: Path | None = None,
) -> None:
    """The files of the data set as a whole; array jobs that share the folder take turns.

    bids_dir: None keeps the description of a folder that has one.
    """
    with dataset_lock(output_dir):
        if bids_dir is not None:
            _merge_description(output_dir, bids_dir, fmriprep_dir)
        _merge_lines(output_dir / ".bidsignore", NOT_IN_BIDS_YET)
        _merge_descriptions(output_dir / "descriptions.tsv", descriptions)
        readme = output_dir / "README.md"
        if not readme.exists():
            write_text(readme, read_text(DATA / "README_outputs.md"))


def ignore(output_dir: Path, patterns: Sequence[str]) -> None:
    """Add patterns to the folder's .bidsignore."""
    with dataset_lock(output_dir):
        _merge_lines(output_dir / ".bidsignore", patterns)


@contextlib.contextmanager
def dataset_lock(output_dir: Path) -> Iterator[None]:
    """Hold the lock of an output folder."""
    from filelock import FileLock

    logs = output_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with FileLock(logs / ".lock", timeout=300):
        yield


def _merge_description(output_dir: Path, bids_dir: Path, fmriprep_dir: Path | None) -> None:
    """Add this call's sources to the description; what other calls or the user wrote stays."""
    path = output_dir / "dataset_description.json"
    present = read_json(path) if path.exists() else {}
    raw = read_json(bids_dir / "dataset_description.json")
    sources = [{"URL": bids_dir.as_uri(), "DOI": raw.get("DatasetDOI", "n/a")}]
    links = {"raw": bids_dir.as_uri()}
    made = [{"Name": "brainlm-bids", "Version": __version__, "CodeURL": CODE_URL}]
    if fmriprep_dir is not None:
        source = read_json(fmriprep_dir / "dataset_description.json")
        links["fmriprep"] = fmriprep_dir.as_uri()
        sources.append({"URL": links["fmriprep"], "DOI": source.get("DatasetDOI", "n/a")})
        made += source.get("GeneratedBy") or []
    others = [one for one in present.get("GeneratedBy", []) if one.get("Name") != "brainlm-bids"]
    links = {**present.get("DatasetLinks", {}), **links}
    # a data set that moved: its old place is linked no more
    known = [one for one in present.get("SourceDatasets", []) if one.get("URL") in links.values()]
    description = {
        "Name": f"brainlm-bids derivatives of {raw.get('Name', bids_dir.name)}",
        **present,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": _once([*made, *others]),
        "SourceDatasets": _once([*sources, *known]),
        "DatasetLinks": links,
    }
    if present != description:
        write_json(path, description)


def _once(values: Sequence[object]) -> list[object]:
    """Equal values once, in the order of a canonical text, whoever came first."""
    texts = {json.dumps(value, sort_keys=True): value for value in values}
    return [texts[text] for text in sorted(texts)]


def _merge_lines(path: Path, lines: Sequence[str]) -> None:
    present = read_text(path).splitlines() if path.exists() else []
    missing = [line for line in lines if line not in present]
    if missing:
        write_text(path, "\n".join([*present, *missing]) + "\n")


def _merge_descriptions(path: Path, descriptions: Mapping[str, str]) -> None:
    present: dict[str, str] = {}
    if path.exists():
        present = {row["desc_id"]: row["description"] for row in read_rows(path)}
    merged = dict(sorted((present | {f"desc-{k}": v for k, v in descriptions.items()}).items()))
    if merged != present:
        write_tsv(path, ["desc_id", "description"], [list(merged), list(merged.values())])


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


def atlas_path(output_dir: Path, space: str, label: str) -> Path:
    """Where the image of the atlas lies in an output folder."""
    entities = {"tpl": space, "atlas": label, "res": "2"}
    return output_dir / f"tpl-{space}" / str(build("", entities, "dseg", ".nii.gz"))


def write_atlas_files(
    output_dir: Path,
    *,
    space: str,
    label: str,
    image: Any,
    table: Mapping[str, Sequence[object]],
    description: Mapping[str, object],
) -> None:
    """The atlas as it was used: `tpl-<space>/…_dseg.{nii.gz,json,tsv}` and its description."""
    image_path = atlas_path(output_dir, space, label)
    last = image_path.with_name(f"{build('', {'tpl': space, 'atlas': label}).stem}_dseg.tsv")
    with dataset_lock(output_dir):
        if not last.exists():  # one per space: the same atlas may be used in two
            with atomically(image_path) as temporary:
                image.to_filename(temporary)
            made = {"Resolution": "2 mm isotropic", "SpatialReference": space}
            write_json(sidecar_of(image_path), {**made, **description})
            write_tsv(last, list(table), list(table.values()))
        if not (output_dir / f"atlas-{label}_description.json").exists():
            write_json(output_dir / f"atlas-{label}_description.json", description)


# --- records: what was computed under which configuration ------------------------------------

# The stages of a run that are complete, or not, as a whole.
SERIES_STAGE = "series"
COHORT_SERIES_STAGE = "scaling-cohort"


def model_stage(model: str, scaling: str = "", part: str = "") -> str:
    """The stage of a model's files, under a scaling; part: of those, such as `untrained`.

    >>> model_stage("brainlm13M"), model_stage("brainlm13M", "cohort", "untrained")
    ('model-brainlm13M', 'model-brainlm13M_scaling-cohort_desc-untrained')
    """
    return build("", {"model": model, "scaling": scaling, "desc": part}).stem


def record_path(output_dir: Path, stem: str, stage: str) -> Path:
    """Where the record of a run's stage lies."""
    return output_dir / "logs" / "records" / f"{stem}_{stage}.json"


def write_record(
    output_dir: Path, stem: str, stage: str, configuration: str, outputs: Sequence[Path]
) -> Path:
    """Say that a stage is complete; written last, so a record means that all files are there."""
    listed = {path.relative_to(output_dir).as_posix(): path.stat().st_size for path in outputs}
    values = {"Configuration": configuration, "Outputs": dict(sorted(listed.items()))}
    return write_json(record_path(output_dir, stem, stage), values)


def is_complete(output_dir: Path, stem: str, stage: str, configuration: str) -> bool:
    """Whether a stage was completed under this configuration and all its files are still there."""
    record = read_record(output_dir, stem, stage)
    return record is not None and record[0] == configuration and not changed(output_dir, record[1])


def read_record(output_dir: Path, stem: str, stage: str) -> tuple[str, dict[str, int]] | None:
    """(configuration, size of each file) of a stage; None if it was never completed."""
    try:
        record = read_json(record_path(output_dir, stem, stage))
        return str(record["Configuration"]), dict(record["Outputs"])
    except (UserError, KeyError, TypeError, ValueError):
        return None


def changed(output_dir: Path, sizes: Mapping[str, int]) -> str | None:
    """The first recorded file that is not there any more, or not in its size."""
    return next((name for name, n in sizes.items() if not _has_size(output_dir / name, n)), None)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
