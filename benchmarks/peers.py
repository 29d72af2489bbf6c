"""Other implementations of the networks, which `benchmarks.model` and tests compare ours with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file
from torch import Tensor

from brainlm_bids.model.config import ARCHITECTURES, BrainLMConfig, ModelConfig

Predict = Callable[[], Tensor]


class Inputs(NamedTuple):
    """signal (B, P, T), xyz (B, P, 3) in mm, noise (B, L), on the device."""

    signal: Tensor
    xyz: Tensor
    noise: Tensor


def make_inputs(config: ModelConfig, batch: int, device: str) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    signal = torch.randn(batch, config.n_parcels, config.window, generator=generator)
    # from posterior to anterior, so that the rows of a picture are the parcels as they come
    xyz = 50 * torch.randn(config.n_parcels, 3, generator=generator)
    xyz = xyz[xyz[:, 1].argsort()].expand(batch, -1, -1)
    noise = torch.rand(batch, config.n_tokens, generator=generator)
    return Inputs(signal.to(device), xyz.to(device), noise.to(device))


def load_vitmae(folder: Path, attention: str | None) -> Any:
    """transformers' module; three channels, as the checkpoints have."""
    from transformers import ViTMAEForPreTraining
    from transformers.utils import logging

    logging.disable_progress_bar()
    return ViTMAEForPreTraining.from_pretrained(folder, attn_implementation=attention).eval()


def run_vitmae(model: Any, stage: str, inputs: Inputs) -> Tensor:
    """CLS, all latents, or the predicted picture (B, P, T)."""
    size, patch = model.config.image_size, model.config.patch_size
    top, left = ((size[i] - inputs.signal.shape[1 + i]) // 2 for i in (0, 1))
    padded = F.pad(inputs.signal, (left, left, top, top), value=-1.0)
    image = padded.unsqueeze(1).expand(-1, 3, -1, -1)
    encoded = model.vit(image, noise=inputs.noise)
    if stage != "encoder+decoder":
        return encoded.last_hidden_state[:, : 1 if stage == "embedding" else None]
    tokens = model.decoder(encoded.last_hidden_state, encoded.ids_restore).logits
    grid = (size[0] // patch, size[1] // patch)
    picture = tokens.unflatten(-1, (patch, patch, 3)).unflatten(1, grid)
    picture = picture.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), 3, *size).mean(1)
    return picture[:, top : size[0] - top, left : size[1] - left]


def transformers_vitmae(attention: str | None) -> Callable[[Path, str, Inputs, str], Predict]:
    def make(folder: Path, stage: str, inputs: Inputs, device: str) -> Predict:
        model = load_vitmae(folder, attention).to(device)
        if stage != "encoder+decoder":
            model.vit.embeddings.config.mask_ratio = 0.0
        return lambda: run_vitmae(model, stage, inputs)

    return make


class EagerBrainLM:
    """The 13M as one writes it down: explicit attention matrices, a convolution, no care."""

    def __init__(self, weights: dict[str, Tensor], config: BrainLMConfig) -> None:
        self.weights = weights
        self.config = config

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.config.layer_norm_eps)

    def layer(self, name: str, heads: int, x: Tensor) -> Tensor:
        def split(kind: str) -> Tensor:
            y = self.linear(f"{name}.attention.self.{kind}", x)
            return y.view(*y.shape[:2], heads, -1).transpose(1, 2)

        q, k, v = split("query"), split("key"), split("value")
        scale = q.shape[-1] ** 0.25
        attention = torch.softmax((q / scale) @ (k / scale).transpose(-1, -2), dim=-1)
        kernel = self.weights[f"{name}.attention.self.conv.weight"]
        y = attention @ v + F.conv2d(v, kernel, padding=(kernel.shape[2] // 2, 0), groups=heads)
        y = y.transpose(1, 2).reshape(x.shape)
        y = self.linear(f"{name}.attention.output.dense", y)
        x = self.norm(f"{name}.attention.output.LayerNorm", y + x)
        y = F.gelu(self.linear(f"{name}.intermediate.dense", x))
        y = self.linear(f"{name}.output.dense", y)
        return self.norm(f"{name}.output.LayerNorm", y + x)

    def encode(self, inputs: Inputs, n_keep: int) -> tuple[Tensor, Tensor]:
        """Latents (B, 1 + K, D) and the places (B, L) of the tokens in the shuffled order."""
        patch = self.config.timepoint_patching_size
        x = inputs.signal.reshape(*inputs.signal.shape[:2], -1, patch)
        x = self.linear("vit.embeddings.signal_embedding_projection", x)
        x = x + self.linear("vit.embeddings.xyz_embedding_projection", inputs.xyz)[:, :, None]
        x = x + self.weights["vit.embeddings.pos_embedding.pe"][: x.shape[2]]
        x = x.flatten(1, 2)
        shuffle = inputs.noise.argsort(dim=1)
        index = shuffle[:, :n_keep, None].repeat(1, 1, x.shape[-1])
        cls = self.weights["vit.embeddings.cls_token"].expand(len(x), -1, -1)
        x = torch.cat([cls, torch.gather(x, 1, index)], dim=1)
        for i in range(self.config.num_hidden_layers):
            x = self.layer(f"vit.encoder.layer.{i}", self.config.num_attention_heads, x)
        return self.norm("vit.layernorm", x), shuffle.argsort(dim=1)

    def decode(self, latent: Tensor, restore: Tensor, xyz: Tensor) -> Tensor:
        x = self.linear("decoder.decoder_embed", latent)
        missing = restore.shape[1] + 1 - x.shape[1]
        masked = self.weights["decoder.mask_token"].repeat(len(x), missing, 1)
        y = torch.cat([x[:, 1:], masked], dim=1)
        y = torch.gather(y, 1, restore[:, :, None].repeat(1, 1, y.shape[-1]))
        y = y.reshape(len(y), xyz.shape[1], -1, y.shape[-1])
        y = y + self.linear("decoder.decoder_xyz_projection", xyz)[:, :, None]
        y = y + self.weights["decoder.pos_embedding.pe"][: y.shape[2]]
        x = torch.cat([x[:, :1], y.flatten(1, 2)], dim=1)
        for i in range(self.config.decoder_num_hidden_layers):
            x = self.layer(
                f"decoder.decoder_layers.{i}", self.config.decoder_num_attention_heads, x
            )
        x = self.linear("decoder.decoder_pred1", self.norm("decoder.decoder_norm", x))
        x = self.linear("decoder.decoder_pred2", F.leaky_relu(x, 0.1))[:, 1:]
        return x.reshape(*y.shape[:3], -1)


def eager_brainlm(folder: Path, stage: str, inputs: Inputs, device: str) -> Predict:
    config = ARCHITECTURES["13M"]
    assert isinstance(config, BrainLMConfig)
    model = EagerBrainLM(load_file(folder / "model.safetensors", device=device), config)
    n_tokens = inputs.noise.shape[1]
    if stage != "encoder+decoder":
        n_read = 1 if stage == "embedding" else None
        return lambda: model.encode(inputs, n_tokens)[0][:, :n_read]
    n_keep = int(n_tokens * (1 - config.mask_ratio))
    return lambda: model.decode(*model.encode(inputs, n_keep), inputs.xyz).flatten(2)
