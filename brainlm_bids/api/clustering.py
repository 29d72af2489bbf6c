"""Parcels clustered into networks, from a model's features and from those of its controls."""

from brainlm_bids.api.preparation import Prepared
from brainlm_bids.model.checkpoint import LoadedModel, control_seed, untrained_twin
from brainlm_bids.model.networks import Networks
from brainlm_bids.model.steps import ModelOptions, networks_with_controls, parcel_features
from brainlm_bids.resources import Parcels


def cluster_parcels(
    model: LoadedModel,
    prepared: Prepared,
    parcels: Parcels,
    *,
    mask_ratio: float,
) -> dict[str, Networks]:
    """Seven networks from features of the model, the series, an untrained twin, and coordinates."""
    seed = prepared.seed
    options = ModelOptions(seed=seed, mask_ratios=(mask_ratio,), input_gain=prepared.input_gain)
    twin = untrained_twin(model, control_seed(seed))
    features, untrained = (
        parcel_features(network, prepared.values, parcels.xyz, tr=prepared.tr, options=options)
        for network in (model, twin)
    )
    return networks_with_controls(
        {"model": features},
        untrained,
        prepared.values,
        parcels.network_index,
        parcels.xyz,
        seed=seed,
    )
