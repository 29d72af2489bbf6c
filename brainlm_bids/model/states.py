"""Embeddings of stretches of a recording: the tokens of the time patches that lie within them.

A window is cut for each stretch so that the stretch begins with a time patch: a grid of patches
that is the same for the whole recording would mix up to a patch of other volumes into either end.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.network import Indices

# A patch counts as one of a stretch if at least this share of its volumes lies within it.
SMALLEST_SHARE = 0.5


class StretchEmbeddings(NamedTuple):
    """Embeddings of N stretches of a recording.

    Attributes
    ----------
    cls
        (N, D) the CLS token of the window around each; it also sees what precedes and follows.
    tokens
        Of each the tokens (L, D) float16 of its time patches, all rows.
    share
        (N,) the share of the volumes of these patches that lies within the stretch.
    """

    cls: NDArray[np.float32]
    tokens: list[NDArray[np.float16]]
    share: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float32]:
        """(N, D) the mean over the tokens of each."""
        means = [tokens.astype(np.float32).mean(axis=0) for tokens in self.tokens]
        return np.stack(means)


def embed_stretches(
    model: LoadedModel,
    series: ArrayLike,
    coords: ArrayLike,
    stretches: ArrayLike,
    *,
    seed: int,
    input_gain: float = 1.0,
) -> StretchEmbeddings:
    """Embed stretches of a recording, each in a window of its own.

    Parameters
    ----------
    model
        The model.
    series
        (T, P) robust-scaled, sampled at the model's repetition time.
    coords
        (P, 3) MNI coordinates in mm.
    stretches
        (N, 2) of each the first volume, and the first after the last.
    seed
        Seed of the token order, where it matters.
    input_gain
        Factor on the series before it enters the model.

    Returns
    -------
    StretchEmbeddings
        Of all stretches.

    Raises
    ------
    UserError
        For a series that cannot be used.
    ValueError
        If a stretch is empty, or not one of the series.

    Examples
    --------
    >>> from brainlm_bids.model.checkpoint import load_model
    >>> rng = np.random.default_rng(0)
    >>> series, coords = rng.standard_normal((300, 424)), rng.uniform(-60, 60, (424, 3))
    >>> model = load_model("random:tiny", seed=0)
    >>> embed_stretches(model, series, coords, [[20, 60], [100, 150]], seed=0).mean.shape
    (2, 32)
    """
    values, places = np.asarray(series), np.asarray(stretches, dtype=np.int64).reshape(-1, 2)
    outside = (places[:, 0] < 0) | (places[:, 1] > len(values))
    if outside.any() or (places[:, 1] <= places[:, 0]).any():
        raise ValueError(f"stretches must lie within the {len(values)} volumes of the series")
    starts = np.array(
        [window_start(model, first, end, len(values)) for first, end in places.tolist()]
    )
    embedded = embed(
        model,
        values,
        coords,
        tr=1.0,
        seed=seed,
        input_gain=input_gain,
        starts=starts.astype(np.int64),
        tokens=True,
    )
    assert embedded.tokens is not None
    tokens, shares = [], []
    for window, place in zip(embedded.tokens, places - starts[:, None], strict=True):
        columns, share = patches_within(model, int(place[0]), int(place[1]))
        chosen = window[:, columns].reshape(-1, window.shape[-1])
        # tokens of padding were not seen
        tokens.append(chosen[np.isfinite(chosen).all(axis=1)])
        shares.append(share)
    return StretchEmbeddings(embedded.vectors, tokens, np.array(shares))


def window_start(model: LoadedModel, first: int, end: int, n_volumes: int) -> int:
    """First volume of the window in which a stretch begins with a patch, as central as possible.

    Parameters
    ----------
    model
        The model.
    first, end
        First volume of the stretch, and the first after its last.
    n_volumes
        Number of volumes of the series.

    Returns
    -------
    int
        Within the series, so that no window has padding that the whole recording has not.

    Examples
    --------
    >>> from brainlm_bids.model.checkpoint import load_model
    >>> model = load_model("random:tiny", seed=0)
    >>> start = window_start(model, 150, 190, 400)
    >>> (150 - start + model.network.margin) % model.network.patch
    0
    """
    patch, margin = model.network.patch, model.network.margin
    candidates = np.arange(max(n_volumes - model.window, 0) + 1)
    # the whole stretch is more than its alignment
    shown = np.minimum(end, candidates + model.window) - np.maximum(first, candidates)
    candidates = candidates[shown == shown.max()]
    aligned = candidates[(first - candidates + margin) % patch == 0]
    candidates = aligned if aligned.size else candidates
    central = (first + end - model.window) / 2
    return int(candidates[np.abs(candidates - central).argmin()])


def patches_within(model: LoadedModel, first: int, end: int) -> tuple[Indices, float]:
    """Time patches of a window that lie within a stretch.

    Parameters
    ----------
    model
        The model.
    first, end
        First volume of the stretch in the window, and the first after its last.

    Returns
    -------
    columns
        The patches of which at least half lies within; the one with the most, if there is none.
    share
        The share of their volumes that lies within the stretch.
    """
    patch, margin = model.network.patch, model.network.margin
    begins = np.arange(model.network.grid[1]) * patch - margin
    # what hangs over the window is padding, and no volumes
    begins, ends = np.clip([begins, begins + patch], 0, model.window)
    size = ends - begins
    inside = np.clip(np.minimum(end, ends) - np.maximum(first, begins), 0, None)
    columns = np.flatnonzero(inside >= SMALLEST_SHARE * np.maximum(size, 1))
    columns = columns[inside[columns] > 0]
    if not columns.size:
        columns = np.array([inside.argmax()])
    return columns.astype(np.int64), float(inside[columns].sum() / size[columns].sum())
