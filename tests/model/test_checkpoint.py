"""Full-size checkpoints in the released layout load and run; what is wrong with one is said."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from released import OLD_13M, SMALL_13M, SMALL_P14, VITMAE_111M, VITMAE_650M, write_checkpoint
from safetensors.torch import save_file
from small_models import TR, recording
from torch import Tensor

from benchmarks.peers import EagerBrainLM, Inputs
from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256
from brainlm_bids.model.brainlm import BrainLM, TokenConvolution
from brainlm_bids.model.checkpoint import load_model
from brainlm_bids.model.config import BrainLMConfig
from brainlm_bids.model.embedding import embed


def layer_keys(name: str) -> set[str]:
    linear = [f"attention.self.{part}" for part in ("query", "key", "value")]
    linear += ["attention.output.dense", "attention.output.LayerNorm"]
    linear += ["intermediate.dense", "output.dense", "output.LayerNorm"]
    keys = {f"{name}.{part}.{kind}" for part in linear for kind in ("weight", "bias")}
    return keys | {f"{name}.attention.self.conv.weight"}


def test_the_names_are_those_of_the_released_13m(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "old_13M", OLD_13M)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    # written out from the original's state, not from our modules
    both = ["vit.layernorm", "vit.embeddings.signal_embedding_projection"]
    both += ["vit.embeddings.xyz_embedding_projection"]
    both += [f"decoder.decoder_{part}" for part in ("embed", "norm", "pred", "pred1", "pred2")]
    both += ["decoder.decoder_xyz_projection"]
    keys = {f"{name}.{kind}" for name in both for kind in ("weight", "bias")}
    keys |= {"vit.embeddings.cls_token", "decoder.mask_token"}
    keys |= {"vit.embeddings.pos_embedding.pe", "decoder.pos_embedding.pe"}
    for i in range(4):
        keys |= layer_keys(f"vit.encoder.layer.{i}")
    for i in range(2):
        keys |= layer_keys(f"decoder.decoder_layers.{i}")
    assert set(state) == keys
    buffers = [key for key in state if key.endswith("pos_embedding.pe")]
    assert sum(state[key].numel() for key in buffers) == 5_120_000
    assert sum(tensor.numel() for tensor in state.values()) == 13_429_292 + 5_120_000
    shapes = {key: tuple(state[key].shape) for key in state}
    assert shapes["vit.encoder.layer.3.attention.self.conv.weight"] == (4, 1, 65, 1)
    assert shapes["decoder.decoder_pred2.weight"] == (20, 256)


@pytest.mark.parametrize(
    ("name", "config", "family", "width"),
    [
        ("old_13M", OLD_13M, "brainlm", 512),
        ("vitmae_111M", VITMAE_111M, "vitmae", 768),
        pytest.param("vitmae_650M", VITMAE_650M, "vitmae", 1280, marks=pytest.mark.slow),
    ],
)
def test_full_size_loads_and_runs(
    tmp_path: Path, name: str, config: dict[str, Any], family: str, width: int
) -> None:
    folder = write_checkpoint(tmp_path / name, config)
    model = load_model(folder, seed=0)
    assert (model.family, model.embedding_dim, model.untrained) == (family, width, False)
    assert (model.n_parcels, model.window) == (424, 200)
    assert model.sha256 == file_sha256(folder / "pytorch_model.bin")
    series, coords = recording(200)
    found = embed(model, series, coords, tr=TR, seed=0).vectors
    assert found.shape == (1, width) and np.isfinite(found).all() and found.std() > 0.1
    (folder / "pytorch_model.bin").unlink()  # 2.6 GB of the 650M


# ---- the arithmetic of the 13M against another implementation --------------------------------


@pytest.mark.parametrize("n_tokens", [1, 20, 64, 65, 200])
@pytest.mark.parametrize("kernel", [1, 5, 65])
def test_token_convolution_is_a_depthwise_convolution(n_tokens: int, kernel: int) -> None:
    generator = torch.Generator().manual_seed(n_tokens)
    ours = TokenConvolution(3, kernel)
    ours.weight.data.normal_(generator=generator)
    values = torch.randn(2, 3, n_tokens, 7, generator=generator, requires_grad=True)
    upstream = torch.randn(values.shape, generator=generator)
    found = ours(values)
    gradients = torch.autograd.grad(found, (values, ours.weight), upstream)
    # The truth in float64: torch's own float32 gradient of 65 taps is wrong on some CPUs.
    exact, weight = values.detach().double(), ours.weight.detach().double()
    exact.requires_grad_()
    weight.requires_grad_()
    expected = torch.nn.functional.conv2d(exact, weight, padding=(kernel // 2, 0), groups=3)
    truth = torch.autograd.grad(expected, (exact, weight), upstream.double())
    assert (found - expected).abs().max() < 1e-5
    for own, other in zip(gradients, truth, strict=True):
        assert (own - other).abs().max() < 1e-4


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.75])
def test_odd_sizes_agree_with_the_plain_implementation(tmp_path: Path, ratio: float) -> None:
    folder = write_checkpoint(tmp_path / "small", SMALL_13M)
    model = load_model(folder, seed=0)
    module, config = model.module, model.config
    assert isinstance(module, BrainLM) and isinstance(config, BrainLMConfig)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    generator = torch.Generator().manual_seed(2)
    inputs = Inputs(
        torch.randn(2, 10, 40, generator=generator),
        50 * torch.randn(2, 10, 3, generator=generator),
        torch.rand(2, 20, generator=generator),
    )
    plain = EagerBrainLM(weights, config)
    with torch.inference_mode():
        masking = module.masking(inputs.noise, ratio)
        found = module(inputs.signal, inputs.xyz, masking)
        latent, restore = plain.encode(inputs, masking.keep.shape[1])
        logits = plain.decode(latent, restore, inputs.xyz)
    assert (found.latent - latent).abs().max() <= 1e-5
    assert (found.logits - logits).abs().max() <= 1e-5
    assert logits.std() > 0.1


def test_the_unused_layer_may_be_there_or_not_and_either_format_will_do(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "small", SMALL_13M)
    model = load_model(folder, seed=0)
    expected = model.module.state_dict()
    state = edit(folder)
    unused = set(state) - set(expected)
    assert unused == {"decoder.decoder_pred.weight", "decoder.decoder_pred.bias"}
    assert unused == set(model.network.unused_tensors())
    save_file({key: state[key] for key in expected}, folder / "model.safetensors")
    (folder / "pytorch_model.bin").unlink()
    found = load_model(folder, seed=0).module.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


# ---- what is refused -------------------------------------------------------------------------


class Command:
    """The pickle that everybody is warned of."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


