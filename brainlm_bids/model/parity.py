"""`python -m brainlm_bids.model.parity FOLDER…`: does this implementation agree with the original?

A folder in the golden layout (BRAINLM.md 3) comes in: a checkpoint, inputs.npz, meta.json with the
list of cases, out_<case>.npz with arrays of the original code. Out goes one line per case and
array: the largest absolute difference. Exit code 1 above the tolerance, 2 for a folder that is not
one.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .brainlm import BrainLM, BrainLMOutput
from .checkpoint import LoadedModel, load_model
from .config import VITMAE_DIVISOR
from .networks import parcel_attention, parcel_tokens
from .vitmae import ViTMAE, ViTMAEOutput

TOLERANCE = 1e-5
ATTENTION_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Check:
    """One compared array. `difference` is NaN if it was not compared (`note` says why)."""

    case: str
    array: str
    difference: float
    ok: bool
    note: str = ""


def compare_folder(folder: Path) -> Iterator[Check]:
    """Run every case of a golden folder and compare every array that its files hold."""
    model = load_model(folder, seed=0)
    meta = _read_json(folder / "meta.json")
    cases = meta.get("cases")
    if not isinstance(cases, dict) or not cases:
        raise UserError(f"{folder / 'meta.json'}: holds no cases")
    inputs = _read_arrays(folder / "inputs.npz")
    if "signal" not in inputs:
        raise UserError(f"{folder / 'inputs.npz'}: holds no array 'signal'")
    for case, settings in cases.items():
        expected = _read_arrays(folder / f"out_{case}.npz")
        noise = _noise(folder, case, settings, inputs)
        with torch.inference_mode():
            # The reference sorts noise unstably, and how ties fall differs between builds of torch:
            # the order of tied tokens may be either of two, the same for all arrays of the case.
            runs = [
                _checks(model, inputs, settings, noise, case, expected, s) for s in (False, True)
            ]
        yield from min(runs, key=lambda checks: sum(not check.ok for check in checks))


def _checks(
    model: LoadedModel,
    inputs: dict[str, np.ndarray],
    settings: dict[str, Any],
    noise: Tensor,
    case: str,
    expected: dict[str, np.ndarray],
    stable: bool,
) -> list[Check]:
    trace = _run(model, inputs, settings, noise, stable)
    return [_compare(case, name, array, trace) for name, array in expected.items()]


def _run(
    model: LoadedModel,
    inputs: dict[str, np.ndarray],
    settings: dict[str, Any],
    noise: Tensor,
    stable: bool,
) -> "Trace":
    signal = torch.from_numpy(inputs["signal"].astype(np.float32))
    ratio = float(settings.get("mask_ratio", model.config.mask_ratio))
    if isinstance(model.module, BrainLM):
        xyz = torch.from_numpy(inputs["xyz"].astype(np.float32))
        xyz = xyz.expand(len(signal), *xyz.shape[-2:])
        masking = model.module.masking(noise, ratio, stable=stable)
        output = model.module(signal, xyz, masking)
        loss = model.module.loss(output, signal, settings.get("loss_fn"))
        return Trace(model.module, output, loss, masking.keep)
    image = _image(signal, inputs)
    mode = settings.get("train_mode", "auto_encode")
    if mode == "auto_encode":
        result = model.module(image, model.module.masking(noise, ratio, stable=stable))
    else:
        result = model.module.predict_last(image, ratio, mode, stable=stable)
    return Trace(model.module, result, model.module.loss(result, image), None)


def _image(signal: Tensor, inputs: dict[str, np.ndarray]) -> Tensor:
    """Rows from posterior to anterior, divided as the image models' inputs are."""
    if "y_order" in inputs:
        signal = signal[:, torch.from_numpy(inputs["y_order"].astype(np.int64))]
    elif "xyz" in inputs:
        signal = signal[:, torch.from_numpy(np.argsort(inputs["xyz"][:, 1], kind="stable"))]
    return signal / VITMAE_DIVISOR


@dataclass(frozen=True)
class Trace:
    """What one forward pass gave, from which every array of the files can be had."""

    module: BrainLM | ViTMAE
    output: BrainLMOutput | ViTMAEOutput
    loss: Tensor
    keep: Tensor | None

    def array(self, name: str, expected: np.ndarray) -> np.ndarray | None:
        """The array of this name, None if the name is not known."""
        value = self._plain(name) if name in self._table() else self._derived(name, expected)
        return None if value is None else value.numpy()

    def _table(self) -> dict[str, Callable[[], Tensor]]:
        out = self.output
        table: dict[str, Callable[[], Tensor]] = {
            "loss": lambda: self.loss,
            "mask": lambda: out.mask,
            "mask_image": lambda: out.mask,
            "logits": lambda: out.logits,
            "latent": lambda: out.latent,
            "cls": lambda: out.latent[:, 0],
            "cls_prenorm": lambda: out.states[-1][:, 0],
            "embedding": lambda: out.states[0],
            "hidden_last": lambda: out.states[-1],
            "latent_mean": lambda: out.latent[:, 1:].mean(1),
            "latent_max": lambda: out.latent[:, 1:].amax(1),
        }
        if isinstance(out, ViTMAEOutput):
            table["mask_token"] = lambda: out.mask_token
        elif self.keep is not None:
            table["parcel_latent"] = self._parcel_latent
            table["attn_parcel"] = lambda: self._parcel_attention()
            table["attn_parcel_rowsum"] = lambda: self._parcel_attention().sum(-1)
        return table

    def _plain(self, name: str) -> Tensor:
        return self._table()[name]()

    def _parcel_latent(self) -> Tensor:
        assert self.keep is not None
        return parcel_tokens(self.output.latent, self.keep, *self.output.mask.shape[1:])

    def _parcel_attention(self) -> Tensor:
        assert self.keep is not None and isinstance(self.module, BrainLM)
        layer, shape = self.module.vit.layers[-1], self.output.mask.shape[1:]
        return parcel_attention(layer, self.output.states[-2], self.keep, *shape)

    def _derived(self, name: str, expected: np.ndarray) -> Tensor | None:
        """Parts of other arrays (…_head, …_tail) and attentions (attn_<layer|last>[_cls_row])."""
        part = re.fullmatch(r"(\w+)_(head|tail)", name)
        if part and expected.ndim > 1:
            whole, n = part[1], expected.shape[1]
            if whole not in self._table():
                return None
            value = self._plain(whole)
            return value[:, :n] if part[2] == "head" else value[:, -n:]
        attention = re.fullmatch(r"attn_(\d+|last)(_cls_row)?", name)
        if not attention:
            return None
        n_layers = len(self.module.vit.layers)
        index = n_layers - 1 if attention[1] == "last" else int(attention[1])
        if index >= n_layers:
            return None
        layer, x = self.module.vit.layers[index], self.output.states[index]
        if attention[2]:
            return layer.probabilities(x, 0, 1)[:, :, 0]  # type: ignore[operator]
        return layer.probabilities(x, 0, x.shape[1])  # type: ignore[operator]


