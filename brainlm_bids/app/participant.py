"""Runs an analysis level: finds resources and runs, plans, executes the graph, reports.

In: `Settings`. Out: derivatives, reports, a status table, and an exit code. A run is the unit of
failure and of resumption: one that is complete under the same configuration is not computed again.
"""

import logging
import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from brainlm_bids import __version__, files, resources
from brainlm_bids.app import group, messages
from brainlm_bids.app.execution import Found, execute, make_folders, materialise, with_precision
from brainlm_bids.app.status import Row, print_table, read_crashes, used_resources, write_status
from brainlm_bids.bids import inputs as bids_inputs
from brainlm_bids.bids import outputs
from brainlm_bids.bids.fmriprep import CIFTI_SPACE, OTHER_TEMPLATE, Preprocessed
from brainlm_bids.bids.inputs import Run
from brainlm_bids.bids.names import parse
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings, configuration_hash
from brainlm_bids.table import MODEL, SERIES
from brainlm_bids.workflows.graph import Graph
from brainlm_bids.workflows.participant import WORKFLOW, ModelTask, Plan, participant_workflow

LOG = logging.getLogger("brainlm_bids")
EXIT_OK, EXIT_FAILED = 0, 1


def run(settings: Settings) -> int:
    """Run the analysis and return 0 (all done, or skipped by a stated policy) or 1 (a run failed).

    Raises
    ------
    UserError
        For what makes the whole call impossible: labels, resources, folders.
    """
    _set_up(settings)
    levels = {"participant": _run_participant, "group": group.run}
    return max(level(settings) for name, level in levels.items() if name in settings.analysis_level)


def _run_participant(settings: Settings) -> int:
    if settings.timeseries:
        runs = bids_inputs.given_timeseries(settings, resources.parcels().names)
    else:
        runs = bids_inputs.find_runs(settings)
    make_folders(settings)
    if settings.reports_only:
        return _write_reports(settings, runs)
    found = Found(settings)
    settings = with_precision(settings, found.models)
    for text in found.warnings:
        LOG.warning(text)
    runs = [_with_resources(one, settings, found) for one in runs]
    plans, rows = _plan(settings, runs, found)
    if settings.dry_run:
        return _say_plans(plans, rows)
    _write_dataset(settings, found, runs)
    if settings.boilerplate_only:
        return EXIT_OK
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
    files.write_text(settings.output_dir / "logs" / f"{run_id}_config.toml", settings.to_toml())
    todo = [plan for plan in plans if plan.series or plan.models]
    graph, stopped = _execute(settings, found, todo, run_id) if todo else (None, None)
    rows += [_judge(settings, plan, graph, run_id, stopped is not None) for plan in plans]
    rows.sort(key=lambda row: row.source)
    write_status(settings.output_dir / "logs" / f"{run_id}_status.tsv", rows)
    if stopped is None and (todo or any(row.status != "cached" for row in rows)):
        _write_reports(settings, runs, found)
    print_table(rows, settings.output_dir)
    if stopped is not None:
        raise stopped
    return EXIT_FAILED if any(row.status == "failed" for row in rows) else EXIT_OK


def _set_up(settings: Settings) -> None:
    messages.configure(settings.verbose)
    # Before numpy, torch and ITK are loaded here and in every worker: they read these once.
    threads = str(settings.omp_nthreads)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = threads
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = threads
    os.environ["NIPYPE_NO_ET"] = "1"


# --- planning --------------------------------------------------------------------------------


def _plan(settings: Settings, runs: list[Run], found: Found) -> tuple[list[Plan], list[Row]]:
    """Plans for the runs that can be processed, rows for those that cannot."""
    plans, rows = [], []
    for one in runs:
        reason = one.problem or one.skip
        if reason is not None:
            status = "failed" if one.problem else "skipped"
            LOG.log(logging.ERROR if one.problem else logging.WARNING, "%s: %s", status, reason)
            rows.append(Row.of(one, status, reason))
            continue
        for text in one.warnings:
            LOG.warning(text)
        plans.append(_plan_run(settings, one, found))
    return plans, rows


