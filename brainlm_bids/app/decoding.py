"""Plan a decoding: which columns can be decoded from the embeddings of a model, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brainlm_bids import __version__
from brainlm_bids.app.cohort import QUALITY, Cohort, quality_columns
from brainlm_bids.app.status import SKIPPED, Outcome
from brainlm_bids.bids import outputs
from brainlm_bids.bids.derivatives import Recording
from brainlm_bids.bids.participants import Columns
from brainlm_bids.cohort import variables
from brainlm_bids.cohort.variables import Target
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings, configuration_hash
from brainlm_bids.table import COHORT
from brainlm_bids.workflows.group import DecodingPlan


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
    ):
        unknown = [name for name in names if name not in columns]
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
    regressors = {**quality_columns(recordings, QUALITY), **columns}
    subjects = [recording.participant for recording in recordings]
    targets: list[Target] = []
    confounds: dict[str, list[list[float]]] = {}
    skipped = {}
    for name in dict.fromkeys(settings.target):
        try:
            target = variables.make_target(name, columns[name], subjects)
            confounds[name] = _confounds(regressors, settings.regress_out, target)
        except UserError as error:
            skipped[name] = str(error)
            cohort.report(f"decoding of {name} ({label})", Outcome(SKIPPED, str(error)))
            continue
        targets.append(target)
    sidecar = {
        "NotDecoded": skipped,
        "Notes": {target.name: list(target.notes) for target in targets if target.notes},
        "RegressedOut": list(settings.regress_out),
        "Permutations": settings.permutations,
    }
    configuration = configuration_hash(
        {
            "version": __version__,
            "embeddings": [(r.stem, cohort.embedding_key(r, label)) for r in recordings],
            "targets": [[t.name, t.rows.tolist(), t.values.tolist(), t.classes] for t in targets],
            "confounds": confounds,
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
    plan = None if complete else DecodingPlan(tuple(targets), confounds, configuration)
    return Decoding(plan, sidecar)


def _confounds(columns: Columns, names: Sequence[str], target: Target) -> list[list[float]]:
    chosen: Mapping[str, list[str | None]] = {
        name: [columns[name][row] for row in target.rows] for name in names
    }
    return variables.design(chosen).tolist() if chosen else []
