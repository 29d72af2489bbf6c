"""Checkpoints that would run code, that expand, that lie, or that are damaged."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

CONFIG = {"hidden_size": 10**12}
MIB = 1 << 20


@cache
def _state() -> dict[str, Any]:
    from brainlm_bids.model.checkpoint import random_network
    from brainlm_bids.model.config import random_architecture

    return random_network(random_architecture("tiny"), 0).module.state_dict()


def folder(path: Path, changes: dict[str, Any] | None = None) -> Path:
    """A checkpoint folder of the tiny architecture, without weights; with changes of its config."""
    from brainlm_bids.model.config import config_content, random_architecture

    path.mkdir(parents=True)
    content = config_content(random_architecture("tiny")) | (changes or {})
    (path / "config.json").write_text(json.dumps(content))
    return path


def safetensors(path: Path, changes: dict[str, Any] | None = None) -> Path:
    """A good checkpoint, but for changes of its config."""
    from safetensors.torch import save_file

    folder(path, changes)
    save_file(_state(), path / "model.safetensors")
    return path


def torch_file(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A checkpoint saved with torch, after a change of its tensors."""
    import torch

    folder(path)
    torch.save(change(dict(_state())), path / "pytorch_model.bin")
    return path


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.trace}'",)


def pickled(path: Path, *, zipped: bool) -> Path:
    """A file of weights that runs a command when it is unpickled: makes `ran` beside itself."""
    folder(path)
    code = pickle.dumps({"weights": Payload(path / "ran")}, protocol=2)
    file = path / "pytorch_model.bin"
    if not zipped:
        file.write_bytes(code)
        return path
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", code)
        archive.writestr("archive/version", "3\n")
    return path


def zip_bomb(path: Path, n_bytes: int) -> Path:
    """A file of weights, one of whose compressed records expands a thousand times."""
    torch_file(path, lambda state: state)
    file = path / "pytorch_model.bin"
    content = io.BytesIO(file.read_bytes())
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith("data/0"):
                new.writestr(entry.filename, old.read(entry))
        name = next(e.filename for e in old.infolist() if e.filename.endswith("data/0"))
        with new.open(zipfile.ZipInfo(name), "w", force_zip64=True) as record:
            record._compressor = zipfile._get_compressor(zipfile.ZIP_DEFLATED)  # type: ignore
            record._zinfo.compress_type = zipfile.ZIP_DEFLATED  # type: ignore
            for _ in range(n_bytes // MIB):
                record.write(bytes(MIB))
    return path


def huge_header(path: Path, n_bytes: int) -> Path:
    """A safetensors file whose header claims a length."""
    folder(path)
    (path / "model.safetensors").write_bytes(struct.pack("<Q", n_bytes) + b"{" + b" " * 4096)
    return path


def huge_tensor(path: Path) -> Path:
    """A safetensors file with a tensor of terabytes."""
    folder(path)
    tensor = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    header = json.dumps({"x": tensor}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(64)
    (path / "model.safetensors").write_bytes(content)
    return path


def with_nan(state: dict[str, Any]) -> dict[str, Any]:
    """One weight is not a number."""
    name = next(name for name in state if name.endswith("query.weight"))
    state[name] = state[name].clone()
    state[name].view(-1)[3] = float("nan")
    return state


def repeated(state: dict[str, Any]) -> dict[str, Any]:
    """A tensor of terabytes that repeats one number."""
    import torch

    return state | {next(iter(state)): torch.zeros(1).expand(10**6, 10**6)}


def of_kind(kind: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Tensors of the right shape that are no plain arrays of numbers."""
    import torch

    def change(state: dict[str, Any]) -> dict[str, Any]:
        name = next(name for name in state if name.endswith("query.weight"))
        changed: dict[str, Callable[[Any], Any]] = {
            "sparse": lambda tensor: tensor.to_sparse(),
            "meta": lambda tensor: tensor.to("meta"),
            "complex": lambda tensor: tensor.to(torch.complex64),
            "integer": lambda tensor: tensor.to(torch.int8),
        }
        return state | {name: changed[kind](state[name])}

    return change
