"""The model graph: a run's robust series in; embeddings, reconstruction and networks out."""

from typing import Any

from brainlm_bids.interfaces_model import RunModel
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.nodes import Inputs, make_node

# Weights and activations of one window, GB; from BRAINLM.md's reference timings, rounded up.
MODEL_MEMORY = 4.0


def model_node(
    name: str,
    source: str,
    label: str,
    configuration: str,
    context: dict[str, Any],
    inputs: Inputs,
    settings: Settings,
) -> Any:
    """One model on one run; `robust_tsv` is connected, or set, by the caller."""
    interface = RunModel(
        context=context,
        atlas=inputs.atlas,
        source=source,
        label=label,
        mask_ratio=list(settings.mask_ratio),
        input_gain=settings.input_gain,
        seed=settings.random_seed,
        configuration=configuration,
        device=settings.device,
    )
    return make_node(interface, name, settings, memory=MODEL_MEMORY, always=True)
