"""`BrainLM`: a network with its weights, used from Python with the steps of the BIDS App."""

from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd

from brainlm_bids import __version__, resources
from brainlm_bids.api.errors import value_errors
from brainlm_bids.api.preparation import Prepared, Scaling, prepare
from brainlm_bids.api.results import (
    Embedding,
    EmbeddingList,
    Forecast,
    ParcelNetworks,
    Reconstruction,
)
from brainlm_bids.api.series import (
    ParcelSeries,
    SeriesLike,
    is_many,
    read_many,
    read_series,
)
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.notices import to_json
from brainlm_bids.resources import ModelResource

VERSIONS = ("numpy", "scipy", "torch")


class BrainLM:
    """A BrainLM network with its weights.

    Make one with `from_pretrained`. Series are resampled to the network's rate and robustly scaled
    inside, as `brainlm-bids` does it; what was done is in the `provenance` of each result.

    Examples
    --------
    >>> import numpy as np
    >>> from brainlm_bids import BrainLM
    >>> series = np.random.default_rng(0).normal(size=(260, 424))
    >>> out = BrainLM.from_pretrained("demo").embed(series, tr=0.735)
    >>> out.windows.shape[0], out.recording.shape == out.windows.shape[1:]
    (2, True)
    """

    def __init__(
        self, model: LoadedModel, resource: ModelResource, *, offline: bool = False
    ) -> None:
        self._model = model
        self._resource = resource
        self._offline = offline

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "111M",
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        random_state: int = 42,
        offline: bool = False,
    ) -> "BrainLM":
        """Load a network.

        Parameters
        ----------
        name
            "111M", "650M" or "13M" (the published weights, downloaded on first use; licence
            CC BY-NC-ND 4.0), "demo" (small, pretrained on simulated recordings), "random:13M" and
            the like (untrained controls), or a folder with config.json and weights.
        device, precision
            Where and in which precision the network runs. "auto" uses a GPU if there is one, and
            bfloat16 on it.
        random_state
            Seed of untrained weights.
        offline
            Never download anything.

        Returns
        -------
        BrainLM

        Raises
        ------
        ValueError
            If the weights are not available, or are damaged.
        """
        with value_errors():
            resource = resources.find_model(str(name), offline=offline)
            if resource is None:
                raise ValueError('"none" is not a model')
            source = resource.name if resource.path is None else str(resource.path)
            model = load_model(source, seed=random_state, device=device, precision=precision)
        return cls(model, resource, offline=offline)

    def __repr__(self) -> str:
        model = self._model
        weights = "untrained" if model.untrained else f"sha256 {str(model.sha256)[:8]}…"
        return f"BrainLM({self._resource.name!r}, {weights}, {model.placement.device})"

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return self._model.embedding_dim

    @property
    def label(self) -> str:
        """The model's label in the names of derivatives."""
        return self._resource.label

    @overload
    def embed(self, x: list[SeriesLike], tr: Any = None, **options: Any) -> EmbeddingList: ...

    @overload
    def embed(self, x: SeriesLike, tr: Any = None, **options: Any) -> Embedding: ...

    def embed(self, x: SeriesLike, tr: Any = None, **options: Any) -> Embedding | EmbeddingList:
        """Embed a recording, or each of several.

        Parameters
        ----------
        x
            One recording: an array (T, 424), a DataFrame whose columns are the names of the
            parcels in any order, a file (.tsv, .csv, .txt, .dat, .npy, .ptseries.nii), or a 4-D
            image in MNI152NLin6Asym or its path. Or a list of recordings, or an array
            (n, T, 424).
        tr
            Repetition time in seconds; a list where recordings differ. May be omitted where the
            file, its JSON sidecar or the image's header records it.
        **options
            `pooling` ("cls", "mean" or "max"); `stride` (samples from one window to the next,
            default 200); `token_orders` (default 1: the number of token orders over which
            embeddings of the 13M network are averaged); `tokens` (default False: also return
            all tokens); `scaling` ("own", or a TSV of medians and interquartile ranges);
            `already_scaled` (default False); `input_gain` (default 1.0); `random_state`
            (default 42).

        Returns
        -------
        Embedding
            Or an EmbeddingList if `x` holds several recordings.

        Raises
        ------
        ValueError
            In one line, if the series cannot be right.

        Examples
        --------
        >>> import numpy as np
        >>> recordings = np.random.default_rng(0).normal(size=(3, 200, 424))
        >>> model = BrainLM.from_pretrained("demo")
        >>> model.embed(recordings, tr=0.735).recording.shape == (3, model.embedding_dim)
        True
        """
        if is_many(x):
            recordings = read_many(x, tr, offline=self._offline)
            return EmbeddingList(tuple(self._embed(series, **options) for series in recordings))
        return self._embed(read_series(x, tr, offline=self._offline), **options)

    def _embed(
        self,
        series: ParcelSeries,
        *,
        pooling: Literal["cls", "mean", "max"] = "cls",
        stride: int | None = None,
        token_orders: int = 1,
        tokens: bool = False,
        scaling: Scaling = "own",
        already_scaled: bool = False,
        input_gain: float = 1.0,
        random_state: int = 42,
    ) -> Embedding:
        from brainlm_bids.model.embedding import embed

        prepared = prepare(series, scaling=scaling, already_scaled=already_scaled)
        with value_errors():
            result = embed(
                self._model,
                prepared.values,
                resources.parcels().xyz,
                tr=prepared.tr,
                seed=random_state,
                input_gain=input_gain,
                stride=stride,
                pooling=pooling,
                token_orders=token_orders,
                tokens=tokens,
            )
        provenance = self._provenance(
            prepared,
            input_gain=input_gain,
            pooling=pooling,
            stride=stride or self._model.window,
            padded_samples=result.n_padded,
            token_order_seed=result.token_order_seed,
            token_orders=token_orders,
            random_state=random_state,
        )
        return Embedding(
            result.recording,
            result.vectors,
            result.onset,
            result.duration,
            result.tokens,
            provenance,
        )

    def reconstruct(
        self,
        x: SeriesLike,
        tr: float | None = None,
        *,
        mask_ratio: float = 0.2,
        scaling: Scaling = "own",
        already_scaled: bool = False,
        input_gain: float = 1.0,
        random_state: int = 42,
    ) -> Reconstruction:
        """Hide a share of the values, predict them, and compare with two baselines.

        Parameters
        ----------
        x, tr
            A recording and its repetition time in seconds, as for `embed`.
        mask_ratio
            Share of the tokens that is hidden at a time, between 0 and 1.
        scaling, already_scaled, input_gain
            As for `embed`.
        random_state
            Seed of the masks.

        Returns
        -------
        Reconstruction
        """
        from brainlm_bids.model.reconstruction import reconstruct

        prepared = self._prepared(x, tr, scaling, already_scaled)
        with value_errors():
            result = reconstruct(
                self._model,
                prepared.values,
                resources.parcels().xyz,
                mask_ratio=mask_ratio,
                seed=random_state,
                input_gain=input_gain,
            )
        names = list(resources.parcels().names)
        per_parcel = {
            predictor: pd.DataFrame(table, index=pd.Index(names, name="parcel"))
            for predictor, table in result.parcel_metrics.items()
        }
        time = pd.Index(np.arange(len(prepared.values)) * prepared.tr, name="time")
        return Reconstruction(
            pd.DataFrame(result.series, index=time, columns=names),
            pd.DataFrame(result.metrics).T.rename_axis("predictor"),
            pd.concat(per_parcel, names=["predictor"]),
            self._provenance(
                prepared, input_gain=input_gain, mask_ratio=mask_ratio, random_state=random_state
            ),
        )

    def networks(
        self,
        x: SeriesLike,
        tr: float | None = None,
        *,
        mask_ratio: float = 0.2,
        scaling: Scaling = "own",
        already_scaled: bool = False,
        input_gain: float = 1.0,
        random_state: int = 42,
    ) -> ParcelNetworks:
        """Cluster the parcels into seven networks by the features that the model gives them.

        The metrics also hold two controls, the series itself and an untrained network of the same
        architecture: a claim about the model has to beat both.

        Parameters
        ----------
        x, tr
            A recording and its repetition time in seconds, as for `embed`.
        mask_ratio
            Of the reconstruction from which the features of the image models are made.
        scaling, already_scaled, input_gain
            As for `embed`.
        random_state
            Seed of masks, token orders and untrained weights.

        Returns
        -------
        ParcelNetworks
        """
        from brainlm_bids.api.clustering import cluster_parcels

        prepared = self._prepared(x, tr, scaling, already_scaled)
        parcels = resources.parcels()
        with value_errors():
            results = cluster_parcels(
                self._model,
                prepared,
                parcels,
                mask_ratio=mask_ratio,
                input_gain=input_gain,
                seed=random_state,
            )
        metrics = {name: result.scores() for name, result in results.items()}
        index = pd.Index(parcels.names, name="parcel")
        return ParcelNetworks(
            pd.Series(results["model"].labels, index=index, name="label"),
            pd.DataFrame(metrics).T.rename_axis("features"),
            self._provenance(
                prepared, input_gain=input_gain, mask_ratio=mask_ratio, random_state=random_state
            ),
        )

    def forecast(
        self,
        x: SeriesLike,
        tr: float | None = None,
        *,
        n: int = 20,
        scaling: Scaling = "own",
        already_scaled: bool = False,
        input_gain: float = 1.0,
        random_state: int = 42,
    ) -> Forecast:
        """Predict the `n` samples, at the network's rate, that follow a recording.

        All of `x` is the past: it is resampled and scaled on its own. To score a forecast, cut the
        recording in the scanner's own volumes before you pass it.

        Parameters
        ----------
        x, tr
            A recording and its repetition time in seconds, as for `embed`.
        n
            Samples ahead, at the network's rate (0.735 s).
        scaling, already_scaled, input_gain
            As for `embed`.
        random_state
            Seed of the token order.

        Returns
        -------
        Forecast
        """
        from brainlm_bids.model.future import forecast

        prepared = self._prepared(x, tr, scaling, already_scaled)
        with value_errors():
            result = forecast(
                self._model,
                prepared.values,
                resources.parcels().xyz,
                n_volumes=n,
                seed=random_state,
                input_gain=input_gain,
            )
        time = pd.Index((len(prepared.values) + np.arange(n)) * prepared.tr, name="time")
        return Forecast(
            pd.DataFrame(result, index=time, columns=list(resources.parcels().names)),
            self._provenance(prepared, input_gain=input_gain, n=n, random_state=random_state),
        )

    def _prepared(
        self, x: SeriesLike, tr: float | None, scaling: Scaling, already_scaled: bool
    ) -> Prepared:
        series = read_series(x, tr, offline=self._offline)
        return prepare(series, scaling=scaling, already_scaled=already_scaled)

    def _provenance(self, prepared: Prepared, **options: Any) -> dict[str, Any]:
        """How a result was made: the series, the network, and the options of the call."""
        resource, model = self._resource, self._model
        return {
            **prepared.provenance,
            "model": {
                "name": resource.name,
                "label": resource.label,
                "family": model.family,
                "sha256": model.sha256,
                "untrained": model.untrained,
                "licence": resource.licence,
                "warnings": to_json(resource.warnings),
            },
            "device": model.placement.device,
            "precision": model.placement.precision,
            "versions": {"brainlm_bids": __version__, **{n: version(n) for n in VERSIONS}},
            **options,
        }
