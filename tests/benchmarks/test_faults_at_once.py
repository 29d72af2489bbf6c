"""The campaign of calls at once: who holds a lock is killed; what grows, and what is told."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults import crowd, signals, soak
from benchmarks.faults.fault import Fault, Result, Trial
from benchmarks.faults.processes import Running
from brainlm_bids.bids.dataset import dataset_lock

LOCK = Path("logs") / ".lock"


@pytest.mark.skipif(not Path("/proc/locks").is_file(), reason="Linux tells who holds a lock")
def test_the_holder_of_a_lock_is_killed_and_nobody_else(tmp_path: Path) -> None:
    assert crowd.kill_holder(tmp_path / LOCK, range(1 << 30)) is None
    words = [sys.executable, "-c", crowd.HOLDS, str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    assert crowd.holder(tmp_path / LOCK) == process.pid
    assert crowd.kill_holder(tmp_path / LOCK, {1}) is None and process.poll() is None
    assert crowd.kill_holder(tmp_path / LOCK, {process.pid}) == process.pid
    assert process.wait(20) == -signal.SIGKILL
    process.stdout.close()
    # what it held is free at once
    with dataset_lock(tmp_path):
        assert crowd.holder(tmp_path / LOCK) is not None
    assert crowd.holder(tmp_path / LOCK) is None


def test_sixteen_calls_are_mixed() -> None:
    assert crowd.N_CALLS == 16
    texts = [
        " ".join(crowd._words(Path("raw"), Path("f"), number)) for number in range(crowd.N_CALLS)
    ]
    for word, number in (("--participant-label", 11), (" group ", 3), ("export ", 1)):
        assert sum(word in text for text in texts) == number
    assert sum("--participant-label 009" in text for text in texts) == 3
    assert sum("--reports-only" in text for text in texts) == 1


def _said(folder: Path, text: str) -> Running:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    said = folder / "said.txt"
    said.write_text(text)
    return Running(process, "no process has this mark", said)


@pytest.mark.parametrize(
    ("text", "code", "fault"),
    [
        ("brainlm-bids: stopped; the same command continues\n", 143, ""),
        ("brainlm-bids: stopped; the same command continues\n", 1, "exit code 1"),
        ("", 143, "not one line"),
        ("brainlm-bids: stopped\nTraceback (most recent call last):\n", 143, "traceback"),
        ("", 0, ""),
    ],
)
def test_what_a_stopped_call_does_wrong_is_seen(
    tmp_path: Path, text: str, code: int, fault: str
) -> None:
    found = signals.faults_of(_said(tmp_path, text), signals.STOPS[0], code, 1.0)
    assert [one[: len(fault)] for one in found] == ([fault] if fault else [])


def test_the_growth_of_a_soak_is_that_while_recordings_are_finished() -> None:
    """Loading, before the first recordings, and the end do not count."""
    samples = soak.Samples()
    for second in range(200):
        samples.done.append(min(max(0, second - 20), 150))
        samples.memory.append(9_000 * min(second, 20) + 30 * samples.done[-1])
    assert samples.slope() == pytest.approx(30.0)


def test_figures_are_on_the_page() -> None:
    fault = Fault("a/b", "", "", lambda folder, seconds: [])
    trials = [
        Trial(True, "", 2.0, 300.0, "3 kB"),
        Trial(True, "", 1.0),
        Trial(True, "", 1.0, 0, "4"),
    ]
    assert Result(fault, trials, 3.0).measured == "3 of 3; at most 2 s, 300 MB; 3 kB, 4"
