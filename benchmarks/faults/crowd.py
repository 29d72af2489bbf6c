"""Many calls at once on one output folder, of all kinds; and calls that die with its lock."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Container, Sequence
from pathlib import Path

from benchmarks.faults import kills, small
from benchmarks.faults.fault import Fault, NotTried, Trial
from benchmarks.faults.processes import (
    SOURCE,
    Running,
    differences,
    settle,
    start,
    still_alive,
    temporary_files,
)

N_SUBJECTS = 9
# Calls of one participant, whose numbers they are; the last one has three calls.
PARTICIPANTS = (*range(N_SUBJECTS), N_SUBJECTS - 1, N_SUBJECTS - 1)
N_GROUP = 3
# Beside these, one exports what is there, and one writes the pages again: 16 calls.
N_CALLS = len(PARTICIPANTS) + N_GROUP + 2
# Two participants of one call each, one of the three of the same participant, one of a group.
KILLED = (1, 2, 9, 12)
# A call takes seconds; 16 share the machine.
PATIENCE_S = 900.0
# Between the calls that are killed; seconds.
BETWEEN_S = 8.0
# With which a lock is looked at each time, and how many of its holders are killed.
CHANCE, N_HOLDERS = 0.5, 3
# Of the output folder, and of its index.
LOCKS = (".lock", ".index.lock")
NONE = ("--model", "none")
HOLDS = """
import sys, time
from pathlib import Path
from brainlm_bids.bids.dataset import dataset_lock
with dataset_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def _words(raw: Path, folder: Path, number: int) -> list[str]:
    """Of call number, with a work folder of its own."""
    if number == N_CALLS - 2:
        return ["export", str(folder / "out"), str(folder / "run")]
    work = ["-w", str(folder / f"work-{number}")]
    if number == N_CALLS - 1:
        return small.participant(raw, folder, *NONE, *work, "--reports-only")
    if number < len(PARTICIPANTS):
        chosen = ["--participant-label", f"{PARTICIPANTS[number] + 1:03d}"]
        return small.participant(raw, folder, *NONE, *work, *chosen)
    return small.group(raw, folder, *NONE, *work)


def _all_started(raw: Path, trial: Path) -> list[Running]:
    """The calls, on a folder that has one participant: the group level needs one."""
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir()
    small.done(_words(raw, trial, 0), trial)
    return [
        start(
            _words(raw, trial, number),
            trial,
            kills.TOOLS if number == N_CALLS - 2 else "brainlm_bids",
        )
        for number in range(N_CALLS)
    ]


def _reference(folder: Path) -> Path:
    """The outputs of one participant call, and one of the group level after it."""
    raw, trial = small.series(folder / "raw", N_SUBJECTS), folder / "trial"
    trial.mkdir()
    small.done(small.participant(raw, trial, *NONE), trial)
    small.done(small.group(raw, trial, *NONE), trial)
    shutil.copytree(trial / "out", folder / "whole")
    settle(folder / "whole")
    return raw


def _completed(raw: Path, folder: Path) -> list[str]:
    """Complete an output folder, and tell how it differs from that of one call after another."""
    trial = folder / "trial"
    small.done(small.participant(raw, trial, *NONE), trial)
    small.done(small.group(raw, trial, *NONE), trial)
    left = temporary_files(trial)
    (trial / "out").rename(folder / "again")
    settle(folder / "again")
    found = differences(folder / "whole", folder / "again")[:3]
    shutil.rmtree(folder / "again")
    return [f"left behind: {left[:4]}", *found] if left else found


def _ended(calls: Sequence[Running], killed: Collection[int]) -> list[str]:
    """What the calls that were not killed did not do as they should."""
    faults = []
    for number, call in enumerate(calls):
        code = call.end(PATIENCE_S)
        if alive := still_alive(call.mark):
            faults.append(f"processes {alive} live on")
        if number not in killed and (code or "Traceback" in call.text()):
            faults.append(f"call {number}: exit code {code}: {call.text()[-400:]}")
    return faults


def _lost(out: Path, done: Collection[int]) -> list[str]:
    """Participants that have been processed, and are not among the records or in the index."""
    index = (out / "index.tsv").read_text()
    return [
        f"{name} is lost"
        for name in (f"sub-{number + 1:03d}_task-rest" for number in sorted(done))
        if name not in index or not (out / "logs" / "records" / f"{name}_series.json").is_file()
    ]


def _trial(told: str, faults: Sequence[str], began: float) -> Trial:
    return Trial(not faults, f"{told}: {'; '.join(faults)}", time.monotonic() - began)


# --- at once ---------------------------------------------------------------------------------


