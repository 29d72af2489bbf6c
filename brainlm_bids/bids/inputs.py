"""The runs that a call processes: raw BOLD, existing derivatives, or given parcel series.

A data set or files, and a selection, come in. `Run` values go out. What is wrong with a run is
known by then and recorded in one line, so that a broken run never reaches the workflow.
"""

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from brainlm_bids.annex import is_absent, missing_subdatasets, not_fetched, not_installed
from brainlm_bids.bids.acquisition import Acquisition
from brainlm_bids.bids.anatomy import Anatomy
from brainlm_bids.bids.echoes import (
    FEWEST_ECHOES,
    about_numbers,
    images_of_runs,
    read_echoes,
    stem_of_run,
)
from brainlm_bids.bids.fieldmaps import Fieldmap
from brainlm_bids.bids.fmriprep import FMRIPREP
from brainlm_bids.bids.headers import (
    Look,
    look_at_cifti,
    look_at_image,
    metadata_problem,
)
from brainlm_bids.bids.layout import Selected, find_files
from brainlm_bids.bids.left_out import closed_reason
from brainlm_bids.bids.names import parse, sidecar_of, with_prefix, without_prefix
from brainlm_bids.bids.preprocessed import (
    CIFTI_SPACE,
    Preprocessed,
    Producer,
    check_derivatives,
    find_preprocessed,
)
from brainlm_bids.bids.selection import is_selected, no_match, wanted_labels
from brainlm_bids.bids.slices import SliceTable
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.bids.timeseries import stem_of
from brainlm_bids.bids.tree import NIFTI
from brainlm_bids.bids.xcp_d import XCP_D, complete, preprocessed_series
from brainlm_bids.errors import UserError
from brainlm_bids.notices import Notice
from brainlm_bids.settings import Settings

# By their names in `--derivatives`.
PRODUCERS = {producer.key: producer for producer in (FMRIPREP, XCP_D)}


@dataclass(frozen=True)
class Run:
    """One BOLD run: where it is, what its sidecars record, and what is wrong with it.

    Attributes
    ----------
    source
        The file that it is read from; of several echoes, the one with the shortest echo time.
    bids_dir
        The data set which that is in.
    metadata
        The merged sidecars.
    t1w
        The T1w image that it is registered to.
    lesions
        Masks of lesions of the T1w image.
    problem
        Why it cannot be processed, in one line.
    skip
        The policy by which it is left out, in one line.
    warnings
        What should be known of it.
    fieldmap
        What the field was measured by that distorts it.
    phase_encoding
        (direction such as `j-`, total read-out time in s); None where they are not known.
    no_fieldmap
        Why it has no field map, in one line; empty if it has one.
    sbref
        Its single-band reference image.
    slices
        When its slices were acquired, if they are to be corrected in time.
    echoes, echo_times
        Its echoes, if there are several, and their echo times in s, which ascend.
    preprocessed
        Its files in existing derivatives of fMRIPrep or XCP-D, if it starts from those.
    timeseries
        Whether the source is a parcel series that was made elsewhere.
    traceback
        Of an error of the program, for which it cannot be processed.
    taken
        Whether the call is about it. A file that only looks like a run is there with the reason.
    shape
        Of its image, as stored; None where it was not looked at.
    absent
        Files that it needs and whose contents git-annex has not fetched, as far as is known.
    beside
        Images that its T1w image, field map and reference were chosen from.
    """

    source: Path
    bids_dir: Path
    metadata: dict[str, Any] = field(hash=False)
    t1w: Path | None = None
    lesions: tuple[Path, ...] = ()
    problem: str | None = None
    skip: str | None = None
    warnings: tuple[Notice, ...] = ()
    fieldmap: Fieldmap | None = None
    phase_encoding: tuple[str, float] | None = None
    no_fieldmap: str = ""
    sbref: Path | None = None
    slices: SliceTable | None = None
    echoes: tuple[Path, ...] = ()
    echo_times: tuple[float, ...] = ()
    preprocessed: Preprocessed | None = None
    timeseries: bool = False
    traceback: str = field(default="", hash=False)
    taken: bool = True
    shape: tuple[int, ...] | None = None
    absent: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = field(default=(), hash=False)

    def broken(self, error: Exception) -> "Run":
        """The run with an error that concerns it alone, as its problem in one line.

        Anything but an unusable file is an error of the program, and says so.
        """
        if isinstance(error, UserError):
            return replace(self, problem=" ".join(str(error).split()))
        if isinstance(error, OSError):
            name = error.filename or self.source
            return replace(self, problem=f"{name}: {error.strerror or error}")
        text = " ".join(f"{type(error).__name__}: {error}".split())
        problem = f"{self.source.name}: internal error ({text}); please report it"
        return replace(self, problem=problem, traceback=traceback.format_exc())

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
    def for_tedana(self) -> bool:
        """Whether there are enough echoes for a TE-dependent analysis."""
        return len(self.echoes) >= FEWEST_ECHOES

    @property
    def reads(self) -> tuple[Path, ...]:
        """Every image that its series are made from, each once."""
        if self.preprocessed is not None:
            return self.preprocessed.files
        beside = [path for path in (self.sbref, self.t1w, *self.lesions) if path is not None]
        if self.fieldmap is not None:
            beside += self.fieldmap.files
        return tuple(dict.fromkeys([*(self.echoes or (self.source,)), *beside]))

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Every file by whose content its series are named."""
        labels = None if self.preprocessed is None else self.preprocessed.labels
        return self.reads if labels is None else (*self.reads, labels)

    @property
    def stem(self) -> str:
        """The raw run's name without suffix and extension, entities word for word.

        Several echoes are one run, which has none of their numbers, as in fMRIPrep's outputs.
        """
        if self.preprocessed is not None:
            return self.preprocessed.stem
        if self.timeseries:
            return stem_of(self.source)
        if not self.taken:
            return parse(self.source.name).stem
        return stem_of_run(parse(self.source.name), combined=bool(self.echoes))

    @property
    def entities(self) -> dict[str, str]:
        """Entities as the file name spells them (`run-1` stays `1`, `run-01` stays `01`)."""
        entities = parse(self.stem).entities
        if "sub" not in entities:  # only of what is not taken: that of its folder, if there is one
            folders = self.source.relative_to(self.bids_dir).parts
            entities |= parse(next((one for one in folders if one.startswith("sub-")), "")).entities
        return entities

    @property
    def subject(self) -> str:
        """Label of the subject, without `sub-`; empty for what is not taken and names none."""
        return self.entities.get("sub", "")

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
        source = self.preprocessed
        return bids_uri(path, self.bids_dir, "raw" if source is None else source.producer.key)


def bids_uri(path: Path, bids_dir: Path, dataset: str = "raw") -> str:
    """A BIDS URI into a source data set, as the derivatives' DatasetLinks name it."""
    return f"bids:{dataset}:{path.relative_to(bids_dir).as_posix()}"


