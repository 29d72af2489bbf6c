"""The last graph of the group level: tables, networks, decoding and figures of the cohort."""

from collections.abc import Sequence
from typing import Any

from brainlm_bids.app import ahead
from brainlm_bids.app.audit import plan_audit
from brainlm_bids.app.cohort import Cohort
from brainlm_bids.app.context import model_info
from brainlm_bids.app.decoding import asked_columns, plan_decoding
from brainlm_bids.app.execution import execute
from brainlm_bids.app.plan import model_source
from brainlm_bids.app.resources import materialise
from brainlm_bids.app.states import plan_states
from brainlm_bids.app.status import FAILED, Outcome
from brainlm_bids.bids.participants import Columns
from brainlm_bids.bids.quality import QUALITY, quality, quality_columns
from brainlm_bids.bids.recordings import INCLUDED, Recording
from brainlm_bids.cohort.coding import CATEGORY, NUMBER, understand
from brainlm_bids.cohort.properties import is_property
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.software import software_versions
from brainlm_bids.notices import to_json
from brainlm_bids.resources import ModelResource
from brainlm_bids.workflows import group as graphs
from brainlm_bids.workflows.group import ModelSummary, ScalingSource


def summarise(cohort: Cohort, statistics: ScalingSource) -> None:
    """Write the tables and figures about the whole cohort."""
    settings, included = cohort.settings, cohort.included
    summaries = [_summary(cohort, label, model) for label, model in cohort.models.items()]
    sidecar = {
        "ScalingStatistics": statistics.description,
        "NumberOfRecordings": len(included),
        "NumberOfSubjects": len({recording.participant for recording in included}),
        "Space": cohort.naming.space,
        "Atlas": cohort.naming.atlas,
        "RandomSeed": settings.random_seed,
        "SoftwareVersions": software_versions(),
        "Warnings": to_json(cohort.warnings()),
    }
    graph = graphs.tables_workflow(
        [quality(recording) for recording in included],
        [
            {**quality(recording), "included": recording.status == INCLUDED}
            for recording in cohort.recordings
        ],
        [summary for summary in summaries if summary is not None],
        cohort.naming,
        statistics.path,
        sidecar,
        materialise(settings, cohort.resources),
        settings,
    )
    execute(graph, settings, cohort.run_id, cohort.progress, ahead.TABLES)
    cohort.report_crashes(graph, list(graph.nodes), expected=False)


def _summary(cohort: Cohort, label: str, model: ModelResource) -> ModelSummary | None:
    """Input of the tables of a model; None if it embedded no recording."""
    included = cohort.included
    rows = [k for k, one in enumerate(included) if cohort.is_embedded(one, label)]
    if not rows:
        reason = "no recording could be embedded"
        cohort.report(f"tables of {label}", Outcome(FAILED, reason))
        return None
    embedded = [included[row] for row in rows]
    colours, kinds = _colours(cohort, embedded)
    # first the decoding, which may warn about variables
    decoding = plan_decoding(cohort, label, embedded) if cohort.settings.target else None
    sidecar: dict[str, Any] = {
        "Model": {**model_info(label, model).sidecar(), "untrained": model.random},
        "Warnings": to_json([*cohort.warnings(), *model.warnings]),
    }
    source = model_source(model)
    plan = None if decoding is None else decoding.plan
    audit = plan_audit(cohort, label, embedded)
    sidecar |= {} if decoding is None else decoding.sidecar
    states = plan_states(cohort, label, embedded) if cohort.settings.decode_states else None
    return ModelSummary(label, rows, colours, kinds, sidecar, source, plan, audit, states)


def _colours(cohort: Cohort, recordings: Sequence[Recording]) -> tuple[Columns, dict[str, str]]:
    """What may colour a map: the targets first, then site and the like, and quality last.

    Returns the columns, with codes for missing values taken out, and whether they are numbers or
    categories.
    """
    columns = cohort.variables_of(recordings)
    asked = asked_columns(cohort.settings.target, columns, cohort.people.measured)
    order = sorted(columns, key=lambda name: (name not in asked, not is_property(name)))
    owners = [recording.participant for recording in recordings]
    shown: Columns = {}
    kinds: dict[str, str] = {}
    for name in order:
        try:
            coded = understand(
                name,
                columns[name],
                owners,
                kind=asked.get(name),
                levels=cohort.people.levels.get(name, ()),
            )
        except UserError:
            continue  # whoever asks for the column by an option is told why
        shown[name], kinds[name] = list(coded.texts), coded.kind
    numbers = quality_columns(recordings, QUALITY)
    labels = quality_columns(recordings, ("session_id", "task", "run"))
    kinds |= dict.fromkeys(numbers, NUMBER) | dict.fromkeys(labels, CATEGORY)
    return {**shown, **numbers, **labels}, kinds
