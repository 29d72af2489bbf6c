"""The model node: from a recording's robust series to embeddings, reconstruction and networks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from brainlm_bids.bids.context import RecordingContext
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.nodes import Inputs, make_node, node_name
from brainlm_bids.workflows.plans import ModelPlan

if TYPE_CHECKING:
    from nipype.pipeline.engine import Node

# Weights, those of the untrained control, and activations of one window, in GB, rounded up.
MODEL_MEMORY, MODEL_MEMORY_650M = 4.0, 8.0


def model_memory(label: str) -> float:
    """What a node with a model needs, in GB."""
    return MODEL_MEMORY_650M if "650M" in label else MODEL_MEMORY


def embedded_together(n: int) -> list[slice]:
    """Which of n recordings each node embeds for decoding: at least four, in at most 128 nodes.

    >>> embedded_together(10)
    [slice(0, 4, None), slice(4, 8, None), slice(8, 12, None)]
    """
    size = max(4, math.ceil(n / 128))
    return [slice(start, start + size) for start in range(0, n, size)]


def model_node(
    plan: ModelPlan, context: RecordingContext, inputs: Inputs, settings: Settings
) -> Node:
    """One model on one recording; `robust_tsv` is connected, or set, by the caller."""
    from brainlm_bids.interfaces.model import RunModel

    interface = RunModel(
        context=context,
        atlas=inputs.atlas,
        template=inputs.template,
        source=plan.source,
        label=plan.label,
        mask_ratio=list(settings.mask_ratio),
        input_gain=settings.input_gain,
        seed=settings.random_seed,
        configuration=plan.configuration,
        pooling=settings.pooling,
        window_stride=settings.window_stride,
        token_orders=settings.token_orders,
        save_tokens=settings.save_tokens,
        precision=settings.precision,
        device=settings.device,
        figures=settings.figures,
    )
    name = node_name(f"model_{plan.label}", plan.stage.recording)
    return make_node(interface, name, settings, memory=model_memory(plan.label), always=True)
