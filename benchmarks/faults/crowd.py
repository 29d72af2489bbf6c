"""Many calls at once on one output folder, of both levels; and calls that die with its lock."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import small
from benchmarks.faults.fault import Fault, Trial
from benchmarks.faults.processes import (
    SOURCE,
    Running,
    differences,
    settle,
    start,
    still_alive,
    temporary_files,
)

N_SUBJECTS, N_GROUP = 12, 4
# A call of a subject takes seconds; 16 share the machine.
PATIENCE_S = 900.0
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
    """Of call number: a subject each, then group calls, each with a work folder of its own."""
    work = ["-w", str(folder / f"work-{number}")]
    if number < N_SUBJECTS:
        chosen = ["--participant-label", f"{number + 1:03d}"]
        return small.participant(raw, folder, *NONE, *work, *chosen)
    return small.group(raw, folder, *NONE, *work)


def _reference(folder: Path) -> Path:
    """The outputs of one participant call, and one of the group level after it."""
    raw, trial = small.series(folder / "raw", N_SUBJECTS), folder / "trial"
    trial.mkdir()
    small.done(small.participant(raw, trial, *NONE), trial)
    small.done(small.group(raw, trial, *NONE), trial)
    shutil.copytree(trial / "out", folder / "whole")
    settle(folder / "whole")
    shutil.rmtree(trial)
    return raw


def _at_once(folder: Path, _seconds: float) -> Sequence[Trial]:
    """All calls at once, undisturbed and with four of them killed; then the folder is completed."""
    raw = _reference(folder)
    return [_crowd(raw, folder, kill) for kill in (0, 4)]


def _crowd(raw: Path, folder: Path, n_killed: int) -> Trial:
    trial, began = folder / "trial", time.monotonic()
    trial.mkdir()
    # the group level needs outputs: one subject is there before
    small.done(_words(raw, trial, 0), trial)
    calls = [start(_words(raw, trial, k), trial) for k in range(N_SUBJECTS + N_GROUP)]
    for call in calls[1 : 1 + n_killed]:
        time.sleep(3)
        call.process.kill()
    codes = [call.end(PATIENCE_S) for call in calls]
    faults = _faults(calls, codes, n_killed)
    survivors = N_SUBJECTS - n_killed
    n_series = len(list(trial.glob("out/logs/records/*_series.json")))
    if n_series < survivors:
        faults.append(f"{n_series} of {survivors} recordings")
    index = (trial / "out" / "index.tsv").read_text()
    if index.count("_task-rest") < survivors:
        faults.append(f"the index has {index.count('_task-rest')} of {survivors} recordings")
    small.done(small.participant(raw, trial, *NONE), trial)
    small.done(small.group(raw, trial, *NONE), trial)
    left = temporary_files(trial)
    faults += [f"left behind: {left[:4]}"] if left else []
    (trial / "out").rename(folder / "again")
    settle(folder / "again")
    faults += differences(folder / "whole", folder / "again")[:3]
    shutil.rmtree(folder / "again")
    shutil.rmtree(trial)
    told = f"{n_killed} killed: {'; '.join(faults)}"
    return Trial(not faults, told, time.monotonic() - began)


def _faults(calls: Sequence[Running], codes: Sequence[int], n_killed: int) -> list[str]:
    faults = []
    for number, (call, code) in enumerate(zip(calls, codes, strict=True)):
        if alive := still_alive(call.mark):
            faults.append(f"processes {alive} live on")
        if 1 <= number <= n_killed:
            continue
        if code or "Traceback" in call.text():
            faults.append(f"call {number}: exit code {code}: {call.text()[-400:]}")
    return faults


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
    codes = [call.end(PATIENCE_S) for call in calls]
    faults = _faults(calls, codes, 0)
    if not all(waited):
        faults.append("a call did not wait for the lock")
    return [Trial(not faults, "; ".join(faults), time.monotonic() - began)]


FAULTS = (
    Fault(
        "crowd/at-once",
        "16 calls at once on one OUT, 12 of a participant each and 4 of the group level; the same "
        "with 4 of them killed",
        "exit code 0 of the others, every recording in the index; completed, the same bytes as one "
        "call after another",
        _at_once,
    ),
    Fault(
        "crowd/lock",
        "4 calls wait for the lock of OUT whose holder hangs, and is killed",
        "they wait, and then go on",
        _killed_with_lock,
    ),
)
