"""What nobody reads is not computed, and what is left is the same."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from released import SMALL, SMALL_13M, VITMAE_650M, write_checkpoint

from benchmarks.peers import EagerBrainLM, Inputs
from brainlm_bids.model.brainlm import BrainLM, ConvolvedAttention
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.model.config import BrainLMConfig
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.masking import mask_by_noise
from brainlm_bids.model.subspace import attend, subspace
from brainlm_bids.model.vitmae import ViTMAE

# Heads of 128 dimensions, as in the 13M: tokens span fewer.
WIDE_13M = SMALL_13M | {"hidden_size": 256, "num_attention_heads": 2, "decoder_hidden_size": 256}
NARROW_650M = VITMAE_650M | SMALL | {"decoder_hidden_size": 16}


@pytest.fixture(params=[WIDE_13M, SMALL_13M, NARROW_650M], ids=["wide", "13M", "image"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    return load_model(write_checkpoint(tmp_path / "model", request.param), seed=0)


def window(model: LoadedModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two windows, coordinates, and noise."""
    generator = torch.Generator().manual_seed(3)
    signal = torch.randn(2, model.n_parcels, model.window, generator=generator)
    coords = 50 * torch.randn(model.n_parcels, 3, generator=generator)
    return signal, coords, torch.rand(2, model.config.n_tokens, generator=generator)


def test_attention_in_a_space_is_that_of_its_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = ConvolvedAttention(48, 3, 5)
    for parameter in attention.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    weights = torch.randn(2, 40, 7, generator=generator)
    vectors = torch.randn(7, 48, generator=generator)
    vectors[6] = vectors[5] + 1e-3 * vectors[0]  # nearly parallel
    truth = copy.deepcopy(attention).double()(weights.double() @ vectors.double())
    found = attend(attention, subspace(weights, vectors), attention.conv)
    assert (found - truth).abs().max() < 1e-5 * truth.abs().max()
    assert truth.std() > 0.1


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_wide_heads_agree_with_the_plain_implementation(tmp_path: Path, ratio: float) -> None:
    folder = write_checkpoint(tmp_path / "wide", WIDE_13M)
    model = load_model(folder, seed=0)
    module, config = model.module, model.config
    assert isinstance(module, BrainLM) and isinstance(config, BrainLMConfig)
    signal, coords, noise = window(model)
    plain = EagerBrainLM(torch.load(folder / "pytorch_model.bin", weights_only=True), config)
    inputs = Inputs(signal, coords.expand(2, -1, -1), noise)
    masking = mask_by_noise(noise, int(noise.shape[1] * (1 - ratio)))
    with torch.inference_mode():
        assert module.vit.spares(signal)
        found, _ = module.vit(signal, inputs.xyz, masking.keep)
        expected, _ = plain.encode(inputs, masking.keep.shape[1])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded, _ = module.vit(signal, inputs.xyz, masking.keep)
    assert not module.vit.spares(signal)  # an optimiser may need gradients
    trained, _ = module.vit(signal, inputs.xyz, masking.keep)
    assert (found - expected).abs().max() < 1e-5
    assert (trained - expected).abs().max() < 1e-5
    assert 1e-4 < (rounded - expected).abs().max() < 0.1
    assert expected.std() > 0.1


def test_cls_alone_is_the_first_latent(model: LoadedModel) -> None:
    signal, coords, noise = window(model)
    keep = noise.argsort(dim=1)
    with torch.inference_mode():
        whole = model.network.encode(signal, coords, keep)
        alone = model.network.encode(signal, coords, keep, cls_only=True)
    assert alone.latent.shape == (2, 1, whole.latent.shape[-1])
    assert (alone.latent - whole.latent[:, :1]).abs().max() < 1e-5
    assert torch.equal(alone.last_input, whole.last_input)
    assert (whole.latent[:, :1] - whole.latent[:, 1:2]).abs().max() > 0.1


def test_the_embedding_is_the_same_with_and_without_tokens(model: LoadedModel) -> None:
    rng = np.random.default_rng(0)
    series = rng.standard_normal((max(model.window, 60), model.n_parcels))
    coords = rng.uniform(-60, 60, (model.n_parcels, 3))
    alone = embed(model, series, coords, tr=0.735, seed=0)
    whole = embed(model, series, coords, tr=0.735, seed=0, tokens=True)
    assert alone.tokens is None and alone.parcels is None
    assert np.abs(alone.vectors - whole.vectors).max() < 1e-5


def test_predictions_of_masked_values_alone_are_those_of_the_whole_pass(
    model: LoadedModel,
) -> None:
    signal, coords, noise = window(model)
    masking = mask_by_noise(noise, noise.shape[1] // 2)
    with torch.inference_mode():
        found = model.network.predict(signal, coords, masking)
        whole = model.network.masked_pass(signal, coords, masking)
    hidden = model.network.hidden_values(masking.mask, coords) == 1
    assert torch.equal(found.hidden == 1, hidden)
    assert torch.equal(torch.isfinite(found.values), hidden)
    predicted = whole.predicted * model.network.unit
    if not model.network.rows_are_parcels:
        predicted = predicted[:, torch.argsort(torch.argsort(coords[:, 1], stable=True))]
    assert (found.values - predicted)[hidden].abs().max() < 1e-5
    assert predicted[hidden].std() > 0.01


def test_tokens_of_padding_are_not_predicted(tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path / "model", NARROW_650M), seed=0)
    assert isinstance(model.module, ViTMAE)
    read = model.module.data_tokens((model.n_parcels, model.window))
    rows, columns = model.network.grid
    whole = torch.full((1, rows * model.network.patch, columns * model.network.patch), 0.0)
    top, left = model.module.padding((model.n_parcels, model.window))
    whole[:, top : top + model.n_parcels, left : left + model.window] = 1
    patches = whole.unfold(1, model.network.patch, model.network.patch)
    patches = patches.unfold(2, model.network.patch, model.network.patch)
    expected = patches.amax((-1, -2)).flatten().nonzero().flatten()
    assert torch.equal(read, expected)
    assert len(read) == 465 and rows * columns == 961