class Describer(Protocol):
    """Finds out about runs of one kind, and looks at no file twice."""

    def describe(self, run: Run) -> Run:
        """A run of which only the images are known, with all that can be found out about it."""

    def candidates(self, run: Run) -> list[Path]:
        """Files that a run may be made from, by their names."""


class Selection(NamedTuple):
    """What a call selects, before it is looked at.

    Attributes
    ----------
    runs
        Of which only the images are known.
    others
        What is not processed, each with the reason.
    describer
        Makes a describer, which has looked at nothing yet, of what reads the files.
    """

    runs: list[Run]
    others: list[Run]
    describer: Callable[[SourceFiles], Describer]


def find_runs(settings: Settings, sources: SourceFiles | None = None) -> list[Run]:
    """All BOLD runs of the selection, in the order of their names.

    Parameters
    ----------
    settings
        Of the call.
    sources
        Reads the files.

    Raises
    ------
    UserError
        If BIDS_DIR is no BIDS data set, a requested label does not exist, or nothing is left.
    """
    return look_at(select_runs(settings), sources)


def look_at(selection: Selection, sources: SourceFiles | None = None) -> list[Run]:
    """The runs of a selection with what can be found out about them, in the order of their names.

    sources: reads the files.
    """
    describer = selection.describer(sources or SourceFiles())
    runs = [guarded(run, describer.describe) for run in selection.runs]
    return sorted([*runs, *selection.others], key=lambda run: run.source)


def select_runs(settings: Settings) -> Selection:
    """The BOLD runs of the selection, by the names of their files; raises as `find_runs`."""
    root = settings.derivatives_dir or settings.bids_dir
    missing = [path for path in missing_subdatasets(root) if is_asked_for(path, root, settings)]
    around = next((path for path in missing if root.resolve().is_relative_to(path)), None)
    if around is not None:
        raise UserError(f"{root}: {not_installed(around)}")
    if settings.producer is not None:
        return _select_preprocessed(settings, root, PRODUCERS[settings.producer], missing)
    files = find_files(settings)
    if not (files.bold or files.left_out or files.closed or missing):
        raise UserError(f"{settings.bids_dir}: {no_match(files.every_bold, settings)}")
    images = images_of_runs(files.bold)
    runs = [_of_images(paths, root) for paths in images.runs]
    others = [Run(path, root, {}, skip=reason) for path, reason in images.left_out]
    others += [_not_taken(*one, root) for one in files.left_out]
    others += [Run(one, root, {}, problem=closed_reason(one)) for one in files.closed]
    others += [_not_there(one, root) for one in missing]
    others += _without_runs(root, settings, [*runs, *others])
    return Selection(runs, others, partial(RawDescriber, files, settings))


