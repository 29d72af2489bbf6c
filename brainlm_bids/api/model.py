"""`BrainLM`: a network with its weights, used from Python with the steps of the BIDS App."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainlm_bids import __version__, resources
from brainlm_bids.api.series import (
    ParcelSeries,
    SeriesLike,
    is_many,
    read_many,
    read_series,
    value_errors,
)
from brainlm_bids.model.checkpoint import LoadedModel, load_model, untrained_twin
from brainlm_bids.parcels.sampling import at_rate
from brainlm_bids.parcels.scaling import ScalingStats, load_stats, recording_stats, scale
from brainlm_bids.resources import ModelResource
from brainlm_bids.settings import Settings

Pooling = Literal["cls", "mean", "max"]
RESAMPLING = "Kaiser-windowed sinc"
VERSIONS = ("numpy", "scipy", "torch")


@dataclass(frozen=True)
class Embedding:
    """What the encoder makes of one recording.

    Attributes
    ----------
    recording
        (D,) the mean over windows.
    windows
        (N, D) one vector per window of 200 samples.
    onset, duration
        (N,) seconds, of the data in each window.
    tokens
        (N, rows, columns, D) float16, NaN where a token was not seen; None unless asked for.
    provenance
        How it was made: resampling, scaling, filled parcels, model, seed, versions.
    """

    recording: NDArray[np.float32]
    windows: NDArray[np.float32]
    onset: NDArray[np.float64]
    duration: NDArray[np.float64]
    tokens: NDArray[np.float16] | None
    provenance: Mapping[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """A row per window: onset, duration (seconds) and one column per dimension."""
        pooling = self.provenance["pooling"]
        names = [f"{pooling}_{k:04d}" for k in range(self.windows.shape[1])]
        frame = pd.DataFrame(self.windows, columns=names)
        frame.insert(0, "duration", self.duration)
        frame.insert(0, "onset", self.onset)
        return frame


@dataclass(frozen=True)
class EmbeddingList(Sequence[Embedding]):
    """Embeddings of several recordings, in the order in which they were handed in."""

    items: tuple[Embedding, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __iter__(self) -> Iterator[Embedding]:
        return iter(self.items)

    @property
    def recording(self) -> NDArray[np.float32]:
        """(n, D) one vector per recording."""
        return np.stack([item.recording for item in self.items])

    def to_frame(self) -> pd.DataFrame:
        """The windows of all recordings, with the recording's number in the first column."""
        frames = [item.to_frame() for item in self.items]
        return pd.concat(frames, keys=range(len(frames)), names=["recording", None]).reset_index(
            level=0
        )


