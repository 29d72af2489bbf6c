"""Plan the audit of a model's embeddings: which properties of the recordings it looks for."""

import math
from collections.abc import Sequence

from brainlm_bids import __version__
from brainlm_bids.app.cohort import Cohort
from brainlm_bids.app.decoding import asked_columns
from brainlm_bids.bids import outputs
from brainlm_bids.bids.quality import QUALITY, quality_columns
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.cohort.coding import NUMBER
from brainlm_bids.cohort.maps import can_map_neighbours
from brainlm_bids.cohort.properties import Property, is_property, make_property, obstacle
from brainlm_bids.cohort.sources import COHORT, SOURCES
from brainlm_bids.errors import UserError
from brainlm_bids.settings import configuration_hash
from brainlm_bids.workflows.audit import AuditPlan


def plan_audit(cohort: Cohort, label: str, recordings: Sequence[Recording]) -> AuditPlan | None:
    """Find what can be looked for: quality, site and the like, age and sex, and the targets.

    Parameters
    ----------
    cohort : Cohort
        Of the call.
    label : str
        Of the model.
    recordings : sequence of Recording
        Those that the model embedded.

    Returns
    -------
    AuditPlan or None
        None if it is complete under the same configuration.
    """
    settings = cohort.settings
    columns = cohort.variables_of(recordings)
    kinds: dict[str, str | None] = {name: None for name in columns if is_property(name)}
    kinds |= asked_columns(settings.target, columns, cohort.people.measured) | dict.fromkeys(
        QUALITY, NUMBER
    )
    columns = {**columns, **quality_columns(recordings, QUALITY)}
    owners = [recording.participant for recording in recordings]
    found: list[Property] = []
    not_measured, notes = {}, {}
    for name, kind in sorted(kinds.items(), key=lambda item: item[0] not in QUALITY):
        levels = () if name in QUALITY else cohort.people.levels.get(name, ())
        try:
            one, coded = make_property(name, columns[name], owners, kind=kind, levels=levels)
        except UserError as error:
            not_measured[name] = str(error)
            continue
        problem = obstacle(one, owners)
        if problem is not None:
            not_measured[name] = problem
            continue
        found.append(one)
        if coded.notes:
            notes[name] = list(coded.notes)
    properties = [
        {
            "name": one.name,
            "values": [None if math.isnan(value) else value for value in one.values.tolist()],
            "levels": list(one.levels),
        }
        for one in found
    ]

    control = _control(settings.pooling)
    embeddings = configuration_hash(
        {one.stem: cohort.embedding_key(one, label) for one in recordings}
    )
    configuration = configuration_hash(
        {
            "version": __version__,
            "embeddings": embeddings,
            "properties": properties,
            "not_measured": not_measured,
            "notes": notes,
            "untrained": control,
            "random_seed": settings.random_seed,
            "neighbour_map": can_map_neighbours(len(recordings)),
        }
    )
    stage = outputs.model_stage(label, cohort.naming.scaling, "audit")
    known = (settings.output_dir, cohort.naming.stem, stage, configuration)
    if outputs.is_complete(*known):
        return None
    return AuditPlan(properties, not_measured, notes, control, configuration, embeddings)


def _control(pooling: str) -> str:
    """The source of decodings that is pooled as the embedding is; empty if there is none."""
    found = [
        source.name
        for source in SOURCES
        if (source.features, source.readout, source.scaling) == ("untrained", pooling, COHORT)
    ]
    return found[0] if found else ""
