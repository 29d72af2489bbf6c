"""The model graph: a run's robust series in; embeddings, reconstruction and networks out."""

from typing import Any

from brainlm_bids.interfaces.model import RunModel
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.nodes import Inputs, make_node

# Weights, those of the untrained control, and activations of one window, in GB, rounded up.
MODEL_MEMORY, MODEL_MEMORY_650M = 4.0, 8.0


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
        pooling=settings.pooling,
        window_stride=settings.window_stride,
        token_orders=settings.token_orders,
        save_tokens=settings.save_tokens,
        precision=settings.precision,
        device=settings.device,
    )
    memory = MODEL_MEMORY_650M if label.endswith("650M") else MODEL_MEMORY
    return make_node(interface, name, settings, memory=memory, always=True)
