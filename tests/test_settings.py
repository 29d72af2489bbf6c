"""The table of settings: TOML in and out, what is refused, and what a configuration depends on."""

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest

from brainlm_bids import settings as module
from brainlm_bids.errors import UserError
from brainlm_bids.settings import TABLE, Settings, configuration_hash, read_toml
from brainlm_bids.table import (
    CHANGES,
    COHORT,
    MODEL,
    NOTHING,
    POSITIONAL,
    SERIES,
    Setting,
    rows_of,
    setting,
)
from brainlm_bids.values import Bounds

SETTINGS = Settings(Path("/data/bids"), Path("/data/out"), Path("/scratch/work"))
SOURCE = Path(str(module.__file__)).read_text()


def _toml(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


CONVERTED = {
    "harmonize": "combat:site",
    "derivatives": "fmriprep=/data/fmriprep",
    "assume_orientation": "LPS",
}


def another_value(row: Setting) -> Any:
    """A value that a setting may have and that is not its default."""
    items: dict[type, Any] = {
        bool: not row.default,
        int: 7,
        float: 0.25 if row.bounds and Bounds(row.bounds).high <= 1 else 12.5,
        str: CONVERTED.get(row.name, "other"),
        Path: Path("/data/other"),
    }
    others = [choice for choice in row.choices if choice not in (row.default or ())]
    allowed = others or row.choices  # a default may have all choices: then one of them alone
    item = allowed[-1] if allowed else items[row.kind]
    return (item,) if row.several else item


# --- the table


def _import_with(tmp_path: Path, old: str, new: str) -> None:
    """Import the module of settings with one place changed."""
    assert SOURCE.count(old) == 1
    path = tmp_path / "changed_settings.py"
    path.write_text(SOURCE.replace(old, new))
    runpy.run_path(str(path))


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("input_gain: float = setting(1.0, BRAINLM, help='a factor')", TypeError),
        ("input_gain: float = 1.0", TypeError),
        ("input_gain: float = setting(1.0, BRAINLM, 'numbers', help='a factor')", ValueError),
        ("input_gain: float = setting(1.0, BRAINLM, (), help='a factor')", ValueError),
        ("input_gain: float = setting(1.0, 'BrainML', NOTHING, help='a factor')", ValueError),
    ],
)
def test_a_row_that_does_not_say_what_it_changes_does_not_import(
    tmp_path: Path, row: str, error: type[Exception]
) -> None:
    start = SOURCE.index("    input_gain: float")
    old = SOURCE[start : SOURCE.index("    pooling: str", start)]
    _import_with(tmp_path, old, old)
    with pytest.raises(error):
        _import_with(tmp_path, old, f"    {row}\n")


def test_every_row_is_complete() -> None:
    assert list(TABLE) == [field.name for field in dataclasses.fields(Settings)]
    for row in TABLE.values():
        assert row.help and not row.help.endswith(".") and row.help[0] != " ", row.name
        assert set(row.changes) <= set(CHANGES)
        if row.kind is not bool and not row.counted and row.group != POSITIONAL:
            assert row.shown_default(), row.name


def test_defaults_pass_the_checks_of_their_rows() -> None:
    for row in TABLE.values():
        items = row.default if row.several else (row.default,)
        for item in items:
            if item is not None and row.kind is not bool:
                assert row.read(str(item)) in (item, Path(str(item)).absolute())


