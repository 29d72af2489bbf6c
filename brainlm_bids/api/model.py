"""`BrainLM`: a network with its weights, used from Python with the steps of the BIDS App."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd

from brainlm_bids import resources
from brainlm_bids.api.errors import value_errors
from brainlm_bids.api.preparation import Prepared, Scaling, SeriesOptions, prepare
from brainlm_bids.api.provenance import provenance
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
from brainlm_bids.resources import ModelResource


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

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the network as a folder that `from_pretrained` and `--model` take.

        Parameters
        ----------
        save_directory
            The folder: config.json and model.safetensors in the released layout, in float32, with a
            model card (README.md) that states the licence. The record of a training is kept.

        Raises
        ------
        ValueError
            If the folder cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> BrainLM.from_pretrained("demo").save_pretrained(folder)
        >>> BrainLM.from_pretrained(folder).embedding_dim
        64
        """
        from brainlm_bids.training.saving import save_copy

        with value_errors():
            save_copy(Path(save_directory), self._model.network, self._resource)

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
    def embed(
        self,
        x: list[SeriesLike],
        tr: Any = None,
        *,
        pooling: Literal["cls", "mean", "max"] = ...,
        stride: int | None = ...,
        token_orders: int = ...,
        tokens: bool = ...,
        scaling: Scaling = ...,
        already_scaled: bool = ...,
        input_gain: float = ...,
        random_state: int = ...,
    ) -> EmbeddingList: ...

    @overload
    def embed(
        self,
        x: SeriesLike,
        tr: Any = None,
        *,
        pooling: Literal["cls", "mean", "max"] = ...,
        stride: int | None = ...,
        token_orders: int = ...,
        tokens: bool = ...,
        scaling: Scaling = ...,
        already_scaled: bool = ...,
        input_gain: float = ...,
        random_state: int = ...,
    ) -> Embedding: ...

    def embed(
        self,
        x: SeriesLike,
        tr: Any = None,
        *,
        pooling: Literal["cls", "mean", "max"] = "cls",
        stride: int | None = None,
        token_orders: int = 1,
        tokens: bool = False,
        scaling: Scaling = "own",
        already_scaled: bool = False,
        input_gain: float = 1.0,
        random_state: int = 42,
    ) -> Embedding | EmbeddingList:
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
        pooling
            "cls", or the "mean" or "max" of the other tokens.
        stride
            Samples from one window to the next; None: 200, so that windows do not overlap.
        token_orders
            Number of token orders over which embeddings of the 13M network are averaged.
        tokens
            Also return all tokens.
        scaling
            "own": with the recording's own statistics; or a TSV of medians and interquartile
            ranges (columns name, median and iqr).
        already_scaled
            The series is robustly scaled, so that it is only resampled.
        input_gain
            Factor on the scaled series.
        random_state
            Seed of the token orders.

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
        from brainlm_bids.api.embedding import embed_prepared

        several = is_many(x)
        series = read_many(x, tr, offline=self._offline) if several else [self._read(x, tr)]
        options = SeriesOptions(scaling, already_scaled, input_gain, random_state)
        made = []
        for one in series:
            prepared = prepare(one, options)
            result = embed_prepared(
                self._model,
                prepared,
                pooling=pooling,
                stride=stride,
                token_orders=token_orders,
                tokens=tokens,
            )
            whole = self._provenance(prepared, **result.provenance)
            made.append(replace(result, provenance=whole))
        return EmbeddingList(tuple(made)) if several else made[0]

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
        """Hide a share of the values, predict them, and compare with baselines.

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

        options = SeriesOptions(scaling, already_scaled, input_gain, random_state)
        prepared = prepare(self._read(x, tr), options)
        with value_errors():
            result = reconstruct(
                self._model,
                prepared.values,
                resources.parcels().xyz,
                mask_ratio=mask_ratio,
                seed=prepared.seed,
                input_gain=prepared.input_gain,
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
            self._provenance(prepared, mask_ratio=mask_ratio),
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

        The metrics also hold controls: the series itself, an untrained network of the same
        architecture, the coordinates of the parcels, and random features that are only smooth over
        space (mean and 95th percentile). A claim about the model has to beat all of them.

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

        options = SeriesOptions(scaling, already_scaled, input_gain, random_state)
        prepared = prepare(self._read(x, tr), options)
        parcels = resources.parcels()
        with value_errors():
            results = cluster_parcels(
                self._model,
                prepared,
                parcels,
                mask_ratio=mask_ratio,
            )
        metrics = {name: result.scores() for name, result in results.items()}
        metrics |= resources.spatial_null()
        index = pd.Index(parcels.names, name="parcel")
        return ParcelNetworks(
            pd.Series(results["model"].labels, index=index, name="label"),
            pd.DataFrame(metrics).T.rename_axis("features"),
            self._provenance(prepared, mask_ratio=mask_ratio),
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

        options = SeriesOptions(scaling, already_scaled, input_gain, random_state)
        prepared = prepare(self._read(x, tr), options)
        with value_errors():
            result = forecast(
                self._model,
                prepared.values,
                resources.parcels().xyz,
                n_volumes=n,
                seed=prepared.seed,
                input_gain=prepared.input_gain,
            )
        time = pd.Index((len(prepared.values) + np.arange(n)) * prepared.tr, name="time")
        return Forecast(
            pd.DataFrame(result, index=time, columns=list(resources.parcels().names)),
            self._provenance(prepared, n=n),
        )

    def _read(self, x: SeriesLike, tr: float | None) -> ParcelSeries:
        return read_series(x, tr, offline=self._offline)

    def _provenance(self, prepared: Prepared, **options: Any) -> dict[str, Any]:
        return provenance(self._resource, self._model, prepared, options)
