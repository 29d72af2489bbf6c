"""Other implementations that tests of the networks compare with."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import ViTMAEForPreTraining


class Expected(NamedTuple):
    """latent (B, 1 + K, D), logits (B, P, T), attention of the last layer (B, h, 1 + K, 1 + K)."""

    latent: Tensor
    logits: Tensor
    attention: Tensor


def transformers_says(folder: Path, picture: Tensor, noise: Tensor, ratio: float) -> Expected:
    """Pad by hand, predict in three channels, put the patches together and crop."""
    model, info = ViTMAEForPreTraining.from_pretrained(
        folder, attn_implementation="eager", mask_ratio=ratio, output_loading_info=True
    )
    assert not any(info.values()), info  # no missing, unexpected or mismatched key
    model = model.eval()
    size = model.config.image_size
    top, left = (size[0] - picture.shape[1]) // 2, (size[1] - picture.shape[2]) // 2
    image = F.pad(picture, (left, left, top, top), value=-1.0)
    with torch.inference_mode():
        encoded = model.vit(
            image.unsqueeze(1).repeat(1, 3, 1, 1), noise=noise, output_attentions=True
        )
        tokens = model.decoder(encoded.last_hidden_state, encoded.ids_restore).logits
        channels = model.unpatchify(tokens, (size[0], size[1]))
    logits = channels.mean(1)[:, top : size[0] - top, left : size[1] - left]
    return Expected(encoded.last_hidden_state, logits, encoded.attentions[-1])
