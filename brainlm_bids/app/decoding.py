"""Plan a decoding: which columns can be decoded from the embeddings of a model, and how."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from brainlm_bids import __version__
from brainlm_bids.app.cohort import Cohort
from brainlm_bids.app.sites import ConfoundedError, SitePlanner
from brainlm_bids.app.status import FAILED, SKIPPED, Outcome
from brainlm_bids.bids import outputs
from brainlm_bids.bids.participants import Columns
from brainlm_bids.bids.quality import QUALITY, quality_columns
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.cohort import variables
from brainlm_bids.cohort.coding import (
    CATEGORY,
    NUMBER,
    Coded,
    asked_columns,
    in_words,
    summary,
    understand,
)
from brainlm_bids.cohort.sites import Sites, combined
from brainlm_bids.cohort.sources import LINEAR, Source, selected
from brainlm_bids.cohort.units import unit_means
from brainlm_bids.cohort.variables import Target
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings, configuration_hash
from brainlm_bids.table import COHORT
from brainlm_bids.workflows.group import DecodingPlan

LOG = logging.getLogger("brainlm_bids")


@dataclass(frozen=True)
class Decoding:
    """The decoding of one model.

    Parameters
    ----------
    plan : DecodingPlan or None
        None if it is complete under the same configuration.
    sidecar : dict
        What the sidecars of the model's tables report of it.
    """

    plan: DecodingPlan | None
    sidecar: dict[str, Any]


def check_columns(settings: Settings, known: Sequence[str], *, has_models: bool) -> None:
    """Refuse names of columns that do not exist before anything is computed.

    Parameters
    ----------
    known : sequence of str
        Columns of the tables of participants.
    has_models : bool
        Whether there is an embedding to decode from.
    """
    tables = "participants.tsv" if settings.phenotype is None else settings.phenotype.name
    for flag, names, columns in (
        ("--target", settings.target, (*known,)),
        ("--regress-out", settings.regress_out, (*known, *QUALITY)),
        ("--harmonize", filter(None, [settings.harmonised_column]), (*known,)),
        ("--keep", settings.keep, (*known,)),
        ("--folds-by", filter(None, [settings.folds_by]), (*known,)),
    ):
        unknown = [name for name in asked_columns(names, columns) if name not in columns]
        if unknown:
            raise UserError(
                f"{flag} {unknown[0]}: no such column in {tables}; "
                f"the columns are: {', '.join(columns) or 'none'}"
            )
    if settings.target and not has_models:
        raise UserError("--target: there is no embedding to decode from with --model none")


def plan_decoding(cohort: Cohort, label: str, recordings: Sequence[Recording]) -> Decoding:
    """Find the targets that can be decoded; the others are reported and skipped.

    Parameters
    ----------
    cohort : Cohort
        Whose targets are decoded.
    label : str
        Of the model.
    recordings : sequence of Recording
        Those that the model embedded.
    """
    settings = cohort.settings
    columns = cohort.variables_of(recordings)
    subjects = [recording.participant for recording in recordings]
    sessions = [recording.session_id for recording in recordings]
    regressors = _Regressors(cohort, recordings, columns)
    planner = SitePlanner(cohort, recordings, columns)
    sites: dict[str, Sites] = {}
    targets: list[Target] = []
    confounds: dict[str, list[list[float]]] = {}
    skipped = {}
    for name, kind in asked_columns(settings.target, columns, cohort.people.measured).items():
        try:
            make = partial(
                variables.make_target,
                name,
                subjects=subjects,
                sessions=sessions,
                kind=kind,
                levels=cohort.people.levels.get(name, ()),
            )
            target = planner.restricted(make(columns[name]), columns[name], make)
            target = planner.checked(target)
            confounds[name] = regressors.of(target)
            sites[name] = planner.of(target)._replace(alike=regressors.strata(target))
        except UserError as error:
            skipped[name] = str(error)
            status = FAILED if isinstance(error, ConfoundedError) else SKIPPED
            cohort.report(f"decoding of {name} ({label})", Outcome(status, str(error)))
            continue
        targets.append(target)
        LOG.info("%s: %s", name, in_words(variables.coding(target)))
        cohort.doubt(name, target.doubts)
    chosen = _sources(settings)
    embeddings = configuration_hash(
        {recording.stem: cohort.embedding_key(recording, label) for recording in recordings}
    )
    sidecar = _sidecar(settings, targets, skipped, regressors, planner)
    configuration = configuration_hash(
        {
            "version": __version__,
            "embeddings": embeddings,
            "sources": [source.name for source in chosen],
            "quality": quality_columns(recordings, QUALITY),
            "targets": [[t.name, t.units, t.unit_values.tolist(), t.classes] for t in targets],
            "confounds": confounds,
            "sites": {name: one.plain() for name, one in sites.items()},
            "sidecar": sidecar,
            **settings.changing(COHORT),
        }
    )
    complete = outputs.is_complete(
        settings.output_dir,
        cohort.naming.stem,
        outputs.model_stage(label, cohort.naming.scaling, "decoding"),
        configuration,
    )
    if complete:
        return Decoding(None, sidecar)
    plan = DecodingPlan(tuple(targets), confounds, sites, chosen, configuration, embeddings)
    return Decoding(plan, sidecar)


def _sidecar(
    settings: Settings,
    targets: Sequence[Target],
    skipped: Mapping[str, str],
    regressors: "_Regressors",
    planner: SitePlanner,
) -> dict[str, Any]:
    """What the sidecar of the tables tells of the targets."""
    notes = {target.name: list(target.notes) for target in targets if target.notes}
    sidecar: dict[str, Any] = {
        "NotDecoded": dict(skipped),
        "Notes": {**notes, **regressors.notes},
        "Coding": {target.name: variables.coding(target) for target in targets},
        "RegressedOut": regressors.names,
        "RegressedOutCoding": regressors.coding,
        "Permutations": settings.permutations,
        "Units": {target.name: target.unit for target in targets},
        **_left_out(settings),
        **planner.sidecar,
    }
    within = [*sidecar.get("PermutedWithin", []), *regressors.permuted_within]
    return sidecar | ({"PermutedWithin": list(dict.fromkeys(within))} if within else {})


def _sources(settings: Settings) -> tuple[Source, ...]:
    """What targets are decoded from: linear readouts alone where their features are changed."""
    changed = settings.regress_out or settings.harmonize
    return selected([kind for kind in settings.readouts if kind == LINEAR or not changed])


def _left_out(settings: Settings) -> dict[str, str]:
    """Sidecar field: why trained probes that were asked for are not in the table."""
    trained = [kind for kind in settings.readouts if kind != LINEAR]
    if not trained or not (settings.regress_out or settings.harmonize):
        return {}
    text = (
        f"{' and '.join(trained)}: confounds and sites can be removed from the features of a "
        "linear readout, but not from what a probe learns from tokens or volumes"
    )
    return {"ReadoutsLeftOut": text}


class _Regressors:
    """What is regressed out of the features: understood once, a matrix for each target."""

    def __init__(self, cohort: Cohort, recordings: Sequence[Recording], columns: Columns) -> None:
        self._cohort = cohort
        self._owners = [recording.participant for recording in recordings]
        known = {**quality_columns(recordings, QUALITY), **columns}
        asked = asked_columns(cohort.settings.regress_out, known, cohort.people.measured)
        # measures of quality are numbers, however few values they have
        self._asked = {
            name: (known[name], kind if name in columns else NUMBER) for name, kind in asked.items()
        }
        self._coded: list[Coded] | None = None
        self.permuted_within: list[str] = []

    def of(self, target: Target) -> list[list[float]]:
        """The matrix of the units of a target. Raises UserError if a column is not one."""
        if self._coded is None:
            self._coded = [self._understood(name) for name in self._asked]
            for one in self._coded:
                LOG.info("%s (regressed out): %s", one.name, in_words(self.coding[one.name]))
                self._cohort.doubt(one.name, one.doubts)
        chosen = [
            one._replace(texts=tuple(one.texts[row] for row in target.rows)) for one in self._coded
        ]
        if not chosen:
            return []
        matrix: list[list[float]] = unit_means(variables.design(chosen), target.places).tolist()
        return matrix

    def strata(self, target: Target) -> tuple[str, ...]:
        """Values of the categories for each unit, see `sites.combined`; empty without any."""
        columns = {one.name: one.texts for one in self._coded or [] if one.kind == CATEGORY}
        cells, used = combined(target.units, self._owners, columns)
        self.permuted_within = list(dict.fromkeys([*self.permuted_within, *used]))
        return cells

    @property
    def names(self) -> list[str]:
        """Their columns."""
        return list(self._asked)

    @property
    def coding(self) -> dict[str, dict[str, Any]]:
        """How each was coded; nothing, if no target was found that it is needed for."""
        return {one.name: summary(one.kind, one.texts) for one in self._coded or []}

    @property
    def notes(self) -> dict[str, list[str]]:
        """What was assumed about each."""
        coded = self._coded or []
        return {f"{one.name} (regressed out)": list(one.notes) for one in coded if one.notes}

    def _understood(self, name: str) -> Coded:
        column, kind = self._asked[name]
        levels = self._cohort.people.levels.get(name, ())
        try:
            return understand(name, column, self._owners, kind=kind, levels=levels)
        except UserError as error:
            raise UserError(f"--regress-out {error}") from None
