"""Settings: TOML in and out, what is refused, and what a configuration's hash depends on."""

from pathlib import Path
from typing import Any

import pytest

from brainlm_bids.errors import UserError
from brainlm_bids.settings import (
    MODEL_FIELDS,
    PREPROCESSING_FIELDS,
    Settings,
    configuration_hash,
    read_toml,
    replace,
)

SETTINGS = Settings(Path("/data/bids"), Path("/data/out"), Path("/scratch/work"))


def _toml(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_toml_round_trip(tmp_path: Path) -> None:
    """Every kind of field comes back as it was: paths, numbers, tuples, flags, and those unset."""
    settings = replace(
        SETTINGS,
        participant_label=("01", "02"),
        bids_filter_file=Path('/data/a "quoted" name.json'),
        dummy_scans=3,
        high_pass=128.0,
        model=("13M", "random:13M"),
        mask_ratio=(0.5, 0.75),
        save_bold=True,
        mem=7.5,
    )
    assert Settings(**read_toml(_toml(tmp_path, settings.to_toml()))) == settings
    assert Settings(**read_toml(_toml(tmp_path, SETTINGS.to_toml()))) == SETTINGS


def test_whole_numbers_are_taken_where_a_fraction_is_expected(tmp_path: Path) -> None:
    values = read_toml(_toml(tmp_path, "high_pass = 128\nmask_ratio = [0.5]\n"))
    assert values == {"high_pass": 128.0, "mask_ratio": (0.5,)}
    assert isinstance(values["high_pass"], float)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("high_pas = 100\n", "unknown setting 'high_pas'"),
        ("high-pass = 100\n", "unknown setting 'high-pass'"),
        ("high_pass = \n", "not valid TOML"),
        ("model = '13M'\n", "expected a list"),
        ("save_bold = 1\n", "wrong type"),
        ("random_seed = '42'\n", "wrong type"),
        ("nprocs = true\n", "wrong type"),
        ("high_pass = true\n", "wrong type"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = _toml(tmp_path, text)
    with pytest.raises(UserError, match=said) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_toml(tmp_path / "no.toml")


def test_hash_follows_what_numbers_depend_on() -> None:
    names = PREPROCESSING_FIELDS + MODEL_FIELDS
    base = configuration_hash(SETTINGS.subset(names))
    changes: list[dict[str, Any]]
    changes = [{"high_pass": 128.0}, {"denoise": "aggr"}, {"mask_ratio": (0.5,)}]
    for change in changes:
        assert configuration_hash(replace(SETTINGS, **change).subset(names)) != base
    changes = [{"nprocs": 8}, {"work_dir": Path("/other")}, {"verbose": 2}, {"mem": 4.0}]
    for change in changes:
        assert configuration_hash(replace(SETTINGS, **change).subset(names)) == base
