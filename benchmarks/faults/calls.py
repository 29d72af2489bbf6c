"""The cheapest calls of the program that write all kinds of files, and what is asked of them."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.faults.fault import Trial
from benchmarks.same_bytes import Rules, compare

SOURCE = Path(__file__).resolve().parents[2]
SERIES = "sub-01_task-rest_timeseries.npy"
OPTIONS = ("--offline", "--atlas", "A424approx", "--model", "random:tiny", "--figures", "none")
# What no call may leave: `files.atomically`, downloads.
LEFT_OVERS = (".tmp-*", ".*.part")
PATIENCE_S = 900


@dataclass(frozen=True)
class Outcome:
    """What became of a call: exit code, words, seconds."""

    code: int
    text: str
    seconds: float

    @property
    def faults(self) -> list[str]:
        """What no call may do, whatever happens to it."""
        found = ["a traceback"] if "Traceback" in self.text else []
        return found + (["an internal error"] if "please report" in self.text else [])


@dataclass(frozen=True)
class Call:
    """A participant call on one given series.

    Parameters
    ----------
    folder
        Of the output, `out`, of the work, `work`, and of the user, `home`.
    environment
        Variables; None removes one.
    options
        Beside those of the cheapest call.
    before
        Words before the command, such as those of `prlimit`.
    """

    folder: Path
    environment: Mapping[str, str | None] = field(default_factory=dict)
    options: Sequence[str] = ("--nprocs", "1")
    before: Sequence[str] = ()

    def prepare(self) -> "Call":
        """Make the home; returns itself."""
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        return self

    def run(self, patience: float = PATIENCE_S) -> Outcome:
        """Run it."""
        raw = raw_data()
        words = [str(raw), str(self.folder / "out"), "participant", *OPTIONS, *self.options]
        words += ["--timeseries", str(raw / SERIES), "--timeseries-tr", "2"]
        words += ["-w", str(self.folder / "work")]
        command = [*self.before, sys.executable, "-m", "brainlm_bids", *words]
        return run(command, {"HOME": str(self.folder / "home"), **self.environment}, patience)


def run(
    command: Sequence[str], environment: Mapping[str, str | None], patience: float = PATIENCE_S
) -> Outcome:
    """Run a command of this program with one thread."""
    values = dict(os.environ) | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    for name, value in environment.items():
        values.pop(name, None)
        if value is not None:
            values[name] = value
    started = time.monotonic()
    try:
        done = subprocess.run(
            list(command), capture_output=True, env=values, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(-1, f"hangs: stopped after {patience:.0f} s", patience)
    text = (done.stdout + done.stderr).decode(errors="replace")
    return Outcome(done.returncode, text, time.monotonic() - started)


def left_over(*folders: Path) -> list[str]:
    """Temporary files that a call has left behind."""
    return [path.name for folder in folders for one in LEFT_OVERS for path in folder.rglob(one)]


def differences(reference: Path, out: Path) -> list[str]:
    """Files that two output folders do not have in common, or that differ.

    The bytes of pages do not count: they tell when a recording was processed.
    """
    found = compare(Rules(folders=(reference, out)))
    differing = [
        name
        for name, one in found.findings.items()
        if one.difference and not name.endswith(".html")
    ]
    return [*differing, *found.only_before, *found.only_after]


def judged(
    outcome: Outcome, code: int, says: str, call: Call, wanted: Path | None = None
) -> list[str]:
    """What was wrong with a call.

    Parameters
    ----------
    outcome
        What became of it.
    code
        The exit code that is documented.
    says
        What a line of its words must hold; empty for none.
    call
        The call.
    wanted
        The outputs that it must have made; None where it makes none.
    """
    faults = outcome.faults
    if outcome.code != code:
        faults.append(f"exit code {outcome.code}, not {code}: {outcome.text[-400:]}")
    lines = [line for line in outcome.text.splitlines() if says and says in line]
    if says and not lines:
        faults.append(f"nothing says {says!r}: {outcome.text[-400:]}")
    faults += [f"{name} was left" for name in left_over(call.folder / "out")]
    if wanted is not None:
        faults += [f"{name} differs" for name in differences(wanted, call.folder / "out")]
    return faults


def trial(what: str, faults: Sequence[str], *outcomes: Outcome) -> Trial:
    """An attempt of some calls."""
    told = "; ".join(faults) or (outcomes[0].text.strip().splitlines() or [""])[-1]
    return Trial(not faults, f"{what}: {told}", sum(one.seconds for one in outcomes))


@cache
def raw_data() -> Path:
    """The input of all calls, which outputs name: a folder with one series."""
    folder = Path(tempfile.mkdtemp(prefix="faults-raw-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    np.save(folder / SERIES, np.random.default_rng(0).normal(size=(60, 424)))
    return folder


@cache
def reference() -> Path:
    """The outputs of the call where nothing goes wrong, made once."""
    folder = tempfile.mkdtemp(prefix="faults-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    call = Call(Path(folder)).prepare()
    outcome = call.run()
    if outcome.code != 0:
        raise RuntimeError(outcome.text)
    return call.folder / "out"