def _at_once(folder: Path, _seconds: float) -> Sequence[Trial]:
    """All calls at once, undisturbed and with four of them killed; then the folder is completed."""
    raw = _reference(folder)
    return [_crowd(raw, folder, killed) for killed in ((), KILLED)]


def _crowd(raw: Path, folder: Path, killed: Sequence[int]) -> Trial:
    began = time.monotonic()
    calls = _all_started(raw, folder / "trial")
    for number in killed:
        time.sleep(BETWEEN_S)
        calls[number].process.kill()
    faults = _ended(calls, killed)
    done = {one for number, one in enumerate(PARTICIPANTS) if number not in killed}
    faults += _lost(folder / "trial" / "out", done)
    return _trial(f"{len(killed)} killed", faults + _completed(raw, folder), began)


# --- calls that are killed with the lock -----------------------------------------------------


def holder(lock: Path) -> int | None:
    """The process that holds a lock; None where nobody does."""
    try:
        state = lock.stat()
    except FileNotFoundError:
        return None
    place = f"{os.major(state.st_dev):02x}:{os.minor(state.st_dev):02x}:{state.st_ino}"
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return next((int(row[4]) for row in rows if row[1] == "FLOCK" and row[5] == place), None)


def kill_holder(lock: Path, calls: Container[int]) -> int | None:
    """SIGKILL to the process that holds a lock, while it holds it, if it is one of these calls."""
    pid = holder(lock)
    if pid is None or pid not in calls:
        return None
    try:
        os.kill(pid, signal.SIGSTOP)
        # it may have let go of the lock before it was stopped
        still = holder(lock) == pid
        os.kill(pid, signal.SIGKILL if still else signal.SIGCONT)
    except ProcessLookupError:
        return None
    return pid if still else None


def _holders(folder: Path, _seconds: float) -> Sequence[Trial]:
    """Calls are killed while they hold the lock; the others go on, and nothing is lost."""
    if not Path("/proc/locks").is_file():
        raise NotTried("this system does not tell who holds a lock")
    raw = _reference(folder)
    return [_without_holders(raw, folder, seed) for seed in (0, 1)]


def _without_holders(raw: Path, folder: Path, seed: int) -> Trial:
    began, rng = time.monotonic(), random.Random(seed)
    calls = _all_started(raw, folder / "trial")
    numbers = {call.process.pid: number for number, call in enumerate(calls)}
    logs, killed = folder / "trial" / "out" / "logs", set[int]()
    while len(killed) < N_HOLDERS and any(call.process.poll() is None for call in calls):
        for lock in (logs / name for name in LOCKS):
            # most calls let go of it before they are stopped
            if rng.random() < CHANCE and (pid := kill_holder(lock, numbers)) is not None:
                killed.add(numbers[pid])
        time.sleep(0.0005)
    faults = _ended(calls, killed)
    if len(killed) < N_HOLDERS:
        faults.append(f"only {len(killed)} were killed")
    done = {one for number, one in enumerate(PARTICIPANTS) if number not in killed}
    faults += _lost(folder / "trial" / "out", done)
    told = f"calls {sorted(killed)} killed with a lock"
    return _trial(told, faults + _completed(raw, folder), began)


def _killed_with_lock(folder: Path, _seconds: float) -> Sequence[Trial]:
    """Four calls wait for a lock whose holder is stopped, and is killed then."""
    raw, trial = small.series(folder / "raw", 4), folder / "trial"
    (trial / "out").mkdir(parents=True)
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    words = [sys.executable, "-c", HOLDS, str(trial / "out")]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, env=environment)
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    calls = [start(_words(raw, trial, number), trial) for number in range(4)]
    time.sleep(40)
    waited = [call.process.poll() is None for call in calls]
    holder.kill()
    holder.wait()
    faults = _ended(calls, ())
    if not all(waited):
        faults.append("a call did not wait for the lock")
    return [_trial("4 calls", faults, began)]


WHOLE = (
    "exit code 0 of the others, which end; every participant that was done is in the records and "
    "in the index; completed, the same bytes as one call after another"
)
FAULTS = (
    Fault(
        "crowd/at-once",
        "16 calls at once on one OUT: 9 participants, one of them three times, the group level "
        "three times, export, `--reports-only`; the same with 4 of them killed",
        WHOLE,
        _at_once,
    ),
    Fault(
        "crowd/holder",
        "the same 16 calls, of which three are killed while they hold the lock of OUT or of its "
        "index; twice",
        WHOLE,
        _holders,
    ),
    Fault(
        "crowd/lock",
        "4 calls wait for the lock of OUT whose holder hangs, and is killed",
        "they wait, and then go on",
        _killed_with_lock,
    ),
)
