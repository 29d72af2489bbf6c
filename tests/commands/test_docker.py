"""The wrapper around docker run: what docker is called with, and what its exit code becomes."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from brainlm_bids.commands import bids_app as cli
from brainlm_bids.commands import docker as docker_cli
from brainlm_bids.settings import rows_in
from brainlm_bids.table import SECTIONS

REPOSITORY = Path(__file__).resolve().parents[2]
# A stand-in for docker: writes down its arguments, ends as the file `code` says.
DOCKER = """#!/bin/sh
here=$(dirname "$0")
if [ "$1" = info ]; then cat "$here/info" 2>/dev/null; exit 0; fi
printf '%s\\n' "$@" > "$here/called"
exit "$(cat "$here/code" 2>/dev/null || echo 0)"
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for name in ("BRAINLM_BIDS_IMAGE", "TEMPLATEFLOW_HOME", *docker_cli.PASSED_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BRAINLM_BIDS_HOME", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bids").mkdir()
    return folder


def call(*arguments: str) -> int:
    return docker_cli.main(["bids", "out", "participant", *arguments])


def called(engine: Path) -> list[str]:
    return (engine / "called").read_text().splitlines()


def test_a_plain_call(engine: Path, tmp_path: Path) -> None:
    assert call("--model", "none", "-w", "work", "--nprocs", "2", "-vv") == 0
    words = called(engine)
    assert words[:4] == ["run", "--rm", "--user", f"{os.getuid()}:{os.getgid()}"]
    mounted = [words[k + 1] for k, word in enumerate(words) if word == "-v"]
    assert set(mounted) == {
        f"{tmp_path}/bids:/data:ro",
        f"{tmp_path}/out:/out",
        f"{tmp_path}/weights:/weights",
        f"{tmp_path}/work:/scratch",
    }
    inside = words[words.index("brainlm-bids:latest") + 1 :]
    assert inside[:3] == ["/data", "/out", "participant"]
    # what the app inside would make of it
    app = cli.build_parser().parse_args(inside)
    assert (app.model, app.nprocs, app.verbose) == (["none"], 2, 2)
    assert app.work_dir == Path("/scratch")
    # or docker would make them, as root
    assert all((tmp_path / name).is_dir() for name in ("out", "weights", "work"))


