"""Limits of memory on a recording as large as UK Biobank's, as batch systems and Docker set them.

A control group of Linux holds all processes of the call, and what of its files is in memory counts
as well, of which the system gives back what it needs.
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.calls import Outcome, left_over, run, trial
from benchmarks.faults.fault import Fault, NotTried, Trial

GROUPS = Path("/sys/fs/cgroup")
# The file with the limit, in version 1 and 2 of control groups, and that of swap, which stays out.
FILES = {
    GROUPS / "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    GROUPS: ("memory.max", "memory.swap.max"),
}
LIMITS_GB = (1, 2, 4)
PATIENCE_S, GRACE_S = 3600, 30
# 490 volumes every 0.735 s, voxels of 2.4 mm: resting state of UK Biobank
# (https://biobank.ctsu.ox.ac.uk/crystal/crystal/docs/brain_mri.pdf). It has 88 × 88 × 64
# voxels, the phantom 93 × 93 × 52.
RECORDING = ("--subjects", "1", "--volumes", "490", "--voxel", "2.4", "--tr", "0.735")
ENOUGH = re.compile(r"([\d.]+) GB would do")


@contextmanager
def limited(gigabytes: float) -> Iterator[Path]:
    """A control group with a limit, which a process joins by its file `cgroup.procs`.

    Raises
    ------
    NotTried
        If this user may make none.
    """
    parent, names = next(
        ((one, files) for one, files in FILES.items() if (one / files[0]).exists()),
        (GROUPS, FILES[GROUPS]),
    )
    group = parent / f"faults-{os.getpid()}"
    try:
        group.mkdir(exist_ok=True)
        (group / names[0]).write_text(f"{gigabytes * 1e9:.0f}")
    except OSError as error:
        raise NotTried(f"no control group of one's own ({error.strerror})") from error
    if (group / names[1]).exists():
        (group / names[1]).write_text(f"{gigabytes * 1e9:.0f}" if "memsw" in names[1] else "0")
    try:
        yield group
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Remove a control group once its last process has ended, which the call need not wait for."""
    until = time.monotonic() + GRACE_S
    while time.monotonic() < until:
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"processes live on: {(group / 'cgroup.procs').read_text().split()}")


def _call(raw: Path, folder: Path, gigabytes: float) -> Outcome:
    """Process the recording within a limit."""
    words = ["python", "-m", "brainlm_bids", str(raw), str(folder / "out"), "participant"]
    words += ["-w", str(folder / "work"), "--offline", "--atlas", "A424approx", "--nprocs", "1"]
    words += ["--template", "MNI152NLin2009aSym", "--model", "random:tiny"]
    with limited(gigabytes) as group:
        join = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        return run(["sh", "-c", join, "sh", *words], {"PATH": _path()}, PATIENCE_S)


def _path() -> str:
    """With this Python first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def judged(outcome: Outcome, folder: Path) -> list[str]:
    """What was wrong with a call: it is done, or says how much memory would do."""
    faults = outcome.faults + [f"{name} was left" for name in left_over(folder / "out")]
    if outcome.code == 0:
        return faults
    if outcome.code != 1:
        faults.append(f"exit code {outcome.code}, not 1: {outcome.text[-400:]}")
    if not ENOUGH.search(outcome.text):
        faults.append(f"no memory that would do is told: {outcome.text[-400:]}")
    return faults


def _limits(folder: Path, _seconds: float) -> Sequence[Trial]:
    """Each limit in a folder of its own; then the number that was told, in the same folder."""
    with limited(1):
        pass
    raw = _recording(folder)
    trials = []
    for gigabytes in LIMITS_GB:
        place = folder / f"{gigabytes}"
        outcome = _call(raw, place, gigabytes)
        faults = judged(outcome, place)
        told = ENOUGH.search(outcome.text)
        outcomes = [outcome]
        if told and not faults:
            outcomes.append(_call(raw, place, float(told[1])))
            if outcomes[-1].code:
                faults.append(f"{told[1]} GB did not do: {outcomes[-1].text[-400:]}")
        what = f"{gigabytes} GB, exit code {outcome.code}{f', then {told[1]} GB' if told else ''}"
        trials.append(trial(what, faults, *outcomes))
    return trials


def _recording(folder: Path) -> Path:
    words = ["python", "-m", "brainlm_bids.commands.brainlm", "phantom", str(folder / "raw")]
    made = run([*words, *RECORDING], {"PATH": _path()}, PATIENCE_S)
    if made.code:
        raise RuntimeError(f"no recording: {made.text[-400:]}")
    return folder / "raw"


FAULTS = (
    Fault(
        "limits/memory",
        "490 volumes of 93 × 93 × 52 with 1, 2 and 4 GB of memory for all processes together",
        "done, or exit code 1 and the memory that would do, with which the same command completes",
        _limits,
    ),
)
