"""Runs whose files are fetched with DataLad: which they are, in which order, and what is kept.

A selection of runs comes in. Runs go out that can be planned, a few at a time, so that no more
contents are on the disk than those runs need.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from brainlm_bids.annex import (
    absent_among,
    annex_key,
    missing_subdatasets,
    not_installed,
    size_of_key,
)
from brainlm_bids.app import datalad
from brainlm_bids.app.datalad import SIDECAR, Fetcher
from brainlm_bids.app.execution import make_folders
from brainlm_bids.app.status import Outcome, Row, exit_code
from brainlm_bids.bids.describers import guarded
from brainlm_bids.bids.fmriprep import CIFTI_SPACE
from brainlm_bids.bids.inputs import Selection, is_asked_for
from brainlm_bids.bids.known_inputs import KnownInputs
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.plans import RunPlan

TO_FETCH = "to fetch"  # in place of a status, before anything is done
_LOOKS = 10  # at a run, since what it needs may be known only when something else is there


def prepare(settings: Settings) -> None:
    """Fetch what a call needs before it can look for runs, and for the group level.

    That is subdatasets that are not installed, the descriptions of the data sets, and tables about
    people and events. These are small, and stay.

    Raises
    ------
    UserError
        If a data set itself cannot be installed.
    """
    roots = [settings.bids_dir, *settings.derivatives_dirs.values()]
    for root in roots:
        _install(root, settings)
    datalad.get(absent_among(path for root in roots for path in _about_all(root, settings)))


def _install(root: Path, settings: Settings) -> None:
    for _ in range(_LOOKS):  # subdatasets may be in one another
        missing = [one for one in missing_subdatasets(root) if is_asked_for(one, root, settings)]
        if not missing:
            return
        faults = datalad.get(missing, "-n")
        around = next((one for one in missing if root.resolve().is_relative_to(one)), None)
        if around is not None and around in faults:
            raise UserError(f"{not_installed(around)} ({faults[around]})")
        if set(missing) <= set(faults):
            return  # they have rows


def _about_all(root: Path, settings: Settings) -> Iterable[Path]:
    yield root / "dataset_description.json"
    yield root / ".bidsignore"
    if "group" in settings.analysis_level:
        yield root / "participants.tsv"
        yield root / "participants.json"
        if settings.phenotype is not None:
            yield from (settings.phenotype, settings.phenotype.with_suffix(".json"))
        if settings.decode_states:
            yield from root.glob("*events.tsv")
            yield from root.glob("sub-*/**/*events.tsv")


def start_fetching(
    settings: Settings, selection: Selection, run_id: str, stack: contextlib.ExitStack
) -> Fetcher | None:
    """What fetches the files of runs, if the call may; before anything is looked at."""
    if not fetches(settings):
        return None
    make_folders(settings)
    fetcher = Fetcher(settings.output_dir, run_id, drops=settings.datalad_drop)
    stack.enter_context(fetcher)
    describer = selection.describer(SourceFiles())
    fetcher.use(path for run in selection.runs for path in describer.candidates(run))
    return fetcher


def fetches(settings: Settings) -> bool:
    """Whether a call fetches anything."""
    idle = settings.dry_run or settings.reports_only or settings.boilerplate_only
    return settings.datalad_get and not idle


def fetch_sidecars(fetcher: Fetcher, runs: Sequence[Run]) -> bool:
    """Fetch the sidecars of runs; whether something was, so that the runs can be looked at again.

    They tell which images a run needs, and whether these have been processed already.
    """
    absent = [path for run in runs for path in run.absent if path.suffix == SIDECAR]
    return bool(absent) and len(fetcher.get(absent)) < len(set(absent))


# --- runs that are fetched -------------------------------------------------------------------


def rounds(runs: Sequence[Run], together: int) -> list[list[Run]]:
    """Runs as they are fetched and processed together, those of a subject one after another.

    >>> rounds([], 2)
    []
    """
    ordered = sorted(runs, key=lambda run: (run.subject, run.session or "", run.source))
    return [ordered[start : start + together] for start in range(0, len(ordered), together)]


def fetch(
    fetcher: Fetcher, selection: Selection, runs: Sequence[Run], records: KnownInputs
) -> tuple[list[Run], SourceFiles]:
    """Fetch the files of some runs, and look at the runs again.

    Parameters
    ----------
    fetcher : Fetcher
        Fetches them.
    selection : Selection
        Of the call.
    runs : sequence of Run
        Of the selection.
    records : KnownInputs
        What is recorded of their files, which does not stand for their contents.

    Returns
    -------
    runs : list of Run
        With the reason, where something could not be fetched.
    sources : SourceFiles
        That their files were read with.
    """
    selected = {run.stem: run for run in selection.runs}
    faults: dict[Path, str] = {}
    found, sources = list(runs), SourceFiles(records)
    for _ in range(_LOOKS):
        absent = [path for run in found for path in run.absent if path not in faults]
        if not absent:
            break
        faults |= fetcher.get(absent)
        sources = SourceFiles(records)
        describer = selection.describer(sources)
        found = [guarded(selected[run.stem], describer.describe) for run in runs]
    return [_with_reason(run, faults) for run in found], sources


def _with_reason(run: Run, faults: dict[Path, str]) -> Run:
    failed = [path for path in run.absent if path in faults]
    if not failed:
        return replace(run, absent=())
    count = "" if len(failed) == 1 else f" and {len(failed) - 1} more"
    problem = f"{failed[0]}{count}: could not be fetched ({faults[failed[0]]})"
    return replace(run, absent=(), problem=problem)


def dropped(plan: RunPlan) -> tuple[Path, ...]:
    """Files that what is to be computed of a run needs, and whose contents were dropped."""
    cifti = plan.run.preprocessed is not None and plan.run.preprocessed.space == CIFTI_SPACE
    if not plan.stages.to_extract and not (cifti and plan.stages.pending):
        return ()
    return absent_among((*plan.run.inputs, *plan.run.beside))


def to_fetch(run: Run) -> Outcome:
    """What is told of a run before it is fetched."""
    sizes = [size_of_key(annex_key(path) or "") for path in run.absent]
    known = sum(size or 0 for size in sizes) / 1e6
    files = f"{len(run.absent)} file{'' if len(run.absent) == 1 else 's'}"
    return Outcome(TO_FETCH, f"{files} to be fetched with DataLad, {known:.0f} MB or more")


def why_not_begun(settings: Settings, rows: Sequence[Row], *, stopped: bool) -> str:
    """Why runs are not fetched any more; empty if they are."""
    if stopped:
        return "the call was stopped before its files were fetched"
    if settings.stop_on_first_crash and exit_code(rows):
        return "not begun, since the call ended at another failure (--stop-on-first-crash)"
    return ""
