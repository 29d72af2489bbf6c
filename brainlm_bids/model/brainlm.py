"""BrainLM 13M: latents and predictions from parcel series and their MNI coordinates.

A masked autoencoder whose tokens are pairs of a parcel and a time patch of 20 volumes, with the
coordinates of the parcel projected in (Ortega Caro et al. 2024; modeling_brainlm.py of
vandijklab/BrainLM at commit b591d88). docs/reference/networks.md describes it step by step.

Signals (B, P, T) robust-scaled, coordinates (B, P, 3) in mm, tokens (B, L, D) with L = P × n and
token i = (parcel, patch) = divmod(i, n), K of them seen; h heads of d dimensions. Parameters have
the names of the released checkpoints. float32.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from brainlm_bids.model.attention import AttentionLayer, SelfAttention, tokens_at
from brainlm_bids.model.config import POSITION_ROWS, BrainLMConfig
from brainlm_bids.model.masking import Masking, mask_by_noise, n_kept
from brainlm_bids.model.subspace import Subspace, attend, subspace


def time_positions(width: int, rows: int = POSITION_ROWS) -> Tensor:
    """Sine (even) and cosine (odd) table of Vaswani et al. 2017, section 3.5: (rows, width)."""
    # On the CPU also where modules are built without memory: torch's meta device would import
    # sympy for this, 76 MB and seconds.
    steps = torch.arange(0, width, 2, device="cpu")
    frequency = torch.exp(steps * (-math.log(10000.0) / width))
    angle = torch.arange(rows, device="cpu").unsqueeze(1) * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class TimePositions(nn.Module):
    """The table as a buffer: the checkpoints hold it."""

    pe: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("pe", time_positions(width))


class TokenConvolution(nn.Module):
    """A convolution along the token axis, one kernel per head, zero padded.

    The parameter is that of nn.Conv2d(h, h, (k, 1), groups=h), and so is the result. It is computed
    as products of banded matrices with blocks of tokens: an eighth of the time on a CPU, without
    copies of the values, and with a right gradient (that of oneDNN in torch 2.13, float32, is wrong
    for 65 taps on CPUs with AVX-512).
    """

    block = 64  # tokens; short blocks compute many zeros of the band, long ones more

    def __init__(self, heads: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(heads, 1, kernel, 1))

    def band(self) -> Tensor:
        """(h, block, block + k − 1): in row i the kernel, shifted to the right by i."""
        heads, _, kernel, _ = self.weight.shape
        # Rows of one value more, read as if they were not: each is shifted against the last.
        rows = F.pad(self.weight.flatten(1), (0, self.block)).repeat(1, self.block)
        width = self.block + kernel - 1
        return rows[:, : self.block * width].view(heads, self.block, width)

    def forward(self, v: Tensor) -> Tensor:
        """Convolve values (B, h, L, d) along the tokens."""
        n_tokens, reach = v.shape[2], self.weight.shape[2] // 2
        band = self.band().to(v.dtype)
        blocks = []
        for start in range(0, n_tokens, self.block):
            stop = min(start + self.block, n_tokens)
            low, high = max(start - reach, 0), min(stop + reach, n_tokens)
            shift = start - reach  # the token that the first column of the band belongs to
            blocks.append(band[:, : stop - start, low - shift : high - shift] @ v[:, :, low:high])
        return torch.cat(blocks, dim=2)


class ConvolvedAttention(SelfAttention):
    """Softmax attention plus a convolution of the values along the token axis.

    The original is a "Nyströmformer" that, as configured, never uses Nyström's approximation; what
    stays of it is the convolution (65 tokens wide, one kernel per head), which makes the result
    depend on the order of the tokens.
    """

    def __init__(self, width: int, heads: int, kernel: int) -> None:
        super().__init__(width, heads)
        self.conv = TokenConvolution(heads, kernel)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None = None) -> Tensor:
        """Attention of queries to keys, plus the convolution of the values, (B, h, L, d)."""
        near = self.conv(v)
        if rows is not None:
            near = near.gather(2, rows[:, None, :, None].expand(-1, v.shape[1], -1, v.shape[3]))
        mixed: Tensor = super().mix(q, k, v) + near
        return mixed


class AddNorm(nn.Module):
    """Linear, add the residual, LayerNorm (post-norm, as in BERT)."""

    def __init__(self, inner: int, width: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Project x, add the residual and normalise, all (B, L, D)."""
        x = self.LayerNorm(self.dense(x) + residual)
        return x


