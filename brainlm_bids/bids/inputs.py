"""What is to be processed: subjects and runs with their files and metadata, found with PyBIDS.

What comes in: a raw BIDS folder and a selection. What goes out: `Run` values whose problems, if
any, are already known and said in one line, so that a broken run never reaches the workflow.
Nothing is written into the data set.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brainlm_bids.bids.fmriprep import (
    CIFTI_SPACE,
    SPACES,
    Preprocessed,
    check_derivatives,
    find_preprocessed,
)
from brainlm_bids.bids.names import matches, parse, without_prefix
from brainlm_bids.bids.timeseries import read_timeseries, stem_of
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES
from brainlm_bids.settings import Settings
from brainlm_bids.values import did_you_mean

# Repetition times of fMRI lie far below; a larger number is one in milliseconds.
LONGEST_TR = 30.0


@dataclass(frozen=True)
class Run:
    """One BOLD run: where it is, what its sidecars say, and what is wrong with it."""

    source: Path
    bids_dir: Path
    metadata: dict[str, Any] = field(hash=False)
    t1w: Path | None = None
    problem: str | None = None
    skip: str | None = None
    warnings: tuple[Notice, ...] = ()
    preprocessed: Preprocessed | None = None  # what fMRIPrep left of it, where we start from that

    timeseries: bool = False  # the source is a parcel series that others made

    @property
    def is_raw(self) -> bool:
        """Whether the run starts from raw BOLD."""
        return self.preprocessed is None and not self.timeseries

    @property
    def has_volumes(self) -> bool:
        """Whether the run has images, as opposed to grayordinates or a parcel series."""
        if self.preprocessed is not None:
            return self.preprocessed.space != CIFTI_SPACE
        return not self.timeseries

    @property
    def stem(self) -> str:
        """The raw run's name without suffix and extension, entities word for word."""
        if self.preprocessed is not None:
            return self.preprocessed.stem
        if self.timeseries:
            return stem_of(self.source)
        return parse(self.source.name).stem

    @property
    def entities(self) -> dict[str, str]:
        """Entities as the file name spells them (`run-1` stays `1`, `run-01` stays `01`)."""
        return parse(self.stem).entities

    @property
    def subject(self) -> str:
        """Label of the subject, without `sub-`."""
        return self.entities["sub"]

    @property
    def session(self) -> str | None:
        """Label of the session, without `ses-`; None without one."""
        return self.entities.get("ses")

    @property
    def tr(self) -> float:
        """Repetition time in seconds, of the sidecar."""
        return float(self.metadata["RepetitionTime"])

    @property
    def uri(self) -> str:
        """BIDS URI of the source, or the address of its file outside the data set."""
        return self.uri_of(self.source)

    def uri_of(self, path: Path) -> str:
        """A BIDS URI into the data set that the run is read from; the address of other files."""
        if self.timeseries or not path.is_relative_to(self.bids_dir):
            return path.as_uri()
        return bids_uri(path, self.bids_dir, "raw" if self.preprocessed is None else "fmriprep")


def bids_uri(path: Path, bids_dir: Path, dataset: str = "raw") -> str:
    """A BIDS URI into a source data set, as the derivatives' DatasetLinks name it."""
    return f"bids:{dataset}:{path.relative_to(bids_dir).as_posix()}"


def find_runs(settings: Settings) -> list[Run]:
    """All BOLD runs of the selection, in the order of their names.

    Raises
    ------
    UserError
        If BIDS_DIR is no BIDS data set, a requested label does not exist, or nothing is left.
    """
    if settings.fmriprep_dir is not None:
        return _find_preprocessed(settings, settings.fmriprep_dir)
    _check_labels(settings)
    layout = _index(settings)
    filters = _read_filters(settings.bids_filter_file)
    chosen = _selection(settings)
    files = _query(layout, filters, "bold", {"suffix": "bold", **chosen}, settings)
    if not files:
        every = _query(layout, {}, "bold", {"suffix": "bold"}, replace(settings, run_id=()))
        names = [path.name for path in every]
        raise UserError(f"{settings.bids_dir}: {_no_match(names, settings)}")
    t1w = _query(layout, filters, "t1w", {"suffix": "T1w", **_subjects(settings)}, settings)
    return [_describe(path, t1w, settings.bids_dir) for path in files]


