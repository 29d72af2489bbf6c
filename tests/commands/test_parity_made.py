"""The parity command on golden folders made here, at odd sizes, by other implementations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import transformers_says
from released import SMALL_13M, SMALL_P14, SMALL_P16, write_checkpoint

from benchmarks.peers import EagerBrainLM, Inputs
from brainlm_bids.commands import parity
from brainlm_bids.model.config import VITMAE_DIVISOR, BrainLMConfig, read_config

Arrays = dict[str, np.ndarray]
RATIOS = {"all": 0.0, "some": 0.3, "most": 0.75}


def hidden(noise: np.ndarray, n_keep: int) -> np.ndarray:
    """(B, L) 1 where the rank of the noise says that a token is hidden."""
    return (noise.argsort(axis=1).argsort(axis=1) >= n_keep).astype(np.uint8)


def write_13m(folder: Path, n_batch: int = 2) -> Path:
    """10 parcels × 40 volumes; what `EagerBrainLM` says of it."""
    write_checkpoint(folder, SMALL_13M)
    rng = np.random.default_rng(3)
    signal = rng.normal(size=(n_batch, 10, 40)).astype(np.float16)
    xyz = rng.integers(-60, 60, size=(10, 3)).astype(np.float32)
    noise = rng.random((n_batch, 20)).astype(np.float32)
    np.savez(folder / "inputs.npz", signal=signal, xyz=xyz, noise=noise)
    config = read_config(folder / "config.json")
    assert isinstance(config, BrainLMConfig)
    plain = EagerBrainLM(torch.load(folder / "pytorch_model.bin", weights_only=True), config)
    truth = signal.astype(np.float32)
    inputs = Inputs(
        torch.from_numpy(truth),
        torch.from_numpy(xyz).expand(n_batch, -1, -1),
        torch.from_numpy(noise),
    )
    cases: dict[str, Any] = {}
    for (case, ratio), loss_fn in zip(RATIOS.items(), ("mse", "mse", "mae"), strict=True):
        n_keep = int(20 * (1 - ratio))
        latent, restore = plain.encode(inputs, n_keep)
        logits = plain.decode(latent, restore, inputs.xyz).numpy()
        mask = hidden(noise, n_keep).reshape(n_batch, 10, 2)
        error = (logits - truth.reshape(logits.shape))[mask == 1]
        error = np.abs(error) if loss_fn == "mae" else error**2
        arrays = {
            "mask": mask,
            "loss": np.float32(error.mean() if error.size else np.nan),
            "cls": latent[:, 0].numpy(),
            "latent": latent.numpy(),
            "latent_mean": latent[:, 1:].numpy().mean(axis=1),
            "latent_tail": latent[:, -3:].numpy(),
            "logits": logits,
            "logits_head": logits[:, :4].astype(np.float16),
        }
        np.savez(folder / f"out_{case}.npz", **arrays)
        cases[case] = {"mask_ratio": ratio, "loss_fn": loss_fn}
    (folder / "meta.json").write_text(json.dumps({"cases": cases}))
    return folder


def write_image(folder: Path, config: dict[str, Any], shape: tuple[int, int, int]) -> Path:
    """Pictures of odd sizes; what transformers says of them."""
    write_checkpoint(folder, config)
    rng = np.random.default_rng(4)
    signal = rng.normal(size=shape).astype(np.float32)
    order = rng.permutation(shape[1]).astype(np.int32)
    n_tokens = (config["image_size"][0] // config["patch_size"]) ** 2
    noise = rng.random((shape[0], n_tokens)).astype(np.float32)
    np.savez(folder / "inputs.npz", signal=signal, y_order=order, noise=noise)
    picture = torch.from_numpy(signal[:, order] / np.float32(VITMAE_DIVISOR))
    cases = {}
    for case, ratio in RATIOS.items():
        says = transformers_says(folder, picture, torch.from_numpy(noise), ratio)
        token = hidden(noise, int(n_tokens * (1 - ratio)))
        patch, top = config["patch_size"], (config["image_size"][0] - shape[1]) // 2
        left = (config["image_size"][1] - shape[2]) // 2
        side = config["image_size"][0] // patch
        image = token.reshape(-1, side, side).repeat(patch, axis=1).repeat(patch, axis=2)
        image = image[:, top : top + shape[1], left : left + shape[2]]
        error = (says.logits - picture).numpy()[image == 1]
        arrays = {
            "mask_token": token,
            "mask_image": image.astype(np.float32),
            "loss": np.float32((error**2).mean() if error.size else np.nan),
            "cls": says.latent[:, 0].numpy(),
            "latent": says.latent.numpy(),
            "logits": says.logits.numpy(),
            "attn_last": says.attention.numpy(),
            "attn_last_cls_row": says.attention[:, :, 0].numpy(),
        }
        np.savez(folder / f"out_{case}.npz", **arrays)
        cases[case] = {"mask_ratio": ratio, "train_mode": "auto_encode"}
    (folder / "meta.json").write_text(json.dumps({"cases": cases}))
    return folder


@pytest.fixture(params=["13M", "13M of one", "p16", "p14"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    target = tmp_path / "made"
    if request.param == "p16":
        return write_image(target, SMALL_P16, (2, 42, 38))
    if request.param == "p14":
        return write_image(target, SMALL_P14, (1, 50, 40))
    return write_13m(target, 1 if request.param == "13M of one" else 2)


def load(file: Path) -> Arrays:
    with np.load(file) as content:
        return dict(content)


def change(file: Path, **arrays: Any) -> None:
    """Replace arrays of a file; None removes one."""
    changed = load(file) | arrays
    np.savez(file, **{k: v for k, v in changed.items() if v is not None})


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_other_implementations_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main([str(folder)]) == 0
    assert last_line(capsys) == "all within tolerance: 24 arrays compared, 0 above tolerance"


def test_a_thousandth_in_any_array_is_noticed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "out_some.npz"
    whole = load(file)
    for name, array in whole.items():
        wrong = array.copy()
        wrong.reshape(-1)[-1] += 1 if array.dtype == np.uint8 else 1e-3
        change(file, **{name: wrong})
        assert parity.main([str(folder)]) == 1, name
        assert last_line(capsys) == "FAILED: 24 arrays compared, 1 above tolerance"
        change(file, **{name: array})


def test_nan_on_one_side_is_a_difference(folder: Path) -> None:
    change(folder / "out_most.npz", loss=np.float32("nan"))
    assert parity.main([str(folder)]) == 1


def test_settings_may_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_13m(tmp_path / "made")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mask_ratio": 0.3}))
    (folder / "meta.json").write_text('{"cases": ["some"]}')
    assert parity.main([str(folder)]) == 0
    # files of cases that the list does not name are counted
    assert "16 arrays were NOT compared" in last_line(capsys)


def test_noise_may_lie_beside_the_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_13m(tmp_path / "made")
    noise = load(folder / "inputs.npz")["noise"]
    np.savez(folder / "noise_some.npz", noise=noise)
    change(folder / "inputs.npz", noise=noise[:, ::-1])
    for case in ("all", "most"):
        (folder / f"out_{case}.npz").unlink()
    (folder / "meta.json").write_text('{"cases": {"some": {"mask_ratio": 0.3}}}')
    assert parity.main([str(folder)]) == 0
    meta = {"cases": {"some": {"mask_ratio": 0.3, "noise": "inputs.npz:noise"}}}
    (folder / "meta.json").write_text(json.dumps(meta))
    assert parity.main([str(folder)]) == 1
    change(folder / "inputs.npz", noise=None)
    capsys.readouterr()
    assert parity.main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "holds no array 'noise'" in error


def test_what_is_not_known_is_not_hidden(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for case in RATIOS:
        change(folder / f"out_{case}.npz", gradient=np.zeros(3), label=np.array("rest"))
    assert parity.main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "6 arrays were NOT compared" in out.splitlines()[-1]
    assert out.count("NOT compared: not known to this command") == 3
    for case in RATIOS:
        np.savez(folder / f"out_{case}.npz", gradient=np.zeros(3))
    assert parity.main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert "no array in it could be compared" in captured.err
    assert captured.out.splitlines()[-1].startswith("FAILED")


@pytest.mark.parametrize("cases", ["null", "{}", "[]", "[3]", '{"some": 3}', '{"none": {}}'])
def test_case_lists_that_are_none(
    tmp_path: Path, cases: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_13m(tmp_path / "made")
    (folder / "meta.json").write_text(f'{{"cases": {cases}}}')
    assert parity.main([str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_arrays_of_another_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder / "out_some.npz", cls=np.zeros((3, 32), np.float32))
    assert parity.main([str(folder)]) == 1
    change(folder / "inputs.npz", signal=np.zeros((2, 9, 40), np.float32))
    assert parity.main([str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
