"""Our modules against stored outputs of the original code, and what loading refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from brainlm_bids.commands import parity

pytestmark = pytest.mark.shared
FOLDERS = ("brainlm_micro", "brainlm_tiny", "vitmae_tiny_p16")


@pytest.mark.parametrize("name", FOLDERS)
def test_every_case_agrees_with_the_original(shared: Path, name: str) -> None:
    folder = shared / "golden" / name
    cases = json.loads((folder / "meta.json").read_text())["cases"]
    checks = list(parity.compare_folder(folder))
    assert {check.case for check in checks} == set(cases)
    assert [check for check in checks if not check.ok] == []
    assert [check for check in checks if np.isnan(check.difference)] == []  # all were compared


def test_parity_notices_a_changed_weight(shared: Path, tmp_path: Path) -> None:
    folder = _copy(shared / "golden" / "brainlm_micro", tmp_path)
    state = load_file(folder / "model.safetensors")
    state["vit.encoder.layer.0.attention.self.conv.weight"][0, 0, 32, 0] += 0.01
    save_file(state, folder / "model.safetensors")
    assert parity.main([str(folder)]) == 1


def test_parity_says_what_is_not_a_golden_folder(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parity.main([str(tmp_path)]) == 2
    folder = _copy(shared / "golden" / "brainlm_micro", tmp_path)
    inputs = np.load(folder / "inputs.npz")
    np.savez(folder / "inputs.npz", signal=inputs["signal"], noise=inputs["noise"])
    capsys.readouterr()
    good = shared / "golden" / "vitmae_tiny_p16"
    assert parity.main([str(folder), str(good)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and str(folder) in captured.err
    assert "predict_last_pixel15" in captured.out  # the folder after it was checked


def _copy(source: Path, target: Path) -> Path:
    folder = target / source.name
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
