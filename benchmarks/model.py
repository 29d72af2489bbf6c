"""Speed, operations and memory of the networks against a named peer in the same run.

`python -m benchmarks.model [--models 13M 111M 650M] [--device cpu|cuda] [--bfloat16]`, for three
tasks: the CLS token alone with nothing masked (`embedding`), all latents (`encoder`), and masked
values at the mask ratio of training (`encoder+decoder`). The peers compute the same numbers from
the same checkpoint, which is asserted before anything is timed:

* image family: transformers' ViTMAEForPreTraining as it comes (scaled_dot_product_attention), and
  with attn_implementation="eager" (explicit attention matrices, as in the original code);
* 13M: `EagerBrainLM` of `benchmarks.peers`, plain PyTorch with explicit attention matrices.

Ours and the peers take turns, so that what else the machine does hits all of them; on a busy CPU
the ratio of processor time with one thread is the most reliable. Weights are random, in float32; on
CUDA everything runs under bfloat16 autocast, on a CPU ours does so too with --bfloat16. Operations
are those of matrix products and convolutions, counted by torch, a multiplication and an addition
being two; their peak on a CPU is what products of large matrices reach in the same run. Memory: the
peak of a process of its own that loads the checkpoint and does one batch (resident on the CPU,
allocated on CUDA).
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
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.peers import (
    Inputs,
    Predict,
    eager_brainlm,
    make_inputs,
    transformers_vitmae,
)
from brainlm_bids.model.checkpoint import load_model, random_network
from brainlm_bids.model.config import ARCHITECTURES, BrainLMConfig, ModelConfig, config_content
from brainlm_bids.model.masking import mask_by_noise, n_kept

# Dense bfloat16 of the data sheets, FLOP/s.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
STAGES = ("embedding", "encoder", "encoder+decoder")
ROUNDED = "ours, bfloat16"
SIZES = ((1024, 1024, 1024), (960, 5120, 1280), (4096, 512, 1024))  # of products, for the peak
AGREEMENT = 2e-5  # largest absolute difference between two float32 implementations

# ---- ours --------------------------------------------------------------------------------------


def ours(folder: Path, stage: str, inputs: Inputs, device: str) -> Predict:
    model = load_model(folder, seed=0, device=device)
    network, coords = model.network, inputs.xyz[0]
    ratio = model.config.mask_ratio if stage == "encoder+decoder" else 0.0
    masking = mask_by_noise(inputs.noise, n_kept(model.config.n_tokens, ratio))
    signal = inputs.signal * network.unit  # the peers take the network's own units
    if stage == "encoder+decoder":
        return lambda: network.predict(signal, coords, masking).values / network.unit
    only = stage == "embedding"
    return lambda: network.encode(signal, coords, masking.keep, cls_only=only).latent


def ours_in_bfloat16(folder: Path, stage: str, inputs: Inputs, device: str) -> Predict:
    exact = ours(folder, stage, inputs, device)

    def predict() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return exact().float()

    return predict


def implementations(
    config: ModelConfig, *, rounded: bool = False
) -> dict[str, Callable[[Path, str, Inputs, str], Predict]]:
    """Ours first, then the peers."""
    own = {"ours": ours} | ({ROUNDED: ours_in_bfloat16} if rounded else {})
    if isinstance(config, BrainLMConfig):
        return own | {"eager": eager_brainlm}
    return own | {
        "transformers": transformers_vitmae(None),
        "transformers eager": transformers_vitmae("eager"),
    }


# ---- counting and measuring --------------------------------------------------------------------


def operations(predict: Predict) -> float:
    """Floating-point operations of the products and convolutions of one batch."""

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # of shapes

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={on_cpu: attention}) as counter:
        predict()
    return float(counter.get_total_flops())


def product_peak(dtype: torch.dtype) -> float:
    """FLOP/s and thread of the fastest products of large matrices on the CPU."""
    best = 0.0
    for rows, inner, columns in SIZES:
        x, weight = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
        F.linear(x, weight)
        times = [seconds(lambda x=x, w=weight: F.linear(x, w), "cpu")[1] for _ in range(5)]  # type: ignore[misc]
        best = max(best, 2.0 * rows * inner * columns / min(times))
    return best


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
    """Largest difference of each peer from ours. Raises AssertionError above the limit."""
    expected = predictions["ours"]()
    computed = expected.isfinite()  # not the visible values of a masked pass
    found = {}
    for name, predict in predictions.items():
        found[name] = (predict() - expected)[computed].abs().max().item()
        if name != ROUNDED:
            assert found[name] <= AGREEMENT, f"{name} differs from ours by {found[name]:.1e}"
    return found


def cosine(predictions: dict[str, Predict], device: str) -> float:
    """Smallest cosine of CLS in bfloat16 to CLS in float32."""
    exact, predict = predictions["ours"]()[:, 0], predictions.get(ROUNDED, predictions["ours"])
    with autocast(device):
        rough = predict()[:, 0]
    return float(F.cosine_similarity(exact, rough.float()).min())


def measure_speed(args: argparse.Namespace) -> dict[str, object]:
    """Child: wall-clock and processor times of all implementations, which take turns."""
    config, device = ARCHITECTURES[args.model], args.device
    inputs = make_inputs(config, args.batch, device)
    with torch.inference_mode():
        predictions = {
            name: make(args.folder, args.stage, inputs, device)
            for name, make in implementations(config, rounded=args.bfloat16).items()
        }
        difference = agree(predictions)
        counts = {name: operations(predict) for name, predict in predictions.items()}
        alike = None
        if args.stage == "embedding" and (device == "cuda" or args.bfloat16):
            alike = cosine(predictions, device)
        peaks = {}
        if device == "cpu":
            kinds = {n: torch.bfloat16 if n == ROUNDED else torch.float32 for n in predictions}
            known = {kind: product_peak(kind) for kind in set(kinds.values())}
            peaks = {name: known[kind] for name, kind in kinds.items()}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in predictions}
        with autocast(device):
            for predict in predictions.values():  # warm up what differs under autocast
                seconds(predict, device)
            for _ in range(args.repeats):
                for name, predict in predictions.items():
                    times[name].append(seconds(predict, device))
    columns = {name: list(zip(*pairs, strict=True)) for name, pairs in times.items()}
    return {
        "times": columns,
        "difference": difference,
        "cosine": alike,
        "operations": counts,
        "peaks": peaks,
    }


def measure_memory(args: argparse.Namespace) -> dict[str, object]:
    """Child: peak memory in MB of loading and one batch; `who` torch: of importing torch alone."""
    if args.who != "torch":
        config = ARCHITECTURES[args.model]
        inputs = make_inputs(config, args.batch, args.device)
        with torch.inference_mode(), autocast(args.device):
            predict = implementations(config, rounded=True)[args.who](
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
    command += ["--bfloat16"] if getattr(args, "bfloat16", False) else []
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
    for stage in args.stages:
        choices = {"model": name, "folder": folder, "stage": stage, "batch": args.batch}
        speed = child(args, "speed", **choices)
        wall, processor = ({w: t[i] for w, t in speed["times"].items()} for i in (0, 1))
        for who in wall:
            peak = child(args, "memory", who=who, **choices)["peak"]
            cells = [f"{name} {stage}", who, f"{args.batch / median(wall[who]):.3g}"]
            cells += [f"{f(wall[who]) / f(wall['ours']):.2f}" for f in (median, min)]
            cells.append(f"{min(processor[who]) / min(processor['ours']):.2f}")
            count = speed["operations"][who]
            if args.device == "cpu":
                rate, peak_rate = count / min(processor[who]), speed["peaks"][who]
            else:
                rate, peak_rate = count / median(wall[who]), device_peak()
            cells += [f"{count / args.batch / 1e9:.0f}", f"{rate / 1e9:.0f}"]
            cells.append(f"{rate / peak_rate:.0%}")
            cells += [f"{peak:.0f}", f"{peak - baseline:.0f}", f"{speed['difference'][who]:.0e}"]
            print("| " + " | ".join(cells) + " |", flush=True)
        if speed["cosine"] is not None:
            print(f"smallest cosine of CLS, bfloat16 to float32: {speed['cosine']:.6f}")


def table(args: argparse.Namespace) -> None:
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} threads"
    baseline = child(args, "memory", who="torch")["peak"]
    print(f"torch {torch.__version__}, {args.device} ({device}), batch {args.batch}")
    print(f"memory of importing torch alone: {baseline:.0f} MB; net is above that\n")
    head = ["network, task", "who", "windows/s", "its time / ours: median", "minimum"]
    head += ["processor time, minimum", "GFLOP a window", "GFLOP/s", "of peak"]
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
    parser.add_argument(
        "--bfloat16", action="store_true", help="ours in bfloat16 too, on a CPU that has it"
    )
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
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
