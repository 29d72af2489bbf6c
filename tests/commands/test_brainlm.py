"""The `brainlm` command: exit codes, one-line errors, and flags that reach the functions."""

import argparse
import dataclasses
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brainlm_bids import __version__, phantom, resources
from brainlm_bids.commands import brainlm as tools
from brainlm_bids.commands.parser import given_values
from brainlm_bids.errors import UserError
from brainlm_bids.phantom import acquisition
from brainlm_bids.settings import TABLE


def processor_seconds() -> float:
    """Of ended child processes; unlike the clock, it does not count what others compute."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_and_version_are_quick() -> None:
    for flag, said in (("--help", "phantom"), ("--version", __version__)):
        command = [sys.executable, "-m", "brainlm_bids.commands.brainlm", flag]
        seconds = []
        for _ in range(3):
            started = processor_seconds()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds.append(processor_seconds() - started)
        assert said in done.stdout
        assert min(seconds) < 0.5


def test_words_of_fetch_are_those_of_resources() -> None:
    assert set(tools.FETCHABLE) == set(resources.FETCHABLE)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fetch"],
        ["fetch", "demo"],
        ["phantom"],
        ["phantom", "out", "--subjects", "0"],
        ["phantom", "out", "--sessions", "-1"],
        ["phantom", "out", "--tr", "nan"],
        ["phantom", "out", "--voxel", "-3"],
        ["phantom-score", "one"],
        ["pretrain", "out"],
        ["pretrain", "out", "run", "--size", "14M"],
        ["pretrain", "out", "run", "--mask-ratio", "1"],
        ["pretrain", "out", "run", "--batch", "0"],
        ["pretrain", "out", "run", "--warm-up", "1.5"],
        ["pretrain", "out", "run", "--size", "tiny", "--device", "tpu"],
        ["finetune", "13M", "out", "run", "--target", "age", "--dropout", "1"],
        ["finetune", "13M", "out", "run", "--folds", "2", "--split"],
        ["forecast", "out", "results", "--order", "-1"],
        ["perturb", "out", "results", "--lesion"],
        ["perturb", "out", "results", "--parcels", "1", "--scale", "nan"],
        ["perturb", "out", "results", "--parcels", "R_V1", "--lesion", "--scale", "2"],
        ["unknown"],
    ],
)
def test_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tools.main(arguments)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("brainlm") and message.endswith(" --help)\n")
    assert message.count("\n") == 1


def test_user_error_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(what: list[str], home: Path | None) -> None:
        raise UserError(f"no network for {what}")

    monkeypatch.setattr(resources, "fetch", refuse)
    assert tools.main(["fetch", "atlas"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "brainlm: no network for ['atlas']\n" and printed.out == ""


def test_a_command_that_one_had_to_wait_for_tells_what_it_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resources, "fetch", lambda what, home: None)
    assert tools.main(["fetch", "atlas"]) == 0 and capsys.readouterr().err == ""
    monkeypatch.setattr(tools, "WAITED", 0.0)
    assert tools.main(["fetch", "atlas"]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(r"brainlm: \d+ s, at most [\d.]+ GB of memory\n", printed.err)
    assert printed.out == ""
    monkeypatch.setenv("RANK", "1")  # one of several processes speaks
    assert tools.main(["fetch", "atlas"]) == 0 and capsys.readouterr().err == ""


def test_fetch_passes_words_and_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        resources, "fetch", lambda what, home: seen.update(what=list(what), home=home)
    )
    assert tools.main(["fetch", "atlas", "13M", "--home", str(tmp_path)]) == 0
    assert seen == {"what": ["atlas", "13M"], "home": tmp_path}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrian", "out"], "unknown command 'pretrian'; did you mean pretrain?"),
        (["forecast", "out", "to", "--orgins", "3"], "--orgins; did you mean --origins?"),
        (["fetch", "12M"], "'12M' is none of atlas, cifti-atlas, template, 111M, 650M, 13M"),
        (["forecast", "out", "to", "--tr", "735"], "--tr: 735? The unit is seconds: 0.735 is"),
    ],
)
def test_messages_say_what_was_probably_meant(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tools.main(arguments)
    assert message in capsys.readouterr().err


REQUIRED = {
    "pretrain": ["out", "run"],
    "finetune": ["13M", "out", "run"],
    "forecast": ["out", "results"],
    "perturb": ["out", "results", "--parcels", "R_V1", "--lesion"],
}
SIMULATE = ["simulate-cohort", "out"]


def _options(command: str) -> Any:
    from brainlm_bids.experiments import forecast, perturb
    from brainlm_bids.training import finetune_start, setup

    return {
        "pretrain": setup.PretrainOptions,
        "finetune": finetune_start.FinetuneOptions,
        "forecast": forecast.ForecastOptions,
        "perturb": perturb.PerturbationOptions,
    }[command]


@pytest.mark.parametrize("command", REQUIRED)
def test_defaults_of_the_commands_are_those_of_their_functions(command: str) -> None:
    """What the help shows is what the function does when it is called without a value."""
    args = tools.build_parser().parse_args([command, *REQUIRED[command]])
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(_options(command))
        if field.default is not dataclasses.MISSING
    }
    given = given_values(args)
    assert {k: v for k, v in given.items() if k in defaults and k != "lesion"} == {
        k: v for k, v in defaults.items() if k in given and k != "lesion"
    }


def test_defaults_of_simulate_cohort_are_those_of_its_options() -> None:
    from brainlm_bids.phantom.cohort import CohortOptions

    given = given_values(tools.build_parser().parse_args(SIMULATE))
    assert {k: v for k, v in given.items() if k != "out"} == dataclasses.asdict(CohortOptions())


@pytest.mark.parametrize("command", REQUIRED)
def test_settings_shared_with_the_app_have_its_defaults_and_bounds(command: str) -> None:
    parser = tools.build_parser()._subparsers._group_actions[0].choices[command]  # type: ignore
    fields = {field.name: field for field in dataclasses.fields(_options(command))}
    shared = [action for action in parser._actions if action.default == argparse.SUPPRESS]
    shared = [action for action in shared if action.dest != "help"]
    assert {"device", "precision", "seed"} <= {action.dest for action in shared}
    for action in shared:
        row = TABLE["random_seed" if action.dest == "seed" else action.dest]
        assert fields[action.dest].default == row.default, action.dest
        assert f"(default: {row.shown_default()})" in action.help or row.kind is bool
        assert row.flag in action.option_strings


def test_values_of_shared_settings_reach_the_function() -> None:
    arguments = ["forecast", "out", "results", "--participant-label", "sub-01", "--seed", "3"]
    arguments += ["--device", "cpu", "--tr", "0.5Hz", "--model", "13M", "--model", "demo"]
    given = given_values(tools.build_parser().parse_args(arguments))
    made = _options("forecast")(**given)
    assert (made.participant_label, made.seed, made.device) == (("01",), 3, "cpu")
    assert (made.tr, made.model, made.precision) == (2.0, ("13M", "demo"), "auto")


def test_phantom_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def write(out: Path, **keywords: Any) -> Path:
        seen.update(keywords, out=out)
        return out

    monkeypatch.setattr(phantom, "write_phantom", write)
    flags = {
        "subjects": 3,
        "sessions": 2,
        "runs": 4,
        "volumes": 50,
        "tr": 0.8,
        "voxel": 6,
        "seed": 7,
    }
    numbers = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert tools.main(["phantom", str(tmp_path), *numbers, "--no-spin-history"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"
    expected = {
        "n_subjects": 3,
        "n_sessions": 2,
        "n_runs": 4,
        "n_volumes": 50,
        "tr": 0.8,
        "voxel": 6.0,
        "seed": 7,
        "motion": "low",
        "spin_history": False,
        "drift": True,
    }
    assert {key: seen[key] for key in expected} == expected

    assert tools.main(["phantom", str(tmp_path), "--motion", "head.par"]) == 0
    assert seen["motion"] == Path("head.par")
    assert tools.main(["phantom", str(tmp_path), "--motion", "high"]) == 0
    assert seen["motion"] == "high"


def test_phantom_defaults_and_flags_follow_the_function(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import inspect

    seen: dict[str, Any] = {}
    signature = inspect.signature(phantom.write_phantom).parameters
    monkeypatch.setattr(phantom, "write_phantom", lambda out, **keywords: seen.update(keywords))
    tools.main(["phantom", str(tmp_path)])
    assert seen == {name: p.default for name, p in signature.items() if name != "out"}


def test_phantom_of_a_scanner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(phantom, "write_phantom", lambda out, **keywords: seen.update(keywords))
    flags = ["--distortion", "8", "--phase-encoding", "i-", "--fieldmaps", "phasediff", "pair"]
    flags += ["--sbref", "--lesion", "--slices", "ascending", "--multiband", "4"]
    flags += ["--echoes", "12ms", "0.028"]
    assert tools.main(["phantom", str(tmp_path), *flags]) == 0
    wanted = {"distortion": 8.0, "phase_encoding": "i-", "fieldmaps": ("phasediff", "pair")}
    wanted |= {"sbref": True, "lesion": True, "slices": "ascending", "multiband": 4}
    wanted |= {"echoes": (0.012, 0.028)}
    assert {key: seen[key] for key in wanted} == wanted
    assert tools.FIELD_MAP_KINDS == acquisition.FIELD_MAP_KINDS
    assert tools.SLICE_ORDERS == acquisition.SLICE_ORDERS


def test_score_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Path] = []

    def recovered(out_derivatives: Path, data: Path) -> list[dict[str, Any]]:
        seen.extend([out_derivatives, data])
        return [{"run": "sub-01_task-rest", "motion_error_mm": 0.04321, "series_r": 0.9}]

    monkeypatch.setattr(phantom, "recovered", recovered)
    assert tools.main(["phantom-score", "data", "out"]) == 0
    assert seen == [Path("out").absolute(), Path("data").absolute()]
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "motion_error_mm", "series_r"]
    assert row.split() == ["sub-01_task-rest", "0.043", "0.900"]

    monkeypatch.setattr(phantom, "recovered", lambda *_: [])
    assert tools.main(["phantom-score", "data", "out"]) == 1
    assert "no run" in capsys.readouterr().err


@pytest.mark.parametrize(("world", "code"), [("2", 1), ("1", -signal.SIGABRT)])
def test_one_of_several_processes_leaves_without_torchs_last_words(
    tmp_path: Path, world: str, code: int
) -> None:
    """What goes wrong when the interpreter goes down is no failure of what is done by then."""
    program = (
        "import atexit, os, sys, torch\n"
        "from brainlm_bids.commands import brainlm as tools\n"
        "atexit.register(os.abort)\n"
        "sys.exit(tools.main(['pretrain', '/nonexistent', sys.argv[1], '--size', 'tiny']))"
    )
    environment = {**os.environ, "WORLD_SIZE": world}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "run"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert "brainlm: /nonexistent" in done.stderr
