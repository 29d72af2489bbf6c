"""Runs the group level: scaling over the cohort, embeddings under it, tables, decoding, report.

In: `Settings`, an output folder that the participant level has filled, and participants.tsv. Out:
the cohort's files, a status table, and an exit code. A recording is the unit of failure and of
resumption, as at participant level.
"""

import dataclasses
import logging
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainlm_bids import __version__, files
from brainlm_bids.app.execution import Found, execute, make_folders, materialise, with_precision
from brainlm_bids.app.status import Row, print_table, read_crashes, used_resources, write_status
from brainlm_bids.bids import derivatives, outputs
from brainlm_bids.bids.derivatives import EXCLUDED, FAILED, INCLUDED, Columns, Recording
from brainlm_bids.bids.names import GROUP, build, common_stem
from brainlm_bids.cohort import variables
from brainlm_bids.errors import UserError
from brainlm_bids.resources import ModelResource
from brainlm_bids.settings import Settings, configuration_hash
from brainlm_bids.table import COHORT, MODEL
from brainlm_bids.workflows import group as graphs
from brainlm_bids.workflows.graph import Graph, Stage
from brainlm_bids.workflows.group import CohortPlan, DecodingPlan, ModelSummary, names_of
from brainlm_bids.workflows.participant import ModelTask

LOG = logging.getLogger("brainlm_bids")
EXIT_OK, EXIT_FAILED = 0, 1
# Recordings in one graph: Nipype's own work grows with the square of the number of nodes.
RECORDINGS_PER_GRAPH = 200
STATUS = {INCLUDED: "done", EXCLUDED: "skipped", FAILED: "failed"}
# What --regress-out may name besides the columns of the tables.
QUALITY = ("mean_fd", "coverage", "n_volumes")


class _Cohort:
    """A call's recordings and what became of them; the rows of its status table."""

    def __init__(self, settings: Settings) -> None:
        self.found = Found(settings)
        self.settings = with_precision(settings, self.found.models)
        atlas = self.found.atlas.label
        self.recordings = derivatives.find_recordings(settings, self.found.space, atlas)
        space = self.recordings[0].naming.space
        stem = common_stem(one.stem for one in self.recordings)
        self.naming = outputs.Naming(str(settings.output_dir), stem, space, atlas)
        self.variables = derivatives.read_variables(
            settings.bids_dir, settings.phenotype, self.recordings
        )
        self.run_id = f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
        self.rows: list[Row] = []
        self.used: dict[str, tuple[float | None, float | None, str | None]] = {}
        self.cached: set[str] = set()
        # (stem, label) of what a model could not do
        self.failures: set[tuple[str, str]] = set()

    @property
    def included(self) -> list[Recording]:
        return [one for one in self.recordings if one.status == INCLUDED]

    def leave_out(self, stem: str, reason: str) -> None:
        """Count a recording as failed from here on."""
        LOG.error("failed: %s", reason)
        self.recordings = [
            one.left_out(FAILED, reason) if one.stem == stem else one for one in self.recordings
        ]

    def say(self, what: str, status: str, reason: str, crash_file: str | None = None) -> None:
        """A row of the status table about the cohort as a whole."""
        level = logging.ERROR if status == "failed" else logging.WARNING
        LOG.log(level, "%s: %s: %s", status, what, reason)
        name = GROUP
        self.rows.append(Row(name, None, None, None, what, status, reason, None, None, crash_file))

    def crash(self, graph: Graph, stages: Sequence[Stage]) -> tuple[str, str | None]:
        """Why stages were not completed, and the crash file."""
        folder = self.settings.output_dir / "logs" / "crash" / self.run_id
        found = read_crashes(folder, graph.names_upstream(stages))
        if found is None:
            return (
                f"{stages[0].name} was not finished and left no crash file; was a process killed "
                "(out of memory), or the call stopped at another crash?"
            ), None
        return found.reason, str(found.path)


