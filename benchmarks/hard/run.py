"""Hard inputs are written, given to the program, and judged."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hard.call import Call, call
from benchmarks.hard.case import Batch, Case, Result
from benchmarks.hard.judge import judge_call, judge_planned, judge_recording


@dataclass(frozen=True)
class Place:
    """Where a batch is worked on.

    Parameters
    ----------
    root
        An empty folder.
    workers
        Processes at a time.
    """

    root: Path
    workers: int = 1

    def fresh(self, batch: Batch, name: str) -> Path:
        """A folder with the benign inputs of a batch, which are written once."""
        base = self.root / "base"
        if not base.exists():
            base.mkdir(parents=True)
            batch.prepare(base)
        folder = self.root / name
        shutil.copytree(base, folder, symlinks=True)
        return folder


def run_batch(batch: Batch, cases: Sequence[Case], place: Place) -> list[Result]:
    """Run some inputs of a batch, in one call where they share one."""
    own = [case for case in cases if case.arguments]
    shared = [case for case in cases if not case.arguments]
    results = _shared(batch, shared, place) if shared else []
    if own:
        results += _calls_of_their_own(batch, own, place)
    order = {case.name: number for number, case in enumerate(batch.cases)}
    return sorted(results, key=lambda result: order[result.case.name])


# --- one call for many -----------------------------------------------------------------------


def _shared(batch: Batch, cases: Sequence[Case], place: Place) -> list[Result]:
    """All in one call; where planning fails for all, who is to blame is found one by one."""
    culprits: dict[str, Result] = {}
    folder = _written(batch, cases, place, "shared")
    planned = call([*batch.command(folder), "--dry-run"], folder)
    if planned.fault:
        culprits = _culprits(batch, cases, place)
        shutil.rmtree(folder)
        folder = _written(
            batch, [case for case in cases if case.name not in culprits], place, "shared"
        )
    arguments = batch.command(folder)
    if not batch.dry:
        arguments += ["--nprocs", str(place.workers)]
    done = call(arguments, folder)
    return [
        culprits[case.name] if case.name in culprits else _judged(batch, case, done, folder)
        for case in cases
    ]


def _written(batch: Batch, cases: Sequence[Case], place: Place, name: str) -> Path:
    folder = place.fresh(batch, name)
    for case in cases:
        if case.build is not None:
            case.build(folder)
    return folder


def _culprits(batch: Batch, cases: Sequence[Case], place: Place) -> dict[str, Result]:
    """The inputs that end a call by themselves."""
    found = {}
    for case in cases:
        folder = _written(batch, [case], place, f"alone-{case.name}")
        fault = call([*batch.command(folder), "--dry-run"], folder).fault
        shutil.rmtree(folder)
        if fault:
            found[case.name] = Result(case, fault=f"{fault}, and no other run is processed")
    return found


def _judged(batch: Batch, case: Case, done: Call, folder: Path) -> Result:
    if done.fault and not done.rows and not batch.dry:
        return Result(case, fault=f"{done.fault} of the call")
    judge = judge_planned if batch.dry else batch.judge or judge_recording
    return judge(case, done, folder)


# --- a call each -----------------------------------------------------------------------------


def _calls_of_their_own(batch: Batch, cases: Sequence[Case], place: Place) -> list[Result]:
    """One after another where inputs change the folder; else as many at a time as may be."""
    folder = place.fresh(batch, "own")

    def one(case: Case) -> Result:
        if case.build is not None:
            case.build(folder)
        done = call(_filled(case.arguments, folder), folder)
        result = judge_call(case, done, folder)
        if case.like and not result.fault and result.status == "done":
            _compare_settings(result, folder)
        return batch.after(result, folder)

    if all(case.build is None for case in cases):
        with ThreadPoolExecutor(place.workers) as pool:
            return list(pool.map(one, cases))
    return [one(case) for case in cases]


def _filled(arguments: Sequence[str], folder: Path) -> list[str]:
    return [argument.replace("{folder}", str(folder)) for argument in arguments]


def _compare_settings(result: Result, folder: Path) -> None:
    """The settings of two spellings must be the same."""
    from brainlm_bids.commands.bids_app import parse

    given, meant = (
        parse(_filled(arguments, folder)) for arguments in (result.case.arguments, result.case.like)
    )
    if given != meant:
        result.fault = f"not understood as {' '.join(result.case.like[-2:])}"
