"""The command line: what is accepted, what ends with exit code 2 and one line, how fast help is."""

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from brainlm_bids.app import machine
from brainlm_bids.commands import bids_app as cli
from brainlm_bids.errors import UserError
from brainlm_bids.settings import TABLE, Settings
from brainlm_bids.table import SECTIONS


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    folder = tmp_path / "bids"
    folder.mkdir()
    return folder


def _parse(bids: Path, *arguments: str) -> Settings:
    out = bids.parent / "out"
    settings = cli.parse([str(bids), str(out), "participant", *arguments])
    assert isinstance(settings, Settings)
    return settings


def _exit_code(*arguments: str) -> int:
    try:
        return cli.main(list(arguments))
    except SystemExit as leaving:
        assert isinstance(leaving.code, int)
        return leaving.code


def processor_seconds() -> float:
    """Of ended child processes; unlike the clock, it does not count what others compute."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from brainlm_bids.commands.bids_app import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as leaving:\n    assert leaving.code == 0\n"
        "heavy = {'numpy', 'torch', 'nipype', 'bids', 'nibabel', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    seconds = []
    for _ in range(3):
        start = processor_seconds()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        seconds.append(processor_seconds() - start)
        assert done.returncode == 0, done.stderr
        assert "--participant-label" in done.stdout
    assert min(seconds) < 0.5


def test_labels_lose_their_prefix_and_repeats(bids: Path) -> None:
    settings = _parse(bids, "--participant-label", "sub-01", "02", "01", "--session-label", "ses-a")
    assert settings.participant_label == ("01", "02")
    assert settings.session_label == ("a",)


@pytest.mark.parametrize("flag", ["--participant-label", "--participant_label"])
def test_both_spellings(bids: Path, flag: str) -> None:
    assert _parse(bids, flag, "01").participant_label == ("01",)


def test_every_flag_has_both_spellings() -> None:
    options = {option for action in cli.build_parser()._actions for option in action.option_strings}
    dashed = {option for option in options if "-" in option[2:]}
    assert len(dashed) > 20
    assert {"--" + option[2:].replace("-", "_") for option in dashed} <= options


def test_repeated_flags_add_up(bids: Path) -> None:
    settings = _parse(bids, "--model", "random:tiny", "--model", "13M", "111M")
    assert settings.model == ("random:tiny", "13M", "111M")


def test_defaults(bids: Path) -> None:
    settings = _parse(bids)
    assert settings.model == ("111M",)
    assert (settings.high_pass, settings.denoise, settings.random_seed) == (100.0, "nonaggr", 42)
    assert settings.nprocs >= 1
    assert settings.work_dir.is_absolute()
    assert not settings.offline


def test_command_line_wins_over_the_file(bids: Path) -> None:
    config = bids.parent / "settings.toml"
    config.write_text("high_pass = 128\nlow_pass = 10\nmodel = ['13M']\nsave_bold = true\n")
    settings = _parse(bids, "--config-file", str(config), "--high-pass", "90", "--model", "650M")
    assert (settings.high_pass, settings.low_pass) == (90.0, 10.0)
    assert settings.model == ("650M",)
    assert settings.save_bold
    # even where the command line repeats the default
    assert _parse(bids, "--config-file", str(config), "--high-pass", "100").high_pass == 100.0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--high-pass", "0"],
        ["--high-pass", "nan"],
        ["--high-pass", "inf"],
        ["--mask-ratio", "1"],
        ["--dummy-scans", "-1"],
        ["--dummy-scans", "1.5"],
        ["--nprocs", "0"],
        ["--denoise", "aggressive"],
        ["--device", "tpu"],
        ["--no-such-flag"],
        ["--participant", "01"],  # no abbreviations: they change their meaning with new flags
        ["--precision", "bf16"],  # not built yet, so not accepted
        ["--bids-filter-file", "/no/such/file.json"],
        ["--scaling-stats", "/no/such/file.tsv"],
        ["--use-plugin", "/no/such/file.yml"],
        ["--config-file", "/no/such/file.toml"],
        ["--model", "none", "13M"],
    ],
)
def test_bad_flags_end_with_2_and_one_line(
    bids: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert _exit_code(str(bids), str(bids.parent / "out"), "participant", *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("brainlm-bids: ")
    assert said.count("\n") == 1
    assert not (bids.parent / "out").exists()


def test_bad_paths_end_with_2(bids: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(bids.parent / "out")
    assert _exit_code() == 2
    assert _exit_code(str(bids), out) == 2
    assert _exit_code(str(bids), out, "group") == 2
    capsys.readouterr()
    assert _exit_code(str(bids / "nowhere"), out, "participant") == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert _exit_code(str(bids), str(bids), "participant") == 2
    assert "OUTPUT_DIR is BIDS_DIR" in capsys.readouterr().err
    assert _exit_code(str(bids), out, "participant", "-w", str(bids / "work")) == 2
    assert "is in BIDS_DIR" in capsys.readouterr().err


def test_output_inside_the_data_set_is_told_by_its_real_path(bids: Path) -> None:
    link = bids.parent / "link"
    link.symlink_to(bids)
    with pytest.raises(UserError, match="OUTPUT_DIR is BIDS_DIR"):
        cli.parse([str(bids), str(link), "participant"])
    with pytest.raises(UserError, match="is in BIDS_DIR"):
        _parse(bids, "-w", str(link / "work"))


def test_links_keep_their_names(bids: Path) -> None:
    """DataLad's data sets are links into an object store whose names are no BIDS names."""
    link = bids.parent / "dataset"
    link.symlink_to(bids)
    settings = cli.parse([str(link), str(bids.parent / "out"), "participant"])
    assert settings.bids_dir == link


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--high-pas", "100"], "unknown argument --high-pas; did you mean --high-pass?"),
        (["--low_pas=3"], "unknown argument --low_pas; did you mean --low-pass?"),
        (["--high-pass", "0.01"], "--high-pass: 0.01? The unit is seconds: 100 is 0.01 Hz"),
        (["-w"], "--work-dir: expected one argument"),
        (["--high-pass", "10", "--low-pass", "100"], "--low-pass 100 s is not a shorter period"),
        (["--target", "age"], "--target has an effect at group level only"),
        (["--permutations", "0"], "--permutations has an effect at group level only"),
        (["--derivatives", "xcp=/data"], "--derivatives: 'xcp=/data' is not fmriprep=PATH"),
        (["-d", "fmriprep=/no/such"], "--derivatives /no/such: there is no such folder"),
        (["--timeseries", "/no/such"], "--timeseries /no/such: there is no such file"),
    ],
)
def test_messages_say_what_was_probably_meant(
    bids: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert _exit_code(str(bids), str(bids.parent / "out"), "participant", *arguments) == 2
    assert message in capsys.readouterr().err


def test_memory_that_the_machine_does_not_have_is_refused(
    bids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 16_700_000_000)
    with pytest.raises(UserError, match=r"--mem 8000: .* has 16.7 GB; .* 8 is 8000 MB"):
        _parse(bids, "--mem", "8000")
    with pytest.raises(UserError, match=r"--mem 64: .* has 16.7 GB; the unit is GB$"):
        _parse(bids, "--mem", "64G")
    assert _parse(bids, "--mem", "8000MB").mem == 8
    assert _parse(bids, "--mem", "16").mem == 16
    plugin = bids.parent / "slurm.yml"
    plugin.write_text("plugin: SLURM")
    assert _parse(bids, "--mem", "8000", "--use-plugin", str(plugin)).mem == 8000


def test_aliases_of_fmriprep(bids: Path) -> None:
    plugin = bids.parent / "plugin.yml"
    plugin.write_text("plugin: Linear")
    settings = _parse(bids, "--mem-mb", "500", "--nipype-plugin-file", str(plugin))
    assert (settings.mem, settings.use_plugin) == (0.5, plugin)
    assert _parse(bids, "--mem_mb", "1000MB").mem == 1.0
    for flag in ("--nthreads", "--n-cpus", "--n_cpus"):
        assert _parse(bids, flag, "3").nprocs == 3


def test_help_shows_the_default_of_every_setting() -> None:
    text = " ".join(cli.build_parser().format_help().split())
    for row in TABLE.values():
        assert " ".join(row.help.split()) in text, row.name
        default = row.shown_default() if row.group in SECTIONS else ""
        assert not default or f"{row.help} (default: {default})" in text, row.name
    assert "(default: 100 s)" in text and "(default: 0.5 mm)" in text
    assert "_" not in "".join(word for word in text.split() if word.startswith("--"))


def test_a_file_of_settings_is_checked_as_the_command_line_is(bids: Path) -> None:
    config = bids.parent / "settings.toml"
    for text, message in (
        ("high_pass = 0.01", "100 is 0.01 Hz"),
        ("timeseries = ['no.tsv']", "there is no such file"),
        ("derivatives = ['fmriprep=no']", "there is no such folder"),
        ("low_pass = 200", "no frequency would pass"),
    ):
        config.write_text(text)
        with pytest.raises(UserError, match=message):
            _parse(bids, "--config-file", str(config))
    config.write_text("high_pass = '0.02Hz'\nparticipant_label = ['sub-01', '01']\n")
    settings = _parse(bids, "--config-file", str(config))
    assert (settings.high_pass, settings.participant_label) == (50.0, ("01",))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code("--version") == 0
    assert capsys.readouterr().out.startswith("brainlm-bids ")


def test_relative_paths_are_those_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "stats.tsv").touch()
    monkeypatch.chdir(tmp_path)
    settings = cli.parse(["data", "out", "participant", "--scaling-stats", "stats.tsv"])
    assert settings.scaling_stats == tmp_path / "stats.tsv"
    assert settings.work_dir == tmp_path / "work"


