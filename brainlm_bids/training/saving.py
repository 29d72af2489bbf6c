"""Save checkpoints and the state of a run; a file is written completely or not at all.

A checkpoint is a folder in the released layout (config.json, model.safetensors), as `brainlm-bids
--model` takes it. The state holds everything that a run needs to continue as if it had never
stopped.
"""

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from brainlm_bids.errors import UserError
from brainlm_bids.files import atomically, file_sha256, read_json, write_json, write_text
from brainlm_bids.model.config import config_content
from brainlm_bids.model.network import Network
from brainlm_bids.resources import ModelResource
from brainlm_bids.resources.checkpoint import record_origin
from brainlm_bids.resources.labels import PUBLISHED
from brainlm_bids.training.card import model_card

STATE = "state.pt"


def checkpoint_tensors(network: Network) -> dict[str, Tensor]:
    """Weights under the released names, also those that released checkpoints contain but never use.

    Parameters
    ----------
    network
        The network.

    Returns
    -------
    dict
        Name to tensor, float32 on the CPU.
    """
    state = {**network.module.state_dict(), **network.unused_tensors()}
    return {key: value.detach().cpu().float().contiguous() for key, value in state.items()}


def save_checkpoint(folder: Path, network: Network, about: Mapping[str, Any]) -> None:
    """Write or replace a checkpoint.

    Parameters
    ----------
    folder
        Folder of the checkpoint.
    network
        The network.
    about
        Provenance, for training.json and the model card.

    Raises
    ------
    UserError
        If it cannot be written; the files from before are kept.
    """
    with _nothing_lost(folder):
        write_network(folder, network)
        write_json(folder / "training.json", about)
        write_text(folder / "README.md", model_card(folder.name, network.config, about))


def write_network(folder: Path, network: Network) -> None:
    """Write the architecture and the weights of a checkpoint, in the released layout.

    Parameters
    ----------
    folder
        Folder of the checkpoint.
    network
        The network.
    """
    write_json(folder / "config.json", config_content(network.config))
    with atomically(folder / "model.safetensors") as temporary:
        save_file(checkpoint_tensors(network), temporary, metadata={"format": "pt"})


def save_copy(folder: Path, network: Network, resource: ModelResource) -> None:
    """Write a copy of a checkpoint as it is, with what is known of its origin.

    Parameters
    ----------
    folder
        Folder of the copy.
    network
        The network.
    resource
        Where its weights are from.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    about = {} if resource.path is None else recorded_training(resource.path)
    with _nothing_lost(folder):
        write_network(folder, network)
        if about:
            write_json(folder / "training.json", about)
        card = model_card(resource.label, network.config, about, licence=resource.licence)
        write_text(folder / "README.md", card)
        if resource.name in PUBLISHED:
            record_origin(folder, resource.name, file_sha256(folder / "model.safetensors"))


def recorded_training(folder: Path) -> dict[str, Any]:
    """Read the record of the training in a folder of a checkpoint; empty if there is none."""
    path = folder / "training.json"
    try:
        return read_json(path) if path.is_file() else {}
    except UserError:
        return {}


def save_state(file: Path, state: Mapping[str, Any]) -> None:
    """Write or replace the state of a run.

    Parameters
    ----------
    file
        The file.
    state
        Tensors, numbers and texts by name.

    Raises
    ------
    UserError
        If it cannot be written; the file from before is kept.
    """
    with _nothing_lost(file), atomically(file) as temporary, temporary.open("wb") as stream:
        torch.save(dict(state), stream)


def load_state(file: Path) -> dict[str, Any] | None:
    """Read the state of a run.

    Parameters
    ----------
    file
        The file.

    Returns
    -------
    dict or None
        None if there is no such file yet.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    if not file.is_file():
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{file}: damaged ({first[:120]}); delete the folder, and start again from its best "
            "checkpoint with --from"
        ) from None
    return dict(state)


@contextlib.contextmanager
def _nothing_lost(path: Path) -> Iterator[None]:
    """Report a full disk in one line; the file from before is still there."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: cannot be saved ({first[:160]}); what was saved before is intact: free "
            "some space and give the same command again"
        ) from error
