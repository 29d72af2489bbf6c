"""BrainLM 111M and 650M: latents and predictions from the picture of a recording.

A masked autoencoder (MAE; He et al. 2022, arXiv 2111.06377) over the picture (B, P, T) whose rows
are parcels from posterior to anterior and whose columns are volumes, robust-scaled and divided by
5.6430855; padded with −1 on all sides to a square of patches of p × p values
(modeling_vit_mae_with_padding.py of vandijklab/BrainLM at commit b591d88). docs/reference/
networks.md describes it step by step.

Tokens (B, L, D), K of them seen; h heads. Parameters have the names of the released checkpoints.
The three channels hold the same plane, so the kernels are summed over input channels and averaged
over output channels: the same result in one channel. float32.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from brainlm_bids.model.attention import AttentionLayer, SelfAttention, tokens_at
from brainlm_bids.model.config import ViTMAEConfig
from brainlm_bids.model.masking import Masking, mask_by_noise, n_kept


def grid_positions(width: int, grid: tuple[int, int]) -> Tensor:
    """2-D sine and cosine table of MAE, (1, 1 + L, width); zeros for CLS.

    The first half of the channels tells the column, the second the row.
    """
    omega = 1.0 / 10000 ** (_count(width // 4) / (width / 4))
    rows, columns = _count(grid[0]).repeat_interleave(grid[1]), _count(grid[1]).repeat(grid[0])
    angles = [columns.unsqueeze(1) * omega, rows.unsqueeze(1) * omega]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return F.pad(table, (0, 0, 1, 0)).float().unsqueeze(0)


def _count(n: int) -> Tensor:
    # On the CPU also where modules are built without memory, see brainlm.time_positions.
    return torch.arange(n, dtype=torch.float64, device="cpu")


class Layer(AttentionLayer):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, inner: int, config: ViTMAEConfig) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = nn.ModuleDict(
            {
                "attention": SelfAttention(width, heads, bias=config.qkv_bias),
                "output": nn.ModuleDict({"dense": nn.Linear(width, width)}),
            }
        )
        self.layernorm_after = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = nn.ModuleDict({"dense": nn.Linear(inner, width)})

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Output of the block for tokens (B, L, D): all, or those of `rows` (B, M)."""
        attention, output = self.attention["attention"], self.attention["output"]
        assert isinstance(output, nn.ModuleDict)
        x = tokens_at(x, rows) + output["dense"](attention(self.layernorm_before(x), rows))
        inner = F.gelu(self.intermediate["dense"](self.layernorm_after(x)))
        x = x + self.output["dense"](inner)
        return x

    def probabilities(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Attention (B, h, stop − start, L) of the queries start … stop."""
        attention = self.attention["attention"]
        assert isinstance(attention, SelfAttention)
        return attention.probabilities(self.layernorm_before(x), start, stop)


class Embeddings(nn.Module):
    """Patches of the picture as tokens."""

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        p, width = config.patch_size, config.hidden_size
        self.patch = p
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embeddings = nn.ModuleDict(
            {"projection": nn.Conv2d(config.num_channels, width, p, stride=p)}
        )
        self.position_embeddings = nn.Parameter(
            grid_positions(width, config.grid), requires_grad=False
        )

    def forward(self, image: Tensor, keep: Tensor) -> Tensor:
        """Tokens (B, 1 + K, D), CLS first, of the patches `keep` (B, K) of a padded picture."""
        projection = self.patch_embeddings["projection"]
        assert isinstance(projection, nn.Conv2d)
        plane = projection.weight.sum(1, keepdim=True)  # (D, 1, p, p)
        x = F.conv2d(image.unsqueeze(1), plane, projection.bias, stride=self.patch)
        x = x.flatten(2).transpose(1, 2) + self.position_embeddings[:, 1:]  # (B, L, D)
        x = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        cls = self.cls_token + self.position_embeddings[:, :1]
        return torch.cat([cls.expand(len(x), -1, -1), x], dim=1)


class Encoder(nn.Module):
    """A transformer over the tokens that are seen."""

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        width, heads = config.hidden_size, config.num_attention_heads
        self.layers = [
            Layer(width, heads, config.intermediate_size, config)
            for _ in range(config.num_hidden_layers)
        ]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(self.layers)})
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(
        self, image: Tensor, keep: Tensor, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents, CLS first, all or those of `rows` (B, M), and the input of the last layer."""
        x = self.embeddings(image, keep)
        *earlier, last = self.layers
        for layer in earlier:
            x = layer(x)
        return self.layernorm(last(x, rows)), x


class Decoder(nn.Module):
    """A transformer over all tokens in raster order, hidden ones as mask tokens."""

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        width, heads = config.decoder_hidden_size, config.decoder_num_attention_heads
        self.patch, self.channels, self.grid = config.patch_size, config.num_channels, config.grid
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_embed = nn.Linear(config.hidden_size, width)
        self.decoder_pos_embed = nn.Parameter(
            grid_positions(width, config.grid), requires_grad=False
        )
        self.decoder_layers = nn.ModuleList(
            Layer(width, heads, config.decoder_intermediate_size, config)
            for _ in range(config.decoder_num_hidden_layers)
        )
        self.decoder_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.decoder_pred = nn.Linear(width, self.patch**2 * self.channels)

    def forward(self, latent: Tensor, restore: Tensor, read: Tensor) -> Tensor:
        """The padded picture (B, rows·p, columns·p) from the latents of the tokens seen.

        Only the tokens `read` (M,) are predicted. The others, which are cropped, are 0.
        """
        x: Tensor = self.decoder_embed(latent)
        cls, kept = x[:, :1], x[:, 1:]
        n_masked = restore.shape[1] - kept.shape[1]
        x = torch.cat([kept, self.mask_token.expand(len(x), n_masked, -1)], dim=1)
        x = x.gather(1, restore.unsqueeze(-1).expand(-1, -1, x.shape[-1]))  # raster order
        x = torch.cat([cls, x], dim=1) + self.decoder_pos_embed
        *earlier, last = self.decoder_layers
        for layer in earlier:
            x = layer(x)
        x = last(x, 1 + read.expand(len(x), -1))  # CLS is the first token
        weight = self.decoder_pred.weight.unflatten(0, (-1, self.channels)).mean(1)  # (p², D)
        bias = self.decoder_pred.bias.unflatten(0, (-1, self.channels)).mean(1)
        x = F.linear(self.decoder_norm(x), weight, bias)  # (B, M, p²)
        whole = x.new_zeros(len(x), restore.shape[1], x.shape[-1])
        return unpatchify(whole.index_copy(1, read, x), self.grid, self.patch)


def unpatchify(x: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Tokens (B, L, p²) -> picture (B, rows·p, columns·p)."""
    x = x.view(len(x), *grid, patch, patch).transpose(2, 3)
    return x.reshape(len(x), grid[0] * patch, grid[1] * patch)


class ViTMAEOutput(NamedTuple):
    """logits and mask (B, P, T), mask_token (B, L), latent (B, 1 + K, D)."""

    logits: Tensor
    mask: Tensor
    mask_token: Tensor
    latent: Tensor


class ViTMAE(nn.Module):
    """`vit` (the encoder) and `decoder`; see the top of this file for shapes."""

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.vit = Encoder(config)
        self.decoder = Decoder(config)

    def padding(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of −1 on each side of a picture (…, P, T)."""
        top = self.config.image_size[0] - shape[-2]
        left = self.config.image_size[1] - shape[-1]
        if min(top, left) < 0 or top % 2 or left % 2:
            raise ValueError(f"a picture of {shape[-2:]} does not sit in {self.config.image_size}")
        return top // 2, left // 2

    def pad(self, image: Tensor) -> Tensor:
        """The picture (…, P, T) in the middle of the square."""
        top, left = self.padding(image.shape)
        return F.pad(image, (left, left, top, top), value=-1.0)

    def crop(self, padded: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The picture of the shape (…, P, T) out of the square."""
        top, left = self.padding(shape)
        return padded[..., top : top + shape[-2], left : left + shape[-1]]

    def data_tokens(self, shape: tuple[int, ...]) -> Tensor:
        """The tokens with values of a picture (…, P, T); the others are padding throughout."""
        p, columns = self.config.patch_size, self.config.grid[1]
        top, left = self.padding(shape)
        row = torch.arange(top // p, -(-(top + shape[-2]) // p))
        column = torch.arange(left // p, -(-(left + shape[-1]) // p))
        return (row.unsqueeze(1) * columns + column).flatten()

    def forward(
        self, image: Tensor, masking: Masking, zero_columns: range = range(0)
    ) -> ViTMAEOutput:
        """Predict a picture of which a part is hidden.

        Parameters
        ----------
        image
            (B, P, T), rows from posterior to anterior, in the network's units.
        masking
            Which patches are visible.
        zero_columns
            Columns of the padded picture that are set to 0 beforehand.

        Returns
        -------
        ViTMAEOutput
            Predictions, masks and latents.
        """
        padded = self.pad(image)
        padded[..., zero_columns.start : zero_columns.stop] = 0
        latent, _ = self.vit(padded, masking.keep)
        read = self.data_tokens(image.shape).to(image.device)
        logits = self.crop(self.decoder(latent, masking.restore, read), image.shape)
        token = masking.mask.unsqueeze(-1).expand(-1, -1, self.config.patch_size**2)
        mask = self.crop(unpatchify(token, self.config.grid, self.config.patch_size), image.shape)
        return ViTMAEOutput(logits, mask.clone(), masking.mask, latent)

    def masking(self, noise: Tensor, mask_ratio: float, *, stable: bool = False) -> Masking:
        """Which tokens noise (B, L) hides, in the mode `auto_encode` of the reference."""
        return mask_by_noise(noise, n_kept(noise.shape[1], mask_ratio), stable=stable)

    def predict_last(
        self, image: Tensor, mask_ratio: float, mode: str = "predict_last", *, stable: bool = False
    ) -> ViTMAEOutput:
        """Hide the last int(ratio·T) volumes of all parcels, as the `train_mode`s of the reference.

        See lines 1025 to 1059 there.

        Patches are hidden whole, so `predict_last` hides the patch in which the span begins too;
        `predict_last_pixel` instead sets that part of it to 0 (also in the padding's rows); any
        other mode (the reference calls one `causal_attention`) leaves it visible.
        """
        p, (rows, columns) = self.config.patch_size, self.config.grid
        n_volumes = int(mask_ratio * image.shape[-1])
        end = image.shape[-1] + self.padding(image.shape)[1]  # in columns of the padded picture
        last_patch = math.ceil(end / p)
        n_hidden = (last_patch * p - (end - n_volumes)) // p
        if mode == "predict_last" and (end - n_volumes) % p:
            n_hidden += 1
        first_patch = last_patch - n_hidden
        noise = torch.zeros(len(image), rows, columns, device=image.device)
        noise[:, :, first_patch:last_patch] = 1
        masking = mask_by_noise(noise.flatten(1), rows * (columns - n_hidden), stable=stable)
        output: ViTMAEOutput
        if mode != "predict_last_pixel":
            output = self(image, masking)
            return output
        in_tokens = end - first_patch * p
        n_zero = max(n_volumes - in_tokens, 0)
        output = self(image, masking, range(first_patch * p - n_zero, first_patch * p))
        output.mask[..., -n_volumes:-in_tokens] = 1
        return output

    def loss(self, output: ViTMAEOutput, image: Tensor) -> Tensor:
        """Mean squared error over the hidden values; NaN when nothing is hidden."""
        return ((output.logits - image).square() * output.mask).sum() / output.mask.sum()
