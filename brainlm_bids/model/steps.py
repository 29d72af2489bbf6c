"""The model step of a run: a robust series in; embeddings, reconstructions and networks out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.embedding import Embeddings, embed
from brainlm_bids.model.networks import Networks, correlation_profile, parcel_networks
from brainlm_bids.model.reconstruction import Reconstruction, reconstruct

Features = NDArray[np.float64]


@dataclass(frozen=True)
class ModelOptions:
    """How a model is run on a recording.

    Attributes
    ----------
    seed
        Of token orders, masks and folds.
    mask_ratios
        Shares of the tokens that are hidden at a time, one reconstruction each. The first is also
        that of the reconstructions from which networks are made.
    input_gain
        What the series is multiplied by.
    pooling
        "cls", or the "mean" or "max" of the other tokens.
    stride
        Volumes between the beginnings of windows; None for those of a window.
    token_orders
        Token orders that embeddings are averaged over.
    tokens
        Whether all tokens are returned.
    """

    seed: int
    mask_ratios: Sequence[float]
    input_gain: float = 1.0
    pooling: str = "cls"
    stride: int | None = None
    token_orders: int = 1
    tokens: bool = False


@dataclass(frozen=True)
class ModelResults:
    """What a model makes of a recording.

    Attributes
    ----------
    embeddings
        Of all windows.
    reconstructions
        One per mask ratio, in the order of the options.
    networks
        By features: "model", "attention" (networks with a token per parcel), and the controls
        "series", "untrained" and "coordinates".
    """

    embeddings: Embeddings
    reconstructions: tuple[Reconstruction, ...]
    networks: dict[str, Networks]


def run_model(
    model: LoadedModel,
    control: LoadedModel,
    series: NDArray[np.float32],
    xyz: NDArray[np.float64],
    reference: NDArray[np.int64],
    *,
    tr: float,
    options: ModelOptions,
) -> ModelResults:
    """Embed and reconstruct a recording, and cluster its parcels into networks.

    Parameters
    ----------
    model
        A model of `checkpoint.load_model`.
    control
        Its untrained twin, of `checkpoint.untrained_twin`.
    series
        (T, P) robust-scaled, sampled at the model's repetition time, without NaN; parcels without
        data are zero throughout.
    xyz
        (P, 3) MNI coordinates in mm.
    reference
        (P,) networks 1 … 7 that the clusters are compared with.
    tr
        Repetition time in s.
    options
        How the model is run.

    Returns
    -------
    ModelResults

    Raises
    ------
    UserError
        For an unusable series or unusable options.

    Examples
    --------
    >>> from brainlm_bids.model.checkpoint import load_model, untrained_twin
    >>> rng = np.random.default_rng(0)
    >>> series, xyz = rng.standard_normal((60, 424)), rng.uniform(-60, 60, (424, 3))
    >>> model, reference = load_model("random:tiny", seed=0), np.arange(424) % 7 + 1
    >>> options = ModelOptions(seed=0, mask_ratios=[0.5])
    >>> twin = untrained_twin(model, 1)
    >>> sorted(run_model(model, twin, series, xyz, reference, tr=0.735, options=options).networks)
    ['attention', 'coordinates', 'model', 'series', 'untrained']
    """
    embeddings = embed(
        model,
        series,
        xyz,
        tr=tr,
        seed=options.seed,
        input_gain=options.input_gain,
        stride=options.stride,
        pooling=options.pooling,
        token_orders=options.token_orders,
        tokens=options.tokens,
        parcels=model.network.rows_are_parcels,
        attention=model.network.rows_are_parcels,
    )
    reconstructions = tuple(
        reconstruct(
            model, series, xyz, mask_ratio=ratio, seed=options.seed, input_gain=options.input_gain
        )
        for ratio in options.mask_ratios
    )
    if embeddings.parcels is None:
        features = {"model": correlation_profile(reconstructions[0].series)}
    else:
        tables = {"model": embeddings.parcels, "attention": embeddings.attention}
        features = {name: table for name, table in tables.items() if table is not None}
    untrained = parcel_features(control, series, xyz, tr=tr, options=options)
    networks = networks_with_controls(
        features, untrained, series, reference, xyz, seed=options.seed
    )
    return ModelResults(embeddings, reconstructions, networks)


def parcel_features(
    model: LoadedModel,
    series: NDArray[np.float32],
    xyz: NDArray[np.float64],
    *,
    tr: float,
    options: ModelOptions,
) -> Features:
    """Describe each parcel by what a model makes of it.

    A network with a token per parcel gives the parcels' tokens, averaged over time patches and
    windows. The patches of image models span several parcels: there, it is the connectivity of the
    reconstruction, whose values were all predicted while hidden. Of the options, only `seed`,
    `input_gain` and the first of `mask_ratios` matter.

    Parameters
    ----------
    model, series, xyz, tr, options
        As for `run_model`.

    Returns
    -------
    NDArray
        (P, F).
    """
    if model.network.rows_are_parcels:
        embeddings = embed(
            model,
            series,
            xyz,
            tr=tr,
            seed=options.seed,
            input_gain=options.input_gain,
            parcels=True,
        )
        return np.asarray(embeddings.parcels)
    predicted = reconstruct(
        model,
        series,
        xyz,
        mask_ratio=options.mask_ratios[0],
        seed=options.seed,
        input_gain=options.input_gain,
        with_baselines=False,
    )
    return correlation_profile(predicted.series)


def networks_with_controls(
    features: Mapping[str, Features],
    untrained: Features,
    series: NDArray[np.float32],
    reference: NDArray[np.int64],
    xyz: NDArray[np.float64],
    *,
    seed: int,
) -> dict[str, Networks]:
    """Cluster parcels by a model's features, and by those of the controls that it must beat.

    Parameters
    ----------
    features
        Tables (P, F) of the model, by name.
    untrained
        (P, F) the same from untrained weights.
    series
        (T, P), whose connectivity is the other control.
    reference
        (P,) networks 1 … 7.
    xyz
        (P, 3) centres of the parcels in mm, which are a control themselves.
    seed
        Of the folds.

    Returns
    -------
    dict
        Networks by the names of the features, "series", "untrained" and "coordinates".
    """
    tables = {
        **features,
        "series": correlation_profile(series),
        "untrained": untrained,
        "coordinates": xyz,
    }
    return {name: parcel_networks(table, reference, xyz, seed) for name, table in tables.items()}