def test_models_that_cannot_run_are_refused_before_anything_is_computed(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from brainlm_bids.app.resources import check_models
    from brainlm_bids.resources import find_model

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = Settings(Path("in"), Path("out"), Path("work"))
    micro = find_model(str(shared / "golden" / "brainlm_micro"), offline=True)
    tiny = find_model(str(shared / "golden" / "brainlm_tiny"), offline=True)
    assert micro is not None and tiny is not None
    check_models([tiny], settings)
    with pytest.raises(UserError, match=r"brainlm_micro.config.json: a model of 16 parcels"):
        check_models([micro], settings)
    with pytest.raises(UserError, match=r"window of .* has 200 volumes"):
        check_models([tiny], replace(settings, window_stride=201))
    with pytest.raises(UserError, match="no CUDA device"):
        check_models([tiny], replace(settings, device="cuda"))


def test_a_checkpoint_that_cannot_be_loaded_is_found_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from benchmarks.faults import checkpoint_bombs
    from brainlm_bids.app import computing, participant

    monkeypatch.setattr(computing, "execute", lambda *_, **__: pytest.fail("it was computed"))
    series = tmp_path / "sub-01_task-rest_timeseries.npy"
    np.save(series, np.random.default_rng(0).normal(size=(60, 424)))
    model = checkpoint_bombs.safetensors(tmp_path / "model")
    arguments = ["--timeseries", str(series), "--timeseries-tr", "2", "--model", str(model)]
    arguments += ["--atlas", "A424approx"]
    settings = cli.parse(
        [str(tmp_path), str(tmp_path / "out"), "participant", *arguments, "--offline"]
    )
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"model.safetensors: damaged or truncated"):
        participant.run(settings)
    assert not list((tmp_path / "out").glob("sub-*"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--datalad-drop"], "--datalad-drop needs --datalad-get"),
        (["--datalad-get"], "--datalad-get: the program datalad is not installed"),
        (["--datalad-get", "--timeseries", "x.npy"], "get the files of --timeseries before"),
    ],
)
def test_datalad_is_asked_for_in_vain(
    flags: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=said):
        cli.parse([str(tmp_path / "data"), str(tmp_path / "out"), "participant", *flags])
