"""A cohort: its recordings, their variables and quality, and the outcome of each in this call."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from brainlm_bids import files
from brainlm_bids.app.execution import crash_folder
from brainlm_bids.app.plan import no_crash
from brainlm_bids.app.resources import Resources
from brainlm_bids.app.status import DONE, FAILED, SKIPPED, Outcome, Row, read_crashes
from brainlm_bids.bids.cohort import find_cohort, mixed_settings
from brainlm_bids.bids.names import common_stem
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.participants import Columns, Variables, read_variables
from brainlm_bids.bids.quality import QUALITY, REGISTRATION_COLUMNS, image_quality, quality
from brainlm_bids.bids.ratings import Verdict, read_ratings
from brainlm_bids.bids.recordings import EXCLUDED, INCLUDED, Recording
from brainlm_bids.bids.recordings import FAILED as UNUSABLE
from brainlm_bids.notices import Kind, Notice, notice, to_json
from brainlm_bids.progress import Progress
from brainlm_bids.resources import ModelResource
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.graph import Graph, Stage
from brainlm_bids.workflows.plans import ModelPlan, RecordingPlan

LOG = logging.getLogger("brainlm_bids")
STATUS = {INCLUDED: DONE, EXCLUDED: SKIPPED, UNUSABLE: FAILED}
_NOT_SCALED = Outcome(FAILED, "not scaled: the statistics of the cohort could not be computed")


@dataclass
class Cohort:
    """The recordings of a group call.

    Parameters
    ----------
    settings : Settings
        Of the call.
    resources : Resources
        Of the call.
    run_id : str
        Of the call.
    progress : Progress
        Of the call.
    naming : Naming
        Of the files about the cohort.
    people : Variables
        Columns of the tables of participants, a value per recording, and what is wrong with them.
    recordings : list of Recording
        All of the selection, also those that are left out.
    """

    settings: Settings
    resources: Resources
    run_id: str
    progress: Progress
    naming: Naming
    people: Variables
    recordings: list[Recording]
    _plans: dict[str, RecordingPlan] = field(default_factory=dict)
    _outcomes: dict[str, Outcome] = field(default_factory=dict)
    _group_rows: list[Row] = field(default_factory=list)
    # name of a recording, label of a model that could not be run on it
    _failures: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def find(
        cls, settings: Settings, resources: Resources, run_id: str, progress: Progress
    ) -> "Cohort":
        """The cohort in an output folder.

        Raises
        ------
        UserError
            If it holds no series of the selection, or a table of participants is not one.
        """
        atlas = resources.atlas.label
        ratings = read_ratings(settings.ratings)
        recordings = find_cohort(settings, resources.space, atlas, ratings)
        space = recordings[0].naming.space
        stem = common_stem(recording.stem for recording in recordings)
        naming = Naming(str(settings.output_dir), stem, space, atlas, "cohort")
        stems = [recording.stem for recording in recordings]
        needed = bool(settings.target or settings.regress_out)
        people = read_variables(settings.bids_dir, settings.phenotype, stems, needed=needed)
        notices = (*people.notices, *ratings.unmatched(stems), *_doubtful(recordings))
        for warning in notices:
            LOG.warning(warning.text)
        people = people._replace(notices=notices)
        return cls(settings, resources, run_id, progress, naming, people, recordings)

    @property
    def variables(self) -> Columns:
        """Columns of the tables of participants, a value per recording."""
        return self.people.columns

    @property
    def included(self) -> list[Recording]:
        """The recordings that are included."""
        return [recording for recording in self.recordings if recording.status == INCLUDED]

    @property
    def models(self) -> Mapping[str, ModelResource]:
        """The models by their labels."""
        return self.resources.models

    def warnings(self) -> list[Notice]:
        """Warnings for the sidecars of the tables."""
        return [
            *self.resources.warnings,
            *self.people.notices,
            *mixed_settings(self.included),
        ]

    def doubt(self, column: str, texts: Sequence[str]) -> None:
        """Warn about how the values of a column of the tables were understood, once each."""
        for text in texts:
            self.warn(notice(Kind.VALUES_UNCLEAR, f"{column}: {text}."))

    def warn(self, one: Notice) -> None:
        """Warn about a variable, once."""
        if one not in self.people.notices:
            LOG.warning(one.text)
            self.people = self.people._replace(notices=(*self.people.notices, one))

    @cached_property
    def _places(self) -> dict[str, int]:
        """Where each recording is in the list; those that are left out stay in their places."""
        return {recording.stem: place for place, recording in enumerate(self.recordings)}

    def variables_of(self, recordings: Sequence[Recording]) -> Columns:
        """The variables of some of the recordings."""
        rows = [self._places[recording.stem] for recording in recordings]
        return {name: [column[row] for row in rows] for name, column in self.variables.items()}

    # --- outcomes of the recordings

    def record_outcome(self, plan: RecordingPlan, outcome: Outcome) -> None:
        """Record the outcome of a recording; one without a series is left out from here on."""
        stem = plan.recording
        self._plans[stem], self._outcomes[stem] = plan, outcome
        if plan.series in outcome.unfinished:
            self._leave_out(stem, UNUSABLE, outcome.reason)
            return
        labels = {stage.label for stage in outcome.unfinished if isinstance(stage, ModelPlan)}
        self._failures |= {(stem, label) for label in labels}
        if labels:
            reason = f"{', '.join(sorted(labels))} failed: {outcome.reason}"
            self._leave_out(stem, INCLUDED, reason)

    def leave_out(self, stem: str, reason: str) -> None:
        """Count a recording as failed from here on."""
        LOG.error("failed: %s", reason)
        self._leave_out(stem, UNUSABLE, reason)

    def _leave_out(self, stem: str, status: str, reason: str) -> None:
        place = self._places[stem]
        self.recordings[place] = self.recordings[place].left_out(status, reason)

    def is_embedded(self, recording: Recording, label: str) -> bool:
        """Whether a model could be run on an included recording."""
        return (recording.stem, label) not in self._failures

    def embedding_key(self, recording: Recording, label: str) -> str:
        """Hash of what a model's embedding of a recording depends on."""
        models = self._plans[recording.stem].models
        return next(model.configuration for model in models if model.label == label)

    # --- outcomes of the cohort

    def report(self, part: str, outcome: Outcome) -> None:
        """Add a row about a part of the cohort to the status table."""
        if outcome.crash_file is None:  # a crash was logged when it happened
            level = logging.ERROR if outcome.status == FAILED else logging.WARNING
            LOG.log(level, "%s: %s: %s", part, outcome.status, outcome.reason)
        self._group_rows.append(Row.of_group(part, outcome))

    def report_crashes(self, graph: Graph, stages: Sequence[Stage], *, expected: bool) -> None:
        """Report the parts of the cohort that a crash left incomplete.

        expected: they are known to be unfinished, so that one without a crash is reported, too.
        """
        folder = crash_folder(self.settings, self.run_id)
        for stage in stages:
            crash = read_crashes(folder, graph.names_upstream([stage]))
            if crash is not None:
                outcome = Outcome(FAILED, crash.reason, crash_file=crash.path)
                self.report(stage.name, outcome)
            elif expected:
                self.report(stage.name, Outcome(FAILED, no_crash(self.settings.output_dir, stage)))

    def group_rows(self) -> list[Row]:
        """Rows of the status table about the whole cohort."""
        return list(self._group_rows)

    def rows(self) -> list[Row]:
        """The status table: a row per recording, and those about the cohort."""
        return [*(self._row(recording) for recording in self.recordings), *self._group_rows]

    def _row(self, recording: Recording) -> Row:
        outcome = self._outcomes.get(recording.stem, _NOT_SCALED)
        status = STATUS[recording.status]
        if status == DONE and recording.reason:
            status = FAILED  # a model failed; the others are in the tables
        elif status == DONE:
            status = outcome.status
        merged = Outcome(
            status,
            recording.reason or outcome.reason,
            outcome.seconds,
            outcome.peak_memory_mb,
            outcome.crash_file,
        )
        source = recording.path.relative_to(recording.naming.output_dir).as_posix()
        return Row.of_recording(recording.entities, source, merged)

    def write_recordings(self, scaling: str = "") -> None:
        """The table of all recordings with their quality and, for those left out, the reason.

        scaling: the statistics that scaled the series, for the sidecar; empty if that failed.
        """
        rows = [_table_row(recording) for recording in self.recordings]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        path = self.naming.path("group_recordings")
        files.write_tsv(path, list(columns), list(columns.values()))
        values = {
            "MaximumMeanFramewiseDisplacement": self.settings.max_mean_fd,
            "MinimumCoverage": self.settings.min_coverage,
            "SuspectRegistrations": "included" if self.settings.include_suspect else "excluded",
            "Ratings": _rated(self.settings.ratings, self.recordings),
            "ScalingStatistics": scaling or None,
            "ScalingStatisticsGiven": self.settings.scaling_stats is not None,
            "Warnings": to_json(self.warnings()),
        }
        sidecar = self.naming.path("group_recordings", extension=".json")
        files.write_json(sidecar, self.naming.sidecar("group_recordings", values))