class Layer(AttentionLayer):
    """Post-norm transformer block."""

    def __init__(self, width: int, heads: int, inner: int, config: BrainLMConfig) -> None:
        super().__init__()
        eps = config.layer_norm_eps
        self.attention = nn.ModuleDict(
            {
                "self": ConvolvedAttention(width, heads, config.conv_kernel_size),
                "output": AddNorm(width, width, eps),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = AddNorm(inner, width, eps)

    def forward(
        self, x: Tensor, rows: Tensor | None = None, space: Subspace | None = None
    ) -> Tensor:
        """Output of the block for tokens (B, L, D): all, or those of `rows` (B, M).

        `space` is another form of x, in which attention costs less.
        """
        attention = self.attention["self"]
        assert isinstance(attention, ConvolvedAttention)
        if space is None:
            mixed = attention(x, rows)
        else:
            with torch.autocast("cpu", enabled=False):  # in float32, which is also faster here
                mixed = tokens_at(attend(attention, space, attention.conv), rows)
        x = self.attention["output"](mixed, tokens_at(x, rows))
        x = self.output(F.gelu(self.intermediate["dense"](x)), x)
        return x

    def probabilities(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Attention (B, h, stop − start, L) of the queries start … stop."""
        attention = self.attention["self"]
        assert isinstance(attention, SelfAttention)
        return attention.probabilities(x, start, stop)


class Embeddings(nn.Module):
    """Time patches of all parcels as tokens."""

    def __init__(self, config: BrainLMConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.patch = config.timepoint_patching_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.signal_embedding_projection = nn.Linear(self.patch, width)
        self.xyz_embedding_projection = nn.Linear(3, width)
        self.pos_embedding = TimePositions(width)

    def forward(self, signal: Tensor, xyz: Tensor) -> Tensor:
        """Tokens (B, L, D), parcel by parcel, for signals (B, P, T) at (B, P, 3) mm."""
        x: Tensor = self.signal_embedding_projection(signal.unflatten(-1, (-1, self.patch)))
        x = x + self.xyz_embedding_projection(xyz).unsqueeze(2)  # (B, P, n, D)
        x = x + self.pos_embedding.pe[: x.shape[2]]
        return x.flatten(1, 2)  # (B, L, D), parcel by parcel

    def space(self, signal: Tensor, xyz: Tensor, keep: Tensor) -> Subspace:
        """CLS and the tokens `keep` (B, K) of `forward`, as sums of 24 + n vectors."""
        to_signal, to_xyz = self.signal_embedding_projection, self.xyz_embedding_projection
        n = signal.shape[-1] // self.patch
        offset = to_signal.bias + to_xyz.bias
        vectors = [to_signal.weight.T, to_xyz.weight.T, self.pos_embedding.pe[:n] + offset]
        values = signal.unflatten(-1, (n, self.patch))  # (B, P, n, patch)
        places = xyz.unsqueeze(2).expand(-1, -1, n, -1)
        which = torch.eye(n).expand(*values.shape[:2], -1, -1)
        weights = torch.cat([values, places, which], dim=-1).flatten(1, 2)
        weights = F.pad(tokens_at(weights, keep), (0, 1, 1, 0))
        weights[:, 0, -1] = 1  # CLS
        with torch.autocast("cpu", enabled=False):
            return subspace(weights, torch.cat([*vectors, self.cls_token[0]]))


class Encoder(nn.Module):
    """A transformer over the tokens that are seen, in the order in which they come."""

    def __init__(self, config: BrainLMConfig) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.embeddings = Embeddings(config)
        self.layers = [
            Layer(width, heads, config.intermediate_size, config)
            for _ in range(config.num_hidden_layers)
        ]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(self.layers)})
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.head_width = width // heads

    def forward(
        self, signal: Tensor, xyz: Tensor, keep: Tensor, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents, CLS first, all or those of `rows` (B, M), and the input of the last layer."""
        x = tokens_at(self.embeddings(signal, xyz), keep)
        x = torch.cat([self.embeddings.cls_token.expand(len(x), -1, -1), x], dim=1)
        space = self.embeddings.space(signal, xyz, keep) if self.spares(signal) else None
        *earlier, last = self.layers
        for layer in earlier:
            x, space = layer(x, space=space), None
        return self.layernorm(last(x, rows, space)), x

    def spares(self, signal: Tensor) -> bool:
        """Whether attention in the space of the tokens is worth it: on a CPU, without gradients."""
        n_vectors = self.embeddings.patch + 4 + signal.shape[-1] // self.embeddings.patch
        without_gradients = signal.device.type == "cpu" and not torch.is_grad_enabled()
        return without_gradients and 2 * n_vectors <= self.head_width


class Decoder(nn.Module):
    """A transformer over all tokens in raster order, hidden ones as mask tokens."""

    def __init__(self, config: BrainLMConfig) -> None:
        super().__init__()
        width, heads = config.decoder_hidden_size, config.decoder_num_attention_heads
        self.tanh = config.use_tanh_decoder
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_embed = nn.Linear(config.hidden_size, width)
        self.decoder_xyz_projection = nn.Linear(3, width)
        self.pos_embedding = TimePositions(width)
        self.decoder_layers = nn.ModuleList(
            Layer(width, heads, config.decoder_intermediate_size, config)
            for _ in range(config.decoder_num_hidden_layers)
        )
        self.decoder_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.decoder_pred1 = nn.Linear(width, width // 2)
        self.decoder_pred2 = nn.Linear(width // 2, config.timepoint_patching_size)

    def forward(
        self, latent: Tensor, xyz: Tensor, restore: Tensor, read: Tensor | None = None
    ) -> Tensor:
        """Predictions (B, P, n, volumes of a patch) from the latents of the tokens seen.

        With `read` (B, M) only these tokens are predicted; the others are NaN.
        """
        x: Tensor = self.decoder_embed(latent)
        cls, kept = x[:, :1], x[:, 1:]  # CLS gets neither coordinates nor a position
        n_masked = restore.shape[1] - kept.shape[1]
        x = torch.cat([kept, self.mask_token.expand(len(x), n_masked, -1)], dim=1)
        x = x.gather(1, restore.unsqueeze(-1).expand(-1, -1, x.shape[-1]))  # raster order
        x = x.unflatten(1, (xyz.shape[1], -1))  # (B, P, n, D)
        x = x + self.decoder_xyz_projection(xyz).unsqueeze(2)
        x = x + self.pos_embedding.pe[: x.shape[2]]
        n = x.shape[2]
        x = torch.cat([cls, x.flatten(1, 2)], dim=1)
        *earlier, last = self.decoder_layers
        for layer in earlier:
            x = layer(x)
        x = last(x)[:, 1:] if read is None else last(x, 1 + read)  # without CLS
        x = F.leaky_relu(self.decoder_pred1(self.decoder_norm(x)), 0.1)
        x = self.decoder_pred2(x)
        x = x.tanh() if self.tanh else x
        if read is not None:
            whole = x.new_full((len(x), restore.shape[1], x.shape[-1]), float("nan"))
            x = whole.scatter(1, read.unsqueeze(-1).expand_as(x), x)
        x = x.unflatten(1, (-1, n))
        return x


class BrainLMOutput(NamedTuple):
    """logits (B, P, n, volumes of a patch), mask (B, P, n) 1 = hidden, latent (B, 1 + K, D)."""

    logits: Tensor
    mask: Tensor
    latent: Tensor


class BrainLM(nn.Module):
    """`vit` (the encoder) and `decoder`; see the top of this file for shapes."""

    def __init__(self, config: BrainLMConfig) -> None:
        super().__init__()
        self.config = config
        self.vit = Encoder(config)
        self.decoder = Decoder(config)

    def forward(
        self, signal: Tensor, xyz: Tensor, masking: Masking, *, hidden_only: bool = False
    ) -> BrainLMOutput:
        """Predict a signal of which a part is hidden.

        Parameters
        ----------
        signal
            (B, P, T) robust-scaled.
        xyz
            (B, P, 3) MNI coordinates, mm.
        masking
            Which tokens are visible, and in which order.
        hidden_only
            Whether only the masked tokens are predicted; the others are NaN then.

        Returns
        -------
        BrainLMOutput
            Predictions, mask and latents.
        """
        latent, _ = self.vit(signal, xyz, masking.keep)
        logits = self.decoder(latent, xyz, masking.restore, masking.hidden if hidden_only else None)
        return BrainLMOutput(logits, masking.mask.view(logits.shape[:3]), latent)

    def masking(self, noise: Tensor, mask_ratio: float, *, stable: bool = False) -> Masking:
        """Which tokens noise (B, L) hides, as in the reference (lines 130 to 160)."""
        return mask_by_noise(noise, n_kept(noise.shape[1], mask_ratio), stable=stable)

    def loss(self, output: BrainLMOutput, signal: Tensor, kind: str | None = None) -> Tensor:
        """Mean error over the hidden values; NaN when nothing is hidden, as in the reference."""
        error = output.logits - signal.view(output.logits.shape)
        error = error.abs() if (kind or self.config.loss_fn) == "mae" else error.square()
        mask = output.mask.unsqueeze(-1).expand_as(error)
        return (error * mask).sum() / mask.sum()
