"""Our modules against stored outputs of the original code, and what loading refuses."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from brainlm_bids.errors import UserError
from brainlm_bids.model import parity
from brainlm_bids.model.checkpoint import ALLOWED_SURPLUS, load_model

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


@pytest.mark.parametrize("name", ["brainlm_micro", "vitmae_tiny_p16"])
def test_a_missing_or_surplus_key_is_refused(shared: Path, tmp_path: Path, name: str) -> None:
    folder = _copy(shared / "golden" / name, tmp_path)
    whole = load_file(folder / "model.safetensors")
    for key in ("vit.layernorm.bias", "decoder.mask_token"):
        save_file({k: v for k, v in whole.items() if k != key}, folder / "model.safetensors")
        with pytest.raises(UserError, match=f"lacks {key}"):
            load_model(folder, seed=0)
    save_file(whole | {"vit.pooler.weight": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"unexpected vit\.pooler\.weight"):
        load_model(folder, seed=0)


def test_the_unused_layer_may_be_there_or_not(shared: Path, tmp_path: Path) -> None:
    folder = _copy(shared / "golden" / "brainlm_micro", tmp_path)
    state = load_file(folder / "model.safetensors")
    for key in ALLOWED_SURPLUS:
        state.pop(key, None)
    save_file(state, folder / "model.safetensors")
    assert not load_model(folder, seed=0).untrained
    save_file(
        state | {key: torch.zeros(2) for key in ALLOWED_SURPLUS}, folder / "model.safetensors"
    )
    assert not load_model(folder, seed=0).untrained


def test_weights_of_the_other_family_are_refused(shared: Path, tmp_path: Path) -> None:
    folder = _copy(shared / "golden" / "brainlm_tiny", tmp_path)
    other = shared / "golden" / "vitmae_tiny_p16" / "model.safetensors"
    (folder / "model.safetensors").write_bytes(other.read_bytes())
    with pytest.raises(UserError, match="vitmae family"):
        load_model(folder, seed=0)


def test_a_truncated_file_is_refused(shared: Path, tmp_path: Path) -> None:
    folder = _copy(shared / "golden" / "brainlm_micro", tmp_path)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_model(folder, seed=0)


class _Code:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_with_code_is_refused_and_not_run(shared: Path, tmp_path: Path) -> None:
    folder = _copy(shared / "golden" / "brainlm_micro", tmp_path)
    (folder / "model.safetensors").unlink()
    victim = tmp_path / "touched"
    torch.save({"vit.layernorm.bias": _Code(victim)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="refused"):
        load_model(folder, seed=0)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Code(victim)))
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        load_model(folder, seed=0)
    assert not victim.exists()


def test_a_bin_file_of_plain_tensors_gives_the_same_weights(shared: Path, tmp_path: Path) -> None:
    folder = _copy(shared / "golden" / "brainlm_micro", tmp_path)
    expected = load_model(folder, seed=0).module.state_dict()
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    found = load_model(folder, seed=0).module.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def _copy(source: Path, target: Path) -> Path:
    folder = target / source.name
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
