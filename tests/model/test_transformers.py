"""A second oracle for the image family: transformers' ViTMAEForPreTraining from the same folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import transformers_says
from released import SMALL, SMALL_P14, SMALL_P16, VITMAE_111M, VITMAE_650M, write_checkpoint

from brainlm_bids.model.checkpoint import load_model
from brainlm_bids.model.config import ViTMAEConfig
from brainlm_bids.model.vitmae import ViTMAE


def compare(folder: Path, shape: tuple[int, int, int], ratio: float) -> None:
    model = load_model(folder, seed=0)
    module, config = model.module, model.config
    assert isinstance(module, ViTMAE) and isinstance(config, ViTMAEConfig)
    generator = torch.Generator().manual_seed(5)
    picture = 0.2 * torch.randn(shape, generator=generator)
    noise = torch.rand(shape[0], config.grid[0] * config.grid[1], generator=generator)
    expected = transformers_says(folder, picture, noise, ratio)
    with torch.inference_mode():
        masking = module.masking(noise, ratio)
        found = module(picture, masking)
        latent, last_input = module.vit(module.pad(picture), masking.keep)
        attention = module.vit.layers[-1].probabilities(last_input, 0, last_input.shape[1])
    assert torch.equal(found.latent, latent)
    assert found.latent.shape == expected.latent.shape
    assert (found.latent[:, 0] - expected.latent[:, 0]).abs().max() <= 1e-5
    assert (found.latent - expected.latent).abs().max() <= 1e-5
    assert found.logits.shape == shape
    assert (found.logits - expected.logits).abs().max() <= 1e-5
    assert (attention - expected.attention).abs().max() <= 1e-6
    assert found.logits.std() > 0.02 and attention.std() > 1e-6  # weights that say something


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.75])
@pytest.mark.parametrize(
    ("config", "shape"), [(SMALL_P16, (2, 42, 38)), (SMALL_P14, (2, 50, 40))], ids=["p16", "p14"]
)
def test_small_pictures(
    tmp_path: Path, config: dict[str, Any], shape: tuple[int, int, int], ratio: float
) -> None:
    compare(write_checkpoint(tmp_path / "small", config), shape, ratio)


@pytest.mark.parametrize("released", [VITMAE_111M, VITMAE_650M], ids=["p16", "p14"])
def test_narrow_networks_over_the_picture_of_the_released_ones(
    tmp_path: Path, released: dict[str, Any]
) -> None:
    narrow = released | SMALL | {"decoder_hidden_size": 16}
    compare(write_checkpoint(tmp_path / "narrow", narrow), (1, 424, 200), 0.75)


def test_the_111m_in_full_size(tmp_path: Path) -> None:
    compare(write_checkpoint(tmp_path / "vitmae_111M", VITMAE_111M), (1, 424, 200), 0.75)


@pytest.mark.shared
@pytest.mark.parametrize("ratio", [0.0, 0.75])
def test_the_golden_checkpoint(shared: Path, ratio: float) -> None:
    compare(shared / "golden" / "vitmae_tiny_p16", (1, 424, 200), ratio)
