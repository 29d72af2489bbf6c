"""Weights are checked against what is known of them, and beside random ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from small_stores import output_folder

from brainlm_bids import resources
from brainlm_bids.commands.brainlm import main
from brainlm_bids.experiments import verify
from brainlm_bids.files import DATA, read_json
from brainlm_bids.model.checkpoint import build_network, load_model
from brainlm_bids.model.config import ARCHITECTURES
from brainlm_bids.model.reconstruction import reconstruct


def _verify(tmp_path: Path, *arguments: str) -> tuple[int, dict]:
    path = tmp_path / "found.json"
    code = main(["verify", *arguments, "--device", "cpu", "--output", str(path)])
    return code, read_json(path) if path.is_file() else {}


def test_the_demo_is_what_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = _verify(tmp_path, "demo")
    said = capsys.readouterr().out
    assert code == 0 and found["StoredNumbers"] and not found["Problems"]
    r2 = found["Simulated"]["MaskedR2"]
    assert r2["model"] > 0.1 > r2["untrained"] + 0.05, "trained weights predict, random ones do not"
    assert "compared with those that are stored" in said and str(tmp_path / "found.json") in said


def test_other_numbers_than_the_stored_ones_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (known,) = read_json(DATA / "verify.json").values()
    shifted = {**known, "First": [value + 2e-4 for value in known["First"]]}
    monkeypatch.setattr(verify, "_known", lambda resource: shifted)
    code, found = _verify(tmp_path, "demo")
    assert code == 1 and "differ by 0.0002" in found["Problems"][0]


def test_what_a_killed_call_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".tmp-k2jd81aa-found.json").touch()
    others = {".tmp-k2jd81aa-other.json", "found.json.bak"}
    for name in others:
        (tmp_path / name).touch()
    path = tmp_path / "found.json"
    assert main(["verify", "random:tiny", "--offline", "--output", str(path)]) == 0
    assert {one.name for one in tmp_path.iterdir()} == others | {"found.json"}


def test_weights_that_do_not_fit_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(DATA / "demo", tmp_path / "cut")
    weights = load_file(tmp_path / "cut" / "model.safetensors")
    weights.pop("vit.embeddings.cls_token")
    save_file(weights, tmp_path / "cut" / "model.safetensors")
    code, found = _verify(tmp_path, str(tmp_path / "cut"))
    assert code == 1 and not found
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("brainlm: ")]
    assert "vit.embeddings.cls_token" in errors[0]


def test_recordings_are_scored_without_their_names(tmp_path: Path) -> None:
    series = output_folder(tmp_path / "out", n_subjects=2)
    code, found = _verify(tmp_path, "random:tiny", "--recordings", str(tmp_path / "out"))
    assert code == 0
    scores = found["Recordings"]
    assert scores["NumberOfRecordings"] == 2
    model = load_model("random:tiny", seed=42)
    xyz = resources.parcels().xyz
    expected = [
        reconstruct(model, one, xyz, mask_ratio=0.2, seed=42 + k).metrics["ridge"]["r2"]
        for k, one in enumerate(series.values())
    ]
    assert scores["MaskedR2"]["ridge"]["Mean"] == pytest.approx(np.mean(expected), abs=1e-5)
    text = json.dumps(found)
    assert not [name for name in series if name in text] and str(tmp_path) not in text


@pytest.mark.parametrize("name", ["13M", "111M", "650M"])
def test_the_numbers_of_parameters_are_those_of_the_configurations(name: str) -> None:
    network = build_network(ARCHITECTURES[name])
    count = sum(parameter.numel() for parameter in network.module.parameters())
    count += sum(tensor.numel() for tensor in network.unused_tensors().values())
    assert count == verify.PARAMETERS[name]


def test_the_simulated_recording_is_a_formula() -> None:
    series = verify.simulated_recording()
    np.testing.assert_allclose(np.median(series, axis=0), 0, atol=1e-9)
    spread = np.subtract(*np.percentile(series, [75, 25], axis=0))
    np.testing.assert_allclose(spread, 1, atol=1e-9)
    assert abs(np.corrcoef(series[:, 0], series[:, 1])[0, 1]) < 0.999