def test_every_path_is_mounted_where_the_arguments_say(engine: Path, tmp_path: Path) -> None:
    for name in ("atlas.nii.gz", "stats.tsv", "filter.json", "bids/phenotype.tsv", "my/a.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "bids" / "derivatives" / "fmriprep").mkdir(parents=True)
    assert (
        call(
            *(
                "--atlas",
                "atlas.nii.gz",
                "--scaling-stats",
                "stats.tsv",
                "--timeseries",
                "my/a.tsv",
            ),
            *("--bids-filter-file", "filter.json", "--phenotype", "bids/phenotype.tsv"),
            *("--model", "checkpoint", "random:tiny", "13M", "--bids-database-dir", "index"),
        )
        == 0
    )
    words = called(engine)
    pairs = [words[k + 1].split(":") for k, word in enumerate(words) if word == "-v"]
    host = {parts[1]: parts[0] for parts in pairs}
    read_only = {parts[1] for parts in pairs if parts[2:] == ["ro"]}
    inside = words[words.index("brainlm-bids:latest") + 1 :]
    value = {word: inside[k + 1] for k, word in enumerate(inside) if word.startswith("--")}
    for flag, name in (
        ("--atlas", "atlas.nii.gz"),
        ("--scaling-stats", "stats.tsv"),
        ("--bids-filter-file", "filter.json"),
        ("--model", "checkpoint"),
        ("--bids-database-dir", "index"),
    ):
        assert host[value[flag]] == f"{tmp_path}/{name}"
        assert Path(value[flag]).name == name  # outputs are called after a checkpoint's folder
        assert (value[flag] in read_only) == (flag != "--bids-database-dir")
    assert inside[inside.index("--model") + 2 :][:2] == ["random:tiny", "13M"]
    assert value["--phenotype"] == "/data/phenotype.tsv"
    assert host[str(Path(value["--timeseries"]).parent)] == f"{tmp_path}/my"
    assert call("-d", "fmriprep=bids/derivatives/fmriprep") == 0
    assert "fmriprep=/data/derivatives/fmriprep" in called(engine)
    # with the table beside the labels; a name is no path
    assert call("--parcellation", "my/a.nii.gz:Mine", "Schaefer100x7") == 0
    words = called(engine)
    first, second = words[words.index("--parcellation") + 1 :][:2]
    assert Path(first).name == "a.nii.gz:Mine" and second == "Schaefer100x7"
    assert f"{tmp_path}/my:{Path(first).parent}:ro" in words


def test_a_dry_run_prints_the_command_and_does_nothing(
    engine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("--dry-run", "--offline", "--", "--dry-run") == 0
    words = shlex.split(capfd.readouterr().out)
    assert words[:2] == [str(engine / "docker"), "run"]
    assert words[-1] == "--dry-run" and words.count("--dry-run") == 1  # that of the app
    assert "--network none" in " ".join(words)
    assert not (engine / "called").exists() and not (tmp_path / "out").exists()


def test_gpus_image_and_options_of_docker(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("--gpus", "--docker-options", "--memory 8g --cpus 4") == 0
    text = " ".join(called(engine))
    assert "--gpus all" in text and "--memory 8g --cpus 4 brainlm-bids:gpu /data" in text
    monkeypatch.setenv("BRAINLM_BIDS_IMAGE", "lab/brainlm-bids:1")
    assert call("--gpus", "device=1") == 0
    text = " ".join(called(engine))
    assert "--gpus device=1" in text and "lab/brainlm-bids:1 /data" in text


def test_the_root_of_a_rootless_engine_is_the_caller(engine: Path) -> None:
    (engine / "info").write_text("[name=seccomp,profile=builtin name=rootless]\n")
    assert call() == 0
    assert "--user" not in called(engine)


def test_the_exit_code_is_the_containers_and_a_kill_is_explained(
    engine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (engine / "code").write_text("1")
    assert call() == 1
    assert "out of memory" not in capfd.readouterr().err
    (engine / "code").write_text("137")
    assert call() == 137
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("brainlm-bids-docker: ") and "out of memory" in last


def test_mistakes_are_said_in_one_line(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert docker_cli.main(["nowhere", "out", "participant"]) == 2
    assert "nowhere: there is no such file or folder" in capfd.readouterr().err
    assert call("--model", "no/such/folder") == 2
    assert "no/such/folder" in capfd.readouterr().err
    (tmp_path / "settings.toml").write_text('atlas = "/home/me/atlas.nii.gz"\n')
    assert call("--config-file", "settings.toml") == 2
    assert "--atlas" in capfd.readouterr().err
    (tmp_path / "settings.toml").write_text('atlas = "A424"\nmodel = ["random:13M"]\n')
    assert call("--config-file", "settings.toml") == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    assert call() == 2
    assert "docker is not on the PATH" in capfd.readouterr().err


def test_paths_of_every_setting_are_mounted(engine: Path, tmp_path: Path) -> None:
    """A path of this machine never reaches the program in the container, whatever the flag."""
    folder = tmp_path / "my"
    folder.mkdir()
    (folder / "file.tsv").touch()
    rows = [row for name in SECTIONS for row in rows_in(name)]
    paths = [row for row in rows if row.kind is Path or row.words or row.name == "derivatives"]
    assert len(paths) > 10
    for row in paths:
        value = "my/new" if row.written else "my/file.tsv"
        value = "fmriprep=my" if row.name == "derivatives" else value
        assert call(row.flag, value) == 0
        words = called(engine)
        inside = words[words.index("brainlm-bids:latest") + 1 :]
        assert inside[3] == row.flag
        target = inside[4].partition("=")[2] or inside[4]
        mounted = [words[k + 1].split(":") for k, word in enumerate(words) if word == "-v"]
        assert any(target.startswith(place[1]) for place in mounted), row.name


def test_an_alias_is_handed_on_once(engine: Path) -> None:
    assert call("--mem-mb", "500", "--nthreads", "2") == 0
    inside = called(engine)[called(engine).index("brainlm-bids:latest") + 4 :]
    assert inside == ["--nprocs", "2", "--mem", "0.5"]


def test_it_needs_nothing_but_pythons_standard_library(tmp_path: Path) -> None:
    # -S: no site-packages
    command = [sys.executable, "-S", "-m", "brainlm_bids.commands.docker", "--help"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={"PATH": "/nowhere"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--gpus" in done.stdout
