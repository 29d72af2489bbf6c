"""The wrapper around fMRIPrep: what docker and Apptainer are called with, and what follows."""

import json
import os
import sys
from pathlib import Path

import pytest
from fmriprep_docker.__main__ import get_parser

from brainlm_bids.commands import bids_app as cli
from brainlm_bids.commands import fmriprep as fmriprep_cli

# A stand-in for both engines: it writes down how it was called and, as fMRIPrep's container would,
# leaves a derivatives folder where /out is mounted.
ENGINE = """#!{python}
import json, pathlib, sys
arguments = sys.argv[1:]
if arguments[0] in ("version", "images"):
    print("1")
    sys.exit()
if "--entrypoint=free" in arguments:
    print("Mem: 16000 0 0")
    sys.exit()
here = pathlib.Path(__file__).parent
(here / "called.json").write_text(json.dumps(arguments))
mounts = dict(one.split(":")[:2][::-1] for one in arguments if one.count(":") and "/" in one)
if (here / "fail").exists():
    crash = pathlib.Path(mounts["/out"]) / "sub-01" / "log" / "x" / "crash-1.txt"
    crash.parent.mkdir(parents=True)
    crash.write_text("no")
    sys.exit(7)
made = {{"Name": "fMRIPrep", "GeneratedBy": [{{"Name": "fMRIPrep"}}]}}
(pathlib.Path(mounts["/out"]) / "dataset_description.json").write_text(json.dumps(made))
"""


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "apptainer"):
        program = folder / name
        program.write_text(ENGINE.format(python=sys.executable))
        program.chmod(0o755)
    beside_python = str(Path(sys.executable).parent)  # fmriprep-docker is installed there
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), beside_python, os.environ["PATH"]]))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    folder = tmp_path / "bids"
    folder.mkdir()
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    return folder


@pytest.fixture
def continued(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What `brainlm-bids` was called with; it does nothing here."""
    calls: list[list[str]] = []

    def main(argv: list[str]) -> int:
        calls.append(argv)
        return 0

    monkeypatch.setattr(cli, "main", main)
    return calls


def _called(engines: Path) -> list[str]:
    return list(json.loads((engines / "called.json").read_text()))


def test_docker_is_called_through_fmriprep_docker(
    engines: Path, bids: Path, continued: list[list[str]]
) -> None:
    out = bids.parent / "out"
    arguments = [str(bids), str(out), "participant", "--participant-label", "01", "02"]
    arguments += ["--nprocs", "2", "--mem", "7.5", "--model", "none", "--use-syn-sdc", "warn"]
    assert fmriprep_cli.main([*arguments, "--output-spaces", "T1w"]) == 0
    called = _called(engines)
    fmriprep = out / "sourcedata" / "fmriprep"
    assert f"{bids}:/data:ro" in called and f"{fmriprep}:/out" in called
    inside = called[called.index("/data") :]
    assert inside[:3] == ["/data", "/out", "participant"]
    text = " ".join(inside)
    assert "--participant-label 01 02" in text and "--fs-no-reconall" in text
    assert "--nprocs 2" in text and "--mem 7500MB" in text and "--use-syn-sdc warn" in text
    assert "--output-spaces MNI152NLin6Asym:res-2 T1w" in text
    assert "--model" not in text and "none" not in inside
    assert continued == [
        [
            *(str(bids), str(out), "participant", "--participant-label", "01", "02"),
            *("--nprocs", "2", "--mem", "7.5", "--model", "none", "--use-syn-sdc", "warn"),
            *("--derivatives", f"fmriprep={fmriprep}"),
        ]
    ]


def test_fmriprep_dockers_parser_takes_our_call(engines: Path, bids: Path, tmp_path: Path) -> None:
    licence = tmp_path / "license.txt"
    licence.write_text("x")
    wrapper, rest = fmriprep_cli.build_parser().parse_known_args(
        [str(bids), "out", "participant", "--fs-license-file", str(licence), "--freesurfer"]
    )
    app = cli.build_parser().parse_args(rest)
    options = fmriprep_cli.fmriprep_options(app, wrapper.freesurfer)
    command = fmriprep_cli.docker_command(wrapper, app, tmp_path / "f", tmp_path / "w", options)
    known, unknown = get_parser().parse_known_args(command[1:])
    assert (known.bids_dir, known.output_dir) == (str(bids), str(tmp_path / "f"))
    assert known.fs_license_file == str(licence) and known.work_dir == str(tmp_path / "w")
    assert unknown == [] and "--fs-no-reconall" not in options


def test_apptainer_binds_the_same_places(
    engines: Path, bids: Path, tmp_path: Path, continued: list[list[str]]
) -> None:
    image = tmp_path / "fmriprep.sif"
    image.touch()
    out = tmp_path / "out"
    derivatives = tmp_path / "derivatives"
    arguments = [str(bids), str(out), "participant", "--apptainer", str(image)]
    assert fmriprep_cli.main([*arguments, "--fmriprep-dir", str(derivatives)]) == 0
    called = _called(engines)
    assert called[:2] == ["run", "--cleanenv"]
    assert f"{bids}:/data:ro" in called and f"{derivatives}:/out" in called
    inside = called[called.index(str(image)) + 1 :]
    assert inside[:5] == ["/data", "/out", "participant", "-w", "/scratch"]
    assert inside[-2:] == ["--output-spaces", "MNI152NLin6Asym:res-2"]
    assert continued[0][-1] == f"fmriprep={derivatives}"


def test_a_failing_fmriprep_stops_with_its_own_code(
    engines: Path, bids: Path, continued: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    (engines / "fail").touch()
    out = bids.parent / "out"
    assert fmriprep_cli.main([str(bids), str(out), "participant"]) == 7
    said = capfd.readouterr().err
    assert "exit code 7" in said and "crash-1.txt" in said
    assert not continued


def test_missing_programs_and_files_are_said(
    bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fmriprep_cli.main([str(bids), "out", "participant"]) == 2
    assert "pip install fmriprep-docker" in capfd.readouterr().err
    assert fmriprep_cli.main([str(bids), "out", "participant", "--apptainer", "a.sif"]) == 2
    assert "on the PATH" in capfd.readouterr().err
    assert fmriprep_cli.main(["nowhere", "out", "participant"]) == 2
    assert "nowhere is not a folder" in capfd.readouterr().err