@dataclass(frozen=True)
class Reconstruction:
    """Hidden values as the model predicts them, and how well, beside two baselines.

    Attributes
    ----------
    series
        (T, 424) predictions in units of the scaled series, at the model's rate.
    metrics
        A row per predictor (model, parcel_mean, ridge): mse, mae, r2, pearson_r.
    parcel_metrics
        The same for each parcel.
    provenance
        How it was made.
    """

    series: pd.DataFrame
    metrics: pd.DataFrame
    parcel_metrics: pd.DataFrame
    provenance: Mapping[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """The predicted series, a column per parcel."""
        return self.series


@dataclass(frozen=True)
class ParcelNetworks:
    """Parcels clustered into the seven networks of AA-7, with the controls beside the model.

    Attributes
    ----------
    labels
        (424,) 1 to 7, indexed by parcel name, from the model's features.
    metrics
        A row per kind of features (model, series, untrained, and attention where the network has
        one token per parcel): accuracy, adjusted_rand, knn_accuracy, majority.
    provenance
        How it was made.
    """

    labels: pd.Series
    metrics: pd.DataFrame
    provenance: Mapping[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """A row per parcel: label, and the network that the atlas assigns."""
        reference = resources.parcels().network_index
        return pd.DataFrame({"label": self.labels, "reference": reference})


@dataclass(frozen=True)
class Forecast:
    """The samples that follow a recording, as the model predicts them.

    Attributes
    ----------
    series
        (n, 424) in units of the scaled series; the index is the time in seconds after the first
        volume of the recording.
    provenance
        How it was made.
    """

    series: pd.DataFrame
    provenance: Mapping[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """The predicted samples, a column per parcel."""
        return self.series


class BrainLM:
    """A BrainLM network with its weights.

    Make one with `from_pretrained`. Series are resampled to the model's rate and robustly scaled
    inside, as `brainlm-bids` does it; what was done is in the `provenance` of each result.

    Examples
    --------
    >>> from brainlm_bids import BrainLM
    >>> series = np.random.default_rng(0).normal(size=(260, 424))
    >>> out = BrainLM.from_pretrained("demo").embed(series, tr=0.735)
    >>> out.windows.shape[0], out.recording.shape == out.windows.shape[1:]
    (2, True)
    """

    def __init__(self, model: LoadedModel, resource: ModelResource) -> None:
        self._model = model
        self._resource = resource

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
            "111M", "650M" or "13M" (the published weights, downloaded at the first use; licence
            CC BY-NC-ND 4.0), "demo" (small, pretrained on simulated recordings), "random:13M" and
            its kind (untrained controls), or a folder with config.json and weights.
        device, precision
            Where and in which precision it runs; "auto" takes a GPU if there is one, and bfloat16
            on it.
        random_state
            Seed of untrained weights.
        offline
            Never download anything.

        Raises
        ------
        ValueError
            If the weights cannot be had, or are damaged.
        """
        with value_errors():
            resource = resources.find_model(str(name), offline=offline)
            if resource is None:
                raise ValueError('"none" is no model')
            source = resource.name if resource.path is None else str(resource.path)
            model = load_model(source, seed=random_state, device=device, precision=precision)
        return cls(model, resource)

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
            One recording (see `brainlm_bids.api.series.read_series`), or a list of them.
        tr
            Repetition time in seconds; one for each where `x` is a list and they differ.
        **options
            pooling ("cls", "mean", "max"); stride (samples from one window to the next, 200);
            token_orders (1; how many orders of tokens the 13M's embeddings are averaged over);
            tokens (False; also return all tokens); scaling ("own", or a TSV of medians and
            interquartile ranges); already_scaled (False); input_gain (1.0); random_state (42).

        Returns
        -------
        Embedding, or EmbeddingList for a list

        Raises
        ------
        ValueError
            In one line, for a series that no number should be made from.
        """
        if is_many(x):
            return EmbeddingList(
                tuple(self._embed(series, **options) for series in read_many(x, tr))
            )
        return self._embed(read_series(x, tr), **options)

    def _embed(
        self,
        series: ParcelSeries,
        *,
        pooling: Pooling = "cls",
        stride: int | None = None,
        token_orders: int = 1,
        tokens: bool = False,
        random_state: int = 42,
        **preparation: Any,
    ) -> Embedding:
        from brainlm_bids.model.embedding import embed

        values, tr, gain, provenance = self._prepare(series, **preparation)
        with value_errors():
            result = embed(
                self._model,
                values,
                resources.parcels().xyz,
                tr=tr,
                seed=random_state,
                input_gain=gain,
                stride=stride,
                pooling=pooling,
                token_orders=token_orders,
                tokens=tokens,
            )
        provenance |= {
            "pooling": pooling,
            "stride": stride or self._model.window,
            "padded_samples": result.n_padded,
            "token_order_seed": result.token_order_seed,
            "token_orders": token_orders,
            "random_state": random_state,
        }
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
        random_state: int = 42,
        **preparation: Any,
    ) -> Reconstruction:
        """Hide a share of the values, predict them, and compare with two baselines.

        Parameters
        ----------
        x, tr
            A recording and its repetition time in seconds, as for `embed`.
        mask_ratio
            Share of the tokens that is hidden at a time, between 0 and 1.
        random_state
            Seed of the masks.
        **preparation
            scaling, already_scaled, input_gain as for `embed`.

        Returns
        -------
        Reconstruction
        """
        from brainlm_bids.model.reconstruction import reconstruct

        values, tr, gain, provenance = self._prepare(read_series(x, tr), **preparation)
        with value_errors():
            result = reconstruct(
                self._model,
                values,
                resources.parcels().xyz,
                mask_ratio=mask_ratio,
                seed=random_state,
                input_gain=gain,
            )
        provenance |= {"mask_ratio": mask_ratio, "random_state": random_state}
        names = list(resources.parcels().names)
        index = pd.Index(np.arange(len(values)) * tr, name="time")
        per_parcel = {
            predictor: pd.DataFrame(table, index=pd.Index(names, name="parcel"))
            for predictor, table in result.parcel_metrics.items()
        }
        return Reconstruction(
            pd.DataFrame(result.series, index=index, columns=names),
            pd.DataFrame(result.metrics).T.rename_axis("predictor"),
            pd.concat(per_parcel, names=["predictor"]),
            provenance,
        )

    def networks(
        self,
        x: SeriesLike,
        tr: float | None = None,
        *,
        mask_ratio: float = 0.2,
        random_state: int = 42,
        **preparation: Any,
    ) -> ParcelNetworks:
        """Cluster the parcels into seven networks by what the model makes of them.

        The table of metrics holds the raw series and an untrained network of the same architecture
        beside the model: a claim about the model has to beat both.

        Parameters
        ----------
        x, tr, **preparation
            As for `embed`.
        mask_ratio
            Of the reconstruction that the image models' features are made from.
        random_state
            Seed of masks, token orders and untrained weights.

        Returns
        -------
        ParcelNetworks
        """
        from brainlm_bids.model.networks import correlation_profile, parcel_networks

        values, tr, gain, provenance = self._prepare(read_series(x, tr), **preparation)
        shared: dict[str, Any] = {
            "tr": tr,
            "gain": gain,
            "seed": random_state,
            "mask_ratio": mask_ratio,
        }
        control = untrained_twin(self._model, random_state + 1)
        reference = resources.parcels().network_index
        with value_errors():
            features = {
                "model": _parcel_features(self._model, values, **shared),
                "series": correlation_profile(values),
                "untrained": _parcel_features(control, values, **shared),
            }
            results = {
                name: parcel_networks(table, reference, random_state)
                for name, table in features.items()
            }
        scores = ("accuracy", "adjusted_rand", "knn_accuracy", "majority")
        metrics = {
            name: {score: float(getattr(result, score)) for score in scores}
            for name, result in results.items()
        }
        provenance |= {"mask_ratio": mask_ratio, "random_state": random_state}
        names = pd.Index(resources.parcels().names, name="parcel")
        return ParcelNetworks(
            pd.Series(results["model"].labels, index=names, name="label"),
            pd.DataFrame(metrics).T.rename_axis("features"),
            provenance,
        )

    def forecast(
        self,
        x: SeriesLike,
        tr: float | None = None,
        *,
        n: int = 20,
        random_state: int = 42,
        **preparation: Any,
    ) -> Forecast:
        """Predict the `n` samples, at the model's rate, that follow a recording.

        Everything in `x` is the past: it is resampled and scaled by itself. To score a forecast,
        cut the recording in the scanner's own volumes before it is handed in.

        Parameters
        ----------
        x, tr, **preparation
            As for `embed`.
        n
            Samples ahead, at the model's rate (0.735 s).
        random_state
            Seed of the token order.

        Returns
        -------
        Forecast
        """
        from brainlm_bids.model.future import forecast

        series = read_series(x, tr)
        values, tr, gain, provenance = self._prepare(series, **preparation)
        with value_errors():
            result = forecast(
                self._model,
                values,
                resources.parcels().xyz,
                n_volumes=n,
                seed=random_state,
                input_gain=gain,
            )
        provenance |= {"n": n, "random_state": random_state}
        time = pd.Index((len(values) + np.arange(n)) * tr, name="time")
        columns = list(resources.parcels().names)
        return Forecast(pd.DataFrame(result, index=time, columns=columns), provenance)

    def _prepare(
        self,
        series: ParcelSeries,
        *,
        scaling: str | Path | ScalingStats = "own",
        already_scaled: bool = False,
        input_gain: float = 1.0,
    ) -> tuple[NDArray[np.float32], float, float, dict[str, Any]]:
        """The series at the model's rate and scaled, its rate, the gain, and the provenance."""
        values, tr = at_rate(series.values, series.tr, Settings.model_tr)
        if already_scaled:
            filled = ~np.isfinite(values).all(axis=0)
            scaled = np.where(filled, 0.0, values)
        else:
            with value_errors():
                scaled, filled = scale(values, self._statistics(values, scaling))
        if filled.all():
            raise ValueError(f"{series.source}: no parcel can be scaled")
        names = np.asarray(resources.parcels().names)
        resource, model = self._resource, self._model
        provenance = {
            "source": series.source,
            "source_repetition_time": series.tr,
            "repetition_time": tr,
            "resampling": None if tr == series.tr else RESAMPLING,
            "scaling": "none, as given" if already_scaled else _described(scaling),
            "input_gain": input_gain,
            "filled_parcels": names[filled].tolist(),
            "model": {
                "name": resource.name,
                "label": resource.label,
                "family": model.family,
                "sha256": model.sha256,
                "untrained": model.untrained,
                "licence": resource.licence,
                "warning": resource.warning,
            },
            "device": model.placement.device,
            "precision": model.placement.precision,
            "notes": list(series.notes),
            "versions": {"brainlm_bids": __version__, **{n: version(n) for n in VERSIONS}},
        }
        return scaled.astype(np.float32), tr, float(input_gain), provenance

    @staticmethod
    def _statistics(
        values: NDArray[np.float64], scaling: str | Path | ScalingStats
    ) -> ScalingStats:
        if isinstance(scaling, ScalingStats):
            return scaling
        if scaling == "own":
            return recording_stats(values)
        return load_stats(Path(scaling), list(resources.parcels().names))


def _described(scaling: str | Path | ScalingStats) -> str:
    if isinstance(scaling, ScalingStats):
        return "statistics as given"
    return "this recording" if scaling == "own" else Path(scaling).name


def _parcel_features(
    model: LoadedModel,
    values: NDArray[np.float32],
    *,
    tr: float,
    gain: float,
    seed: int,
    mask_ratio: float,
) -> NDArray[np.float64]:
    """Features (424, F): parcel tokens, or connectivity of what was predicted while hidden."""
    from brainlm_bids.model.embedding import embed
    from brainlm_bids.model.networks import correlation_profile
    from brainlm_bids.model.reconstruction import reconstruct

    xyz = resources.parcels().xyz
    embedded = embed(model, values, xyz, tr=tr, seed=seed, input_gain=gain)
    if embedded.parcels is not None:
        return embedded.parcels
    predicted = reconstruct(
        model,
        values,
        xyz,
        mask_ratio=mask_ratio,
        seed=seed,
        input_gain=gain,
        with_baselines=False,
    )
    return correlation_profile(predicted.series)
