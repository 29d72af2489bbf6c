"""`BrainLMEmbedder`: embeddings as a step of a scikit-learn pipeline."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from brainlm_bids.api.model import BrainLM


class BrainLMEmbedder(TransformerMixin, BaseEstimator):
    """Turn recordings into embeddings, one row each.

    The network is not fitted: `fit` loads it. Scaling uses each recording's own statistics, so that
    nothing passes from training to test recordings.

    Parameters
    ----------
    model
        As for `BrainLM.from_pretrained`.
    tr
        Repetition time in seconds, for all recordings; None where files say it.
    pooling
        "cls", or the "mean" or "max" of the other tokens.
    stride
        Samples from one window to the next; None: 200, so that windows do not overlap.
    token_orders
        Number of token orders over which embeddings of the 13M network are averaged.
    input_gain
        Factor on the scaled series.
    already_scaled
        Whether the recordings are robustly scaled already.
    device, precision
        As for `BrainLM.from_pretrained`.
    random_state
        Seed of token orders and untrained weights.
    offline
        Never download weights.

    Attributes
    ----------
    model_
        The network.
    n_features_out_
        Length of an embedding.

    Examples
    --------
    >>> import numpy as np
    >>> from brainlm_bids import BrainLMEmbedder
    >>> recordings = np.random.default_rng(0).normal(size=(2, 200, 424))
    >>> embedder = BrainLMEmbedder("demo", tr=0.735)
    >>> embedder.fit_transform(recordings).shape == (2, embedder.n_features_out_)
    True
    """

    def __init__(
        self,
        model: str = "111M",
        *,
        tr: float | None = None,
        pooling: Literal["cls", "mean", "max"] = "cls",
        stride: int | None = None,
        token_orders: int = 1,
        input_gain: float = 1.0,
        already_scaled: bool = False,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        random_state: int = 42,
        offline: bool = False,
    ) -> None:
        self.model = model
        self.tr = tr
        self.pooling = pooling
        self.stride = stride
        self.token_orders = token_orders
        self.input_gain = input_gain
        self.already_scaled = already_scaled
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.offline = offline

    def fit(self, X: Any, y: Any = None) -> "BrainLMEmbedder":
        """Load the network.

        Parameters
        ----------
        X
            Recordings: (n, T, 424), or a list of what `BrainLM.embed` takes. Nothing is fitted.
        y
            Ignored.

        Returns
        -------
        BrainLMEmbedder
        """
        del y
        _check_several(X)
        self.model_ = BrainLM.from_pretrained(
            self.model,
            device=self.device,
            precision=self.precision,
            random_state=self.random_state,
            offline=self.offline,
        )
        self.n_features_out_ = self.model_.embedding_dim
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embed recordings.

        Parameters
        ----------
        X
            (n, T, 424), or a list of n recordings.

        Returns
        -------
        numpy.ndarray
            (n, D) float32.
        """
        check_is_fitted(self)
        _check_several(X)
        embeddings = self.model_.embed(
            list(X),
            self.tr,
            pooling=self.pooling,
            stride=self.stride,
            token_orders=self.token_orders,
            input_gain=self.input_gain,
            already_scaled=self.already_scaled,
            random_state=self.random_state,
        )
        return embeddings.recording

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the dimensions, as in the tables of embeddings."""
        del input_features
        check_is_fitted(self)
        names = [f"{self.pooling}_{k:04d}" for k in range(self.n_features_out_)]
        return np.asarray(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.no_validation = True
        tags.transformer_tags.preserves_dtype = []  # embeddings are float32
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        # weights are loaded again rather than pickled: those of BrainLM must not be passed on
        state.pop("model_", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "n_features_out_" in state:
            self.fit(None)


def _check_several(X: Any) -> None:
    """Refuse what is one recording, or an array of another number of dimensions."""
    shape = getattr(X, "shape", None)
    if isinstance(X, np.ndarray) and X.ndim != 3:
        raise ValueError(f"X has the shape {shape}; expected (recordings, volumes, 424)")
    if isinstance(X, str | Path) or (shape is not None and not isinstance(X, np.ndarray)):
        raise ValueError(f"X is one recording ({type(X).__name__}); pass a list of recordings")