def run(settings: Settings) -> int:
    """Run the group level and return 0, or 1 if a recording or a part of the cohort failed.

    Raises
    ------
    UserError
        For what makes the whole call impossible: no recordings, unknown columns, resources.
    """
    if not (settings.output_dir / "dataset_description.json").is_file():
        raise UserError(
            f"{settings.output_dir}: holds no derivatives; run the level participant first"
        )
    make_folders(settings)
    cohort = _Cohort(settings)
    _check_columns(cohort)
    if settings.reports_only:
        _write_report(cohort)
        return EXIT_OK
    if settings.dry_run:
        return _say_plan(cohort)
    _write_methods(cohort)
    if settings.boilerplate_only:
        return EXIT_OK
    labels = [_label(model) for model in cohort.found.models]
    described = outputs.describe_labels(labels, GROUP)
    outputs.write_dataset_files(settings.output_dir, None, described)
    logs = settings.output_dir / "logs"
    files.write_text(logs / f"{cohort.run_id}_config.toml", settings.to_toml())
    if not cohort.included:
        raise UserError(
            f"{settings.output_dir}: none of the {len(cohort.recordings)} recordings counts; "
            f"{cohort.recordings[0].reason}"
        )
    try:
        statistics = _statistics(cohort)
        if statistics is not None:
            _embed(cohort, *statistics)
            _summarise(cohort, *statistics)
        _write_recordings(cohort)
    except KeyboardInterrupt:
        cohort.say("group", "failed", "the call was stopped before the group level was finished")
        _write_rows(cohort, cohort.rows)
        raise
    rows = [*(_row(cohort, one) for one in cohort.recordings), *cohort.rows]
    _write_rows(cohort, rows)
    if statistics is not None:
        _write_report(cohort)
    return EXIT_FAILED if any(row.status == "failed" for row in rows) else EXIT_OK


def _write_rows(cohort: _Cohort, rows: list[Row]) -> None:
    """The status table, in logs/ and on the screen."""
    out = cohort.settings.output_dir
    write_status(out / "logs" / f"{cohort.run_id}_status.tsv", rows)
    print_table(rows, out)


def _label(model: ModelResource) -> str:
    return f"{model.label}cohort"


def _check_columns(cohort: _Cohort) -> None:
    """Unknown columns are a slip of the keyboard: said before anything is computed."""
    settings, known = cohort.settings, list(cohort.variables)
    tables = "participants.tsv" if settings.phenotype is None else settings.phenotype.name
    for flag, names, more in (
        ("--target", settings.target, ()),
        ("--regress-out", settings.regress_out, QUALITY),
    ):
        unknown = [name for name in names if name not in (*known, *more)]
        if unknown:
            raise UserError(
                f"{flag} {unknown[0]}: no such column in {tables}; "
                f"there are: {', '.join((*known, *more)) or 'none'}"
            )
    if settings.target and not cohort.found.models:
        raise UserError("--target: there is no embedding to decode from with --model none")


def _say_plan(cohort: _Cohort) -> int:
    for one in cohort.recordings:
        print(f"{one.stem}: {one.status}{f': {one.reason}' if one.reason else ''}")
    labels = [_label(model) for model in cohort.found.models]
    print(f"models: {', '.join(labels) or 'none'}; targets: {', '.join(cohort.settings.target)}")
    failed = any(one.status == FAILED for one in cohort.recordings)
    return EXIT_FAILED if failed else EXIT_OK


# --- statistics over the cohort --------------------------------------------------------------


def _statistics(cohort: _Cohort) -> tuple[Path, str] | None:
    """(file, whose they are); computed, or found, or given by --scaling-stats."""
    settings = cohort.settings
    if settings.scaling_stats is not None:
        return settings.scaling_stats, settings.scaling_stats.name
    path = cohort.naming.path("scaling")
    recordings = cohort.included
    configuration = configuration_hash(
        {
            "version": __version__,
            "model_tr": settings.model_tr,
            "scaling_volumes": settings.scaling_volumes,
            "recordings": {one.stem: one.configuration for one in recordings},
        }
    )
    # one file per atlas, whatever the tasks: its record, too
    stem = build(GROUP, {"atlas": cohort.naming.atlas}).stem
    naming = dataclasses.replace(cohort.naming, stem=stem)
    complete = outputs.is_complete(settings.output_dir, naming.stem, "scaling", configuration)
    if not complete:
        LOG.info("statistics over %d recordings", len(recordings))
        said = {
            "RepetitionTime": settings.model_tr,
            "VolumesPerRecording": settings.scaling_volumes or "all",
            "Atlas": cohort.naming.atlas,
        }
        graph = graphs.statistics_workflow(recordings, naming, said, configuration, settings)
        execute(graph, settings, cohort.run_id)
        # the volumes of the whole cohort, once more
        shutil.rmtree(settings.work_dir / graphs.STATISTICS, ignore_errors=True)
        complete = outputs.is_complete(settings.output_dir, naming.stem, "scaling", configuration)
        if not complete:
            cohort.say("statistics", "failed", *cohort.crash(graph, [graphs.POOLED]))
            return None
    sidecar = files.read_json(path.with_suffix(".json"))
    for stem, reason in sidecar["Unreadable"].items():
        cohort.leave_out(stem, reason)
    n_recordings, n_subjects = sidecar["NumberOfRecordings"], sidecar["NumberOfSubjects"]
    return path, f"{path.name}, {n_recordings} recordings of {n_subjects} subjects"


