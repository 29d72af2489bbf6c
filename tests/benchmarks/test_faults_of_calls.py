"""The campaign of killed calls: it sees what a call leaves behind, and what differs."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np

from benchmarks.faults import kills, processes, versions

LEAVES = """
import os, subprocess, sys, tempfile, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(float('%s'))" % sys.argv[1]])
tempfile.mkdtemp()
print("ready", flush=True)
time.sleep(float(sys.argv[2]))
"""


def _call(folder: Path, *words: str) -> processes.Running:
    folder.mkdir()
    script = folder / "leaves.py"
    script.write_text(LEAVES)
    call = processes.start(words, folder, script=script)
    until = time.monotonic() + 20
    while "ready" not in call.text() and time.monotonic() < until:
        time.sleep(0.02)
    return call


def test_processes_and_files_that_a_killed_call_leaves_are_seen(tmp_path: Path) -> None:
    call = _call(tmp_path / "trial", "60", "60")
    os.kill(call.process.pid, signal.SIGKILL)
    call.process.wait()
    (orphan,) = processes.belonging(call.mark)
    assert processes.runs(orphan) and orphan != call.process.pid
    (left,) = processes.temporary_files(tmp_path / "trial" / "tmp")
    assert left.startswith("tmp/tmp")
    call.kill_all()
    assert processes.still_alive(call.mark) == []


def _outputs(folder: Path) -> Path:
    records = folder / "logs" / "records"
    records.mkdir(parents=True)
    (folder / "sub-01.html").write_text("<p>processed on 2026-11-30 23:36:42+00:00</p>")
    (folder / "a.tsv").write_text("x\n1\n")
    (records / "sub-01_inputs.json").write_text(json.dumps({"Looked": 123456, "Size": 1}))
    (folder / "curves.tsv").write_text("loss\twindows_per_second\n1\t54.1\n")
    return folder


def test_what_differs_is_told_and_times_are_not(tmp_path: Path) -> None:
    one, two = _outputs(tmp_path / "one"), _outputs(tmp_path / "two")
    (two / "sub-01.html").write_text("<p>processed on 2026-12-01 01:02:03+00:00</p>")
    (two / "logs" / "records" / "sub-01_inputs.json").write_text('{"Looked": 9, "Size": 1}')
    (two / "curves.tsv").write_text("loss\twindows_per_second\n1\t2\n")
    for folder in (one, two):
        processes.settle(folder)
    assert processes.differences(one, two) == []
    (two / "a.tsv").write_text("x\n2\n")
    (two / "logs" / "records" / "sub-01_inputs.json").write_text('{"Looked": 0, "Size": 2}')
    (two / ".tmp-x-y").touch()
    found = processes.differences(one, two)
    assert [text.split(":")[0] for text in found] == [".tmp-x-y", "a.tsv", "sub-01_inputs.json"]
    assert len(processes.differences(one, two, (r"^a\.tsv",))) == 2


def test_moments_are_spread_over_the_time() -> None:
    found = kills.moments(40.0, 20)
    assert np.array_equal(np.floor(np.array(found) / 2), np.arange(20))
    assert found == kills.moments(40.0, 20) != kills.moments(40.0, 20, seed=2)


def test_outputs_of_another_version_are_whole(tmp_path: Path) -> None:
    """Records tell sizes of sidecars: another version of another length would be a damaged one."""
    made, path = {"Name": "brainlm-bids", "Version": "0.1.9.dev0"}, tmp_path / "a.json"
    path.write_text(json.dumps({"GeneratedBy": made, "BIDSVersion": "1.10.0"}))
    size = path.stat().st_size
    versions.made_by_another(tmp_path)
    found = json.loads(path.read_text())
    assert found == {"GeneratedBy": made | {"Version": "1.2.0.dev1"}, "BIDSVersion": "1.10.0"}
    assert path.stat().st_size == size