def refusal(folder: Path) -> str:
    """The one line with which loading fails; it names the file."""
    with pytest.raises(UserError) as caught:
        load_model(folder, seed=0)
    line = str(caught.value)
    assert "\n" not in line and str(folder / "pytorch_model.bin") in line
    return line


@pytest.fixture(params=[SMALL_13M, SMALL_P14], ids=["13M", "image"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "small", request.param)


def edit(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / "pytorch_model.bin", weights_only=True)
    return state


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_bin_file(folder: Path, share: float) -> None:
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    assert re.search("damaged|truncated", refusal(folder))


def test_a_truncated_safetensors_file(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file(edit(folder), file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=re.escape(str(file))):
        load_model(folder, seed=0)


def test_keys_that_lack_or_are_too_many(folder: Path) -> None:
    state = edit(folder)
    gone = {k: v for k, v in state.items() if k != "decoder.decoder_norm.bias"}
    torch.save(gone, folder / "pytorch_model.bin")
    assert "lacks decoder.decoder_norm.bias" in refusal(folder)
    torch.save(state | {"vit.pooler.dense.bias": torch.zeros(3)}, folder / "pytorch_model.bin")
    assert "unexpected vit.pooler.dense.bias" in refusal(folder)
    many = {f"model.{key}": value for key, value in state.items()}  # as a wrapper saves them
    torch.save(many, folder / "pytorch_model.bin")
    line = refusal(folder)
    assert "more" in line and len(line) < 600


def test_a_tensor_of_another_size_or_without_numbers(folder: Path) -> None:
    state = edit(folder)
    torch.save(state | {"vit.layernorm.bias": torch.zeros(7)}, folder / "pytorch_model.bin")
    assert "vit.layernorm.bias is (7,), config.json says (32,)" in refusal(folder)
    bad = state["vit.layernorm.bias"].clone()
    bad[3] = float("nan")
    torch.save(state | {"vit.layernorm.bias": bad}, folder / "pytorch_model.bin")
    assert "not finite" in refusal(folder)


def test_weights_of_the_other_family(tmp_path: Path) -> None:
    ours = write_checkpoint(tmp_path / "old_13M", SMALL_13M)
    other = write_checkpoint(tmp_path / "vitmae_650M", SMALL_P14)
    weights = (ours / "pytorch_model.bin").read_bytes()
    (ours / "pytorch_model.bin").write_bytes((other / "pytorch_model.bin").read_bytes())
    (other / "pytorch_model.bin").write_bytes(weights)
    assert "weights of the vitmae family, but its config.json is of brainlm" in refusal(ours)
    assert "weights of the brainlm family, but its config.json is of vitmae" in refusal(other)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "pickle", "among tensors"])
def test_a_pickle_that_runs_a_command(folder: Path, tmp_path: Path, how: str) -> None:
    victim = tmp_path / "victim"
    attack = Command(f"touch {victim}")
    if how == "pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(attack))
    else:
        state = edit(folder) if how == "among tensors" else {}
        torch.save(state | {"vit.layernorm.bias": attack}, folder / "pytorch_model.bin")
    assert "refused" in refusal(folder)
    assert not victim.exists()
    assert how != "pickle" or pickle.loads((folder / "pytorch_model.bin").read_bytes()) == 0
    assert how != "pickle" or victim.exists()  # the file would have done it


def test_something_else_than_named_tensors(folder: Path) -> None:
    torch.save([torch.zeros(2)], folder / "pytorch_model.bin")
    assert "named tensors" in refusal(folder)
    torch.save({"vit.layernorm.bias": 3}, folder / "pytorch_model.bin")
    assert "named tensors" in refusal(folder)
    (folder / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    refusal(folder)