def test_a_new_row_is_all_that_a_new_setting_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Help, command line, TOML with its checks, and the configuration come from the row."""
    from brainlm_bids.commands.bids_app import build_parser

    @dataclasses.dataclass(frozen=True)
    class More(Settings):
        echoes: int = setting(
            3, "preprocessing", SERIES, bounds="[1, 9]", help="number of echoes to combine"
        )

    table = rows_of(More)
    monkeypatch.setattr(module, "TABLE", table)
    parser = build_parser()
    text = " ".join(parser.format_help().split())
    assert "--echoes N number of echoes to combine (default: 3)" in text
    assert parser.parse_args(["in", "out", "participant", "--echoes", "2"]).echoes == 2
    assert read_toml(_toml(tmp_path, "echoes = 2")) == {"echoes": 2}
    with pytest.raises(UserError, match=r"echoes: '10' is not a whole number from 1 to 9"):
        read_toml(_toml(tmp_path, "echoes = 10"))
    settings = More(Path("in"), Path("out"), echoes=2)
    assert settings.changing(SERIES)["echoes"] == 2
    assert "echoes" not in settings.changing(MODEL)


# --- TOML


def test_every_setting_survives_toml(tmp_path: Path) -> None:
    for name, row in TABLE.items():
        settings = dataclasses.replace(SETTINGS, **{name: another_value(row)})
        assert settings != SETTINGS, name
        assert Settings(**read_toml(_toml(tmp_path, settings.to_toml()))) == settings, name
    assert Settings(**read_toml(_toml(tmp_path, SETTINGS.to_toml()))) == SETTINGS


def test_names_with_quotes_survive_toml(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, phenotype=Path('/data/a "quoted" name.tsv'))
    assert Settings(**read_toml(_toml(tmp_path, settings.to_toml()))) == settings


def test_whole_numbers_are_accepted_where_a_fraction_is_expected(tmp_path: Path) -> None:
    values = read_toml(_toml(tmp_path, "high_pass = 128\nmask_ratio = [0.5]\n"))
    assert values == {"high_pass": 128.0, "mask_ratio": (0.5,)}
    assert isinstance(values["high_pass"], float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("high_pas = 100\n", "unknown setting 'high_pas'; did you mean high_pass?"),
        ("high-pass = 100\n", "unknown setting 'high-pass'; did you mean high_pass?"),
        ("high_pass = \n", "not valid TOML"),
        ("model = '13M'\n", "a list is expected"),
        ("save_bold = 1\n", "wrong type: true or false is expected"),
        ("random_seed = '42'\n", "wrong type: a whole number is expected"),
        ("nprocs = true\n", "wrong type"),
        ("high_pass = true\n", "wrong type: a number of seconds is expected"),
        ("phenotype = 3\n", "wrong type: a text is expected"),
        ("mask_ratio = [0.5, '0.7']\n", "wrong type"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = _toml(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_toml(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("high_pass", 0.01),
        ("high_pass", -1.0),
        ("mask_ratio", 1.0),
        ("mask_ratio", 0),
        ("min_coverage", 1.5),
        ("nprocs", 0),
        ("dummy_scans", -1),
        ("timeseries_tr", 735.0),
        ("ignore", "fieldmap"),
        ("assume_orientation", "RL"),
        ("assume_orientation", "LLA"),
        ("assume_orientation", "left"),
        ("fd_spike_threshold", 0.0),
        ("pooling", "median"),
        ("device", "tpu"),
        ("denoise", "confounds:all"),
        ("derivatives", "conn=/data"),
        ("analysis_level", "cohort"),
    ],
)
def test_toml_has_the_checks_of_the_command_line(tmp_path: Path, name: str, value: Any) -> None:
    row = TABLE[name]
    literal = f"[{value!r}]" if row.several else repr(value)
    with pytest.raises(UserError) as by_text:
        row.read(str(value))
    with pytest.raises(UserError) as by_file:
        read_toml(_toml(tmp_path, f"{name} = {literal}\n"))
    message = str(by_text.value).replace(".0", "")
    assert str(by_file.value).replace(".0", "").endswith(f"{name}: {message}")


def test_a_readout_time_is_a_number_of_seconds_or_estimated(tmp_path: Path) -> None:
    row = TABLE["fallback_total_readout_time"]
    assert [row.read(text) for text in ("estimated", "0.04", "40ms")] == ["estimated", 0.04, 0.04]
    for literal in ("0.04", '"0.04"'):
        values = read_toml(_toml(tmp_path, f"fallback_total_readout_time = {literal}\n"))
        assert values == {"fallback_total_readout_time": 0.04}
    with pytest.raises(UserError, match=r"40 ms, or estimated"):
        row.read("40")
    with pytest.raises(UserError, match=r"'guess' is not a number of seconds .*, or estimated"):
        row.read("guess")
    with pytest.raises(UserError, match=r"40 ms"):
        read_toml(_toml(tmp_path, "fallback_total_readout_time = 40.0\n"))


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    for value in ("nan", "inf", "-inf"):
        with pytest.raises(UserError, match="not a number"):
            read_toml(_toml(tmp_path, f"fd_spike_threshold = {value}\n"))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_toml(tmp_path / "no.toml")


# --- what a configuration depends on


@pytest.mark.parametrize("name", TABLE)
def test_a_setting_changes_the_configuration_of_the_stages_that_it_names(name: str) -> None:
    row = TABLE[name]
    changed = dataclasses.replace(SETTINGS, **{name: another_value(row)})
    for stage in (SERIES, MODEL, COHORT):
        before = configuration_hash(SETTINGS.changing(stage))
        after = configuration_hash(changed.changing(stage))
        assert (before != after) == (stage in row.changes and not row.by_content), stage


def test_configurations_of_earlier_outputs_keep_their_names() -> None:
    """Outputs are complete under a hash of these values: a new row names new ones."""
    assert set(SETTINGS.changing(SERIES)) == {
        *("dummy_scans", "fd_spike_threshold", "dvars_spike_threshold", "high_pass", "low_pass"),
        *("max_bad_volumes", "min_parcel_coverage"),
        *("denoise", "model_tr", "save_bold", "save_parcels", "random_seed"),
        *("assume_orientation", "normalization", "ignore", "slice_timing", "me_denoise"),
    }
    assert set(SETTINGS.changing(MODEL)) == {
        *("mask_ratio", "input_gain", "pooling", "window_stride", "token_orders", "save_tokens"),
        *("precision", "random_seed"),
    }
    assert set(SETTINGS.changing(COHORT)) == {
        *("model_tr", "random_seed", "scaling_volumes", "permutations")
    }
    assert SETTINGS.changing(NOTHING).keys() >= {"nprocs", "mem", "verbose", "device", "offline"}
