"""Names of files and folders that would be code elsewhere: whole calls of the program."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.faults.fault import Fault, Trial
from benchmarks.faults.image_bombs import scan

MARKUP = "<img src=x onerror=alert(1)>"
# Labels of a task; what is between angle brackets must not reach a page as it is.
LABELS = (
    *(MARKUP, "a;touch ran;", "a$(touch ran)", "a`touch ran`", "a\"'b", "a&lt;b", "a%2e%2e%2fb"),
    *("a\\..\\b", "a\nb", "a\tb", "a\x1b[2Jb", "a\u202eb", "\udcff\udcfe", "x" * 180, ""),
)
# Those under which a series can be processed: they are escaped, not refused.
USABLE = (MARKUP, "a;touch ran;", "b$(touch ran)", "a\"'b")
OPTIONS = ("--offline", "--atlas", "A424approx", "--model", "none", "--nprocs", "1")


def data_set(root: Path) -> Path:
    """Raw data under hostile names, links in circles and pipes, and one good run of sub-02."""
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    description = {"Name": "<script>alert(1)</script>", "BIDSVersion": "1.8.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    content = scan()
    for label in LABELS:
        stem = os.fsencode(func) + os.fsencode(f"/sub-01_task-{label}_bold")
        Path(os.fsdecode(stem + b".nii")).write_bytes(content)
        Path(os.fsdecode(stem + b".json")).write_text('{"RepetitionTime": 2}')
    other = root / f"sub-{MARKUP}" / "func"
    other.mkdir(parents=True)
    (other / f"sub-{MARKUP}_task-rest_bold.nii").write_bytes(content)
    for name, target in (("loop", "../.."), ("self", "self"), ("root", "/")):
        (func / name).symlink_to(target)
    (root / "sub-03").symlink_to(".")
    for name in ("sub-01_task-pipe_bold.nii", "sub-01_task-pipe_bold.json"):
        os.mkfifo(func / name)
    good = root / "sub-02" / "func"
    good.mkdir(parents=True)
    (good / "sub-02_task-rest_bold.nii").write_bytes(content)
    fields = {"RepetitionTime": 2, "IntendedFor": ["../../../../etc/passwd", "\ud800"]}
    (good / "sub-02_task-rest_bold.json").write_text(json.dumps(fields))
    return root


def call(arguments: Sequence[str], folder: Path) -> tuple[int, str]:
    """A call of the program on a terminal that takes nothing but UTF-8; its exit code and words."""
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "brainlm_bids", *arguments, *OPTIONS, "-w", str(folder / "w")]
    source = Path(__file__).resolve().parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(source), environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, env=environment, cwd=folder, timeout=600)
    return done.returncode, (done.stdout + done.stderr).decode(errors="surrogateescape")


def _planned(folder: Path, _seconds: float) -> list[Trial]:
    """Plan the data set, with and without the rules of BIDS."""
    raw = data_set(folder / "raw")
    trials = []
    for extra in ((), ("--skip-bids-validation",)):
        started = time.monotonic()
        code, text = call(
            [str(raw), str(folder / "out"), "participant", "--dry-run", *extra], folder
        )
        faults = _faults(text, folder)
        lines = text.splitlines()
        if code != 1 or not any(
            "sub-02_task-rest_bold.nii" in line and " series " in line for line in lines
        ):
            faults.append(f"exit code {code}, or the good run is not planned: {text[-300:]}")
        trials.append(Trial(not faults, "; ".join(faults), time.monotonic() - started))
    return trials


def _processed(folder: Path, _seconds: float) -> list[Trial]:
    """Process given series under hostile names, and look at the pages."""
    started = time.monotonic()
    raw, out = folder / "raw", folder / "out"
    raw.mkdir()
    values = np.random.default_rng(0).normal(size=(60, 424))
    paths = [raw / f"sub-01_task-{label}_timeseries.npy" for label in (*USABLE, "\udcff")]
    for path in paths:
        np.save(path, values)
    arguments = ["--timeseries", *map(str, paths), "--timeseries-tr", "2"]
    code, text = call([str(raw), str(out), "participant", *arguments], folder)
    faults = _faults(text, folder)
    n_done = len(list(out.rglob("*_desc-denoised_timeseries.tsv")))
    if code != 1 or n_done != len(USABLE):
        faults.append(f"exit code {code}, {n_done} of {len(USABLE)} done: {text[-300:]}")
    pages = [page for page in out.glob("*.html") if MARKUP in page.read_text(encoding="utf-8")]
    if pages or len(list(out.glob("*.html"))) < 2:
        faults.append(f"markup of a name in {[page.name for page in pages]}")
    return [Trial(not faults, "; ".join(faults), time.monotonic() - started)]


def _faults(text: str, folder: Path) -> list[str]:
    faults = ["a traceback"] if "Traceback" in text else []
    if any(character in text for character in "\x1b\u202e\udcff"):
        faults.append("hidden characters on the screen")
    if list(folder.rglob("ran")):
        faults.append("a command of a name was run")
    known = {"raw", "out", "w"}
    if strangers := {path.name for path in folder.iterdir()} - known:
        faults.append(f"written outside of the output folder: {strangers}")
    return faults


LEAST = "every other run is planned or done; no traceback, no command run, no markup in a page"
FAULTS = (
    Fault(
        "names/planned",
        "names with HTML, shell characters, quotes, `..`, newlines, control characters, bytes that "
        "are no Unicode, 180 letters; links in circles; pipes; `IntendedFor` with `../`",
        LEAST,
        _planned,
    ),
    Fault("names/processed", "series under such names, to their pages", LEAST, _processed),
)
