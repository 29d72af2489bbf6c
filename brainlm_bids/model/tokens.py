"""What a frozen network makes of a recording, for readouts: its tokens, their mean, and CLS."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.embedding import embed


class TokenTable(NamedTuple):
    """The tokens of the N windows of a recording.

    Attributes
    ----------
    tokens
        (N, K, D) float16: the tokens that the encoder saw, in the order of their places.
    places
        (K,) their places in the window, counted through its rows and then its time patches.
    cls
        (N, D) the CLS tokens.
    """

    tokens: NDArray[np.float16]
    places: NDArray[np.int64]
    cls: NDArray[np.float32]

    @property
    def pooled(self) -> dict[str, NDArray[np.float64]]:
        """The embeddings (D,) of the recording: CLS token and mean token, averaged over windows."""
        return {
            "cls": self.cls.mean(axis=0, dtype=np.float64),
            "mean": self.tokens.mean(axis=(0, 1), dtype=np.float64),
        }


def token_table(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    *,
    tr: float,
    seed: int,
    input_gain: float = 1.0,
    stride: int | None = None,
    token_orders: int = 1,
) -> TokenTable:
    """Embed a recording and keep what readouts are fitted to.

    Parameters
    ----------
    model
        A model of `checkpoint.load_model`.
    series
        (T, P) robust-scaled, sampled at the model's repetition time, without NaN; parcels without
        data are zero throughout.
    coords
        (P, 3) MNI coordinates in mm.
    tr
        Repetition time in s.
    seed
        Seed of the token order, where it matters.
    input_gain
        Factor on the series before it enters the model.
    stride
        Volumes between the beginnings of windows; by default the length of a window.
    token_orders
        Number of token orders to average over.

    Returns
    -------
    TokenTable
        Without the tokens of padding.

    Raises
    ------
    UserError
        For input or options that cannot be used.

    Examples
    --------
    >>> from brainlm_bids.model.checkpoint import load_model
    >>> rng = np.random.default_rng(0)
    >>> series, coords = rng.standard_normal((60, 424)), rng.uniform(-60, 60, (424, 3))
    >>> table = token_table(load_model("random:tiny", seed=0), series, coords, tr=0.735, seed=0)
    >>> table.cls.shape, table.pooled["mean"].shape
    ((1, 32), (32,))
    """
    embedded = embed(
        model,
        series,
        coords,
        tr=tr,
        seed=seed,
        input_gain=input_gain,
        stride=stride,
        token_orders=token_orders,
        tokens=True,
    )
    assert embedded.tokens is not None
    windows, width = len(embedded.tokens), embedded.tokens.shape[-1]
    tokens = embedded.tokens.reshape(windows, -1, width)
    places = np.flatnonzero(np.isfinite(tokens).all(axis=(0, 2)))
    return TokenTable(tokens[:, places], places, embedded.vectors)
