"""A call of the program as a user makes it: its arguments in, what it told out."""

import csv
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Warnings that every call of this benchmark has, because of its atlas, its template or its model.
_ALWAYS = ("A424approx", "nilearn's template", "MNI152NLin2009aSym", "random", "untrained")


@dataclass(frozen=True)
class Call:
    """A finished call of the program."""

    returncode: int
    stdout: str
    stderr: str
    rows: tuple[dict[str, str], ...] = ()

    @property
    def fault(self) -> str:
        """What must never happen in a call; empty if it did not."""
        if "Traceback" in self.stderr + self.stdout:
            return "a traceback"
        return "exit code 70, an internal error" if self.returncode == 70 else ""

    @property
    def warnings(self) -> list[str]:
        """Warnings of the log but for those that every call has."""
        said = re.findall(r" WARNING (.*)", self.stderr)
        return [text for text in said if not any(word in text for word in _ALWAYS)]

    @property
    def last_words(self) -> str:
        """The line that tells why the call was refused."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line.lower()]
        return (errors or lines or [""])[-1].partition("error: ")[2] or (lines or [""])[-1]


def call(arguments: Sequence[str], folder: Path, timeout: float = 1500) -> Call:
    """Run the program as a user does, and read the status table that it has written."""
    logs = folder / "out" / "logs"
    before = set(logs.glob("*_status.tsv"))
    command = [sys.executable, "-m", "brainlm_bids", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout, cwd=folder
        )
    except subprocess.TimeoutExpired:
        return Call(70, "", f"not finished within {timeout:g} s")
    rows: tuple[dict[str, str], ...] = ()
    for path in sorted(set(logs.glob("*_status.tsv")) - before):
        with path.open() as handle:
            rows = tuple(csv.DictReader(handle, delimiter="\t"))
    return Call(done.returncode, done.stdout, done.stderr, rows)
