"""Calls of the program as processes: start them, find all that belong to them, look at the rest."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import same_bytes

SOURCE = Path(__file__).resolve().parents[2]
# By it the processes of a call are found, also those whose parent has ended.
MARK = "BRAINLM_BIDS_TRIAL"
PATIENCE_S = 600.0
# What processes have to end after the one that started them was killed.
GRACE_S = 30.0
# Dates, and names of calls.
STAMPS = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\+\d\d:\d\d)?|\d{8}-\d{6}_[0-9a-f]{8}")
# What a page tells of each call that wrote results.
CALL = re.compile(r'<details class="call".*?</details>', re.DOTALL)
SPEED = r"windows_per_second|seconds\w*"
# Behind a key of JSON, or in a row of a table of Markdown.
NUMBERS = re.compile(rf'("Looked": |"(?:{SPEED})": |\| (?:{SPEED}) \| )[\d.e+-]+')
TEMPORARY = re.compile(r"^\.tmp-|\.part$|^pymp-|^tmp[a-z0-9_]{8}$")


@dataclass
class Running:
    """A call that was started.

    Parameters
    ----------
    process
        The first process of the call.
    mark
        In the environment of all its processes.
    said
        Where its messages go.
    """

    process: "subprocess.Popen[bytes]"
    mark: str
    said: Path
    started: float = field(default_factory=time.monotonic)

    def end(self, seconds: float = PATIENCE_S) -> int:
        """Wait for its end; the exit code, or 99 where it had to be killed."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            return 99

    def kill_all(self) -> None:
        """SIGKILL to every process of the call."""
        for pid in belonging(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def text(self) -> str:
        """What it said."""
        return self.said.read_text(errors="replace")


def start(
    words: Sequence[str],
    folder: Path,
    module: str = "brainlm_bids",
    *,
    script: Path | None = None,
) -> Running:
    """Start a call in a folder that has `tmp` for its temporary files.

    Parameters
    ----------
    words
        Of the command line.
    folder
        Of the trial.
    module, script
        What is run: a module, or a script in its place.
    """
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    environment = os.environ | {
        MARK: mark,
        "TMPDIR": str(folder / "tmp"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]),
    }
    said = folder / f"said-{mark[:8]}.txt"
    with said.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, *(["-m", module] if script is None else [str(script)]), *words],
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
            # a background job of a shell ignores ^C, and so would its children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    return Running(process, mark, said)


def belonging(mark: str) -> list[int]:
    """The processes that have a mark in their environment and have not ended."""
    text = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text in (folder / "environ").read_bytes() and runs(int(folder.name)):
                found.append(int(folder.name))
    return sorted(found)


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def still_alive(mark: str) -> list[int]:
    """Processes of a call that are there after the time that they have to end."""
    until = time.monotonic() + GRACE_S
    while (alive := belonging(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


def temporary_files(*folders: Path) -> list[str]:
    """Names of what looks temporary in some folders."""
    return [
        str(path.relative_to(folder.parent))
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if TEMPORARY.search(path.name)
    ]


def settle(folder: Path) -> None:
    """Replace what no two calls have in common: dates, names of calls, and how fast they were."""
    for pattern in ("*.html", "*_inputs.json", "training.json", "README.md"):
        for path in folder.rglob(pattern):
            text = path.read_text(encoding="utf-8")
            text = NUMBERS.sub(r"\g<1>0", STAMPS.sub("<stamp>", CALL.sub("", text)))
            text = text.replace(">cached<", ">done<")  # by the call before
            path.write_text(text, encoding="utf-8")
    for path in folder.rglob("curves.tsv"):
        names, *rows = [line.split("\t") for line in path.read_text().splitlines()]
        kept = [k for k, name in enumerate(names) if not re.fullmatch(SPEED, name)]
        lines = ["\t".join(row[k] for k in kept) for row in [names, *rows]]
        path.write_text("\n".join(lines) + "\n")


def differences(whole: Path, out: Path, but: Sequence[str] = ()) -> list[str]:
    """How a folder differs from that of an undisturbed call; but: patterns of paths left out.

    Of `logs` only the records count: the rest tells of the calls, and the times that they took.
    """
    found = []
    for part in ("", "logs/records", "logs/complete"):
        before, after = whole / part, out / part
        if part and not before.is_dir():
            continue
        if not after.is_dir():
            return [f"{out.name}/{part} is not there"]
        result = same_bytes.compare(same_bytes.Rules(folders=(before, after)))
        found += [f"{name}: missing" for name in result.only_before]
        found += [f"{name}: not there without the kill" for name in result.only_after]
        for name, finding in result.findings.items():
            if finding.difference or finding.added:
                found.append(f"{name}: {finding.difference or finding.added}")
    return [one for one in found if not any(re.search(pattern, one) for pattern in but)]
