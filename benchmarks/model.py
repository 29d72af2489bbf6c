"""Speed and memory of the networks against a named peer in the same run.

`python -m benchmarks.model [--models 13M 111M 650M] [--device cpu|cuda]`: windows per second and
peak memory, encoder alone with nothing hidden, and encoder and decoder at the mask ratio of
training. The peers compute the same numbers from the same checkpoint, which is asserted before
anything is timed:

* image family: transformers' ViTMAEForPreTraining as it comes (scaled_dot_product_attention), and
  with attn_implementation="eager" (explicit attention matrices, as in the original code);
* 13M: `EagerBrainLM` below, plain PyTorch with explicit attention matrices.

Ours and the peers take turns, so that what else the machine does hits all of them; on a busy CPU
the ratio of processor time with one thread is the most reliable. Weights are random, in float32; on
CUDA everything runs under bfloat16 autocast. Memory: the peak of a process
of its own that loads the checkpoint and does one batch (resident on the CPU, allocated on CUDA).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file, save_file
from torch import Tensor

from brainlm_bids.model.checkpoint import load_model, random_network
from brainlm_bids.model.config import ARCHITECTURES, BrainLMConfig, ModelConfig, config_content
from brainlm_bids.model.masking import mask_by_noise, n_kept

# Dense bfloat16 of the data sheets, FLOP/s.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
STAGES = ("encoder", "encoder+decoder")
AGREEMENT = 2e-5  # largest absolute difference between two float32 implementations
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


# ---- ours --------------------------------------------------------------------------------------


def ours(folder: Path, stage: str, inputs: Inputs, device: str) -> Predict:
    model = load_model(folder, seed=0, device=device)
    network, coords = model.network, inputs.xyz[0]
    ratio = model.config.mask_ratio if stage == "encoder+decoder" else 0.0
    masking = mask_by_noise(inputs.noise, n_kept(model.config.n_tokens, ratio))
    signal = inputs.signal * network.unit  # the peers take the network's own units
    if stage == "encoder":
        return lambda: network.encode(signal, coords, masking.keep).latent
    return lambda: network.masked_pass(signal, coords, masking).predicted


# ---- the peers ---------------------------------------------------------------------------------


def load_vitmae(folder: Path, attention: str | None) -> Any:
    """transformers' module; three channels, as the checkpoints have."""
    from transformers import ViTMAEForPreTraining
    from transformers.utils import logging

    logging.disable_progress_bar()
    return ViTMAEForPreTraining.from_pretrained(folder, attn_implementation=attention).eval()


def run_vitmae(model: Any, stage: str, inputs: Inputs) -> Tensor:
    """Latents, or the predicted picture (B, P, T)."""
    size, patch = model.config.image_size, model.config.patch_size
    top, left = ((size[i] - inputs.signal.shape[1 + i]) // 2 for i in (0, 1))
    padded = F.pad(inputs.signal, (left, left, top, top), value=-1.0)
    image = padded.unsqueeze(1).expand(-1, 3, -1, -1)
    encoded = model.vit(image, noise=inputs.noise)
    if stage == "encoder":
        return encoded.last_hidden_state
    tokens = model.decoder(encoded.last_hidden_state, encoded.ids_restore).logits
    grid = (size[0] // patch, size[1] // patch)
    picture = tokens.unflatten(-1, (patch, patch, 3)).unflatten(1, grid)
    picture = picture.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), 3, *size).mean(1)
    return picture[:, top : size[0] - top, left : size[1] - left]


def transformers_vitmae(attention: str | None) -> Callable[[Path, str, Inputs, str], Predict]:
    def make(folder: Path, stage: str, inputs: Inputs, device: str) -> Predict:
        model = load_vitmae(folder, attention).to(device)
        if stage == "encoder":
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
    if stage == "encoder":
        return lambda: model.encode(inputs, n_tokens)[0]
    n_keep = int(n_tokens * (1 - config.mask_ratio))
    return lambda: model.decode(*model.encode(inputs, n_keep), inputs.xyz).flatten(2)


