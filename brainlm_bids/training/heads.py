"""Fine-tuned heads as files: `head.safetensors` and `head.json` beside a checkpoint.

With a frozen encoder the folder has no weights of its own and names the checkpoint that it belongs
to; loading compares the checksum.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from brainlm_bids import files
from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.model.embedding import embed
from brainlm_bids.resources import find_model, parcels
from brainlm_bids.training import prediction_head as finetuning
from brainlm_bids.training.prediction_head import PredictionHead


def save_head(folder: Path, head: nn.Module, provenance: Mapping[str, Any]) -> None:
    """Write a head and its provenance.

    Parameters
    ----------
    folder
        Where the files go.
    head
        The head.
    provenance
        Content of `head.json`.
    """
    tensors = {k: v.detach().cpu().float().contiguous() for k, v in head.state_dict().items()}
    with files.atomically(folder / "head.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    files.write_json(folder / "head.json", provenance)


class FinetunedModel:
    """A checkpoint and its head, ready to predict."""

    def __init__(
        self, model: LoadedModel, head: PredictionHead, provenance: Mapping[str, Any]
    ) -> None:
        self.model, self.head, self.provenance = model, head, dict(provenance)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes; empty for a regression."""
        return tuple(self.provenance["Classes"])

    def predict(self, series: ArrayLike) -> NDArray[np.float64]:
        """Predict the target of a recording.

        Parameters
        ----------
        series
            (T, 424) scaled series.

        Returns
        -------
        ndarray
            (1,) in the target's unit, or probabilities (C,).
        """
        embedding = embed(
            self.model,
            series,
            parcels().xyz,
            tr=1.0,
            seed=int(self.provenance["RandomSeed"]),
            pooling=str(self.provenance["Pooling"]),
        )
        with torch.inference_mode():
            output = self.head(torch.from_numpy(embedding.vectors)).mean(0, keepdim=True)
        mean, scale = float(self.provenance["TargetMean"]), float(self.provenance["TargetScale"])
        return finetuning.predictions(output.double().numpy(), len(self.classes), mean, scale)[0]


def load_finetuned(folder: Path, checkpoint: Path | str | None = None) -> FinetunedModel:
    """Load a fold of `brainlm finetune`.

    Parameters
    ----------
    folder
        Folder of the fold.
    checkpoint
        Checkpoint of a frozen encoder, if it is no longer where head.json says.

    Returns
    -------
    FinetunedModel
        Ready to predict.

    Raises
    ------
    UserError
        If the folder is incomplete, or the checkpoint is another one.
    """
    try:
        provenance = files.read_json(folder / "head.json")
        tensors = load_file(folder / "head.safetensors")
    except (OSError, UserError, SafetensorError) as error:
        raise UserError(f"{folder}: has no complete head ({error})") from None
    name, base = str(provenance["Checkpoint"]), provenance["StartedFrom"]
    if (folder / "model.safetensors").is_file():
        model = load_model(folder, seed=0)
    else:
        source = checkpoint or _where(name)
        model = load_model(source, seed=int(provenance["RandomSeed"]))
        if model.sha256 != base["Sha256"]:
            raise UserError(
                f"{source}: is not the checkpoint that {folder} was fitted with "
                f"(sha256 {base['Sha256']})"
            )
    head = PredictionHead(len(tensors["mean"]), len(tensors["lin3.bias"]))
    head.load_state_dict(tensors)
    return FinetunedModel(model, head.eval(), provenance)


def _where(name: str) -> Path | str:
    """Folder of a checkpoint from the name it was given by; published ones are in the cache."""
    resource = find_model(name, offline=True)
    return name if resource is None or resource.path is None else resource.path
