"""Calls that are told to end: SIGTERM, Ctrl-C, Ctrl-C twice; and processes of a call that die."""

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.faults import kills
from benchmarks.faults.fault import Fault, Trial
from benchmarks.faults.kills import Work
from benchmarks.faults.processes import (
    Running,
    belonging,
    start,
    still_alive,
    temporary_files,
)

MOMENTS = 4
# The program takes this long to be loaded: before, Python itself ends.
LOADED_S = 0.5
# What an end in order may take; batch systems send SIGKILL 30 s after SIGTERM.
END_S = 10.0
BETWEEN_S = 0.3  # the two Ctrl-C of somebody who is impatient
# The line by which a command tells that it was stopped.
ENDED = re.compile(r"(brainlm(-bids)?: )?(stopped|interrupted)\b")


@dataclass(frozen=True)
class Stop:
    """How a call is told to end; everyone: all its processes are told, as by a terminal."""

    name: str
    number: signal.Signals
    times: int = 1
    everyone: bool = False

    @property
    def code(self) -> int:
        """The exit code that is documented."""
        return 128 + self.number


STOPS = (
    Stop("SIGTERM", signal.SIGTERM),
    Stop("SIGTERM to all", signal.SIGTERM, everyone=True),
    Stop("^C", signal.SIGINT, everyone=True),
    Stop("^C twice", signal.SIGINT, times=2, everyone=True),
)


def stopped(work: Work, folder: Path, stop: Stop, moment: float) -> Trial:
    """Tell a call to end, look at how it does, and run the same command again."""
    inputs, trial = folder / "inputs", folder / "trial"
    kills.begin(inputs, trial)
    words = work.words(inputs, trial)
    call = start(words, trial, work.module)
    time.sleep(max(moment, LOADED_S))
    place = (call.text().strip().splitlines() or [""])[-1][:120]
    if call.process.poll() is not None and moment > LOADED_S:
        return stopped(work, folder, stop, moment / 2)  # the machine was slower undisturbed
    began = time.monotonic()
    _send(call, stop)
    code = call.end(60)
    seconds = time.monotonic() - began
    faults = faults_of(call, stop, code, seconds)
    if stop.times == 1 and temporary_files(trial):
        faults.append(f"left behind: {', '.join(temporary_files(trial)[:5])}")
    faults += kills.repeated(work, folder)
    told = f"{stop.name} at {moment:.1f} s ({place}), ended in {seconds:.1f} s: {'; '.join(faults)}"
    return Trial(not faults, told, seconds)


def _send(call: Running, stop: Stop) -> None:
    for _ in range(stop.times):
        try:
            if stop.everyone:
                os.killpg(call.process.pid, stop.number)
            else:
                os.kill(call.process.pid, stop.number)
        except ProcessLookupError:
            return
        if stop.times > 1:
            time.sleep(BETWEEN_S)


def faults_of(call: Running, stop: Stop, code: int, seconds: float) -> list[str]:
    """What was not as it should be at the end of a call that was told to end."""
    faults = [f"processes {alive} live on" for alive in [still_alive(call.mark)] if alive]
    text = call.text()
    # 0: it was done before the signal; below 0: Python itself was, which a shell tells by that code
    if code not in (0, stop.code, -stop.number):
        faults.append(f"exit code {code}: {text[-300:]}")
    if code == stop.code and len([one for one in text.splitlines() if ENDED.match(one)]) != 1:
        faults.append(f"not one line tells that it was stopped: {text[-300:]}")
    if "Traceback" in text:
        faults.append(f"traceback: {text[text.index('Traceback') :][-400:]}")
    if seconds > END_S:
        faults.append(f"took {seconds:.0f} s to end")
    return faults


def _row(work: Work, folder: Path, _seconds: float, *, number: int) -> Sequence[Trial]:
    seconds = kills.undisturbed(work, folder)
    return [
        stopped(work, folder, stop, moment)
        for k, stop in enumerate(STOPS)
        for moment in kills.moments(seconds, number, seed=k)
    ]


# --- one process of a call dies --------------------------------------------------------------


def _workers(call: Running) -> list[int]:
    """The processes that compute: those that the fork server has forked."""
    server = _server(call)
    return [] if server is None else _children(server)


def _server(call: Running) -> int | None:
    """The process that workers are forked from."""
    for pid in belonging(call.mark):
        try:
            if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes() and _children(pid):
                return pid
        except OSError:
            continue
    return None


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def died(
    folder: Path, moment: float, victim: Callable[[Running], Sequence[int]], n_processes: int
) -> Trial:
    """Kill one process of a participant call; the others go on, and the next call completes."""
    work = kills.PARTICIPANT
    inputs, trial = folder / "inputs", folder / "trial"
    kills.begin(inputs, trial)
    words = [*work.words(inputs, trial), "--nprocs", str(n_processes)]
    call = start(words, trial)
    time.sleep(moment)
    until = time.monotonic() + 30
    while not (pids := victim(call)) and time.monotonic() < until and call.process.poll() is None:
        time.sleep(0.02)
    for pid in pids[:1]:
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    code, text = call.end(300), call.text()
    faults = [f"processes {alive} live on" for alive in [still_alive(call.mark)] if alive]
    n_done = text.count("\ndone ")
    lines = [line for line in text.splitlines() if "process died" in line]
    if code not in (0, 1) or "Traceback" in text:
        faults.append(f"exit code {code}: {text[-400:]}")
    if code == 1 and (n_done != 1 or not lines):
        faults.append(f"{n_done} of 2 done, told: {lines[:1]}")
    faults += kills.repeated(work, folder)
    told = f"at {moment:.1f} s: exit code {code}, {n_done} of 2 done: {'; '.join(faults)}"
    return Trial(not faults, told, time.monotonic() - began)


def _one_dies(
    victim: Callable[[Running], Sequence[int]], folder: Path, _seconds: float
) -> Sequence[Trial]:
    seconds = kills.undisturbed(kills.PARTICIPANT, folder)
    moments = kills.moments(seconds, MOMENTS, seed=9)[1:]
    return [died(folder, moment, victim, n) for n in (1, 2) for moment in moments]


def _of_server(call: Running) -> Sequence[int]:
    server = _server(call)
    return [] if server is None else [server]


ENDS = (
    "ends within 10 s with 143 or 130 and one line, no traceback, no temporary file, no process "
    "left; the same command completes with the same bytes"
)
GOES_ON = "one line, the other run is done, exit code 1, or 0 where the step is tried again"
FAULTS = (
    *(
        Fault(
            f"signal/{work.name}",
            f"SIGTERM to the call, to its processes, ^C, ^C twice, at {number} moments each: "
            f"{work.about}",
            ENDS,
            partial(_row, work, number=number),
        )
        for work in kills.WORKS
        for number in [MOMENTS // 2 if work.name == "raw" else MOMENTS]
    ),
    Fault("signal/worker", "SIGKILL of a worker", GOES_ON, partial(_one_dies, _workers)),
    Fault(
        "signal/fork-server", "SIGKILL of the fork server", GOES_ON, partial(_one_dies, _of_server)
    ),
)
