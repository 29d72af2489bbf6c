"""A prepared series as an `Embedding`."""

import warnings
from typing import Literal

from brainlm_bids import resources
from brainlm_bids.api.errors import value_errors
from brainlm_bids.api.preparation import Prepared
from brainlm_bids.api.results import Embedding
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.windows import padding_warnings
from brainlm_bids.notices import dangers


def embed_prepared(
    model: LoadedModel,
    prepared: Prepared,
    *,
    pooling: Literal["cls", "mean", "max"],
    stride: int | None,
    token_orders: int,
    tokens: bool,
) -> Embedding:
    """Embed a series; the provenance holds what this function was told and what came of it."""
    with value_errors():
        result = embed(
            model,
            prepared.values,
            resources.parcels().xyz,
            tr=prepared.tr,
            seed=prepared.seed,
            input_gain=prepared.input_gain,
            stride=stride,
            pooling=pooling,
            token_orders=token_orders,
            tokens=tokens,
        )
    shown = model.network.sees_padding
    for one in dangers(padding_warnings(result.n_padded, model.window, shown=shown)):
        warnings.warn(one.text, UserWarning, stacklevel=3)
    provenance = {
        "pooling": pooling,
        "stride": stride or model.window,
        "padded_samples": result.n_padded,
        "token_order_seed": result.token_order_seed,
        "token_orders": token_orders,
    }
    return Embedding(
        result.recording,
        result.vectors,
        result.onset,
        result.duration,
        result.tokens,
        provenance,
    )
