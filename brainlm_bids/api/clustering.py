"""Parcels clustered into networks, from a model's features and from those of its two controls."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.api.preparation import Prepared
from brainlm_bids.model.checkpoint import LoadedModel, untrained_twin
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.networks import Networks, correlation_profile, parcel_networks
from brainlm_bids.model.reconstruction import reconstruct
from brainlm_bids.resources import Parcels


def cluster_parcels(
    model: LoadedModel,
    prepared: Prepared,
    parcels: Parcels,
    *,
    mask_ratio: float,
    input_gain: float,
    seed: int,
) -> dict[str, Networks]:
    """Seven networks from features of the model, of the series, and of an untrained twin."""

    def features(network: LoadedModel) -> NDArray[np.float64]:
        shared: dict[str, Any] = {"seed": seed, "input_gain": input_gain}
        embedded = embed(network, prepared.values, parcels.xyz, tr=prepared.tr, **shared)
        if embedded.parcels is not None:
            return embedded.parcels
        predicted = reconstruct(
            network,
            prepared.values,
            parcels.xyz,
            mask_ratio=mask_ratio,
            with_baselines=False,
            **shared,
        )
        return correlation_profile(predicted.series)

    tables = {
        "model": features(model),
        "series": correlation_profile(prepared.values),
        # another seed: where the model is random itself, its twin is another draw
        "untrained": features(untrained_twin(model, seed + 1)),
    }
    return {
        name: parcel_networks(table, parcels.network_index, seed) for name, table in tables.items()
    }
