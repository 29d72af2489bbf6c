"""SIGKILL of whole calls at random moments, and the same command again.

The moments are spread over the time that the call takes undisturbed. At every second one the kill
waits until a file is being written. Every fourth time all processes are killed at once, as a batch
system does it; else the first one alone, as by `kill -9`, and the others must end by themselves.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.faults import small
from benchmarks.faults.fault import Fault, Trial
from benchmarks.faults.processes import (
    Running,
    belonging,
    differences,
    settle,
    start,
    still_alive,
    temporary_files,
)
from brainlm_bids.temporary import PREFIX

MOMENTS = 20
# For how long a kill waits for a file that is being written; seconds.
WRITING_S = 5.0
# A call that ended before its moment is begun again, with half of the time, down to this; seconds.
EARLIEST_S = 0.5
TOOLS = "brainlm_bids.commands.brainlm"
LEAST = "same bytes as undisturbed, no temporary file, no process left after 30 s"


@dataclass(frozen=True)
class Work:
    """A call that is killed.

    Parameters
    ----------
    name, about
        Of the row.
    inputs
        Makes in an empty folder what the call reads, and what its folder holds before: `start`.
    words
        (that folder, folder of the trial) -> command line.
    result
        The folder, in that of the trial, whose content is compared.
    module
        That is run.
    but
        Patterns of what a log is, and is not compared.
    """

    name: str
    about: str
    inputs: Callable[[Path], None]
    words: Callable[[Path, Path], list[str]]
    result: str = "out"
    module: str = "brainlm_bids"
    but: tuple[str, ...] = ()


def begin(inputs: Path, trial: Path) -> None:
    """A folder of a trial as it is before the call."""
    shutil.rmtree(trial, ignore_errors=True)
    before = inputs / "start"
    if before.is_dir():
        shutil.copytree(before, trial, symlinks=True)
    trial.mkdir(exist_ok=True)


def undisturbed(work: Work, folder: Path) -> float:
    """Make the inputs, run the call, and keep its results in `whole`; the seconds it took."""
    inputs, trial = folder / "inputs", folder / "trial"
    inputs.mkdir()
    work.inputs(inputs)
    begin(inputs, trial)
    began = time.monotonic()
    small.done(work.words(inputs, trial), trial, work.module)
    seconds = time.monotonic() - began
    shutil.copytree(trial, folder / "made", symlinks=True)
    shutil.copytree(trial / work.result, folder / "whole", symlinks=True)
    settle(folder / "whole")
    return seconds


def moments(seconds: float, number: int, seed: int = 1) -> list[float]:
    """Random moments, one in each of equal parts of the time."""
    return list((np.arange(number) + np.random.default_rng(seed).random(number)) * seconds / number)


def killed(work: Work, folder: Path, number: int, moment: float) -> Trial:
    """Kill a call, run the same command, and look at what is there."""
    inputs, trial = folder / "inputs", folder / "trial"
    begin(inputs, trial)
    words = work.words(inputs, trial)
    call = start(words, trial, work.module)
    time.sleep(moment)
    if number % 2:
        _wait_for_writing(call, trial)
    if call.process.poll() is not None and moment > EARLIEST_S:
        return killed(work, folder, number, moment / 2)  # the machine was slower undisturbed
    seconds = time.monotonic() - call.started
    _kill(call, everything=number % 4 == 3)
    faults = [f"processes {alive} live on" for alive in [still_alive(call.mark)] if alive]
    place = (call.text().strip().splitlines() or [""])[-1][:160]
    faults += repeated(work, folder)
    told = f"killed after {seconds:.1f} s ({place}): {'; '.join(faults)}"
    return Trial(not faults, told, time.monotonic() - call.started)


def repeated(work: Work, folder: Path) -> list[str]:
    """Run the command of a call that was ended again, and tell what is not as undisturbed."""
    inputs, trial = folder / "inputs", folder / "trial"
    again = start(work.words(inputs, trial), trial, work.module)
    code = again.end()
    faults = []
    if code and not _is_done(work, again):
        faults.append(f"exit code {code} of the next: {again.text()[-400:]}")
    left = temporary_files(trial)
    if left:
        faults.append(f"left behind by the next: {', '.join(left[:5])}")
    if not (trial / work.result).is_dir():
        return [*faults, "no result"]
    found = folder / "again"  # pages name the folder of their call, which is that of neither
    shutil.rmtree(found, ignore_errors=True)
    (trial / work.result).rename(found)
    settle(found)
    return faults + differences(folder / "whole", found, work.but)[:3]


def _is_done(work: Work, call: Running) -> bool:
    """Whether a command refuses to write a result again that is there."""
    return work.name == "export" and "is not empty" in call.text()


def _wait_for_writing(call: Running, trial: Path) -> None:
    until = time.monotonic() + WRITING_S
    while time.monotonic() < until and call.process.poll() is None:
        results = [path for path in trial.glob("*") if path.name not in ("tmp", "work")]
        if any(path.name.startswith(PREFIX) for path in results) or temporary_files(*results):
            return


def _kill(call: Running, *, everything: bool) -> None:
    pids = belonging(call.mark) if everything else [call.process.pid]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    call.process.wait()


def _row(work: Work, folder: Path, _seconds: float, number: int = MOMENTS) -> Sequence[Trial]:
    seconds = undisturbed(work, folder)
    return [killed(work, folder, k, at) for k, at in enumerate(moments(seconds, number))]


# --- the calls -------------------------------------------------------------------------------


def _two_series(inputs: Path) -> None:
    small.series(inputs / "raw", 2)


def _participant(inputs: Path, trial: Path) -> list[str]:
    return small.participant(inputs / "raw", trial, *small.MODEL)


def _outputs(inputs: Path, n_subjects: int, n_volumes: int) -> None:
    """An output folder to begin with, which knows its raw data."""
    raw = small.series(inputs / "raw", n_subjects, n_volumes)
    made = inputs / "start"
    small.done(small.participant(raw, made, "--model", "none"), made)
    for name in ("work", "tmp"):
        shutil.rmtree(made / name)


def _phantom(inputs: Path) -> None:
    words = ["phantom", str(inputs / "raw"), "--subjects", "1", "--volumes", "24", "--voxel", "6"]
    small.done(words, inputs, TOOLS)
    shutil.rmtree(inputs / "tmp")


def _raw(inputs: Path, trial: Path) -> list[str]:
    words = [str(inputs / "raw"), str(trial / "out"), "participant", "-w", str(trial / "work")]
    return [*words, *small.QUICK, "--template", "MNI152NLin2009aSym", "--model", "none"]


two_outputs = partial(_outputs, n_subjects=2, n_volumes=70)


def _with_model(inputs: Path) -> None:
    """An output folder in which everything of two series is complete."""
    _two_series(inputs)
    made = inputs / "start"
    small.done(small.participant(inputs / "raw", made, *small.MODEL), made)
    for name in ("work", "tmp"):
        shutil.rmtree(made / name)


def _reports(inputs: Path, trial: Path) -> list[str]:
    return [*_participant(inputs, trial), "--reports-only"]


def _verify(_inputs: Path, trial: Path) -> list[str]:
    words = ["verify", "random:tiny", "--offline", "--device", "cpu"]
    (trial / "run").mkdir(exist_ok=True)
    words += ["--recordings", str(trial / "out")]
    return [*words, "--output", str(trial / "run" / "verify.json")]


def _group(inputs: Path, trial: Path) -> list[str]:
    return small.group(inputs / "raw", trial, *small.MODEL)


def _for_training(inputs: Path) -> None:
    _outputs(inputs, 10, 210)
    small.architecture(inputs / "config.json")


def _pretrain(inputs: Path, trial: Path) -> list[str]:
    words = ["pretrain", str(trial / "out"), str(trial / "run"), "--device", "cpu"]
    words += ["--config", str(inputs / "config.json"), "--epochs", "4", "--batch", "4"]
    return [*words, "--save-minutes", "1e-9", "--baseline-windows", "1", "--workers", "1"]


def _finetune(inputs: Path, trial: Path) -> list[str]:
    words = ["finetune", "random:tiny", str(trial / "out"), str(trial / "run"), "--offline"]
    words += ["--target", "age", "--folds", "2", "--epochs", "2", "--readouts", "linear"]
    words += ["--bids-dir", str(inputs / "raw"), "--permutations", "10"]
    return [*words, "--device", "cpu", "--frozen"]


def _export(inputs: Path, trial: Path) -> list[str]:
    return ["export", str(trial / "out"), str(trial / "run")]


WORKS = (
    Work("participant", "two series, to their embeddings and pages", _two_series, _participant),
    Work("raw", "a raw recording of 24 volumes, to its series and page", _phantom, _raw),
    Work(
        "group",
        "the group level of two recordings",
        two_outputs,
        _group,
    ),
    Work(
        "pretrain",
        "four epochs on ten recordings, saved after every step",
        _for_training,
        _pretrain,
        "run",
        TOOLS,
        # logs, the state to continue from, which has the seconds that were trained, and the figure
        # of the curves, which shows where the training was resumed, but has to be there
        (
            r"^log.txt|^tensorboard/|^pretrain.html|^state/",
            r"(^curves\.png|curves_pretrain\.svg): (?!missing)",
        ),
    ),
    Work(
        "finetune",
        "age from ten recordings in two folds, beside linear readouts",
        _for_training,
        _finetune,
        "run",
        TOOLS,
        (r"^finetune.html",),
    ),
    Work(
        "export",
        "ten recordings as a data set of Arrow",
        _for_training,
        _export,
        "run",
        TOOLS,
    ),
    Work(
        "reports",
        "the pages of two finished recordings, `--reports-only`",
        _with_model,
        _reports,
    ),
    Work(
        "verify",
        "`brainlm verify` on two recordings",
        two_outputs,
        _verify,
        "run",
        TOOLS,
    ),
)

PARTICIPANT = next(work for work in WORKS if work.name == "participant")
FAULTS = tuple(
    Fault(f"kill/{work.name}", f"SIGKILL at 20 moments: {work.about}", LEAST, partial(_row, work))
    for work in WORKS
)