# --- embeddings under the cohort's statistics ------------------------------------------------


def _embed(cohort: _Cohort, statistics: Path, said: str) -> None:
    """Scale and embed every recording that is not complete under these statistics."""
    settings = cohort.settings
    sha256 = files.file_sha256(statistics)
    plans = [_plan(cohort, one, sha256) for one in cohort.included]
    todo = [plan for plan in plans if plan.scale or plan.models or plan.controls]
    cohort.cached = {plan.recording.stem for plan in plans if plan not in todo}
    inputs = materialise(settings, cohort.found) if todo else None
    for start in range(0, len(todo), RECORDINGS_PER_GRAPH):
        some = todo[start : start + RECORDINGS_PER_GRAPH]
        LOG.info("recordings %d to %d of %d", start + 1, start + len(some), len(todo))
        assert inputs is not None
        graph = graphs.recordings_workflow(some, statistics, said, inputs, settings)
        execute(graph, settings, cohort.run_id)
        for plan in some:
            _judge(cohort, plan, graph)


def _plan(cohort: _Cohort, one: Recording, statistics: str) -> CohortPlan:
    settings, out = cohort.settings, cohort.settings.output_dir
    own = _series_hash(settings, one, statistics)
    scaled = outputs.is_complete(out, one.stem, "robustcohort", own)
    models: list[ModelTask] = []
    controls: list[ModelTask] = []
    for model in cohort.found.models:
        task = ModelTask(_source(model), _label(model), _model_hash(settings, own, model))
        wanted = [(models, task.label)]
        if settings.target:
            wanted.append((controls, f"{task.label}untrained"))
        for chosen, stage in wanted:
            if not (scaled and outputs.is_complete(out, one.stem, stage, task.configuration)):
                chosen.append(task)
    return CohortPlan(one, own, _context(cohort, one), not scaled, tuple(models), tuple(controls))


def _source(model: ModelResource) -> str:
    return model.name if model.path is None else str(model.path.resolve())


def _series_hash(settings: Settings, one: Recording, statistics: str) -> str:
    values = {
        "version": __version__,
        "series": one.configuration,
        "statistics": statistics,
        "model_tr": settings.model_tr,
    }
    return configuration_hash(values)


def _model_hash(settings: Settings, series: str, model: ModelResource) -> str:
    values = settings.changing(MODEL)
    return configuration_hash({"series": series, "model": model.sha256 or model.name, **values})


def _context(cohort: _Cohort, one: Recording) -> dict[str, Any]:
    """What the model stage needs to know of a recording (see `app._context`)."""
    return {
        "naming": names_of(one.naming),
        "atlas": one.sidecar.get("Atlas"),
        "template": one.sidecar.get("Template"),
        "warnings": list(one.sidecar.get("Warnings") or []),
        "models": {
            _label(model): {**model.about(), "label": _label(model)}
            for model in cohort.found.models
        },
    }


def _judge(cohort: _Cohort, plan: CohortPlan, graph: Graph) -> None:
    """What became of a recording, by its records."""
    settings, one = cohort.settings, plan.recording
    stages = {plan.stage: plan.configuration} if plan.scale else {}
    stages |= {plan.model_stage(task): task.configuration for task in plan.models}
    stages |= {plan.control_stage(task): task.configuration for task in plan.controls}
    missing = [
        stage
        for stage, configuration in stages.items()
        if not outputs.is_complete(settings.output_dir, *stage, configuration)
    ]
    seconds, memory = used_resources(settings.work_dir, graph.names(stages))
    reason, crash = cohort.crash(graph, [*stages]) if missing else ("", None)
    cohort.used[one.stem] = (seconds, memory, crash)
    if not missing:
        return
    if missing[0] == plan.stage:
        cohort.leave_out(one.stem, reason)
        return
    LOG.error("failed: %s: %s", one.stem, reason)
    for stage in missing:
        cohort.failures.add((one.stem, stage.name.removesuffix("untrained")))
    models = sorted({label for stem, label in cohort.failures if stem == one.stem})
    done = [one.left_out(INCLUDED, f"{', '.join(models)} failed: {reason}")]
    cohort.recordings = [done[0] if r.stem == one.stem else r for r in cohort.recordings]