def is_asked_for(path: Path, root: Path, settings: Settings) -> bool:
    """Whether a subdataset holds, or may hold, runs of the selection."""
    if root.resolve().is_relative_to(path):
        return True
    first = path.relative_to(root.resolve()).parts[0]
    asked = {with_prefix("sub", label) for label in settings.participant_label}
    return first.startswith("sub-") and (not asked or first in asked)


def _not_there(path: Path, root: Path) -> Run:
    """A subdataset that was never installed, as a row with what to do."""
    place = root / path.relative_to(root.resolve())
    return Run(place, root, {}, problem=not_installed(place))


def _of_images(paths: tuple[Path, ...], root: Path) -> Run:
    """A raw run of one image, or of several echoes, of which nothing else is known yet."""
    echoes = paths if len(paths) > 1 else ()
    return Run(paths[0], root, {}, echoes=echoes, warnings=about_numbers(paths))


def _not_taken(path: Path, reason: str, root: Path) -> Run:
    return Run(path, root, {}, skip=reason, taken=False)


def _without_runs(root: Path, settings: Settings, runs: Sequence[Run]) -> list[Run]:
    """A row for every participant that was asked for by name and has no run."""
    known = {run.subject for run in runs}
    folders = [root / with_prefix("sub", label) for label in settings.participant_label]
    return [
        _not_taken(folder, f"{folder.name}: has no BOLD run of the selection", root)
        for folder in folders
        if without_prefix("sub", folder.name) not in known
    ]


def guarded(run: Run, describe: Callable[[Run], Run]) -> Run:
    """What is found out about a run; whatever goes wrong is its own problem."""
    try:
        return describe(run)
    except Exception as error:
        return run.broken(error)


def _select_preprocessed(
    settings: Settings, root: Path, producer: Producer, missing: Sequence[Path]
) -> Selection:
    """Runs of a program's output folder; missing: its subdatasets that are not installed."""
    check_derivatives(root, producer)
    wanted = wanted_labels(settings)
    spaces = _spaces(settings, producer)
    found = find_preprocessed(root, producer, settings.participant_label, spaces)
    chosen = [one for one in found if is_selected(one.stem, wanted)]
    if not chosen and not missing:
        names = [one.stem for one in found]
        raise UserError(f"--derivatives {root}: {no_match(names, settings)}")
    runs, others = [], [_not_there(one, root) for one in missing]
    for one in chosen:
        if one.files is not None:
            runs.append(Run(one.path, root, {}, preprocessed=one.files))
        elif one.taken:
            others.append(Run(one.path, root, {}, problem=one.reason))
        else:
            others.append(_not_taken(one.path, one.reason, root))
    others += _without_runs(root, settings, [*runs, *others])
    before = settings.derivatives_dirs.get(FMRIPREP.key)
    return Selection(runs, others, partial(PreprocessedDescriber, settings.bids_dir, before))


def _spaces(settings: Settings, producer: Producer) -> Sequence[str]:
    """Which of a program's BOLD files to take, in the order of preference."""
    if settings.input_space != "auto":
        return (settings.input_space,)
    if not producer.denoised and settings.strategy is None and settings.denoise != "none":
        # ICA-AROMA looks at voxels outside of grey matter, which CIFTI lacks.
        return [space for space in producer.spaces if space != CIFTI_SPACE]
    return producer.spaces


