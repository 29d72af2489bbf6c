"""What can be found out about a run of which only the images are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from brainlm_bids.annex import is_absent, not_fetched
from brainlm_bids.bids.acquisition import Acquisition
from brainlm_bids.bids.anatomy import Anatomy
from brainlm_bids.bids.echoes import read_echoes
from brainlm_bids.bids.headers import Look, look_at_cifti, look_at_image, metadata_problem
from brainlm_bids.bids.layout import Selected
from brainlm_bids.bids.names import parse, sidecar_of
from brainlm_bids.bids.preprocessed import CIFTI_SPACE, Preprocessed
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.bids.tree import NIFTI
from brainlm_bids.bids.xcp_d import complete, preprocessed_series
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings


class Describer(Protocol):
    """Finds out about runs of one kind, and looks at no file twice."""

    def describe(self, run: Run) -> Run:
        """A run of which only the images are known, with all that can be found out about it."""

    def candidates(self, run: Run) -> list[Path]:
        """Files that a run may be made from, by their names."""


def guarded(run: Run, describe: Callable[[Run], Run]) -> Run:
    """What is found out about a run; whatever goes wrong is its own problem."""
    try:
        return describe(run)
    except Exception as error:
        return run.broken(error)


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
        beside = tuple(one for one in needed if one.name.endswith(NIFTI))
        if absent:
            problem = not_fetched(run.stem, absent)
            return replace(run, beside=beside, absent=absent, problem=problem)
        if run.echoes:
            found = read_echoes(run.echoes, run.bids_dir, self._orientation, self._sources)
            warnings = (*run.warnings, *found.warnings)
            run = replace(run, source=found.paths[0], warnings=warnings, metadata=found.metadata)
            run = replace(run, beside=beside, echoes=found.paths, echo_times=found.times)
        else:
            self._sources.check(run.source)
            run = _with_metadata(run, self._sources.metadata(run.source, run.bids_dir), beside)
        if run.problem is not None:
            return run
        path = run.source
        look = look_at_image(path, run.tr, self._orientation, loader=self._sources.head)
        if look.problem or look.skip:
            return replace(run, problem=look.problem, skip=look.skip)
        t1w, acquired = self._anatomy.of(parse(path.name)), self._acquisition.of(path, run.metadata)
        warnings = (*run.warnings, *look.warnings, *t1w.warnings, *acquired.warnings)
        return replace(
            run,
            shape=tuple(self._sources.head(path).shape),
            t1w=t1w.path,
            lesions=t1w.lesions,
            problem=t1w.problem,
            **acquired._replace(warnings=warnings)._asdict(),
        )


def _with_metadata(run: Run, metadata: dict[str, Any], beside: tuple[Path, ...] = ()) -> Run:
    problem = metadata_problem(run.source, metadata)
    return replace(run, metadata=metadata, problem=problem, beside=beside)
