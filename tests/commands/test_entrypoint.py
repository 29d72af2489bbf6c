"""What the image's entry decides before it starts the program: who, where, what is said."""

import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from brainlm_bids.app import machine
from brainlm_bids.commands import containers

REPOSITORY = Path(__file__).resolve().parents[2]


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "docker" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


entry = load("entrypoint")


@pytest.mark.parametrize(
    "arguments",
    [
        ["/data", "{out}", "participant", "--model", "none"],
        ["--model", "none", "--", "/data", "{out}/new/deep", "group"],
        ["/data", "{out}", "participant", "group", "--target", "age"],
    ],
)
def test_the_owner_of_the_output_is_who_it_runs_as(tmp_path: Path, arguments: list[str]) -> None:
    words = [word.format(out=tmp_path) for word in arguments]
    found = tmp_path.stat()
    assert entry.owner_wanted("brainlm-bids", words) == (found.st_uid, found.st_gid)


def test_without_an_output_nobody_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert entry.owner_wanted("brainlm-bids", ["--version"]) is None
    assert entry.owner_wanted("brainlm-bids", ["participant"]) is None
    assert entry.owner_wanted("brainlm", ["--help"]) is None


def test_what_is_fetched_belongs_to_the_owner_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINLM_BIDS_HOME", str(tmp_path))
    found = tmp_path.stat()
    assert entry.owner_wanted("brainlm", ["fetch", "111M"]) == (found.st_uid, found.st_gid)


def test_caches_go_where_one_can_write(tmp_path: Path) -> None:
    cache = entry.private_folder([tmp_path / "nowhere", tmp_path])
    assert cache is not None and cache.parent == tmp_path
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    given = {"HOME": "/nowhere", "MPLCONFIGDIR": str(tmp_path), "PYTHONPATH": "/of/the/host"}
    values = entry.environment_for(given, cache)
    assert values["MPLCONFIGDIR"] == str(tmp_path)  # a good one is kept
    assert values["HOME"] == str(cache)
    assert "PYTHONPATH" not in values and values["USER"]
    for name in ("NUMBA_CACHE_DIR", "HF_HOME", "NIPYPE_CONFIG_DIR"):
        assert os.access(values[name], os.W_OK)


def test_a_folder_that_others_prepared_is_not_trusted(tmp_path: Path) -> None:
    first = entry.private_folder([tmp_path])
    first.chmod(0o777)
    second = entry.private_folder([tmp_path])
    assert second != first and stat.S_IMODE(second.stat().st_mode) == 0o700


def test_the_images_cache_counts_only_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "WEIGHTS", str(tmp_path / "weights"))
    given = {"BRAINLM_BIDS_HOME": str(tmp_path / "weights")}
    assert "BRAINLM_BIDS_HOME" not in entry.environment_for(given, tmp_path)
    (tmp_path / "weights").mkdir()
    assert entry.environment_for(given, tmp_path)["BRAINLM_BIDS_HOME"] == entry.WEIGHTS


def test_the_image_says_what_it_lacks(tmp_path: Path) -> None:
    assert entry.lacking(tmp_path) is None
    record: dict[str, dict[str, str]] = {"baked": {"template": "t"}, "missing": {}}
    (tmp_path / "baked.json").write_text(json.dumps(record))
    assert entry.lacking(tmp_path) is None
    record["missing"] = {"atlas": "no route to host"}
    (tmp_path / "baked.json").write_text(json.dumps(record))
    text = entry.lacking(tmp_path)
    assert "without atlas (no route to host)" in text


def test_codes_and_kills_are_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert entry.watch([sys.executable, "-c", "raise SystemExit(3)"], os.environ) == 3
    suicide = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert entry.watch(suicide, os.environ) == 137
    assert "killed (signal 9)" in capfd.readouterr().err
    kills = iter([4, 5])
    monkeypatch.setattr(machine, "oom_kills", lambda: next(kills))
    monkeypatch.setattr(machine, "available_memory", lambda: 2_000_000_000)
    assert entry.watch(suicide, os.environ) == 137
    said = capfd.readouterr().err
    assert "out of memory" in said and "2.0 GB" in said


def test_signals_reach_the_program(tmp_path: Path) -> None:
    child = "import signal, sys, time, pathlib\n"
    child += "signal.signal(signal.SIGTERM, lambda n, f: sys.exit(9))\n"
    child += f"pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(60)"
    code = "import sys; from brainlm_bids.commands.containers import supervise\n"
    code += f"sys.exit(supervise([sys.executable, '-c', {child!r}]))"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
    while not (tmp_path / "up").exists():
        time.sleep(0.02)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=20) == 9


def test_a_signal_for_a_program_that_has_just_ended_is_no_error() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    containers._to(ended.pid)(signal.SIGTERM, None)


def test_what_lies_ready_is_baked_and_the_rest_is_said(tmp_path: Path, shared: Path) -> None:
    from brainlm_bids import resources

    bake = load("bake")
    source = tmp_path / "source"
    (source / "atlas").mkdir(parents=True)
    original = shared / "atlas" / resources.ATLAS_FILE
    (source / "atlas" / resources.ATLAS_FILE).write_bytes(original.read_bytes())
    nowhere = resources.Sources(*["http://127.0.0.1:9"] * 4)
    record = bake.bake(source, tmp_path / "to", nowhere)
    assert set(record["baked"]) == {"atlas"}
    assert set(record["missing"]) == {"cifti-atlas", "template"}
    assert json.loads((tmp_path / "to" / "baked.json").read_text()) == record


def test_what_an_image_carries_is_found(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainlm_bids import resources

    monkeypatch.setenv("BRAINLM_BIDS_SHIPPED", str(tmp_path / "shipped"))
    monkeypatch.delenv("TEMPLATEFLOW_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, origin in (("atlas", "atlas"), ("templateflow/tpl-MNI152NLin6Asym", "templateflow")):
        folder = tmp_path / "shipped" / name
        folder.mkdir(parents=True)
        for path in (shared / origin).rglob("*.nii*"):
            (folder / path.name).write_bytes(path.read_bytes())
    home = tmp_path / "empty"
    atlas = resources.find_atlas("A424", home=home, offline=True)
    assert atlas.path == tmp_path / "shipped" / "atlas" / resources.ATLAS_FILE
    template = resources.find_template("MNI152NLin6Asym", home=home, offline=True)
    assert template.t1w is not None and (tmp_path / "shipped") in template.t1w.parents
