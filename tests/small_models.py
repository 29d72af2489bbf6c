"""Small networks and recordings that the tests of the model stage share."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from brainlm_bids.model.checkpoint import LoadedModel, load_model, random_network
from brainlm_bids.model.config import ARCHITECTURES
from brainlm_bids.model.placement import place

TR = 0.735
P = 424
SMALL_IMAGE = replace(
    ARCHITECTURES["111M"],
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    decoder_hidden_size=32,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
)


def small_brainlm() -> LoadedModel:
    """The 13M's architecture, small."""
    return louder(load_model("random:tiny", seed=3))


def small_vitmae() -> LoadedModel:
    """The image models' architecture, small."""
    network = random_network(SMALL_IMAGE, seed=3)
    network.module.eval().requires_grad_(False)
    where = place(network.module, "cpu", "float32")
    return louder(LoadedModel(network, "small", None, where))


def louder(model: LoadedModel) -> LoadedModel:
    """Weights large enough that a changed input shows in every output."""
    with torch.no_grad():
        for name, weight in model.module.named_parameters():
            if weight.ndim >= 2 and "pos" not in name:
                weight.mul_(8)
    return model


def recording(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    coords = 2 * rng.integers(-30, 30, size=(P, 3)).astype(np.float64)
    return rng.normal(size=(n, P)), coords
