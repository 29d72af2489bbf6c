"""Faults of network file systems, quotas and clocks, by a library that stands before the C one."""

import dataclasses
import errno
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults import kills
from benchmarks.faults.calls import (
    SOURCE,
    Call,
    differences,
    judged,
    left_over,
    raw_data,
    reference,
    run,
    trial,
)
from benchmarks.faults.fault import Fault, NotTried, Trial

CODE = Path(__file__).with_name("filesystem_shim.c")
PROCESSES, TIMES = 4, 5
PATIENCE_S = 120
# Of files, in seconds since 1970: 2100 and 1970.
TIMES_OF_FILES = (4_102_488_000, 0)
NEGATIVE = re.compile(r"(?<![\w.-])-\d[\d.]* ?(?:s|min|h|d|days?|seconds|minutes|hours)\b")
QUOTA_BYTES = 200_000
# Reads a file that all share, adds a line, and writes it again; half a second between two.
ADD = """
import sys, time
from pathlib import Path
from brainlm_bids.bids.dataset import ignore
for k in range(int(sys.argv[3])):
    ignore(Path(sys.argv[1]), [f"line-{sys.argv[2]}-{k}"])
    time.sleep(float(sys.argv[4]))
"""
LEAST = f"{PROCESSES} processes change one file, {TIMES} times each: no change is lost, none hangs"


class Spoiled(NamedTuple):
    """A row: what is done to the file system, and seconds between two changes."""

    name: str
    about: str
    environment: Mapping[str, str]
    pause: float = 0.05


ROWS = (
    Spoiled(
        "no-locks",
        "`flock` is not supported (ENOLCK), nor are hard links (EPERM)",
        {"FAULTS_FLOCK": str(errno.ENOLCK), "FAULTS_LINK": str(errno.EPERM)},
    ),
    Spoiled(
        "no-flock",
        "`flock` is not supported (EOPNOTSUPP)",
        {"FAULTS_FLOCK": str(errno.EOPNOTSUPP)},
    ),
    Spoiled("busy", "every third rename fails: EBUSY", {"FAULTS_RENAME": str(errno.EBUSY)}),
    Spoiled("stale", "every third rename fails: ESTALE", {"FAULTS_RENAME": str(errno.ESTALE)}),
    Spoiled("slow", "every fsync takes 0.2 s longer", {"FAULTS_FSYNC": "200"}),
    Spoiled("silly", "files that are removed while open stay as `.nfs…`", {"FAULTS_SILLY": "1"}),
    Spoiled("clock", "the clock goes back by an hour", {"FAULTS_CLOCK": "3600"}, 1.0),
)


