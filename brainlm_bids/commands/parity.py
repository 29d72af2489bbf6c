"""`python -m brainlm_bids.commands.parity FOLDER…`: do we agree with the original BrainLM code?

A folder in the golden layout (BRAINLM.md 3) comes in: a checkpoint, inputs.npz, meta.json with the
list of cases, out_<case>.npz with arrays of the original code. Out goes one line per case and
array: the largest absolute difference. Exit code 1 above the tolerance, 2 for a folder that is not
one or in which nothing could be compared.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json
from brainlm_bids.model.brainlm import BrainLM, BrainLMOutput
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.model.config import VITMAE_DIVISOR, ViTMAEConfig
from brainlm_bids.model.masking import Masking
from brainlm_bids.model.networks import parcel_attention, parcel_tokens
from brainlm_bids.model.vitmae import ViTMAE, ViTMAEOutput

TOLERANCE = 1e-5
ATTENTION_TOLERANCE = 1e-6
Arrays = dict[str, np.ndarray]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """One array of a case; `note` says in words what `difference` (largest, absolute) does not."""

    case: str
    array: str
    difference: float
    ok: bool
    compared: bool = True
    note: str = ""


def compare_folder(folder: Path) -> Iterator[Check]:
    """Run every case of a golden folder and compare every array that its files hold."""
    model = load_model(folder, seed=0)
    inputs = _read_arrays(folder / "inputs.npz")
    if "signal" not in inputs:
        raise UserError(f"{folder / 'inputs.npz'}: holds no array 'signal'")
    cases = _cases(folder / "meta.json")
    for case, settings in cases.items():
        expected = _read_arrays(folder / f"out_{case}.npz")
        noise = _noise(folder, case, settings, inputs)
        checks = _checks(model, inputs, settings, noise, case, expected, stable=False)
        if not all(check.ok for check in checks):
            # The reference sorts noise unstably, and how ties fall differs between builds of torch:
            # the order of tied tokens may be the other one, the same for all arrays of the case.
            other = _checks(model, inputs, settings, noise, case, expected, stable=True)
            checks = min(checks, other, key=lambda checks: sum(not check.ok for check in checks))
        yield from checks
    for file in sorted(folder.glob("out_*.npz")):
        case = file.stem.removeprefix("out_")
        if case not in cases:
            for name in _read_arrays(file):
                yield _not_compared(case, name, "meta.json has no such case")


def _cases(file: Path) -> dict[str, Settings]:
    """The cases with their settings; a bare list of names stands for cases without settings."""
    cases = read_json(file).get("cases")
    if isinstance(cases, list) and all(isinstance(case, str) for case in cases):
        cases = {case: {} for case in cases}
    if not isinstance(cases, dict) or not cases:
        raise UserError(f"{file}: holds no cases")
    if not all(isinstance(settings, dict) for settings in cases.values()):
        raise UserError(f"{file}: the settings of a case must be a JSON object")
    return cases


def _checks(
    model: LoadedModel,
    inputs: Arrays,
    settings: Settings,
    noise: Tensor | None,
    case: str,
    expected: Arrays,
    *,
    stable: bool,
) -> list[Check]:
    with torch.inference_mode():
        trace = _run(model, inputs, settings, noise, stable)
        return [_compare(case, name, array, trace) for name, array in expected.items()]


def _run(
    model: LoadedModel, inputs: Arrays, settings: Settings, noise: Tensor | None, stable: bool
) -> "Trace":
    signal = torch.from_numpy(inputs["signal"].astype(np.float32))
    signal = signal.unsqueeze(0) if signal.ndim == 2 else signal
    given = settings.get("mask_ratio")
    ratio = model.config.mask_ratio if given is None else float(given)
    module = model.module
    if noise is not None:
        noise = noise.expand(len(signal), -1)
    with _layer_states(module.vit.layers) as states:
        if isinstance(module, BrainLM):
            masking = module.masking(_needed(noise), ratio, stable=stable)
            xyz = torch.from_numpy(inputs["xyz"].astype(np.float32))
            output = module(signal, xyz.expand(len(signal), *xyz.shape[-2:]), masking)
            loss = module.loss(output, signal, settings.get("loss_fn"))
            return Trace(module, output, loss, states, masking)
        assert isinstance(model.config, ViTMAEConfig)
        image = _image(signal, inputs)
        mode = settings.get("train_mode") or model.config.train_mode
        if mode == "auto_encode":
            masking = module.masking(_needed(noise), ratio, stable=stable)
            result = module(image, masking)
            return Trace(module, result, module.loss(result, image), states, masking)
        result = module.predict_last(image, ratio, mode, stable=stable)
        return Trace(module, result, module.loss(result, image), states, None)


def _needed(noise: Tensor | None) -> Tensor:
    if noise is None:
        raise ValueError("no masking noise, in inputs.npz or in a file noise_<case>.npz")
    return noise


def _image(signal: Tensor, inputs: Arrays) -> Tensor:
    """Rows from posterior to anterior, divided as the image models' inputs are."""
    if "y_order" in inputs:
        signal = signal[:, torch.from_numpy(inputs["y_order"].astype(np.int64))]
    elif "xyz" in inputs:
        y = inputs["xyz"].reshape(-1, *inputs["xyz"].shape[-2:])[0, :, 1]
        signal = signal[:, torch.from_numpy(np.argsort(y, kind="stable"))]
    return signal / VITMAE_DIVISOR


