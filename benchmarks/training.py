"""Speed and memory of training against named peers in the same run.

`python -m benchmarks.training [--models tiny 13M 111M] [--threads 1]`:

* the loader: windows per second of the mapped store, beside what is usual: the series' TSV read by
  pandas for every window, and an .npz per recording, through torch's DataLoader. All give the same
  windows, which is asserted;
* a step (forward, backward, AdamW) of one window: processor seconds and the peak of memory, beside
  transformers' ViTMAE for the image models and plain PyTorch with explicit attention matrices for
  the 13M. Loss (and for the image models the gradient's norm) agree, which is asserted. Memory is
  the peak of a process of its own, above that of importing torch.

Ours and the peers take turns; times are the processor's, since other work on the machine stretches
the clock's.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.model import child, resident_peak, write_checkpoint
from benchmarks.peers import EagerBrainLM, Inputs, load_vitmae, make_inputs, run_vitmae
from brainlm_bids.files import write_series
from brainlm_bids.model.checkpoint import load_model
from brainlm_bids.model.config import ARCHITECTURES, VITMAE_DIVISOR, BrainLMConfig
from brainlm_bids.training.loader import Schedule, WindowSet, load
from brainlm_bids.training.objective import MaskedPrediction, decay_groups
from brainlm_bids.training.prediction_head import trainable
from brainlm_bids.training.store import Store, write_store

MODULE = "benchmarks.training"
AGREEMENT = 1e-4  # relative, of loss and gradient norm
Step = Callable[[], tuple[float, float]]

# ---- the loader ----------------------------------------------------------------------------------


class PerRecording(Dataset[Tensor]):
    """The peers: one file per recording, read whole for every window."""

    def __init__(self, files: list[Path], windows: WindowSet) -> None:
        self.files, self.windows = files, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Tensor:
        recording, first, order = self.windows.locate(1, 0, index)
        file = self.files[recording]
        if file.suffix == ".npz":
            series = np.load(file)["series"]
        else:
            series = pd.read_csv(file, sep="\t").to_numpy(dtype=np.float32)
        window = series[first : first + self.windows.config.window].T
        return torch.from_numpy(np.ascontiguousarray(window)), torch.from_numpy(order)


def make_recordings(folder: Path, n: int, n_volumes: int) -> tuple[Store, dict[str, list[Path]]]:
    rng = np.random.default_rng(0)
    names, files = [f"parcel{k}" for k in range(424)], {"TSV by pandas": [], "npz": []}
    recordings = []
    for k in range(n):
        tsv = write_series(folder / f"{k}.tsv", names, rng.standard_normal((n_volumes, 424)))
        series = pd.read_csv(tsv, sep="\t").to_numpy(dtype=np.float32)
        np.savez(folder / f"{k}.npz", series=series)
        files["TSV by pandas"].append(tsv)
        files["npz"].append(folder / f"{k}.npz")
        recordings.append((f"sub-{k}_task-rest", f"sub-{k}", series))
    return write_store(folder / "store", recordings), files


def loader_table(n: int, n_volumes: int, epochs: int, workers: int) -> None:
    print(f"loader: {n} recordings of {n_volumes} volumes, {workers} workers, batches of 8\n")
    print("| who | windows/s | windows per processor second | processor time / ours |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        store, files = make_recordings(Path(scratch), n, n_volumes)
        windows = WindowSet(store, range(n), ARCHITECTURES["13M"], seed=1)
        first: dict[str, tuple[float, float]] = {}
        ours = None
        for name in ("mapped store", *files):
            wall, processor, seen = time.perf_counter(), processor_seconds(), {}
            if name == "mapped store":
                count = n * epochs
                plan = Schedule(n, 8, epochs, 1).plan(0, 0, 1, 8)
                for step in load(windows, plan, workers=workers, pin=False):
                    for batch in step:
                        if len(seen) < n:
                            seen |= dict(zip(batch.windows.tolist(), batch.signal, strict=True))
                ours = seen
            else:
                count = n
                loader = DataLoader(PerRecording(files[name], windows), 8, num_workers=workers)
                signals = torch.cat([signal for signal, _ in loader])
                assert ours is not None
                assert all(torch.equal(ours[k], signals[k]) for k in range(n)), name
            spent = time.perf_counter() - wall, processor_seconds() - processor
            first[name] = spent[0] / count, spent[1] / count
            ratio = first[name][1] / first["mapped store"][1]
            print(f"| {name} | {1 / first[name][0]:.0f} | {1 / first[name][1]:.0f} | {ratio:.1f} |")


def processor_seconds() -> float:
    """Of this process and of those that have ended."""
    import resource

    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        total += used.ru_utime + used.ru_stime
    return total


# ---- a step ------------------------------------------------------------------------------------


def our_step(name: str, folder: Path, batch: int) -> Step:
    config = ARCHITECTURES[name]
    inputs = make_inputs(config, batch, "cpu")
    network = load_model(folder, seed=0).network
    trainable(network, {"vit": True, "decoder": True})
    task = MaskedPrediction(network, inputs.xyz[0].numpy(), config.mask_ratio)
    optimiser = torch.optim.AdamW(decay_groups(task, 0.0), lr=1e-6)
    order = inputs.noise.argsort(dim=1)

    def step() -> tuple[float, float]:
        loss = task(inputs.signal, order).loss.mean()
        return _update(loss, optimiser)

    return step


def peer_step(name: str, folder: Path, batch: int) -> Step:
    config = ARCHITECTURES[name]
    inputs = make_inputs(config, batch, "cpu")
    kept = int(config.n_tokens * (1 - config.mask_ratio))
    hidden = (inputs.noise.argsort(dim=1).argsort(dim=1) >= kept).float()
    if isinstance(config, BrainLMConfig):
        weights = load_file(folder / "model.safetensors")
        for key, weight in weights.items():
            weight.requires_grad_("pos_embedding" not in key)
        model = EagerBrainLM(weights, config)
        optimiser = torch.optim.AdamW([w for w in weights.values() if w.requires_grad], lr=1e-6)

        def predict() -> tuple[Tensor, Tensor, Tensor]:
            xyz = inputs.xyz[:1].expand(batch, -1, -1)
            given = Inputs(inputs.signal, xyz, inputs.noise)
            guess = model.decode(*model.encode(given, kept), xyz)
            mask = hidden.view(*guess.shape[:3], 1).expand_as(guess)
            return guess, inputs.signal.view(guess.shape), mask
    else:
        vitmae = load_vitmae(folder, None)
        optimiser = torch.optim.AdamW([w for w in vitmae.parameters() if w.requires_grad], lr=1e-6)
        given = Inputs(inputs.signal / VITMAE_DIVISOR, inputs.xyz, inputs.noise)
        patch, (rows, columns) = config.patch_size, config.grid
        whole = hidden.view(batch, rows, columns)
        whole = whole.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        top, left = (config.image_size[0] - 424) // 2, (config.image_size[1] - 200) // 2
        mask = whole[:, top : top + 424, left : left + 200]

        def predict() -> tuple[Tensor, Tensor, Tensor]:
            return run_vitmae(vitmae, "encoder+decoder", given), given.signal, mask

    def step() -> tuple[float, float]:
        guess, truth, counted = predict()
        error = ((guess - truth).square() * counted).flatten(1).sum(1)
        return _update((error / counted.flatten(1).sum(1)).mean(), optimiser)

    return step


def _update(loss: Tensor, optimiser: torch.optim.Optimizer) -> tuple[float, float]:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    weights = [w for group in optimiser.param_groups for w in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(weights, float("inf"))
    optimiser.step()
    return float(loss.detach()), float(norm)


STEPS: dict[str, Callable[[str, Path, int], Step]] = {"ours": our_step, "peer": peer_step}


def measure_speed(args: argparse.Namespace) -> dict[str, Any]:
    """Child: processor seconds of a step, after one that is not counted and that must agree."""
    steps = {who: make(args.model, args.folder, args.batch) for who, make in STEPS.items()}
    found = {who: step() for who, step in steps.items()}
    for i, what in enumerate(("loss", "gradient")):
        if what == "gradient" and isinstance(ARCHITECTURES[args.model], BrainLMConfig):
            continue  # torch's own gradient of the 65-tap convolution is wrong on some CPUs
        ratio = found["peer"][i] / found["ours"][i]
        assert abs(ratio - 1) < AGREEMENT, f"{what} of the peer is {ratio} of ours"
    times: dict[str, list[float]] = {who: [] for who in steps}
    for _ in range(args.repeats):
        for who, step in steps.items():
            began = time.process_time()
            step()
            times[who].append(time.process_time() - began)
    return {who: median(values) / args.batch for who, values in times.items()}


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    """Child: MB at the peak of two steps; `who` torch: of importing what this file imports."""
    if args.who != "torch":
        step = STEPS[args.who](args.model, args.folder, args.batch)
        step(), step()
    return {"peak": resident_peak() / 1e6}


def step_table(args: argparse.Namespace) -> None:
    alone = child(args, "memory", MODULE, who="torch")["peak"]
    print(f"\na step on the CPU, {args.threads} thread(s), micro-batch {args.batch}\n")
    print("| network | who | processor s/window | / ours | MB above importing torch |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.models:
            folder = Path(scratch) / name
            write_checkpoint(folder, name)
            choices = {"model": name, "folder": folder, "batch": args.batch}
            speed = child(args, "speed", MODULE, **choices)
            peer = "plain torch" if name in ("tiny", "13M") else "transformers"
            for who, said in (("ours", "ours"), ("peer", peer)):
                peak = child(args, "memory", MODULE, who=who, **choices)["peak"] - alone
                ratio = speed[who] / speed["ours"]
                print(f"| {name} | {said} | {speed[who]:.2f} | {ratio:.2f} | {peak:.0f} |")
            (folder / "model.safetensors").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = ["tiny", "13M", "111M", "650M"]
    parser.add_argument("--models", nargs="*", choices=known, default=["tiny", "13M", "111M"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1, help="windows in a step (1)")
    parser.add_argument("--recordings", type=int, default=24, help="of the loader's table (24)")
    parser.add_argument("--workers", type=int, default=0, help="of the loader's table (0)")
    for name in ("child", "model", "who"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        print(json.dumps({"speed": measure_speed, "memory": measure_memory}[args.child](args)))
        return
    loader_table(args.recordings, 490, 20, args.workers)
    if args.models:
        step_table(args)


if __name__ == "__main__":
    main()
