"""Parcel series that were made elsewhere (`--timeseries`), as runs.

Files of the call come in. `Run` values go out, each with what is wrong with it in one line.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from brainlm_bids.bids.describers import guarded
from brainlm_bids.bids.headers import is_tr, not_a_tr, tr_mismatch
from brainlm_bids.bids.names import without_punctuation
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.bids.timeseries import Timeseries, read_timeseries
from brainlm_bids.errors import UserError
from brainlm_bids.files import check_readable
from brainlm_bids.notices import Notice
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES
from brainlm_bids.settings import Settings


def given_timeseries(
    settings: Settings, parcels: Sequence[str], sources: SourceFiles | None = None
) -> list[Run]:
    """The series of `--timeseries` as runs, in the order of their names.

    Parameters
    ----------
    settings
        Of the call.
    parcels
        Names of the atlas's parcels.
    sources
        Knows what is recorded of the files.
    """
    describe = partial(_describe_timeseries, settings=settings, parcels=parcels)
    runs = [
        guarded(Run(path, path.parent, {}, timeseries=True), describe)
        for path in dict.fromkeys(settings.timeseries)
    ]
    if sources is not None:
        for run in runs:
            sources.recall(run.stem)
    stems = Counter(without_punctuation(run.stem) for run in runs)
    return sorted(
        (run if stems[without_punctuation(run.stem)] == 1 else _of_one_name(run) for run in runs),
        key=lambda run: (run.stem, run.source),
    )


def _of_one_name(run: Run) -> Run:
    problem = (
        f"--timeseries {run.source}: another file would also be called {run.stem}, but for "
        "punctuation; rename one"
    )
    return replace(run, problem=problem)


def _describe_timeseries(run: Run, settings: Settings, parcels: Sequence[str]) -> Run:
    path = run.source
    try:
        check_readable(path)
        series = read_timeseries(path, parcels)
    except UserError as error:
        return replace(run, problem=f"--timeseries {error}")
    tr = settings.timeseries_tr or series.tr
    if tr is None:
        problem = (
            f"{path.name}: neither the file nor a JSON file beside it has a repetition time in "
            "seconds; give --timeseries-tr SECONDS"
        )
        return replace(run, problem=problem)
    if not is_tr(tr):
        return replace(run, problem=f"{path.name}: its repetition time, {not_a_tr(tr)}")
    run = replace(run, metadata={"RepetitionTime": tr, "StartTime": series.start})
    n_volumes = len(series.values)
    if n_volumes < MINIMUM_VOLUMES:
        short = f"{path.name}: {n_volumes} volumes, fewer than {MINIMUM_VOLUMES}"
        return replace(run, skip=short)
    return replace(run, warnings=_about_tr(path, series, settings.timeseries_tr))


def _about_tr(path: Path, series: Timeseries, given: float | None) -> tuple[Notice, ...]:
    """Warn where the repetition times of a series contradict each other; given: --timeseries-tr."""
    if given is not None and series.tr is not None:
        where = "that the file or the JSON file beside it records"
        return tr_mismatch(path.name, series.tr, given, where=where, source="of --timeseries-tr")
    if series.tr is not None and series.header_tr is not None:
        return tr_mismatch(path.name, series.header_tr, series.tr)
    return ()
