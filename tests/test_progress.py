"""Progress: a bar on a terminal, lines elsewhere; its counts and times are true."""

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import Terminal, terminal

from brainlm_bids import messages
from brainlm_bids.amount import Amount
from brainlm_bids.progress import BEAT, Progress, Step
from brainlm_bids.remaining import Estimate

MOTION, MODEL = "sub-02, rest, run 1: head motion", "sub-02, rest, run 1: model brainlm111M"


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was told, filled as it is."""
    texts: list[str] = []

    class Texts(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    logger, handler = logging.getLogger("brainlm_bids"), Texts()
    logger.addHandler(handler)
    caplog.set_level(logging.INFO, logger="brainlm_bids")
    yield texts
    logger.removeHandler(handler)


@pytest.fixture(params=[80, 40, 20])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    with terminal(request.param) as opened:
        yield opened


def steps(*weights: float) -> dict[str, Step]:
    return {str(k): Step(f"step {k}", f"kind {k}", w) for k, w in enumerate(weights)}


# --- lines -----------------------------------------------------------------------------------


def test_lines_with_counts_and_times(clock: Clock, told: list[str]) -> None:
    progress = Progress(clock=clock, stream=io.StringIO())
    progress.expect({"a": Step(MOTION, "motion", 30.0), "b": Step(MODEL, "model", 90.0)})
    clock.now += 5
    progress.begin("a")
    clock.now += 60
    progress.end("a")
    progress.begin("b")
    clock.now += 175
    progress.end("b")
    assert told == [
        # the model is known to take three times as long: 3 min
        f"{MOTION} done (1 of 2 steps, 1 min 5 s, about 3 min left)",
        f"{MODEL} done (2 of 2 steps, 4 min 0 s)",
    ]


def test_a_sign_of_life_each_half_minute(clock: Clock, told: list[str]) -> None:
    progress = Progress(clock=clock, stream=io.StringIO())
    progress.expect({"a": Step(MOTION), "b": Step(MODEL)})
    progress.begin("a")
    for _ in range(95):
        clock.now += 1
        progress.tick()
    assert told == [
        f"still running: {MOTION}, for {after} (0 of 2 steps, {after})"
        for after in ("30 s", "1 min 0 s", "1 min 30 s")
    ]
    progress.begin("b")
    progress.note("window 3 of 10")
    clock.now += BEAT
    progress.tick()
    assert told[-1] == (
        f"still running: {MOTION}, for 2 min 5 s; {MODEL}, for 30 s, window 3 of 10 "
        "(0 of 2 steps, 2 min 5 s)"
    )


def test_what_is_not_counted_is_shown_all_the_same(clock: Clock, told: list[str]) -> None:
    progress = Progress(clock=clock, stream=io.StringIO())
    with progress.doing("finding the runs"):
        clock.now += BEAT
        progress.tick()
        assert progress.total == 0
    clock.now += BEAT
    progress.tick()
    assert told == ["still running: finding the runs, for 30 s (30 s)"]


def test_failed_and_lost_steps_keep_the_total(clock: Clock, told: list[str]) -> None:
    progress = Progress(clock=clock, stream=io.StringIO())
    progress.expect(steps(1, 1, 1, 1))
    progress.begin("0")
    progress.fail("0")
    progress.drop(["1", "2"])
    progress.begin("2")  # it did not need the one that failed
    progress.end("2")
    progress.begin("3")
    progress.end("3")
    assert told[-1] == "step 3 done (2 of 4 steps, 1 failed, 0 s)"
    progress.begin("unknown")
    progress.end("unknown")
    assert progress.total == 4 and len(told) == 2


def test_steps_that_were_counted_before_they_were_known_are_replaced() -> None:
    progress = Progress(quiet=True)
    progress.expect({f"ahead/tables/{k}": Step("?") for k in range(5)})
    progress.expect({"a": Step("a")})
    assert progress.total == 6
    progress.expect({"x": Step("x"), "y": Step("y")}, instead="ahead/tables/")
    assert progress.total == 3


def test_items_of_a_loop_are_told_with_a_distance(clock: Clock, told: list[str]) -> None:
    progress = Progress("recording", spacing=10.0, clock=clock, stream=io.StringIO())
    for _ in progress.each([f"sub-{k:02}" for k in range(1, 31)]):
        clock.now += 3
    assert [text.split(", ")[0] for text in told] == [
        *(f"sub-{k:02} done ({k} of 30 recordings" for k in (4, 8, 12, 16, 20, 24, 28)),
        "sub-30 done (30 of 30 recordings",
    ]
    assert told[0].endswith("12 s, about 2 min left)")


def test_a_step_that_raises_has_failed(told: list[str]) -> None:
    progress = Progress(stream=io.StringIO())
    progress.expect(steps(1, 1))
    with pytest.raises(ValueError, match="why"), progress.step("0"):
        raise ValueError("why")
    with progress.step("1"):
        pass
    assert told[0].startswith("step 1 done (1 of 2 steps, 1 failed")


# --- what is left ----------------------------------------------------------------------------


def test_what_is_left_is_true_where_steps_take_what_their_kind_takes() -> None:
    """Two at a time, three kinds in known proportions, on a machine of half the speed."""
    weights = {"motion": 30.0, "ica": 5.0, "model": 90.0}
    waiting = [(kind, weight) for _ in range(8) for kind, weight in weights.items()]
    estimate, now, running = Estimate(), 0.0, []
    truth, found = [], []
    while waiting or running:
        while waiting and len(running) < 2:
            running.append((*waiting.pop(0), now))
        ends = [(begun + 2 * weight, kind, weight, begun) for kind, weight, begun in running]
        now, kind, weight, begun = min(ends)
        running.remove((kind, weight, begun))
        estimate.add(kind, weight, now - begun)
        ahead: dict[str, float] = {}
        for one, size in waiting:
            ahead[one] = ahead.get(one, 0.0) + size
        left = estimate.left(ahead, [(k, w, now - b) for k, w, b in running], now)
        truth.append(now)
        found.append(left)
    total = truth[-1]
    for now, left in zip(truth[2:-2], found[2:-2]):
        assert left is not None and abs(now + left - total) < 0.15 * total
    assert total == pytest.approx(8 * 2 * 125 / 2, rel=0.15)


def test_there_is_no_estimate_without_a_basis() -> None:
    estimate = Estimate()
    assert estimate.left({"motion": 30.0}, [], 10.0) is None
    estimate.add("merge", 0.0, 0.0)
    assert estimate.left({"motion": 30.0}, [], 10.0) is None
    estimate.add("scale", 1.0, 1.0)  # a hundredth of the work
    assert estimate.left({"motion": 99.0}, [], 10.0) is None
    estimate.add("motion", 30.0, 30.0)
    assert estimate.left({"motion": 30.0}, [], 31.0) == pytest.approx(30.0)


def test_steps_of_an_earlier_call_are_no_basis(clock: Clock) -> None:
    progress = Progress(quiet=True, clock=clock)
    progress.expect(steps(10, 10))
    progress.begin("0")
    progress.end("0", cached=True)
    assert progress.left() is None
    progress.begin("1")
    clock.now += 5
    assert progress.left() is None


def test_kinds_that_cannot_be_compared_must_all_be_known(clock: Clock) -> None:
    progress = Progress(quiet=True, compares=False, clock=clock)
    progress.expect({"a": Step("a", "fold"), "b": Step("b", "fold"), "c": Step("c", "table")})
    for key, seconds in (("a", 60.0), ("b", 60.0)):
        progress.begin(key)
        clock.now += seconds
        progress.end(key)
        assert progress.left() is None  # nobody knows how long the table takes
    progress.expect({"d": Step("d", "fold")})
    progress.begin("c")
    clock.now += 10
    progress.end("c")
    assert progress.left() == pytest.approx(60.0)


def test_an_amount_is_told_with_its_speed(clock: Clock, told: list[str]) -> None:
    title = "downloading 111M"
    with Amount(
        title, 450_000_000, 50_000_000, unit="B", clock=clock, stream=io.StringIO()
    ) as amount:
        clock.now += 1
        amount.advance(10_000_000)
        assert amount.left() is None
        for _ in range(29):
            clock.now += 1
            amount.advance(5_000_000)
        amount.tick()
        amount.advance(450_000_000 - 205_000_000)
    counts = "205.0 of 450.0 MB, 30 s, less than a minute left"
    assert told[0] == f"still running: downloading 111M, for 30 s ({counts})"
    assert told[1] == "downloading 111M done (450.0 of 450.0 MB, 30 s)"


def test_an_amount_that_was_broken_off_is_not_done(told: list[str]) -> None:
    with pytest.raises(OSError, match="gone"), Amount("x", 10, stream=io.StringIO()) as amount:
        amount.advance(3)
        raise OSError("gone")
    assert not told


def test_items_that_failed_or_were_complete_are_told_so(clock: Clock, told: list[str]) -> None:
    progress = Progress("recording", clock=clock, stream=io.StringIO())
    for item in progress.each(["a", "b", "c"]):
        clock.now += 5
        if item == "a":
            progress.found()
        if item == "b":
            progress.leave_out()
    assert told == [
        "a complete already (1 of 3 recordings, 5 s)",
        "c done (2 of 3 recordings, 1 failed, 15 s)",
    ]


# --- a terminal ------------------------------------------------------------------------------


def test_a_bar_in_one_line_of_any_terminal(screen: Terminal, clock: Clock) -> None:
    progress = Progress(clock=clock, stream=screen.stream)
    with progress:
        progress.expect({"a": Step(MOTION, "motion", 30.0), "b": Step(MODEL, "model", 90.0)})
        progress.begin("a")
        clock.now += 60
        progress.end("a")
        progress.begin("b")
        clock.now += 45
        progress.tick()
        lines = screen.lines()
        assert len(lines) == 1 and len(lines[0]) < screen.columns
        assert lines[0].startswith("1/2 ")
        if screen.columns >= 40:
            assert "1:45 ~3 min left" in lines[0] and lines[0].endswith("0:45")
        if screen.columns == 80:
            assert "model brainlm111M 0:45" in lines[0]
    assert screen.lines() == [""]  # nothing of it remains
    assert "\n" not in screen.written


def test_messages_stand_above_the_bar(
    screen: Terminal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen.stream)
    with Progress(clock=clock, stream=screen.stream) as progress:
        progress.expect(steps(1, 1))
        progress.begin("0")
        messages.tell("a\nb")
        assert screen.lines()[:2] == ["a", "b"]
        progress.tick()
        assert screen.lines()[2].startswith("0/2 ")
        progress.end("0")
        assert not any("done" in line for line in screen.lines())  # the bar tells it
    assert screen.lines()[:2] == ["a", "b"]


def test_the_bar_counts_what_is_done_and_tells_failures(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with terminal(80) as screen, Progress(clock=clock, stream=screen.stream) as progress:
        progress.expect(steps(1, 1, 1, 1))
        progress.begin("0")
        progress.fail("0")
        progress.drop(["1"])
        progress.begin("2")
        progress.end("2")
        progress.begin("3")
        line = screen.lines()[0]
    assert line.startswith("1/4 ") and ", 1 failed  step 3" in line
    assert line.count("█") == 9  # three of the four steps are not to be waited for


def test_details_are_left_out_where_there_is_no_room(screen: Terminal, clock: Clock) -> None:
    with Progress(clock=clock, stream=screen.stream) as progress:
        progress.expect({"a": Step("sub-02: perturb")})
        progress.begin("a")
        progress.note("set of parcels 12 of 101")
        progress.tick()
        line = screen.lines()[0]
    assert ("set of parcels 12 of 101 0:00" in line) == (screen.columns == 80)
    assert "perturb" in line or screen.columns == 20


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_dumb_terminal_has_lines(
    term: str, clock: Clock, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    with terminal(80) as opened:
        with Progress(clock=clock, stream=opened.stream) as progress:
            progress.expect(steps(1))
            progress.begin("0")
            progress.end("0")
        messages_before = opened.lines()
    assert messages_before == [""] and len(told) == 1


def test_a_file_has_whole_lines_with_the_time(tmp_path: Path) -> None:
    code = """
