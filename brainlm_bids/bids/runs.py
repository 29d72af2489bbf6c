"""A BOLD run: where it is, what its sidecars record, and what is wrong with it."""

import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from brainlm_bids.bids.echoes import FEWEST_ECHOES, stem_of_run
from brainlm_bids.bids.fieldmaps import Fieldmap
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.preprocessed import CIFTI_SPACE, Preprocessed
from brainlm_bids.bids.slices import SliceTable
from brainlm_bids.bids.timeseries import stem_of
from brainlm_bids.errors import UserError
from brainlm_bids.notices import Notice


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

    @cached_property
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
        if self.timeseries:
            return path.as_uri()
        source = self.preprocessed
        try:
            return bids_uri(path, self.bids_dir, "raw" if source is None else source.producer.key)
        except ValueError:  # it lies elsewhere
            return path.as_uri()


def bids_uri(path: Path, bids_dir: Path, dataset: str = "raw") -> str:
    """A BIDS URI into a source data set, as the derivatives' DatasetLinks name it."""
    return f"bids:{dataset}:{path.relative_to(bids_dir).as_posix()}"


def by_subject(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs of each subject, by its label; subjects sorted."""
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.subject):
        found.setdefault(run.subject, []).append(run)
    return found