def _with_resources(one: Run, settings: Settings, found: Found) -> Run:
    """A run of fMRIPrep with what its space needs: A424 on grayordinates, or TemplateFlow's way
    from the other MNI template to ours."""
    source = one.preprocessed
    if source is None or one.problem or one.skip:
        return one
    if source.space == CIFTI_SPACE:
        return _with_cifti_atlas(one, source, settings, found)
    if source.space != OTHER_TEMPLATE:
        return one
    try:
        transform = resources.find_template_transform(OTHER_TEMPLATE, offline=settings.offline)
    except UserError as error:
        said = (
            f"{source.bold.name}: BOLD in {OTHER_TEMPLATE} needs TemplateFlow's transform to "
            f"{resources.REAL_SPACE} ({error}); or run fMRIPrep again with --output-spaces "
            f"{resources.REAL_SPACE}:res-2"
        )
        return replace(one, problem=said)
    return replace(one, preprocessed=replace(source, to_template=transform))


def _with_cifti_atlas(one: Run, source: Preprocessed, settings: Settings, found: Found) -> Run:
    name = source.bold.name
    if found.atlas.approximate:
        said = (
            f"{name}: grayordinates are labelled by A424, not by {found.atlas.label}; give --atlas"
        )
        return replace(one, problem=said)
    if settings.strategy is None and settings.denoise != "none":
        said = (
            f"{name}: ICA-AROMA looks at voxels outside of grey matter, which CIFTI lacks; give "
            "--denoise confounds:simple (or none), or another --input-space"
        )
        return replace(one, problem=said)
    try:
        given, offline = settings.cifti_atlas, settings.offline
        labels = resources.find_cifti_atlas(given, offline=offline)
    except UserError as error:
        return replace(one, problem=f"{name}: {error}")
    return replace(one, preprocessed=replace(source, labels=labels))


def _plan_run(settings: Settings, one: Run, found: Found) -> Plan:
    naming = outputs.Naming(str(settings.output_dir), one.stem, found.space, found.atlas.label)
    configuration = _series_hash(settings, one, found)
    complete = outputs.is_complete(settings.output_dir, one.stem, "series", configuration)
    tasks = []
    for model in found.models:
        source = model.name if model.path is None else str(model.path.resolve())
        values = settings.changing(MODEL)
        own = configuration_hash(
            {"series": configuration, "model": model.sha256 or model.name, **values}
        )
        task = ModelTask(source, model.label, own)
        stage = outputs.is_complete(settings.output_dir, one.stem, model.label, own)
        if not (complete and stage):
            tasks.append(task)
    context = _context(settings, one, found, naming, configuration)
    anatomical = None
    if one.t1w is not None:
        stem = parse(one.t1w.name).stem
        own_name = {**context["naming"], "stem": stem}
        sources = [bids_inputs.bids_uri(one.t1w, settings.bids_dir)]
        anatomical = {"naming": own_name, "sources": sources, "template": context["template"]}
    return Plan(one, naming, configuration, context, anatomical, not complete, tuple(tasks))


def _series_hash(settings: Settings, one: Run, found: Found) -> str:
    """Names what the series of a run depend on: settings, resources, inputs, version."""
    statistics, t1w = settings.scaling_stats, one.t1w
    values = {
        **settings.changing(SERIES),
        "version": __version__,
        "atlas": found.atlas.sha256,
        "template": [found.template.space, found.template.sha256],
        "scaling_stats": None if statistics is None else files.file_sha256(statistics),
        "bold": files.file_sha256(one.source),
        "tr": one.tr,
        "t1w": None if t1w is None else files.file_sha256(t1w),
    }
    if one.preprocessed is not None:
        paths = one.preprocessed.files
        if one.preprocessed.labels is not None:
            paths += (one.preprocessed.labels,)
        values["fmriprep"] = [files.file_sha256(path) for path in paths]
    return configuration_hash(values)


