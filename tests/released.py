"""Checkpoints in the released layout: config.json and pytorch_model.bin.

Weights are random but not as at the start of training: every bias, gain and token is set, so that
one which is left out shows.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brainlm_bids.model.checkpoint import build_network
from brainlm_bids.model.config import read_config

OLD_13M: dict[str, Any] = {
    "_name_or_path": "/training-runs/2023-07-17-19_00_00/checkpoint-1750",
    "architectures": ["BrainLMForPretraining"],
    "attention_probs_dropout_prob": 0.1,
    "conv_kernel_size": 65,
    "decoder_hidden_size": 512,
    "decoder_intermediate_size": 1024,
    "decoder_num_attention_heads": 4,
    "decoder_num_hidden_layers": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 512,
    "image_size": 224,
    "initializer_range": 0.02,
    "intermediate_size": 1024,
    "inv_coeff_init_option": False,
    "layer_norm_eps": 1e-12,
    "loss_fn": "mse",
    "mask_ratio": 0.2,
    "max_eval_samples": 800,
    "model_type": "brainlm_mae",
    "norm_pix_loss": False,
    "num_attention_heads": 4,
    "num_brain_voxels": 424,
    "num_channels": 3,
    "num_hidden_layers": 4,
    "num_landmarks": 64,
    "num_timepoints_per_voxel": 200,
    "patch_size": 16,
    "qkv_bias": True,
    "segment_means_seq_len": 64,
    "timepoint_patching_size": 20,
    "torch_dtype": "float32",
    "transformers_version": "4.30.0.dev0",
    "use_tanh_decoder": False,
    "weight_decay": 1e-05,
}
VITMAE_111M: dict[str, Any] = {
    "_name_or_path": "facebook/vit-mae-base",
    "architectures": ["ViTMAEForPreTraining"],
    "attention_probs_dropout_prob": 0.0,
    "decoder_hidden_size": 512,
    "decoder_intermediate_size": 2048,
    "decoder_num_attention_heads": 16,
    "decoder_num_hidden_layers": 8,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 768,
    "image_size": [432, 432],
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "mask_ratio": 0.75,
    "model_type": "vit_mae",
    "norm_pix_loss": False,
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 16,
    "qkv_bias": True,
    "torch_dtype": "float32",
    "transformers_version": "4.28.0",
}
VITMAE_650M = VITMAE_111M | {
    "_name_or_path": "facebook/vit-mae-huge",
    "hidden_size": 1280,
    "image_size": [434, 434],
    "intermediate_size": 5120,
    "num_attention_heads": 16,
    "num_hidden_layers": 32,
    "patch_size": 14,
}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 40,
}
# 10 parcels × 40 volumes; the decoder is as wide as the encoder in this family
SMALL_13M = (
    OLD_13M
    | SMALL
    | {"decoder_hidden_size": 32, "num_brain_voxels": 10, "num_timepoints_per_voxel": 40}
)
SMALL_P16 = VITMAE_111M | SMALL | {"decoder_hidden_size": 16, "image_size": [48, 48]}
SMALL_P14 = VITMAE_650M | SMALL | {"decoder_hidden_size": 16, "image_size": [56, 56]}


def write_checkpoint(folder: Path, config: dict[str, Any], seed: int = 0) -> Path:
    """Make the folder with its two files, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    torch.save(random_state(folder, seed), folder / "pytorch_model.bin")
    return folder


def random_state(folder: Path, seed: int) -> dict[str, Tensor]:
    """Random tensors for the config.json of a folder, under the released names."""
    config = read_config(folder / "config.json")
    generator = torch.Generator().manual_seed(seed)
    network = build_network(config)
    tables = network.fixed_tensors()
    state: dict[str, Tensor] = {}
    for key, meta in network.module.state_dict().items():
        if key in tables:
            state[key] = tables[key]
            continue
        noise = torch.empty(meta.shape).normal_(generator=generator)
        is_gain = meta.ndim == 1 and key.endswith("weight")
        fan_in = meta[0].numel() if meta.ndim > 1 and "token" not in key else 4
        if "xyz" in key and meta.ndim > 1:
            fan_in *= 50**2  # coordinates come in mm
        state[key] = 1 + 0.2 * noise if is_gain else noise / fan_in**0.5
    unused = {key: torch.ones_like(value) for key, value in network.unused_tensors().items()}
    return state | unused