def given_timeseries(settings: Settings, parcels: Sequence[str]) -> list[Run]:
    """The series of `--timeseries` as runs, in the order of their names; `parcels`: the atlas's."""
    runs = [_describe_timeseries(path, settings, parcels) for path in settings.timeseries]
    stems = [run.stem for run in runs]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise UserError(f"--timeseries: two files would both be called {twice}; rename one")
    return sorted(runs, key=lambda run: run.stem)


def _describe_timeseries(path: Path, settings: Settings, parcels: Sequence[str]) -> Run:
    def run(**values: Any) -> Run:
        return Run(path, path.parent, timeseries=True, **values)

    try:
        values, tr = read_timeseries(path, parcels)
    except UserError as error:
        return run(metadata={}, problem=f"--timeseries {error}")
    tr = settings.timeseries_tr or tr
    if tr is None:
        said = f"{path.name}: neither it nor a JSON beside it says the repetition time; give "
        return run(metadata={}, problem=said + "--timeseries-tr SECONDS")
    if len(values) < MINIMUM_VOLUMES:
        short = f"{path.name}: {len(values)} volumes, fewer than {MINIMUM_VOLUMES}"
        return run(metadata={"RepetitionTime": tr}, skip=short)
    return run(metadata={"RepetitionTime": tr})


def _find_preprocessed(settings: Settings, root: Path) -> list[Run]:
    """Runs of fMRIPrep's output folder, in the order of their names."""
    check_derivatives(root)
    found = find_preprocessed(root, settings.participant_label, _spaces(settings))
    chosen = [one for one in found if _is_selected(parse(one[1]).entities, settings)]
    if not chosen:
        names = [stem for _, stem, _ in found]
        raise UserError(f"--derivatives {root}: {_no_match(names, settings)}")
    runs = []
    for source, stem, reason in sorted(chosen, key=lambda one: one[1]):
        if source is None:
            runs.append(Run(root / f"{stem}_bold.nii.gz", root, {}, problem=reason))
        else:
            runs.append(_describe_preprocessed(source, root, settings.bids_dir))
    return runs


def _spaces(settings: Settings) -> Sequence[str]:
    """Which of fMRIPrep's BOLD files to take, in the order of preference."""
    if settings.input_space != "auto":
        return (settings.input_space,)
    if settings.strategy is None and settings.denoise != "none":
        # ICA-AROMA looks at voxels outside of grey matter, which CIFTI lacks.
        return [space for space in SPACES if space != CIFTI_SPACE]
    return SPACES


def _is_selected(entities: dict[str, str], settings: Settings) -> bool:
    wanted = {"ses": settings.session_label, "task": settings.task_id, "run": settings.run_id}
    return matches(entities, wanted)


def _describe_preprocessed(source: Preprocessed, root: Path, bids_dir: Path) -> Run:
    """One run of fMRIPrep; what its sidecar lacks is taken from the raw run's."""
    raw = bids_dir / source.bold.relative_to(root).with_name(f"{source.stem}_bold.nii.gz")
    try:
        metadata = _read_metadata(raw, bids_dir) | _read_metadata(source.bold, root)
    except UserError as error:
        said = f"{source.bold.name}: its sidecar {error}"
        return Run(source.bold, root, {}, problem=said, preprocessed=source)
    problem = _metadata_problem(source.bold, metadata)
    if problem is not None:
        return Run(source.bold, root, metadata, problem=problem, preprocessed=source)
    if source.space == CIFTI_SPACE:
        return Run(source.bold, root, metadata, skip=_too_short(source.bold), preprocessed=source)
    found = _image_problem(source.bold, float(metadata["RepetitionTime"]))
    return Run(source.bold, root, metadata, None, *found, source)


def _too_short(cifti: Path) -> str | None:
    import nibabel as nb

    n_volumes = nb.load(cifti).shape[0]  # type: ignore[attr-defined]
    if n_volumes >= MINIMUM_VOLUMES:
        return None
    return f"{cifti.name}: {n_volumes} volumes, fewer than {MINIMUM_VOLUMES}"