def _context(
    settings: Settings, one: Run, found: Found, naming: outputs.Naming, configuration: str
) -> dict[str, Any]:
    """Everything that the writers need to know of a run, as plain values."""
    warnings = [*found.warnings, *one.warnings]
    registration, doubt = _registration(one)
    warnings += [doubt] if doubt else []
    statistics = settings.scaling_stats
    sources = [one.uri]
    if one.t1w is not None:
        sources.append(bids_inputs.bids_uri(one.t1w, settings.bids_dir))
    atlas, template = found.atlas, {"Name": found.space, "Source": "fMRIPrep"}
    if one.is_raw:
        template |= {"SHA256": found.template.sha256, "Source": found.template.source}
    elif one.preprocessed is None:
        template["Source"] = "as given by the user"
    else:
        sources = [one.uri_of(path) for path in one.preprocessed.files]
    return {
        "naming": {
            "output_dir": naming.output_dir,
            "stem": naming.stem,
            "space": naming.space,
            "atlas": naming.atlas,
        },
        "tr": one.tr,
        "task": one.metadata.get("TaskName", one.entities.get("task", "")),
        "sources": sources,
        "warnings": warnings,
        "registration": registration,
        "configuration": configuration,
        "settings": _said_settings(settings, one),
        "slice_timing_corrected": False if one.is_raw else one.metadata.get("SliceTimingCorrected"),
        "scaling_statistics": "this recording" if statistics is None else statistics.name,
        "atlas": {"Name": atlas.label, "Space": atlas.space, "SHA256": atlas.sha256,
                  "Source": atlas.source, "Approximate": atlas.approximate},
        "template": template,
        "models": {
            model.label: {"label": model.label, **model.about()} for model in found.models
        },
    }  # fmt: skip


def _said_settings(settings: Settings, one: Run) -> dict[str, Any]:
    """The settings as the sidecars tell them: a given series is not preprocessed."""
    values = settings.changing(SERIES) | settings.subset(("mask_ratio", "input_gain"))
    if one.timeseries:
        values |= {"denoise": "none, as given", "high_pass": None, "low_pass": None}
    return values


def _registration(one: Run) -> tuple[str, str | None]:
    """How a run came into template space, and what is to be doubted of it."""
    if one.timeseries:
        return "none: a parcel series that was given", None
    if one.preprocessed is not None:
        return f"by fMRIPrep, BOLD in {one.preprocessed.space} space", None
    if one.t1w is not None:
        return "BOLD reference to T1w (rigid), T1w to template (affine and diffeomorphic)", None
    return (
        "BOLD reference to template (affine and non-linear), no T1w",
        "no T1w image: the BOLD reference was registered to the template directly, which is "
        "less exact",
    )


def _say_plans(plans: Sequence[Plan], rows: Sequence[Row]) -> int:
    for row in rows:
        print(f"{row.source}: {row.status}: {row.reason}")
    for plan in plans:
        steps = ["series"] if plan.series else []
        steps += [task.label for task in plan.models]
        print(f"{plan.run.source.name}: {', '.join(steps) or 'complete, nothing to do'}")
    return EXIT_FAILED if any(row.status == "failed" for row in rows) else EXIT_OK


# --- executing -------------------------------------------------------------------------------


def _execute(
    settings: Settings, found: Found, plans: list[Plan], run_id: str
) -> tuple[Graph, KeyboardInterrupt | None]:
    """Build the graph and run it; returns it, and the signal that stopped it, yet to be raised."""
    if settings.clean_workdir and (settings.work_dir / WORKFLOW).exists():
        shutil.rmtree(settings.work_dir / WORKFLOW)
    graph = participant_workflow(plans, materialise(settings, found), settings)
    LOG.info("%d runs to process, work folder %s", len(plans), settings.work_dir)
    try:
        execute(graph, settings, run_id)
    except KeyboardInterrupt as signalled:
        return graph, signalled
    return graph, None


# --- afterwards ------------------------------------------------------------------------------