def _compare(case: str, name: str, expected: np.ndarray, trace: Trace) -> Check:
    found = trace.array(name, expected)
    if found is None:
        return Check(case, name, float("nan"), True, "not known to this command: NOT compared")
    if found.shape != expected.shape:
        return Check(case, name, float("inf"), False, f"{found.shape}, not {expected.shape}")
    if expected.dtype.kind in "bui":
        n_different = int((found != expected).sum())
        return Check(case, name, float(n_different), n_different == 0, "identical or not")
    wanted = expected.astype(np.float64)
    difference = np.abs(found.astype(np.float64) - wanted)
    both_nan = np.isnan(wanted) & np.isnan(found)  # the loss when nothing is masked
    difference = np.where(both_nan, 0.0, difference)
    allowed = ATTENTION_TOLERANCE if name.startswith("attn") else TOLERANCE
    if expected.dtype == np.float16:  # stored rounded: half a unit in the last place is not ours
        allowed = allowed + np.abs(np.spacing(expected)).astype(np.float64) / 2
    ok = bool((difference <= allowed).all())  # NaN on one side only compares as False
    return Check(case, name, float(difference.max(initial=0.0)), ok)


def _noise(
    folder: Path, case: str, settings: dict[str, Any], inputs: dict[str, np.ndarray]
) -> Tensor:
    """The case's noise: where meta.json points to, else noise_<case>.npz, else by its name."""
    pointer = settings.get("noise")
    own = folder / f"noise_{case}.npz"
    if isinstance(pointer, str) and ":" in pointer:
        file, _, key = pointer.partition(":")
        noise = _read_arrays(folder / file)[key]
    elif isinstance(pointer, str):
        noise = _read_arrays(folder / f"noise_{pointer}.npz")["noise"]
    elif own.is_file():
        noise = _read_arrays(own)["noise"]
    elif "noise" not in inputs:
        return torch.zeros(1, 0)
    else:
        noise = inputs["noise"]
        if case.endswith("identity"):  # tokens in raster order
            noise = np.broadcast_to(np.arange(noise.shape[1]), noise.shape)
    return torch.from_numpy(np.array(noise, dtype=np.float32))


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file) as content:
            return {key: content[key] for key in content.files}
    except FileNotFoundError:
        raise UserError(f"{file}: not found; a golden folder needs it") from None
    except Exception as error:  # zip, header and value errors of many kinds
        raise UserError(f"{file}: damaged or truncated ({type(error).__name__})") from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not readable ({type(error).__name__})") from None
    return content if isinstance(content, dict) else {}


def _report(check: Check) -> str:
    if check.note == "identical or not":
        text = "identical" if check.ok else f"{check.difference:.0f} values DIFFER"
    elif check.note:
        text = check.note
    else:
        text = f"{check.difference:.2e}" + ("" if check.ok else "  ABOVE TOLERANCE")
    return f"  {check.case:24s} {check.array:22s} {text}"


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: all within tolerance; 1: something is not; 2: a folder cannot be checked."""
    parser = argparse.ArgumentParser(
        prog="python -m brainlm_bids.model.parity",
        description="Compare BrainLM's modules with stored outputs of the original code.",
    )
    parser.add_argument("folder", nargs="+", type=Path, help="folder in the golden layout")
    failed = broken = 0
    for folder in parser.parse_args(arguments).folder:
        print(folder)
        worst, unknown = 0.0, 0
        try:
            for check in compare_folder(folder):
                print(_report(check))
                failed += not check.ok
                unknown += bool(np.isnan(check.difference))
                worst = max(worst, check.difference if check.note == "" else 0.0)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            broken += 1
            continue
        except (KeyError, RuntimeError, ValueError) as error:  # arrays that do not fit together
            line = str(error).strip().splitlines()[:1]
            print(f"error: {folder}: {type(error).__name__}: {''.join(line)}", file=sys.stderr)
            broken += 1
            continue
        print(f"  largest difference {worst:.2e}; arrays not compared: {unknown}")
    if broken:
        print(f"FAILED: {broken} folders could not be checked, {failed} arrays above tolerance")
        return 2
    print(f"FAILED: {failed} arrays above tolerance" if failed else "all within tolerance")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