def implementations(config: ModelConfig) -> dict[str, Callable[[Path, str, Inputs, str], Predict]]:
    """Ours first, then the peers."""
    if isinstance(config, BrainLMConfig):
        return {"ours": ours, "eager": eager_brainlm}
    return {
        "ours": ours,
        "transformers": transformers_vitmae(None),
        "transformers eager": transformers_vitmae("eager"),
    }


# ---- counting and measuring --------------------------------------------------------------------


def layer_flops(n_tokens: int, width: int, inner: int) -> float:
    """One transformer layer, a multiplication and an addition counting as two."""
    return 2.0 * n_tokens * (4 * width**2 + 2 * width * inner) + 4.0 * n_tokens**2 * width


def flops(config: ModelConfig, stage: str) -> float:
    """Of one window: layers and the last projection; embedding and convolution are below 1 %."""
    if isinstance(config, BrainLMConfig):
        projected = config.decoder_hidden_size // 2
    else:
        projected = config.patch_size**2
    n_tokens = config.n_tokens
    ratio = config.mask_ratio if stage == "encoder+decoder" else 0.0
    n_seen = 1 + int(n_tokens * (1 - ratio))
    encoder = layer_flops(n_seen, config.hidden_size, config.intermediate_size)
    total = config.num_hidden_layers * encoder
    if stage == "encoder":
        return total
    width = config.decoder_hidden_size
    decoder = layer_flops(1 + n_tokens, width, config.decoder_intermediate_size)
    return total + config.decoder_num_hidden_layers * decoder + 2.0 * n_tokens * width * projected


def device_peak() -> float:
    """Dense bfloat16 FLOP/s of the CUDA device, NaN if it is not in the table."""
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAKS.items() if known in name), float("nan"))


def autocast(device: str) -> AbstractContextManager[object]:
    return torch.autocast("cuda", dtype=torch.bfloat16) if device == "cuda" else nullcontext()


def seconds(predict: Predict, device: str) -> tuple[float, float]:
    """Wall-clock and processor time of one batch."""
    start, processor = time.perf_counter(), time.process_time()
    predict()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - processor


def agree(predictions: dict[str, Predict]) -> dict[str, float]:
    """Largest difference of each peer from ours, in float32. Raises AssertionError above limit."""
    expected = predictions["ours"]()
    found = {}
    for name, predict in predictions.items():
        found[name] = (predict() - expected).abs().max().item()
        assert found[name] <= AGREEMENT, f"{name} differs from ours by {found[name]:.1e}"
    return found


def measure_speed(args: argparse.Namespace) -> dict[str, object]:
    """Child: wall-clock and processor times of all implementations, which take turns."""
    config, device = ARCHITECTURES[args.model], args.device
    inputs = make_inputs(config, args.batch, device)
    with torch.inference_mode():
        predictions = {
            name: make(args.folder, args.stage, inputs, device)
            for name, make in implementations(config).items()
        }
        difference = agree(predictions)
        cosine = None
        if device == "cuda" and args.stage == "encoder":
            exact = predictions["ours"]()[:, 0]
            with autocast(device):
                rough = predictions["ours"]()[:, 0]
            cosine = F.cosine_similarity(exact, rough.float()).min().item()
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in predictions}
        with autocast(device):
            for predict in predictions.values():  # warm up what differs under autocast
                seconds(predict, device)
            for _ in range(args.repeats):
                for name, predict in predictions.items():
                    times[name].append(seconds(predict, device))
    columns = {name: list(zip(*pairs, strict=True)) for name, pairs in times.items()}
    return {"times": columns, "difference": difference, "cosine": cosine}