class PreprocessedDescriber:
    """Describes runs of other derivatives; what a sidecar lacks is taken from the raw run's.

    before: the folder of fMRIPrep, where runs start from what was made of its series.
    """

    def __init__(self, raw_dir: Path, before: Path | None, sources: SourceFiles) -> None:
        self._raw_dir = raw_dir
        self._before = before
        self._sources = sources

    def candidates(self, run: Run) -> list[Path]:
        """The files of a run, and the sidecars of its series, its tables and the raw run."""
        source = self._with_level(run)
        described = self._sources.sidecars(run.source, run.bids_dir)
        texts = [*described, *self._sources.sidecars(self._raw(run), self._raw_dir)]
        texts += [] if source.confounds is None else [sidecar_of(source.confounds)]
        return [*source.files, *(path for path in texts if path.exists() or path.is_symlink())]

    def _raw(self, run: Run) -> Path:
        assert run.preprocessed is not None
        name = f"{run.preprocessed.stem}_bold.nii.gz"
        return self._raw_dir / run.source.relative_to(run.bids_dir).with_name(name)

    def _with_level(self, run: Run) -> Preprocessed:
        """The files of a run, with what a denoised series was made from."""
        source = run.preprocessed
        assert source is not None
        if not source.producer.denoised:
            return source
        try:
            metadata = self._sources.metadata(run.source, run.bids_dir)
        except UserError:  # told where the run is described
            metadata = {}
        level = preprocessed_series(source, run.bids_dir, metadata, self._before)
        return replace(source, level=level)

    def describe(self, run: Run) -> Run:
        """One run of a program's derivatives."""
        self._sources.recall(run.stem)
        source = self._with_level(run)
        absent = self._sources.absent_among(self.candidates(run))
        if absent:
            return replace(run, absent=absent, problem=not_fetched(run.stem, absent))
        for path in source.files:
            self._sources.check(path)
        metadata = self._sources.metadata(run.source, run.bids_dir)
        try:
            metadata = self._sources.metadata(self._raw(run), self._raw_dir) | metadata
        except UserError:
            if "RepetitionTime" not in metadata:
                raise
        run = _with_metadata(run, metadata)
        if run.problem is not None:
            return run
        if source.space == CIFTI_SPACE and is_absent(run.source):
            look = Look()  # a content that is known, and was dropped
        elif source.space == CIFTI_SPACE:
            look = look_at_cifti(run.source, run.tr)
        else:
            look = look_at_image(run.source, run.tr, raw=False, loader=self._sources.head)
            if look.problem is None:
                run = replace(run, shape=tuple(self._sources.head(run.source).shape))
        run = replace(run, problem=look.problem, skip=look.skip, warnings=look.warnings)
        if not source.producer.denoised:
            return run
        source, notices = complete(source, self._raw(run))
        return replace(run, preprocessed=source, warnings=(*run.warnings, *notices))


class RawDescriber:
    """Describes raw runs: their metadata (sidecars inherited), and whatever is wrong with them."""

    def __init__(self, files: Selected, settings: Settings, sources: SourceFiles) -> None:
        self._sources = sources
        self._orientation = settings.assume_orientation
        # a T1w image that was not fetched is to the fallback one that cannot be read
        self._anatomy_needed = settings.datalad_get or not settings.anat_fallback
        self._anatomy = Anatomy(
            files.t1w,
            settings.bids_dir,
            fallback=settings.anat_fallback,
            orientation=self._orientation,
            sources=sources,
        )
        self._acquisition = Acquisition(files, settings, sources)

    def candidates(self, run: Run) -> list[Path]:
        """The images of a run, and those that its anatomy, field map and reference may be."""
        own = [*(run.echoes or (run.source,)), *self._acquisition.candidates(run.source)]
        return [*own, *self._anatomy.every(parse(run.source.name))]

    def _needed(self, run: Run) -> list[Path]:
        """Files that a run needs, as far as that is known."""
        needed = [*(run.echoes or (run.source,)), *self._acquisition.needed(run.source)]
        for echo in run.echoes:
            needed += self._sources.sidecars(echo, run.bids_dir)
        if self._anatomy_needed:
            needed += self._anatomy.needed(parse(run.source.name))
        return list(dict.fromkeys(needed))

    def describe(self, run: Run) -> Run:
        """One raw run."""
        self._sources.recall(run.stem)
        needed = self._needed(run)
        absent = self._sources.absent_among(needed)
        run = replace(run, beside=tuple(one for one in needed if one.name.endswith(NIFTI)))
        if absent:
            return replace(run, absent=absent, problem=not_fetched(run.stem, absent))
        if run.echoes:
            found = read_echoes(run.echoes, run.bids_dir, self._orientation, self._sources)
            warnings = (*run.warnings, *found.warnings)
            run = replace(run, source=found.paths[0], warnings=warnings, metadata=found.metadata)
            run = replace(run, echoes=found.paths, echo_times=found.times)
        else:
            self._sources.check(run.source)
            run = _with_metadata(run, self._sources.metadata(run.source, run.bids_dir))
        if run.problem is not None:
            return run
        path = run.source
        look = look_at_image(path, run.tr, self._orientation, loader=self._sources.head)
        if look.problem or look.skip:
            return replace(run, problem=look.problem, skip=look.skip)
        t1w, acquired = self._anatomy.of(parse(path.name)), self._acquisition.of(path, run.metadata)
        warnings = (*run.warnings, *look.warnings, *t1w.warnings, *acquired.warnings)
        run = replace(run, shape=tuple(self._sources.head(path).shape))
        acquired = acquired._replace(warnings=warnings)
        run = replace(run, t1w=t1w.path, lesions=t1w.lesions, problem=t1w.problem)
        return replace(run, **acquired._asdict())


def _with_metadata(run: Run, metadata: dict[str, Any]) -> Run:
    return replace(run, metadata=metadata, problem=metadata_problem(run.source, metadata))


def by_subject(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs of each subject, by its label; subjects sorted."""
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.subject):
        found.setdefault(run.subject, []).append(run)
    return found
