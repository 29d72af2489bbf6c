"""The records of a call: written when it begins, read back for the reports."""

from datetime import datetime
from pathlib import Path

import pytest

from brainlm_bids import __version__
from brainlm_bids.bids.calls import Call, read_call, record_call, started
from brainlm_bids.commands import bids_app
from brainlm_bids.settings import Settings

NAME = "20260102-030405_0123abcd"


def test_a_call_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    settings = Settings(bids_dir=tmp_path / "a b", output_dir=tmp_path, high_pass=128.0)
    words = ["brainlm-bids", str(settings.bids_dir), "out", "participant", "--high-pass", "128s"]
    record_call(tmp_path, NAME, words, settings.to_toml())
    call = read_call(tmp_path, NAME)
    assert call.command == f"brainlm-bids '{settings.bids_dir}' out participant --high-pass 128s"
    assert call.version == __version__ and call.settings["high_pass"] == 128.0
    began = datetime.fromisoformat(call.started)
    assert began.utcoffset() is not None
    assert began.replace(tzinfo=None) == datetime(2026, 1, 2, 3, 4, 5) == started(NAME)
    assert bids_app.read_toml(tmp_path / "logs" / f"{NAME}_config.toml")["high_pass"] == 128.0


def test_folders_of_earlier_versions_and_damaged_files_leave_fields_empty(tmp_path: Path) -> None:
    assert read_call(tmp_path, NAME) == Call(NAME, started="2026-01-02 03:04:05")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / f"{NAME}_call.json").write_text("[]")
    (logs / f"{NAME}_config.toml").write_text("high_pass = ")
    assert read_call(tmp_path, NAME) == Call(NAME, started="2026-01-02 03:04:05")
    assert read_call(tmp_path, "of_somebody_else").started == ""


def test_a_call_from_python_has_no_command(tmp_path: Path) -> None:
    record_call(tmp_path, NAME, (), "")
    assert read_call(tmp_path, NAME).command == ""


def test_the_command_reaches_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brainlm_bids.app import participant

    seen: list[object] = []

    def run(settings: Settings, command: object) -> int:
        seen.append(command)
        return 0

    monkeypatch.setattr(participant, "run", run)
    words = [str(tmp_path), str(tmp_path / "out"), "participant", "--dry-run"]
    assert bids_app.main(words) == 0
    assert seen == [["brainlm-bids", *words]]