import logging, sys, warnings
import nibabel
from brainlm_bids import messages
from brainlm_bids.amount import Amount
from brainlm_bids.progress import Progress
messages.configure(0)
with Progress() as progress:
    for item in progress.each(["a", "b"]):
        pass
logging.getLogger("nilearn").warning("a warning of another library")
header = nibabel.Nifti1Header()
header["sform_code"] = 82
nibabel.Nifti1Header(header.binaryblock)
warnings.warn("a warning of numpy")
logging.getLogger("brainlm_bids").warning("our own warning")
messages.tell("the last words")
print("a result")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        # pytest-cov asks for some warnings
        env={**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": ""},
    )
    assert done.stdout == "a result\n"
    assert "\r" not in done.stderr and "\x1b" not in done.stderr
    stamped = [line.split(" ", 2) for line in done.stderr.splitlines()[:-1]]
    assert [rest for _, _, rest in stamped] == [
        "INFO a done (1 of 2 steps, 0 s, less than a minute left)",
        "INFO b done (2 of 2 steps, 0 s)",
        "WARNING our own warning",
    ]
    for day, hour, _ in stamped:
        time.strptime(f"{day} {hour}", "%Y-%m-%d %H:%M:%S")
    shown = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], capture_output=True, text=True
    )
    assert "a warning of another library" in shown.stderr and "a warning of numpy" in shown.stderr


# --- nothing is left behind ------------------------------------------------------------------


def test_no_thread_is_left_after_an_error() -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), Progress(stream=io.StringIO()) as progress:
        progress.expect(steps(1))
        assert threading.active_count() == before + 1
        raise KeyboardInterrupt
    assert threading.active_count() == before


def test_an_interrupt_ends_the_process_at_once() -> None:
    code = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs it with &
from brainlm_bids.progress import Progress
with Progress() as progress:
    for item in progress.each(["a"]):
        print("begun", flush=True)
        time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT


def test_progress_costs_nothing_that_can_be_measured() -> None:
    with Progress(stream=io.StringIO(), spacing=10.0) as progress:
        began = time.perf_counter()
        for _ in progress.each(range(2000)):
            pass
        assert time.perf_counter() - began < 2.0  # a thousandth of a second for each