# --- tables, decoding, figures ---------------------------------------------------------------


def _summarise(cohort: _Cohort, statistics: Path, said: str) -> None:
    """The third graph: what is said of the cohort as a whole."""
    settings, included = cohort.settings, cohort.included
    sha256 = files.file_sha256(statistics)
    models = [
        summary
        for model in cohort.found.models
        if (summary := _summary(cohort, included, model, sha256)) is not None
    ]
    sidecars = _said(cohort, included, said)
    graph = graphs.tables_workflow(
        [_quality(one) for one in included],
        [{**_quality(one), "included": one.status == INCLUDED} for one in cohort.recordings],
        models,
        cohort.naming,
        statistics,
        sidecars,
        materialise(settings, cohort.found),
        settings,
    )
    execute(graph, settings, cohort.run_id)
    crashes = settings.output_dir / "logs" / "crash" / cohort.run_id
    for stage in graph.nodes:
        if read_crashes(crashes, graph.names_upstream([stage])) is not None:
            cohort.say(stage.name, "failed", *cohort.crash(graph, [stage]))


def _quality(one: Recording) -> dict[str, Any]:
    entities, sidecar = one.entities, one.sidecar
    volumes, dummies = sidecar.get("NumberOfVolumes"), sidecar.get("DummyVolumes", 0)
    return {
        "stem": one.stem,
        "participant_id": one.participant,
        "session": entities.get("ses"),
        "task": entities.get("task"),
        "run": entities.get("run"),
        "mean_fd": one.mean_fd,
        "coverage": one.coverage,
        "n_volumes": None if volumes is None else volumes - dummies,
        "sd_demeaned": sidecar.get("StandardDeviationDemeaned"),
    }


def _said(cohort: _Cohort, included: Sequence[Recording], said: str) -> dict[str, Any]:
    """What the sidecars of all tables say."""
    return {
        "ScalingStatistics": said,
        "NumberOfRecordings": len(included),
        "NumberOfSubjects": len({one.participant for one in included}),
        "Space": cohort.naming.space,
        "Atlas": cohort.naming.atlas,
        "RandomSeed": cohort.settings.random_seed,
        "Warnings": [*cohort.found.warnings, *derivatives.mixed_settings(included)],
    }


def _summary(
    cohort: _Cohort, included: Sequence[Recording], model: ModelResource, statistics: str
) -> ModelSummary | None:
    label, settings = _label(model), cohort.settings
    rows = [k for k, one in enumerate(included) if (one.stem, label) not in cohort.failures]
    if not rows:
        cohort.say(f"tables of {label}", "failed", "no recording could be embedded")
        return None
    columns = _columns(cohort, included, rows)
    colours = {
        **columns,
        **{
            key: [_text(_quality(included[row])[key]) for row in rows]
            for key in ("mean_fd", "coverage", "session", "task", "run")
        },
    }
    said: dict[str, Any] = {"Model": {**model.about(), "label": label, "untrained": model.random}}
    decoding = None
    if settings.target:
        hashes = [
            _model_hash(settings, _series_hash(settings, included[row], statistics), model)
            for row in rows
        ]
        stems = [included[row].stem for row in rows]
        subjects = [included[row].participant for row in rows]
        embeddings = list(zip(stems, hashes, strict=True))
        decoding, notes = _decoding(cohort, label, subjects, columns, embeddings)
        said |= notes
    return ModelSummary(label, rows, colours, said, bool(settings.target), decoding)