@contextmanager
def _layer_states(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """Collect the input of every layer and the output of the last, which the stage has no use for
    and therefore does not keep."""
    states: list[Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
        for layer in layers
    ]
    handles.append(layers[-1].register_forward_hook(lambda _, __, output: states.append(output)))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Trace:
    """What one forward pass gave, from which every array of the files can be had."""

    module: BrainLM | ViTMAE
    output: BrainLMOutput | ViTMAEOutput
    loss: Tensor
    states: list[Tensor]  # inputs of the encoder's layers, then the last one's output
    masking: Masking | None

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The array of this name, None if the name is not known; `shape` is that of the file's."""
        if name in self._table():
            return self._table()[name]().numpy()
        value = self._part(name, shape)
        value = self._of_layer(name) if value is None else value
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
            "cls_prenorm": lambda: self.states[-1][:, 0],
            "embedding": lambda: self.states[0],
            "hidden_last": lambda: self.states[-1],
            "latent_mean": lambda: out.latent[:, 1:].mean(1),
            "latent_max": lambda: out.latent[:, 1:].amax(1),
        }
        if isinstance(out, ViTMAEOutput):
            table["mask_token"] = lambda: out.mask_token
        else:
            table["parcel_latent"] = self._parcel_latent
            table["attn_parcel"] = self._parcel_attention
            table["attn_parcel_rowsum"] = lambda: self._parcel_attention().sum(-1)
        if self.masking is not None:
            masking = self.masking
            table["ids_keep"] = lambda: masking.keep
            table["ids_restore"] = lambda: masking.restore
        return table

    def _parcel_latent(self) -> Tensor:
        assert self.masking is not None
        return parcel_tokens(self.output.latent, self.masking.keep, *self.output.mask.shape[1:])

    def _parcel_attention(self) -> Tensor:
        assert self.masking is not None
        layer, shape = self.module.vit.layers[-1], self.output.mask.shape[1:]
        return parcel_attention(layer, self.states[-2], self.masking.keep, *shape)

    def _part(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """The first or last tokens or parcels of another array: <array>_head, <array>_tail."""
        part = re.fullmatch(r"(\w+)_(head|tail)", name)
        if not part or part[1] not in self._table() or len(shape) < 2:
            return None
        whole, n = self._table()[part[1]](), shape[1]
        return whole[:, :n] if part[2] == "head" else whole[:, whole.shape[1] - n :]

    def _of_layer(self, name: str) -> Tensor | None:
        """hidden_<i>, input of layer i; attn_<i|last>, its attention; …_cls_row, that of CLS."""
        n_layers = len(self.states) - 1
        hidden = re.fullmatch(r"hidden_(\d+)", name)
        if hidden:
            return self.states[int(hidden[1])] if int(hidden[1]) <= n_layers else None
        attention = re.fullmatch(r"attn_(\d+|last)(_cls_row)?", name)
        if not attention:
            return None
        index = n_layers - 1 if attention[1] == "last" else int(attention[1])
        if index >= n_layers:
            return None
        layer, x = self.module.vit.layers[index], self.states[index]
        if attention[2]:
            return layer.probabilities(x, 0, 1)[:, :, 0]  # type: ignore[operator]
        return layer.probabilities(x, 0, x.shape[1])  # type: ignore[operator]


def _compare(case: str, name: str, expected: np.ndarray, trace: Trace) -> Check:
    if expected.dtype.kind not in "biuf":
        return _not_compared(case, name, f"{expected.dtype}, not numbers")
    found = trace.array(name, expected.shape)
    if found is None:
        return _not_compared(case, name, "not known to this command")
    if found.size != expected.size:
        return Check(case, name, float("inf"), False, note=f"{found.shape}, not {expected.shape}")
    found = found.reshape(expected.shape)  # time in patches or not, a batch of one or none
    if expected.dtype.kind in "biu" or name.startswith("mask"):
        n_different = int((found != expected).sum())
        note = f"{n_different} values DIFFER" if n_different else "identical"
        return Check(case, name, float(n_different), n_different == 0, note=note)
    wanted = expected.astype(np.float64)
    both_nan = np.isnan(wanted) & np.isnan(found)  # the loss when nothing is masked
    difference = np.where(both_nan, 0.0, np.abs(found.astype(np.float64) - wanted))
    difference = np.nan_to_num(difference, nan=np.inf)
    allowed = ATTENTION_TOLERANCE if name.startswith("attn") else TOLERANCE
    if expected.dtype == np.float16:  # stored rounded: half a unit in the last place is not ours
        allowed = allowed + np.abs(np.spacing(expected)).astype(np.float64) / 2
    ok = bool((difference <= allowed).all())
    return Check(case, name, float(difference.max(initial=0.0)), ok)


def _not_compared(case: str, name: str, why: str) -> Check:
    return Check(case, name, 0.0, True, compared=False, note=f"NOT compared: {why}")


def _noise(folder: Path, case: str, settings: Settings, inputs: Arrays) -> Tensor | None:
    """The case's noise: where meta.json points to, else noise_<case>.npz, else by its name."""
    pointer = settings.get("noise")
    own = folder / f"noise_{case}.npz"
    if isinstance(pointer, str) and ":" in pointer:
        file, _, key = pointer.partition(":")
        noise = _array(folder / file, key)
    elif isinstance(pointer, str):
        noise = _array(folder / f"noise_{pointer}.npz", "noise")
    elif own.is_file():
        noise = _array(own, "noise")
    elif "noise" in inputs:
        noise = inputs["noise"]
        if case.endswith("identity"):  # tokens in raster order
            noise = np.broadcast_to(np.arange(noise.shape[-1]), noise.shape)
    else:
        return None
    return torch.from_numpy(np.atleast_2d(np.array(noise, dtype=np.float32)))


def _array(file: Path, key: str) -> np.ndarray:
    arrays = _read_arrays(file)
    if key not in arrays:
        raise UserError(f"{file}: holds no array {key!r}")
    return arrays[key]


def _read_arrays(file: Path) -> Arrays:
    try:
        with np.load(file) as content:
            return {key: content[key] for key in content.files}
    except FileNotFoundError:
        raise UserError(f"{file}: not found; a golden folder needs it") from None
    except Exception as error:  # zip, header and value errors of many kinds
        raise UserError(f"{file}: damaged or truncated ({type(error).__name__})") from None


@dataclass
class Tally:
    """What became of the arrays of all folders; `broken` counts folders without a result."""

    compared: int = 0
    failed: int = 0
    not_compared: int = 0
    broken: int = 0

    def add(self, folder: Path) -> None:
        """Check a folder, printing as it goes."""
        print(folder)
        worst, n_before = 0.0, self.compared
        try:
            for check in compare_folder(folder):
                print(_report(check))
                self.compared += check.compared
                self.failed += not check.ok
                self.not_compared += not check.compared
                worst = max(worst, check.difference if check.note == "" else 0.0)
            if self.compared == n_before:
                raise UserError(f"{folder}: no array in it could be compared")
        except UserError as error:
            self._give_up(str(error))
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            # arrays that do not fit together
            line = (str(error).strip().splitlines() or [""])[0]
            self._give_up(f"{folder}: {type(error).__name__}: {line}")
        else:
            print(f"  largest difference {worst:.2e}")

    def _give_up(self, line: str) -> None:
        print(f"error: {line}", file=sys.stderr)
        self.broken += 1

    def __str__(self) -> str:
        text = f"{self.compared} arrays compared, {self.failed} above tolerance"
        if self.not_compared:
            text += f"; {self.not_compared} arrays were NOT compared"
        if self.broken:
            text += f"; {self.broken} folders could not be checked"
        verdict = "FAILED" if self.failed or self.broken else "all within tolerance"
        return f"{verdict}: {text}"


def _report(check: Check) -> str:
    text = check.note or f"{check.difference:.2e}" + ("" if check.ok else "  ABOVE TOLERANCE")
    return f"  {check.case:24s} {check.array:22s} {text}"


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: all within tolerance; 1: something is not; 2: a folder cannot be checked."""
    parser = argparse.ArgumentParser(
        prog="python -m brainlm_bids.commands.parity",
        description="Compare BrainLM's modules with stored outputs of the original code.",
    )
    parser.add_argument("folder", nargs="+", type=Path, help="folder in the golden layout")
    tally = Tally()
    for folder in parser.parse_args(arguments).folder:
        tally.add(folder)
    print(tally)
    if tally.broken:
        return 2
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
