"""Disks that fill up while the group level, training and an export write."""

import math
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.faults import kills, private
from benchmarks.faults.calls import Outcome, run, trial
from benchmarks.faults.disks import LARGE_KB, NO_SPACE, RESUMED
from benchmarks.faults.fault import Fault, Trial
from benchmarks.faults.processes import differences, settle, temporary_files

# How much of what a call writes there is space for.
SHARES = (0.1, 0.6)
PAGE_BYTES = 4096
WORKS = ("group", "pretrain", "finetune", "export")


def kilobytes(folder: Path) -> int:
    """What the files of a folder take on a disk in memory."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(math.ceil(size / PAGE_BYTES) for size in sizes) * PAGE_BYTES // 1024


def _row(work: kills.Work, folder: Path, _seconds: float) -> Sequence[Trial]:
    kills.undisturbed(work, folder)
    after = kilobytes(folder / "trial")

    def tried() -> list[Trial]:
        return [_one(work, folder, share, after) for share in SHARES]

    return private.in_private(tried)


def _one(work: kills.Work, folder: Path, share: float, after: int) -> Trial:
    """A call on a disk that fills up, and the same command on the same disk when it is larger."""
    inputs, place = folder / "inputs", folder / "trial"
    shutil.rmtree(place)
    place.mkdir()
    private.small_disk(place, LARGE_KB)
    start = inputs / "start"
    if start.is_dir():
        shutil.copytree(start, place, symlinks=True, dirs_exist_ok=True)
    before = kilobytes(place)
    size = before + max(8, round(share * (after - before)))
    private.small_disk(place, size)
    first = _called(work, folder)
    faults = first.faults + ([f"exit code {first.code}, not 1"] if first.code != 1 else [])
    last = (first.text.strip().splitlines() or [""])[-1]
    if not any(text in first.text for text in NO_SPACE):
        faults.append(f"told {last!r}")
    faults += [f"{name} was left" for name in temporary_files(place)]
    private.small_disk(place, LARGE_KB)
    again = _called(work, folder)
    faults += [f"exit code {again.code} of the next: {again.text[-300:]}"] if again.code else []
    found = folder / "again"  # pages name the folder of their call
    shutil.rmtree(found, ignore_errors=True)
    if (place / work.result).is_dir():
        shutil.copytree(place / work.result, found, symlinks=True)
        settle(found)
        faults += differences(folder / "whole", found, work.but)[:3]
    else:
        faults.append("no result")
    private.writable(place)
    told = Outcome(first.code, last, first.seconds)
    return trial(f"{size} of {after} kB", faults, told, again)


def _called(work: kills.Work, folder: Path) -> Outcome:
    temporary = folder / "tmp"  # on another disk
    temporary.mkdir(exist_ok=True)
    words = work.words(folder / "inputs", folder / "trial")
    started = time.monotonic()
    done = run([sys.executable, "-m", work.module, *words], {"TMPDIR": str(temporary)})
    return Outcome(done.code, done.text, time.monotonic() - started)


FAULTS = tuple(
    Fault(
        f"disks/full-{work.name}",
        f"a disk with space for {SHARES[0]:.0%} and {SHARES[1]:.0%} of what is written: "
        f"{work.about}",
        RESUMED,
        partial(_row, work),
    )
    for work in kills.WORKS
    if work.name in WORKS
)