def _columns(cohort: _Cohort, included: Sequence[Recording], rows: Sequence[int]) -> Columns:
    """The variables of some of the included recordings."""
    place = {one.stem: k for k, one in enumerate(cohort.recordings)}
    chosen = [place[included[row].stem] for row in rows]
    return {name: [column[k] for k in chosen] for name, column in cohort.variables.items()}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _decoding(
    cohort: _Cohort,
    label: str,
    subjects: Sequence[str],
    columns: Columns,
    embeddings: Sequence[tuple[str, str]],
) -> tuple[DecodingPlan | None, dict[str, Any]]:
    """Targets that can be decoded; what is said of those that cannot. None if all is done."""
    settings, naming = cohort.settings, cohort.naming
    quality = {one.stem: _quality(one) for one in cohort.included}
    own = {key: [_text(quality[stem][key]) for stem, _ in embeddings] for key in QUALITY}
    targets, confounds, skipped, notes = [], {}, {}, {}
    for name in dict.fromkeys(settings.target):
        try:
            target = variables.make_target(name, columns[name], subjects)
            chosen = {
                key: [({**own, **columns})[key][row] for row in target.rows]
                for key in settings.regress_out
            }
            confounds[name] = variables.design(chosen).tolist() if chosen else []
        except UserError as error:
            skipped[name] = str(error)
            cohort.say(f"decoding of {name} ({label})", "skipped", str(error))
            continue
        targets.append(target)
        if target.notes:
            notes[name] = list(target.notes)
    said = {
        "NotDecoded": skipped,
        "Notes": notes,
        "RegressedOut": list(settings.regress_out),
        "Permutations": settings.permutations,
    }
    configuration = configuration_hash(
        {
            "version": __version__,
            "embeddings": list(embeddings),
            "targets": [[t.name, t.rows.tolist(), t.values.tolist(), t.classes] for t in targets],
            "confounds": confounds,
            "said": said,
            **settings.changing(COHORT),
        }
    )
    stage = f"{label}decoding"
    if outputs.is_complete(settings.output_dir, naming.stem, stage, configuration):
        return None, said
    return DecodingPlan(tuple(targets), confounds, configuration), said


# --- afterwards ------------------------------------------------------------------------------


def _row(cohort: _Cohort, one: Recording) -> Row:
    seconds, memory, crash = cohort.used.get(one.stem, (None, None, None))
    status = STATUS[one.status]
    if status == "done" and one.reason:
        status = "failed"  # a model failed; the others are in the tables
    elif status == "done" and one.stem in cohort.cached:
        status = "cached"
    source = one.series.relative_to(one.naming.output_dir).as_posix()
    entities = one.entities
    return Row(
        one.participant,
        entities.get("ses"),
        entities.get("task"),
        entities.get("run"),
        source,
        status,
        one.reason,
        seconds,
        memory,
        crash,
    )


def _write_recordings(cohort: _Cohort) -> None:
    """Everybody, with quality and, for those left out, the reason."""
    columns: dict[str, list[Any]] = {}
    for one in cohort.recordings:
        quality = _quality(one)
        row = {
            **{key: quality[key] for key in ("participant_id", "session", "task", "run")},
            "recording": one.stem,
            "status": one.status,
            "reason": one.reason or None,
            **{key: quality[key] for key in (*QUALITY, "sd_demeaned")},
            "repetition_time": one.sidecar.get("RepetitionTime"),
            "parcels_without_data": len(one.sidecar.get("MissingParcels") or []),
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    path = cohort.naming.path("group_recordings")
    files.write_tsv(path, list(columns), list(columns.values()))
    settings = cohort.settings
    values = {
        "MaximumMeanFramewiseDisplacement": settings.max_mean_fd,
        "MinimumCoverage": settings.min_coverage,
        "Warnings": [*cohort.found.warnings, *derivatives.mixed_settings(cohort.included)],
    }
    sidecar = cohort.naming.path("group_recordings", extension=".json")
    files.write_json(sidecar, cohort.naming.sidecar("group_recordings", values))


def _write_methods(cohort: _Cohort) -> None:
    from importlib.metadata import version

    from brainlm_bids.report.methods import cohort_methods

    settings = cohort.settings
    given = settings.scaling_stats
    text, references = cohort_methods(
        {
            "scaling_stats": None if given is None else given.name,
            "scaling_volumes": settings.scaling_volumes,
            "max_mean_fd": settings.max_mean_fd,
            "min_coverage": settings.min_coverage,
            "models": [model.label for model in cohort.found.models],
            "targets": settings.target,
            "regress_out": settings.regress_out,
            "permutations": settings.permutations,
            "versions": {name: version(name) for name in ("numpy", "scikit-learn", "torch")},
            "version": __version__,
        }
    )
    logs = settings.output_dir / "logs"
    files.write_text(logs / "CITATION_group.md", text)
    files.write_text(logs / "CITATION_group.bib", references)


def _write_report(cohort: _Cohort) -> None:
    from brainlm_bids.report.group import build_group_report

    naming = cohort.naming
    path = build_group_report(
        cohort.settings.output_dir, naming.stem, naming.space, naming.atlas, version=__version__
    )
    print(f"report: {path}", file=sys.stderr)
