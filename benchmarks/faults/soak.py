"""A soak: many recordings in one call, and what the call takes of the machine meanwhile."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.faults import small
from benchmarks.faults.fault import Fault, Trial
from benchmarks.faults.processes import Running, belonging, start, still_alive, temporary_files

N_RECORDINGS = 200
EVERY_S = 1.0
# Of the first process, once the graph runs: kilobytes for each recording; and how many at most.
MOST_KB_PER_RECORDING = 100.0
MOST_FILES, MOST_PROCESSES, MOST_TEMPORARY = 64, 6, 10
# Files of a recording in the work folder, which are needed to resume.
MOST_WORK_FILES = 60
# What the page tells.
TOLD = ("kB for each recording", "open files", "processes", "temporary files")


@dataclass
class Samples:
    """What was looked at once a second; memory in kB."""

    done: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    temporary: list[int] = field(default_factory=list)

    def add(self, call: Running, folder: Path) -> None:
        """Look once; nothing is added where the call ends meanwhile."""
        pid = call.process.pid
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            memory = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
            self.files.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
            self.processes.append(len(belonging(call.mark)))
            self.temporary.append(len(temporary_files(folder / "tmp", folder / "out")))
            self.done.append(len(list(folder.glob("out/logs/records/*_series.json"))))
            self.memory.append(memory)

    def slope(self) -> float:
        """How memory grows while recordings are finished, kB for each."""
        n = len(self.memory)
        done, memory = np.array(self.done[:n]), np.array(self.memory)
        middle = (done > 0.1 * done.max()) & (done < 0.95 * done.max())
        if np.unique(done[middle]).size < 3:
            return float("nan")
        return float(np.polyfit(done[middle], memory[middle], 1)[0])


def soak(folder: Path, number: int = N_RECORDINGS) -> Sequence[Trial]:
    """Process recordings, and look at memory, open files, processes and temporary files."""
    raw, trial = small.series(folder / "raw", number, 40), folder / "trial"
    trial.mkdir()
    call, samples = start(small.participant(raw, trial, "--model", "none"), trial), Samples()
    while call.process.poll() is None:
        samples.add(call, trial)
        time.sleep(EVERY_S)
    seconds = time.monotonic() - call.started
    n_work = sum(1 for path in trial.glob("work/**/*") if path.is_file())
    found = {
        "exit code": (call.end(), 0),
        "recordings not done": (number - max(samples.done, default=0), 1),
        "kB for each recording": (samples.slope(), MOST_KB_PER_RECORDING),
        "open files": (max(samples.files, default=0), MOST_FILES),
        "processes": (max(samples.processes, default=0), MOST_PROCESSES),
        "temporary files": (max(samples.temporary, default=0), MOST_TEMPORARY),
        "temporary files left": (len(temporary_files(trial)), 0),
        "processes left": (len(still_alive(call.mark)), 0),
        "files of work for each recording": (n_work / number, MOST_WORK_FILES),
    }
    return [
        Trial(
            value <= most,
            f"{value:.4g} {name}",
            seconds,
            max(samples.memory, default=0) / 1024,
            f"{round(value, 1) + 0.0:g} {name}" if name in TOLD else "",
        )
        for name, (value, most) in found.items()
    ]


def _row(folder: Path, _seconds: float) -> Sequence[Trial]:
    return soak(folder)


FAULTS = (
    Fault(
        "soak/recordings",
        f"{N_RECORDINGS} series in one call",
        f"memory of the first process grows by less than {MOST_KB_PER_RECORDING:.0f} kB for each, "
        f"{MOST_FILES} open files, {MOST_PROCESSES} processes, nothing left in `$TMPDIR`",
        _row,
    ),
)