def shim(folder: Path) -> Path:
    """Compile the library. NotTried where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotTried("no C compiler on this machine")
    library = folder / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(CODE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotTried("the C compiler refuses the library")
    return library


def _shared(row: Spoiled, folder: Path, _seconds: float) -> list[Trial]:
    """Processes change one file of an output folder at the same time."""
    library, out = shim(folder), folder / "out"
    out.mkdir()
    environment = {**os.environ, **row.environment, "PYTHONPATH": str(SOURCE)}
    environment |= {"LD_PRELOAD": str(library), "FAULTS_PREFIX": str(out)}
    started = time.monotonic()
    words = [sys.executable, "-W", "ignore", "-c", ADD, str(out)]
    processes = [
        subprocess.Popen(
            [*words, str(k), str(TIMES), str(row.pause)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(PROCESSES)
    ]
    told = [_end_of(process) for process in processes]
    seconds = time.monotonic() - started
    lines = (out / ".bidsignore").read_text().split() if (out / ".bidsignore").exists() else []
    wanted = {f"line-{k}-{n}" for k in range(PROCESSES) for n in range(TIMES)}
    faults = [text[-300:] for text in told if text]
    faults += [f"{len(wanted - {*lines})} changes are lost"] if wanted - {*lines} else []
    faults += [f"{name} was left" for name in left_over(out)]
    faults += [f"{path.name} was left" for path in out.rglob(".nfs*")]
    return [Trial(not faults, "; ".join(faults), seconds)]


def _end_of(process: "subprocess.Popen[str]") -> str:
    """What a process told of errors; that it hangs, if it does."""
    try:
        _, told = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"hangs: killed after {PATIENCE_S} s"
    return told if process.returncode else ""


def _quota(folder: Path, _seconds: float) -> Sequence[Trial]:
    """Write simulated data beyond a quota, and again without it."""
    library, out, counter = shim(folder), folder / "out", folder / "counter"
    counter.write_bytes(bytes(8))
    environment = {
        "LD_PRELOAD": str(library),
        "FAULTS_PREFIX": str(out),
        "FAULTS_WRITE": str(errno.EDQUOT),
        "FAULTS_BUDGET": str(QUOTA_BYTES),
        "FAULTS_COUNTER": str(counter),
    }
    words = ["-m", "brainlm_bids.commands.brainlm", "phantom", str(out)]
    command = [sys.executable, *words, "--subjects", "1", "--volumes", "5", "--voxel", "6"]
    first = run(command, environment)
    faults = first.faults + ([f"exit code {first.code}"] if first.code != 1 else [])
    last = (first.text.strip().splitlines() or [""])[-1]
    faults += [] if "(Disk quota exceeded); free some space" in last else [f"told {last!r}"]
    faults += [f"{name} was left" for name in left_over(out)]
    again = run(command, {})
    faults += [f"exit code {again.code} without it"] if again.code else []
    return [trial("phantom", faults, first, again)]


def _times(folder: Path, _seconds: float) -> Sequence[Trial]:
    """Calls with files of other times; each is done once, and cached from then on."""
    good = reference()
    try:
        return [_at(when, folder / str(when), good) for when in TIMES_OF_FILES]
    finally:
        _set_times(time.time(), raw_data())


def _at(when: int, folder: Path, good: Path) -> Trial:
    call = Call(folder).prepare()
    _set_times(when, raw_data())
    outcomes = [call.run()]
    faults = judged(outcomes[0], 0, "", call)
    for _ in range(2):
        _set_times(when, raw_data(), folder)
        outcomes.append(call.run())
        faults += judged(outcomes[-1], 0, "1 cached", call)
    # the record of inputs has their times
    found = [name for name in differences(good, folder / "out") if "_inputs.json" not in name]
    faults += [f"{name} differs" for name in found]
    for outcome in outcomes:
        faults += [f"told {text!r}" for text in NEGATIVE.findall(outcome.text)]
    return trial(time.strftime("%Y", time.gmtime(when)), faults, *outcomes)


def _set_times(when: float, *folders: Path) -> None:
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (when, when), follow_symlinks=False)


class Unread(NamedTuple):
    """A file that cannot be read: its name, and what the call is about.

    Attributes
    ----------
    name
        A part of its path.
    code
        The exit codes that are documented: 0 where the file is not needed, or made again.
    made
        Whether a call before has made the outputs.
    more
        Words of the command line.
    """

    name: str
    code: tuple[int, ...]
    made: bool = False
    more: tuple[str, ...] = ()


UNREAD = (
    Unread("raw/sub-001_task-rest_timeseries.npy", (1,)),
    Unread("records/sub-001_task-rest_series.json", (1,), made=True),
    Unread("records/sub-001_task-rest_inputs.json", (0, 1), made=True),
    Unread("out/dataset_description.json", (1, 2), made=True),
    Unread("desc-reconstruction_metrics.tsv", (1,), made=True, more=("--reports-only",)),
    Unread("desc-denoised_timeseries.json", (1,), made=True, more=("--reports-only",)),
)


def _unreadable(folder: Path, _seconds: float) -> Sequence[Trial]:
    """Calls on two series that meet a file which the disk, or its server, does not give."""
    library, work = shim(folder), kills.PARTICIPANT
    kills.undisturbed(work, folder)
    return [
        _unread(one, number, library, folder)
        for one in UNREAD
        for number in (errno.EIO, errno.ESTALE)
    ]


def _unread(one: Unread, number: int, library: Path, folder: Path) -> Trial:
    inputs, place, work = folder / "inputs", folder / "trial", kills.PARTICIPANT
    kills.begin(inputs, place)
    if one.made:
        shutil.copytree(folder / "made", place, dirs_exist_ok=True, symlinks=True)
    work = dataclasses.replace(work, words=lambda *at: [*kills.PARTICIPANT.words(*at), *one.more])
    words = [sys.executable, "-m", "brainlm_bids", *work.words(inputs, place)]
    spoiled = {"LD_PRELOAD": str(library), "FAULTS_PREFIX": str(folder)}
    spoiled |= {"FAULTS_READ": str(number), "FAULTS_UNREADABLE": one.name}
    first = run(words, spoiled)
    faults = first.faults
    if first.code not in one.code:
        faults.append(f"exit code {first.code}: {first.text[-400:]}")
    if first.code and Path(one.name).name not in first.text:
        faults.append(f"no line names the file: {first.text[-400:]}")
    if not one.made and "1 done" not in first.text:
        faults.append(f"the other is not done: {first.text[-400:]}")
    faults += kills.repeated(work, folder)
    return trial(f"{one.name}, {errno.errorcode[number]}", faults, first)


FAULTS = (
    *(Fault(f"filesystems/{row.name}", row.about, LEAST, partial(_shared, row)) for row in ROWS),
    Fault(
        "filesystems/quota",
        "a quota of 200 kB (EDQUOT) where `brainlm phantom` writes",
        "one line that names the file, exit code 1; then the same command succeeds",
        _quota,
    ),
    Fault(
        "filesystems/unreadable",
        "reading fails (EIO, ESTALE): a series, records of OUT, its description, and, for "
        "`--reports-only`, a table and a sidecar",
        "one line that names the file, exit code 1 or 2, or made again; the other recording is "
        "done; then the same bytes",
        _unreadable,
    ),
    Fault(
        "filesystems/times",
        "inputs, outputs and the work folder with times of the years 2100 and 1970",
        "done once, cached from then on, the same bytes, no negative duration",
        _times,
    ),
)
