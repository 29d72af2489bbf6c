"""What a person sees of a call: on a terminal, and in a file."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from terminal import terminal

from brainlm_bids import files, resources

STEPS = 5  # take, scale, write, draw; report
QUIET = {"PYTHONWARNINGS": ""}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A call with one given series, which takes seconds."""
    rng = np.random.default_rng(0)
    series = tmp_path / "sub-07_task-rest_run-02_timeseries.tsv"
    names = list(resources.parcels().names)
    files.write_tsv(series, names, list(rng.normal(1000, 10, (424, 60))))
    bids = tmp_path / "bids"
    bids.mkdir()
    arguments = [str(bids), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work")]
    arguments += ["--timeseries", str(series), "--timeseries-tr", "0.72", "--model", "none"]
    arguments += ["--offline", "--atlas", "A424approx", "--nprocs", "1"]
    return [sys.executable, "-m", "brainlm_bids", *arguments]


def test_a_bar_on_a_terminal_and_results_nowhere_else(command: list[str]) -> None:
    with terminal(80) as screen:
        assert screen.run(command, TERM="xterm", **QUIET) == (0, "")
        lines = screen.lines()
    bars = re.findall(rf"(\d+)/{STEPS} \S* +\d+:\d\d", screen.written)
    # all steps in one count, whose total never changes
    assert bars and set(re.findall(r"\d/(\d+) \S* +\d+:\d\d", screen.written)) == {str(STEPS)}
    assert [int(number) for number in bars] == sorted(int(number) for number in bars)
    assert "sub-07, rest, run 2: " in screen.written
    said = "\n".join(lines)
    assert "inputs       1 subject, 1 run, 60 volumes in" in said
    assert not re.search(r" done \(\d", said)  # that is what the bar is for
    assert not any(re.match(rf"\d+/{STEPS} ", line) for line in lines)  # it leaves nothing
    assert re.search(r"brainlm-bids: 1 done in \d+ s, at most [\d.]+ GB", said)


def test_lines_with_the_time_in_a_file(command: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with log.open("w") as stream:
        environment = {**os.environ, "TERM": "xterm", **QUIET}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=stream, env=environment, check=False
        )
    text = log.read_text(encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, b"")
    assert "\r" not in text and "\x1b" not in text and "█" not in text
    steps = re.findall(
        r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO (.+) done \((\d+) of (\d+) steps, ",
        text,
        re.MULTILINE,
    )
    assert [(int(number), int(total)) for _, number, total in steps] == [
        (number, STEPS) for number in range(1, STEPS + 1)
    ]
    assert steps[0][0] == "sub-07, rest, run 2: reading the series"
    assert steps[-1][0] == "sub-07: report"
    # neither Nipype nor any other library has a word
    own = re.compile(
        r"^(\d{4}-|\w+ {2,}|brainlm-bids: |status table: |report: |work folder  |to do)"
    )
    assert [line for line in text.splitlines() if not own.match(line)] == []
