"""What becomes of a graph when its processes are killed, and of a call that is told to stop."""

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import types
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline import engine

from brainlm_bids.app import machine, workers
from brainlm_bids.app.status import read_crashes
from brainlm_bids.app.workers import GRACE, WorkersPlugin
from brainlm_bids.phantom import write_phantom


def die(folder: str) -> int:
    import os
    import signal
    import time
    from pathlib import Path

    (Path(folder) / f"started_{os.getpid()}").touch()
    while not (Path(folder) / "begun").exists():  # so that it dies beside the other
        time.sleep(0.02)
    (Path(folder) / "died").touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def die_once(folder: str) -> int:
    import os
    import signal
    import time
    from pathlib import Path

    while not (Path(folder) / "begun").exists():  # so that it dies beside the other
        time.sleep(0.02)
    if not (Path(folder) / "died").exists():
        (Path(folder) / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (Path(folder) / "survived").touch()
    return 0


def last(folder: str) -> int:
    import time
    from pathlib import Path

    (Path(folder) / "begun").touch()
    while not (Path(folder) / "died").exists():
        time.sleep(0.02)
    time.sleep(2.0)
    (Path(folder) / "last").touch()
    return 0


def hear_nothing(folder: str) -> int:
    from pathlib import Path

    (Path(folder) / "begun").touch()
    return sum(range(10**13))  # one call into C: no signal is handled before it returns


def compute(folder: str) -> int:
    import sys
    from pathlib import Path

    had = [name for name in ("torch", "sklearn", "nilearn", "matplotlib") if name in sys.modules]
    import numpy as np
    import torch

    torch.set_num_threads(2)
    matrix = np.random.default_rng(0).standard_normal((600, 600))
    values = np.linalg.eigvalsh(matrix @ matrix.T)
    product = torch.from_numpy(matrix) @ torch.from_numpy(matrix)
    assert np.allclose(product.numpy(), matrix @ matrix) and values.min() > -1e-6
    (Path(folder) / "had").write_text(" ".join(had))
    return 0


def run_graph(folder: Path, processes: int, **functions: Any) -> Path:
    """Run independent functions as nodes; returns the folder of crash files."""
    crashes = folder / "crash"
    workflow = engine.Workflow(name="graph", base_dir=str(folder))
    workflow.config["execution"] = {
        "crashdump_dir": str(crashes),
        "crashfile_format": "txt",
        "poll_sleep_duration": "0.02",
    }
    for name, function in functions.items():
        node = engine.Node(Function(function=function, output_names=["x"]), name=name)
        node.inputs.folder = str(folder)
        workflow.add_nodes([node])
    plugin = WorkersPlugin({"n_procs": processes})
    try:
        workflow.run(plugin=plugin)
    except Exception:  # of the failed nodes
        pass
    finally:
        plugin.stop()
    return crashes


def test_a_killed_process_fails_its_own_step_alone(tmp_path: Path) -> None:
    crashes = run_graph(tmp_path, 2, bad=die, good=last)
    assert (tmp_path / "last").exists()
    assert read_crashes(crashes, ["graph.good"]) is None
    found = read_crashes(crashes, ["graph.bad"])
    assert found is not None and found.reason.startswith("a process died")
    # once beside the other, once alone
    assert len(list(tmp_path.glob("started_*"))) == 2


def test_what_was_killed_beside_others_is_tried_again_alone(tmp_path: Path) -> None:
    crashes = run_graph(tmp_path, 2, bad=die_once, good=last)
    assert (tmp_path / "survived").exists() and (tmp_path / "last").exists()
    assert not crashes.exists()


@pytest.mark.parametrize("error", [EOFError, BrokenPipeError, ConnectionRefusedError])
def test_a_fork_server_that_dies_while_it_forks_fails_one_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    connect, begun = forkserver.connect_to_new_process, []

    def dies_once(fds: list[int]) -> Any:
        begun.append(True)
        if len(begun) == 1:
            raise error
        return connect(fds)

    monkeypatch.setattr(forkserver, "connect_to_new_process", dies_once)
    (tmp_path / "died").touch()
    crashes = run_graph(tmp_path, 1, first=last, second=last)
    assert (tmp_path / "last").exists()
    found = [read_crashes(crashes, [f"graph.{name}"]) for name in ("first", "second")]
    (reason,) = [crash.reason for crash in found if crash is not None]
    assert reason.startswith("a process died")


def test_workers_begin_with_the_libraries_and_compute_in_threads(tmp_path: Path) -> None:
    """They are loaded once per call, in the process that workers are forked from."""
    crashes = run_graph(tmp_path, 1, node=compute)
    assert not crashes.exists(), [path.read_text() for path in crashes.iterdir()]
    assert (tmp_path / "had").read_text() == "torch sklearn nilearn matplotlib"


def test_want_of_memory_is_told_from_other_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter(range(9))
    monkeypatch.setattr(machine, "oom_kills", lambda: next(kills))
    monkeypatch.setattr(machine, "available_memory", lambda: 2_000_000_000)
    (tmp_path / "begun").touch()
    found = read_crashes(run_graph(tmp_path, 1, bad=die), ["graph.bad"])
    assert found is not None
    assert found.reason.startswith("out of memory") and "2.0 GB" in found.reason
    assert not found.skipped


@pytest.mark.parametrize(("expected", "told"), [(3.6, 4.0), (1.0, None)])
def test_the_memory_that_would_do_is_told(
    expected: float, told: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine tenths of it are for the step and the main process, here without any memory."""
    monkeypatch.setattr(machine, "available_memory", lambda: 2_000_000_000)
    monkeypatch.setattr(workers.resource, "getrusage", lambda _: types.SimpleNamespace(ru_maxrss=0))
    small, large = (types.SimpleNamespace(expected_gb=gb) for gb in (0.5, expected))
    reason = workers.too_little_memory([small, large])
    assert ("would do" in reason) == (told is not None)
    assert told is None or f"; {told:.1f} GB would do" in reason


def test_a_worker_that_hears_nothing_is_killed(tmp_path: Path) -> None:
    plugin = WorkersPlugin({"n_procs": 1})
    node = engine.Node(Function(function=hear_nothing, output_names=["x"]), name="deaf")
    node.base_dir = node.inputs.folder = str(tmp_path)
    plugin._submit_job(node)
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    (worker,) = multiprocessing.active_children()
    started = time.monotonic()
    plugin.stop()
    # its state goes to the pool's thread or to this one, whichever asks first, and the exit code
    # with it; that it is gone is enough, since it hears nothing but SIGKILL
    while _runs(worker.pid) and time.monotonic() - started < 2 * GRACE:
        time.sleep(0.05)
    assert not _runs(worker.pid)


# --- a call that is told to stop -------------------------------------------------------------


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped") / "bids"
    write_phantom(folder, n_subjects=1, n_volumes=40, tr=2.0, voxel=6.0, seed=1)
    return folder


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_call_in_order(
    bids: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    command = [
        sys.executable,
        "-m",
        "brainlm_bids",
        str(bids),
        str(out),
        "participant",
    ]
    command += ["-w", str(work), "--offline", "--atlas", "A424approx", "--nprocs", "1"]
    command += ["--template", "MNI152NLin2009aSym", "--model", "random:tiny"]
    call = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # a shell's background job ignores ^C, and so do its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # in the middle of a node
    until = time.monotonic() + 120
    while not list(work.glob("brainlm_bids/*/*/_node.pklz")) and time.monotonic() < until:
        assert call.poll() is None
        time.sleep(0.05)
    workers = _children(call.pid)
    assert workers
    started = time.monotonic()
    call.send_signal(number)
    said = call.communicate(timeout=30)[1]
    assert time.monotonic() - started < 10
    assert call.returncode == code
    assert "stopped; the same command continues" in said
    with next((out / "logs").glob("*_status.tsv")).open() as handle:
        (row,) = csv.DictReader(handle, delimiter="\t")
    assert row["status"] == "failed" and "stopped" in row["reason"]
    assert list(out.rglob(".tmp-*")) == []
    # the call does not wait for the last of those that it has killed
    while any(map(_runs, workers)) and time.monotonic() - started < 10:
        time.sleep(0.05)
    assert not [pid for pid in workers if _runs(pid)]


def _children(pid: int) -> list[int]:
    """All processes below one, by their ids."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    own = [int(one) for one in text.split()]
    return own + [below for one in own for below in _children(one)]


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_killing_the_call_takes_its_workers_along(bids: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    command = [
        sys.executable,
        "-m",
        "brainlm_bids",
        str(bids),
        str(tmp_path / "out"),
    ]
    command += ["participant", "-w", str(work), "--offline", "--atlas", "A424approx"]
    command += ["--template", "MNI152NLin2009aSym", "--model", "none", "--nprocs", "1"]
    call = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(work.glob("brainlm_bids/*/*/_node.pklz")) and time.monotonic() < until:
        time.sleep(0.05)
    workers = _children(call.pid)
    os.kill(call.pid, signal.SIGKILL)
    call.wait()
    until = time.monotonic() + 10
    while any(_runs(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert workers and not [pid for pid in workers if _runs(pid)]