def measure_memory(args: argparse.Namespace) -> dict[str, object]:
    """Child: peak memory in MB of loading and one batch; `who` torch: of importing torch alone."""
    if args.who != "torch":
        config = ARCHITECTURES[args.model]
        inputs = make_inputs(config, args.batch, args.device)
        with torch.inference_mode(), autocast(args.device):
            predict = implementations(config)[args.who](
                args.folder, args.stage, inputs, args.device
            )
            seconds(predict, args.device)
    if args.device == "cuda":
        return {"peak": torch.cuda.max_memory_allocated() / 1e6}
    return {"peak": resident_peak() / 1e6}


def resident_peak() -> int:
    """Bytes; not by getrusage, whose ru_maxrss starts at the peak of the process that forked."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


# ---- the table ---------------------------------------------------------------------------------


def child(
    args: argparse.Namespace, what: str, module: str = "benchmarks.model", **choices: object
) -> dict[str, Any]:
    """Run a benchmark again for one measurement; a process of its own has a peak of its own."""
    command = [sys.executable, "-m", module, "--child", what, "--device", args.device]
    command += ["--threads", str(args.threads), "--repeats", str(args.repeats)]
    for key, value in choices.items():
        command += [f"--{key}", str(value)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def write_checkpoint(folder: Path, name: str) -> None:
    network = random_network(ARCHITECTURES[name], 0)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_content(network.config)))
    save_file(network.module.state_dict(), folder / "model.safetensors")


def rows(args: argparse.Namespace, name: str, folder: Path, baseline: float) -> None:
    for stage in STAGES:
        choices = {"model": name, "folder": folder, "stage": stage, "batch": args.batch}
        speed = child(args, "speed", **choices)
        wall, processor = ({w: t[i] for w, t in speed["times"].items()} for i in (0, 1))
        for who in wall:
            peak = child(args, "memory", who=who, **choices)["peak"]
            cells = [f"{name} {stage}", who, f"{args.batch / median(wall[who]):.3g}"]
            cells += [f"{f(wall[who]) / f(wall['ours']):.2f}" for f in (median, min)]
            if args.device == "cpu":
                cells.append(f"{median(processor[who]) / median(processor['ours']):.2f}")
            else:
                rate = flops(ARCHITECTURES[name], stage) * args.batch / median(wall[who])
                cells.append(f"{rate / 1e12:.0f} TFLOP/s, {rate / device_peak():.0%}")
            cells += [f"{peak:.0f}", f"{peak - baseline:.0f}", f"{speed['difference'][who]:.0e}"]
            print("| " + " | ".join(cells) + " |", flush=True)
        if speed["cosine"] is not None:
            print(f"smallest cosine of CLS, bfloat16 to float32: {speed['cosine']:.6f}")


def table(args: argparse.Namespace) -> None:
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} threads"
    baseline = child(args, "memory", who="torch")["peak"]
    print(f"torch {torch.__version__}, {args.device} ({device}), batch {args.batch}")
    print(f"memory of importing torch alone: {baseline:.0f} MB; net is above that\n")
    head = ["network, stage", "who", "windows/s", "its time / ours: median", "minimum"]
    head += ["processor time" if args.device == "cpu" else "of peak bfloat16"]
    head += ["peak MB", "net MB", "difference"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.models:
            folder = Path(scratch) / name
            write_checkpoint(folder, name)
            rows(args, name, folder, baseline)
            (folder / "model.safetensors").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--models",
        nargs="+",
        choices=["13M", "111M", "650M"],
        default=["13M", "111M"],
        help="650M takes 6 GB of memory and minutes",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, help="windows (1 on the CPU, 32 on CUDA)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    for name in ("child", "model", "stage", "who"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.batch = args.batch or (32 if args.device == "cuda" else 1)
    torch.set_num_threads(args.threads)
    if args.child:
        work = {"speed": measure_speed, "memory": measure_memory}[args.child]
        print(json.dumps(work(args)))
    else:
        table(args)


if __name__ == "__main__":
    main()