def _judge(settings: Settings, plan: Plan, graph: Graph | None, run_id: str, stopped: bool) -> Row:
    """What became of a run, by what is on disk: a record is written when all its files are."""
    stages = {"series": plan.configuration}
    stages |= {task.label: task.configuration for task in plan.models}
    out, stem = settings.output_dir, plan.naming.stem
    missing = [
        name for name, key in stages.items() if not outputs.is_complete(out, stem, name, key)
    ]
    if graph is None or (not plan.series and not plan.models):
        return Row.of(plan.run, "cached", "complete under the same configuration")
    parts = [plan.stage, *(plan.model_stage(task) for task in plan.models)]
    seconds, memory = used_resources(settings.work_dir, graph.names(parts))
    if not missing:
        return Row.of(plan.run, "done", "", seconds, memory)
    crash = read_crashes(out / "logs" / "crash" / run_id, graph.names_upstream(parts))
    if crash is None and stopped:
        reason = f"{stem}: the call was stopped before {missing[0]} was finished"
        return Row.of(plan.run, "failed", reason, seconds, memory)
    if crash is None:
        reason = (
            f"{stem}: {missing[0]} was not finished and left no crash file; was a process killed "
            "(out of memory), or the call stopped at another run's crash?"
        )
        return Row.of(plan.run, "failed", reason, seconds, memory)
    if not crash.skipped:
        LOG.error("failed: %s: %s", stem, crash.reason)
    status = "skipped" if crash.skipped else "failed"
    return Row.of(plan.run, status, crash.reason, seconds, memory, str(crash.path))


def _write_dataset(settings: Settings, found: Found, runs: Sequence[Run]) -> None:
    """Files of the data set as a whole, the atlas as used, and the methods text."""
    import nibabel as nb
    import numpy as np

    labels = [model.label for model in found.models]
    outputs.write_dataset_files(
        settings.output_dir,
        settings.bids_dir,
        outputs.describe_labels(labels),
        settings.fmriprep_dir,
    )
    atlas, parcels = found.atlas, resources.parcels()
    data, affine = atlas.load()
    table = {
        "index": parcels.index.tolist(),
        "name": list(parcels.names),
        "hemisphere": list(parcels.hemisphere),
        "network_index": parcels.network_index.tolist(),
        "network": list(parcels.network),
        "x": parcels.xyz[:, 0].tolist(),
        "y": parcels.xyz[:, 1].tolist(),
        "z": parcels.xyz[:, 2].tolist(),
    }
    outputs.write_atlas_files(
        settings.output_dir,
        space=found.space,
        label=atlas.label,
        image=nb.Nifti1Image(np.asarray(data, dtype=np.int16), affine),
        table=table,
        description={
            "Name": atlas.label,
            "License": atlas.licence,
            "Source": atlas.source,
            "SHA256": atlas.sha256,
            "Approximate": atlas.approximate,
        },
    )
    text, references = _methods(settings, found, runs)
    logs = settings.output_dir / "logs"
    files.write_text(logs / "CITATION.md", text)
    files.write_text(logs / "CITATION.bib", references)


def _kind_of_source(settings: Settings) -> str:
    if settings.timeseries:
        return "timeseries"
    return "raw" if settings.fmriprep_dir is None else "fmriprep"


def _methods(settings: Settings, found: Found, runs: Sequence[Run]) -> tuple[str, str]:
    """The methods text of some runs, and its references: (Markdown, BibTeX)."""
    from importlib.metadata import version

    from brainlm_bids.report.methods import methods

    with_t1w = {one.t1w is not None for one in runs if one.problem is None}
    facts = {
        **settings.changing(SERIES),
        **settings.subset(("mask_ratio",)),
        "version": __version__,
        "versions": {name: version(name) for name in ("nipype", "antspyx", "scikit-learn", "torch")}
        | {"python": platform.python_version()},
        "source": _kind_of_source(settings),
        "has_t1w": with_t1w.pop() if len(with_t1w) == 1 else None,
        "template": found.space,
        "atlas": found.atlas.label,
        "scaling_stats": None if settings.scaling_stats is None else settings.scaling_stats.name,
        "models": [
            {
                "label": model.label,
                "untrained": model.random,
                **model.about(),
            }
            for model in found.models
        ],
    }
    return methods(facts)


def _write_reports(settings: Settings, runs: Sequence[Run], found: Found | None = None) -> int:
    """The HTML report of every subject, from what is in the output folder.

    With what was `found` each tells its own subject's methods: `logs/CITATION.md` is for all
    subjects of a call, and another call may have written it since.
    """
    from brainlm_bids.report.subject import build_report

    for subject, own in bids_inputs.by_subject(runs).items():
        text = None if found is None else _methods(settings, found, own)[0]
        path = build_report(settings.output_dir, subject, version=__version__, methods=text)
        print(f"report: {path}", file=sys.stderr)
    return EXIT_OK
