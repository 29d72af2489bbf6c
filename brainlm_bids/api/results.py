"""What `BrainLM` gives back: frozen records of arrays and tables, each with its provenance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainlm_bids import resources


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
    """Hidden values as the model predicts them, and how well, beside baselines.

    Attributes
    ----------
    series
        (T, 424) predictions in units of the scaled series, at the model's rate.
    metrics
        A row per predictor (model, parcel_mean, time, ridge, ridge_time): mse, mae, r2, pearson_r.
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
        A row per kind of features (model, series, untrained, coordinates, and attention where the
        network has one token per parcel) and two for random features that are only smooth over
        space (spatial_null_mean, spatial_null_95): accuracy, adjusted_rand, knn_accuracy, and
        knn_accuracy_distant (without neighbours within 30 mm and their mirror images).
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
