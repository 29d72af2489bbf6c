"""Outputs of another version are read; its work folder is not used."""

import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.faults import kills, small
from benchmarks.faults.fault import Fault, Trial
from benchmarks.faults.processes import SOURCE, differences, settle, start, still_alive

OTHER = "0.0.9"
# Begins a call as another version would: every step of its graph knows that version.
AS_OTHER = f"""
import sys
import brainlm_bids
brainlm_bids.__version__ = "{OTHER}"
if __name__ == "__main__":  # workers import this file
    from brainlm_bids.commands.bids_app import main
    sys.exit(main())
"""


def _one_series(inputs: Path) -> None:
    small.series(inputs / "raw", 1)


def _without_model(inputs: Path, trial: Path) -> list[str]:
    return small.participant(inputs / "raw", trial, "--model", "none")


ONE_SERIES = kills.Work("work", "one series, without a model", _one_series, _without_model)


def made_by_another(out: Path) -> None:
    """Write another version into everything that an output folder records.

    It is as long as the one before: records tell how many bytes each sidecar has.
    """
    for path in out.rglob("*.json"):
        text = path.read_text()
        path.write_text(re.sub(r'(?<="Version": ")[^"]*', _other_version, text))


def _other_version(found: re.Match[str]) -> str:
    return re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), found[0])


# --- they are read -----------------------------------------------------------------------------


def _read(folder: Path, _seconds: float) -> Sequence[Trial]:
    """The group level and export, of outputs of this and of another version."""
    inputs, trial = folder / "inputs", folder / "trial"
    inputs.mkdir()
    kills.two_outputs(inputs)
    trials = []
    for other in (False, True):
        kills.begin(inputs, trial)
        if other:
            made_by_another(trial / "out")
        for module, words in (
            ("brainlm_bids", small.group(inputs / "raw", trial, *small.MODEL)),
            (kills.TOOLS, ["export", str(trial / "out"), str(trial / "run")]),
        ):
            began = time.monotonic()
            call = start(words, trial, module)
            code = call.end()
            told = f"{module}: exit code {code}: {call.text()[-300:] if code else ''}"
            trials.append(Trial(code == 0, told, time.monotonic() - began))
        made = folder / f"made-{other}"
        made.mkdir()
        for path in [*trial.glob("out/group_*.tsv"), *trial.glob("run/*/*.arrow")]:
            shutil.copy(path, made)
    found = differences(folder / "made-False", folder / "made-True")
    enough = len(list((folder / "made-True").iterdir())) > 10
    return [*trials, Trial(enough and not found, f"numbers: {found[:3]}", 0.0)]


# --- work folders ------------------------------------------------------------------------------


def _work(folder: Path, _seconds: float) -> Sequence[Trial]:
    """Results that lie in the work folder are used if this version made them, and else not."""
    kills.undisturbed(ONE_SERIES, folder)
    return [_with_work_of(folder, other) for other in (False, True)]


def _with_work_of(folder: Path, other: bool) -> Trial:
    """Change the results in a work folder, by this version the one of the undisturbed call."""
    inputs, trial = folder / "inputs", folder / "trial"
    began = time.monotonic()
    words = ONE_SERIES.words(inputs, trial)
    if other:
        kills.begin(inputs, trial)
        _as_other(words, trial)
    shutil.rmtree(trial / "out")
    for path in trial.glob("work/brainlm_bids/*/take/denoised.npy"):
        kept = path.stat()
        np.save(path, np.load(path)[::-1])
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    small.done(words, trial)
    (trial / "out").rename(folder / "again")
    settle(folder / "again")
    found = differences(folder / "whole", folder / "again")
    shutil.rmtree(folder / "again")
    told = f"work folder of {'another' if other else 'this'} version: {found[:2]}"
    return Trial(bool(found) is not other, told, time.monotonic() - began)


def _as_other(words: Sequence[str], trial: Path) -> None:
    script = trial / "other.py"
    script.write_text(AS_OTHER)
    call = start(words, trial, script=script)
    if call.end() or still_alive(call.mark):
        raise RuntimeError(f"{SOURCE}: the call as version {OTHER} failed: {call.text()[-400:]}")
    script.unlink()


FAULTS = (
    Fault(
        "version/read",
        "outputs that another version made, to the group level and export",
        "exit code 0, the same numbers",
        _read,
    ),
    Fault(
        "version/work",
        "a work folder whose results were changed, of this version and of another",
        "used from this version only",
        _work,
    ),
)