def _doubtful(recordings: Sequence[Recording]) -> list[Notice]:
    """A notice of the recordings that are included although a person doubts them."""
    stems = [
        one.stem
        for one in recordings
        if one.status == INCLUDED and one.rating and one.rating.verdict == Verdict.DOUBTFUL
    ]
    if not stems:
        return []
    text = f"{len(stems)} included recordings are rated doubtful, for example {stems[0]}; see the "
    return [notice(Kind.RATED_DOUBTFUL, f"{text}column rating of the table of recordings.")]


def _rated(path: Path | None, recordings: Sequence[Recording]) -> dict[str, Any] | None:
    """Which table of ratings was used, and how many recordings it rates."""
    if path is None:
        return None
    rated = [one.rating.verdict for one in recordings if one.rating is not None]
    counts = {verdict.value: rated.count(verdict) for verdict in Verdict}
    return {"File": path.name, "SHA256": files.file_sha256(path), **counts}


def _table_row(recording: Recording) -> dict[str, Any]:
    values = quality(recording)
    return {
        **{key: values[key] for key in ("participant_id", "session_id", "task", "run")},
        "recording": recording.stem,
        "status": recording.status,
        "reason": recording.reason or None,
        **{key: values[key] for key in (*QUALITY, "sd_demeaned", *REGISTRATION_COLUMNS)},
        **image_quality(recording),
        "parcels_without_data": len(recording.sidecar.get("MissingParcels") or []),
        "warnings": ",".join(recording.warnings) or None,
        "rating": None if recording.rating is None else recording.rating.verdict,
        "rating_reasons": None if recording.rating is None else recording.rating.reasons or None,
    }
