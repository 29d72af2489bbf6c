"""Worker processes end with their call, and say nothing of its end."""

import os
import signal
import subprocess
import sys
import time
import types
from multiprocessing import reduction, synchronize
from pathlib import Path
from typing import Any

import pytest

from brainlm_bids.app import figures, fork_server
from brainlm_bids.errors import UserError

DRAWS = """
import os, sys, time
from brainlm_bids.app.figures import _workers
if __name__ == "__main__":
    try:
        with _workers(2) as pool:
            pids = {pool.submit(os.getpid).result()}
            waits = [pool.submit(time.sleep, float(sys.argv[1])) for _ in range(2)]
            print(*pids, flush=True)
            for wait in waits:
                wait.result()
    except KeyboardInterrupt:
        sys.exit(130)
"""


def _drawing(folder: Path, seconds: float) -> tuple["subprocess.Popen[str]", list[int]]:
    script = folder / "draws.py"
    script.write_text(DRAWS)
    process = subprocess.Popen(
        [sys.executable, str(script), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a background job of a shell ignores ^C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@needs_proc
def test_who_draws_figures_ends_with_a_killed_call(tmp_path: Path) -> None:
    process, pids = _drawing(tmp_path, 120)
    assert pids and all(map(_runs, pids))
    process.kill()
    process.communicate()
    until = time.monotonic() + 20
    while any(map(_runs, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_runs, pids))


@needs_proc
def test_who_draws_figures_says_nothing_at_an_interrupt(tmp_path: Path) -> None:
    process, pids = _drawing(tmp_path, 2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")
    assert not any(map(_runs, pids))


def kill_own_process(one: str, template: str | None) -> list[Path]:
    """Draw as `figures._draw` does; one of the figures kills its process."""
    if one == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return [Path(one)]


def test_a_figure_that_kills_its_process_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_draw", kill_own_process)
    settings: Any = types.SimpleNamespace(nprocs=2, template=None)
    work: Any = {name: name for name in ("a", "deadly", "b", "c", "d", "e")}
    drawn = {}
    for name, result in figures._drawn(settings, work):
        try:
            drawn[name] = result()
        except UserError as error:
            drawn[name] = [Path(str(error))]
    died = [Path(fork_server.KILLED)]
    assert drawn == {name: died if name == "deadly" else [Path(name)] for name in work}


def test_figures_are_drawn_where_no_process_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(figures, "_draw", lambda one, template: [Path(one)])
    monkeypatch.setattr(fork_server, "why_none", lambda: OSError("no semaphores"))
    settings: Any = types.SimpleNamespace(nprocs=2, template=None)
    work: Any = {name: name for name in "abcdef"}
    drawn = {name: result() for name, result in figures._drawn(settings, work)}
    assert drawn == {name: [Path(name)] for name in work}


STARTS = """
import os, signal, time
from brainlm_bids.app import figures, fork_server
from brainlm_bids.errors import UserError
if __name__ == "__main__":
    # a child would inherit that it is ignored
    signal.signal(signal.SIGINT, lambda *_: None)
    fork_server.start()
    for _ in range(100):  # from its first moments until it has loaded its libraries
        os.killpg(0, signal.SIGINT)
        time.sleep(0.01)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from concurrent.futures import ProcessPoolExecutor
    import multiprocessing
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(1, context, initializer=fork_server.begin) as pool:
        print(pool.submit(abs, -3).result())
"""


def test_a_server_that_is_just_starting_says_nothing_at_an_interrupt(tmp_path: Path) -> None:
    script = tmp_path / "starts.py"
    script.write_text(STARTS)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def _told(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    fork_server.tell(type(error), error, error.__traceback__)
    return capsys.readouterr().err


def test_a_worker_that_cannot_begin_is_told_unless_its_call_is_at_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its call has removed the semaphore that it is to share; other errors are none of its end."""
    lock = synchronize.Lock.__new__(synchronize.Lock)
    with pytest.raises(FileNotFoundError) as gone:
        lock.__setstate__((-1, 1, 1, "/no-such-semaphore"))
    assert _told(gone.value, capsys) == ""
    with pytest.raises(FileNotFoundError) as missing:
        Path("/no/such/file").read_text()
    assert "FileNotFoundError" in _told(missing.value, capsys)
    with pytest.raises(AttributeError) as other:
        reduction.ForkingPickler.loads(b"cos\nno_such_function\n.")
    assert "no_such_function" in _told(other.value, capsys)