def _index(settings: Settings) -> Any:
    from bids import BIDSLayout, BIDSLayoutIndexer

    if not (settings.bids_dir / "dataset_description.json").is_file():
        raise UserError(
            f"{settings.bids_dir}: there is no dataset_description.json; is this the top of a "
            "BIDS data set?"
        )
    # Sidecars are read run by run below: PyBIDS stops at the first broken one, and takes three
    # times as long.
    indexer = BIDSLayoutIndexer(
        validate=not settings.skip_bids_validation,
        ignore=list(_ignored(settings)),
        index_metadata=False,
    )
    try:
        return BIDSLayout(
            settings.bids_dir,
            validate=not settings.skip_bids_validation,
            indexer=indexer,
            database_path=settings.bids_database_dir,
        )
    except (ValueError, TypeError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{settings.bids_dir}: not readable as BIDS: {first}") from error


def _ignored(settings: Settings) -> Iterator[str | re.Pattern[str]]:
    """Folders that hold no raw data, and the subjects that nobody asked for."""
    yield from ("code", "stimuli", "sourcedata", "models", "derivatives", "phenotype")
    yield re.compile(r"/\.")
    if settings.output_dir.is_relative_to(settings.bids_dir):
        relative = settings.output_dir.relative_to(settings.bids_dir)
        yield re.compile("^/" + re.escape(relative.as_posix()) + "(/|$)")
    # A kept index serves other calls too, so it holds every subject.
    if settings.participant_label and settings.bids_database_dir is None:
        labels = "|".join(re.escape(label) for label in settings.participant_label)
        yield re.compile(rf"^/sub-(?!(?:{labels})(?:/|$))")


def _check_labels(settings: Settings) -> None:
    for label in settings.participant_label:
        if not (settings.bids_dir / f"sub-{label}").is_dir():
            there = [path.name[len("sub-") :] for path in settings.bids_dir.glob("sub-*")]
            raise UserError(
                f"--participant-label {label}: there is no folder sub-{label} in "
                f"{settings.bids_dir}{did_you_mean(label, there)}"
            )


def _no_match(names: Sequence[str], settings: Settings) -> str:
    """Why no run matches the selection: the first label that none of these files has."""
    for flag, entity, labels in (
        ("--session-label", "ses", settings.session_label),
        ("--task-id", "task", settings.task_id),
        ("--run-id", "run", settings.run_id),
    ):
        there = sorted({parse(name).entities.get(entity, "") for name in names} - {""})
        for label in labels:
            if not any(matches({entity: known}, {entity: [label]}) for known in there):
                return (
                    f"no BOLD run matches {flag} {label}{did_you_mean(label, there)} "
                    f"(there are: {', '.join(there) or 'none'})"
                )
    return "no BOLD run matches the selection; nothing to do"


def _subjects(settings: Settings) -> dict[str, Any]:
    if not settings.participant_label:
        return {}
    return {"subject": list(settings.participant_label)}


def _selection(settings: Settings) -> dict[str, Any]:
    chosen = _subjects(settings)
    for key, entity, labels in (
        ("session", "ses", settings.session_label),
        ("task", "task", settings.task_id),
    ):
        if labels:
            chosen[key] = [without_prefix(entity, label) for label in labels]
    return chosen


def _query(
    layout: Any,
    filters: dict[str, Any],
    name: str,
    query: dict[str, Any],
    settings: Settings,
) -> list[Path]:
    extensions = [".nii.gz", ".nii"]
    merged = {"extension": extensions, **query, **filters.get(name, {})}
    try:
        found = layout.get(return_type="filename", invalid_filters="allow", **merged)
    except (ValueError, TypeError) as error:
        raise UserError(f"--bids-filter-file {settings.bids_filter_file}: {error}") from error
    paths = sorted(Path(path) for path in found)
    if name == "bold" and settings.run_id:
        # not in the query: runs are compared as numbers, --run-id 1 means run-1 and run-01
        wanted = {"run": settings.run_id}
        paths = [path for path in paths if matches(parse(path.name).entities, wanted)]
    return paths


def _read_filters(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        filters = read_json(path)
    except UserError as error:
        raise UserError(f"--bids-filter-file {error}") from None
    if not all(isinstance(value, dict) for value in filters.values()):
        raise UserError(f'--bids-filter-file {path}: expected {{"bold": {{…}}, "t1w": {{…}}}}')
    unknown = sorted(set(filters) - {"bold", "t1w"})
    if unknown:
        raise UserError(f'--bids-filter-file {path}: {unknown[0]!r} is neither "bold" nor "t1w"')
    return filters


def sidecars(path: Path, bids_dir: Path) -> list[Path]:
    """JSON files that hold for an image by BIDS' inheritance, the most general first."""
    image = parse(path.name)
    inside = [folder for folder in path.parents if folder.is_relative_to(bids_dir)]
    found: list[Path] = []
    for folder in reversed(inside):
        held = []
        for file in folder.glob(f"*{image.suffix}.json"):
            name = parse(file.name)
            if name.suffix == image.suffix and name.entities.items() <= image.entities.items():
                held.append((len(name.entities), file.name, file))
        found += [file for *_, file in sorted(held)]
    return found


def _read_metadata(path: Path, bids_dir: Path) -> dict[str, Any]:
    """The merged sidecars of an image, the nearest wins; UserError names a broken one."""
    metadata: dict[str, Any] = {}
    for file in sidecars(path, bids_dir):
        metadata |= read_json(file)
    return metadata


def _describe(path: Path, t1w: list[Path], bids_dir: Path) -> Run:
    """One run with its metadata (sidecars inherited) and whatever is wrong with it."""
    try:
        metadata = _read_metadata(path, bids_dir)
    except UserError as error:
        return Run(path, bids_dir, {}, None, f"{path.name}: its sidecar {error}")
    entities = parse(path.name).entities
    anatomical = _matching_t1w(entities, t1w)
    if "echo" in entities or "part" in entities:
        parts = f"{path.name}: multi-echo and complex-valued runs are not supported"
        return Run(path, bids_dir, metadata, anatomical, skip=parts)
    problem = _metadata_problem(path, metadata)
    if problem is not None:
        return Run(path, bids_dir, metadata, anatomical, problem)
    problem, skip, warnings = _image_problem(path, float(metadata["RepetitionTime"]))
    return Run(path, bids_dir, metadata, anatomical, problem, skip, warnings)


def _matching_t1w(entities: dict[str, str], t1w: list[Path]) -> Path | None:
    """The T1w of the run's session, else the subject's first."""
    own = [path for path in t1w if parse(path.name).get("sub") == entities["sub"]]
    same = [path for path in own if parse(path.name).get("ses") == entities.get("ses", "")]
    return next(iter(same or own), None)


def _metadata_problem(path: Path, metadata: dict[str, Any]) -> str | None:
    tr = metadata.get("RepetitionTime")
    if tr is None and "VolumeTiming" in metadata:
        return f"{path.name}: VolumeTiming without RepetitionTime (sparse) is not supported"
    if tr is None:
        return (
            f"{path.name}: no RepetitionTime in its sidecars; add it (in seconds) to the JSON file"
        )
    if isinstance(tr, bool) or not isinstance(tr, int | float) or not 0 < tr < LONGEST_TR:
        return f"{path.name}: RepetitionTime {tr!r} in its sidecar is not a time in seconds"
    return None


def _image_problem(path: Path, tr: float) -> tuple[str | None, str | None, tuple[Notice, ...]]:
    """(problem, reason to skip, warnings) from the header of the image alone."""
    import nibabel as nb

    try:
        image = nb.load(path)
        shape, zooms = image.shape, image.header.get_zooms()  # type: ignore[attr-defined]
    except (OSError, EOFError, ValueError, nb.filebasedimages.ImageFileError) as error:
        return f"{path.name}: cannot be read as an image ({error})", None, ()
    if len(shape) != 4:
        return f"{path.name}: is {len(shape)}-D {shape}, not a 4-D time series", None, ()
    if min(shape[:3]) < 4:
        return f"{path.name}: {shape[:3]} voxels are too few for a brain", None, ()
    if shape[3] < MINIMUM_VOLUMES:
        short = f"{path.name}: {shape[3]} volumes, fewer than {MINIMUM_VOLUMES}"
        return None, short, ()
    header_tr = _header_tr(image, float(zooms[3]))
    if header_tr and abs(header_tr - tr) > 0.01 * tr:
        text = (
            f"{path.name}: the repetition time in the image header is {header_tr:g} s; the "
            f"{tr:g} s of the sidecar are used."
        )
        return None, None, (notice(Kind.TR_MISMATCH, text),)
    return None, None, ()


def _header_tr(image: Any, step: float) -> float:
    unit = image.header.get_xyzt_units()[1]
    return step * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)


def by_subject(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs of each subject, by its label; subjects sorted."""
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.subject):
        found.setdefault(run.subject, []).append(run)
    return found
